"""Files from elsewhere: what is read, under which names, what is refused, and that nothing in them is ever run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import conformance_folder, dataset_config, digits_config, vectors, with_prefix
from support import network_of as recorded_network
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from trainables.configs import DatasetConfig, OriginConfig
from trainables.data import sources
from trainables.data.cache import open_split
from trainables.data.index import canonical_order
from trainables.data.layout import find_source
from trainables.data.origins import normalise
from trainables.external.files import read
from trainables.external.members import file_order, read_members
from trainables.external.networks import read_state
from trainables.external.sets import read_set
from trainables.models.build import build
from trainables.networks import network_of

DATASET = dataset_config(num_classes=3, size=8, channels=1)
CLASSES = (0, 1, 2)


def images(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def set_of(path: Path, **other: Any) -> Any:
    values = {"classes": CLASSES, "space": "pixel01", "mean": None, "std": None, "factor": 1, **other}
    return read_set(path, values.pop("dataset", DATASET), values.pop("classes"), **values)


class Payload:
    """Whoever unpickles it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.target), "w")


# --- kinds of files ---------------------------------------------------------------------------------------------------


def test_the_same_set_in_every_kind_of_file(tmp_path: Path) -> None:
    content = {"images": images(), "labels": LABELS}
    save_file(content, tmp_path / "a.safetensors")
    torch.save(content, tmp_path / "b.pt")
    torch.save(content, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "d.npz", images=images().numpy(), labels=LABELS.numpy())
    torch.save([images(), LABELS], tmp_path / "pair.pt")  # as IDC's program does
    torch.save({"data": [[images(seed=1), LABELS], [images(), LABELS]], "accs": {}}, tmp_path / "dc.pt")
    torch.save(images(), tmp_path / "images.pt")  # as MTT's program does, in two files
    torch.save(LABELS, tmp_path / "labels.pt")
    found = [
        *(set_of(tmp_path / name) for name in ("a.safetensors", "b.pt", "c.bin", "d.npz", "pair.pt")),
        set_of(tmp_path / "dc.pt", nth=1),
        set_of(tmp_path / "images.pt", labels=tmp_path / "labels.pt"),
        set_of(tmp_path / "images.pt", labels="class-major"),
    ]
    for each in found:
        assert torch.equal(each.images, images())
        assert torch.equal(each.labels, LABELS)
        assert each.indices.tolist() == [-1] * 6
        assert (each.facts["space"], each.facts["factor"]) == ("pixel01", 1)
    assert not torch.equal(set_of(tmp_path / "dc.pt", nth=0).images, images())


def _trusting(path: Path) -> None:
    torch.load(path, weights_only=False)


@pytest.mark.parametrize("write, trusting", [
    (torch.save, _trusting),
    (lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False), _trusting),
    (lambda content, path: path.write_bytes(pickle.dumps(content)), lambda path: pickle.loads(path.read_bytes())),
    (
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
        lambda path: pickle.loads(path.read_bytes()),
    ),
    (
        lambda content, path: np.savez(path.open("wb"), x=np.array([content], dtype=object)),
        lambda path: np.load(path, allow_pickle=True)["x"],
    ),
], ids=["zip", "legacy", "pickle", "pickle2", "npz"])  # fmt: skip
def test_files_that_need_code_are_refused_and_not_run(
    tmp_path: Path, write: Callable[[Any, Path], Any], trusting: Callable[[Path], Any]
) -> None:
    target, path = tmp_path / "was-run", tmp_path / "set.pt"
    write({"images": images(), "labels": Payload(target)}, path)
    with pytest.raises(ValueError, match=r"would need code to be run.*Nothing of it was run.*torch\.save"):
        read(path)
    assert not target.exists()
    trusting(path)  # control
    assert target.exists()


def test_numpy_numbers_in_a_pickle_are_code_too(tmp_path: Path) -> None:
    torch.save({"images": images(), "accuracy": np.float64(0.3)}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"it names numpy\.\S*scalar"):
        read(tmp_path / "set.pt")


def test_what_is_no_such_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.pt: no such file"):
        read(tmp_path / "nothing.pt")
    (tmp_path / "text").write_text("hello, this is text\n")
    with pytest.raises(ValueError, match="not a kind of file that can be read"):
        read(tmp_path / "text")
    save_file({"images": images()}, tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut: cannot be read"):
        read(tmp_path / "cut")
    torch.save(images(), tmp_path / "torn")
    (tmp_path / "torn").write_bytes((tmp_path / "torn").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"torn: "):
        read(tmp_path / "torn")


# --- sets -------------------------------------------------------------------------------------------------------------


def test_normalised_images_come_back_to_pixels(tmp_path: Path) -> None:
    torch.save({"images": normalise(images(), (0.3,), (0.2,)), "labels": LABELS}, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt", space="normalised", mean=(0.3,), std=(0.2,))
    torch.testing.assert_close(found.images, images())
    other = set_of(tmp_path / "set.pt", space="normalised", mean=(0.4,), std=(0.2,))
    assert not torch.allclose(other.images, images(), atol=0.05)


def test_images_are_put_class_after_class_with_their_labels(tmp_path: Path) -> None:
    mixed = torch.tensor([2, 0, 1, 0, 1, 2])
    torch.save({"data": images(), "targets": mixed.double()}, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(found.images, images()[[1, 3, 2, 4, 0, 5]])
    hot = nn.functional.one_hot(mixed, 3).float()
    torch.save({"images": images(), "labels": hot}, tmp_path / "hot.pt")
    assert torch.equal(set_of(tmp_path / "hot.pt").images, found.images)


def test_labels_are_the_data_sets_own_numbers(tmp_path: Path) -> None:
    torch.save({"images": images(), "labels": torch.tensor([2, 2, 5, 5, 9, 9])}, tmp_path / "set.pt")
    wide = dataset_config(num_classes=10)
    assert set_of(tmp_path / "set.pt", dataset=wide, classes=(2, 5, 9)).labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"got unknown 9 and none of 3; expected every class of \[2, 3, 5\]"):
        set_of(tmp_path / "set.pt", dataset=wide, classes=(2, 3, 5))


@pytest.mark.parametrize("content, message", [
    ({"images": images()[:, :, :7], "labels": LABELS}, r"got \(6, 1, 7, 8\); expected \(N, 1, 8, 8\)"),
    ({"images": images().permute(0, 2, 3, 1), "labels": LABELS}, "Permute them to channels first"),
    ({"images": (255 * images()).byte(), "labels": LABELS}, "torch.uint8.*Divide bytes by 255"),
    ({"images": 255 * images(), "labels": LABELS}, "not in pixel space; got values from .* to 25"),
    ({"images": images().where(images() > 0.1, torch.nan), "labels": LABELS}, r"not finite; got \d+ of 384"),
    ({"images": images().where(images() > 0.1, torch.inf), "labels": LABELS}, "not finite"),
    ({"images": images(), "labels": LABELS[:5]}, r"labels do not fit.*expected \(6,\) whole numbers"),
    ({"images": images(), "labels": LABELS + 0.5}, "whole numbers"),
    ({"images": images(), "labels": torch.full((6, 3), 1 / 3)}, "labels are soft; got 6 of 6 rows"),
    ({"images": images(), "labels": torch.tensor([0, 0, 0, 1, 1, 2])}, "different numbers of images; got 1 to 3"),
    ({"images": images(), "labels": torch.tensor([0, 0, 1, 1, 1, 1])}, "none of 2"),
    ({"pictures": images(), "labels": LABELS}, "no images; got pictures, labels"),
    (images(), "no labels.*--labels FILE"),
    ([[images(), LABELS], [images(), LABELS]], "holds several sets; got 2.*--nth 0 to 1"),
    ({"a": 1}, "no images; got a"),
])  # fmt: skip
def test_sets_that_do_not_fit_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=message) as refused:
        set_of(tmp_path / "set.pt")
    assert str(refused.value).startswith(f"{tmp_path / 'set.pt'}: ")


# --- networks ---------------------------------------------------------------------------------------------------------


def published_convnet(width: int, classes: int, size: int, channels: int) -> nn.Sequential:
    """Written from the description of the DC family's ConvNet: parameters get its published names."""
    layers: list[nn.Module] = []
    for block in range(3):
        layers += [
            nn.Conv2d(channels if block == 0 else width, width, 3, padding=1),
            nn.GroupNorm(width, width, affine=True),
            nn.ReLU(),
            nn.AvgPool2d(2, 2),
        ]

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Linear(width * (size // 8) ** 2, classes)

        def forward(self, pixels: Tensor) -> Tensor:
            found: Tensor = self.classifier(self.features(pixels).flatten(1))
            return found

    return Published()  # type: ignore[return-value]


def test_the_published_convnet_under_its_own_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = published_convnet(16, 4, 16, 3).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    network = network_of("convnet3-w16", image_size=16, channels=3, num_classes=4)
    pixels = torch.randn(5, 3, 16, 16)
    for wrap in (
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 7},
        lambda state: {name: value.double() for name, value in state.items()},
    ):
        torch.save(wrap(theirs.state_dict()), tmp_path / "net.pt")
        ours = build(network, "a test").eval()
        ours.load_state_dict(read_state(tmp_path / "net.pt", network))
        with torch.no_grad():
            torch.testing.assert_close(ours(pixels), theirs(pixels), atol=2e-5, rtol=1e-4)


@pytest.mark.conformance
def test_the_recorded_networks_are_read_as_published(tmp_path: Path) -> None:
    for name, channels in (("convnet3_rgb", 3), ("convnet3_gray", 1)):
        recorded = vectors(conformance_folder() / f"{name}.npz")
        state = with_prefix(recorded, "param.")
        np.savez(tmp_path / f"{name}.npz", **{key: value.numpy() for key, value in state.items()})
        network = recorded_network(state, recorded["x"].shape[-1], channels)
        ours = build(network, "a test").eval()
        ours.load_state_dict(read_state(tmp_path / f"{name}.npz", network))
        with torch.no_grad():
            torch.testing.assert_close(ours(recorded["x"]), recorded["logits"], atol=2e-4, rtol=1e-3)


def test_torchvisions_resnet18_under_its_own_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=5)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.eval()
    state = theirs.state_dict()
    network = network_of("resnet18", image_size=16, channels=3, num_classes=5)
    pixels = torch.randn(2, 3, 16, 16)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    dc = {name.replace("downsample", "shortcut").replace("fc.", "classifier."): value for name, value in old.items()}
    for content in (state, old, dc):
        torch.save(content, tmp_path / "net.pt")
        ours = build(network, "a test").eval()
        ours.load_state_dict(read_state(tmp_path / "net.pt", network))
        with torch.no_grad():
            torch.testing.assert_close(ours(pixels), theirs(pixels), atol=2e-5, rtol=1e-4)


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wanted = network_of("convnet3", image_size=8, channels=1, num_classes=10)
    state = build(network_of("convnet3-w16", image_size=8, channels=1, num_classes=10), "a test").state_dict()

    def refusal(content: Any, network: Any = wanted) -> str:
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(ValueError) as refused:
            read_state(tmp_path / "net.pt", network)
        return str(refused.value)

    assert "features.0.weight (16, 1, 3, 3) instead of (128, 1, 3, 3)" in refusal(state)
    assert "try --architecture convnet3-d3-w16" in refusal(state)
    narrow = network_of("convnet3-w16", image_size=8, channels=1, num_classes=10)
    read_state(tmp_path / "net.pt", narrow)  # the fix works
    lacking = {name: value for name, value in state.items() if name != "classifier.bias"}
    assert "got no classifier.bias;" in refusal(lacking, narrow)
    assert "unknown extra.weight" in refusal({**state, "extra.weight": torch.zeros(2)}, narrow)
    spoilt = {**state, "features.0.bias": torch.full((16,), torch.nan)}
    assert "features.0.bias holds numbers that are not finite; got 16 of 16" in refusal(spoilt, narrow)
    assert "not a state dict" in refusal(torch.zeros(3), narrow)
    assert "not a state dict" in refusal({"a": {"b": torch.zeros(3)}, "c": 1}, narrow)


# --- members ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def digits() -> DatasetConfig:
    return digits_config()


def test_indices_in_the_files_order_name_the_same_images(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path
) -> None:
    split = open_split(digits, "train", tmp_path, digits_cache)
    source = find_source("digits", None, tmp_path)
    assert source is not None
    theirs, labels = sources.read(source, "digits", "train")
    assert (canonical_order(theirs, labels) != np.arange(len(theirs))).any(), "the orders must differ"
    places = file_order(digits, tmp_path)
    assert np.array_equal(split.images[places], theirs)
    chosen = [7, 900, 1, 42]
    (tmp_path / "members.txt").write_text("\n".join(map(str, chosen)))
    found = read_members(tmp_path / "members.txt", digits, tuple(range(10)), "files", tmp_path, split.labels)
    assert found.kind == "listed"
    assert found.indices is not None
    assert {split.images[index].tobytes() for index in found.indices} == {theirs[index].tobytes() for index in chosen}


def test_members_in_every_kind_of_file(tmp_path: Path, digits: DatasetConfig, digits_cache: Path) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    every = tuple(range(10))
    (tmp_path / "a.json").write_text("[5, 3, 400]")
    (tmp_path / "b.csv").write_text("5,3\n400\n")
    np.save(tmp_path / "c.npy", np.array([5, 3, 400]))
    torch.save({"indices": torch.tensor([5, 3, 400])}, tmp_path / "d.pt")
    for name in ("a.json", "b.csv", "c.npy", "d.pt"):
        found = read_members(tmp_path / name, digits, every, "canonical", tmp_path, labels)
        assert found == OriginConfig(kind="listed", indices=(3, 5, 400), classes=every)
    (tmp_path / "e.json").write_text(json.dumps({"kind": "draw", "per_class": 4, "draw": 1}))
    draw = OriginConfig(kind="draw", per_class=4, draw=1, classes=every)
    assert read_members(tmp_path / "e.json", digits, every, None, tmp_path, labels) == draw


@pytest.mark.parametrize("text, order, message", [
    ("[1, 2]", None, "indices of what order; got 2.*--members-order files"),
    ("[1, 1]", "canonical", "got 1 of 2 twice"),
    ("[1, 5000]", "canonical", "got 5000; expected different numbers from 0 to 1296"),
    ("[1, -1]", "files", "got -1"),
    ("[]", "canonical", "not indices"),
    ("[0.5]", "canonical", "no indices"),
    ('{"kind": "draw"}', None, "not an origin"),
    ("[1200]", "canonical", r"classes that are not evaluated; got class 9; expected \[0, 1\]"),
    ("nonsense", "canonical", "cannot be read"),
])  # fmt: skip
def test_members_that_do_not_fit_are_refused(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path, text: str, order: Any, message: str
) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    (tmp_path / "members.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_members(tmp_path / "members.json", digits, (0, 1), order, tmp_path, labels)
