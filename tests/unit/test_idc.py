from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import worlds
from support import (
    FakeContext,
    conformance_folder,
    dataset_config,
    dispatches,
    distil,
    distill_config,
    network_of,
    result_bytes,
    tiny_network,
    tiny_origin,
    vectors,
    with_prefix,
)
from torch import Tensor
from torch.nn import functional as F

from ddray.errors import RequestError
from ddray.measurements.rows import collect
from ddray.prepare import expanded
from ddray.results import MEASUREMENTS_FILE
from trainables import seeds
from trainables.configs import OriginConfig
from trainables.context import Interrupted, StageFailure
from trainables.data import augment
from trainables.data.origins import Origin
from trainables.data.pixels import decode, denormalise, normalise
from trainables.distill import idc, matching
from trainables.distill.context import DistillContext, tiled_images
from trainables.distill.matching import match_gradients
from trainables.distill.representatives import cluster_centres, nearest, representatives
from trainables.methods import IDCSettings
from trainables.models.network import Network, build
from trainables.optimise import Mix, batch_gradient

PATHS: tuple[matching.Path, ...] = ("loop", "vectorised")
METRICS = ("mse", "l1")
STILL = {"lr_base": 1e-60}
"""Images that do not move."""


def omegas(classes: int, seed: int = 1) -> augment.Params:
    strategy = augment.idc_strategy("color_crop_cutout", flip=True)
    return augment.sample_each(strategy, classes, generator=torch.Generator().manual_seed(seed))


def surroundings(folder: Path, **config: Any) -> tuple[IDCSettings, DistillContext]:
    wanted = distill_config("idc", **config)
    return IDCSettings.model_validate(wanted.settings), DistillContext(wanted, FakeContext(folder))


def pixels(origin: Origin) -> Origin:
    """The same origin with values that are possible in [0, 1] (mean 0.4, std 0.3), as those of real images are."""
    inside = denormalise(origin.images, (0.4,), (0.3,)).clamp(0, 1)
    return Origin(normalise(inside, (0.4,), (0.3,)), origin.labels, origin.indices, origin.by_class)


def seen(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The calls of a function of the module, which goes on doing what it does."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    original = getattr(idc, name)

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    monkeypatch.setattr(idc, name, spy)
    return calls


# --- the distance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric, path", list(itertools.product(METRICS, PATHS)))
def test_no_distance_between_a_set_and_itself(metric: str, path: matching.Path) -> None:
    """experiments.md section 1: the distilled set is the real batch, under the same augmentation."""
    origin, network = tiny_origin(), build(tiny_network(), 0).double()
    images = origin.images.double()
    weights = idc.matched_weights(network)
    found, gradient = match_gradients(
        network, weights, idc.DISTANCES[metric], images, origin.by_class, images, omegas(3), path=path
    )
    assert found.max() < 1e-12
    if metric == "mse":
        assert gradient.abs().max() < 1e-12
    other, _ = match_gradients(
        network, weights, idc.DISTANCES[metric], images, origin.by_class, images.roll(12, 0), omegas(3), path=path
    )
    assert other.min() > 1e-3, "the control"


@pytest.mark.parametrize("metric, path", list(itertools.product(METRICS, PATHS)))
def test_the_distance_is_a_sum_over_the_weights_of_convolutions(metric: str, path: matching.Path) -> None:
    origin, network = tiny_origin(), build(tiny_network(), 0)
    synthetic = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def plain(images: Tensor, label: int) -> list[np.ndarray]:
        loss = F.cross_entropy(network(images), torch.full((len(images),), label))
        found = dict(
            zip(dict(network.named_parameters()), torch.autograd.grad(loss, network.parameters()), strict=True)
        )
        return [value.double().numpy() for value in found.values() if value.ndim == 4]

    found, _ = match_gradients(
        network,
        idc.matched_weights(network),
        idc.DISTANCES[metric],
        origin.images,
        origin.by_class,
        synthetic,
        None,
        path=path,
    )
    for index, members in enumerate(origin.by_class):
        pairs = zip(
            plain(synthetic[2 * index : 2 * index + 2], index), plain(origin.images[members], index), strict=True
        )
        measure: Callable[[np.ndarray], np.ndarray] = np.square if metric == "mse" else np.abs
        expected = sum(float(measure(own - real).sum()) for own, real in pairs)
        assert float(found[index]) == pytest.approx(expected, rel=1e-4)


def test_classifier_biases_and_norms_are_not_matched() -> None:
    network = build(tiny_network(), 0)
    assert idc.matched_weights(network) == ["features.0.weight", "features.4.weight"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("limit", [128, 5])
@pytest.mark.parametrize("sizes", [(12, 12, 12), (5, 9, 12)])
def test_both_ways_give_the_same_numbers(tmp_path: Path, metric: str, limit: int, sizes: tuple[int, ...]) -> None:
    settings, context = surroundings(tmp_path, metric=metric, batch_syn_max=limit)
    origin, network = tiny_origin(), build(tiny_network(), 0)
    batches = [members[:size] for members, size in zip(origin.by_class, sizes, strict=True)]
    stored = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = [
        match_gradients(
            network,
            idc.matched_weights(network),
            idc.DISTANCES[metric],
            origin.images,
            batches,
            stored,
            omegas(3),
            decode=idc._shown(settings, context, (0, 0)),
            path=path,
        )
        for path in PATHS
    ]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-3)


def test_the_vectorised_way_needs_a_fifth_of_the_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the whole update of all images of ten classes, batches and augmentations included."""
    classes = tuple(range(10))
    settings, context = surroundings(
        tmp_path, ipc=1, origin=OriginConfig(classes=classes), dataset=dataset_config(10), network=tiny_network(10)
    )
    origin, network = tiny_origin(num_classes=10), build(tiny_network(10), 0)
    images = torch.rand(10, 1, 8, 8)

    def update() -> None:
        batches = context.real_batches(origin, settings.batch_real, 0, 0)
        matching = idc._matching(origin, batches, network, settings, context, (0, 0))
        idc.step_in_turns(images, torch.zeros_like(images), matching, num_classes=10, lr=0.1, decay=0.5)

    counts = []
    for path in PATHS:
        monkeypatch.setitem(matching.PATHS, "cpu", path)
        counts.append(dispatches(update))
    assert counts[0] >= 5 * counts[1], counts


@pytest.mark.conformance
@pytest.mark.parametrize("metric, path", list(itertools.product(METRICS, PATHS)))
def test_conformance_of_loss_and_gradient(metric: str, path: matching.Path) -> None:
    recorded = vectors(conformance_folder() / "matching.npz")
    state = with_prefix(recorded, "param.")
    real, synthetic, label = recorded["real"], recorded["syn"], int(recorded["label"])
    network = build(network_of(state, real.shape[2], real.shape[1]), 0)
    network.load_state_dict(state)
    # The recorded pair belongs to one class; the classes before it get the same images, under their own labels.
    found, gradient = match_gradients(
        network,
        idc.matched_weights(network),
        idc.DISTANCES[metric],
        real,
        [torch.arange(len(real))] * (label + 1),
        synthetic.repeat(label + 1, 1, 1, 1),
        None,
        path=path,
    )
    expected = recorded[f"idc_matching.{metric}.grad_syn"]
    assert float(found[label]) == pytest.approx(float(recorded[f"idc_matching.{metric}.loss"]), rel=1e-3)
    assert (gradient[-len(synthetic) :] - expected).norm() <= 1e-3 * expected.norm()


# --- the images' steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_steps_in_turns_are_those_of_one_optimiser_over_all_images(tmp_path: Path, decay: float) -> None:
    """methods.md trap 16, literally: after each class one step of the optimiser that holds the whole tensor."""
    settings, context = surroundings(tmp_path)
    origin, network = tiny_origin(), build(tiny_network(), 0).double()
    origin = Origin(origin.images.double(), origin.labels, origin.indices, origin.by_class)
    start = torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, momentum = start.clone(), torch.zeros_like(start)
    theirs = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.SGD([theirs], lr=0.05, momentum=decay)
    for step in range(3):
        batches = context.real_batches(origin, settings.batch_real, 0, step)
        matching = idc._matching(origin, batches, network, settings, context, (0, step))
        found = idc.step_in_turns(ours, momentum, matching, num_classes=3, lr=0.05, decay=decay)
        for label in range(3):
            distances, gradient = matching(theirs.detach())
            theirs.grad = torch.zeros_like(theirs)
            theirs.grad[2 * label : 2 * label + 2] = gradient[2 * label : 2 * label + 2]
            optimiser.step()
            assert float(found[label]) == pytest.approx(float(distances[label]), rel=1e-9)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)
    assert (ours - start).abs().max() > 1e-4, "the control: they moved"


@pytest.mark.parametrize(
    "ipc, size, expected",
    [(1, 32, 5e-4), (10, 32, 5e-3), (20, 32, 1e-2), (50, 32, 2.5e-2), (100, 32, 5e-2), (10, 28, 5e-3 * 0.765625)],
)
def test_the_rule_of_the_learning_rate(ipc: int, size: int, expected: float) -> None:
    assert IDCSettings().lr_img(ipc, size) == pytest.approx(expected)


def test_the_rule_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = seen(monkeypatch, "step_in_turns")
    distil(distill_config("idc", ipc=2, lr_base=0.8), FakeContext(tmp_path))
    assert [call[1]["lr"] for call in steps] == pytest.approx([0.8 * 0.2 / 16] * 4), "8 pixels: a sixteenth of 32 x 32"


def test_images_are_clamped_for_each_network_and_when_handed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside: list[bool] = []
    original = idc.step_in_turns

    def spy(images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        outside.append(bool((images < 0).any() or (images > 1).any()))
        return original(images, *args, **kwargs)

    monkeypatch.setattr(idc, "step_in_turns", spy)
    result = distil(distill_config("idc", iterations=6, inner_loop=3, lr_base=100.0), FakeContext(tmp_path))
    assert outside == [False, True, True] * 2, "between the clamps they leave the range, as the authors' do"
    assert result.images.min() == 0
    assert result.images.max() == 1


def test_of_many_decoded_images_some_are_drawn(tmp_path: Path) -> None:
    settings, context = surroundings(tmp_path, ipc=4, batch_syn_max=5)
    stored = torch.rand(12, 1, 8, 8)
    show = idc._shown(settings, context, (2, 1))
    found = show(stored, 0, 3)
    assert len(found) == 15
    for label, part in enumerate(found.split(5)):
        own = normalise(decode(stored[4 * label : 4 * label + 4], 2), (0.4,), (0.3,))
        matches = (part[:, None] == own).flatten(2).all(2)
        assert (matches.sum(1) == 1).all()
        assert len(matches.nonzero()[:, 1].unique()) == 5, "without replacement"
    assert torch.equal(show(stored[4:], 1, 3), found[5:]), "however classes are grouped"
    assert not torch.equal(idc._shown(settings, context, (2, 2))(stored, 0, 3), found)
    everything = idc._shown(settings.model_copy(update={"batch_syn_max": 16}), context, (2, 1))(stored, 0, 3)
    assert len(everything) == 48


# --- starts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3])
def test_tiles_are_the_recorded_real_images(tmp_path: Path, factor: int) -> None:
    origin = pixels(tiny_origin(each=20))
    config = distill_config("idc", layout="mix", factor=factor, iterations=1, **STILL)
    result = distil(config, FakeContext(tmp_path), origin)
    assert result.indices.shape == (6, factor**2)
    assert len(result.indices.unique()) == 6 * factor**2
    side = math.ceil(8 / factor)
    nearest = [place * 8 // side for place in range(side)]
    for row, (image, label) in enumerate(zip(result.images, result.labels.classes, strict=True)):
        for tile, index in enumerate(result.indices[row]):
            assert origin.labels[index - 100] == label
            real = denormalise(origin.images[index - 100][None], (0.4,), (0.3,))[0, 0].clamp(0, 1).numpy()
            top, left = tile // factor * side, tile % factor * side
            shown = image[0, top : top + side, left : left + side].numpy()
            expected = real[np.ix_(nearest, nearest)][: shown.shape[0], : shown.shape[1]]
            np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_tiles_are_laid_out_as_the_authors_do_from_the_images_of_random(tmp_path: Path) -> None:
    """Tile k of image j of a class is number k * n + j of the images that ``random`` takes."""
    origin = tiny_origin()
    random = distil(distill_config("random", ipc=8), FakeContext(tmp_path / "a"), origin)
    mixed = distil(distill_config("idc", ipc=2, layout="mix", iterations=1), FakeContext(tmp_path / "b"), origin)
    for label in range(3):
        ordered = random.indices[8 * label : 8 * label + 8]
        assert mixed.indices[2 * label : 2 * label + 2].tolist() == [ordered[0::2].tolist(), ordered[1::2].tolist()]


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("other", [{"factor": 1}, {"factor": 2, "layout": "whole"}])
def test_other_real_starts_are_the_images_of_random(tmp_path: Path, other: dict[str, Any], iterations: int) -> None:
    config = distill_config("idc", iterations=iterations, distill_seed=5, **STILL, **other)
    start = distil(config, FakeContext(tmp_path / "a"))
    random = distil(distill_config("random", distill_seed=5), FakeContext(tmp_path / "b"))
    assert torch.equal(start.images, random.images.clamp(0, 1))
    assert torch.equal(start.indices, random.indices)
    assert start.info["factor"] == other["factor"]


def test_noise_is_around_grey(tmp_path: Path) -> None:
    result = distil(distill_config("idc", init="noise", ipc=60, iterations=1, **STILL), FakeContext(tmp_path))
    assert (result.indices == -1).all()
    assert float(result.images.mean()) == pytest.approx(0.5, abs=0.01)
    # Beyond two standard deviations on either side, 2.3 % each are cut off.
    assert float((result.images == 0).double().mean()) == pytest.approx(0.0228, abs=0.005)
    assert float((result.images == 1).double().mean()) == pytest.approx(0.0228, abs=0.005)


def test_too_few_images_for_the_tiles(tmp_path: Path) -> None:
    message = "class 0 has 7 images in the origin; got ipc 2, whose tiles of factor 2 take 8; .* use layout whole"
    with pytest.raises(ValueError, match=message):
        distil(distill_config("idc", layout="mix"), FakeContext(tmp_path), tiny_origin(each=7))
    for possible in ({"layout": "whole"}, {"layout": "mix", "ipc": 1}, {"layout": "mix", "init": "noise"}):
        distil(distill_config("idc", **possible), FakeContext(tmp_path), tiny_origin(each=7))
    images, _ = tiled_images(tiny_origin(each=8), 2, 2, 0, (0, 1, 2))
    assert images.shape == (6, 1, 8, 8)


# --- the network's training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net_images, batch, expected",
    [(12, 6, [6, 6]), (13, 6, [6, 6, 6]), (1000, 10, [10, 10, 10, 6]), (0, 6, [])],
)
def test_the_network_learns_from_real_images_in_whole_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, net_images: int, batch: int, expected: list[int]
) -> None:
    origin, calls = tiny_origin(), seen(monkeypatch, "batch_gradient")
    config = distill_config("idc", iterations=2, inner_loop=3, net_images=net_images, batch_real=batch)
    distil(config, FakeContext(tmp_path), origin)
    assert [len(args[1]) for args, _ in calls] == expected * 2
    for args, kwargs in calls:
        rows = [int((origin.images == image).flatten(1).all(1).nonzero()) for image in args[1]]
        assert len(set(rows)) == len(rows)
        assert torch.equal(args[2], origin.labels[rows])
        assert kwargs["params"].order == ("color", "crop")
        assert kwargs["params"].active.all()
        assert len(kwargs["params"]) == len(rows), "each image has its own"
        assert kwargs["mix"].cutmix == 0.5


def test_each_network_takes_its_steps_and_is_left_after_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    matched, trained = seen(monkeypatch, "_matching"), seen(monkeypatch, "_train")
    networks: list[int] = []
    original = DistillContext.network
    monkeypatch.setattr(DistillContext, "network", lambda self, *at: (networks.append(at[0]), original(self, *at))[1])
    distil(distill_config("idc", iterations=7, inner_loop=3), FakeContext(tmp_path))
    assert networks == [0, 1, 2]
    assert [args[-1] for args, _ in matched] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert [args[-1] for args, _ in trained] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_training_is_stochastic_gradient_descent_with_momentum_and_decay(tmp_path: Path) -> None:
    """Two steps written out."""
    settings, context = surroundings(
        tmp_path, net_images=12, augmentation="none", cutmix=0.0, lr_net=0.1, momentum_net=0.7, weight_decay_net=0.01
    )
    origin, learner = tiny_origin(), idc.fresh_learner(settings, context, 0)
    plain = context.network(0)
    idc._train(learner, origin, settings, context, (0, 0))
    order = torch.randperm(36, generator=context.generator("order", 0, 0))
    velocity = [torch.zeros_like(weight) for weight in plain.parameters()]
    for rows in (order[:6], order[6:12]):
        loss = F.cross_entropy(plain(origin.images[rows]), origin.labels[rows])
        slopes = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for weight, moved, slope in zip(plain.parameters(), velocity, slopes, strict=True):
                moved.mul_(0.7).add_(slope + 0.01 * weight)
                weight -= 0.1 * moved
    for found, expected in zip(learner.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_batch_norm_learns_in_training_mode_and_is_matched_in_evaluation_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modes: dict[str, set[bool]] = {"matched": set(), "trained": set()}
    match, train = idc.match_gradients, idc.batch_gradient

    def matching(network: Network, *args: Any, **kwargs: Any) -> Any:
        modes["matched"].add(network.training)
        return match(network, *args, **kwargs)

    def training(network: Network, *args: Any, **kwargs: Any) -> Any:
        modes["trained"].add(network.training)
        assert len(args[0]) > 1, "one image has no statistics"
        return train(network, *args, **kwargs)

    monkeypatch.setattr(idc, "match_gradients", matching)
    monkeypatch.setattr(idc, "batch_gradient", training)
    # 36 real images in batches of 7: the last image would be alone.
    config = distill_config("idc", network=tiny_network(norm="batch"), batch_real=7, net_images=1000)
    assert distil(config, FakeContext(tmp_path)).images.isfinite().all()
    assert modes == {"matched": {False}, "trained": {True}}


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_against_numpy(seed: int) -> None:
    images = torch.randn(5, 2, 12, 12, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(5) % 3
    mixed, partners, kept = augment.cutmix(images, labels, torch.Generator().manual_seed(100 + seed))
    generator = torch.Generator().manual_seed(100 + seed)
    share, row, column = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    order = torch.randperm(5, generator=generator).numpy()
    side, expected, replaced = int(12 * math.sqrt(1 - share)), images.numpy().copy(), 0
    for r, c in itertools.product(range(12), repeat=2):
        if all(
            int(12 * centre) - side // 2 <= at < int(12 * centre) + side // 2 for centre, at in ((row, r), (column, c))
        ):
            expected[:, :, r, c] = images.numpy()[order, :, r, c]
            replaced += 1
    np.testing.assert_array_equal(mixed.numpy(), expected)
    assert torch.equal(partners, labels[order])
    assert kept == pytest.approx(1 - replaced / 144)


def test_the_loss_of_a_mixed_batch_is_shared_by_both_labels() -> None:
    network, origin = build(tiny_network(), 0), tiny_origin()

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    found = batch_gradient(network, origin.images, origin.labels, mix=Mix(1.0, 0.0, drawn()))
    generator = drawn()
    torch.rand(1, generator=generator)  # whether
    mixed, partners, kept = augment.cutmix(origin.images, origin.labels, generator)
    assert 0 < kept < 1
    logits = network(mixed)
    expected = kept * F.cross_entropy(logits, origin.labels) + (1 - kept) * F.cross_entropy(logits, partners)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_the_order_of_operations_is_idcs() -> None:
    assert augment.idc_strategy("cutout_rotate_color_scale_flip_crop", flip=True) == augment.Strategy(
        always=("flip", "color"), choice=("crop", "scale", "rotate"), finally_=("cutout",)
    )
    assert augment.idc_strategy("flip_crop", flip=False) == augment.Strategy(choice=("crop",))
    assert augment.idc_training_strategy(flip=False).order == ("color", "crop", "scale", "rotate")


def test_matching_applies_color_crop_and_cutout_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = seen(monkeypatch, "match_gradients")
    distil(distill_config("idc"), FakeContext(tmp_path))
    for args, _ in calls:
        assert args[6].order == ("color", "crop", "cutout")
        assert args[6].active.all()
        assert len(args[6]) == 3, "one per class, shared by its images"
    assert not torch.equal(calls[0][0][6].draws, calls[1][0][6].draws)


def test_the_sweeps_switch_takes_the_augmentation_out_and_leaves_cutmix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    matched, trained = seen(monkeypatch, "match_gradients"), seen(monkeypatch, "batch_gradient")
    applied, mixed = [], []
    monkeypatch.setattr(augment, "apply", lambda images, params: (applied.append(1), images)[1])
    original = augment.cutmix
    monkeypatch.setattr(augment, "cutmix", lambda *args: (mixed.append(1), original(*args))[1])
    for switch in ("none", "dsa"):
        for calls in (matched, trained, applied, mixed):
            calls.clear()
        distil(distill_config("idc", augmentation=switch, cutmix=1.0), FakeContext(tmp_path))
        assert mixed
        assert bool(applied) == (switch == "dsa")
        assert all((args[6] is None) == (switch == "none") for args, _ in matched)
        assert all((kwargs["params"] is None) == (switch == "none") for _, kwargs in trained)


@pytest.mark.parametrize(
    "text, message",
    [
        ("color_crpo", "unknown operation 'crpo'; got 'color_crpo'; expected some of color, crop, cutout, flip"),
        ("crop_color_crop", "an operation stands twice; got 'crop_color_crop'; expected each once"),
        ("", "unknown operation ''"),
    ],
)
def test_operations_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment.idc_strategy(text, flip=True)
    with pytest.raises(ValueError, match=message):
        IDCSettings(match_aug=text)
    sweep = f"""ddray: 1
grids:
  g:
    axes: {{method: [idc], dataset: [digits], ipc: [1]}}
    settings:
      idc:
        net_aug: "{text}"
"""
    with pytest.raises(RequestError, match=rf"tiny.yaml:7: grids.g.settings.idc.net_aug: {message}"):
        worlds.sweep_of(tmp_path, sweep)


def test_the_order_in_which_operations_are_written_makes_no_difference() -> None:
    assert IDCSettings(match_aug="cutout_color_crop").key_json == IDCSettings().key_json


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("layout", ["mix", "whole"])
def test_interruptions_at_any_step_leave_no_trace(tmp_path: Path, norm: str, layout: str) -> None:
    config = {"iterations": 7, "inner_loop": 3, "network": tiny_network(norm=norm), "layout": layout, "lr_base": 1.0}
    config |= {"batch_syn_max": 5, "cutmix": 0.5}
    whole = result_bytes(tmp_path / "whole", distill_config("idc", **config), FakeContext(tmp_path / "a"))
    for stop_after in (1, 2, 3, 5):
        context = FakeContext(tmp_path / f"b{stop_after}", stop_after=stop_after)
        assert result_bytes(tmp_path / f"parts{stop_after}", distill_config("idc", **config), context) == whole
        assert context.counted == list(range(7)), "nothing is computed twice"


def test_a_stop_between_two_steps_of_the_network_costs_that_step_alone(tmp_path: Path) -> None:
    config = {"iterations": 4, "inner_loop": 4, "lr_base": 1.0}
    whole = result_bytes(tmp_path / "whole", distill_config("idc", **config), FakeContext(tmp_path / "a"))

    class Polled(FakeContext):
        polls = 0

        def poll(self) -> None:
            self.polls += 1
            if self.polls == 4:  # two steps of the network per update: in the second update
                raise Interrupted

    context = Polled(tmp_path / "b", stop_after=1)
    assert result_bytes(tmp_path / "parts", distill_config("idc", **config), context) == whole
    assert context.counted == [0, 1, 2, 3]
    assert context.polls > 4, "the control: it was in fact interrupted there"


def test_a_longer_budget_continues_a_shorter_one(tmp_path: Path) -> None:
    whole = result_bytes(tmp_path / "whole", distill_config("idc", iterations=5), FakeContext(tmp_path / "a"))
    context = FakeContext(tmp_path / "b", stop_after=2)
    result_bytes(tmp_path / "short", distill_config("idc", iterations=3), context)
    assert result_bytes(tmp_path / "long", distill_config("idc", iterations=5), context) == whole
    assert context.counted == [0, 1, 2, 2, 3, 4], "it starts from what the shorter one saved after step 2"


def test_divergence_names_the_step(tmp_path: Path) -> None:
    config = distill_config("idc", lr_net=1e20, network=tiny_network(norm="none"))
    with pytest.raises(
        StageFailure, match=r"idc: a loss of the network's .* at iteration \d; .* settings\.idc\.lr_net"
    ):
        distil(config, FakeContext(tmp_path))


# --- in a sweep -------------------------------------------------------------------------------------------------------

SWEEP = """ddray: 1
grids:
  g:
    protocol: quick
    axes: {{method: [idc, random, full], dataset: [digits], ipc: [{ipc}], init: [{init}], origin_per_class: [40]}}
    settings:
      idc: {{iterations: 1, factor: 2, layout: {layout}}}
"""


def test_the_planner_refuses_more_tiles_than_the_origin_has_images(tmp_path: Path) -> None:
    message = (
        r"tiny.yaml:5: grids.g.axes.ipc: idc starts from 44 real images of each class, more than a class of the origin "
        r"\(origin_per_class 40\) holds; got ipc 11; expected at most 10. .*settings.idc.layout: whole"
    )
    with pytest.raises(RequestError, match=message):
        expanded(worlds.sweep_of(tmp_path, SWEEP.format(ipc=11, init="real", layout="mix")))
    for ipc, init, layout in ((10, "real", "mix"), (11, "real", "whole"), (11, "noise", "mix")):
        assert expanded(worlds.sweep_of(tmp_path, SWEEP.format(ipc=ipc, init=init, layout=layout)))
    with pytest.raises(RequestError, match=r"more images than a class of the origin .* got 41; expected at most 40"):
        expanded(worlds.sweep_of(tmp_path, SWEEP.format(ipc=41, init="real", layout="whole")))


def test_rows_say_how_many_training_images_a_set_holds(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, SWEEP.format(ipc=3, init="real", layout="mix"))
    worlds.fill(store, plan, accuracy=lambda point: 0.5)
    collect(plan, sweep, store, tmp_path / "r")
    rows = pq.read_table(tmp_path / "r" / MEASUREMENTS_FILE).to_pylist()
    found = {(row["method"], row["ipc"], row["factor"], row["effective_ipc"]) for row in rows}
    assert found == {("idc", 3, 2, 12), ("random", 3, 1, 3), ("full", None, None, None)}


# --- DREAM: real images that clustering chooses -----------------------------------------------------------------------


def test_centres_of_clusters_that_lie_apart_are_their_means_and_the_nearest_images_one_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = 100 * torch.randn(4, 6, generator=generator)
    points = torch.cat([middle + 0.1 * torch.randn(30, 6, generator=generator) for middle in middles])
    begun = points[[3, 33, 63, 93]]
    centres = cluster_centres(points, begun)
    torch.testing.assert_close(centres, points.reshape(4, 30, 6).mean(1), rtol=1e-4, atol=1e-4)
    rows = nearest(points, centres)
    assert (rows // 30).tolist() == [0, 1, 2, 3]
    for row, centre, cluster in zip(rows, centres, points.reshape(4, 30, 6), strict=True):
        assert float((points[row] - centre).norm()) == pytest.approx(float((cluster - centre).norm(dim=1).min()))


def test_rounding_does_not_choose_between_two_points_that_are_equally_near() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 64, generator=generator)
    centre = points.mean(0, keepdim=True)
    plain, robust = set(), set()
    for _ in range(40):
        moved = points * (1 + 1e-7 * torch.randn(points.shape, generator=generator))
        plain.add(int(torch.cdist(centre, moved).argmin()))
        robust.add(int(nearest(moved, centre)))
    assert plain == {0, 1}, "the control: the plain minimum is a matter of rounding"
    assert robust == {0}


def test_an_empty_cluster_keeps_its_centre() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0]])
    centres = cluster_centres(points, torch.tensor([[1.0], [50.0]]))
    assert centres.tolist() == [[1.0], [50.0]]


def test_representatives_are_images_of_their_class(tmp_path: Path) -> None:
    origin = tiny_origin()
    network = build(tiny_network(), 0).eval()
    found = representatives(origin, network, 5, torch.Generator().manual_seed(1))
    again = representatives(origin, network, 5, torch.Generator().manual_seed(1))
    for members, chosen, same in zip(origin.by_class, found, again, strict=True):
        assert len(chosen) == 5
        assert set(chosen.tolist()) <= set(members.tolist())
        assert torch.equal(chosen, same)
    every = representatives(origin, network, 100, torch.Generator().manual_seed(1))
    assert all(torch.equal(one, other) for one, other in zip(every, origin.by_class, strict=True))


def test_dream_with_a_cluster_for_every_image_is_idc_on_whole_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        DistillContext,
        "generator",
        lambda context, purpose, *numbers: seeds.generator("same", purpose, context.config.distill_seed, *numbers),
    )
    monkeypatch.setattr(
        DistillContext,
        "network",
        lambda context, *numbers: build(context.config.network, "same", *numbers),
    )
    given = {"iterations": 4, "lr_base": 0.5}
    idc_images = distil(distill_config("idc", batch_real=100, **given), FakeContext(tmp_path / "idc")).images
    config = distill_config("dream", batch_real=100, clusters=100, interval=1000, **given)
    dream_images = distil(config, FakeContext(tmp_path / "dream")).images
    torch.testing.assert_close(dream_images, idc_images, rtol=1e-3, atol=1e-4)
    few = distill_config("dream", batch_real=100, clusters=3, interval=1000, **given)
    assert not torch.allclose(distil(few, FakeContext(tmp_path / "few")).images, idc_images, atol=1e-3)


def test_images_are_chosen_every_interval_and_by_every_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def noted(*given: Any) -> list[Tensor]:
        chosen.append(len(chosen))
        return representatives(*given)

    monkeypatch.setattr(idc, "representatives", noted)
    distil(distill_config("dream", iterations=10, inner_loop=5, interval=2), FakeContext(tmp_path))
    assert len(chosen) == 6, "before steps 0, 2, 4 of both networks"


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_what_was_chosen_outlives_an_interruption(tmp_path: Path, stop_after: int) -> None:
    config = distill_config("dream", iterations=6, inner_loop=4, interval=3)
    whole = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    context = FakeContext(tmp_path / "b", stop_after=stop_after)
    assert result_bytes(tmp_path / "parts", config, context) == whole
