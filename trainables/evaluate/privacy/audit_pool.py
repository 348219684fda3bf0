"""The audit ``pool``: rows of a membership matrix, each distilled anew; some are targets, the others their shadows.

Legend: R rows, T targets (the first row of each of the first pairs), n pool images, q of the reserve. Shadows of a
target are all rows but itself and its twin, which share no image with it and all: with the twin among them, counting
in how many shadows an image is a member would tell the target's members without any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.configs import MembershipAttackName, PrivacyConfig
from trainables.context import Context
from trainables.data.cache import Split
from trainables.evaluate.accuracy import Floats, Integers, Row
from trainables.evaluate.privacy.attacks import (
    NEEDS,
    NotApplicable,
    Scored,
    ShadowRows,
    Shadows,
    Target,
    memorisation,
    score,
    threat_of,
    threshold_of,
)
from trainables.evaluate.privacy.findings import (
    Attacked,
    Findings,
    Images,
    accuracy_rows,
    control_rows,
    parts_of,
    rows_of,
    shadow_columns,
    shared_settings,
    tuned_rows,
    unfit_rows,
)
from trainables.evaluate.privacy.inputs import Booleans
from trainables.evaluate.privacy.metrics import Audited
from trainables.evaluate.privacy.release import NO_START, nearness
from trainables.evaluate.privacy.roles import CANARY, INIT, NON_MEMBER, OTHER, RESERVE
from trainables.evaluate.privacy.signals import Pool, asked, learning_rows, load_pool, start_members
from trainables.payloads import DistilledSet

Results = dict[tuple[MembershipAttackName, str], list[Attacked]]
"""By attack and variant, one per target."""


@dataclass(frozen=True)
class _Candidates:
    """Who is asked about, for one target: the pool, then the reserve."""

    row: int
    ids: Integers
    """(n + q,)."""
    labels: Integers
    member: Booleans
    role: Integers

    def audited(self, attacked: Attacked, memorised: Floats | None) -> Audited:
        """Scores with the truth; scores of the pool alone leave the reserve out."""
        count = len(attacked.scored.values)
        return Audited(
            attacked.scored.values,
            self.member[:count],
            self.ids[:count],
            self.role[:count],
            self.labels[:count],
            pair=self.row // 2,
            target_row=self.row,
            threshold=attacked.threshold,
            pooled=attacked.scored.pooled,
            memorisation=None if memorised is None else np.pad(memorised, (0, count - len(memorised))),
        )


def audit_pool(
    config: PrivacyConfig, inputs: Mapping[str, Path], context: Context, split: Split, found: Findings
) -> None:
    """Rows and details of the audit, also of the undistilled starts where there are any."""
    for what in ("model", "start"):
        if f"row.0.{what}" in inputs:
            _audit(config, inputs, context, split, found, what)


def _audit(
    config: PrivacyConfig, inputs: Mapping[str, Path], context: Context, split: Split, found: Findings, what: str
) -> None:
    pool = load_pool(config, inputs, what, split.labels)
    targets = [2 * index for index in range(config.targets)]
    sets = [DistilledSet.load(inputs[role]) if (role := f"row.{row}.set") in inputs else None for row in targets]
    candidates = [_candidates(pool, row, released) for row, released in zip(targets, sets, strict=True)]
    name = "pool" if what == "model" else "pool.start"
    base: Row = {"audit": "pool", "split": "pool", "nonmember_source": "pool"}
    if what == "start":
        base["iteration"] = 0
    results: Results = {}
    reasons: dict[MembershipAttackName, str] = {}
    memorised: list[Floats | None] = []
    for row in targets:
        memorised.append(_attack(config, context, pool, row, results, reasons))
    if what == "model":
        _compare(config, context, split, candidates, sets, results, reasons)
        _keep_truth(found, pool, candidates)
    elif "data_release" in config.attacks:
        reasons["data_release"] = NO_START
    found.rows += accuracy_rows(
        [asked(inputs[f"row.{row}.{what}"])["test"] for row in targets],
        {"audit": "pool", **({"iteration": 0} if what == "start" else {})},
        targets,
    )
    parts = parts_of(config, "pool")
    for attack in config.attacks:
        columns = {**base, "attack": attack, "threat_model": threat_of(attack)}
        columns |= shadow_columns(config, attack, config.rows - 2)
        if attack in reasons:
            found.rows += unfit_rows("pool", reasons[attack], columns)
        for (of, variant), attacked in results.items():
            if of == attack:
                context.poll()
                both = zip(attacked, memorised, strict=True)
                scores = [of_row.audited(*pair) for of_row, pair in zip(candidates, both, strict=True)]
                said = [each.scored for each in attacked]
                told = {**columns, **shared_settings(said)}
                found.rows += rows_of(config, scores, told, parts) + tuned_rows(said, told)
                _keep_scores(found, name, attack + variant, said, len(pool.ids))
    if what == "model" and "blind" in config.attacks:
        context.poll()
        asked_about = _candidates_without_reserve(split, candidates, parts)
        found.rows += control_rows("pool", asked_about, {**base, "attack": "blind", "threat_model": threat_of("blind")})


def _candidates(pool: Pool, row: int, released: DistilledSet | None) -> _Candidates:
    member = pool.member[row]
    role = np.where(member, OTHER, NON_MEMBER)
    role[start_members(pool.ids, member, released)] = INIT
    role[pool.canary] = CANARY
    ids, labels = pool.ids, pool.labels
    if pool.reserve:
        ids = np.concatenate([ids, pool.reserve[row].ids])
        labels = np.concatenate([labels, pool.reserve[row].labels])
    extra = (0, len(ids) - len(pool.ids))
    return _Candidates(row, ids, labels, np.pad(member, extra), np.pad(role, extra, constant_values=RESERVE))


def _attack(
    config: PrivacyConfig,
    context: Context,
    pool: Pool,
    row: int,
    results: Results,
    reasons: dict[MembershipAttackName, str],
) -> Floats | None:
    """Score one target by all attacks on logits; gives the memorisation of its pool images."""
    target, shadows = pool.target(row)
    wide = pool.target(row, reserve=True) if pool.reserve else (target, shadows)
    rows = learning_rows(shadows)
    for attack in config.attacks:
        if NEEDS[attack] == "images" or attack in reasons:
            continue
        context.poll()
        try:
            for variant, attacked in _scored(attack, (target, shadows), wide, rows).items():
                results.setdefault((attack, variant), []).append(attacked)
        except NotApplicable as reason:
            reasons[attack] = str(reason)
    try:
        return memorisation(shadows)
    except NotApplicable:
        return None


def _scored(
    attack: MembershipAttackName, narrow: tuple[Target, Shadows], wide: tuple[Target, Shadows], rows: ShadowRows
) -> dict[str, Attacked]:
    """One attack's scores by variant. The reserve is scored along where shadows that hold an image are not needed."""
    target, shadows = narrow if attack in ("lira_online", "rmia") else wide
    found = score(attack, target, rows, shadows)
    variants = {"": Attacked(found, threshold_of(attack, rows, narrow[1]))}
    for other in found.variants:
        variants["_" + str(other.settings["variance_mode"])] = Attacked(other)
    if attack == "rmia" and wide is not narrow:
        # With images that are never IN it averages over OUT shadows alone, for all candidates alike.
        variants["_offline"] = Attacked(score(attack, wide[0], rows, wide[1]))
    return variants


def _compare(
    config: PrivacyConfig,
    context: Context,
    split: Split,
    candidates: list[_Candidates],
    sets: list[DistilledSet | None],
    results: Results,
    reasons: dict[MembershipAttackName, str],
) -> None:
    """The attack on the released images."""
    if "data_release" not in config.attacks:
        return
    released = [each for each in sets if each is not None]
    if len(released) < len(sets):
        reasons["data_release"] = "no set is released: the model is trained on the origin itself"
        return
    first = candidates[0]
    assert all((each.ids == first.ids).all() and (each.labels == first.labels).all() for each in candidates)
    for near in nearness(split.images[first.ids], first.labels, released, config.dataset, context.poll):
        for variant, scored in near.variants().items():
            results.setdefault(("data_release", variant), []).append(Attacked(scored))


def _candidates_without_reserve(
    split: Split, candidates: list[_Candidates], parts: tuple[int | str, ...]
) -> Iterator[tuple[Audited, Images, tuple[int | str, ...]]]:
    """What the control is asked about: neither canaries nor the reserve."""
    for each in candidates:
        truth = each.audited(Attacked(Scored(np.zeros(len(each.ids)), {})), None).main
        yield truth, split.images[truth.example_id], (*parts, each.row)


def _keep_truth(found: Findings, pool: Pool, candidates: list[_Candidates]) -> None:
    count = len(pool.ids)
    found.keep("pool.member", pool.member)
    found.keep("pool.example_id", pool.ids)
    found.keep("pool.label", pool.labels)
    found.keep("pool.target_row", np.array([each.row for each in candidates]))
    found.keep("pool.role", np.stack([each.role[:count] for each in candidates]).astype(np.uint8))
    if pool.reserve:
        found.keep("pool.reserve_id", pool.reserve[0].ids)


def _keep_scores(found: Findings, name: str, attack: str, said: list[Scored], count: int) -> None:
    values = np.stack([each.values for each in said])
    found.keep(f"{name}.scores.{attack}", values[:, :count])
    if values.shape[1] > count:
        found.keep(f"{name}.reserve_scores.{attack}", values[:, count:])
