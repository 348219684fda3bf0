"""Labels as a kind: what soft ones are, how they are kept, and what networks learn of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from support import (
    FakeContext,
    dataset_config,
    folder_bytes,
    recipe,
    tiny_origin,
    tiny_test,
    to_its_end,
    train_config,
)
from torch import Tensor
from torch.nn import functional as F

from trainables.configs import EnsembleConfig
from trainables.data.pixels import decode
from trainables.evaluate.privacy import release
from trainables.files import array_names
from trainables.labels import HardLabels, Labels, Lesson, SoftLabels, SoftLoss, hard_loss, lesson_of
from trainables.payloads import DistilledSet, TrainedModel
from trainables.train import train, train_ensemble

K = 5


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soft(form: str, count: int = 4, *, seed: int = 0, **other: Any) -> SoftLabels:
    rows = numbers(count, K, seed=seed, scale=2.0).float()
    if form == "probabilities":
        rows = rows.softmax(1)
    temperature = 1.0 if form == "logits" else None
    return SoftLabels(torch.arange(count) % K, rows, **{"form": form, "temperature": temperature, **other})  # type: ignore[arg-type]


def one_hot(classes: Tensor, form: str = "probabilities", classes_in_all: int = 3) -> SoftLabels:
    rows = F.one_hot(classes, classes_in_all).float()
    if form == "logits":  # so far apart that the softmax is exactly 0 and 1
        return SoftLabels(classes, 1000 * rows, "logits", 1.0, "teacher")
    return SoftLabels(classes, rows, "probabilities")


# --- losses -----------------------------------------------------------------------------------------------------------


@given(st.floats(0.3, 30), st.integers(0, 100))
def test_cross_entropy_and_divergence_differ_by_the_entropy_and_have_one_gradient(t: float, seed: int) -> None:
    z, y = numbers(6, K, seed=seed, scale=3.0), numbers(6, K, seed=seed + 1000, scale=3.0)
    p, q = (y / t).softmax(1), (z / t).softmax(1)
    entropy = -(p * (y / t).log_softmax(1)).sum(1)
    gradients = []
    for name in ("soft_ce", "kl"):
        logits = z.clone().requires_grad_()
        losses = SoftLoss(name, t)(logits, p, "none")
        torch.testing.assert_close(losses - (entropy if name == "soft_ce" else 0), (p * (p.log() - q.log())).sum(1))
        assert float(SoftLoss(name, t)(logits, p, "sum").detach()) == pytest.approx(float(losses.sum().detach()))
        (losses.mean()).backward()  # type: ignore[no-untyped-call]
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], (q - p) / (t * 6))


def test_a_high_temperature_compares_centred_logits() -> None:
    z, y = numbers(8, K, seed=1), numbers(8, K, seed=2)
    z, y = z - z.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    limit = float((z - y).square().sum(1).mean()) / (2 * K)
    off = {}
    for t in (20.0, 200.0, 2000.0):
        scaled = SoftLoss("kl", t, scaled=True)(z, (y / t).softmax(1), "none").mean()
        off[t] = abs(float(scaled) / limit - 1)
        assert float(scaled) == pytest.approx(t**2 * float(SoftLoss("kl", t)(z, (y / t).softmax(1), "none").mean()))
    assert off[20.0] < 0.1
    assert off[2000.0] < 0.1 * off[200.0] * 1.5 < off[20.0]


def test_a_low_temperature_is_cross_entropy_with_the_largest() -> None:
    labels, z = soft("logits", 6), numbers(6, K, seed=3)
    p = labels.probabilities(1e-4).double()
    torch.testing.assert_close(SoftLoss("soft_ce")(z, p, "none"), hard_loss(z, labels.rows.argmax(1), "none"))


def test_squared_errors_by_hand() -> None:
    z, y = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[0.0, 4.0, 5.0]])
    assert float(SoftLoss("l2")(z, y, "sum")) == 5.0
    assert float(SoftLoss("mse")(z, y, "sum")) == pytest.approx(5 / 3)


@pytest.mark.parametrize(
    "form, loss",
    [("probabilities", "mse"), ("probabilities", "l2"), ("logits", "l2"), ("targets", "soft_ce"), ("targets", "kl")],
)
def test_a_loss_that_is_not_for_the_form_is_refused(form: str, loss: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"no loss for such labels; got label_loss {loss} .*expected one of .*train: "
    ):
        lesson_of(soft(form), recipe(label_loss=loss))


def test_the_recipe_overrules_the_temperature_of_logits() -> None:
    labels = soft("logits", temperature=3.0)
    own, other = lesson_of(labels, recipe()), lesson_of(labels, recipe(temperature=20.0, scaled=True))
    torch.testing.assert_close(own.learned, (labels.rows / 3).softmax(1))
    torch.testing.assert_close(other.learned, (labels.rows / 20).softmax(1))
    assert own.info == {"label_loss": "soft_ce", "temperature": 3.0, "scaled": False}
    assert other.info == {"label_loss": "soft_ce", "temperature": 20.0, "scaled": True}
    assert (own.loss, other.loss) == (SoftLoss("soft_ce", 3.0), SoftLoss("soft_ce", 20.0, True))


# --- forms ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.2, 50), st.integers(0, 100))
def test_forms_and_temperatures_convert(t: float, seed: int) -> None:
    labels = soft("logits", seed=seed, temperature=t)
    p = labels.probabilities()
    torch.testing.assert_close(p, (labels.rows / t).softmax(1))
    torch.testing.assert_close(p, replace(labels, rows=labels.rows / t, temperature=1.0).probabilities())
    again = SoftLabels(labels.classes, p, "probabilities")
    torch.testing.assert_close(again.logits().softmax(1), p)
    assert torch.equal(again.probabilities(7.0), p), "probabilities are what they are"
    assert again.entropy == pytest.approx(labels.entropy, rel=1e-4)
    assert again.agreement == labels.agreement
    torch.testing.assert_close(labels.logits(), labels.rows)


def test_numbers_about_labels() -> None:
    classes = torch.tensor([0, 1, 2, 2])
    assert one_hot(classes).entropy == 0.0
    assert one_hot(classes).agreement == 1.0
    uniform = SoftLabels(classes, torch.full((4, 4), 0.25), "probabilities")
    assert uniform.entropy == pytest.approx(np.log(4))
    assert uniform.agreement == 0.25  # ties go to the lower class
    targets = SoftLabels(classes, numbers(4, 3).float(), "targets")
    assert targets.entropy is None
    for asked in (targets.probabilities, targets.logits):
        with pytest.raises(ValueError, match=r"no probabilities.*l2"):
            asked()


@pytest.mark.parametrize(
    "form, change, message",
    [
        ("logits", {"rows": torch.zeros(3, K)}, r"got \(3, 5\) torch.float32; expected \(4, K\)"),
        ("logits", {"rows": torch.zeros(4)}, r"got \(4,\)"),
        ("logits", {"rows": torch.zeros(4, 1)}, r"got \(4, 1\)"),
        ("logits", {"rows": torch.zeros(4, K, dtype=torch.float64)}, "float64; expected"),
        ("logits", {"rows": torch.tensor([[float("nan")] * K] * 4)}, "not finite; got 20 of 20"),
        ("targets", {"rows": torch.tensor([[0.0] * (K - 1) + [float("inf")]] * 4)}, "not finite; got 4 of 20"),
        ("probabilities", {"rows": torch.full((4, K), 0.21)}, "a row that sums to 1.05; expected .* Are they logits"),
        ("probabilities", {"rows": torch.tensor([[1.5, -0.5, 0, 0, 0]] * 4)}, "numbers down to -0.5"),
        ("logits", {"temperature": None}, "logits have a temperature; got None"),
        ("probabilities", {"temperature": 2.0}, "probabilities have no temperature; got 2.0"),
        ("targets", {"temperature": 1.0}, "targets have no temperature"),
        ("logits", {"temperature": 0.0}, "temperature out of range; got 0.0; expected above 0"),
        ("logits", {"temperature": float("inf")}, "temperature out of range"),
        ("logits", {"temperature": float("nan")}, "temperature out of range"),
    ],
)
def test_labels_that_make_no_sense_are_refused(form: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^soft labels: .*{message}"):
        soft(form, **change) if "temperature" in change else replace(soft(form), **change)


def test_sums_may_be_off_by_rounding() -> None:
    rows = torch.full((4, 3), 1 / 3)
    SoftLabels(torch.zeros(4, dtype=torch.int64), rows + 3e-6, "probabilities")
    with pytest.raises(ValueError, match="no probabilities"):
        SoftLabels(torch.zeros(4, dtype=torch.int64), rows + 1e-5, "probabilities")


# --- the payload ------------------------------------------------------------------------------------------------------


def made(labels: Labels, factor: int = 1) -> DistilledSet:
    images = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(5))
    info = {"space": "pixel01", "zca": False, "factor": factor, "label_kind": labels.kind}
    return DistilledSet(images, labels, torch.full((len(labels),), -1), info)


def saved(folder: Path, payload: DistilledSet | TrainedModel) -> dict[str, bytes]:
    folder.mkdir()
    payload.save(folder)
    return folder_bytes(folder)


@pytest.mark.parametrize("form", ["logits", "probabilities", "targets"])
def test_soft_labels_survive_and_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    teacher = {"network": "convnet3", "test_acc": 0.8} if form == "logits" else None
    labels = soft(form, source="teacher" if teacher else "learned", teacher=teacher)
    first = saved(tmp_path / "first", made(labels))
    again = DistilledSet.load(tmp_path / "first")
    assert saved(tmp_path / "second", again) == first
    assert isinstance(again.labels, SoftLabels)
    assert torch.equal(again.labels.rows, labels.rows)
    assert torch.equal(again.labels.classes, labels.classes)
    assert (again.labels.form, again.labels.temperature, again.labels.source, again.labels.teacher) == (
        labels.form,
        labels.temperature,
        labels.source,
        teacher,
    )
    assert again.info["label_kind"] == "soft"
    assert again.info["label_agreement"] == labels.agreement


def test_a_set_with_hard_labels_is_what_it_was(tmp_path: Path) -> None:
    payload = made(HardLabels(torch.tensor([0, 0, 1, 1])))
    content = saved(tmp_path / "set", payload)
    assert set(content) == {"set.safetensors", "facts.json"}
    assert sorted(array_names(tmp_path / "set" / "set.safetensors")) == ["images", "indices", "labels"]
    assert b"label_form" not in content["facts.json"]
    assert isinstance(DistilledSet.load(tmp_path / "set").labels, HardLabels)


def test_decoded_images_share_the_label_of_the_stored_one() -> None:
    """By images that carry their row: each patch has one colour, the first number of its label."""
    labels = soft("targets", 6)
    stored = labels.rows[:, :1, None, None].expand(6, 1, 8, 8)
    for factor in (1, 2, 3):
        lesson = lesson_of(labels, recipe(label_loss="l2"), factor)
        shown = decode(stored, factor)
        assert len(lesson.learned) == len(lesson.classes) == len(shown) == 6 * factor**2
        if factor < 3:  # else the patches at the border are filled up
            torch.testing.assert_close(shown[:, 0, 0, 0], lesson.learned[:, 0])
        hard = lesson_of(HardLabels(labels.classes), recipe(), factor)
        assert torch.equal(lesson.classes, hard.learned)


# --- training ---------------------------------------------------------------------------------------------------------


def trained(folder: Path, what: Tensor | Lesson, together: bool, order: Tensor | None = None, **given: Any) -> Any:
    origin = tiny_origin(each=7)
    images = origin.images if order is None else origin.images[order]
    config = train_config(recipe(**given))
    if not together:
        return {0: train(config, images, what, tiny_test(origin), FakeContext(folder))}
    ensemble = EnsembleConfig(base=config, seeds=(0, 2))
    return train_ensemble(ensemble, images, what, tiny_test(origin), FakeContext(folder)).models


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for seed, model in ours.items():
        for name, tensor in model.state.items():
            torch.testing.assert_close(tensor, theirs[seed].state[name], atol=tolerance, rtol=tolerance)
        assert model.info["train_acc"] == theirs[seed].info["train_acc"]
        assert model.info["train_loss"] == pytest.approx(theirs[seed].info["train_loss"], abs=10 * tolerance)


@pytest.mark.parametrize("together", [False, True], ids=["alone", "ensemble"])
@pytest.mark.parametrize("augmentation, cutmix", [("none", 0.0), ("idc", 0.7)])
@pytest.mark.parametrize("form, loss", [("probabilities", "soft_ce"), ("probabilities", "kl"), ("logits", "soft_ce")])
def test_one_hot_soft_labels_train_like_hard_ones(
    tmp_path: Path, form: str, loss: str, augmentation: str, cutmix: float, together: bool
) -> None:
    classes, given = tiny_origin(each=7).labels, {"augmentation": augmentation, "cutmix": cutmix, "label_loss": loss}
    lesson = lesson_of(one_hot(classes, form), recipe(label_loss=loss))
    hard = trained(tmp_path / "hard", classes, together, **given)
    assert_close(trained(tmp_path / "soft", lesson, together, **given), hard)
    other = lesson_of(one_hot((classes + 1) % 3, form), recipe(label_loss=loss))  # control: labels are what is learned
    wrong = trained(tmp_path / "wrong", other, together, **given)
    assert not torch.allclose(wrong[0].state["classifier.bias"], hard[0].state["classifier.bias"], atol=1e-3)


def test_what_a_training_on_soft_labels_records(tmp_path: Path) -> None:
    classes = tiny_origin(each=7).labels
    lesson = lesson_of(one_hot(classes, "logits"), recipe(temperature=4.0, scaled=True, label_loss="kl"))
    info = trained(tmp_path, lesson, together=False)[0].info
    assert (info["label_loss"], info["temperature"], info["scaled"]) == ("kl", 4.0, True)
    assert info["train_acc"] > 0.9, "counted by the classes"
    assert "label_loss" not in trained(tmp_path / "hard", classes, together=False)[0].info


def test_scaling_is_a_larger_rate(tmp_path: Path) -> None:
    """Without momentum and decay a step is the rate times the gradient."""
    classes = tiny_origin(each=7).labels
    labels = SoftLabels(classes, 3 * F.one_hot(classes, 3).float(), "logits", 2.0)
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    large = trained(tmp_path / "a", lesson_of(labels, recipe()), together=False, **plain, lr=0.2)
    scaled = trained(tmp_path / "b", lesson_of(labels, recipe(scaled=True)), together=False, **plain, lr=0.05)
    assert_close(scaled, large)


def test_images_in_another_order_take_their_labels_along(tmp_path: Path) -> None:
    """One batch holds the whole set, so the order of its images changes rounding alone."""
    labels = soft("logits", 21)
    labels = replace(labels, classes=labels.classes % 3, rows=labels.rows[:, :3].contiguous())
    order = torch.randperm(21, generator=torch.Generator().manual_seed(3))
    moved = replace(labels, classes=labels.classes[order], rows=labels.rows[order])
    first = trained(tmp_path / "a", lesson_of(labels, recipe()), together=False, batch=21)
    assert_close(trained(tmp_path / "b", lesson_of(moved, recipe()), together=False, order=order, batch=21), first)
    others = trained(tmp_path / "c", lesson_of(labels, recipe()), together=False, order=order, batch=21)
    assert not torch.allclose(others[0].state["classifier.bias"], first[0].state["classifier.bias"], atol=1e-4)


def test_interruptions_leave_no_trace_of_a_training_on_soft_labels(tmp_path: Path) -> None:
    origin, labels = tiny_origin(each=7), soft("logits", 21)
    labels = replace(labels, classes=labels.classes % 3, rows=labels.rows[:, :3].contiguous())
    config = train_config(recipe(epochs=3, augmentation="dsa", cutmix=0.5))
    lesson = lesson_of(labels, config.recipe)

    def run(context: FakeContext) -> TrainedModel:
        return to_its_end(lambda: train(config, origin.images, lesson, tiny_test(origin), context))

    whole = saved(tmp_path / "whole", run(FakeContext(tmp_path / "a")))
    assert saved(tmp_path / "parts", run(FakeContext(tmp_path / "b", stop_after=2))) == whole


# --- what is released -------------------------------------------------------------------------------------------------


def scores_of(released: DistilledSet, images: Any, labels: Any) -> dict[str, Any]:
    (by_variant,) = release.score(images, labels, [released], dataset_config())
    return {name: scored.values for name, scored in by_variant.items()}


def test_soft_labels_give_away_what_classes_do_not() -> None:
    """Members of class 1 lie beside images of class 0, whose labels say so; others lie beside images that do not."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 1, 8, 8)).astype(np.uint8), np.ones(40, dtype=np.int64)
    member = np.arange(40) % 2 == 0
    near = torch.from_numpy(images).float() / 255 + 0.02 * torch.randn(images.shape, generator=torch.Generator())
    rows = torch.tensor([[0.6, 0.4, 0.0] if each else [0.6, 0.0, 0.4] for each in member])
    one_of_class_1 = torch.full((1, 1, 8, 8), 0.5)
    classes = torch.tensor([0] * 40 + [1])
    kept = SoftLabels(classes, torch.cat([rows, torch.tensor([[0.0, 1.0, 0.0]])]), "probabilities")
    shown = torch.cat([near, one_of_class_1])
    found = scores_of(DistilledSet(shown, kept, torch.full((41,), -1), {"factor": 1}), images, labels)
    assert roc_auc_score(member, found["_labels"]) > 0.99
    for name in ("", "_relative", "_features"):
        assert abs(roc_auc_score(member, found[name]) - 0.5) < 0.3, name
    hard = scores_of(DistilledSet(shown, HardLabels(classes), torch.full((41,), -1), {"factor": 1}), images, labels)
    assert set(hard) == {"", "_relative", "_features"}
    for name, scores in hard.items():
        assert np.array_equal(scores, found[name]), "the other scores are those of hard labels"


def test_labels_that_all_images_share_give_nothing_away() -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (60, 1, 8, 8)).astype(np.uint8), rng.integers(0, 3, 60)
    shown = torch.from_numpy(images[:30]).float() / 255
    kept = SoftLabels(torch.from_numpy(labels[:30]), torch.full((30, 3), 1 / 3), "probabilities")
    found = scores_of(DistilledSet(shown, kept, torch.arange(30), {"factor": 1}), images, labels)
    assert np.ptp(found["_labels"]) < 1e-6
    assert roc_auc_score(np.arange(60) < 30, found[""]) == 1.0  # control: the images do
