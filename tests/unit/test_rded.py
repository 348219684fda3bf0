"""RDED: which parts of real images are chosen, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, distil, distill_config, tiny_experts, tiny_network, tiny_origin
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from trainables.data.pixels import denormalise, normalise
from trainables.distill import rded
from trainables.methods import NCFMSettings, RDEDSettings
from trainables.models.network import Network, build
from trainables.payloads import DistilledSet, Expert


def choosing(config: Any, folder: Path) -> tuple[Network, dict[str, Path]]:
    """The network that chooses, and the inputs of the stage."""
    inputs = tiny_experts(config, folder)
    network = build(tiny_network(), "any")
    torch.nn.utils.vector_to_parameters(Expert.load(inputs["expert.0"]).snapshots[-1], network.parameters())
    return network.requires_grad_(False), inputs


def losses_of(network: Network, images: Tensor, label: int) -> Tensor:
    return F.cross_entropy(network(images), torch.full((len(images),), label), reduction="none")


def test_whole_images_of_all_candidates_are_the_easiest_real_images(tmp_path: Path) -> None:
    config = distill_config("rded", ipc=3, candidates=12, crops=1, crop_area=1.0)
    network, inputs = choosing(config, tmp_path)
    origin = tiny_origin()
    made = distil(config, FakeContext(tmp_path), origin, inputs)
    for label, members in enumerate(origin.by_class):
        easiest = members[losses_of(network, origin.images[members], label).argsort()[:3]]
        rows = slice(3 * label, 3 * label + 3)
        assert made.indices[rows].tolist() == origin.indices[easiest].tolist()
        torch.testing.assert_close(made.images[rows], denormalise(origin.images[easiest], (0.4,), (0.3,)))


@pytest.mark.parametrize("tiles", [1, 2])
def test_every_square_is_the_easiest_of_its_image(tiles: int, tmp_path: Path) -> None:
    """Each stored square is one of the random ones of the image that it names, no other of that image is easier, and no
    square that was left out is easier than one that is there."""
    config = distill_config("rded", ipc=2, candidates=12, crops=4, tiles=tiles)
    network, inputs = choosing(config, tmp_path)
    origin, settings = tiny_origin(), RDEDSettings.model_validate(config.settings)
    seen: list[Tensor] = []
    original = rded.random_squares

    def spy(*arguments: Any) -> Tensor:
        seen.append(original(*arguments))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rded, "random_squares", spy)
        made = distil(config, FakeContext(tmp_path), origin, inputs)
    side, count = 8 // tiles, 2 * tiles**2
    assert made.indices.shape == ((6,) if tiles == 1 else (6, 4))
    stored = normalise(made.images, (0.4,), (0.3,)).view(6, 1, tiles, side, tiles, side).permute(0, 2, 4, 1, 3, 5)
    for label, squares in enumerate(seen):
        assert squares.shape == (12, settings.crops, 1, side, side)
        found = losses_of(network, rded.in_the_middle(squares.flatten(0, 1), 8), label).view(12, 4)
        best = found.min(1).values
        chosen = best.argsort()[:count]
        names = made.indices.view(3, count)[label]
        assert names.tolist() == origin.indices[origin.by_class[label][chosen]].tolist()
        own = squares[chosen, found.argmin(1)[chosen]]
        torch.testing.assert_close(stored.reshape(3, count, 1, side, side)[label], own, atol=1e-5, rtol=1e-5)


def test_squares_are_those_of_torchvision(tmp_path: Path) -> None:
    """Of images that say where they were cut, so that the part can be cut and resized again."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images = torch.stack([rows, columns])[None].repeat(4, 1, 1, 1)
    settings = RDEDSettings(crops=50, crop_area=0.1)
    squares = rded.random_squares(images, settings, torch.Generator().manual_seed(0))
    assert squares.shape == (4, 50, 2, 32, 32)
    shares = []
    for square in squares.flatten(0, 1):
        wide = round(float(square[1, 0, 16] - square[1, 0, 15]) * 32)
        top, left = (round(float(square[axis, 0, 0])) for axis in (0, 1))
        assert 0 <= top <= 32 - wide
        assert 0 <= left <= 32 - wide
        torch.testing.assert_close(square, v2.functional.resized_crop(images[0], top, left, wide, wide, [32, 32]))
        shares.append((wide / 32) ** 2)
    assert 0.08 < min(shares) < 0.15
    assert 0.9 < max(shares) <= 1.0
    assert sum(shares) / len(shares) == pytest.approx(0.55, abs=0.06), "uniform"


def test_more_candidates_are_looked_at_than_the_set_takes(tmp_path: Path) -> None:
    made = distil(distill_config("rded", ipc=5, candidates=1), FakeContext(tmp_path))
    assert len(set(made.indices.tolist())) == 15
    with pytest.raises(ValueError, match="got ipc 4 of 4 tiles, each of an image of its own; expected at most 3"):
        distil(distill_config("rded", ipc=4, tiles=2), FakeContext(tmp_path / "more"))
    assert RDEDSettings(tiles=2).real_images(4) == 16


def test_a_class_does_not_depend_on_others(tmp_path: Path) -> None:
    """Interrupted after every class, the set is the same."""
    from support import to_its_end

    config = distill_config("rded")
    _, inputs = choosing(config, tmp_path / "inputs")
    whole = distil(config, FakeContext(tmp_path / "whole"), inputs=inputs)
    context = FakeContext(tmp_path / "parts", stop_after=1)
    parts: DistilledSet = to_its_end(lambda: distil(config, context, inputs=inputs))
    assert torch.equal(parts.images, whole.images)


def test_the_network_that_chooses_is_ncfms_first(tmp_path: Path) -> None:
    config = distill_config("rded")
    settings = [
        model.experts(config.dataset, config.origin, config.network, "dsa")  # type: ignore[arg-type]
        for model in (RDEDSettings(), NCFMSettings(num_networks=2))
    ]
    assert settings[0][0].key_json == settings[1][0].key_json != settings[1][1].key_json
    with pytest.raises(ValueError, match="no statistics of a batch norm; got norm batch"):
        RDEDSettings(norm="batch")
