"""Robustness of one model as rows, from what its attacks did to each image.

Shares are over all evaluated images: one that is misclassified as it is, is robust to nothing. ``adv_def`` says what
counts as misled within epsilon: ``clip``, a perturbation of that size that was tried; ``norm``, a raw perturbation at
most as large, for attacks that look for the smallest. Both are upper bounds of the true robustness, ``clip`` the
tighter. Intervals are about the images, for this one model; differences between models are in ``../paired.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainables.attacks import ROBUSTNESS_ATTACKS, SETTING_COLUMNS
from trainables.evaluate.fairness import by_class, less_noise
from trainables.evaluate.intervals import (
    CI_LEVEL,
    LEAST,
    Booleans,
    Floats,
    Integers,
    Row,
    drawn_shares,
    interval,
    order_statistics,
    recentred,
    student,
    wilson,
)
from trainables.evaluate.paired import censored_quantile, paired_difference, robust_curve
from trainables.payloads import AttackResult

CLASS_EPSILONS = {"l2": (0.5,), "linf": (2 / 255, 8 / 255)}
"""Where classes are told apart, when the grid has them."""
UNEQUAL = {"adv_acc_worst_class": "fraction", "adv_fair_var_acc": "fraction^2", "adv_fair_var_acc_corr": "fraction^2"}
FEW = 20
"""Images of a class below which its accuracy says little: ``low_resolution``."""
ENSEMBLE = "ensemble_fb"
"""Each image's worst case over foolbox's attacks in one norm: what stands in for AutoAttack where that is not there."""
RR_EPSILON = {"l2": 0.5, "linf": 8 / 255}
"""BEARD's."""


def robustness_rows(results: Mapping[str, AttackResult], num_classes: int) -> list[Row]:
    """Every number about one model.

    Per attack and norm: ``adv_acc`` (Wilson's interval), ``adv_acc_norm`` (over the images that are correct at 0),
    ``adv_auc`` and ``adv_auc_norm`` (trapezium rule from 0 to the largest epsilon, over that epsilon), distances over
    the images that are correct at 0, class by class at ``CLASS_EPSILONS``. Of several attacks: ``ensemble_fb``,
    ``adv_gap_strong``, ``adv_pgd_weaker_than_fgsm`` (positive: the budget was not used, the row is flagged when its
    interval is above 0), ``rr_beard``. BEARD's CREI needs the attacks' wall-clock times and is not given.

    Args:
        results: By attack; all of the same model and images.
        num_classes: K.

    Raises:
        ValueError: There is none, or they are about different images.
    """
    _same_images(results)
    rows: list[Row] = []
    curves: dict[str, Curve] = {}
    for name, result in results.items():
        curves[name] = _clipped(result)
        rows += _curve_rows(curves[name])
        rows += _class_rows(curves[name], num_classes)
        rows.append(_vanished(curves[name], result))
        if result.distance is not None:
            by_norm = _by_norm(result)
            rows += _curve_rows(by_norm)
            rows += _distance_rows(by_norm, result)
    for norm in ("linf", "l2"):
        ensemble = ensemble_of(curves, norm)
        if ensemble is not None:
            rows += _curve_rows(ensemble)
            rows += _class_rows(ensemble, num_classes)
        rows += gap_rows(curves, norm)
        rows += beard_rows(curves, norm)
    if "fgsm" in results and "pgd_linf" in results:
        rows += alarm_rows(curves["pgd_linf"], results["fgsm"])
    return rows


@dataclass(frozen=True)
class Curve:
    """Which images are robust, at each epsilon from 0."""

    epsilons: tuple[float, ...]
    robust: Booleans
    """(E + 1, n)."""
    labels: Integers
    columns: Row = field(default_factory=dict)
    """What every row says of the attack."""

    def at(self, epsilon: float) -> Booleans | None:
        """(n,), or None where the grid does not hold the epsilon."""
        for index, known in enumerate(self.epsilons):
            if math.isclose(known, epsilon, rel_tol=1e-6, abs_tol=1e-12):
                kept: Booleans = self.robust[index]
                return kept
        return None

    def row(self, metric: str, value: float | None, unit: str = "fraction", **other: Any) -> Row:
        head = {"property": "robustness", "metric": metric, "value": value, "unit": unit, "n": len(self.labels)}
        return {**head, "split": "test", **self.columns, **other}


def _same_images(results: Mapping[str, AttackResult]) -> None:
    if not results:
        raise ValueError("robustness: got no attack; expected at least one. Name some under attacks.")
    first, *others = results
    for name in others:
        one, other = results[first], results[name]
        if not (one.ids.equal(other.ids) and one.labels.equal(other.labels)):
            raise ValueError(
                f"robustness: {first} and {name} were about different images; got {len(one.ids)} and "
                f"{len(other.ids)}; expected the same. Run both with the same data and number of images."
            )


def _columns(result: AttackResult) -> Row:
    facts, settings = result.info, result.info["settings"]
    columns: Row = {
        "attack": facts["attack"],
        "norm": facts["norm"],
        "attack_lib": facts["library"],
        "attack_lib_version": facts["library_version"],
    }
    for column, setting in SETTING_COLUMNS.items():
        if settings.get(setting) is not None:
            columns[column] = settings[setting]
    if result.distance is not None and bool(result.correct.any()):
        columns["converged_share"] = float(result.distance[result.correct].isfinite().double().mean())
    return columns


def _clipped(result: AttackResult) -> Curve:
    robust = robust_curve(result.correct.numpy(), result.success.numpy())
    columns = {**_columns(result), "adv_def": "clip"}
    return Curve((0.0, *result.info["epsilons"]), robust, result.labels.numpy(), columns)


def _by_norm(result: AttackResult) -> Curve:
    assert result.distance is not None
    epsilons = (0.0, *result.info["epsilons"])
    # The distance is a float32: a budget of exactly that size must hold it.
    budgets = np.asarray(epsilons, dtype=np.float32)[:, None]
    robust = result.correct.numpy()[None] & (result.distance.numpy()[None] > budgets)
    robust[0] = result.correct.numpy()
    return Curve(epsilons, robust, result.labels.numpy(), {**_columns(result), "adv_def": "norm"})


def _curve_rows(curve: Curve) -> Iterator[Row]:
    correct, largest = curve.robust[0], curve.epsilons[-1]
    for epsilon, robust in zip(curve.epsilons, curve.robust, strict=True):
        yield curve.row("adv_acc", float(robust.mean()), epsilon=epsilon, **wilson(robust))
    for epsilon, robust in zip(curve.epsilons, curve.robust, strict=True):
        yield _of_correct(curve, "adv_acc_norm", robust[correct], epsilon)
    area = _trapezium(curve.epsilons) @ curve.robust / largest
    yield curve.row("adv_auc", float(area.mean()), epsilon=largest, **_share(area))
    if correct.any():
        kept = area[correct]
        yield {**curve.row("adv_auc_norm", float(kept.mean()), epsilon=largest, **_share(kept)), "n": len(kept)}
    else:
        yield curve.row("adv_auc_norm", None, epsilon=largest, flag="degenerate")


def _share(areas: Floats) -> Row:
    """Student's interval of a mean area, which is in [0, 1]; none where all areas are equal and tell nothing."""
    if len(areas) < 2 or areas.min() == areas.max():
        return {}
    limits = student(areas)
    return {**limits, "ci_low": max(0.0, limits["ci_low"]), "ci_high": min(1.0, limits["ci_high"])}


def _trapezium(epsilons: tuple[float, ...]) -> Floats:
    """Weights (E + 1,) with which the values at the epsilons add up to the area."""
    steps = np.diff(np.asarray(epsilons))
    weights: Floats = (np.append(steps, 0) + np.insert(steps, 0, 0)) / 2
    return weights


def _of_correct(curve: Curve, metric: str, kept: Booleans, epsilon: float) -> Row:
    if len(kept) == 0:
        return curve.row(metric, None, epsilon=epsilon, flag="degenerate")
    return {**curve.row(metric, float(kept.mean()), epsilon=epsilon, **wilson(kept)), "n": len(kept)}


def _distance_rows(curve: Curve, result: AttackResult) -> Iterator[Row]:
    """Over the images that are correct at 0. Where none was found an infinite distance is a lower bound: quantiles that
    lie among those, and the mean if there is any, are not given."""
    assert result.distance is not None
    values = result.distance[result.correct].double().numpy()
    unit, n = str(result.info["norm"]), len(values)
    for metric, share in (("adv_dist_median", 0.5), ("adv_dist_q10", 0.1)):
        row = _number(curve, metric, censored_quantile(values, share), unit, n)
        yield {**row, **order_statistics(values, share)}
    mean = float(values.mean()) if n and np.isfinite(values).all() else None
    row = _number(curve, "adv_dist_mean", mean, unit, n)
    yield {**row, **student(values)} if mean is not None else row


def _number(curve: Curve, metric: str, value: float | None, unit: str, n: int) -> Row:
    row = {**curve.row(metric, value, unit), "n": n}
    return row if value is not None else {**row, "flag": "not_converged" if n else "degenerate"}


def _class_rows(curve: Curve, num_classes: int) -> Iterator[Row]:
    counts = np.bincount(curve.labels, minlength=num_classes)
    for epsilon in CLASS_EPSILONS[curve.columns["norm"]]:
        robust = curve.at(epsilon)
        if robust is None:
            continue
        for index in range(num_classes):
            members = robust[curve.labels == index]
            row = curve.row("adv_acc_class", None, epsilon=epsilon, class_id=index)
            row["n"] = len(members)
            if len(members):
                row |= {"value": float(members.mean()), **wilson(members)}
            yield {**row, **_resolution(len(members))}
        yield from _between_classes(curve, robust, counts, epsilon)


def _between_classes(curve: Curve, robust: Booleans, counts: Integers, epsilon: float) -> Iterator[Row]:
    """How unequal the classes are, with intervals about the images as ``fairness_rows`` has them."""
    estimates: dict[str, Floats] = {}
    draws: dict[str, Floats] = {}
    if counts.min() > 0:
        shares = by_class(robust.astype(np.float64), curve.labels, len(counts))
        estimates = _estimates(shares, counts)
        if counts.min() >= LEAST:
            draws = _estimates(drawn_shares(shares, counts, "robust accuracies"), counts)
    for metric, unit in UNEQUAL.items():
        value = float(estimates[metric]) if metric in estimates and np.isfinite(estimates[metric]) else None
        row = curve.row(metric, value, unit, epsilon=epsilon, **_resolution(int(counts.min())))
        if value is not None and metric in draws:
            low = -math.inf if metric.endswith("_corr") else 0.0
            row |= recentred(value, draws[metric], low, 1.0 if unit == "fraction" else math.inf)
        yield row


def _estimates(shares: Floats, counts: Integers) -> dict[str, Floats]:
    """Of robust accuracies (..., K), of the images or of draws of them."""
    with np.errstate(divide="ignore", invalid="ignore"):  # of a single image the noise cannot be known
        noise = shares * (1 - shares) / (counts - 1)
    values = (shares.min(axis=-1), shares.var(axis=-1), less_noise(shares, noise))
    return {name: np.asarray(value, dtype=np.float64) for name, value in zip(UNEQUAL, values, strict=True)}


def _resolution(images: int) -> Row:
    return {"flag": "low_resolution"} if images < FEW else {}


def _vanished(curve: Curve, result: AttackResult) -> Row:
    share = result.info["zero_gradient_share"]
    row = {**curve.row("zero_gradient_share", share), "n": int(result.correct.sum())}
    del row["adv_def"]  # it is about the images as they are
    return row if share is not None else {**row, "flag": "degenerate"}


# --- several attacks together ---


def members_of(norm: str) -> list[str]:
    """Members of the ensemble in a norm: foolbox's attacks within a budget, then its minimal ones, DeepFool last."""
    own = [attack for attack in ROBUSTNESS_ATTACKS.values() if attack.library == "foolbox" and attack.norm == norm]
    minimal = [attack.name for attack in own if attack.minimal]
    # The order is that of the column ``of_attacks``, by which rows are told apart: it must not change.
    return [*(attack.name for attack in own if not attack.minimal), *reversed(minimal)]


def ensemble_of(curves: Mapping[str, Curve], norm: str) -> Curve | None:
    """Each image's worst case over the members that are there, at every epsilon that one of them has.

    What one found within a smaller epsilon counts, so that it is nowhere above any of them.

    Args:
        curves: By attack.
        norm: ``l2`` or ``linf``.

    Returns:
        None with fewer than two members.
    """
    members = {name: curves[name] for name in members_of(norm) if name in curves}
    if len(members) < 2:
        return None
    first, *_ = members.values()
    epsilons = tuple(sorted({epsilon for curve in members.values() for epsilon in curve.epsilons}))
    robust = [
        np.logical_and.reduce(
            [curve.robust[sum(known <= epsilon for known in curve.epsilons) - 1] for curve in members.values()]
        )
        for epsilon in epsilons
    ]
    columns = {name: first.columns[name] for name in ("norm", "adv_def", "attack_lib", "attack_lib_version")}
    return Curve(
        epsilons, np.stack(robust), first.labels, {**columns, "attack": ENSEMBLE, "of_attacks": "+".join(members)}
    )


def gap_rows(curves: Mapping[str, Curve], norm: str) -> Iterator[Row]:
    """``adv_gap_strong``: robust accuracy by DeepFool less that by the strongest attack there is, hence how optimistic
    DeepFool is; where AutoAttack is missing, the ensemble at the epsilons that another member has, never below 0."""
    deepfool = curves.get(f"deepfool_{norm}")
    strong = curves["autoattack"] if norm == "linf" and "autoattack" in curves else ensemble_of(curves, norm)
    if deepfool is None or strong is None:
        return
    others = [
        curves[name] for name in ("autoattack", *members_of(norm)) if name in curves and curves[name] is not deepfool
    ]
    for epsilon in strong.epsilons[1:]:
        ours, theirs = deepfool.at(epsilon), strong.at(epsilon)
        if ours is not None and theirs is not None and any(other.at(epsilon) is not None for other in others):
            value, limits = _paired(ours, theirs)
            yield deepfool.row(
                "adv_gap_strong", value, epsilon=epsilon, strong_attack=strong.columns["attack"], **limits
            )


def beard_rows(curves: Mapping[str, Curve], norm: str) -> Iterator[Row]:
    """``rr_beard`` = 1 - (c - mean a_k) / (c - min a_k) over at least two attacks k with robust accuracy a_k, c clean
    (BEARD's toolkit, arXiv 2411.09265). For comparison alone: it is normalised by the model's own worst attack, hence
    no ranking of models."""
    epsilon = RR_EPSILON[norm]
    accuracies = {
        name: float(robust.mean())
        for name, curve in curves.items()
        if curve.columns["norm"] == norm and (robust := curve.at(epsilon)) is not None
    }
    if len(accuracies) < 2:
        return
    first = curves[next(iter(accuracies))]
    clean, lowest = float(first.robust[0].mean()), min(accuracies.values())
    value = 1 - (clean - float(np.mean(list(accuracies.values())))) / (clean - lowest) if clean > lowest else None
    plain = Curve(first.epsilons, first.robust, first.labels, {"norm": norm, "adv_def": "clip"})
    row = plain.row("rr_beard", value, "ratio", epsilon=epsilon, of_attacks="+".join(sorted(accuracies)))
    yield row if value is not None else {**row, "flag": "degenerate"}


def alarm_rows(pgd: Curve, fgsm: AttackResult) -> Iterator[Row]:
    """``adv_pgd_weaker_than_fgsm``: robust accuracy by PGD less that by one step of FGSM at the same epsilon.

    Many steps that find less than one are an error of the protocol (step size, gradients that vanish) and no
    robustness: the row is flagged where the interval is above 0.
    """
    correct = fgsm.correct.numpy()
    for epsilon, misled in zip(fgsm.info["epsilons"], fgsm.success.numpy(), strict=True):
        robust = pgd.at(epsilon)
        if robust is not None:
            value, limits = _paired(robust, correct & ~misled)
            row = pgd.row("adv_pgd_weaker_than_fgsm", value, epsilon=epsilon, **limits)
            yield {**row, "flag": "not_converged"} if limits["ci_low"] > 0 else row


def _paired(ours: Booleans, theirs: Booleans) -> tuple[float, Row]:
    difference = paired_difference(ours, theirs, CI_LEVEL)
    return difference.value, interval(difference.ci_low, difference.ci_high, "bonett-price")
