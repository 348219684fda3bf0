"""The audit ``seed``, the setting of Chen et al. 2023: one draw of images is distilled, test images are non-members.

The paper defines neither its attack nor its non-members; ours are the test images of the same classes, all of them
(``nonmember_source`` test) and as many as there are members, drawn class by class (test_balanced). Attacks learn from
shadows that are distillations of other draws, each asked about its own images and as many others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainables.configs import MembershipAttack, PrivacyConfig
from trainables.context import Context
from trainables.data.cache import Split
from trainables.evaluate.accuracy import Integers, Row
from trainables.evaluate.privacy.attacks import NEEDS, NotApplicable, Scored, ShadowRows, Target, score, threshold_of
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
from trainables.evaluate.privacy.metrics import INIT, NON_MEMBER, OTHER, Audited
from trainables.evaluate.privacy.release import nearness
from trainables.evaluate.privacy.signals import asked, seed_rows, spread, start_members
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
    sources = {"test_balanced": member | _balanced(outside.labels, count, config, member), "test": np.ones_like(member)}
    name = "seed" if what == "model" else "seed.start"
    base: Row = {"audit": "seed"} if what == "model" else {"audit": "seed", "iteration": 0}

    def measure(attack: MembershipAttack, attacked: Attacked, columns: Row, variant: str = "") -> None:
        context.poll()
        found.keep(f"{name}.scores.{attack}{variant}", attacked.scored.values)
        whole = Audited(
            attacked.scored.values, member, ids, role, labels, threshold=attacked.threshold,
            pooled=attacked.scored.pooled,
        )  # fmt: skip
        for source, chosen in sources.items():
            told = {**columns, "nonmember_source": source, **attacked.scored.settings}
            found.rows += rows_of(config, [whole.take(chosen)], told, parts)

    found.rows += accuracy_rows([outside], base)
    if what == "model":
        truth = (
            ("example_id", np.concatenate([inside.ids, outside.ids])), ("from_test", ~member), ("is_member", member),
            ("label", labels), ("role", role.astype(np.uint8)), ("balanced", sources["test_balanced"]),
        )  # fmt: skip
        for column, values in truth:
            found.keep(f"seed.{column}", values)
    target = Target(np.concatenate([inside.logits, outside.logits]).astype(np.float64), labels)
    images = np.concatenate([split.images[inside.ids], test.images[outside.ids]]) if what == "model" else None
    for attack in config.attacks:
        context.poll()
        columns = {**base, "attack": attack, "threat_model": "blackbox"}
        if NEEDS[attack] == "images":
            if images is None:
                continue  # one set, one pair of distributions: said once
            if attack == "blind":
                columns["threat_model"] = "none"
                for source, chosen in sources.items():
                    whole = Audited(np.zeros(len(ids)), member, ids, role, labels).take(chosen)
                    told = {**columns, "nonmember_source": source}
                    found.rows += control_rows("seed", [(whole, images[chosen], parts)], told)
                continue
            columns["threat_model"] = "data_release"
            if released is None:
                reason = "no set is released: the model is trained on the origin itself"
                found.rows += unfit_rows("seed", reason, columns)
                continue
            near = nearness(images, labels, released)
            measure(attack, Attacked(Scored(near.pixel, {"distance": "pixel"})), columns)
            measure(attack, Attacked(Scored(near.relative, {"distance": "relative"})), columns, "_relative")
            continue
        # Shadows of a start would be starts themselves; those of whole distillations are all there are.
        columns |= shadow_columns(config, attack, config.shadows, "full" if what == "model" else "unequal")
        try:
            if NEEDS[attack] == "shadows":
                raise NotApplicable(f"{attack} {NO_SHADOWS}")
            measure(attack, Attacked(score(attack, target, rows), threshold_of(attack, rows)), columns)
        except NotApplicable as reason:
            found.rows += unfit_rows("seed", str(reason), columns)


def _balanced(labels: Integers, count: int, config: PrivacyConfig, member: Booleans) -> Booleans:
    """Among all candidates, as many test images as members, equally many of each class; all where there are fewer."""
    chosen = np.zeros(len(member), dtype=np.bool_)
    chosen[count + spread(labels, count, config.origin.per_class or 0, config.origin.draw or 0)] = True
    return chosen
