"""Which audits of membership the data have enough images for, and with how many of each. Pure.

Legend: n is ``origin_per_class``; all numbers are images of each class. A pool takes 2n, and what follows it is the
population and then the reserve, which are never members. A shadow of the audit ``seed`` is distilled from a block of n
images and asked about the next block, and the origin itself is block 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.attacks import EVERY_AUDIT, MEMBERSHIP_ATTACKS, Audit
from trainables.configs import MembershipAttackName, PrivacySettings, SignalsConfig

NO_MEMBERS = "seed: its members are not known; got no list of them; expected the images it was made of (--members)"
"""Why membership of what was imported is not audited."""
MOST_ROWS = 500
"""Of one point; there are fewer shadows of the audit ``seed`` than that."""
COIN_DEVIATIONS = 5.0
"""A coin keeps n of the pool's 2n images give or take sqrt(n / 2); so many deviations fewer are counted on."""


@dataclass(frozen=True)
class Audits:
    """What is asked of privacy, cut to what one origin allows; what does not apply is zero."""

    audit: tuple[Audit, ...]
    unfit: dict[str, str]
    """Audit that was asked for -> why the data cannot have it."""
    rows: int
    targets: int
    shadows: int
    canaries: int
    signals: SignalsConfig
    """Of the models of pool and coin."""
    attacks: tuple[MembershipAttackName, ...]
    """In the order of ``MEMBERSHIP_ATTACKS``: how a sweep lists them makes no difference."""


def audits(requested: PrivacySettings, per_class: int, class_size: int, real_images: int, num_classes: int) -> Audits:
    """Cut a request to the data.

    Args:
        requested: What the sweep says.
        per_class: n, at least 1.
        class_size: Training images in the smallest class, at least n.
        real_images: Of each class that the method needs to start from or to choose among; 0 for noise.
        num_classes: Of the origin.
    """
    assert 1 <= per_class <= class_size, (per_class, class_size)
    unfit: dict[str, str] = {}
    for audit in EVERY_AUDIT:
        reason = _unfit(audit, per_class, class_size, real_images)
        if audit in requested.audit and reason is not None:
            unfit[audit] = reason
    fit = tuple(audit for audit in EVERY_AUDIT if audit in requested.audit and audit not in unfit)
    left = max(0, class_size - 2 * per_class) if "pool" in fit or "one_run" in fit else 0
    population = min(requested.population_of(num_classes), left)
    rows = requested.num_rows if "pool" in fit else 0
    return Audits(
        audit=fit,
        unfit=unfit,
        rows=rows,
        targets=max(1, min(requested.targets, rows // 2)),
        shadows=max(0, min(requested.shadows, class_size // per_class - 2)) if "seed" in fit else 0,
        canaries=requested.canaries if "pool" in fit else 0,
        signals=SignalsConfig(population=population, reserve=min(requested.reserve, left - population)),
        attacks=tuple(attack for attack in MEMBERSHIP_ATTACKS if attack in requested.attacks),
    )


def audits_of_import(requested: PrivacySettings, *, members_known: bool) -> Audits:
    """The audit of what was made elsewhere: against test images, where its members are known.

    There are no shadows, because it cannot be made again from other images; the audits that need them are left out.
    """
    return Audits(
        audit=("seed",) if members_known else (),
        unfit={} if members_known else {"seed": NO_MEMBERS},
        rows=0,
        targets=1,
        shadows=0,
        canaries=0,
        signals=SignalsConfig(),
        attacks=requested.attacks,
    )


def _unfit(audit: Audit, per_class: int, class_size: int, real_images: int) -> str | None:
    if audit == "seed":
        return None
    if 2 * per_class > class_size:
        return (
            f"{audit}: its pool takes twice origin_per_class; got {per_class}, so {2 * per_class} images of each "
            f"class; expected at most the {class_size} there are"
        )
    if audit == "one_run":
        surely = math.floor(per_class - COIN_DEVIATIONS * math.sqrt(per_class / 2))
        needed = max(1, real_images)
        if surely < needed:
            return (
                f"one_run: coins may leave too few images of a class; got {max(0, surely)} that can be counted on of "
                f"a pool of {2 * per_class}; expected at least {needed}, which the method takes"
            )
    return None
