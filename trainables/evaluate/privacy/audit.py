"""The stage ``privacy``: how well membership in the origin of one point can be labelled, by audit and attack.

One loop for all audits: every attack scores every model's candidates, and scores become rows where they meet the truth
(``metrics.py``, ``one_run.py``, ``blind.py``). A design (``designs.py``) says whom an audit attacks. No text here says
that anything is private: rows say which attack reached what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.attacks import MEMBERSHIP_ATTACKS, PANELS, MembershipAttack, load
from trainables.configs import PrivacyConfig
from trainables.context import Context
from trainables.evaluate.accuracy import hits
from trainables.evaluate.intervals import Floats, Row, wilson
from trainables.evaluate.privacy.attacks import memorisation, score, threshold_of
from trainables.evaluate.privacy.blind import blind_rows
from trainables.evaluate.privacy.designs import AttackedModel, Design, Evidence, designs
from trainables.evaluate.privacy.inputs import NotApplicable, Scored
from trainables.evaluate.privacy.metrics import Audited, membership_rows, not_applicable_rows
from trainables.evaluate.privacy.one_run import one_run_rows
from trainables.evaluate.privacy.panel import panel_rows
from trainables.payloads import Metrics


def evaluate_privacy(config: PrivacyConfig, inputs: Mapping[str, Path], context: Context) -> Metrics:
    """All rows of one point, and scores example by example.

    An audit that the data are too small for, and an attack that lacks what it needs, give one row without a value, with
    ``flag`` not_applicable and the ``reason``. Rows with ``iteration`` 0 are about models trained on the undistilled
    start.

    Details are named ``AUDIT.NAME``: ``pool.member`` (R, n), ``pool.role`` (T, n) codes of ``files.ROLES``,
    ``pool.scores.ATTACK`` (T, n), ``pool.reserve_scores.ATTACK`` (T, q), ``seed.scores.ATTACK`` (n,), with
    ``example_id``, ``label`` and so on beside them; ``.start`` after the audit for iteration 0. Example ids are
    canonical indices in the train split; in ``seed``, of the split that ``seed.from_test`` names.

    Args:
        config: The point, the audits, and how much of each.
        inputs: Folders by role; see ``PrivacyConfig``.
        context: Where the data are; polled between attacks.

    Raises:
        ValueError: The data are missing, broken or others than planned, or a model's logits are not finite.
        Interrupted: A stop was asked for.
    """
    results = _Results()
    for design in designs(config, inputs, context):
        _audit(design, config, context, results)
    for audit, reason in sorted(config.unfit.items()):
        results.rows += unfit_rows(audit, reason, {})
    return Metrics(results.rows, results.details)


@dataclass
class _Results:
    """Rows and details, as they come."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str, values: Any) -> None:
        """Remember an array example by example; truth values and codes as one byte."""
        array = np.asarray(values)
        small = array.dtype == np.bool_
        self.details[name] = torch.from_numpy(np.ascontiguousarray(array.astype(np.uint8) if small else array))


@dataclass(frozen=True)
class _Attacked:
    """What one attack says of one model."""

    scored: Scored
    threshold: float | None = None


@dataclass
class _Scores:
    """What the attacks of one audit say."""

    by_attack: dict[str, dict[str, list[_Attacked]]] = field(default_factory=dict)
    """By attack and variant, one per model."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Attack -> why it could not run."""
    memorised: list[Floats | None] = field(default_factory=list)
    """Of each model's candidates but the reserve, where shadows tell: ``memorisation``."""

    def add(self, attack: str, variant: str, attacked: _Attacked) -> None:
        self.by_attack.setdefault(attack, {}).setdefault(variant, []).append(attacked)


def _audit(design: Design, config: PrivacyConfig, context: Context, results: _Results) -> None:
    """One audit: score every model by every attack, then measure each attack over all models."""
    for name, values in design.truth.items():
        results.keep(f"{design.audit}.{name}", values)
    results.rows += accuracy_rows(design)
    attacks = [attack for name in config.attacks if design.asks(attack := MEMBERSHIP_ATTACKS[name])]
    scores = _score(design, attacks, config, context)
    for attack in attacks:
        context.poll()
        columns = _columns(design, attack)
        if attack.name in scores.reasons:
            results.rows += unfit_rows(design.audit, scores.reasons[attack.name], columns)
        elif attack.needs == "truth":
            results.rows += _control_rows(design, attack, config, columns)
        for variant, attacked in scores.by_attack.get(attack.name, {}).items():
            context.poll()
            _keep_scores(design, attack.name + variant, attacked, results)
            told = columns | ({"variant": variant.removeprefix("_")} if variant else {})
            results.rows += _attack_rows(design, attack, attacked, scores.memorised, config, told)
    results.rows += _panel_rows(design, attacks, scores, config)


def _columns(design: Design, attack: MembershipAttack) -> Row:
    """Columns of all rows about an attack."""
    columns = {**design.columns, "attack": attack.name, "threat_model": attack.threat_model}
    return columns | (design.shadow_columns if attack.needs in ("shadow_outputs", "shadows") else {})


# --- from evidence to scores ---


def _score(design: Design, attacks: list[MembershipAttack], config: PrivacyConfig, context: Context) -> _Scores:
    """Every model by every attack, one model's evidence at a time; then by those on the released sets."""
    scores = _Scores()
    for attack in attacks:
        if attack.needs in design.lacks:
            scores.reasons[attack.name] = design.lacks[attack.needs].format(attack=attack.name)
    for model in design.models:
        evidence = model.evidence()
        for attack in attacks:
            if attack.needs in ("distilled_set", "truth") or attack.name in scores.reasons:
                continue
            context.poll()
            try:
                for variant, attacked in _by_logits(attack, evidence).items():
                    scores.add(attack.name, variant, attacked)
            except NotApplicable as reason:
                scores.reasons[attack.name] = str(reason)
        scores.memorised.append(_memorised(evidence))
    for attack in attacks:
        if attack.needs == "distilled_set" and attack.name not in scores.reasons:
            for by_variant in _by_sets(attack, design, config, context):
                for variant, scored in by_variant.items():
                    scores.add(attack.name, variant, _Attacked(scored))
    return scores


def _by_logits(attack: MembershipAttack, evidence: Evidence) -> dict[str, _Attacked]:
    """One attack's scores of one model by variant; of the reserve too, as far as the attack scores it."""
    name, narrow = attack.name, (evidence.target, evidence.shadows)
    wide = evidence.with_reserve or narrow
    target, shadows = wide if attack.reserve == "scored" else narrow
    scored = score(name, target, evidence.outputs, shadows)
    variants = {"": _Attacked(scored, threshold_of(name, evidence.outputs, evidence.shadows))}
    variants |= {suffix: _Attacked(other) for suffix, other in scored.variants.items()}
    if attack.reserve == "variant" and evidence.with_reserve:
        target, shadows = evidence.with_reserve
        variants[f"_{attack.report_variants[0]}"] = _Attacked(score(name, target, evidence.outputs, shadows))
    return variants


def _memorised(evidence: Evidence) -> Floats | None:
    if evidence.shadows is None:
        return None
    try:
        return memorisation(evidence.shadows)
    except NotApplicable:
        return None


def _by_sets(
    attack: MembershipAttack, design: Design, config: PrivacyConfig, context: Context
) -> Iterable[dict[str, Scored]]:
    """Scores by variant from each model's released set, about the same candidates."""
    first = design.models[0]
    assert all((each.ids == first.ids).all() and (each.labels == first.labels).all() for each in design.models)
    sets = [model.released for model in design.models]
    by_set: Iterable[dict[str, Scored]] = load(attack.score)(
        design.images(first.ids), first.labels, sets, config.dataset, context.poll
    )
    return by_set


# --- from scores to rows ---


def _attack_rows(
    design: Design,
    attack: MembershipAttack,
    attacked: list[_Attacked],
    memorised: list[Floats | None],
    config: PrivacyConfig,
    columns: Row,
) -> list[Row]:
    """One attack, or variant of it, over all models of an audit, against each kind of non-members."""
    scored = [each.scored for each in attacked]
    columns = {**columns, **_shared_settings(scored)}
    if design.audit == "one_run":
        (model,), (only,) = design.models, scored
        return one_run_rows(only.values, model.member, seed_parts=_seed_parts(design, config), base=columns)
    audited = [_audited(*each) for each in zip(design.models, attacked, memorised, strict=True)]
    members = float(np.mean([each.main.member.sum() for each in audited]))
    rows: list[Row] = []
    for source, chosen in design.sources.items():
        labelled = {**columns, "nonmember_source": source}
        if isinstance(chosen, str):
            rows += unfit_rows(design.audit, chosen, labelled)
            continue
        rows += membership_rows(
            [each.take(chosen) for each in audited],
            base=labelled,
            per_class=members / len(config.origin.classes),
            ceiling=config.method == "random",
            taught_by=_taught_by(attack, audited, config),
        )
    return rows + _tuned_rows(scored, columns)


def _taught_by(attack: MembershipAttack, audited: Sequence[Audited], config: PrivacyConfig) -> int:
    """How many pairs of shadows teach the attack on each of several targets; 0: the targets are independent."""
    return config.rows // 2 - 1 if attack.dependent and len(audited) > 1 else 0


def _panel_rows(design: Design, attacks: list[MembershipAttack], scores: _Scores, config: PrivacyConfig) -> list[Row]:
    """The strongest attack of the audit's panel, against each kind of non-members. Of a lower bound on epsilon there is
    none: the largest of several bounds is no bound at their level."""
    if design.audit == "one_run":
        return []
    chosen = [each for each in attacks if each.name in PANELS[design.audit] and each.name in scores.by_attack]
    audits = {
        each.name: [
            _audited(model, attacked, None)
            for model, attacked in zip(design.models, scores.by_attack[each.name][""], strict=True)
        ]
        for each in chosen
    }
    rows: list[Row] = []
    for source, candidates in design.sources.items():
        if isinstance(candidates, str):
            continue
        labelled: Row = {"nonmember_source": source}
        rows += panel_rows(
            {name: [each.take(candidates).main for each in own] for name, own in audits.items()},
            base={**design.columns, **labelled},
            columns={each.name: {**_columns(design, each), **labelled} for each in chosen},
            taught_by={each.name: _taught_by(each, audits[each.name], config) for each in chosen},
        )
    return rows


def _audited(model: AttackedModel, attacked: _Attacked, memorised: Floats | None) -> Audited:
    """Scores with the truth; scores of the pool alone leave the reserve out."""
    scored = attacked.scored
    count = len(scored.values)
    return Audited(
        scored.values,
        model.member[:count],
        model.ids[:count],
        model.role[:count],
        model.labels[:count],
        target_row=model.row,
        threshold=attacked.threshold,
        pooled=scored.pooled,
        memorisation=None if memorised is None else np.pad(memorised, (0, count - len(memorised))),
    )


def _seed_parts(design: Design, config: PrivacyConfig) -> tuple[int | str, ...]:
    """What random numbers of an audit depend on: the draw, not the method, so that methods can be compared in pairs."""
    return (design.audit, config.origin.per_class or 0, config.origin.draw or 0, len(config.origin.classes))


def _shared_settings(scored: list[Scored]) -> Row:
    """Settings on which all models agree, for the rows."""
    first, *others = (each.settings for each in scored)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _tuned_rows(scored: list[Scored], base: Row) -> list[Row]:
    """Settings that were tuned on shadows, as means over models."""
    rows: list[Row] = []
    for name in sorted({name for each in scored for name in each.tuned}):
        values = [each.tuned[name] for each in scored if name in each.tuned]
        measured: Row = {"metric": f"mia_{name}", "value": float(np.mean(values)), "unit": "1", "n": len(values)}
        rows.append({**base, "property": "privacy", **measured})
    return rows


def _control_rows(design: Design, attack: MembershipAttack, config: PrivacyConfig, columns: Row) -> list[Row]:
    """The control without a model, on each model's candidates but canaries and reserve."""
    rows: list[Row] = []
    for source, chosen in design.sources.items():
        labelled = {**columns, "nonmember_source": source}
        if isinstance(chosen, str):
            rows += unfit_rows(design.audit, chosen, labelled)
            continue
        scores, bands = [], []
        try:
            for model in design.models:
                nothing = _Attacked(Scored(np.zeros(len(model.ids))))
                truth = _audited(model, nothing, None).take(chosen).main
                parts = (*_seed_parts(design, config), *(() if model.row is None else (model.row,)))
                images = design.images(truth.example_id)
                bands.append(load(attack.score)(images, truth.labels, truth.member, seed_parts=parts))
                scores.append(truth.with_values(bands[-1].scores))
            rows += blind_rows(scores, bands, labelled)
        except NotApplicable as reason:
            rows += unfit_rows(design.audit, str(reason), labelled)
    return rows


def _keep_scores(design: Design, attack: str, attacked: list[_Attacked], results: _Results) -> None:
    name = f"{design.audit}.start" if design.start else design.audit
    values = np.stack([each.scored.values for each in attacked])
    if design.models[0].row is None:
        results.keep(f"{name}.scores.{attack}", values[0])
        return
    count = len(design.models[0].ids) - design.reserve_size
    results.keep(f"{name}.scores.{attack}", values[:, :count])
    if values.shape[1] > count:
        results.keep(f"{name}.reserve_scores.{attack}", values[:, count:])


def accuracy_rows(design: Design) -> list[Row]:
    """``mia_target_test_acc``: what the attacked models are worth, to be read beside what they leak.

    Wilson's interval of each model's own accuracy is about the test images; the mean over models has their standard
    deviation and no interval.
    """
    base: Row = {**design.base, "property": "privacy", "metric": "mia_target_test_acc"}
    rows: list[Row] = []
    for test in design.tests:
        correct = hits(test.logits.astype(np.float64), test.labels)
        measured: Row = {"value": float(correct.mean()), "unit": "fraction", "n": len(correct), "split": "test"}
        rows.append({**base, **measured, "agg": "single", **wilson(correct)})
    if design.models[0].row is None:
        return rows
    values = [row["value"] for row in rows]
    spread: Row = {"std": float(np.std(values, ddof=1))} if len(values) > 1 else {}
    measured = {"value": float(np.mean(values)), "unit": "fraction", "n": rows[0]["n"], "split": "test"}
    mean: Row = {**base, **measured, "agg": "mean_targets", "n_agg": len(values), **spread}
    each = zip(rows, design.models, strict=True)
    return [
        *({**row, "repeat": index, "target_row": model.row} for index, (row, model) in enumerate(each)),
        mean,
    ]


def unfit_rows(audit: str, reason: str, base: Row) -> list[Row]:
    """The one row of an audit, or of an attack of it, that cannot be had."""
    (row,) = not_applicable_rows(reason, {**base, "audit": audit})
    return [{**row, "metric": "mia_eps_lb", "unit": "nat"} if audit == "one_run" else row]
