"""Attacks on trained networks, from the images on disk to the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import FakeContext, folder_bytes, recipe, tiny_network
from torch import Tensor, nn

from trainables import device
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings
from trainables.configs import AttackConfig, DatasetConfig, OriginConfig, TrainConfig
from trainables.context import Interrupted
from trainables.data.known import KNOWN
from trainables.data.origins import load_origin, load_test
from trainables.data.pixels import fit_whitening
from trainables.evaluate.paired import robust_curve
from trainables.evaluate.robustness import attack as attack_module
from trainables.evaluate.robustness import foolbox_attacks
from trainables.evaluate.robustness.attack import attack_images, first_of_each_class, load_images, run_attack
from trainables.evaluate.robustness.network import Batch, PixelNetwork, frozen, pixel_network
from trainables.evaluate.robustness.rows import robustness_rows
from trainables.payloads import AttackResult, TrainedModel
from trainables.train import predict, train

QUICK = [name for name, spec in ROBUSTNESS_ATTACKS.items() if spec.extra is None]
SHORT: dict[str, dict[str, Any]] = {
    "cw_l2": {"binary_search_steps": 2, "steps": 30},
    "pgd_linf": {"restarts": 2, "steps": 25},
    "pgd_l2": {"restarts": 2, "steps": 25},
    "fmn_linf": {"steps": 40},
}
"""Enough to test everything around an attack."""


class At(FakeContext):
    """A folder of its own, and the cache of the digits."""

    def __init__(self, folder: Path, cache: Path, stop_after: int | None = None) -> None:
        super().__init__(folder, stop_after)
        self.data, self.cache = cache / "nothing", cache
        self.polls = 0

    def poll(self) -> None:
        self.polls += 1


def digits() -> DatasetConfig:
    known = KNOWN["digits"]
    assert known.digest is not None
    return DatasetConfig(
        name="digits",
        base="digits",
        digest=known.digest,
        num_classes=10,
        image_size=8,
        channels=1,
        mean=known.mean,
        std=known.std,
        flip=False,
    )


def trained(cache: Path, folder: Path, classes: tuple[int, ...], epochs: int) -> TrainedModel:
    origin, context = OriginConfig(classes=classes), At(folder, cache)
    config = TrainConfig(
        dataset=digits(),
        origin=origin,
        on_origin=True,
        network=tiny_network(len(classes), norm="batch"),
        recipe=recipe(epochs=epochs, batch=32),
        seed=0,
        curve_points=0,
    )
    real = load_origin(config.dataset, origin, context.data, cache, "cpu")
    test = load_test(config.dataset, classes, context.data, cache, "cpu")
    torch.set_num_threads(1)
    return train(config, real.images, real.labels, test, context)


@pytest.fixture(scope="module")
def model(digits_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Ten digits, batch norm, about nine in ten right."""
    return trained(digits_cache, tmp_path_factory.mktemp("model"), tuple(range(10)), 2)


@pytest.fixture
def context(digits_cache: Path, tmp_path: Path) -> At:
    return At(tmp_path, digits_cache)


@pytest.fixture
def other_precision() -> Iterator[None]:
    yield
    device.reset()


def config(name: str, images: int = 40, **other: Any) -> AttackConfig:
    epsilons = (0.1, 0.3, 0.5, 1.0, 2.0) if ROBUSTNESS_ATTACKS[name].norm == "l2" else (2 / 255, 8 / 255, 0.1, 0.2)
    settings = {**attack_settings(name), **SHORT.get(name, {}), **other.pop("settings", {})}
    values = {"dataset": digits(), "classes": tuple(range(10)), "images": images, "epsilons": epsilons, **other}
    return AttackConfig(attack=name, settings=settings, **values)  # type: ignore[arg-type]


def result_bytes(result: AttackResult, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    result.save(folder)
    return folder_bytes(folder)


def test_the_first_of_each_class() -> None:
    labels = np.repeat([3, 5, 7], [4, 2, 9])
    assert first_of_each_class(labels, (3, 7), 6).tolist() == [0, 1, 2, 6, 7, 8]
    assert first_of_each_class(labels, (3, 7), 5).tolist() == [0, 1, 2, 6, 7]
    assert first_of_each_class(labels, (3, 5, 7), 9).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]  # 5 has two: n is 8
    few, many = first_of_each_class(labels, (3, 5, 7), 3), first_of_each_class(labels, (3, 5, 7), 7)
    assert set(few) < set(many)


def test_images_are_bytes_over_255(context: At) -> None:
    images = load_images(config("fgsm", images=23, classes=(2, 4, 9)), context)
    test = load_test(digits(), (2, 4, 9), context.data, context.cache, "cpu")
    assert (float(images.pixels.min()), float(images.pixels.max())) == (0.0, 1.0)
    assert torch.bincount(images.labels).tolist() == [8, 8, 7]
    assert (images.pixels * 255).equal((images.pixels * 255).round())
    places = torch.isin(test.ids, images.ids)
    assert test.labels[places].equal(images.labels)
    again = (images.pixels - torch.tensor(digits().mean)) / torch.tensor(digits().std)
    torch.testing.assert_close(again, test.images[places])


@pytest.mark.parametrize("name", QUICK)
def test_an_attack(name: str, model: TrainedModel, context: At, tmp_path: Path) -> None:
    """Everything that holds of every attack, on the same 40 images."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    result = run_attack(config(name), model, context)
    assert torch.get_rng_state().equal(state)

    n = len(set(result.ids.tolist()))
    assert n == len(result.labels) == 40  # no whole number of batches
    shares = [row for row in robustness_rows({name: result}, 10) if row["metric"] in ("adv_acc", "adv_auc")]
    assert {row["n"] for row in shares} == {n}
    assert torch.bincount(result.labels).tolist() == [4] * 10
    stored = model.outputs["test"]
    places = torch.isin(stored.ids, result.ids)
    hits = stored.logits[places].argmax(1) == stored.labels[places]
    assert result.correct.equal(hits)
    assert 0 < int((~hits).sum()) < 20
    assert result.info["logit_drift"] < 1e-3

    wrong = ~result.correct
    assert bool(result.success[:, wrong].all())
    curve = robust_curve(result.correct.numpy(), result.success.numpy()).mean(1)
    assert curve[0] == float(hits.double().mean())
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < curve[0] / 2  # it does attack
    if ROBUSTNESS_ATTACKS[name].minimal:
        assert result.distance is not None
        assert bool((result.distance[wrong] == 0).all())
        assert bool((result.distance[~wrong] > 0).all())
    else:
        assert result.distance is None
    assert result.info["zero_gradient_share"] == 0
    assert context.polls > len(result.info["epsilons"])

    written = result_bytes(result, tmp_path / "one")
    assert result_bytes(AttackResult.load(tmp_path / "one"), tmp_path / "two") == written
    again = run_attack(config(name), model, At(tmp_path / "again", context.cache))
    assert result_bytes(again, tmp_path / "three") == written


@pytest.mark.parametrize("name", [name for name in QUICK if name != "pgd_l2"])
def test_the_batch_does_not_matter(
    name: str, model: TrainedModel, context: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (32, 5):
        monkeypatch.setitem(attack_module.BATCH, "cpu", size)
        found.append(run_attack(config(name, images=20), model, context))
    assert found[0].success.equal(found[1].success)
    if found[0].distance is not None:
        assert found[1].distance is not None
        torch.testing.assert_close(found[0].distance, found[1].distance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["deepfool_l2", "fgsm"])
def test_an_interrupted_attack_goes_on(
    name: str, model: TrainedModel, context: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attack_module.BATCH, "cpu", 8)
    whole = result_bytes(run_attack(config(name), model, context), tmp_path / "whole")
    stopping = At(tmp_path / "parts", context.cache, stop_after=2)
    stops = 0
    while True:
        try:
            result = run_attack(config(name), model, stopping)
            break
        except Interrupted:
            stops += 1
            monkeypatch.setitem(attack_module.BATCH, "cpu", 32)  # as if another device took over
    assert stops >= 2
    assert stopping.counted == context.counted
    assert result_bytes(result, tmp_path / "resumed") == whole


def test_a_stop_is_heard_within_a_batch(model: TrainedModel, context: At, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        context.polls += 1
        if context.polls > 10:
            raise Interrupted

    monkeypatch.setattr(context, "poll", stop)
    with pytest.raises(Interrupted):
        run_attack(config("cw_l2"), model, context)
    assert context.counted == []


@pytest.mark.parametrize("name", ["deepfool_linf", "pgd_linf", "fgsm"])
def test_a_budget_of_everything_leaves_chance_at_most(name: str, model: TrainedModel, context: At) -> None:
    settings = {"restarts": 5, "steps": 40} if name == "pgd_linf" else {}
    result = run_attack(config(name, epsilons=(0.1, 0.3, 1.0), settings=settings), model, context)
    assert robust_curve(result.correct.numpy(), result.success.numpy())[-1].mean() <= 0.1 + 0.05


class Undone(nn.Module):
    """A network behind a normalisation that is undone again."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.inner, self.mean, self.std = network, mean, std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images * self.std + self.mean)
        return logits


@pytest.mark.parametrize("name", ["deepfool_l2", "deepfool_linf", "fgsm", "pgd_linf"])
def test_where_the_normalisation_stands_changes_nothing(name: str, model: TrainedModel, context: At) -> None:
    asked = config(name)
    images = load_images(asked, context)
    plain = pixel_network(model, "cpu")
    moved = PixelNetwork(Undone(plain, 0.3, 0.2), mean=(0.3,), std=(0.2,))
    one, other = (
        attack_images(ROBUSTNESS_ATTACKS[name], asked, network, images, None, context) for network in (plain, moved)
    )
    assert one.correct.equal(other.correct)
    assert float((one.success != other.success).double().mean()) <= 1e-3
    if one.distance is not None:
        assert other.distance is not None
        torch.testing.assert_close(one.distance, other.distance, rtol=1e-3, atol=1e-4)


def test_budgets_in_normalised_units_would_show(model: TrainedModel, context: At) -> None:
    """The control: with the attack behind the normalisation the same numbers mean larger steps, and other curves."""
    asked = config("fgsm")
    images = load_images(asked, context)
    network = pixel_network(model, "cpu")
    spread = 1 / digits().std[0]
    right = attack_images(ROBUSTNESS_ATTACKS["fgsm"], asked, network, images, None, context)
    wrong = attack_images(
        ROBUSTNESS_ATTACKS["fgsm"],
        asked.model_copy(update={"epsilons": tuple(value * spread for value in (0.05, 0.1))}),
        network,
        images,
        None,
        context,
    )
    assert float((right.success[2] != wrong.success[1]).double().mean()) > 0.05


def test_whitening_is_inside(model: TrainedModel, context: At) -> None:
    data = digits()
    real = load_origin(data, OriginConfig(classes=tuple(range(10))), context.data, context.cache, "cpu")
    whitening = fit_whitening(real.images, data.mean, data.std)
    whitened = replace(model, whitening=whitening)
    network = pixel_network(whitened, "cpu")
    images = load_images(config("fgsm"), context)
    test = load_test(data, tuple(range(10)), context.data, context.cache, "cpu")
    expected = predict(network.network, whitening.whiten(test.images, data.mean, data.std))  # type: ignore[arg-type]
    with torch.no_grad():
        found = network(images.pixels)
    torch.testing.assert_close(found, expected[torch.isin(test.ids, images.ids)], rtol=1e-3, atol=1e-3)
    result = run_attack(config("deepfool_l2"), whitened, context)
    assert result.info["logit_drift"] > 0.01  # the stored logits are those of the plain network
    assert result.distance is not None
    assert bool(result.distance[result.correct].isfinite().all())


@pytest.mark.parametrize("name", QUICK)
def test_a_network_in_train_mode_is_attacked_as_it_is_evaluated(name: str, model: TrainedModel, context: At) -> None:
    asked = config(name, images=20)
    images = load_images(asked, context)
    network = pixel_network(model, "cpu")
    expected = attack_images(ROBUSTNESS_ATTACKS[name], asked, network, images, None, context)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = attack_images(ROBUSTNESS_ATTACKS[name], asked, network, images, None, context)
    assert found.success.equal(expected.success)
    if ROBUSTNESS_ATTACKS[name].minimal:
        assert found.distance is not None
        assert expected.distance is not None
        assert found.distance.equal(expected.distance)
    assert network.training
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network(images.pixels)  # the control: outside, train mode moves the statistics
    assert not all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


@torch.no_grad()
@pytest.mark.usefixtures("other_precision")
def test_what_the_job_has_set_does_not_reach_the_attack(model: TrainedModel, context: At) -> None:
    expected = run_attack(config("deepfool_linf"), model, context)
    assert expected.distance is not None
    device.prepare("cpu", 1, precision="bf16")
    images = load_images(config("deepfool_linf"), context)
    stored = model.outputs["test"]
    low = pixel_network(model, "cpu")(images.pixels)
    assert float((low - stored.logits[torch.isin(stored.ids, images.ids)]).abs().max()) > 1e-3  # the control
    found = run_attack(config("deepfool_linf"), model, context)
    assert device.numerics_class("cpu")["dtype"] == "bf16"
    assert found.distance is not None
    assert found.distance.equal(expected.distance)


@pytest.mark.parametrize("classes", [(1, 7), (0, 3, 8), (0, 2, 4, 6, 9)])
def test_few_classes(classes: tuple[int, ...], context: At, tmp_path: Path) -> None:
    model = trained(context.cache, tmp_path / "model", classes, 2)
    results = {
        name: run_attack(config(name, images=12, classes=classes), model, context) for name in QUICK if name != "cw_l2"
    }
    for result in results.values():
        assert set(result.labels.tolist()) == set(range(len(classes)))
        assert float((~result.success[-1]).double().mean()) < float(result.correct.double().mean())
    rows = robustness_rows(results, len(classes))
    assert {row["class_id"] for row in rows if row["metric"] == "adv_acc_class"} == set(range(len(classes)))


def test_a_hopeless_network_is_not_attacked(model: TrainedModel, context: At) -> None:
    """No image is right: foolbox would fail on the empty batch."""
    state = {name: tensor.clone() for name, tensor in model.state.items()}
    state["classifier.weight"].zero_()
    state["classifier.bias"].copy_(torch.tensor([0.0] * 9 + [1.0]))
    always_nine = replace(model, state=state)
    asked = config("deepfool_l2", classes=tuple(range(10)), images=9)  # the lowest nine labels
    result = run_attack(asked, always_nine, context)
    assert not bool(result.correct.any())
    assert bool(result.success.all())
    assert result.distance is not None
    assert bool((result.distance == 0).all())
    assert result.info["zero_gradient_share"] is None
    rows = {(row["metric"], row.get("epsilon")): row for row in robustness_rows({"deepfool_l2": result}, 10)}
    assert rows["adv_acc", 0.0]["value"] == 0
    assert (rows["adv_acc_norm", 0.5]["value"], rows["adv_acc_norm", 0.5]["flag"]) == (None, "degenerate")
    assert (rows["adv_dist_median", None]["value"], rows["adv_dist_median", None]["flag"]) == (None, "degenerate")


def test_a_dead_network_has_no_gradients_to_follow(model: TrainedModel, context: At) -> None:
    state = {name: tensor.clone() for name, tensor in model.state.items()}
    state["classifier.weight"].mul_(1e5)
    result = run_attack(config("fgsm"), replace(model, state=state), context)
    assert result.info["zero_gradient_share"] > 0.9


@pytest.mark.parametrize(
    "change,match",
    [
        ({"epsilons": (0.1, 8.0)}, r"got 8.0 in Linf.*Divide by 255"),
        ({"epsilons": (0.2, 0.1)}, "expected ascending"),
        ({"epsilons": (0.0, 0.1)}, "above 0"),
        ({"epsilons": ()}, "expected ascending"),
        ({"classes": (0, 1, 2)}, "the model does not fit the data"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], match: str, model: TrainedModel, context: At) -> None:
    with pytest.raises(ValueError, match=match):
        run_attack(config("fgsm", **change), model, context)


def test_large_budgets_are_mentioned(model: TrainedModel, context: At, caplog: pytest.LogCaptureFixture) -> None:
    run_attack(config("fgsm", images=10, epsilons=(0.1,)), model, context)
    assert "is large" not in caplog.text
    run_attack(config("fgsm", images=10, epsilons=(0.1, 0.5)), model, context)
    assert "epsilon 0.5 in Linf is large" in caplog.text


def test_a_diverged_model_is_refused(model: TrainedModel, context: At) -> None:
    state = {name: tensor.clone() for name, tensor in model.state.items()}
    state["classifier.bias"][0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        run_attack(config("fgsm"), replace(model, state=state), context)


class Second:
    """Attacks of the Adversarial Robustness Toolbox on the images that a network classifies correctly."""

    def __init__(self, model: TrainedModel, context: At) -> None:
        from art.estimators.classification import PyTorchClassifier

        images = load_images(config("fgsm", images=100), context)
        self.network = pixel_network(model, "cpu")
        with torch.no_grad():
            right = self.network(images.pixels).argmax(1) == images.labels
        self.batch = Batch(images.pixels[right], images.labels[right], images.ids[right], 10)
        self.classifier = PyTorchClassifier(
            self.network,
            loss=nn.CrossEntropyLoss(),
            input_shape=(1, 8, 8),
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )

    def run(self, kind: Any, **settings: Any) -> tuple[Tensor, Tensor]:
        """Whether each image (b,) is misled, and by what: perturbations (b, 1, 8, 8)."""
        attack = kind(self.classifier, batch_size=len(self.batch.pixels), verbose=False, **settings)
        found = torch.from_numpy(attack.generate(self.batch.pixels.numpy(), self.batch.labels.numpy()))
        with torch.no_grad():
            return self.network(found).argmax(1) != self.batch.labels, found - self.batch.pixels


def test_deepfool_against_a_second_implementation(model: TrainedModel, context: At) -> None:
    """The Toolbox goes to the boundary and adds the overshoot at the end, foolbox adds it to every step: its way ends
    when the boundary is crossed, so it is up to the overshoot, 2 %, shorter."""
    from art.attacks.evasion import DeepFool

    second, settings = Second(model, context), attack_settings("deepfool_l2")
    misled, perturbation = second.run(DeepFool, max_iter=settings["steps"], epsilon=settings["overshoot"], nb_grads=10)
    theirs = perturbation.flatten(1).norm(dim=1)
    with frozen(second.network):
        _, ours = foolbox_attacks.smallest(
            ROBUSTNESS_ATTACKS["deepfool_l2"], settings, second.network, second.batch, (0.1,)
        )
    assert len(ours) > 80
    assert bool(misled.all())
    ratio = ours / theirs
    assert 0.96 < float(ratio.min()) <= float(ratio.max()) < 1.01
    assert 0.98 < float(ratio.median()) < 0.99
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9995


@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2"])
def test_pgd_against_a_second_implementation(
    name: str, model: TrainedModel, context: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the image itself, where neither draws: misled are the same images, save one or two at the boundary."""
    from art.attacks.evasion import ProjectedGradientDescent

    second, spec, settings = Second(model, context), ROBUSTNESS_ATTACKS[name], {**attack_settings(name), "restarts": 1}
    monkeypatch.setattr(foolbox_attacks, "starts", lambda norm, restart, ids, like: torch.zeros_like(like))
    for epsilon in (0.03, 0.06, 0.1) if spec.norm == "linf" else (0.15, 0.3, 0.5):
        theirs, _ = second.run(
            ProjectedGradientDescent,
            norm=np.inf if spec.norm == "linf" else 2,
            eps=epsilon,
            eps_step=settings["rel_stepsize"] * epsilon,
            max_iter=settings["steps"],
        )
        with frozen(second.network):
            ours = foolbox_attacks.pgd(spec, settings, second.network, second.batch, (epsilon,))[0]
        assert 0 < int(ours.sum()) < len(ours)
        assert int((ours != theirs).sum()) <= 2
