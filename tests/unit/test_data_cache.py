"""The cache is whole or absent, made once however many ask, and refuses other data than planned."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.configs import DatasetConfig
from trainables.data import cache as cache_module
from trainables.data.cache import build, open_split, resized
from trainables.data.known import KNOWN
from trainables.data.layout import FILES, SPLITS, DataBroken, find_index, resized_digest


def write_set(root: Path, per_class: int = 3, size: int = 8) -> None:
    """Random gray images of ten classes as an image folder."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for label in range(10):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def config(digest: str, folder: str | None = None, resize: int | None = None) -> DatasetConfig:
    known = KNOWN["digits"]
    return DatasetConfig(
        name="mine",
        base="digits",
        folder=folder,
        resize=resize,
        digest=digest,
        num_classes=10,
        image_size=resize or 8,
        channels=1,
        mean=known.mean,
        std=known.std,
        flip=False,
    )


def test_find_index_is_what_build_returned_and_notices_changed_files(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    assert find_index("digits", "x", None, tmp_path, tmp_path / "c") is None
    index = build("digits", "x", None, tmp_path, tmp_path / "c")
    assert find_index("digits", "x", None, tmp_path, tmp_path / "c") == index
    assert index.digest.startswith("sha256:")
    assert (index.image_size, index.channels, index.num_classes) == (8, 1, 10)
    file = tmp_path / "x" / "train" / "0" / "0.png"
    os.utime(file, ns=(0, 0))
    assert find_index("digits", "x", None, tmp_path, tmp_path / "c") is None
    assert build("digits", "x", None, tmp_path, tmp_path / "c").digest == index.digest
    file.unlink()
    assert build("digits", "x", None, tmp_path, tmp_path / "c").digest != index.digest


def test_a_second_build_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("digits", None, None, tmp_path, tmp_path / "c")
    monkeypatch.setattr(cache_module, "_decode", lambda *_, **__: pytest.fail("decoded again"))
    assert build("digits", None, None, tmp_path, tmp_path / "c") == first


def test_open_split_maps_the_images(tmp_path: Path) -> None:
    digest = KNOWN["digits"].digest
    assert digest is not None
    train = open_split(config(digest), "train", tmp_path / "nowhere", tmp_path / "c")
    test = open_split(config(digest), "test", tmp_path / "nowhere", tmp_path / "c")
    assert isinstance(train.images, np.memmap)
    assert not train.images.flags.writeable
    assert train.images.shape == (1297, 1, 8, 8)
    assert test.images.shape == (500, 1, 8, 8)
    assert train.images.dtype == np.uint8
    assert test.labels.dtype == np.int64
    assert np.all(np.diff(train.labels) >= 0)


def test_open_split_refuses_other_data_than_planned(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    index = build("digits", "x", None, tmp_path, tmp_path / "c")
    other = "sha256:" + "0" * 64
    with pytest.raises(
        ValueError, match=rf"not those of the plan; got {index.digest} from .*x \(folder\); expected {other}"
    ):
        open_split(config(other, "x"), "train", tmp_path, tmp_path / "c")


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    (tmp_path / "x" / "train" / "4" / "more.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DataBroken, match=r"4/more\.png: cannot be read; got No such file"):
        build("digits", "x", None, tmp_path, tmp_path / "c")


def test_pinned_digest_guards_a_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, other = KNOWN["digits"].digest, "sha256:" + "1" * 64
    monkeypatch.setitem(KNOWN, "digits", replace(KNOWN["digits"], digest=other))
    with pytest.raises(DataBroken, match=f"this is not digits; got {real}; expected {other}"):
        build("digits", None, None, tmp_path, tmp_path / "c")


def test_a_part_of_a_known_data_set_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    write_set(tmp_path / "mnist", size=28)
    with pytest.raises(
        DataBroken, match="not the whole mnist; got 3 training images in the smallest class; expected 5421"
    ):
        build("mnist", None, None, tmp_path, tmp_path / "c")
    (tmp_path / "mnist").rename(tmp_path / "mine")  # the fix that the message names: declare it
    assert build("mnist", "mine", None, tmp_path, tmp_path / "c").train_counts == (3,) * 10


def test_resized_digest_needs_no_decoding_and_order_is_the_base_order(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    base = build("digits", "x", None, tmp_path, tmp_path / "other_cache")
    large = build("digits", "x", 16, tmp_path, tmp_path / "c")
    assert large.digest == resized_digest(base.digest, 16) != resized_digest(base.digest, 12)
    assert large == find_index("digits", "x", 16, tmp_path, tmp_path / "c")
    assert (large.image_size, large.train_counts) == (16, base.train_counts)
    train = open_split(config(large.digest, "x", 16), "train", tmp_path, tmp_path / "c")
    for image, small in zip(train.images, np.load(base.folder / "train_images.npy"), strict=True):
        expected = Image.fromarray(small[0]).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image[0], np.asarray(expected))


def test_shrinking_weighs_every_pixel() -> None:
    constant = np.full((1, 3, 32, 32), 77, np.uint8)
    np.testing.assert_array_equal(resized(constant, 8), np.full((1, 3, 8, 8), 77))
    checkers = (np.indices((32, 32)).sum(0) % 2 * 200).astype(np.uint8)[None, None]
    assert np.abs(resized(checkers, 8).astype(int) - 100).max() <= 8  # point sampling would give 0 or 200


def test_a_folder_of_another_size_is_read_only_when_resized(tmp_path: Path) -> None:
    write_set(tmp_path / "x", size=12)
    with pytest.raises(DataBroken, match=r"got 12x12 pixels .* expected 8x8 pixels"):
        build("digits", "x", None, tmp_path, tmp_path / "c")
    assert build("digits", "x", 8, tmp_path, tmp_path / "c").image_size == 8
    with pytest.raises(DataBroken, match=r"got 12x12 pixels; expected 8x8\. Declare the folder with resize: 8"):
        build("digits", "x", None, tmp_path, tmp_path / "c")  # its base cache exists now, and does not count


def test_builders_at_once_make_one_cache(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    program = """
        import sys, time
        from pathlib import Path
        from trainables.data import cache

        data, decode = Path(sys.argv[1]), cache._decode

        def slow(*args, **options):
            print("decoded")
            time.sleep(0.3)
            return decode(*args, **options)

        cache._decode = slow
        print("ready", flush=True)
        sys.stdin.readline()
        print(cache.build("digits", "x", 16, data, data / "c").digest)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    builders = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("go\n")
        builder.stdin.flush()
    said = " ".join(builder.communicate(timeout=60)[0] for builder in builders).split()
    assert [builder.returncode for builder in builders] == [0] * 3
    assert said.count("decoded") == 1
    assert len(said) == 4
    assert len(set(said)) == 2
    assert len([entry for entry in (tmp_path / "c" / "data").iterdir() if entry.is_dir()]) == 2  # base and resized


@pytest.mark.parametrize("moment", ["_write_split", "write_index", "_to_disk"])
def test_a_killed_builder_leaves_no_cache(tmp_path: Path, moment: str) -> None:
    write_set(tmp_path / "x")
    program = f"""
        import os, signal, sys
        from pathlib import Path
        from trainables.data import cache

        real, calls = cache.{moment}, 0

        def killed(*args, **options):
            global calls
            calls += 1
            result = real(*args, **options)
            if calls == 2 or "{moment}" == "write_index":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        cache.{moment} = killed
        cache.build("digits", "x", None, Path(sys.argv[1]), Path(sys.argv[1]) / "c")
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    left = [entry.name for entry in (tmp_path / "c" / "data").iterdir() if entry.is_dir()]
    assert left
    assert all(".tmp-" in name for name in left)
    assert find_index("digits", "x", None, tmp_path, tmp_path / "c") is None
    index = build("digits", "x", None, tmp_path, tmp_path / "c")
    assert [entry for entry in (tmp_path / "c" / "data").iterdir() if entry.is_dir()] == [index.folder]


def test_a_damaged_cache_is_built_again(tmp_path: Path) -> None:
    index = build("digits", None, None, tmp_path, tmp_path / "c")
    images = index.folder / "train_images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    assert find_index("digits", None, None, tmp_path, tmp_path / "c") is None
    assert build("digits", None, None, tmp_path, tmp_path / "c") == index
    (index.folder / "index.json").write_text(json.dumps({"digest": 1}))
    assert build("digits", None, None, tmp_path, tmp_path / "c") == index


def test_files_that_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "x")
    write = cache_module._write_split

    def write_and_meddle(*args: Any, **options: Any) -> object:
        os.utime(tmp_path / "x" / "train" / "0" / "0.png", ns=(0, 0))
        return write(*args, **options)

    monkeypatch.setattr(cache_module, "_write_split", write_and_meddle)
    with pytest.raises(DataBroken, match="files changed while they were read"):
        build("digits", "x", None, tmp_path, tmp_path / "c")
    assert find_index("digits", "x", None, tmp_path, tmp_path / "c") is None


def test_the_light_half_loads_nothing_heavy(tmp_path: Path) -> None:
    build("digits", None, None, tmp_path, tmp_path / "c")
    program = """
        import sys
        from pathlib import Path
        from trainables.data.cache import build
        from trainables.data.layout import find_index, resized_digest
        from trainables.data.known import class_subset
        index = find_index("digits", None, None, Path(sys.argv[1]), Path(sys.argv[1]) / "c")
        assert build("digits", None, None, Path(sys.argv[1]), Path(sys.argv[1]) / "c") == index
        resized_digest(index.digest, 32), class_subset(10, 5, 1)
        heavy = {"torch", "torchvision", "pyarrow", "sklearn", "scipy", "PIL", "numpy"} & set(sys.modules)
        sys.exit(f"loaded {heavy}" if heavy else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True)


def flip_a_byte(file: Path, *, quietly: bool = False) -> None:
    """Change one byte; ``quietly`` leaves length and time of modification as they were."""
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-5, os.SEEK_END)
        byte = opened.read(1)
        opened.seek(-5, os.SEEK_END)
        opened.write(bytes([byte[0] ^ 0xFF]))
    if quietly:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["this process", "a process that comes later"])
def test_changed_bytes_are_noticed_before_they_are_used(
    tmp_path: Path, name: str, elsewhere: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = KNOWN["digits"].digest
    assert digest is not None
    before = (
        open_split(config(digest), "train", tmp_path, tmp_path / "c"),
        open_split(config(digest), "test", tmp_path, tmp_path / "c"),
    )
    index = find_index("digits", None, None, tmp_path, tmp_path / "c")
    assert index is not None
    whole = [array.copy() for split in before for array in (split.images, split.labels)]
    flip_a_byte(index.folder / name, quietly=True)
    assert find_index("digits", None, None, tmp_path, tmp_path / "c") == index  # nothing a listing could show
    if elsewhere:
        monkeypatch.setattr(cache_module, "_compared", {})
    capsys.readouterr()
    after = [open_split(config(digest), split, tmp_path, tmp_path / "c") for split in SPLITS]
    for array, expected in zip((each for split in after for each in (split.images, split.labels)), whole, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert "changed since they were written; read again from their source" in capsys.readouterr().err


def test_a_resized_cache_is_not_made_of_changed_bytes(tmp_path: Path) -> None:
    write_set(tmp_path / "x")
    base = build("digits", "x", None, tmp_path, tmp_path / "c")
    flip_a_byte(base.folder / "train_images.npy")
    large = build("digits", "x", 16, tmp_path, tmp_path / "c")
    expected = build("digits", "x", 16, tmp_path, tmp_path / "other")
    assert large.sha256 == expected.sha256


def test_a_changed_index_is_no_index(tmp_path: Path) -> None:
    index = build("digits", None, None, tmp_path, tmp_path / "c")
    file = index.folder / "index.json"
    file.write_text(file.read_text().replace('"image_size": 8', '"image_size": 9'))
    assert find_index("digits", None, None, tmp_path, tmp_path / "c") is None
    assert build("digits", None, None, tmp_path, tmp_path / "c") == index


def test_bytes_are_compared_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = KNOWN["digits"].digest
    assert digest is not None
    open_split(config(digest), "train", tmp_path, tmp_path / "c")
    open_split(config(digest), "train", tmp_path, tmp_path / "c")
    monkeypatch.setattr(cache_module, "file_sha256", lambda _: pytest.fail("compared again"))
    open_split(config(digest), "test", tmp_path, tmp_path / "c")
    monkeypatch.setattr(cache_module, "_compared", {})
    with pytest.raises(pytest.fail.Exception):  # control: a process that has not compared them does
        open_split(config(digest), "test", tmp_path, tmp_path / "c")
