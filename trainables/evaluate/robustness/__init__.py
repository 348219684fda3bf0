"""How easily small changes of its input mislead one model: attacks, what they did to each image, and the numbers.

Nothing is imported here, so that ``paired.py`` stays free of torch.
"""

import os

# foolbox imports GitPython, which fails where git is missing. ddray sets this for its workers; a stage may also run
# in a process of another kind.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
