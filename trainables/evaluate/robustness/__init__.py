"""How easily small changes of its input mislead one model: attacks, what they did to each image, and the numbers.

network.py          the model as an attack sees it
foolbox_attacks.py  foolbox's attacks, in its two families
autoattack.py       AutoAttack, of another library
attack.py           one attack on one model, image by image, as its record in ``trainables/attacks.py`` says
rows.py             what several attacks on one model say, as rows
"""

import os

# foolbox imports GitPython, which fails where git is missing. ddray sets this for its workers; a stage may also run
# in a process of another kind.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
