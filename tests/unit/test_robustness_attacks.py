"""The attacks themselves, on networks whose exact distances are known or that are made to mislead them."""

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.evaluate.robustness import attack as attack_module
from trainables.evaluate.robustness import autoattack
from trainables.evaluate.robustness.attack import require
from trainables.evaluate.robustness.foolbox_attacks import fgsm, pgd, smallest, starts
from trainables.evaluate.robustness.network import Batch, check_within, frozen, norms

MINIMAL = [name for name, spec in ROBUSTNESS_ATTACKS.items() if spec.minimal]
RATIOS = {
    "deepfool_l2": (1.0, 1.05, 1.06),
    "deepfool_linf": (1.0, 1.1, 1.16),
    "fmn_linf": (0.999, 1.01, 1.16),
    "cw_l2": (0.999, 1.03, 1.16),
}
"""Found over exact distance: bounds of the smallest, the median and the largest of the images."""


class Linear(nn.Module):
    """Logits scale * (W x), of images in any shape."""

    def __init__(self, classes: int = 10, size: int = 192, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.inner = nn.Linear(size, classes)
        self.scale = scale
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.inner.weight.copy_(torch.randn(classes, size, generator=generator))
            self.inner.bias.copy_(-0.5 * self.inner.weight.sum(1))  # all logits are 0 at mid grey

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.flatten(1)) * self.scale
        return logits


@torch.no_grad()
def near_grey(network: nn.Module, count: int = 40, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 8, 8) far from the bounds, with the network's own answers as labels."""
    generator = torch.Generator().manual_seed(seed)
    contrast = 0.1 if isinstance(network, Linear) else 0.4
    pixels = 0.5 + contrast * (torch.rand(count, 3, 8, 8, generator=generator) - 0.5)
    if isinstance(network, Linear):  # away from the boundary too: attacks add small constants of their own
        direction = network.inner.weight[torch.arange(count) % len(network.inner.weight)]
        length = torch.linspace(0.3, 1.2, count)[:, None]
        pixels += (length * direction / direction.norm(dim=1, keepdim=True)).view_as(pixels)
    return pixels, network(pixels).argmax(1)


def batch_of(pixels: Tensor, labels: Tensor, num_classes: int = 10) -> Batch:
    return Batch(pixels, labels, torch.arange(len(pixels)), num_classes)


def run_fgsm(network: nn.Module, pixels: Tensor, labels: Tensor, epsilons: tuple[float, ...]) -> Tensor:
    return fgsm(ROBUSTNESS_ATTACKS["fgsm"], {}, network, batch_of(pixels, labels), epsilons)


@torch.no_grad()
def exact(network: Linear, pixels: Tensor, norm: str) -> Tensor:
    """min_k (z_y - z_k) / |w_y - w_k|, in the dual norm of the perturbation's."""
    logits = network.inner(pixels.flatten(1)).double()
    weights = network.inner.weight.double()
    best = logits.argmax(1)
    found = []
    for row, label in zip(logits, best, strict=True):
        difference = weights[label] - weights
        dual = difference.norm(dim=1) if norm == "l2" else difference.abs().sum(1)
        found.append(((row[label] - row) / dual)[torch.arange(len(row)) != label].min())
    return torch.stack(found)


@pytest.fixture
def linear() -> Iterator[Linear]:
    network = Linear()
    with frozen(network):
        yield network


@pytest.mark.parametrize("name", MINIMAL)
def test_distances_of_a_linear_network_are_the_exact_ones(name: str, linear: Linear) -> None:
    spec = ROBUSTNESS_ATTACKS[name]
    pixels, labels = near_grey(linear)
    success, distance = smallest(spec, attack_settings(name), linear, batch_of(pixels, labels), spec.epsilons)
    ratio = distance.double() / exact(linear, pixels, spec.norm)
    low, middle, high = RATIOS[name]
    assert low <= float(ratio.min())
    assert float(ratio.median()) <= middle
    assert float(ratio.max()) <= high
    for epsilon, misled in zip(spec.epsilons, success, strict=True):
        assert bool((misled >= (distance <= epsilon)).all())
        assert not bool((misled & (exact(linear, pixels, spec.norm) > epsilon * 1.001)).any())


def test_the_check_would_notice_foolboxes_broken_fmn(linear: Linear) -> None:
    """The control: its L2 form ends several times too far away."""
    from foolbox.attacks import L2FMNAttack
    from foolbox.criteria import Misclassification
    from foolbox.models import PyTorchModel

    pixels, labels = near_grey(linear)
    raw, _, _ = L2FMNAttack(steps=100)(
        PyTorchModel(linear, (0, 1), "cpu"), pixels, Misclassification(labels), epsilons=[None]
    )
    assert float((norms(raw[0] - pixels, "l2") / exact(linear, pixels, "l2")).median()) > 2


@pytest.mark.parametrize("name", MINIMAL)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_few_classes(name: str, classes: int) -> None:
    network = Linear(classes)
    pixels, labels = near_grey(network, 8)
    with frozen(network):
        _, distance = smallest(
            ROBUSTNESS_ATTACKS[name], attack_settings(name), network, batch_of(pixels, labels), (0.1,)
        )
    ratio = distance.double() / exact(network, pixels, ROBUSTNESS_ATTACKS[name].norm)
    assert 0.99 < float(ratio.min()) <= float(ratio.max()) < 1.2


@pytest.mark.parametrize("name", ["deepfool_l2", "deepfool_linf", "fmn_linf"])
def test_the_scale_of_the_logits_changes_no_distance(name: str) -> None:
    plain, pixels = Linear(), near_grey(Linear(), 12)[0]
    labels = plain(pixels).argmax(1)
    found = []
    for scale in (0.1, 1.0, 100.0):
        network = Linear(scale=scale)
        with frozen(network):
            found.append(
                smallest(ROBUSTNESS_ATTACKS[name], attack_settings(name), network, batch_of(pixels, labels), (0.1,))[1]
            )
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0)
    torch.testing.assert_close(found[2], found[1], rtol=0.02, atol=0)


class Confident(nn.Module):
    """Two layers whose logits are multiplied until the cross-entropy has nothing left to follow."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(192, 64, generator=generator) / 8)
        self.second = nn.Parameter(torch.randn(64, 10, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (torch.relu((images.flatten(1) - 0.5) @ self.first) @ self.second) * self.scale


def test_saturated_logits_blind_pgd_but_not_deepfool() -> None:
    """Hence ``zero_gradient_share``, and never PGD alone."""
    spec, epsilons = ROBUSTNESS_ATTACKS["pgd_linf"], (0.03,)
    shares: dict[str, list[float]] = {"pgd": [], "deepfool": []}
    for scale in (1.0, 1e4):
        network = Confident(scale)
        pixels, labels = near_grey(network, 60)
        with frozen(network):
            batch = batch_of(pixels, labels)
            misled = pgd(spec, attack_settings("pgd_linf"), network, batch, epsilons)
            shares["pgd"].append(float(misled.double().mean()))
            found, _ = smallest(
                ROBUSTNESS_ATTACKS["deepfool_linf"],
                attack_settings("deepfool_linf"),
                network,
                batch_of(pixels, labels),
                epsilons,
            )
            shares["deepfool"].append(float(found.double().mean()))
    assert shares["deepfool"][0] == shares["deepfool"][1] > 0.9
    assert shares["pgd"][0] > 0.9
    assert shares["pgd"][1] < 0.5


def test_pgd_beats_one_step_where_foolboxes_own_step_does_not() -> None:
    network, spec, settings = Confident(10), ROBUSTNESS_ATTACKS["pgd_linf"], attack_settings("pgd_linf")
    pixels, labels = near_grey(network, 200)
    epsilons = (0.002, 0.004, 0.006)
    with frozen(network):
        one_step = run_fgsm(network, pixels, labels, epsilons).double().mean(1)
        ours = pgd(spec, settings, network, batch_of(pixels, labels), epsilons).double().mean(1)
        default = {**settings, "rel_stepsize": 0.01 / 0.3, "restarts": 1}
        theirs = [
            float(pgd(spec, default, network, batch_of(pixels, labels), (epsilon,)).double().mean())
            for epsilon in epsilons
        ]
    assert bool((ours >= one_step).all())
    assert bool((torch.tensor(theirs) < one_step).all())


class Rippled(nn.Module):
    """Two classes behind many small barriers: a sure network with a bent boundary."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(192, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        along = (images.flatten(1) - 0.5) @ self.weight
        margin = 4 * along + 3 * torch.sin(12 * along)
        return torch.stack([margin, -margin], dim=1)


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_pgd_is_monotone_and_uses_its_restarts(name: str) -> None:
    network, spec = Rippled(), ROBUSTNESS_ATTACKS[name]
    pixels, labels = near_grey(network, 60)
    epsilons = (0.002, 0.005, 0.01, 0.02) if spec.norm == "linf" else (0.02, 0.05, 0.1, 0.2)
    settings = attack_settings(name)
    with frozen(network):
        full = pgd(spec, settings, network, batch_of(pixels, labels), epsilons)
        once = pgd(spec, {**settings, "restarts": 1}, network, batch_of(pixels, labels), epsilons)
    assert bool((full[1:] >= full[:-1]).all())
    assert bool((full >= once).all())
    assert int(full.sum()) > int(once.sum())


def test_an_image_starts_where_its_number_says() -> None:
    like = torch.zeros(3, 3, 8, 8)
    state = torch.get_rng_state()
    for norm in ("linf", "l2"):
        drawn = starts(norm, 0, torch.tensor([4, 9, 2]), like)  # type: ignore[arg-type]
        assert drawn[1].equal(starts(norm, 0, torch.tensor([9]), like[:1])[0])  # type: ignore[arg-type]
        assert not drawn[1].equal(starts(norm, 1, torch.tensor([9]), like[:1])[0])  # type: ignore[arg-type]
        assert float(norms(drawn, norm).max()) <= 1  # type: ignore[arg-type]
        assert float(norms(drawn, norm).min()) > 0.9  # type: ignore[arg-type]  # 192 dimensions: near the surface
    assert torch.get_rng_state().equal(state)


def test_fgsm_is_one_step_of_the_sign(linear: Linear) -> None:
    pixels, labels = near_grey(linear)
    leaf = pixels.clone().requires_grad_()
    nn.functional.cross_entropy(linear(leaf), labels).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    expected = []
    for epsilon in (0.02, 0.06):
        stepped = (pixels + epsilon * leaf.grad.sign()).clamp(0, 1)
        expected.append(linear(stepped).argmax(1) != labels)
    found = run_fgsm(linear, pixels, labels, (0.02, 0.06))
    assert found.equal(torch.stack(expected))
    assert 0 < int(found[0].sum()) < len(pixels)


def test_a_broken_budget_is_noticed() -> None:
    pixels = torch.full((2, 1, 4, 4), 0.5)
    check_within(pixels, pixels + 0.1, 0.1, "linf")
    with pytest.raises(AssertionError, match="linf"):
        check_within(pixels, pixels + 0.1, 0.099, "linf")
    with pytest.raises(AssertionError, match=r"outside \[0, 1\]"):
        check_within(pixels, pixels + 0.6, 1.0, "linf")


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_network_comes_back_as_it_was(training: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    network.train(training)
    network[0].requires_grad_(False)  # type: ignore[operator]
    with frozen(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training is training for module in network.modules())
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]


def test_a_network_that_changes_is_noticed() -> None:
    """What foolbox merely warns of: in train mode the statistics move."""
    network = nn.Sequential(nn.BatchNorm2d(1))

    def attack() -> None:
        with frozen(network):
            network.train()
            network(torch.randn(4, 1, 2, 2))

    with pytest.raises(AssertionError, match="changed the network"):
        attack()


def test_foolbox_alone_fills_the_gradients() -> None:
    """The control: without ``frozen`` an attack leaves its traces in ``.grad``."""
    for guarded in (False, True):
        network = Linear()
        pixels, labels = near_grey(network, 4)
        if guarded:
            with frozen(network):
                run_fgsm(network, pixels, labels, (0.01,))
        else:
            run_fgsm(network, pixels, labels, (0.01,))
        assert all((parameter.grad is None) is guarded for parameter in network.parameters())


def test_foolbox_imports_where_git_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GIT_PYTHON_REFRESH"}
    environment["PATH"] = "/nonexistent"
    program = "import trainables.evaluate.robustness.foolbox_attacks; print('fine')"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == "fine", ran.stderr
    alone = subprocess.run([sys.executable, "-c", "import foolbox"], env=environment, capture_output=True, text=True)
    assert alone.returncode != 0  # what is prevented does happen


def test_a_missing_library_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    monkeypatch.setattr(attack_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pyautoattack is not installed.*Install ddray\[strong\]"):
        require(ROBUSTNESS_ATTACKS["autoattack"])
    require(ROBUSTNESS_ATTACKS["fgsm"])


@pytest.mark.parametrize(
    "classes,expected",
    [
        (10, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (3, ["apgd-ce", "apgd-dlr", "fab", "square"]),
        (2, ["apgd-ce", "fab", "square"]),
    ],
)
def test_autoattack_is_what_the_number_of_classes_allows(classes: int, expected: list[str]) -> None:
    assert autoattack.parts(attack_settings("autoattack"), classes) == expected
    assert autoattack.parts(attack_settings("apgd_ce"), classes) == ["apgd-ce"]


class Recorder:
    """Stands in for the library's class: notes what it is asked for and moves every image by epsilon."""

    made: list["Recorder"]

    def __init__(self, network: nn.Module, **asked: Any) -> None:
        self.asked, self.sizes = asked, []
        self.apgd, self.apgd_targeted, self.fab, self.square = (types.SimpleNamespace() for _ in range(4))
        type(self).made.append(self)

    def run_standard_evaluation(self, pixels: Tensor, labels: Tensor, *, batch_size: int) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(pixels))
        torch.manual_seed(self.asked["seed"])
        return (pixels + self.asked["eps"]).clamp(0, 1), labels


def test_autoattack_gets_no_more_targets_than_there_are_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", types.SimpleNamespace(AutoAttack=Recorder))  # type: ignore[arg-type]
    network, pixels = Linear(5), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    labels = network(pixels).argmax(1)
    spec, settings = ROBUSTNESS_ATTACKS["autoattack"], attack_settings("autoattack")
    seeds = []
    for classes in (5, 5, 100):
        Recorder.made = []
        state = torch.get_rng_state()
        found = autoattack.run(spec, settings, network, batch_of(pixels, labels, classes), (0.01, 0.4))
        assert torch.get_rng_state().equal(state)
        for made in Recorder.made:
            targets = min(9, classes - 1)
            assert (made.apgd_targeted.n_target_classes, made.fab.n_target_classes) == (targets, targets)
            assert made.asked["norm"] == "Linf"
        assert Recorder.made[1].sizes == [6 - int(found[0].sum())]  # only those that are left
        seeds.append([made.asked["seed"] for made in Recorder.made])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 2


def test_the_real_autoattack_breaks_a_linear_network() -> None:
    pytest.importorskip("pyautoattack", reason="NOT RUN: the extra strong is not installed")
    for classes in (2, 3, 5):
        network = Linear(classes)
        pixels, labels = near_grey(network, 6)
        distance = exact(network, pixels, "linf")
        epsilons = (float(distance.min()) / 2, float(distance.max()) * 1.1)
        with frozen(network):
            spec, settings = ROBUSTNESS_ATTACKS["autoattack"], attack_settings("autoattack")
            found = autoattack.run(spec, settings, network, batch_of(pixels, labels, classes), epsilons)
        assert found.tolist() == [[False] * 6, [True] * 6]
