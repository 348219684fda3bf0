"""How easily small changes of its input mislead one model: attacks, what they did to each image, and the numbers.

In the order of the flow: ``network.py`` (the model as an attack sees it), ``foolbox_attacks.py`` and ``autoattack.py``
(the attacks, each named by its record in ``trainables/attacks.py``), ``attack.py`` (one attack on one model, image by
image), ``rows.py`` (what several attacks on one model say, as rows).
"""

import os

# foolbox imports GitPython, which fails where git is missing. ddray sets this for its workers; a stage may also run
# in a process of another kind.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
