"""What a step takes of a card, found out without one: counted like real tensors; the plan's estimates are no less."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from support import recipe, train_config
from torch.nn import functional as F

from ddray.plan.kinds import STAGE_KINDS, Load
from trainables.configs import DatasetConfig, DistillConfig, EnsembleConfig, NetworkConfig, OriginConfig
from trainables.dry_run import Counted, Took, distilling, training
from trainables.methods import METHODS
from trainables.models.network import build
from trainables.networks import convnet3_gflop, parse
from trainables.payloads import Expert
from trainables.presets import completed

TEST_IMAGES = 10_000


def dataset(classes: int = 10, size: int = 32) -> DatasetConfig:
    return DatasetConfig(
        name="made_up",
        base="cifar10",
        digest="sha256:0",
        num_classes=classes,
        image_size=size,
        channels=3,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        flip=True,
    )


def network_of(name: str, classes: int = 10, size: int = 32) -> NetworkConfig:
    return NetworkConfig.of(parse(name), image_size=size, channels=3, num_classes=classes)


def load_of(method: str, settings: Any, ipc: int | None, name: str, classes: int, each: int, **other: Any) -> Load:
    values = {"image_size": 32, "train_images": each, **other}
    return Load(
        method=method,
        settings=settings,
        ipc=ipc,
        network=parse(name),
        channels=3,
        num_classes=classes,
        test_images=TEST_IMAGES,
        origin_images=each,
        **values,
    )


# --- the counting -----------------------------------------------------------------------------------------------------


def counted(device: str) -> Counted:
    """A gradient, a gradient of the gradient, and a number that the host looks at."""
    network = build(network_of("convnet3-w16"), "counted", device=device)
    images = torch.zeros(6, 3, 32, 32, device=device, requires_grad=True)
    labels = torch.zeros(6, dtype=torch.int64, device=device)
    mode = Counted(device)
    with mode:
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        (again,) = torch.autograd.grad(sum(each.square().sum() for each in gradients), images)
        float(again.sum())
        del loss, gradients, again
    return mode


def test_tensors_without_numbers_are_counted_like_real_ones() -> None:
    real, without = counted("cpu"), counted("meta")
    assert without.peak > 5 * (6 * 16 * 32 * 32 * 4), "maps of the first layer are in it"
    # Kernels of real devices keep a few small tensors, such as masks, that those without numbers do not have.
    assert without.peak == pytest.approx(real.peak, rel=0.1)
    assert without.waits == real.waits == 1
    assert without.operators == pytest.approx(real.operators, rel=0.1)
    assert without.flop == real.flop


def test_what_is_freed_is_not_counted() -> None:
    mode = Counted()
    with mode:
        for _ in range(5):
            kept = torch.empty(2**20, dtype=torch.uint8, device="meta")
    assert mode.live == 2**20
    assert mode.peak == 2 * 2**20, "the next one is there before the last one goes"
    del kept
    gc.collect()
    assert mode.live == 0


def test_views_share_a_storage_and_waits_are_seen() -> None:
    mode = Counted()
    with mode:
        tensor = torch.empty(100, dtype=torch.uint8, device="meta")
        assert mode.live == 100
        view = tensor[10:20].reshape(2, 5)
        assert mode.live == 100
        before = mode.waits
        view.cpu()
        torch.zeros(2, 5, dtype=torch.uint8).copy_(view)
        assert bool(view.isfinite().all())
    assert mode.waits - before == 3


def test_arithmetic_is_that_of_the_formula() -> None:
    """Forward once; backward for inputs (not of the first layer) and for weights."""
    config = train_config(recipe(epochs=9, batch=16), network=network_of("convnet3"), dataset=dataset(), curve_points=0)
    took = training(config, 160, 20)
    first = 2 * 9 * 3 * 128 * 32 * 32 / 1e9
    classifier = 3 * 2 * 2048 * 10 / 1e9
    assert took.gflop == pytest.approx(16 * (3 * convnet3_gflop(32, 3) - first + classifier), rel=1e-3)


# --- the plan's estimates ---------------------------------------------------------------------------------------------


def distilled(
    method: str,
    ipc: int,
    name: str = "convnet3",
    classes: int = 10,
    each: int = 5000,
    folder: Path = Path(),
    **other: Any,
) -> tuple[float, Took]:
    """What the plan estimates, and what a run of the method's loop holds. MiB."""
    settings = completed(method, "cifar10" if classes == 10 else "cifar100", ipc, other)
    config = DistillConfig(
        method=method,
        method_version=1,
        dataset=dataset(classes),
        origin=OriginConfig(classes=tuple(range(classes))),
        ipc=ipc,
        init="real",
        augmentation="dsa",
        network=network_of(name, classes),
        settings=settings.key_material(),
        distill_seed=0,
    )
    inputs = {}
    if method == "mtt":
        made = build(config.network, "expert")  # type: ignore[arg-type]
        shapes = [(name, list(weight.shape)) for name, weight in made.named_parameters()]
        count, snapshots = sum(weight.numel() for weight in made.parameters()), settings.expert_snapshots + 1  # type: ignore[attr-defined]
        facts = {"steps": list(range(snapshots)), "train_acc": [0.1] * snapshots}
        distances = torch.ones(snapshots, snapshots, dtype=torch.float64)
        Expert(torch.zeros(snapshots, count), distances, shapes, facts).save(folder)
        inputs = {"expert.0": folder}
    held = STAGE_KINDS["distill"].memory(config, load_of(method, settings, ipc, name, classes, each))
    assert held is not None
    return held, distilling(config, each, inputs)


SHORT = {"dsa": {"loops": (2, 1)}, "idc": {"net_images": 64}, "dream": {"net_images": 64}, "dm": {}, "datadam": {}}


@pytest.mark.parametrize(
    ("name", "method", "ipc"),
    [
        *(("convnet3", method, ipc) for method in SHORT for ipc in (1, 10, 50)),
        *((name, method, 10) for name in ("resnet18", "vgg16") for method in ("dm", "idc")),
        ("vgg16", "dsa", 1),
    ],
)
def test_a_distillation_holds_what_is_estimated(name: str, method: str, ipc: int) -> None:
    held, took = distilled(method, ipc, name, each=1000, **SHORT[method])
    assert 1 <= held / took.held_mib < 1.6


@pytest.mark.parametrize("method", ["dm", "idc"])
def test_with_a_hundred_classes_too(method: str) -> None:
    held, took = distilled(method, 10, classes=100, each=300, **SHORT[method])
    assert 1 <= held / took.held_mib < 1.6


@pytest.mark.parametrize("name", ["convnet3-batch", "resnet18-instance", "convnet3-w64"])
def test_options_of_networks_are_in_it(name: str) -> None:
    held, took = distilled("dm", 10, name, each=1000)
    assert 1 <= held / took.held_mib < 1.6


@pytest.mark.parametrize("ipc", [1, 10])
def test_a_student_has_room_for_a_step_and_its_parameters(ipc: int, tmp_path: Path) -> None:
    held, took = distilled(
        "mtt", ipc, each=1000, folder=tmp_path, num_experts=1, syn_steps=4, expert_snapshots=8, max_start=2
    )
    assert took.held_mib <= held


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("images", "batch"), [(100, 256), (50_000, 256)])
@pytest.mark.parametrize("name", ["convnet3", "resnet18", "vgg16"])
def test_a_training_holds_what_is_estimated(name: str, images: int, batch: int, members: int) -> None:
    alone = train_config(recipe(epochs=9, batch=batch), network=network_of(name), dataset=dataset(), curve_points=0)
    load = load_of("random", METHODS["random"].settings(), None, name, 10, 5000, train_images=images // 10)
    if members == 1:
        held, took = STAGE_KINDS["train"].memory(alone, load), training(alone, images, TEST_IMAGES)
    else:
        ensemble = EnsembleConfig(base=alone, seeds=tuple(range(members)))
        held, took = STAGE_KINDS["ensemble"].memory(ensemble, load), training(ensemble, images, TEST_IMAGES)
    assert held is not None
    assert 1 <= held / took.held_mib < 1.8


def test_a_method_that_does_not_say_takes_a_whole_card() -> None:
    settings = METHODS["dm"].settings.__mro__[1]()
    config = DistillConfig(
        method="unheard_of",
        method_version=1,
        dataset=dataset(),
        origin=OriginConfig(classes=(0, 1)),
        ipc=1,
        init=None,
        augmentation=None,
        network=None,
        settings={},
        distill_seed=0,
    )
    assert STAGE_KINDS["distill"].memory(config, load_of("unheard_of", settings, 1, "convnet3", 2, 9)) == float("inf")
