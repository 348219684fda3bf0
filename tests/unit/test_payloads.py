from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import folder_bytes, tiny_network

from trainables.files import save_json
from trainables.labels import HardLabels
from trainables.payloads import DistilledSet, Metrics, Outputs, TrainedModel


def distilled() -> DistilledSet:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    info = {"space": "pixel01", "zca": False, "mean": [0.1], "a": None}
    return DistilledSet(images, HardLabels(torch.tensor([0, 0, 1, 1])), torch.tensor([5, -1, 7, 8]), info)


def model() -> TrainedModel:
    weight = torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    signals = Outputs(torch.randn(5, 3), torch.arange(5) % 3, torch.arange(5))
    return TrainedModel(
        {"w": weight, "n": torch.tensor(3)}, tiny_network(), (0.5,), (0.2,), {"test": signals}, {"x": 1}
    )


def saved(folder: Path, payload: DistilledSet | TrainedModel | Metrics) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    payload.save(folder)
    return folder_bytes(folder)


@pytest.mark.parametrize("make", [distilled, model, lambda: Metrics([{"b": 1.5, "a": None, "n": 3}])])
def test_saving_loading_and_saving_again_gives_the_same_bytes(tmp_path: Path, make) -> None:
    payload = make()
    first = saved(tmp_path / "first", payload)
    loaded = type(payload).load(tmp_path / "first")
    assert saved(tmp_path / "second", loaded) == first
    assert saved(tmp_path / "third", payload) == first


def test_content_survives(tmp_path: Path) -> None:
    original, first = model(), distilled()
    saved(tmp_path / "model", original)
    saved(tmp_path / "set", first)
    again, second = TrainedModel.load(tmp_path / "model"), DistilledSet.load(tmp_path / "set")
    assert torch.equal(again.state["w"], original.state["w"])
    assert torch.equal(again.outputs["test"].logits, original.outputs["test"].logits)
    assert (again.network, again.mean, again.info) == (original.network, original.mean, original.info)
    assert torch.equal(second.images, first.images)
    assert second.indices.dtype == torch.int64
    assert second.info == first.info


def test_the_order_of_facts_does_not_show(tmp_path: Path) -> None:
    one, other = distilled(), distilled()
    other = DistilledSet(other.images, other.labels, other.indices, dict(reversed(list(other.info.items()))))
    assert saved(tmp_path / "one", one) == saved(tmp_path / "other", other)


def test_headers_hold_no_metadata(tmp_path: Path) -> None:
    content = saved(tmp_path / "set", distilled())["set.safetensors"]
    size = int.from_bytes(content[:8], "little")
    assert "__metadata__" not in json.loads(content[8 : 8 + size])


def test_numbers_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        save_json(tmp_path / "x.json", {"loss": float("nan")})
