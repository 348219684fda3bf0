"""What every distillation method promises, whatever it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import FakeContext, distil, distill_config, folder_bytes, tiny_origin

from trainables.configs import DistillConfig, OriginConfig
from trainables.context import Interrupted
from trainables.data import augment
from trainables.methods import METHODS
from trainables.payloads import DistilledSet

METHOD_NAMES = [method.name for method in METHODS.values() if method.distils]
LEARNED = [name for name in METHOD_NAMES if "init" in METHODS[name].uses]
IN_PIXELS = ("idc", "dream", "ncfm")
"""Methods whose images are kept within [0, 1]."""
LEARNING: dict[str, dict[str, Any]] = {
    "dm": {"lr_img": 1.0, "batch_real": 12},
    "datadam": {"lr_img": 1.0, "batch_real": 12},
    "fairdd": {"lr_img": 1.0, "batch_real": 12},
    "dsa": {"lr_img": 0.2, "batch_real": 12},
    "dc": {"lr_img": 0.2, "batch_real": 12},
    "idc": {"lr_base": 1.0, "batch_real": 12},
    "dream": {"lr_base": 3.0, "factor": 1, "clusters": 8, "inner_loop": 40, "net_images": 0},
    "ncfm": {"lr_img": 0.05, "frequencies": 64, "calibration": 0.0, "batch_real": 12},
    "idm": {"lr_img": 1.0, "batch_real": 12, "ce_weight": 0.0},
    "mtt": {"lr_img": 30.0},
    "tesla": {"lr_img": 30.0},
    "ftd": {"lr_img": 30.0},
    "datm": {"lr_img": 30.0, "growth": 10},
}
"""Settings with which a method learns something in forty tiny iterations."""


def distilled(config: DistillConfig, folder: Path, **origin: int) -> DistilledSet:
    return distil(config, FakeContext(folder), tiny_origin(**origin))


def saved(payload: DistilledSet, folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    payload.save(folder)
    return folder_bytes(folder)


@pytest.mark.parametrize("method", METHOD_NAMES)
class TestEveryMethod:
    def test_gives_ipc_images_of_each_class(self, method: str, tmp_path: Path) -> None:
        result = distilled(distill_config(method, ipc=4), tmp_path)
        assert result.images.shape == (12, 1, 8, 8)
        assert result.images.dtype == torch.float32
        assert result.images.isfinite().all()
        assert result.labels.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert result.indices.shape == (12,)

    def test_says_what_its_images_are(self, method: str, tmp_path: Path) -> None:
        facts = distilled(distill_config(method), tmp_path).info
        factor = distill_config(method).settings.get("factor", 1)
        assert (facts["space"], facts["zca"], facts["factor"], facts["label_kind"]) == (
            "pixel01",
            False,
            factor,
            "soft" if method == "datm" else "hard",
        )
        assert (facts["method"], facts["ipc"], facts["classes"]) == (method, 2, [0, 1, 2])
        assert facts["mean"] == [0.4]
        assert facts["std"] == [0.3]

    def test_same_seed_same_bytes_other_seed_other_bytes(self, method: str, tmp_path: Path) -> None:
        first, again, other = (
            saved(distilled(distill_config(method, distill_seed=seed), tmp_path / f"run{index}"), tmp_path / str(index))
            for index, seed in enumerate((3, 3, 4))
        )
        assert first == again
        random = "distill_seed" in METHODS[method].uses
        assert (first["set.safetensors"] != other["set.safetensors"]) == random

    def test_does_not_depend_on_the_global_random_state(self, method: str, tmp_path: Path) -> None:
        torch.manual_seed(1)
        first = distilled(distill_config(method), tmp_path / "a")
        torch.manual_seed(2)
        state = torch.get_rng_state()
        assert torch.equal(distilled(distill_config(method), tmp_path / "b").images, first.images)
        assert torch.equal(torch.get_rng_state(), state)

    def test_leaves_the_origin_alone(self, method: str, tmp_path: Path) -> None:
        origin = tiny_origin()
        before = origin.images.clone()
        distil(distill_config(method), FakeContext(tmp_path), origin)
        assert torch.equal(origin.images, before)

    def test_more_images_than_a_class_has_are_refused(self, method: str, tmp_path: Path) -> None:
        if not METHODS[method].settings().real_images(6):  # it takes none of them
            assert len(distilled(distill_config(method, ipc=6), tmp_path, each=5).images) == 18
            return
        with pytest.raises(ValueError, match="has 5 images in the origin; got ipc 6"):
            distilled(distill_config(method, ipc=6), tmp_path, each=5)


@pytest.mark.parametrize("method", LEARNED)
class TestLearnedMethods:
    def test_no_iteration_gives_the_start_and_real_is_that_of_random(self, method: str, tmp_path: Path) -> None:
        start = distilled(distill_config(method, distill_seed=5, iterations=0), tmp_path / "a")
        control = distilled(distill_config("random", distill_seed=5), tmp_path / "b")
        expected = control.images.clamp(0, 1) if method in IN_PIXELS else control.images
        torch.testing.assert_close(start.images, expected, rtol=0, atol=0)
        assert torch.equal(start.indices, control.indices)

    def test_noise_starts_at_no_image(self, method: str, tmp_path: Path) -> None:
        result = distilled(distill_config(method, init="noise", ipc=50, iterations=0), tmp_path)
        assert (result.indices == -1).all()
        if method in IN_PIXELS:  # N(1/2, 1/4), cut off at black and white
            mean, sd = result.images.mean(), result.images.std()
            assert float(result.images.min()) == 0
            assert abs(float(mean) - 0.5) < 0.02
            assert abs(float(sd) - 0.25) < 0.02
        else:
            normalised = (result.images - 0.4) / 0.3
            assert abs(float(normalised.mean())) < 0.05
            assert abs(float(normalised.std()) - 1) < 0.05

    def test_the_images_move_and_the_loss_falls(self, method: str, tmp_path: Path) -> None:
        context = FakeContext(tmp_path)
        config = distill_config(method, init="noise", iterations=40, **LEARNING[method])
        distil(config, context)
        found = [values["loss"] for values in context.measured if "loss" in values]
        assert sum(found[-10:]) < 0.7 * sum(found[:10])

    def test_without_augmentation_no_operation_is_applied(
        self, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "distill_aug" not in METHODS[method].uses:
            pytest.skip(f"{method} knows no augmentation")
        applied: list[int] = []
        original = augment.apply
        monkeypatch.setattr(augment, "apply", lambda *args: (applied.append(1), original(*args))[1])
        found = {}
        for name in ("dsa", "none"):
            applied.clear()
            found[name] = distilled(distill_config(method, augmentation=name), tmp_path / name).images
            assert bool(applied) == (name == "dsa"), "in matching, in the training of networks, in experts"
        assert not torch.equal(found["dsa"], found["none"])

    def test_killed_after_every_iteration_gives_the_same_bytes(self, method: str, tmp_path: Path) -> None:
        config = distill_config(method, iterations=3)
        whole = saved(distilled(config, tmp_path / "a"), tmp_path / "whole")
        context, result = FakeContext(tmp_path / "b", stop_after=1), None
        interruptions = 0
        while result is None:
            try:
                result = distil(config, context)
            except Interrupted:
                interruptions += 1
        assert interruptions == 2, "the control: it was in fact interrupted"
        assert saved(result, tmp_path / "parts") == whole


def test_random_is_nested_in_ipc_and_takes_real_images_of_the_class(tmp_path: Path) -> None:
    origin = tiny_origin()
    small, large = (distilled(distill_config("random", ipc=ipc), tmp_path).indices for ipc in (2, 5))
    for index in range(3):
        assert small[2 * index : 2 * index + 2].tolist() == large[5 * index : 5 * index + 2].tolist()
        chosen = large[5 * index : 5 * index + 5] - 100
        assert len(chosen.unique()) == 5
        assert (origin.labels[chosen] == index).all()


def test_the_choice_of_a_class_does_not_depend_on_the_other_classes(tmp_path: Path) -> None:
    """Class 7 is the second of three here and the first of two there."""
    found = []
    for classes, position in (((2, 7, 9), 1), ((7, 9), 0)):
        config = distill_config("random", origin=OriginConfig(classes=classes))
        result = distilled(config, tmp_path, num_classes=len(classes))
        first_of_class = 100 + 12 * position
        found.append(result.indices[2 * position : 2 * position + 2] - first_of_class)
    assert torch.equal(found[0], found[1])
