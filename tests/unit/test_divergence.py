"""How distillations end that cannot go on: with cause, iteration and what to lower, and never as a finished set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, distil, distill_config, tiny_experts, tiny_network
from torch import Tensor, nn

from trainables.configs import NetworkConfig
from trainables.context import StageFailure
from trainables.distill import distributions, dsa, idc, mtt
from trainables.distill.context import DistillContext
from trainables.methods import MTTSettings
from trainables.models.network import Network
from trainables.optimise import in_batches

RATE = {"dsa": "lr_img", "dc": "lr_img", "dm": "lr_img", "datadam": "lr_img", "idc": "lr_base"}


@pytest.mark.parametrize("method", list(RATE))
def test_the_last_update_is_looked_at_too(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss comes after it that would not be finite."""
    more: dict[str, Any] = {"loops": (1, 1)} if method in ("dsa", "dc") else {}
    plain = distributions.match_distributions

    def steep(*given: Any, **named: Any) -> tuple[float, Tensor]:
        loss, gradient = plain(*given, **named)
        return loss, 1e38 * gradient

    monkeypatch.setattr(distributions, "match_distributions", steep)
    for iterations in range(1, 6):
        config = distill_config(method, iterations=iterations, **more, **{RATE[method]: 1e38})
        with monkeypatch.context() as patch:
            patch.setattr(DistillContext, "check_images", lambda *args: None)
            unseen = distil(config, FakeContext(tmp_path)).images
        if not unseen.isfinite().all():
            break  # the loss of the last iteration was finite, and what would be handed on is not
        distil(config, FakeContext(tmp_path))
    said = rf"{method}: an image is not finite at iteration {iterations - 1}; .* settings\.{method}\.{RATE[method]}\."
    with pytest.raises(StageFailure, match=said):
        distil(config, FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("method", "more"),
    [("dsa", {"loops": (2, 4)}), ("dc", {"loops": (2, 4)}), ("idc", {"net_images": 32, "inner_loop": 4})],
)
def test_a_network_that_diverges_is_not_blamed_on_the_images(
    tmp_path: Path, method: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distill_config(method, iterations=4, lr_net=1e30, network=tiny_network(norm="none"), **more)
    with pytest.raises(
        StageFailure,
        match=rf"{method}: a loss of the network's training is not finite at iteration 0.*"
        rf"Lower settings\.{method}\.lr_net\.",
    ):
        distil(config, FakeContext(tmp_path))
    monkeypatch.setattr(DistillContext, "check_training", lambda *args: None)
    with pytest.raises(StageFailure, match=r"the loss is nan .* Lower settings\.\w+\.lr_net\."):
        distil(config, FakeContext(tmp_path))
    monkeypatch.setattr(DistillContext, "to_lower", lambda self, images, setting="lr_img", *, trained: setting)
    with pytest.raises(StageFailure, match=r"the loss is nan .* Lower settings\.\w+\.lr_(img|base)\."):
        distil(config, FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("method", "settings", "norm", "said"),
    [
        # One step: the loss before it is finite, and none comes after it.
        ("dsa", {"loops": (3, 1), "batch_train": 256, "lr_net": 1e30}, "instance", r"the loss is nan.* lr_net"),
        ("idc", {"net_images": 6, "lr_net": 1e30}, "instance", r"the loss is nan.* lr_net"),
        # Finite losses with infinite gradients.
        ("dsa", {"loops": (3, 1), "batch_train": 256, "lr_net": 1e10}, "instance", r"an image is not finite.* lr_net"),
        ("idc", {"net_images": 6, "lr_net": 1e6}, "instance", r"an image is not finite.* lr_net"),
        # Controls: the networks are trained at rates that do no harm, on images that have gone far.
        ("dsa", {"loops": (3, 2), "lr_img": 1e16}, "instance", r"an image is not finite.* lr_img"),
        ("dsa", {"loops": (3, 2), "lr_img": 1e16}, "none", r"a loss of the network's training.* lr_img"),
        ("idc", {"lr_base": 1e16}, "none", r"the loss is inf.* lr_base"),
    ],
)
def test_the_rate_to_lower_is_the_one_that_is_too_high(
    tmp_path: Path, method: str, settings: dict[str, Any], norm: str, said: str
) -> None:
    config = distill_config(method, iterations=4, network=tiny_network(norm=norm), **settings)
    expected = said.replace(" lr_", rf" Lower settings\.{method}\.lr_") + r"\.$"
    with pytest.raises(StageFailure, match=expected):
        distil(config, FakeContext(tmp_path))


def test_a_networks_training_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look waits for the device."""
    looks: list[int] = []
    monkeypatch.setattr(DistillContext, "check_training", lambda self, losses, *at: looks.append(len(losses)))
    distil(distill_config("dsa", iterations=2, loops=(3, 5), batch_train=4), FakeContext(tmp_path))
    assert looks == [5 * 2] * 2 * 2, "5 epochs of 2 steps, twice for each of 2 networks"
    looks.clear()
    distil(distill_config("idc", iterations=4, inner_loop=3, net_images=36), FakeContext(tmp_path))
    assert looks == [6, 6, 6]


# --- batch norm and one image -----------------------------------------------------------------------------------------


def resnet() -> Any:
    """On 8 pixels its last maps are single numbers, of which one image has no statistics."""
    return tiny_network(architecture="resnet18", width=4, depth=18, norm="batch")


LEFT_OVER: dict[str, dict[str, Any]] = {
    "dsa": {"loops": (2, 1), "batch_train": 5},  # of 6 images
    "mtt": {"batch_syn": 5},
    "idc": {"batch_real": 7, "net_images": 64, "inner_loop": 4},  # of 36 real ones
}
ALONE: dict[str, dict[str, Any]] = {"dsa": {"batch_train": 1}, "mtt": {"batch_syn": 1}, "idc": {"batch_real": 1}}


def test_one_image_has_no_batch_statistics() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(4)(torch.randn(1, 4, 1, 1))


@pytest.mark.parametrize("method", ["dsa", "mtt"])
def test_a_single_image_left_over_joins_the_batch_before(tmp_path: Path, method: str) -> None:
    config = distill_config(method, iterations=2, network=resnet(), **LEFT_OVER[method])
    assert distil(config, FakeContext(tmp_path), inputs=tiny_experts(config, tmp_path / "e")).images.isfinite().all()


SMALL = resnet()
LARGE = tiny_network(norm="batch")
"""Its last maps have more than one pixel: batch norm takes a single image, so that a batch of one stays one."""


@pytest.mark.parametrize(
    ("method", "network", "sizes"),
    [
        ("dsa", SMALL, [6]),
        ("dsa", LARGE, [5, 1]),
        ("idc", SMALL, [7] * 5),
        ("idc", LARGE, [7] * 5),  # with batch norm a last real image alone is left out
    ],
    ids=["dsa-small", "dsa-large", "idc-small", "idc-large"],
)
def test_batches_are_joined_only_where_they_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, network: NetworkConfig, sizes: list[int]
) -> None:
    module: Any = {"dsa": dsa, "idc": idc}[method]
    plain, found = module.batch_gradient, []

    def spy(network: Network, images: Tensor, *given: Any, **named: Any) -> Any:
        found.append(len(images))
        return plain(network, images, *given, **named)

    monkeypatch.setattr(module, "batch_gradient", spy)
    distil(distill_config(method, iterations=1, network=network, **LEFT_OVER[method]), FakeContext(tmp_path))
    assert found == sizes


@pytest.mark.parametrize(("network", "sizes"), [(SMALL, [6] * 4), (LARGE, [5, 1, 5, 1])], ids=["small", "large"])
def test_so_are_those_of_students(tmp_path: Path, network: NetworkConfig, sizes: list[int]) -> None:
    config = distill_config("mtt", network=network, **LEFT_OVER["mtt"])
    context = DistillContext(config, FakeContext(tmp_path))
    found = mtt.student_batches(MTTSettings.model_validate(config.settings), context, 0)
    assert [len(batch.rows) for batch in found] == sizes


@pytest.mark.parametrize(
    ("method", "settings"), [("dsa", {"loops": (2, 1), "batch_train": 1}), ("mtt", {"batch_syn": 1})]
)
def test_batches_of_one_image_stay_where_batch_norm_takes_them(
    tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    config = distill_config(method, iterations=2, network=LARGE, **settings)
    assert distil(config, FakeContext(tmp_path)).images.isfinite().all()


@pytest.mark.parametrize("method", list(ALONE))
def test_batches_of_one_image_are_refused(tmp_path: Path, method: str) -> None:
    config = distill_config(method, iterations=2, network=resnet(), **{**LEFT_OVER[method], **ALONE[method]})
    (setting,) = ALONE[method]
    with pytest.raises(
        ValueError, match=rf"{method}: batch norm has no statistics of one image; .* settings\.{method}\.{setting}"
    ):
        distil(config, FakeContext(tmp_path), inputs=tiny_experts(config, tmp_path / "e"))


def test_batches_are_those_of_a_split_but_for_a_single_image_left_over() -> None:
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    for batch in range(2, 16):
        for statistics in (False, True):
            found = in_batches(order, batch, batch_statistics=statistics, setting="it", who="train")
            plain = list(torch.split(order, batch))
            if statistics and len(plain) > 1 and len(plain[-1]) == 1:
                plain[-2:] = [torch.cat(plain[-2:])]
            assert len(found) == len(plain)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, plain, strict=True))
