"""How often the intervals of a report hold what they are about, by simulation: ``python -m benchmarks.coverage``.

Prints the table of docs/metrics.md. Nominal is 95 %. Some ten minutes on a core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ddray.measurements.statistics import Sets, excess, share_of_way
from trainables.evaluate import intervals
from trainables.evaluate.paired import auc_difference, paired_difference, placements
from trainables.evaluate.privacy.metrics import Audited, membership_rows
from trainables.evaluate.privacy.panel import panel_rows
from trainables.files import NON_MEMBER, OTHER

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None
TRIALS = 2000
ROUGH = 500
"""Of audits, of which each takes some hundredths of a second."""


class Case(NamedTuple):
    """One situation."""

    interval: str
    situation: str
    truth: float
    draw: Callable[[np.random.Generator], Interval]
    """One simulated measurement; None where no interval is printed."""
    trials: int = TRIALS


class Coverage(NamedTuple):
    """Of a case."""

    held: int
    printed: int
    trials: int

    @property
    def percent(self) -> float:
        return 100 * self.held / self.printed if self.printed else math.nan


def measure(case: Case, trials: int | None = None, seed: int = 0) -> Coverage:
    """Simulate a case."""
    rng = np.random.default_rng([seed, *case.interval.encode(), *case.situation.encode()])
    trials = trials or case.trials
    found = [each for each in (case.draw(rng) for _ in range(trials)) if each is not None]
    return Coverage(sum(low <= case.truth <= high for low, high in found), len(found), trials)


def cases() -> Iterator[Case]:
    """All of them, in the order of the page."""
    yield from _of_one_model()
    yield from _of_memberships()
    yield from _of_differences_between_aucs()
    yield from _at_equal_accuracy()


# --- one model: images are drawn --------------------------------------------------------------------------------------


def _limits(row: dict[str, object]) -> Interval:
    low, high = row.get("ci_low"), row.get("ci_high")
    return (low, high) if isinstance(low, float) and isinstance(high, float) else None


def _of_one_model() -> Iterator[Case]:
    for share, images in ((0.5, 200), (0.95, 200), (0.05, 1000), (0.99, 10_000)):
        yield Case(
            "accuracy (Wilson)",
            f"{share:g} of {images:,} images",
            share,
            lambda rng, p=share, n=images: _limits(intervals.wilson(rng.random(n) < p)),  # type: ignore[misc]
        )
    for sigma in (0.5, 1.5):
        yield Case(
            "mean loss, mean distance (Student)",
            f"lognormal, sigma {sigma}, 1,000 images",
            math.exp(sigma**2 / 2),
            lambda rng, s=sigma: _limits(intervals.student(rng.lognormal(0, s, 1000))),  # type: ignore[misc]
        )
    for share in (0.5, 0.1):
        yield Case(
            "quantiles of distances (order statistics)",
            f"{share:g}, lognormal, 200 images",
            float(stats.lognorm.ppf(share, 1)),
            lambda rng, q=share: _limits(intervals.order_statistics(rng.lognormal(0, 1, 200), q)),  # type: ignore[misc]
        )
    for apart in (0.0, 0.02, 0.1):
        yield Case(
            "accuracy under attack, less another model's (Bonett and Price)",
            f"{100 * apart:g} points apart, 200 images in common",
            apart,
            lambda rng, d=apart: _paired(rng, d),  # type: ignore[misc]
        )
    for spread in (0.005, 0.02):
        yield Case(
            "recovery (Fieller)",
            f"a share of 0.6, 3 trainings that scatter by {100 * spread:g} points, 10,000 images",
            0.6,
            lambda rng, s=spread: _recovery(rng, s),  # type: ignore[misc]
        )


def _paired(rng: np.random.Generator, apart: float) -> Interval:
    hard = rng.random(200)
    difference = paired_difference(
        hard < 0.6 + apart, np.where(rng.random(200) < 0.9, hard < 0.6, rng.random(200) < 0.6)
    )
    return difference.ci_low, difference.ci_high


def _recovery(rng: np.random.Generator, spread: float) -> Interval:
    expected = [np.clip(rng.normal(mean, spread, 3), 0, 1) for mean in (0.54, 0.3, 0.7)]
    ours, low, high = (rng.binomial(10_000, means) / 10_000 for means in expected)
    found = share_of_way(ours.tolist(), low.tolist(), high.tolist(), 10_000)
    return None if found is None else (found.low, found.high)


# --- memberships: images and targets are drawn ------------------------------------------------------------------------

HARDNESS, EXPOSURE, NOISE = 1.0, 0.7, 1.0
"""Standard deviations: of how hard images are, of what they give away, of what a training adds."""
LEAK = 0.8


def targets_of(
    rng: np.random.Generator, targets: int, apart: float, images: int, members: float = 0.5
) -> list[Audited]:
    """Rows of a membership matrix: the same images, each target with its own members, its own leak and its own noise.

    Args:
        rng: Of all.
        targets: T.
        apart: Standard deviation of the targets' leaks.
        images: Candidates.
        members: Their share.
    """
    hard, exposed = HARDNESS * rng.normal(size=images), EXPOSURE * rng.normal(size=images)
    ids, found = np.arange(images), []
    for _ in range(targets):
        member = rng.permutation(ids) < round(members * images)
        leak = LEAK + apart * rng.normal()
        values = hard + member * (leak + exposed) + NOISE * rng.normal(size=images)
        found.append(Audited(values, member, ids, np.where(member, OTHER, NON_MEMBER), ids % 4, None, 0.4))
    return found


def auc_of_targets(apart: float) -> float:
    """The expected AUC over targets and images."""
    variance = 2 * HARDNESS**2 + EXPOSURE**2 + 2 * NOISE**2 + apart**2
    return float(stats.norm.cdf(LEAK / math.sqrt(variance)))


def recall_of_targets(apart: float, fpr: float) -> float:
    """The expected TPR at the threshold that a share ``fpr`` of non-members exceeds."""
    others = math.sqrt(HARDNESS**2 + NOISE**2)
    threshold = others * stats.norm.isf(fpr)
    inside = math.sqrt(others**2 + EXPOSURE**2 + apart**2)
    return float(stats.norm.sf((threshold - LEAK) / inside))


def _row(audits: list[Audited], metric: str, **wanted: object) -> Interval:
    """The interval of the headline."""
    rows = membership_rows(audits, base={}, per_class=1.0)
    return _limits(
        next(
            row
            for row in rows
            if row["metric"] == metric
            and row.get("repeat") is None
            and row.get("member_role") is None
            and all(row.get(name) == value for name, value in wanted.items())
        )
    )


def _of_memberships() -> Iterator[Case]:
    for targets, apart in ((1, 0.0), (2, 0.3), *((count, apart) for count in (3, 6, 16) for apart in (0.0, 0.3, 0.8))):
        yield Case(
            "AUC, and k, which is a multiple of it",
            f"{targets} {'target' if targets == 1 else f'targets, leaks apart by {apart:g}'}, 400 images",
            auc_of_targets(apart),
            lambda rng, t=targets, a=apart: _row(targets_of(rng, t, a, 400), "mia_auc"),  # type: ignore[misc]
            ROUGH,
        )
    for fpr, others in ((0.01, 400), (0.01, 1000), (0.01, 10_000), (0.001, 1000), (0.001, 10_000)):
        yield Case(
            f"TPR at {100 * fpr:g} % FPR",
            f"1 target, 400 members, {others:,} others",
            recall_of_targets(0.0, fpr),
            lambda rng, f=fpr, n=others: _row(  # type: ignore[misc]
                targets_of(rng, 1, 0.0, 400 + n, 400 / (400 + n)), "mia_tpr_at_fpr", fpr=f
            ),
            ROUGH,
        )
    for apart in (0.0, 0.5):
        yield Case(
            "TPR at 1 % FPR",
            f"3 targets, leaks apart by {apart:g}, 1,000 members, 1,000 others",
            recall_of_targets(apart, 0.01),
            lambda rng, a=apart: _row(targets_of(rng, 3, a, 2000), "mia_tpr_at_fpr", fpr=0.01),  # type: ignore[misc]
            ROUGH,
        )
    others, inside = math.sqrt(HARDNESS**2 + NOISE**2), math.sqrt(HARDNESS**2 + NOISE**2 + EXPOSURE**2)
    yield Case(
        "advantage at a threshold from shadows (Newcombe)",
        "1 target, 400 images",
        float(stats.norm.sf((0.4 - LEAK) / inside) - stats.norm.sf(0.4 / others)),
        lambda rng: _row(targets_of(rng, 1, 0.0, 400), "mia_adv"),
        ROUGH,
    )
    yield Case(
        "the strongest attack of a panel",
        "6 attacks of one AUC, 160 images",
        0.6,
        _strongest,
        ROUGH,
    )
    yield Case(
        "null band of the strongest attack",
        "6 attacks of which none tells anything, 160 images",
        0.0,
        _band,
        ROUGH,
    )


def _panel(rng: np.random.Generator, auc: float) -> list[dict[str, float]]:
    shift, ids = float(stats.norm.ppf(auc)) * math.sqrt(2), np.arange(160)
    member = ids < 80
    role = np.where(member, OTHER, NON_MEMBER)
    scores = {
        str(attack): [Audited(rng.normal(size=160) + shift * member, member, ids, role, ids % 4)] for attack in range(6)
    }
    return panel_rows(scores, base={}, columns={name: {} for name in scores}, taught_by=dict.fromkeys(scores, 0))


def _strongest(rng: np.random.Generator) -> Interval:
    return _limits(dict(_panel(rng, 0.6)[0]))


def _band(rng: np.random.Generator) -> Interval:
    """Moved so that 0 is inside where the largest AUC is."""
    row, low, high = _panel(rng, 0.5)
    return low["value"] - row["value"], high["value"] - row["value"]


def _of_differences_between_aucs() -> Iterator[Case]:
    for targets, apart in ((1, 0.0), (3, 0.0), (3, 0.5), (8, 0.5)):
        yield Case(
            "AUC less another method's",
            f"{targets} {'target' if targets == 1 else f'targets, leaks apart by {apart:g}'}, the same 400 images",
            0.0,
            lambda rng, t=targets, a=apart: _difference(rng, t, a),  # type: ignore[misc]
            ROUGH,
        )


def _difference(rng: np.random.Generator, targets: int, apart: float) -> Interval:
    one = targets_of(rng, targets, apart, 400)
    member = np.stack([each.member for each in one])
    leaks = LEAK + apart * rng.normal(size=(targets, 1))
    hard = np.stack([each.values for each in one]) - member * LEAK
    other = hard + member * leaks + 0.5 * rng.normal(size=hard.shape)
    first = hard + member * (LEAK + apart * rng.normal(size=(targets, 1))) + 0.5 * rng.normal(size=hard.shape)
    placed = [np.array([placements(*pair) for pair in zip(each, member, strict=True)]) for each in (first, other)]
    found = auc_difference(*placed, member)
    return None if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)


# --- at equal accuracy ------------------------------------------------------------------------------------------------


def _at_equal_accuracy() -> Iterator[Case]:
    for draws, models, scatter in ((3, 3, 1.0), (5, 3, 1.0), (5, 3, 1.5), (5, 2, 1.0), (3, 5, 0.5)):
        yield Case(
            "over real images at equal accuracy",
            f"{draws} draws of each ipc, {models} sets that scatter {scatter:g} times as much",
            0.3,
            lambda rng, d=draws, m=models, s=scatter: _excess(rng, d, m, s),  # type: ignore[misc]
        )


def _excess(rng: np.random.Generator, draws: int, models: int, scatter: float) -> Interval:
    """Real images of three ipc on one line, and sets 0.3 above it: accuracies scatter by 1 point, values by 0.1."""

    def sets(accuracy: float, value: float, count: int, times: float = 1.0) -> Sets:
        return Sets(
            accuracy + 0.01 * times * rng.normal(size=count), value + 0.1 * times * rng.normal(size=count), 100.0
        )

    knots = [sets(accuracy, 10 * accuracy, draws) for accuracy in (0.3, 0.5, 0.7)]
    found = excess(knots, sets(0.56, 5.6 + 0.3, models, scatter))
    if found is None or found.reason is not None or math.isnan(found.value):
        return None
    return found.value - found.reach, found.value + found.reach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, help="of each case; left out: as the page has")
    trials = parser.parse_args().trials
    print("| interval | situation | holds the truth in |\n|---|---|---|")
    for case in cases():
        found = measure(case, trials)
        error = 100 * math.sqrt(0.05 * 0.95 / max(1, found.printed))
        said = f"{found.percent:.0f} % (± {error:.1f})" if found.printed else "no interval is printed"
        if 0 < found.printed < found.trials:
            said += f"; none in {100 * (1 - found.printed / found.trials):.0f} %"
        print(f"| {case.interval} | {case.situation} | {said} |", flush=True)


if __name__ == "__main__":
    main()
