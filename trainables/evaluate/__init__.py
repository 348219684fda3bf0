"""What a trained model or a distilled set is worth: accuracy, fairness, robustness, privacy, informativeness. Rows.

student.py     Student's t of several variances, for means over targets and differences from real images
intervals.py   intervals about test images, which all of them use
paired.py      comparisons of two models on the same images, which tables read without torch
accuracy.py    accuracy and loss, overall and by class; what is known of the training
fairness.py    how unequally a model treats the classes
groups.py      the same of groups that classes should not depend on
robustness/    how easily small changes of an image mislead it
privacy/       how well members of its training set can be told
embedding.py   where a distilled set lies among real images; one map of several sets
"""
