"""DP-DM: what it releases of the images, against its formula; and that nothing else of them reaches the set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, distil, distill_config, losses, result_bytes, tiny_network, tiny_origin
from torch import Tensor

from trainables.configs import OriginConfig
from trainables.data.origins import Origin
from trainables.distill import distributions, dpdm
from trainables.distill.context import DistillContext
from trainables.guarantee import PRIVATE, Guarantee, epsilon_of
from trainables.methods import DPDMSettings
from trainables.models.network import Network, build


def guarantee(sigma: float = 0.0, clip: float = 1.0, rate: float = 1.0) -> Guarantee:
    return Guarantee(epsilon=1, delta=1e-5, noise=sigma, clip=clip, rate=rate, rounds=1)


def network(**other: Any) -> Network:
    return build(tiny_network(**other), 0).requires_grad_(False)


def context(folder: Path, **other: Any) -> DistillContext:
    return DistillContext(distill_config("dpdm", **other), FakeContext(folder))


def means(
    given: Guarantee, folder: Path, *, origin: Origin | None = None, expected: float = 12.0, **other: Any
) -> Tensor:
    origin = origin or tiny_origin()
    return dpdm.noisy_means(network(), origin, given, expected, 0, context(folder, **other))


def without(origin: Origin, row: int) -> Origin:
    """The origin less one image."""
    kept = torch.tensor([index for index in range(len(origin.labels)) if index != row])
    labels = origin.labels[kept]
    by_class = tuple((labels == index).nonzero().squeeze(1) for index in range(len(origin.by_class)))
    return Origin(origin.images[kept], labels, origin.indices[kept], by_class)


def test_without_noise_and_with_every_image_it_is_distribution_matching(tmp_path: Path) -> None:
    """Of whole classes: the loss but for C^2, and a gradient of the same direction (methods2.md 5.3)."""
    origin, made, clip = tiny_origin(), network(), 1e4
    synthetic = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    given = context(tmp_path)
    omegas = given.omegas(0)
    targets = dpdm.noisy_means(made, origin, guarantee(clip=clip), 12.0, 0, given)
    phi = dpdm.clipped(made, clip)
    loss, gradient = distributions.match_targets(phi, False, targets, synthetic, 2, omegas, 32)
    expected, direction = distributions.match_distributions(
        made, origin.images, origin.by_class, synthetic, 2, omegas, path="loop"
    )
    assert loss * clip**2 == pytest.approx(expected, rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), direction.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_embeddings_are_shortened_to_the_norm_and_measured_in_it() -> None:
    made, images = network(), tiny_origin().images
    bare = made.embed(images)
    clip = float(bare.norm(dim=1).median())
    got = dpdm.clipped(made, clip)(images)
    expected = torch.stack([row * min(1.0, clip / float(row.norm())) / clip for row in bare])
    torch.testing.assert_close(got, expected)
    assert float(got.norm(dim=1).max()) <= 1 + 1e-5
    assert float(got.norm(dim=1).min()) < 1


def test_one_image_more_changes_what_is_released_by_no_more_than_the_noise_covers(tmp_path: Path) -> None:
    origin = tiny_origin()
    whole = means(guarantee(), tmp_path, origin=origin, expected=1.0)
    for row in (0, 14, 35):
        change = whole - means(guarantee(), tmp_path, origin=without(origin, row), expected=1.0)
        assert float(change.norm()) <= 1 + 1e-4
        touched = change.norm(dim=1) > 1e-4
        assert touched.tolist() == [index == int(origin.labels[row]) for index in range(3)], "its own class alone"


def test_a_round_that_no_coin_chose_an_image_for_is_noise_alone(tmp_path: Path) -> None:
    made = build(tiny_network(width=64), 0).requires_grad_(False)
    given = context(tmp_path)
    drawn = dpdm.noisy_means(made, tiny_origin(), guarantee(sigma=2.5, rate=1e-12), 4.0, 0, given)
    assert float(drawn.std()) == pytest.approx(2.5 / 4.0, rel=0.05)


def test_a_sum_has_one_noise_whenever_it_is_asked_for(tmp_path: Path) -> None:
    """Fresh noise at each use would be a release each time, and average away."""
    noisy = guarantee(sigma=2.0, rate=0.5)
    assert torch.equal(means(noisy, tmp_path), means(noisy, tmp_path))
    assert not torch.equal(means(noisy, tmp_path), means(noisy, tmp_path, distill_seed=1))


@pytest.mark.parametrize("iterations", [2, 4, 11])
def test_real_images_are_looked_at_once_a_round(
    iterations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = dpdm.noisy_means

    def counted(*given: Any) -> Tensor:
        looked.append(given[4])
        return real(*given)

    monkeypatch.setattr(dpdm, "noisy_means", counted)
    distil(distill_config("dpdm", iterations=iterations, rounds=4), FakeContext(tmp_path))
    assert looked == list(range(min(iterations, 4)))


def test_what_a_set_states(tmp_path: Path) -> None:
    config = distill_config("dpdm", iterations=9, rounds=4, batch_real=3, epsilon=6.0, delta=1e-4)
    made = distil(config, FakeContext(tmp_path))
    stated = made.info[PRIVATE]
    assert (stated["rounds"], stated["rate"], stated["clip"], stated["delta"]) == (4, 0.25, 1.0, 1e-4)
    assert stated["epsilon"] == epsilon_of(stated["noise"], delta=1e-4, rate=0.25, rounds=4) <= 6.0
    assert (made.indices == -1).all(), "it starts from no real image"
    start = distil(distill_config("dpdm", iterations=0), FakeContext(tmp_path / "start"))
    assert PRIVATE not in start.info, "nothing was released"


def test_an_origin_chosen_by_coins_counts_as_large_as_it_was_to_be(tmp_path: Path) -> None:
    origin = OriginConfig(kind="coin", per_class=20, draw=0, row=0, classes=(0, 1, 2))
    made = distil(distill_config("dpdm", origin=origin, batch_real=5), FakeContext(tmp_path))
    assert made.info[PRIVATE]["rate"] == 5 / 20


def test_interruptions_leave_no_trace_though_sums_are_made_again(tmp_path: Path) -> None:
    config = distill_config("dpdm", iterations=7, rounds=3)
    whole = result_bytes(tmp_path / "whole", config, FakeContext(tmp_path / "a"))
    assert result_bytes(tmp_path / "parts", config, FakeContext(tmp_path / "b", stop_after=2)) == whole


def test_it_descends(tmp_path: Path) -> None:
    run = FakeContext(tmp_path)
    distil(
        distill_config("dpdm", iterations=80, rounds=1, batch_real=12, epsilon=1000.0, lr_img=3.0, augmentation="none"),
        run,
    )
    found = losses(run)
    assert found[-1] < 0.5 * found[0]


def test_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="an image changes the embeddings of all others under batch norm"):
        DPDMSettings(norm="batch")
    with pytest.raises(ValueError, match="under batch norm"):
        DPDMSettings(architecture="resnet18", norm="batch")
