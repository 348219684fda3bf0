from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support import (
    FakeContext,
    conformance_folder,
    distil,
    distill_config,
    losses,
    network_of,
    recipe,
    result_bytes,
    tiny_experts,
    tiny_network,
    tiny_origin,
    tiny_test,
    train_config,
    vectors,
    with_prefix,
)
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from trajectories import LEARNING, PARTS, Problem, gap, stored
from workspace import Workspace

from trainables import optimise, seeds
from trainables.context import StageFailure
from trainables.data import augment
from trainables.distill import mtt, unroll
from trainables.distill.context import DistillContext
from trainables.distill.unroll import Batch, MetaGradient, recompute, tesla, unrolled
from trainables.experts import flat_parameters
from trainables.methods import MTTSettings
from trainables.models.network import build
from trainables.models.second_order import for_second_order, instance_norm
from trainables.payloads import DistilledSet, Expert, StoredExpert, TrainedModel
from trainables.train import rate_learned_for, train

# --- the meta-gradient ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("augmented, batch", [(True, 4), (False, 4), (True, 6)])
def test_recomputing_gives_the_numbers_of_plain_back_propagation(norm, augmented: bool, batch: int) -> None:
    problem = Problem(6, augmented=augmented, batch=batch, norm=norm)
    found, expected = problem.solve(recompute), problem.solve(unrolled)
    assert expected.images.norm() > 0
    assert abs(float(expected.rate)) > 0
    for name in PARTS:
        assert gap(getattr(found, name), getattr(expected, name)) < 1e-9


@pytest.mark.parametrize("way", [recompute, tesla])
def test_taking_a_batch_in_parts_changes_nothing(way, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(4, batch=5)
    whole = problem.solve(way)
    monkeypatch.setitem(optimise.CHUNK, "cpu", 2)
    parts = unroll._Student(problem.network).parts(problem.batches[0])
    assert [len(part.rows) for part in parts] == [2, 2, 1], "the control: it is in fact cut"
    found = problem.solve(way)
    for name in PARTS:
        assert gap(getattr(found, name), getattr(whole, name)) < 1e-9


def test_the_gradients_are_slopes_of_the_loss() -> None:
    """By finite differences, which know nothing of back-propagation."""
    problem, step = Problem(5), 1e-6
    found = problem.solve(recompute)

    def loss(**other: Tensor) -> float:
        return float(problem.solve(unrolled, **other).loss)

    slope = (loss(rate=problem.rate + step) - loss(rate=problem.rate - step)) / (2 * step)
    assert float(found.rate) == pytest.approx(slope, rel=1e-5)
    direction = found.images / found.images.norm()
    ahead, behind = problem.images + step * direction, problem.images - step * direction
    slope = (loss(images=ahead) - loss(images=behind)) / (2 * step)
    assert float(found.images.norm()) == pytest.approx(slope, rel=1e-5)


def test_tesla_is_back_propagation_with_earlier_parameters_cut_off() -> None:
    """theta_N = theta_0 - a * sum of g_k(theta_k), in which theta_k are constants (Cui et al., section 3)."""
    problem = Problem(5)
    images, rate = problem.images.clone().requires_grad_(), problem.rate.clone().requires_grad_()
    constant = [problem.start]
    for batch in problem.batches:
        gradient = plain_gradient(problem, constant[-1], images.detach(), batch)
        constant.append((constant[-1] - problem.rate * gradient).detach())
    total = torch.stack(
        [
            plain_gradient(problem, theta, images, batch)
            for theta, batch in zip(constant[:-1], problem.batches, strict=True)
        ]
    ).sum(0)
    loss = (problem.start - rate * total - problem.target).square().sum()
    loss = loss / (problem.start - problem.target).square().sum()
    at_images, at_rate = torch.autograd.grad(loss, (images, rate))
    found = problem.solve(tesla)
    assert float(found.loss) == pytest.approx(loss.item(), rel=1e-12)
    assert gap(found.images, at_images) < 1e-9
    assert gap(found.rate, at_rate) < 1e-9
    assert gap(found.images, problem.solve(recompute).images) > 1e-3, "the control: it is an approximation"


def plain_gradient(problem: Problem, theta: Tensor, images: Tensor, batch: Batch) -> Tensor:
    """The gradient (P,) of one step's loss, by name instead of by position."""
    weights, first = {}, 0
    for name, weight in problem.network.named_parameters():
        weights[name] = theta[first : first + weight.numel()].view(weight.shape).detach().requires_grad_()
        first += weight.numel()
    seen = images[batch.rows] if batch.params is None else augment.apply(images[batch.rows], batch.params)
    loss = F.cross_entropy(functional_call(problem.network, weights, (seen,)), problem.labels[batch.rows])
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def test_tesla_is_exact_for_one_step() -> None:
    problem = Problem(1)
    found, expected = problem.solve(tesla), problem.solve(unrolled)
    for name in PARTS:
        assert gap(getattr(found, name), getattr(expected, name)) < 1e-9


@pytest.mark.parametrize("way", unroll.GRADIENTS.values(), ids=unroll.GRADIENTS)
class TestEveryGradient:
    def test_a_student_that_takes_no_step_has_loss_one(self, way) -> None:
        problem = Problem(0)
        found = problem.solve(way)
        assert float(found.loss) == 1.0
        assert not found.images.any()
        assert float(found.rate) == 0.0
        assert torch.equal(found.final, problem.start)

    @pytest.mark.parametrize("norm", ["instance", "batch"])
    def test_a_student_fed_what_the_expert_was_fed_ends_where_it_ended(self, way, norm) -> None:
        problem = Problem(8, augmented=False, norm=norm)
        expert = build(tiny_network(norm=norm, width=4), 0).double()
        optimiser = torch.optim.SGD(expert.parameters(), lr=float(problem.rate))
        for batch in problem.batches:
            optimiser.zero_grad()
            F.cross_entropy(expert(problem.images[batch.rows]), problem.labels[batch.rows]).backward()
            optimiser.step()
        found = problem.solve(way, target=flat_parameters(expert))
        assert float(found.loss) < 1e-10
        assert float(found.images.norm()) < 1e-6

    def test_what_it_is_given_stays_as_it_was(self, way) -> None:
        problem = Problem(2)
        before = {name: getattr(problem, name).clone() for name in ("start", "images", "rate", "target")}
        weights = flat_parameters(problem.network)
        found = problem.solve(way)
        for name, tensor in before.items():
            assert torch.equal(getattr(problem, name), tensor)
            assert not getattr(problem, name).requires_grad
        assert torch.equal(flat_parameters(problem.network), weights)
        assert not any(getattr(found, name).requires_grad for name in PARTS)

    def test_it_gives_way_between_steps(self, way) -> None:
        problem, asked = Problem(3), []
        way(
            problem.start,
            problem.images,
            problem.labels,
            problem.rate,
            problem.batches,
            problem.network,
            problem.target,
            lambda: asked.append(1),
        )
        assert len(asked) >= 3

    @pytest.mark.conformance
    def test_conformance(self, way) -> None:
        recorded = vectors(conformance_folder() / "mtt.npz")
        start, target = with_prefix(recorded, "param."), with_prefix(recorded, "target.")
        images, labels = recorded["images"], recorded["labels"]
        network = build(network_of(start, images.shape[2], images.shape[1]), 0)
        names = [name for name, _ in network.named_parameters()]
        vector, wanted = (torch.cat([state[name].reshape(-1) for name in names]) for state in (start, target))
        batches = [Batch(torch.arange(len(images)), None)] * int(recorded["steps"])
        found = way(vector, images, labels, recorded["learning_rate"], batches, network, wanted)
        assert float(found.loss) == pytest.approx(float(recorded["loss"]), rel=1e-3)
        assert gap(found.final, recorded["final_flat"]) < 1e-3
        if way is not tesla:
            assert gap(found.images, recorded["grad_images"]) < 1e-3
            assert float(found.rate) == pytest.approx(float(recorded["grad_learning_rate"]), rel=1e-3)


class SavedBytes:
    """How many bytes of tensors autograd keeps for later at once, at most, each storage counted once."""

    def __init__(self) -> None:
        self.now, self.peak = 0, 0
        self._holders: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Held:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if self._holders.get(place, 0) == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._holders[place] = self._holders.get(place, 0) + 1
        held = _Held(tensor.detach())  # with its graph, an operation's own output would hold itself
        weakref.finalize(held, self._release, place, size)
        return held

    def _release(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if self._holders[place] == 0:
            self.now -= size


class _Held:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_peak(way: Callable[..., MetaGradient], steps: int) -> int:
    saved, problem = SavedBytes(), Problem(steps)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda held: held.tensor):
        problem.solve(way)
    return saved.peak


def test_memory_of_activations_does_not_grow_with_the_steps_where_there_is_no_room() -> None:
    few, many = 3, 24
    slope = (saved_peak(unrolled, many) - saved_peak(unrolled, few)) / (many - few)
    one_step = saved_peak(unrolled, 1)
    assert slope > 0.5 * one_step, "the control: with plain back-propagation every step adds its own"
    for way in (partial(recompute, room=0), partial(tesla, room=0)):
        assert saved_peak(way, many) <= 1.02 * saved_peak(way, few)
        assert saved_peak(way, many) <= 1.3 * one_step


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_how_many_steps_are_kept_changes_no_bit(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(6, batch=6, norm=norm)
    if norm == "instance":
        for_second_order(problem.network)
    with unroll._Saved() as saved:
        student = unroll._Student(problem.network)
        first = problem.batches[0]
        held = unroll._taken(student, problem.start, problem.images, problem.labels, first, first)
    assert saved.bytes > held.images.nbytes
    rooms = {0: 0, round(3.5 * saved.bytes): 3, 2**40: 6}
    expected = problem.solve(partial(recompute, room=0))
    for room, kept in rooms.items():
        with monkeypatch.context() as patch:
            measured: list[object] = []
            patch.setattr(unroll._Saved, "__exit__", partialmethod(_noted, measured, unroll._Saved.__exit__))
            found = problem.solve(partial(recompute, room=room))
        assert len(measured) == kept, "of six steps"
        for name in PARTS:
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


def _noted(self: object, measured: list[object], leave: Callable[..., None], *how: object) -> None:
    measured.append(self)
    leave(self, *how)


def test_second_derivatives_of_instance_norm_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 3, 2), (3,), (3,))
    )
    torch.testing.assert_close(instance_norm(maps, weight, bias, 1e-5), F.group_norm(maps, 3, weight, bias, 1e-5))
    arguments = (maps, weight, bias, 0.3)  # as large as a variance: eps is in the formulas
    assert torch.autograd.gradcheck(instance_norm, arguments)
    assert torch.autograd.gradgradcheck(instance_norm, arguments)


# --- segments and batches ---------------------------------------------------------------------------------------------


def settings(**other: Any) -> MTTSettings:
    values = {"max_start": 4, "match_snapshots": 2, "expert_snapshots": 6, **other}
    return MTTSettings.model_validate(values)


@pytest.mark.parametrize(
    "accuracies, places, changes, last, starts, refused",
    [
        (LEARNING, [0, 1, 2, 3, 4, 5, 6], {}, 3, [0, 1, 2, 3], []),
        (LEARNING, [0, 1, 2, 3, 4, 5, 6], {"max_start": 2}, 1, [0, 1], []),
        (LEARNING, [0, 1, 2, 3, 4, 5, 6], {"max_start": 3, "match_snapshots": 4}, 2, [0, 1, 2], []),
        ([0.1, 0.5, 0.9, 0.99, 0.9, 0.9, 0.9], [0, 1, 2, 3, 4, 5, 6], {}, 2, [0, 1, 2], []),
        (LEARNING, [0, 1, 2, 2.05, 2.05, 3, 4], {}, 3, [0, 1, 3], [2]),
        (LEARNING, [0, 0, 0, 0, 0, 0, 0], {}, 3, [], [0, 1, 2, 3]),
        ([1.0] * 7, [0, 1, 2, 3, 4, 5, 6], {}, -1, [], []),
    ],
    ids=["all", "T+", "M", "learned", "stands still", "never moves", "knows"],
)
def test_which_segments_there_are(tmp_path, accuracies, places, changes, last, starts, refused) -> None:
    found = mtt.trajectory(StoredExpert(stored(tmp_path, accuracies, places)), settings(**changes))
    assert (found.last, found.starts, found.refused) == (last, starts, refused)


def test_experts_without_a_segment_are_left_out_and_without_any_the_stage_says_what_to_do(tmp_path: Path) -> None:
    config = distill_config("mtt", max_start=4, match_snapshots=2, expert_snapshots=6)
    chosen = MTTSettings.model_validate(config.settings)
    good = stored(tmp_path, LEARNING, range(7), 0)
    bad = stored(tmp_path, LEARNING, [0] * 7, 1)
    context = DistillContext(config, FakeContext(tmp_path), {"expert.0": good, "expert.1": bad})
    assert [found.starts for found in mtt.open_experts(chosen, context)] == [[0, 1, 2, 3], []]
    context = DistillContext(config, FakeContext(tmp_path), {"expert.0": bad, "expert.1": bad})
    message = r"no expert has a segment .* got 2 experts, .* 8 segments .* Raise settings\.mtt\.lr_expert"
    with pytest.raises(StageFailure, match=message):
        mtt.open_experts(chosen, context)


def test_every_expert_comes_once_before_any_comes_again_and_every_start_comes(tmp_path: Path) -> None:
    config = distill_config("mtt", max_start=4, match_snapshots=2, expert_snapshots=6, num_experts=5)
    folders = {f"expert.{index}": stored(tmp_path, LEARNING, range(7), index) for index in range(5)}
    context = DistillContext(config, FakeContext(tmp_path), folders)
    experts = mtt.open_experts(MTTSettings.model_validate(config.settings), context)
    chosen = MTTSettings.model_validate(config.settings)
    drawn = [mtt.draw_segment(experts, chosen, context, iteration) for iteration in range(100)]
    order = [experts.index(expert) for expert, _ in drawn]
    passes = [tuple(order[first : first + 5]) for first in range(0, 100, 5)]
    assert all(set(one) == set(range(5)) for one in passes)
    assert len(set(passes)) > 10
    assert {start for _, start in drawn} == {0, 1, 2, 3}
    assert mtt.draw_segment(experts, chosen, context, 37) == drawn[37], "the place decides, not what came before"


@pytest.mark.parametrize("batch, sizes", [(None, [6] * 5), (4, [4, 2, 4, 2, 4]), (6, [6] * 5), (100, [6] * 5)])
def test_batches_are_parts_of_permutations(tmp_path: Path, batch, sizes: list[int]) -> None:
    config = distill_config("mtt", syn_steps=5, batch_syn=batch)
    context = DistillContext(config, FakeContext(tmp_path))
    chosen = MTTSettings.model_validate(config.settings)
    found = mtt.student_batches(chosen, context, 3)
    assert [len(one.rows) for one in found] == sizes
    rows = torch.cat([one.rows for one in found])
    for first in range(0, len(rows) - 5, 6):
        assert rows[first : first + 6].sort().values.tolist() == list(range(6))
    for one in found:
        assert one.params is not None
        assert len(one.params) == len(one.rows)
        assert (one.params.active == one.params.active[0]).all(), "one operation for all of a batch"
    others = mtt.student_batches(chosen, context, 4)
    assert not torch.equal(rows, torch.cat([one.rows for one in others]))


# --- distillation -----------------------------------------------------------------------------------------------------


def test_the_expert_itself_is_the_best_student(tmp_path: Path) -> None:
    """The whole origin as the set, the expert's rate, no augmentation: the student goes the expert's way."""
    config = distill_config(
        "mtt",
        ipc=12,
        iterations=3,
        lr_img=1e-30,
        lr_lr=1e-30,
        lr_syn=0.05,
        lr_expert=0.05,
        syn_steps=8,
        snapshot_steps=8,
        augmentation="none",
    )
    context = FakeContext(tmp_path)
    result = distil(config, context)
    assert max(losses(context)) < 1e-6
    assert sorted(result.indices.tolist()) == list(range(100, 136))
    slower = FakeContext(tmp_path / "slower")
    distil(config.model_copy(update={"settings": {**config.settings, "lr_syn": 0.02}}), slower)
    assert min(losses(slower)) > 0.01, "the control: at another rate it does not"


@pytest.mark.parametrize(
    "other", [{}, {"augmentation": "none"}, {"tesla_cosine": 1}, {"zca": True}, {"mtt_gradient": "unrolled"}]
)
def test_interruptions_leave_no_trace(tmp_path: Path, other: dict[str, Any]) -> None:
    config = distill_config("mtt", **{"iterations": 4, "batch_syn": 4, **other})
    expected = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    for stop_after in (1, 3):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert result_bytes(tmp_path / f"parts{stop_after}", config, context) == expected
        assert context.counted == [0, 1, 2, 3], "nothing is computed twice"


def test_a_longer_budget_continues_a_shorter_one(tmp_path: Path) -> None:
    whole = result_bytes(tmp_path / "whole", distill_config("mtt", iterations=5), FakeContext(tmp_path / "a"))
    context = FakeContext(tmp_path / "b", stop_after=2)
    result_bytes(tmp_path / "short", distill_config("mtt", iterations=3), context)
    assert result_bytes(tmp_path / "long", distill_config("mtt", iterations=5), context) == whole
    assert context.counted == [0, 1, 2, 2, 3, 4], "it starts from what the shorter one saved after iteration 2"


def test_both_exact_gradients_make_one_set_and_tesla_another(tmp_path: Path) -> None:
    made = {
        way: distil(distill_config("mtt", mtt_gradient=way), FakeContext(tmp_path / way)) for way in unroll.GRADIENTS
    }
    torch.testing.assert_close(made["unrolled"].images, made["recompute"].images, atol=1e-4, rtol=1e-3)
    assert (made["tesla"].images - made["recompute"].images).abs().max() > 1e-3
    assert made["tesla"].info["mtt_gradient"] == "tesla"


def test_the_cosine_is_measured_on_request_and_changes_nothing(tmp_path: Path) -> None:
    with_it, without = FakeContext(tmp_path / "a"), FakeContext(tmp_path / "b")
    made = distil(distill_config("mtt", tesla_cosine=2, iterations=5, syn_steps=8), with_it)
    plain = distil(distill_config("mtt", iterations=5, syn_steps=8), without)
    assert torch.equal(made.images, plain.images)
    assert not any("tesla_cosine" in values for values in without.measured)
    found = [values["tesla_cosine"] for values in with_it.measured if "tesla_cosine" in values]
    assert [iteration for iteration, _ in made.info["tesla_cosines"]] == [0, 2, 4]
    assert found == [value for _, value in made.info["tesla_cosines"]]
    assert all(0.2 < value < 0.99999 for value in found)
    other = distil(distill_config("mtt", tesla_cosine=2, mtt_gradient="tesla", iterations=1, syn_steps=8), with_it)
    assert other.info["tesla_cosines"][0][1] == pytest.approx(found[0], rel=1e-3)


def test_the_set_knows_how_it_was_made(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    config = distill_config("mtt", iterations=30)
    facts = distil(config, context).info
    assert facts["learned_lr"] == pytest.approx(context.measured[-1]["learned_lr"])
    assert facts["learned_lr"] != pytest.approx(0.05, rel=1e-3), "it has been learned"
    assert facts["loss_last"] == pytest.approx(sum(losses(context)[-25:]) / 25)
    assert config.network is not None
    assert facts["network"] == config.network.model_dump(mode="json")
    assert (facts["experts"], facts["last_starts"], facts["segments"], facts["segments_refused"]) == (2, [1, 1], 4, 0)


def test_without_an_iteration_the_set_is_the_start(tmp_path: Path) -> None:
    made = distil(distill_config("mtt", iterations=0), FakeContext(tmp_path / "a"))
    assert torch.equal(made.images, distil(distill_config("random"), FakeContext(tmp_path / "b")).images)
    assert made.info["learned_lr"] == pytest.approx(0.05)
    assert made.info["loss_last"] is None


def test_an_expert_that_stands_still_is_left_out_and_recorded(tmp_path: Path) -> None:
    config = distill_config("mtt", iterations=6)
    inputs = tiny_experts(config, tmp_path / "experts")
    expert = Expert.load(inputs["expert.1"])
    still = expert.snapshots[:1].expand(3, -1)
    Expert(still, torch.zeros(3, 3, dtype=torch.float64), expert.parameters, expert.info).save(inputs["expert.1"])
    context = FakeContext(tmp_path / "a")
    facts = distil(config, context, None, inputs).info
    assert (facts["experts"], facts["experts_left_out"], facts["segments"], facts["segments_refused"]) == (1, 1, 2, 2)
    assert facts["last_starts"] == [1, 1]
    assert all(math.isfinite(loss) for loss in losses(context)), "it would have divided by zero"


def test_a_rate_that_would_become_negative_is_kept_positive_and_counted(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    facts = distil(distill_config("mtt", lr_syn=0.5, lr_lr=1.0, iterations=6), context).info
    rates = [values["learned_lr"] for values in context.measured if "learned_lr" in values]
    assert min(rates) == pytest.approx(mtt.LEAST_RATE)
    assert facts["rate_clamped"] == context.measured[-1]["rate_clamped"] > 0
    assert all(math.isfinite(loss) for loss in losses(context))


@pytest.mark.parametrize(
    "other, message",
    [
        (
            {"lr_img": 1e38},
            r"mtt: (an image is not finite|the loss is nan) at iteration \d.* Lower settings\.mtt\.lr_img",
        ),
        ({"lr_syn": 1e30}, r"mtt: the loss is (nan|inf) at iteration 0.* Lower settings\.mtt\.lr_syn"),
        ({"lr_lr": 1e12, "lr_syn": 0.5, "iterations": 40}, r"mtt: the loss is .* Lower settings\.mtt\.lr_lr"),
        ({"lr_lr": 1e38, "lr_syn": 0.5}, r"mtt: the learned rate is -?inf at iteration \d+.* settings\.mtt\.lr_lr"),
    ],
    ids=["images", "student", "learned rate", "rate"],
)
def test_divergence_names_the_cause_and_the_iteration(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(StageFailure, match=message):
        distil(distill_config("mtt", **other), FakeContext(tmp_path))


def test_forty_images_per_class_are_enough(tmp_path: Path) -> None:
    """Where snapshots by epochs stand still: an epoch of so few images is a step or two."""
    origin = tiny_origin(each=40)
    config = distill_config(
        "mtt",
        iterations=20,
        batch_expert=256,
        snapshot_steps=None,
        expert_snapshots=3,
        max_start=3,
        match_snapshots=1,
        lr_expert=0.01,
        lr_syn=0.02,
        syn_steps=10,
        lr_img=10.0,
        lr_lr=1e-5,
    )
    context = FakeContext(tmp_path)
    inputs = tiny_experts(config, tmp_path / "experts", origin)
    assert StoredExpert(inputs["expert.0"]).info["steps"] == [0, 50, 100, 150]
    result = distil(config, context, origin, inputs)
    found = losses(context)
    assert all(0 < loss < 2 for loss in found)
    assert sum(found[-10:]) < 0.9 * sum(found[:10])
    assert result.images.isfinite().all()
    assert result.info["rate_clamped"] == 0


def test_experts_of_another_network_are_noticed(tmp_path: Path) -> None:
    inputs = tiny_experts(distill_config("mtt"), tmp_path / "experts")
    with pytest.raises(AssertionError, match="experts of another network"):
        distil(distill_config("mtt", network=tiny_network(width=4)), FakeContext(tmp_path), None, inputs)


# --- the request ------------------------------------------------------------------------------------------------------


def test_each_expert_is_a_stage_of_its_own() -> None:
    config = distill_config("mtt", num_experts=3, expert_snapshots=4, zca=True, batch_expert=7, momentum_expert=0.3)
    assert config.network is not None
    chosen = MTTSettings.model_validate(config.settings)
    found = chosen.experts(config.dataset, config.origin, config.network, config.augmentation)
    assert [expert.index for expert in found] == [0, 1, 2]
    for expert in found:
        assert (expert.snapshots, expert.zca, expert.batch, expert.momentum) == (4, True, 7, 0.3)
        assert (expert.network, expert.origin, expert.augmentation) == (config.network, config.origin, "dsa")


def test_a_last_start_without_a_target_is_refused() -> None:
    settings(max_start=5, match_snapshots=2, expert_snapshots=6)
    with pytest.raises(ValidationError, match="got max_start 6 and match_snapshots 2, which need 7 snapshots"):
        settings(max_start=6, match_snapshots=2, expert_snapshots=6)


def test_the_sweep_file_and_line_are_named(workspace: Workspace) -> None:
    text = """
ddray: 1
defaults: {protocol: quick, axes: {dataset: [digits], method: [mtt], ipc: [1]}}
grids:
  g:
    settings:
      mtt: {max_start: 4, match_snapshots: 2, expert_snapshots: SNAPSHOTS}
"""
    ran = workspace.run("check", workspace.write("bad", text.replace("SNAPSHOTS", "4")))
    assert ran.code == 2
    assert "bad.yaml:7: grids.g.settings.mtt: the last start has no target; got max_start 4" in ran.out + ran.err
    ran = workspace.run("check", workspace.write("good", text.replace("SNAPSHOTS", "5")))
    assert ran.code == 0, ran.err


# --- training on the set ----------------------------------------------------------------------------------------------


def trained_on(made: DistilledSet, folder: Path, **other: Any) -> TrainedModel:
    config = train_config(recipe(**other), network=other.pop("network", tiny_network()))
    origin = tiny_origin()
    rate = rate_learned_for(config, made.info)
    return train(config, made.images, made.labels.classes, tiny_test(origin), FakeContext(folder), learned_lr=rate)


@pytest.mark.parametrize(
    "wanted, width, learned",
    [("own_network", 8, True), ("own_network", 4, False), ("always", 4, True), ("never", 8, False)],
)
def test_the_learned_rate_is_used_where_the_recipe_wants_it(tmp_path: Path, wanted, width: int, learned: bool) -> None:
    made = distil(distill_config("mtt"), FakeContext(tmp_path))
    config = train_config(recipe(learned_lr=wanted, lr=0.123), network=tiny_network(width=width))
    found = rate_learned_for(config, made.info)
    assert found == (made.info["learned_lr"] if learned else None)
    assert rate_learned_for(config, distil(distill_config("random"), FakeContext(tmp_path / "b")).info) is None


def test_training_at_the_learned_rate_is_training_with_that_lr_and_says_so(tmp_path: Path) -> None:
    from trainables.evaluate.accuracy import training_rows

    made = distil(distill_config("mtt"), FakeContext(tmp_path))
    rate = made.info["learned_lr"]
    by_learned, by_recipe, plain = (
        trained_on(made, tmp_path / str(index), **other)
        for index, other in enumerate(({"lr": 0.5}, {"lr": rate}, {"lr": 0.5, "learned_lr": "never"}))
    )
    assert torch.equal(by_learned.outputs["test"].logits, by_recipe.outputs["test"].logits)
    assert not torch.equal(by_learned.outputs["test"].logits, plain.outputs["test"].logits)
    rows = {row["metric"]: row["value"] for row in training_rows(by_learned)}
    assert rows["trained_lr"] == rate
    assert plain.info["trained_lr"] == 0.5


SWEEP = """
ddray: 1
defaults: {protocol: quick, train: {epochs: 3}, axes: {dataset: [digits], num_classes: [2], ipc: [1]}}
grids:
  g:
    axes: {method: [mtt], architecture: [convnet3, convnet3-w8]}
    settings:
      mtt: {iterations: 3, syn_steps: 3, max_start: 1, match_snapshots: 1, num_experts: 2, expert_snapshots: 1,
            snapshot_steps: 4, width: 8, zca: ZCA, lr_img: 1.0}
"""


@pytest.mark.parametrize("zca", [False, True])
def test_from_the_sweep_to_the_table(workspace: Workspace, zca: bool) -> None:
    """Experts, set, training and accuracy as stages; the whitening goes along with the set and the model."""
    from pyarrow import parquet

    path = workspace.write("mtt", SWEEP.replace("ZCA", str(zca).lower()))
    ran = workspace.run("sweep", path, "--local", "--no-mlflow")
    assert ran.code == 0, ran.err
    prepared = workspace.prepare(path)
    kinds = [stage.kind for chain in prepared.plan.chains for stage in chain.stages]
    assert kinds.count("experts") == 4
    rates = {}
    for chain in prepared.plan.chains:
        train_stage, set_stage = chain.stage("train"), chain.stage("distill")
        assert train_stage is not None
        assert set_stage is not None
        model = TrainedModel.load(workspace.store.open(train_stage.key).folder)
        made = DistilledSet.load(workspace.store.open(set_stage.key).folder)
        assert (model.whitening is not None) == (made.whitening is not None) == zca
        if model.whitening is not None and made.whitening is not None:
            assert torch.equal(model.whitening.matrix, made.whitening.matrix)
        rates[chain.point.architecture] = model.info["trained_lr"]
        if chain.point.architecture == "convnet3-w8":
            assert model.info["trained_lr"] == made.info["learned_lr"]
    assert rates["convnet3"] == 0.01 != rates["convnet3-w8"]
    rows = parquet.read_table(workspace.results("mtt").measurements).to_pylist()
    found = {row["architecture"]: row["value"] for row in rows if row["metric"] == "trained_lr"}
    assert found == pytest.approx(rates)


# --- FTD: the running average of the images ---------------------------------------------------------------------------


def test_ftd_hands_on_the_running_average(tmp_path: Path) -> None:
    """E after three updates, from the images after each, which MTT's own set with the same experts shows."""
    given = {"radius": 0.05, "alignment": 0.3, "augmentation": "none"}
    last = [
        distil(distill_config("ftd", iterations=count, ema=0.0, **given), FakeContext(tmp_path / f"{count}")).images
        for count in range(4)
    ]
    average = last[0]
    for images in last[1:]:
        average = 0.7 * average + 0.3 * images
    found = distil(distill_config("ftd", iterations=3, ema=0.7, **given), FakeContext(tmp_path / "average"))
    torch.testing.assert_close(found.images, average, rtol=1e-4, atol=1e-5)
    assert found.info["start_share"] == pytest.approx(0.7**3)
    assert not torch.allclose(last[3], average)


def test_ftd_without_average_from_mtts_experts_is_mtt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws, bit for bit."""
    monkeypatch.setattr(
        DistillContext,
        "generator",
        lambda context, purpose, *numbers: seeds.generator("same", purpose, context.config.distill_seed, *numbers),
    )
    mtt = distill_config("mtt", iterations=3)
    shared = tiny_experts(mtt, tmp_path / "experts")
    ours = distil(mtt, FakeContext(tmp_path / "mtt"), inputs=shared)
    given = {"iterations": 3, "ema": 0.0}
    theirs = distil(distill_config("ftd", **given), FakeContext(tmp_path / "ftd"), inputs=shared)
    assert torch.equal(ours.images, theirs.images)
    assert ours.info["learned_lr"] == theirs.info["learned_lr"]


@pytest.mark.parametrize("ema", [0.5, 0.0])
def test_ftds_interruptions_leave_no_trace(tmp_path: Path, ema: float) -> None:
    config = distill_config("ftd", iterations=4, ema=ema)
    whole = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    assert result_bytes(tmp_path / "parts", config, FakeContext(tmp_path / "b", stop_after=2)) == whole
