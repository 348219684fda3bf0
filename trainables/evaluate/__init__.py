"""What a trained model or a distilled set is worth: accuracy, fairness, robustness, privacy, informativeness. Rows.

``intervals.py`` holds the intervals about test images that all of them use, ``paired.py`` comparisons of two models on
the same images, which tables read without torch. Then, one for each property: ``accuracy.py``, ``fairness.py``,
``robustness/``, ``privacy/``, ``embedding.py``.
"""
