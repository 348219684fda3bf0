"""Labels that are learned with the images (DATM), or that experts give (TESLA)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support import FakeContext, distil, distill_config, losses, result_bytes, tiny_experts, tiny_network, tiny_origin
from torch import Tensor
from torch.nn import functional as F
from trajectories import LEARNING, Problem, gap, stored

from trainables import seeds
from trainables.data.pixels import fit_whitening
from trainables.distill import mtt, unroll
from trainables.distill.context import DistillContext
from trainables.distill.unroll import MetaGradient, recompute, tesla, unrolled
from trainables.labels import SoftLabels
from trainables.methods import DATMSettings
from trainables.models.network import build
from trainables.payloads import DistilledSet, StoredExpert

# --- the gradient of labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_recomputing_gives_the_numbers_of_plain_back_propagation(norm: Any) -> None:
    problem = Problem(5, norm=norm)
    found, expected = (problem.solve(way, labels=problem.soft()) for way in (recompute, unrolled))
    for name in MetaGradient._fields:
        assert gap(getattr(found, name), getattr(expected, name)) < 1e-9, name


def test_the_gradient_of_labels_is_the_slope_of_the_loss() -> None:
    """By finite differences, which know nothing of back-propagation."""
    problem, step = Problem(4), 1e-6
    labels = problem.soft()
    found = problem.solve(recompute, labels=labels).labels
    assert found is not None
    direction = found / found.norm()
    ahead, behind = (float(problem.solve(unrolled, labels=labels + sign * step * direction).loss) for sign in (1, -1))
    assert float(found.norm()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)
    assert found.sum(1).abs().max() < 1e-9 * found.abs().max(), (
        "a softmax does not know what is added to all its logits"
    )


@pytest.mark.parametrize("way", unroll.GRADIENTS.values(), ids=unroll.GRADIENTS)
def test_certain_labels_are_hard_ones(way: Callable[..., MetaGradient]) -> None:
    problem = Problem(4)
    hard = problem.solve(way)
    certain = problem.solve(way, labels=60.0 * F.one_hot(problem.labels).double())
    assert hard.labels is None
    for name in ("loss", "images", "rate", "final"):
        assert gap(getattr(certain, name), getattr(hard, name)) < 1e-9, name


def test_tesla_is_exact_for_one_step() -> None:
    problem = Problem(1)
    found, expected = (problem.solve(way, labels=problem.soft()).labels for way in (tesla, unrolled))
    assert found is not None
    assert expected is not None
    assert gap(found, expected) < 1e-9


# --- starts -----------------------------------------------------------------------------------------------------------


def settings(**other: Any) -> DATMSettings:
    values = {"max_start": 4, "match_snapshots": 2, "expert_snapshots": 6, **other}
    return DATMSettings.model_validate(values)


def test_the_end_of_the_starts_grows_from_the_first_to_the_last() -> None:
    chosen = settings(early_starts=1, growth=6)
    assert [chosen.starts_end(iteration) for iteration in range(9)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert {settings().starts_end(iteration) for iteration in (0, 10_000)} == {4}, "without growth all are there"


def test_starts_are_drawn_of_those_there_are(tmp_path: Path) -> None:
    chosen = settings(min_start=1, early_starts=2, growth=100, num_experts=1)
    config = distill_config("datm", **chosen.model_dump())
    context = DistillContext(config, FakeContext(tmp_path), {"expert.0": stored(tmp_path, LEARNING, range(7))})
    experts = mtt.open_experts(chosen, context)
    drawn = [mtt.draw_segment(experts, chosen, context, iteration)[1] for iteration in range(300)]
    assert set(drawn[:50]) == {1}
    assert set(drawn[50:100]) == {1, 2}
    assert set(drawn[100:]) == {1, 2, 3}


def test_an_expert_without_an_early_start_begins_at_its_first(tmp_path: Path) -> None:
    """Its first segments are refused: it stands still there."""
    chosen = settings(min_start=1, early_starts=2, growth=100, num_experts=1)
    config = distill_config("datm", **chosen.model_dump())
    still = stored(tmp_path, LEARNING, [0, 5, 10, 10.01, 10.01, 20, 30])
    experts = mtt.open_experts(chosen, DistillContext(config, FakeContext(tmp_path), {"expert.0": still}))
    assert experts[0].starts == [1, 3]
    only_late = [mtt.Trajectory(experts[0].stored, 3, [3], [1, 2])]
    context = DistillContext(config, FakeContext(tmp_path))
    assert mtt.draw_segment(only_late, chosen, context, 0)[1] == 3


@pytest.mark.parametrize(
    "given", [{"min_start": 4}, {"min_start": 2, "early_starts": 2}, {"early_starts": 5}], ids=["T-", "T", "T+"]
)
def test_starts_out_of_order_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="starts out of order; got min_start"):
        settings(**given)


# --- images and labels to start from ----------------------------------------------------------------------------------


def said_by(expert: Path, images: Tensor) -> Tensor:
    """Logits of the expert's last network, built from its parameters by name."""
    opened = StoredExpert(expert)
    network, row, first = build(tiny_network(), 0), opened.snapshot(len(opened) - 1), 0
    state = dict(network.state_dict())
    for name, shape in opened.parameters:
        size = torch.Size(shape).numel()
        state[name] = row[first : first + size].view(shape)
        first += size
    network.load_state_dict(state)
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize("zca", [False, True])
def test_it_starts_from_images_that_the_first_expert_gets_right(tmp_path: Path, zca: bool) -> None:
    early = {} if zca else {"expert_snapshots": 1, "max_start": 1, "snapshot_steps": 3}
    config = distill_config("datm", ipc=3, iterations=0, right_first=True, num_experts=3, zca=zca, **early)
    origin = tiny_origin()
    inputs = tiny_experts(config, tmp_path / "experts", origin)
    made = distil(config, FakeContext(tmp_path), origin, inputs)
    images = origin.images
    if zca:  # as experts see them
        constants = config.dataset.mean, config.dataset.std
        images = fit_whitening(images, *constants).whiten(images, *constants)
    shown = images[made.indices - 100]  # the tiny origin's canonical indices begin at 100
    right = said_by(inputs["expert.0"], images).argmax(1) == origin.labels
    assert not right.all(), "the control: it gets some wrong"
    assert right[made.indices - 100].all()
    rows = torch.stack([said_by(inputs[f"expert.{number}"], shown) for number in range(3)])
    expected = torch.zeros(9, 3)
    for image in range(9):
        told = [row[image] for row in rows if row[image].argmax() == made.labels.classes[image]]
        expected[image] = torch.stack(told).mean(0)
    assert isinstance(made.labels, SoftLabels)
    torch.testing.assert_close(made.labels.rows, expected, rtol=1e-4, atol=1e-5)
    assert made.labels.agreement == 1.0
    assert (made.labels.form, made.labels.temperature, made.labels.source) == ("logits", 1.0, "learned")


def test_a_class_with_too_few_right_images_goes_on_with_the_others(tmp_path: Path) -> None:
    """Nor does an image that no expert gets right divide by nothing."""
    config = distill_config("datm", ipc=12, iterations=0, right_first=True)
    made = distil(config, FakeContext(tmp_path))
    assert sorted(made.indices.tolist()) == list(range(100, 136))
    assert isinstance(made.labels, SoftLabels)
    assert made.labels.rows.isfinite().all()
    assert made.labels.agreement == 1.0


def test_otherwise_it_starts_from_randoms_images_labelled_by_the_first_expert(tmp_path: Path) -> None:
    config = distill_config("datm", iterations=0, right_first=False)
    inputs = tiny_experts(config, tmp_path / "experts")
    made = distil(config, FakeContext(tmp_path), inputs=inputs)
    control = distil(distill_config("random"), FakeContext(tmp_path / "random"))
    assert torch.equal(made.images, control.images)
    assert isinstance(made.labels, SoftLabels)
    shown = tiny_origin().images[made.indices - 100]
    torch.testing.assert_close(made.labels.rows, said_by(inputs["expert.0"], shown), rtol=1e-4, atol=1e-5)


# --- distillation -----------------------------------------------------------------------------------------------------


def rows_of(made: DistilledSet) -> Tensor:
    assert isinstance(made.labels, SoftLabels)
    return made.labels.rows


def test_images_and_labels_are_learned(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    config = distill_config("datm", iterations=40, lr_img=30.0, growth=1)
    made = distil(config, context)
    start = distil(config.model_copy(update={"settings": {**config.settings, "iterations": 0}}), FakeContext(tmp_path))
    assert (rows_of(made) - rows_of(start)).abs().max() > 0.01
    found = losses(context)
    assert sum(found[-10:]) < 0.9 * sum(found[:10])
    assert made.info["skipped"] == 0


def test_with_certain_labels_that_stay_it_is_mtt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        DistillContext,
        "generator",
        lambda context, purpose, *numbers: seeds.generator("same", purpose, context.config.distill_seed, *numbers),
    )
    monkeypatch.setattr(
        mtt, "first_labels", lambda network, experts, images, classes, only_right: 60.0 * F.one_hot(classes).float()
    )
    plain = distill_config("mtt", iterations=3)
    shared = tiny_experts(plain, tmp_path / "experts")
    ours = distil(plain, FakeContext(tmp_path / "mtt"), inputs=shared)
    given = {"iterations": 3, "early_starts": None, "lr_label": 0.0}
    theirs = distil(distill_config("datm", **given), FakeContext(tmp_path / "datm"), inputs=shared)
    torch.testing.assert_close(theirs.images, ours.images, rtol=1e-4, atol=1e-5)
    assert theirs.info["learned_lr"] == pytest.approx(ours.info["learned_lr"], rel=1e-5)
    assert (ours.images - distil(distill_config("random"), FakeContext(tmp_path / "random")).images).abs().max() > 1e-3


@pytest.mark.parametrize("threshold, skipped", [(1e-9, 4), (1e9, 0)])
def test_a_loss_above_the_threshold_changes_nothing(tmp_path: Path, threshold: float, skipped: int) -> None:
    made = distil(distill_config("datm", iterations=4, threshold=threshold), FakeContext(tmp_path / "a"))
    start = distil(distill_config("datm", iterations=0), FakeContext(tmp_path / "b"))
    assert made.info["skipped"] == skipped
    assert torch.equal(made.images, start.images) == bool(skipped)
    assert torch.equal(rows_of(made), rows_of(start)) == bool(skipped)
    assert (made.info["learned_lr"] == start.info["learned_lr"]) == bool(skipped)
    assert made.info["loss_last"] is not None


@pytest.mark.parametrize(
    "method, other",
    [("datm", {}), ("datm", {"zca": True, "right_first": True}), ("tesla", {"target_labels": True}), ("tesla", {})],
)
def test_interruptions_leave_no_trace(tmp_path: Path, method: str, other: dict[str, Any]) -> None:
    config = distill_config(method, iterations=4, **other)
    whole = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    assert result_bytes(tmp_path / "parts", config, FakeContext(tmp_path / "b", stop_after=2)) == whole


# --- TESLA ------------------------------------------------------------------------------------------------------------


def test_tesla_is_mtt_with_its_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        DistillContext,
        "generator",
        lambda context, purpose, *numbers: seeds.generator("same", purpose, context.config.distill_seed, *numbers),
    )
    plain = distill_config("mtt", mtt_gradient="tesla")
    shared = tiny_experts(plain, tmp_path / "experts")
    ours = distil(plain, FakeContext(tmp_path / "mtt"), inputs=shared)
    theirs = distil(distill_config("tesla"), FakeContext(tmp_path / "tesla"), inputs=shared)
    assert torch.equal(ours.images, theirs.images)
    assert theirs.labels.kind == "hard"


def test_its_labels_are_what_the_last_target_says_of_the_images(tmp_path: Path) -> None:
    """Of those before the last update: an iteration labels, then learns."""
    config = distill_config("tesla", iterations=3, target_labels=True, max_start=1, num_experts=1, expert_snapshots=1)
    inputs = tiny_experts(config, tmp_path / "experts")
    made = distil(config, FakeContext(tmp_path / "a"), inputs=inputs)
    before = config.model_copy(update={"settings": {**config.settings, "iterations": 2}})
    images = (distil(before, FakeContext(tmp_path / "b"), inputs=inputs).images - 0.4) / 0.3
    torch.testing.assert_close(rows_of(made), said_by(inputs["expert.0"], images), rtol=1e-3, atol=1e-4)
    assert isinstance(made.labels, SoftLabels)
    assert made.labels.source == "teacher"
