"""How well membership in the origin of a model can be told: attacks, audits, and numbers with intervals.

inputs.py      what attacks look at, and what they say
roc.py         curves and their intervals
metrics.py     rows of scores with the truth
panel.py       the strongest of several attacks
one_run.py     a lower bound on epsilon, from one run
statistics.py  attacks on one model's logits
learned.py     attacks that learn from shadows' outputs
lira.py        LiRA, with shadows on the same candidates
rmia.py        RMIA, with the same shadows
release.py     attacks on the distilled images
blind.py       the control without a model
attacks.py     runs an attack, each named by its record in ``trainables/attacks.py``
designs.py     the three designs of an audit: whom it attacks, from the folders of a stage
audit.py       the stage
"""
