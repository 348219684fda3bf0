"""How well membership in the origin of a model can be told: attacks, audits, and numbers with intervals.

In the order of the flow: ``inputs.py`` (what attacks look at, and what they say), ``designs.py`` (the three designs of
an audit: whom it attacks, from the folders of a stage). The attacks, each named by its record in
``trainables/attacks.py``: ``statistics.py`` (of one model's logits), ``learned.py`` (from shadows' outputs),
``lira.py`` and ``rmia.py`` (with shadows on the same candidates), ``release.py`` (of the distilled images) and
``blind.py`` (the control without a model); ``attacks.py`` runs them. Numbers: ``roc.py`` (curves and their intervals),
``metrics.py`` (rows of scores with the truth), ``one_run.py`` (a lower bound on epsilon). ``audit.py`` is the stage.
"""
