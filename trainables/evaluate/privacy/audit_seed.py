"""The audit ``seed``, the setting of Chen et al. 2023: one draw of images is distilled, test images are non-members.

The paper defines neither its attack nor its non-members; ours are the test images of the same classes, all of them
(``nonmember_source`` test) and as many of each class as there are members of it (test_balanced). No class may tell who
is a member: members are left out of test_balanced where classes cannot be matched otherwise, and there are no rows of
test where classes alone would tell more than chance. Attacks learn from shadows that are distillations of other draws,
each asked about its own images and as many others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainables.configs import MembershipAttackName, OriginConfig, PrivacyConfig
from trainables.context import Context
from trainables.data.cache import Split
from trainables.evaluate.accuracy import Integers, Row
from trainables.evaluate.privacy.attacks import (
    NEEDS,
    NotApplicable,
    ShadowRows,
    Target,
    score,
    threat_of,
    threshold_of,
)
from trainables.evaluate.privacy.findings import (
    Attacked,
    Findings,
    accuracy_rows,
    control_rows,
    parts_of,
    rows_of,
    shadow_columns,
    unfit_rows,
)
from trainables.evaluate.privacy.inputs import Booleans
from trainables.evaluate.privacy.metrics import Audited
from trainables.evaluate.privacy.release import NO_START, nearness
from trainables.evaluate.privacy.roc import auc, null_reach
from trainables.evaluate.privacy.roles import INIT, NON_MEMBER, OTHER
from trainables.evaluate.privacy.signals import asked, seed_rows, some_of_each, start_members
from trainables.payloads import DistilledSet

NO_SHADOWS = "needs shadows asked about the target's own candidates; those of this audit have images of their own"


def audit_seed(
    config: PrivacyConfig, inputs: Mapping[str, Path], context: Context, split: Split, test: Split, found: Findings
) -> None:
    """Rows and details of the audit, also of the undistilled start where there is one."""
    rows = seed_rows(config, inputs)
    for what in ("model", "start"):
        if f"seed.{what}" in inputs:
            _audit(config, inputs, context, split, test, rows, found, what)


def _audit(
    config: PrivacyConfig,
    inputs: Mapping[str, Path],
    context: Context,
    split: Split,
    test: Split,
    rows: ShadowRows | None,
    found: Findings,
    what: str,
) -> None:
    said = asked(inputs[f"seed.{what}"])
    inside, outside = said["origin"], said["test"]
    count = len(inside.ids)
    released = DistilledSet.load(inputs["seed.set"]) if "seed.set" in inputs else None
    member = np.arange(count + len(outside.ids)) < count
    role = np.where(member, OTHER, NON_MEMBER)
    role[:count][start_members(inside.ids, np.ones(count, dtype=np.bool_), released)] = INIT
    labels = np.concatenate([inside.labels, outside.labels])
    # Test images have numbers of their own, which do not meet those of the train split.
    ids = np.concatenate([inside.ids, outside.ids + len(split.labels)])
    parts = parts_of(config, "seed")
    sources = {"test_balanced": balanced(inside.labels, outside.labels, config.origin), "test": np.ones_like(member)}
    unfair = {"test": class_problem(inside.labels, outside.labels)}
    name = "seed" if what == "model" else "seed.start"
    base: Row = {"audit": "seed"} if what == "model" else {"audit": "seed", "iteration": 0}

    def measure(attack: MembershipAttackName, attacked: Attacked, columns: Row, variant: str = "") -> None:
        context.poll()
        found.keep(f"{name}.scores.{attack}{variant}", attacked.scored.values)
        whole = Audited(
            attacked.scored.values,
            member,
            ids,
            role,
            labels,
            threshold=attacked.threshold,
            pooled=attacked.scored.pooled,
        )
        for source, chosen in sources.items():
            told = {**columns, "nonmember_source": source, **attacked.scored.settings}
            if reason := unfair.get(source):
                found.rows += unfit_rows("seed", reason, told)
                continue
            found.rows += rows_of(config, [whole.take(chosen)], told, parts, count)

    found.rows += accuracy_rows([outside], base)
    if what == "model":
        truth = (
            ("example_id", np.concatenate([inside.ids, outside.ids])),
            ("from_test", ~member),
            ("is_member", member),
            ("label", labels),
            ("role", role.astype(np.uint8)),
            ("balanced", sources["test_balanced"]),
        )
        for column, values in truth:
            found.keep(f"seed.{column}", values)
    target = Target(np.concatenate([inside.logits, outside.logits]).astype(np.float64), labels)
    images = np.concatenate([split.images[inside.ids], test.images[outside.ids]]) if what == "model" else None
    for attack in config.attacks:
        context.poll()
        columns = {**base, "attack": attack, "threat_model": threat_of(attack)}
        if NEEDS[attack] == "images":
            if images is None:
                if attack == "data_release":
                    found.rows += unfit_rows("seed", NO_START, columns)
                continue  # blind: one pair of distributions, said once
            if attack == "blind":
                for source, chosen in sources.items():
                    whole = Audited(np.zeros(len(ids)), member, ids, role, labels).take(chosen)
                    told = {**columns, "nonmember_source": source}
                    if reason := unfair.get(source):
                        found.rows += unfit_rows("seed", reason, told)
                        continue
                    found.rows += control_rows("seed", [(whole, images[chosen], parts)], told)
                continue
            if released is None:
                reason = "no set is released: the model is trained on the origin itself"
                found.rows += unfit_rows("seed", reason, columns)
                continue
            (near,) = nearness(images, labels, [released], config.dataset, context.poll)
            for variant, scored in near.variants().items():
                measure(attack, Attacked(scored), columns, variant)
            continue
        # Shadows of a start would be starts themselves; those of whole distillations are all there are.
        columns |= shadow_columns(config, attack, config.shadows, "full" if what == "model" else "unequal")
        try:
            if NEEDS[attack] == "shadows":
                raise NotApplicable(f"{attack} {NO_SHADOWS}")
            measure(attack, Attacked(score(attack, target, rows), threshold_of(attack, rows)), columns)
        except NotApplicable as reason:
            found.rows += unfit_rows("seed", str(reason), columns)


def balanced(inside: Integers, outside: Integers, origin: OriginConfig) -> Booleans:
    """The candidates of ``test_balanced``, with members and others in equal shares of each class.

    As many test images of each class as there are members of it, or all. All members stay where every class then has
    the same share of either side, as after a draw; elsewhere as many of each class stay as there are test images.

    Args:
        inside: (m,) positions of the members' classes.
        outside: (n,) of the test images'.
        origin: Of the members; its numbers choose who stays.

    Returns:
        (m + n,): members, then test images.
    """
    members, others = _counts(inside, outside)
    each = np.minimum(members, others)
    counts = dict(enumerate(each.tolist()))
    numbers = (origin.per_class or 0, origin.draw or 0)
    chosen = np.zeros(len(inside) + len(outside), dtype=np.bool_)
    chosen[len(inside) + some_of_each(outside, counts, *numbers)] = True
    alike = np.array_equal(members * each.sum(), each * members.sum())
    chosen[np.arange(len(inside)) if alike else some_of_each(inside, counts, "members", *numbers)] = True
    return chosen


def class_problem(inside: Integers, outside: Integers) -> str | None:
    """Why members cannot be told from all test images fairly: their classes are enough. None: those say no more than
    chance does.

    Args:
        inside: (m,) positions of the members' classes.
        outside: (n,) of the test images'.
    """
    members, others = _counts(inside, outside)
    share_in, share_out = members / members.sum(), others / others.sum()
    likely = share_in / np.maximum(share_in + share_out, np.finfo(np.float64).tiny)  # the best score there is
    member = np.arange(len(inside) + len(outside)) < len(inside)
    alone = auc(likely[np.concatenate([inside, outside])], member)
    top = 0.5 + null_reach(len(inside), len(outside))
    if alone <= top:
        return None
    return (
        f"members and test images are of other classes: the class alone gives an AUC of {alone:.3f}, where chance "
        f"gives {top:.3f} at most; test_balanced has equally many of each class"
    )


def _counts(inside: Integers, outside: Integers) -> tuple[Integers, Integers]:
    """(K,) of each side."""
    classes = int(max(inside.max(), outside.max())) + 1
    return np.bincount(inside, minlength=classes), np.bincount(outside, minlength=classes)
