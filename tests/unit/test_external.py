"""Files from elsewhere: what is read, under which names, what is refused, and that nothing in them is ever run."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import conformance_folder, dataset_config, digits_config, vectors, with_prefix
from support import network_of as recorded_network
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from trainables.configs import DatasetConfig, NetworkConfig, OriginConfig, SignalsConfig
from trainables.data import decoding
from trainables.data.cache import open_split
from trainables.data.decoding import canonical_order
from trainables.data.known import KNOWN
from trainables.data.layout import find_source
from trainables.data.origins import origin_indices, query_indices
from trainables.data.pixels import fit_whitening, normalise
from trainables.external.content import read
from trainables.external.members import file_order, read_members
from trainables.external.models import read_state
from trainables.external.pictures import folder_sha256
from trainables.external.sets import Soft, read_rate, read_set
from trainables.labels import SoftLabels
from trainables.models.network import build
from trainables.networks import parse

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
        assert torch.equal(each.labels.classes, LABELS)
        assert each.indices.tolist() == [-1] * 6
        assert (each.info["space"], each.info["factor"]) == ("pixel01", 1)
    assert not torch.equal(set_of(tmp_path / "dc.pt", nth=0).images, images())


def _trusting(path: Path) -> None:
    torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    "write, trusting",
    [
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
    ],
    ids=["zip", "legacy", "pickle", "pickle2", "npz"],
)
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
    with pytest.raises(ValueError, match=r"torn: cannot be read; got an archive without its end"):
        read(tmp_path / "torn")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder: a folder; expected safetensors"):
        read(tmp_path / "folder")


def broken_files(folder: Path) -> dict[str, bytes]:
    """By what is wrong with them: what parsers trip over."""
    content = {"images": images(), "labels": LABELS}
    torch.save(content, folder / "legacy", _use_new_zipfile_serialization=False)
    np.savez_compressed(folder / "packed.npz", images=images().numpy())
    np.save(folder / "array.npy", images().numpy())
    save_file(content, folder / "tensors")
    legacy, packed, array, tensors = (
        (folder / name).read_bytes() for name in ("legacy", "packed.npz", "array.npy", "tensors")
    )
    return {
        "pops": b"\x80\x04.",
        "ends": b"\x80",
        "empty": b"",
        "legacy": legacy[:-700],
        "packed": packed[:200] + b"\xff" * 60 + packed[260:],
        "cut": array[:150],
        "vast": array.replace(b"(6, 1, 8, 8), }            ", b"(6000000000000, 1, 8, 8), }"),
        "header": tensors[:40],
        "tail": tensors[:-20],
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_files_are_refused_whatever_their_parsers_raise(tmp_path: Path) -> None:
    files = broken_files(tmp_path)
    for content, surprise in ((files["pops"], IndexError), (files["ends"], IndexError)):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(surprise):  # not what the parser is documented to raise
            torch.load(tmp_path / "file", weights_only=True)
    (tmp_path / "file").write_bytes(files["packed"])
    with pytest.raises(zlib.error):
        np.load(tmp_path / "file")["images"]
    (tmp_path / "file").write_bytes(files["vast"])
    with pytest.raises(MemoryError):
        np.load(tmp_path / "file")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: (cannot be read|not a kind of file).*(again|Convert it)\."):
            read(tmp_path / name)


def test_spoilt_files_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    rng, network = (
        np.random.default_rng(0),
        NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=3),
    )
    refused = 0
    broken_files(tmp_path)
    for name in ("legacy", "packed.npz", "array.npy", "tensors"):
        whole = np.frombuffer((tmp_path / name).read_bytes(), dtype=np.uint8)
        for _ in range(25):
            spoilt = whole.copy()
            spoilt[rng.integers(0, min(len(whole), 600), 4)] = rng.integers(0, 256, 4)
            (tmp_path / "spoilt").write_bytes(spoilt.tobytes()[: rng.integers(len(whole) // 2, 2 * len(whole))])
            for use in (set_of, lambda path: read_state(path, network)):
                try:
                    use(tmp_path / "spoilt")
                except ValueError:
                    refused += 1
    assert refused > 100


def test_a_header_that_begins_as_a_pickle_does_is_a_header(tmp_path: Path) -> None:
    content = {"images": images(), "labels": LABELS}
    for length in range(100):
        save_file(content, tmp_path / "set", metadata={"note": "x" * length})
        if (tmp_path / "set").read_bytes().startswith(b"\x80"):
            break
    with pytest.raises((pickle.UnpicklingError, IndexError)):
        torch.load(tmp_path / "set", weights_only=True)
    assert torch.equal(set_of(tmp_path / "set").images, images())


def test_arrays_of_another_byte_order_are_the_same_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=images().numpy().astype(">f8"), labels=LABELS.numpy().astype(">i2"))
    assert torch.equal(set_of(tmp_path / "set.npz").images, images())
    np.savez(tmp_path / "text.npz", images=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="got an array of <U1 where numbers belong"):
        read(tmp_path / "text.npz")


ODD: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (Tensor.to_sparse, r"got a sparse one.*Write tensor\.to_dense"),
    (lambda value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8), r"a quantised one.*dequantize"),
    (lambda value: value.to(torch.complex64), "a complex one"),
    (lambda value: value.to("meta"), "one without numbers .device meta.*from where its numbers are"),
    (lambda value: value.to(torch.float8_e4m3fn), r"got torch\.float8_e4m3fn.*with its scale"),
]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("odd, message", ODD, ids=["sparse", "quantised", "complex", "meta", "float8"])
def test_tensors_that_are_not_plain_numbers_are_refused(
    tmp_path: Path, odd: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises((NotImplementedError, RuntimeError, TypeError)):  # why: not all can be done with them
        bool(torch.isfinite(odd(images())).all()) and odd(images()).round().bool().numpy()
    network = NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=3)
    state = {name: odd(value) for name, value in build(network, "a test").state_dict().items()}
    torch.save({"images": odd(images()), "labels": LABELS}, tmp_path / "images.pt")
    torch.save([[images(), LABELS], [images(), odd(LABELS)]], tmp_path / "labels.pt")
    torch.save({"net": state}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"images\.pt: images is a tensor.*{message}"):
        set_of(tmp_path / "images.pt")
    with pytest.raises(ValueError, match=rf"labels\.pt: 1\.1 is a tensor.*{message}"):
        set_of(tmp_path / "labels.pt", nth=1)
    with pytest.raises(ValueError, match=rf"net\.pt: net\.classifier\.bias is a tensor.*{message}"):
        read_state(tmp_path / "net.pt", network)


def test_a_list_that_holds_itself_is_no_set(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    torch.save(endless, tmp_path / "set.pt")
    with pytest.raises(ValueError, match="not a distilled set; got a list of 1"):
        set_of(tmp_path / "set.pt")


# --- sets -------------------------------------------------------------------------------------------------------------


def test_normalised_images_come_back_to_pixels(tmp_path: Path) -> None:
    torch.save({"images": normalise(images(), (0.3,), (0.2,)), "labels": LABELS}, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt", space="normalised", mean=(0.3,), std=(0.2,))
    torch.testing.assert_close(found.images, images())
    other = set_of(tmp_path / "set.pt", space="normalised", mean=(0.4,), std=(0.2,))
    assert not torch.allclose(other.images, images(), atol=0.05)


@pytest.mark.parametrize("scale", [1, 255], ids=["pixels", "bytes"])
def test_images_that_cannot_be_normalised_are_no_normalised_images(tmp_path: Path, scale: int) -> None:
    """They would be put into another range without a word."""
    torch.save({"images": scale * images(), "labels": LABELS}, tmp_path / "set.pt")
    said = rf"not normalised with mean 0\.3; got values from 0.* to {scale}; .* Give --space pixel01"
    with pytest.raises(ValueError, match=said):
        set_of(tmp_path / "set.pt", space="normalised", mean=(0.3,), std=(0.2,))
    if scale == 1:
        without = set_of(tmp_path / "set.pt", space="normalised", mean=(0.0,), std=(0.5,))
        torch.testing.assert_close(without.images, 0.5 * images())
        return
    with pytest.raises(ValueError, match=r"not in pixel space after undoing the normalisation; got values from 0"):
        set_of(tmp_path / "set.pt", space="normalised", mean=(0.0,), std=(1.0,))


def real_digits(ipc: int = 2) -> Tensor:
    """(10 * ipc, 1, 8, 8) in [0, 1], class after class."""
    from sklearn.datasets import load_digits

    known = load_digits()
    pixels = torch.tensor(known.images / 16, dtype=torch.float32)[:, None]
    return torch.cat([pixels[known.target == label][:ipc] for label in range(10)])


def digits_set(path: Path, pixels: Tensor, **other: Any) -> Any:
    torch.save({"images": pixels, "labels": torch.arange(10).repeat_interleave(len(pixels) // 10)}, path)
    return set_of(path, dataset=digits_config(), classes=tuple(range(10)), **other)


@pytest.mark.parametrize("mean, std", [(KNOWN["digits"].mean, KNOWN["digits"].std), ((0.5,), (0.5,))])
def test_a_normalised_set_is_not_taken_for_pixels(
    tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Trained on as they are, such images would be normalised twice."""
    pixels = real_digits()
    with pytest.raises(ValueError, match=r"normalised scale; got values from -.* to .*--space normalised .*constants"):
        digits_set(tmp_path / "set.pt", normalise(pixels, mean, std))
    found = digits_set(
        tmp_path / "set.pt", normalise(pixels, mean, std), space="normalised", mean=mean, std=std
    )  # the advice helps
    torch.testing.assert_close(found.images, pixels)
    as_it_is = digits_set(
        tmp_path / "set.pt", normalise(pixels, mean, std), space="normalised", mean=(0.0,), std=(1.0,)
    )
    torch.testing.assert_close(as_it_is.images, normalise(pixels, mean, std))


def test_pixels_that_leave_their_range_are_not_taken_for_normalised(tmp_path: Path) -> None:
    pixels = real_digits() * 1.04 - 0.02
    digits = KNOWN["digits"]
    with pytest.raises(ValueError, match=r"not normalised with mean 0\.3.*from -0\.02 to 1\.02.*--space pixel01"):
        digits_set(tmp_path / "set.pt", pixels, space="normalised", mean=digits.mean, std=digits.std)
    assert torch.equal(digits_set(tmp_path / "set.pt", pixels).images, pixels)


@pytest.mark.parametrize("reach", [0.5, 1.0, 1.5, 3.5], ids=lambda reach: f"{0.4 - reach:g} to {0.4 + reach:g}")
def test_learned_images_may_leave_the_range_of_pixels(tmp_path: Path, reach: float) -> None:
    learned = 0.4 + reach * (2 * images() - 1)
    torch.save({"images": learned, "labels": LABELS}, tmp_path / "set.pt")
    assert torch.equal(set_of(tmp_path / "set.pt").images, learned)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda pixels: 16 * pixels, "values from 0 to 16"),
        (lambda pixels: 100 * pixels, "values from 0 to 100"),
        (lambda pixels: pixels / 255, "one colour"),
        (lambda pixels: torch.full_like(pixels, 0.5), "one colour"),
        (lambda pixels: pixels[:1].expand_as(pixels), "20 times the same image"),
        (lambda pixels: pixels.double() * 1e75, "not finite"),
        (lambda pixels: pixels * 1e30, r"values from 0 to 1e\+30"),
        (lambda pixels: -5 * pixels, "values from -5"),
    ],
    ids=["counts", "percent", "twice divided", "grey", "one image", "1e75", "1e30", "negative"],
)
@pytest.mark.parametrize("space", ["pixel01", "normalised"])
def test_images_of_another_scale_are_refused(
    tmp_path: Path, spoil: Callable[[Tensor], Tensor], said: str, space: str
) -> None:
    constants: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)} if space == "normalised" else {}
    with pytest.raises(ValueError, match=said):
        digits_set(tmp_path / "set.pt", spoil(real_digits()), space=space, **constants)


@pytest.mark.parametrize(
    "content",
    [
        {"Images": images(), "label": LABELS},
        {"images": list(images()), "labels": LABELS.tolist()},
        {"images": [images()[:2], images()[2:4], images()[4:]], "targets": tuple(LABELS)},
        (images(), LABELS, torch.tensor(0.01)),
        (list(images()), LABELS.tolist()),
        {"syn": {"x": images(), "y": LABELS}, "epoch": 3},
        {0: images()[:2], 1: images()[2:4], 2: images()[4:]},
        {str(label): list(images()[2 * label : 2 * label + 2]) for label in CLASSES},
        {"data": [(images(), LABELS, 0.01)]},
    ],
    ids=["case", "lists", "parts", "triple", "pair of lists", "nested", "by class", "by name of class", "data"],
)
def test_sets_in_lists_and_under_other_names(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt")
    assert torch.equal(found.images, images())
    assert torch.equal(found.labels.classes, LABELS)


def test_what_stands_beside_a_set_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"images": images(), "labels": LABELS, "lr": 0.02, "epoch": 3}, tmp_path / "set.pt")
    set_of(tmp_path / "set.pt")
    assert "read without lr, epoch" in caplog.text
    torch.save({"images": images(), "labels": LABELS, "valid_mask": LABELS > 0}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"holds a mask beside the images; got valid_mask; .*images\[mask\]"):
        set_of(tmp_path / "set.pt")


def test_images_are_put_class_after_class_with_their_labels(tmp_path: Path) -> None:
    mixed = torch.tensor([2, 0, 1, 0, 1, 2])
    torch.save({"data": images(), "targets": mixed.double()}, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt")
    assert found.labels.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(found.images, images()[[1, 3, 2, 4, 0, 5]])
    hot = nn.functional.one_hot(mixed, 3).float()
    torch.save({"images": images(), "labels": hot}, tmp_path / "hot.pt")
    assert torch.equal(set_of(tmp_path / "hot.pt").images, found.images)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.to(torch.uint8),
        LABELS.to(torch.int8),
        LABELS.to(torch.uint16),
        LABELS.half(),
        LABELS.double(),
        nn.functional.one_hot(LABELS).bool(),
        nn.functional.one_hot(LABELS).half(),
        nn.functional.one_hot(LABELS).to(torch.uint16),
        LABELS.float().requires_grad_(),
    ],
    ids=lambda labels: f"{labels.dtype}-{labels.ndim}",
)
def test_labels_of_every_kind_of_number(tmp_path: Path, labels: Tensor) -> None:
    torch.save({"images": images(), "labels": labels}, tmp_path / "set.pt")
    assert torch.equal(set_of(tmp_path / "set.pt").labels.classes, LABELS)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_precisions_are_taken(tmp_path: Path, kind: torch.dtype) -> None:
    torch.save({"images": images().to(kind), "labels": LABELS}, tmp_path / "set.pt")
    found = set_of(tmp_path / "set.pt").images
    assert found.dtype == torch.float32
    assert torch.equal(found, images().to(kind).float())


def test_a_file_of_one_set_has_no_second(tmp_path: Path) -> None:
    contents = {"images": images(), "labels": LABELS}, [images(), LABELS], {"data": [images(), LABELS]}
    for content in contents:
        torch.save(content, tmp_path / "set.pt")
        assert torch.equal(set_of(tmp_path / "set.pt", nth=0).images, images())
        with pytest.raises(ValueError, match="holds one set; got --nth 1; expected 0"):
            set_of(tmp_path / "set.pt", nth=1)
    torch.save(images(), tmp_path / "set.pt")
    with pytest.raises(ValueError, match="holds one set; got --nth 3"):
        set_of(tmp_path / "set.pt", nth=3, labels="class-major")
    torch.save([[images(), LABELS]], tmp_path / "set.pt")
    with pytest.raises(ValueError, match="has no set number 1; got 1 sets"):
        set_of(tmp_path / "set.pt", nth=1)


def test_labels_are_the_data_sets_own_numbers(tmp_path: Path) -> None:
    torch.save({"images": images(), "labels": torch.tensor([2, 2, 5, 5, 9, 9])}, tmp_path / "set.pt")
    wide = dataset_config(num_classes=10)
    assert set_of(tmp_path / "set.pt", dataset=wide, classes=(2, 5, 9)).labels.classes.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"got unknown 9 and none of 3; expected every class of \[2, 3, 5\]"):
        set_of(tmp_path / "set.pt", dataset=wide, classes=(2, 3, 5))


@pytest.mark.parametrize(
    "content, message",
    [
        ({"images": images()[:, :, :7], "labels": LABELS}, r"got \(6, 1, 7, 8\); expected \(N, 1, 8, 8\)"),
        ({"images": images().permute(0, 2, 3, 1), "labels": LABELS}, "Permute them to channels first"),
        ({"images": (255 * images()).byte(), "labels": LABELS}, "torch.uint8.*Divide bytes by 255"),
        ({"images": 255 * images(), "labels": LABELS}, "not in pixel space; got values from .* to 25"),
        ({"images": images().where(images() > 0.1, torch.nan), "labels": LABELS}, r"not finite; got \d+ of 384"),
        ({"images": images().where(images() > 0.1, torch.inf), "labels": LABELS}, "not finite"),
        ({"images": images(), "labels": LABELS[:5]}, r"labels do not fit.*expected \(6,\) whole numbers"),
        ({"images": images(), "labels": LABELS + 0.5}, "with 0.5; expected .6,. whole numbers"),
        ({"images": images(), "labels": LABELS.where(LABELS > 0, torch.nan)}, "with nan; expected .6,. whole numbers"),
        ({"images": images(), "labels": LABELS.where(LABELS > 0, torch.inf)}, "with inf; expected"),
        ({"images": images(), "labels": 1e30 * LABELS}, r"with 1e\+30; expected"),
        ({"images": images(), "labels": torch.tensor(1.0)}, r"labels do not fit the images; got torch.float32 \(\)"),
        ({"images": torch.tensor(1.0), "labels": LABELS}, r"another shape; got \(\)"),
        ({"images": 1e300 * images().double(), "labels": LABELS}, "not finite.*expected what 32 bits can hold"),
        ({"images": images(), "labels": torch.full((6, 3), 1 / 3)}, "labels are soft; got 6 of 6 rows"),
        ({"images": images(), "labels": torch.tensor([0, 0, 1, 1, 1, 1])}, "none of 2"),
        ({"pictures": images(), "labels": LABELS}, "no images; got pictures, labels"),
        (images(), "no labels.*--labels FILE"),
        ([[images(), LABELS], [images(), LABELS]], "holds several sets; got 2.*--nth 0 to 1"),
        ({"a": 1}, "no images; got a"),
    ],
)
def test_sets_that_do_not_fit_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=message) as refused:
        set_of(tmp_path / "set.pt")
    assert str(refused.value).startswith(f"{tmp_path / 'set.pt'}: ")


# --- soft labels, whitened images, pictures ---------------------------------------------------------------------------


LOGITS = torch.tensor([[5.0, 1, 0], [0, 1, 4], [0, 6, 1], [3, 0, 1], [1, 0, 7], [2, 0, 1]])
"""Of six images; the largest number of each row: 0, 2, 1, 0, 2, 0."""


def soft(form: Any = "logits", classes: Any = None) -> Soft:
    return Soft(form, 1.0 if form == "logits" else None, "learned", classes)


def test_soft_labels_go_with_their_images(tmp_path: Path) -> None:
    """Rows and images are sorted by class together, whatever order the file has."""
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    torch.save(images()[order], tmp_path / "images.pt")
    torch.save(LOGITS[order].double().requires_grad_(), tmp_path / "labels.pt")
    torch.save(LABELS[order], tmp_path / "classes.pt")
    read = set_of(tmp_path / "images.pt", labels=tmp_path / "labels.pt", soft=soft(classes=tmp_path / "classes.pt"))
    assert isinstance(read.labels, SoftLabels)
    assert read.labels.classes.tolist() == LABELS.tolist()
    for image, row, number in zip(read.images, read.labels.rows, read.labels.classes, strict=True):
        (at,) = (index for index in range(6) if torch.equal(images()[index], image))
        assert torch.equal(row, LOGITS[at])
        assert number == LABELS[at]
    assert read.info["label_kind"] == "soft"
    assert read.labels.agreement == pytest.approx(3 / 6)


def test_classes_of_images_with_soft_labels(tmp_path: Path) -> None:
    torch.save({"images": images(), "labels": LOGITS}, tmp_path / "set.pt")
    by_order = set_of(tmp_path / "set.pt", soft=soft(classes="class-major"))
    assert by_order.labels.classes.tolist() == [0, 0, 1, 1, 2, 2]
    by_row = set_of(tmp_path / "set.pt", soft=soft(classes="argmax"))
    assert by_row.labels.classes.tolist() == [0, 0, 0, 1, 2, 2]
    assert by_row.labels.agreement == 1
    with pytest.raises(ValueError, match=r"which class each image is of.*--image-classes class-major"):
        set_of(tmp_path / "set.pt", soft=soft())
    torch.save({"images": images(), "labels": LABELS}, tmp_path / "hard.pt")
    torch.save(LOGITS, tmp_path / "logits.pt")
    beside = set_of(tmp_path / "hard.pt", labels=tmp_path / "logits.pt", soft=soft())
    assert beside.labels.classes.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "rows, facts, message",
    [
        (LOGITS, soft("probabilities", "argmax"), "no probabilities; got .* Are they logits"),
        (LOGITS.where(LOGITS < 7, torch.nan), soft(classes="argmax"), "not finite; got 1 of 18"),
        (LOGITS[:, :2], soft(classes="argmax"), r"labels are not soft; got torch.float32 \(6, 2\); expected \(6, 3\)"),
        (LABELS, soft(classes="argmax"), "labels are not soft.*Leave --label-form out"),
        (LOGITS, None, "labels are soft; got 6 of 6 rows.*--label-form logits"),
    ],
)
def test_soft_labels_that_do_not_fit_are_refused(tmp_path: Path, rows: Tensor, facts: Any, message: str) -> None:
    torch.save({"images": images(), "labels": rows}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=message) as refused:
        set_of(tmp_path / "set.pt", soft=facts)
    assert str(refused.value).startswith(f"{tmp_path / 'set.pt'}: ")


def test_soft_labels_of_some_classes_are_other_labels(tmp_path: Path) -> None:
    torch.save({"images": images(), "labels": LOGITS[:, :2]}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"a number for every class.*got 2 of 3 classes.*Leave --classes out"):
        set_of(tmp_path / "set.pt", soft=soft(classes="class-major"), classes=(0, 1))


def test_classes_may_hold_different_numbers_of_images(tmp_path: Path) -> None:
    numbers = torch.tensor([2, 0, 1, 0, 1, 0])
    torch.save({"images": images(), "labels": numbers}, tmp_path / "set.pt")
    read = set_of(tmp_path / "set.pt")
    assert read.labels.classes.tolist() == [0, 0, 0, 1, 1, 2]
    assert torch.equal(read.images[:3], images()[[1, 3, 5]])


def test_whitened_images_come_back_to_pixels_and_are_whitened_again(tmp_path: Path) -> None:
    many = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    whitening = fit_whitening(many, (0.0,), (1.0,))
    whitened = whitening.whiten(many[:6], (0.0,), (1.0,))
    torch.save({"images": whitened, "labels": LABELS}, tmp_path / "set.pt")
    read = set_of(tmp_path / "set.pt", space="whitened", whitening=whitening)
    assert torch.allclose(read.images, many[:6], atol=1e-4)
    assert read.info["zca"]
    assert read.whitening is not None
    again = read.whitening.whiten(read.images, (0.0,), (1.0,))
    assert torch.allclose(again, whitened, atol=1e-4)
    pixels = set_of(tmp_path / "set.pt", space="whitened", whitening=whitening, unwhiten=True)
    assert torch.equal(pixels.images, read.images)
    assert not pixels.info["zca"]
    assert pixels.whitening is None


def test_what_was_never_whitened_is_told_by_its_pixels(
    tmp_path: Path, digits_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = real_digits()
    whitening = fit_whitening(real_digits(100), (0.0,), (1.0,))
    digits_set(tmp_path / "set.pt", 4 * pixels, space="whitened", whitening=whitening, mean=None, std=None)
    assert "Check that the set is whitened" in caplog.text
    caplog.clear()
    whitened = whitening.whiten(pixels, (0.0,), (1.0,))
    digits_set(tmp_path / "set.pt", whitened, space="whitened", whitening=whitening, mean=None, std=None)
    assert caplog.text == ""


def test_a_learned_rate_is_one_number_above_0(tmp_path: Path) -> None:
    for content in (torch.tensor(0.02), torch.tensor([0.02]).requires_grad_(), {"lr": torch.tensor(0.02)}):
        torch.save(content, tmp_path / "lr.pt")
        assert read_rate(tmp_path / "lr.pt") == pytest.approx(0.02)
    for wrong in (torch.tensor(-0.02), torch.rand(3), [0.1], torch.tensor(torch.inf)):
        torch.save(wrong, tmp_path / "lr.pt")
        with pytest.raises(ValueError, match=r"no learning rate; got .*; expected one number above 0"):
            read_rate(tmp_path / "lr.pt")


def pictures(folder: Path, names: Sequence[str] = ("00000", "00001", "00002"), suffix: str = "png") -> Path:
    for index, image in enumerate((255 * images()).round().byte()):
        at = folder / names[int(LABELS[index])]
        at.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(at / f"class{int(LABELS[index])}_id{index}.{suffix}")
    return folder


def test_a_folder_of_pictures_is_a_set(tmp_path: Path) -> None:
    read = set_of(pictures(tmp_path / "png"))
    assert torch.equal(read.images, (255 * images()).round() / 255)
    assert read.labels.classes.tolist() == LABELS.tolist()
    lossy = set_of(pictures(tmp_path / "jpg", ("0", "1", "2"), "jpg"))
    assert lossy.images.shape == read.images.shape
    assert 0 < float((lossy.images - read.images).abs().max()) < 0.5


def test_pictures_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no pictures.*a folder for each class"):
        set_of(tmp_path / "none")
    with pytest.raises(ValueError, match="a folder that is no class; got cat;"):
        set_of(pictures(tmp_path / "named", ("cat", "1", "2")))
    large = pictures(tmp_path / "large")
    Image.new("L", (9, 8)).save(large / "00001" / "z.png")
    with pytest.raises(ValueError, match=r"z.png: another size; got 9 x 8 pixels; expected 8 x 8"):
        set_of(large)
    broken = pictures(tmp_path / "broken")
    (broken / "00001" / "z.png").write_bytes((broken / "00000" / "class0_id0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"z.png: cannot be read as a picture"):
        set_of(broken)
    every_epoch = pictures(tmp_path / "fkd")
    (every_epoch / "epoch_0").mkdir()
    (every_epoch / "epoch_0" / "batch_0.tar").touch()
    with pytest.raises(ValueError, match=r"labels of every epoch and image .FKD."):
        set_of(every_epoch)


def test_a_folders_digest_is_that_of_its_pictures(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "one")
    digest = folder_sha256(folder)
    assert digest == folder_sha256(pictures(tmp_path / "two"))
    (folder / "README.md").write_text("notes")
    assert digest == folder_sha256(folder)
    (folder / "00000" / "class0_id0.png").rename(folder / "00001" / "class0_id0.png")
    assert digest != folder_sha256(folder)


def test_a_checkpoint_of_flax_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_15000").write_bytes(b"\x86\xa4step\xcd\x3a\x98" + bytes(50))
    with pytest.raises(ValueError, match=r"a checkpoint of Flax .RCIG."):
        set_of(tmp_path / "checkpoint_15000")


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
    network = NetworkConfig.of(parse("convnet3-w16"), image_size=16, channels=3, num_classes=4)
    pixels = torch.randn(5, 3, 16, 16)
    for wrap in (
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 7},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    ):
        torch.save(wrap(theirs.state_dict()), tmp_path / "net.pt")
        ours = build(network, "a test").eval()
        ours.load_state_dict(read_state(tmp_path / "net.pt", network))
        with torch.no_grad():
            torch.testing.assert_close(ours(pixels), theirs(pixels), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_parameters_of_half_precision_are_themselves_in_32_bits(tmp_path: Path, kind: torch.dtype) -> None:
    network = NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=3)
    state = build(network, "a test").to(kind).state_dict()
    torch.save(state, tmp_path / "net.pt")
    found = read_state(tmp_path / "net.pt", network)
    assert all(
        value.dtype == torch.float32 and torch.equal(value, state[name].float()) for name, value in found.items()
    )


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
    network = NetworkConfig.of(parse("resnet18"), image_size=16, channels=3, num_classes=5)
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
    wanted = NetworkConfig.of(parse("convnet3"), image_size=8, channels=1, num_classes=10)
    state = build(
        NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=10), "a test"
    ).state_dict()

    def refusal(content: Any, network: Any = wanted) -> str:
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(ValueError) as refused:
            read_state(tmp_path / "net.pt", network)
        return str(refused.value)

    assert "features.0.weight (16, 1, 3, 3) instead of (128, 1, 3, 3)" in refusal(state)
    assert "They would fit convnet3-w16, convnet3-w16-group: try --architecture convnet3-w16." in refusal(state)
    narrow = NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=10)
    read_state(tmp_path / "net.pt", narrow)  # the fix works
    lacking = {name: value for name, value in state.items() if name != "classifier.bias"}
    assert "got no classifier.bias;" in refusal(lacking, narrow)
    assert "unknown extra.weight" in refusal({**state, "extra.weight": torch.zeros(2)}, narrow)
    spoilt = {**state, "features.0.bias": torch.full((16,), torch.nan)}
    assert "features.0.bias holds numbers that are not finite; got 16 of 16" in refusal(spoilt, narrow)
    vast = {**state, "features.0.bias": torch.full((16,), 1e300, dtype=torch.float64)}
    assert "features.0.bias holds numbers that are not finite; got 16 of 16" in refusal(vast, narrow)
    whole = {**state, "features.0.bias": torch.ones(16, dtype=torch.int64)}
    assert "parameters are not floating point; got features.0.bias of torch.int64" in refusal(whole, narrow)
    double = {**state, "module.features.0.bias": torch.ones(16)}
    assert "parameters have two names; got 15 tensors for 14 parameters" in refusal(double, narrow)
    assert "not a state dict" in refusal(torch.zeros(3), narrow)
    assert "not a state dict" in refusal({"a": {"b": torch.zeros(3)}, "c": 1}, narrow)


SMALL = NetworkConfig.of(parse("convnet3-w16"), image_size=8, channels=1, num_classes=3)


def put_before(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: put_before("_orig_mod.", state),
        lambda state: put_before("module._orig_mod.", state),
        lambda state: put_before("_orig_mod.module.", state),
        lambda state: {"state_dict": put_before("model.", state), "epoch": 3, "seed": torch.tensor(1)},
        lambda state: {"state_dict": put_before("net._orig_mod.backbone.", state)},
        lambda state: put_before("network.", state) | {"network.note": "best"},
        lambda state: put_before("student.encoder.", state),
        lambda state: {name.replace("features.", "features._orig_mod."): value for name, value in state.items()},
        lambda state: {"ema": state, "epoch": 3},
        lambda state: {"checkpoint": {"net": put_before("module.", state)}, "acc": 0.5},
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}},
        lambda state: {"model": state, "ema": dict(state)},
        lambda state: put_before("module.", state) | {"n_averaged": torch.tensor(4)},
        lambda state: (
            {
                name.replace("0.weight", "0.weight_orig"): value / 2 if "0.weight" in name else value
                for name, value in state.items()
            }
            | {"features.0.weight_mask": torch.full_like(state["features.0.weight"], 2.0)}
        ),
    ],
    ids=[
        "compiled",
        "compiled in parallel",
        "parallel in compiled",
        "lightning",
        "three deep",
        "a note",
        "any name",
        "a compiled layer",
        "ema alone",
        "nested",
        "beside an optimiser",
        "twice the same",
        "averaged",
        "pruned",
    ],
)
def test_networks_as_wrappers_write_them(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]) -> None:
    state = build(SMALL, "a test").state_dict()
    torch.save(wrap(state), tmp_path / "net.pt")
    found = read_state(tmp_path / "net.pt", SMALL)
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.items())


def test_compiled_residual_networks_under_published_names(tmp_path: Path) -> None:
    network = NetworkConfig.of(parse("resnet18-w8"), image_size=16, channels=3, num_classes=5)
    state = build(network, "a test").state_dict()
    theirs = {
        f"model._orig_mod.{name}": value
        for name, value in state.items()
        if name.startswith(("stages", "stem", "classifier"))
    }
    for ours, published in (("stem.0", "conv1"), ("stem.1", "bn1"), ("classifier", "fc")):
        theirs = {name.replace(ours, published): value for name, value in theirs.items()}
    for stage in range(4):
        theirs = {name.replace(f"stages.{stage}", f"layer{stage + 1}"): value for name, value in theirs.items()}
    torch.save({"state_dict": theirs}, tmp_path / "net.pt")
    found = read_state(tmp_path / "net.pt", network)
    assert all(torch.equal(value, state[name]) for name, value in found.items())


def test_a_file_of_other_networks_says_what_it_holds(tmp_path: Path) -> None:
    def refusal(content: Any) -> str:
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(ValueError) as refused:
            read_state(tmp_path / "net.pt", SMALL)
        return str(refused.value)

    state = build(SMALL, "a test").state_dict()
    other = build(SMALL, "another").state_dict()
    assert "holds several such networks; got model, ema; expected one" in refusal({"model": state, "ema": other})
    beside = put_before("model.", state) | put_before("ema.", other)
    assert "Those that begin with 'model.' would be: write them alone" in refusal(beside)
    normed = put_before("1.", state) | {"0.mean": torch.zeros(1)}
    assert "unknown 1.features.0.weight" in refusal(normed)
    batch = build(NetworkConfig.of(parse("convnet3-d2-w8-batch"), image_size=8, channels=1, num_classes=3), "a test")
    assert "try --architecture convnet3-d2-w8-batch." in refusal({"model": batch.state_dict()})
    unknown = {"blocks.0.attn.weight": torch.zeros(3, 3), "head.weight": torch.zeros(3, 3)}
    message = refusal(unknown)
    assert "unknown blocks.0.attn.weight, head.weight" in message
    assert "no features.0.weight" in message
    assert "fit none of convnet3, resnet18, vgg16" in message


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
    theirs, labels = decoding.read(source, "digits", "train")
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


def test_a_mask_of_all_training_images_names_its_members(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path
) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[[3, 17]] = True
    torch.save({"mask": mask}, tmp_path / "members.pt")
    every = tuple(range(10))
    found = read_members(tmp_path / "members.pt", digits, every, "canonical", tmp_path, labels)
    assert found.indices == (3, 17)
    torch.save(mask[:-1], tmp_path / "members.pt")
    with pytest.raises(ValueError, match="no indices"):
        read_members(tmp_path / "members.pt", digits, every, "canonical", tmp_path, labels)


def test_a_list_has_a_number_per_class_where_every_class_has_it(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path
) -> None:
    """Sixty images of three classes are twenty of each only if they are."""
    labels, classes = open_split(digits, "train", tmp_path, digits_cache).labels, (0, 4, 7)

    def per_class(*counts: int) -> int | None:
        chosen = [np.flatnonzero(labels == label)[:count] for label, count in zip(classes, counts, strict=True)]
        (tmp_path / "members.json").write_text(json.dumps(np.concatenate(chosen).tolist()))
        found = read_members(tmp_path / "members.json", digits, classes, "canonical", tmp_path, labels)
        assert found.indices is not None
        assert len(found.indices) == sum(counts)
        return found.per_class

    assert per_class(20, 20, 20) == 20
    assert per_class(30, 20, 10) is None
    assert per_class(30, 30, 0) is None


@pytest.mark.parametrize(
    "origin",
    [
        {"kind": "pool", "per_class": 20, "draw": 0, "row": 0},
        {"kind": "pool", "per_class": 20, "draw": 1, "row": 3},
        {"kind": "coin", "per_class": 20, "draw": 0, "row": 5},
        {"kind": "draw", "per_class": 12, "draw": 0, "block": 1},
    ],
)
def test_origins_that_belong_to_audits_become_lists_of_their_images(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path, origin: dict[str, Any]
) -> None:
    """A model that comes from such an origin is asked about others than its members alone."""
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    meant = OriginConfig.model_validate({**origin, "classes": (0, 4, 7)})
    assert set(query_indices(meant, SignalsConfig(), labels)) != {"origin"}
    (tmp_path / "members.json").write_text(json.dumps({**origin, "classes": [0, 4, 7]}))
    found = read_members(tmp_path / "members.json", digits, (0, 4, 7), None, tmp_path, labels)
    assert (found.kind, found.classes) == ("listed", (0, 4, 7))
    assert found.indices == tuple(origin_indices(meant, labels).tolist())
    assert set(query_indices(found, SignalsConfig(), labels)) == {"origin"}


def test_a_list_that_is_an_origin_counts_as_ddray_does(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path
) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    (tmp_path / "members.json").write_text('{"kind": "listed", "indices": [400, 3, 5]}')
    found = read_members(tmp_path / "members.json", digits, tuple(range(10)), None, tmp_path, labels)
    assert found == OriginConfig(kind="listed", indices=(3, 5, 400), classes=tuple(range(10)))
    (tmp_path / "full.json").write_text('{"kind": "full"}')
    full = read_members(tmp_path / "full.json", digits, (0, 1), None, tmp_path, labels)
    assert full == OriginConfig(classes=(0, 1))


@pytest.mark.parametrize(
    "text, order, message",
    [
        ("[1, 2]", None, "indices of what order; got 2.*--members-order files"),
        ("[1, 1]", "canonical", "got 1 of 2 twice"),
        ("[1, 5000]", "canonical", "got 5000; expected different numbers from 0 to 1296"),
        ("[1, -1]", "files", "got -1"),
        ("[]", "canonical", "not indices"),
        ("[0.5]", "canonical", "no indices"),
        ('{"kind": "draw"}', None, "not an origin.*takes"),
        ("{}", None, "not an origin.*kind is missing"),
        ('{"indices": [1, 2]}', None, "not an origin.*kind is missing"),
        ('{"kind": "dawr", "per_class": 4, "draw": 0}', None, "not an origin.*kind: Input should be 'full', 'draw'"),
        ('{"kind": "draw", "per_class": 4.5, "draw": 0}', None, "not an origin.*per_class: "),
        ('{"kind": "draw", "per_class": 4, "draw": 1000000000000000000000}', None, "numbers are below 1000000000"),
        ('{"kind": "draw", "per_class": 5000, "draw": 0}', None, "members.json: origin draw: a class holds too few"),
        (
            '{"kind": "draw", "per_class": 60, "draw": 0, "block": 7}',
            None,
            "members.json: origin draw: a class holds too",
        ),
        (
            '{"kind": "pool", "per_class": 90, "draw": 0, "row": 0}',
            None,
            "members.json: origin pool: a class holds too",
        ),
        ('{"kind": "pool", "per_class": 9, "draw": 0, "row": 0, "canaries": 3}', None, "canaries are not audited"),
        ('{"kind": "pool", "per_class": 9, "draw": 0, "row": 0, "canaries": -3}', None, "canaries: Input should be"),
        ('{"kind": "draw", "per_class": 4, "draw": 0, "canaries": "x"}', None, "canaries: Input should be"),
        ('{"kind": "draw", "per_class": 4, "draw": 1e30}', None, "not an origin.*: draw: "),
        ('{"kind": "draw", "per_class": 4, "draw": 0, "classes": [0, 1, 2]}', None, r"classes are \[0, 1\] here"),
        ('{"kind": "draw", "per_class": 4, "draw": 0}', "canonical", "needs no order; got --members-order canonical"),
        ('{"kind": "listed", "indices": [1, 2]}', "files", "needs no order; got --members-order files"),
        ('{"kind": "listed", "indices": [-5, 3, 999999]}', None, "got -5; expected different numbers from 0 to 1296"),
        ('{"kind": "listed", "indices": [-5]}', None, "got -5; expected different numbers"),
        ('{"kind": "listed", "indices": [4, 4]}', None, "got 1 of 2 twice"),
        ('{"kind": "listed", "indices": [1200]}', None, "got class 9"),
        ('{"kind": "listed", "indices": []}', None, "not an origin.*indices: Tuple should have"),
        ('{"kind": "listed", "indices": ["4"], "draw": 1}', None, "not an origin"),
        ('{"kind": "listed"}', None, "not an origin.*a list of images has indices"),
        ("[1000000000000000000000000000000]", "canonical", "got 1000000000000000000000000000000; expected different"),
        ("[1, -1000000000000000000000000000000]", "files", "got -1000000000000000000000000000000; expected different"),
        ("[true]", "canonical", "no indices"),
        ("[" * 100_000, "canonical", "cannot be read"),
        ("\ud800", "canonical", "cannot be read"),
        ("[1200]", "canonical", r"classes that are not evaluated; got class 9; expected \[0, 1\]"),
        ("nonsense", "canonical", "cannot be read"),
    ],
)
def test_members_that_do_not_fit_are_refused(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path, text: str, order: Any, message: str
) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    (tmp_path / "members.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=message) as refused:
        read_members(tmp_path / "members.json", digits, (0, 1), order, tmp_path, labels)
    assert str(refused.value).startswith(f"{tmp_path / 'members.json'}: ")


@pytest.mark.parametrize(
    "content",
    [
        torch.tensor([0.5]),
        torch.tensor([1 + 2j]),
        torch.tensor([True]),
        torch.tensor([1]).to_sparse(),
        torch.tensor([2**63], dtype=torch.uint64),
        [10**30],
        [1, "2"],
        (1, 2),
        None,
        {1: 2, 3: 4},
        {(1,): 2, (2,): 3},
        {"a": torch.tensor([1]), "b": torch.tensor([2])},
        {"kind": torch.tensor(1), "draw": 0},
        {"kind": "draw", "canaries": torch.ones(2)},
        {"kind": "listed", "indices": torch.tensor([1, 2])},
        {"kind": "listed", "indices": ["1", "2"]},
        {"kind": "listed", "indices": (1, 2)},
    ],
    ids=str,
)
def test_arrays_that_are_no_indices_are_refused(
    tmp_path: Path, digits: DatasetConfig, digits_cache: Path, content: Any
) -> None:
    labels = open_split(digits, "train", tmp_path, digits_cache).labels
    torch.save(content, tmp_path / "members.pt")
    order: Any = None if isinstance(content, dict) and len(content) > 1 else "canonical"
    with pytest.raises(ValueError, match=r"members\.pt: "):
        read_members(tmp_path / "members.pt", digits, (0, 1), order, tmp_path, labels)
