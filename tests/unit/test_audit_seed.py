"""Members against test images, where members are no balanced draw: whatever tells classes apart finds nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited import Audited, exposing, noise
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from support import FakeContext

from trainables.configs import OriginConfig, PrivacyConfig
from trainables.data.cache import open_split
from trainables.evaluate.intervals import Row
from trainables.evaluate.privacy.audit import evaluate_privacy
from trainables.evaluate.privacy.designs import balanced, class_problem, some_of_each, spread
from trainables.payloads import Metrics
from trainables.seeds import derive

EVERY = tuple(range(10))


class Listed(Audited):
    """Members are the first images of each class, so many of each."""

    counts: tuple[int, ...] = (104, 6, 0, 0, 0, 0, 0, 0, 0, 0)

    def config(self, **other: Any) -> PrivacyConfig:
        labels = open_split(super().config().dataset, "train", *self.place).labels
        chosen = [np.flatnonzero(labels == label)[:count] for label, count in zip(EVERY, self.counts, strict=True)]
        indices = tuple(np.concatenate(chosen).tolist())
        values: dict[str, Any] = {
            "origin": OriginConfig(kind="listed", indices=indices, classes=self.classes),
            "audit": ("seed",),
            "method": "full",
            "ipc": None,
            "rows": 0,
            "targets": 1,
            "start": False,
            "attacks": ("loss",),
        }
        return super().config(**{**values, **other})


def audit(folder: Path, cache: Path, says: Any, counts: tuple[int, ...], **other: Any) -> Metrics:
    made = Listed(folder, cache, shadows=0)
    made.counts = counts
    made.write_seed(says, sets=False)
    context = FakeContext(folder)
    context.data, context.cache = made.place
    return evaluate_privacy(made.config(**other), made.inputs, context)


def by_class(ids: Any, labels: Any, member: Any, start: Any, rng: Any) -> NDArray[np.float64]:
    """Surer of the lower classes, and of nothing else."""
    logits = np.zeros((len(ids), 10))
    logits[np.arange(len(ids)), labels] = 12.0 - labels
    return logits


def row(metrics: Metrics, source: str, attack: str = "loss", metric: str = "mia_auc") -> Row:
    (found,) = [
        each
        for each in metrics.rows
        if each["metric"] == metric
        and each.get("attack") == attack
        and each["nonmember_source"] == source
        and "member_role" not in each
    ]
    return found


def per_class(metrics: Metrics, member: bool) -> list[int]:
    """Of the candidates of ``test_balanced``."""
    details = {name: values.numpy() for name, values in metrics.details.items()}
    chosen = (details["seed.balanced"] == 1) & (details["seed.is_member"] == member)
    return [int(count) for count in np.bincount(details["seed.label"][chosen], minlength=10)]


# --- classes say nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts, each",
    [
        ((104, 6, 0, 0, 0, 0, 0, 0, 0, 0), [50, 6, 0, 0, 0, 0, 0, 0, 0, 0]),
        ((0, 3, 0, 80, 40, 0, 7, 0, 0, 124), [0, 3, 0, 50, 40, 0, 7, 0, 0, 50]),
        ((30, 20, 10, 10, 10, 10, 10, 10, 10, 10), [30, 20, 10, 10, 10, 10, 10, 10, 10, 10]),
    ],
)
def test_classes_of_members_in_any_shares_say_nothing(
    tmp_path: Path, digits_cache: Path, counts: tuple[int, ...], each: list[int]
) -> None:
    metrics = audit(tmp_path, digits_cache, by_class, counts)
    details = {name: values.numpy() for name, values in metrics.details.items()}
    alone = roc_auc_score(details["seed.is_member"], -details["seed.label"].astype(float))
    assert abs(alone - 0.5) > 0.03, "the control: of all candidates, the class would say much"
    assert per_class(metrics, True) == per_class(metrics, False) == each
    found = row(metrics, "test_balanced")
    assert found["value"] == pytest.approx(0.5, abs=1e-12)
    assert (found["n_pos"], found["n_neg"], found["prior"]) == (sum(each), sum(each), 0.5)


def test_all_test_images_are_refused_as_others_where_the_class_tells(tmp_path: Path, digits_cache: Path) -> None:
    attacks = ("loss", "conf", "blind")
    metrics = audit(tmp_path, digits_cache, by_class, (104, 6, 0, 0, 0, 0, 0, 0, 0, 0), attacks=attacks)
    for attack in attacks:
        found = row(metrics, "test", attack)
        assert (found["value"], found["flag"]) == (None, "not_applicable")
        assert "the class alone gives an AUC of 0.9" in found["reason"]
    assert not [each for each in metrics.rows if each.get("nonmember_source") == "test" and each["value"] is not None]
    member = metrics.details["seed.is_member"].numpy() == 1
    by_loss = roc_auc_score(member, metrics.details["seed.scores.loss"].numpy())
    assert by_loss > 0.9, "the control: what would have been said"


def test_all_test_images_stay_where_classes_differ_by_less_than_chance(tmp_path: Path, digits_cache: Path) -> None:
    """All training images of the digits: 124 to 133 of a class, against 50."""
    metrics = audit(tmp_path, digits_cache, by_class, (124, 133, 127, 133, 131, 132, 131, 129, 124, 130))
    found = row(metrics, "test")
    assert abs(found["value"] - 0.5) < row(metrics, "test", metric="mia_auc_null_high")["value"] - 0.5
    assert found["n_neg"] == 500
    assert row(metrics, "test_balanced")["value"] == pytest.approx(0.5, abs=1e-12)


def test_what_leaks_is_still_found_and_counted_by_the_members_there_are(tmp_path: Path, digits_cache: Path) -> None:
    counts = (104, 60, 0, 0, 70, 0, 0, 0, 0, 20)
    metrics = audit(tmp_path / "leaking", digits_cache, exposing(0, 25), counts)
    found = row(metrics, "test_balanced")
    assert found["value"] > 0.98
    assert (found["n_pos"], found["n_neg"]) == (170, 170)
    # Images per class that are exposed: of those that were members, not of those that are looked at.
    assert row(metrics, "test_balanced", metric="mia_k")["value"] == pytest.approx(2 * 25.4 * (found["value"] - 0.5))
    silent = audit(tmp_path / "silent", digits_cache, noise, counts)
    high = row(silent, "test_balanced", metric="mia_auc_null_high")["value"]
    assert abs(row(silent, "test_balanced")["value"] - 0.5) < 1.6 * (high - 0.5)


def test_a_single_member_gives_rows(tmp_path: Path, digits_cache: Path) -> None:
    metrics = audit(tmp_path, digits_cache, noise, (0, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    found = row(metrics, "test_balanced")
    assert (found["n_pos"], found["n_neg"]) == (1, 1)
    assert "flag" in found or found["ci_high"] - found["ci_low"] > 0.9


# --- who is looked at -------------------------------------------------------------------------------------------------


def counted(*counts: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


def draw(number: int, size: int = 40) -> OriginConfig:
    return OriginConfig(kind="draw", per_class=size, draw=number, classes=EVERY)


@pytest.mark.parametrize("members, others", [(40, 100), (100, 100), (400, 100)])
def test_of_a_draw_all_members_stay_and_test_images_are_those_of_before(members: int, others: int) -> None:
    """As many of each class, or all where there are fewer: the choice of the releases before lists of members."""
    inside, outside = counted(*[members] * 10), counted(*[others] * 10)
    chosen = balanced(inside, outside, draw(3, members))
    assert chosen[: len(inside)].all()
    kept = np.flatnonzero(chosen[len(inside) :])
    wanted = []
    for label in EVERY:
        folders = np.flatnonzero(outside == label)
        rng = np.random.default_rng(derive("privacy", "spread", members, 3, label))
        wanted.append(folders if others <= members else np.sort(rng.choice(folders, members, replace=False)))
    assert kept.tolist() == np.concatenate(wanted).tolist()
    assert kept.tolist() == spread(outside, len(inside), members, 3).tolist()


def test_members_are_drawn_not_taken_in_order() -> None:
    inside, outside = counted(50, 20), counted(20, 20)
    chosen = balanced(inside, outside, draw(0))
    folders = np.flatnonzero(chosen[:50])
    assert len(folders) == 20
    assert chosen[50:70].all()
    assert folders.max() - folders.min() > 25
    assert np.array_equal(chosen, balanced(inside, outside, draw(0)))
    assert not np.array_equal(chosen, balanced(inside, outside, draw(1)))
    theirs = some_of_each(counted(50, 20), {0: 20, 1: 20}, 40, 0)
    assert set(theirs.tolist()) != set(np.flatnonzero(chosen[:70]).tolist()), "each side has chances of its own"


def shares(problem: str | None) -> float:
    assert problem is not None
    return float(problem.partition("an AUC of ")[2].split()[0].rstrip(",;"))


def test_what_the_class_alone_tells_is_the_best_that_any_order_of_classes_gives() -> None:
    inside, outside = counted(30, 5, 25), counted(10, 40, 10)
    told = class_problem(inside, outside)
    orders: list[Callable[[NDArray[np.int64]], Any]] = [
        lambda labels, folders=folders: np.array(folders)[labels]  # type: ignore[misc]
        for folders in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (1, 0, 1)]
    ]
    member = np.r_[np.ones(60), np.zeros(60)]
    best = max(roc_auc_score(member, order(np.concatenate([inside, outside]))) for order in orders)
    assert shares(told) == pytest.approx(best, abs=5e-4)
    assert class_problem(counted(40, 40), counted(1000, 1000)) is None
    assert class_problem(counted(400, 400), counted(100, 100)) is None
    assert class_problem(counted(3, 4), counted(50, 50)) is None  # no more than chance gives
    assert shares(class_problem(counted(40, 0), counted(40, 40))) == 0.75
