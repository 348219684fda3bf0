"""DM: dataset condensation with distribution matching (Zhao & Bilen, WACV 2023; main_DM.py).

Every iteration embeds real and distilled images of each class with a new random network, after one shared (Siamese)
augmentation per class, and moves the distilled images so that the classes' mean embeddings agree
(``distributions.py``, phi = psi, everything before the last linear layer).
"""

from __future__ import annotations

from trainables.data.origins import Origin
from trainables.distill.context import DistillContext
from trainables.distill.distributions import match_means
from trainables.methods import DMSettings
from trainables.payloads import DistilledSet


def distill(origin: Origin, settings: DMSettings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by distribution matching.

    Differs from the authors' code: ``iterations`` updates instead of one more; batch statistics (norm ``batch``) are
    taken over whatever the classes have, where theirs needs ``batch_real`` images of every class; no clock seeds
    anything.

    Raises:
        StageFailure: The loss or an image is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """
    return match_means(origin, settings, context)
