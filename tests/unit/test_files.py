"""Payloads are read without torch, by the names they were written under."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainables import files
from trainables.payloads import Metrics, save_tensors


def test_arrays_are_the_tensors_that_were_written(tmp_path: Path) -> None:
    rows = [{"metric": "accuracy", "value": 0.5}]
    details = {"seed.scores.loss": torch.arange(6.0).view(2, 3), "seed.is_member": torch.tensor([True, False])}
    Metrics(rows, details).save(tmp_path)
    assert files.load_json(tmp_path / files.METRICS) == rows
    path = tmp_path / files.DETAILS
    assert sorted(files.array_names(path)) == sorted(details)
    arrays = files.load_arrays(path)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        name: tensor.tolist() for name, tensor in details.items()
    }
    assert list(files.load_arrays(path, ["seed.is_member"])) == ["seed.is_member"]


def test_a_missing_array_and_a_torn_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / files.DETAILS
    save_tensors(path, {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"details\.safetensors: .*other"):
        files.load_arrays(path, ["other"])
    path.write_bytes(b"torn")
    for read in (files.load_arrays, files.array_names):
        with pytest.raises(ValueError, match=r"details\.safetensors"):
            read(path)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    save_tensors(tmp_path / files.DETAILS, {"a": torch.zeros(2)})
    program = f"""
import sys
from pathlib import Path
from trainables import files
files.load_arrays(Path({str(tmp_path)!r}) / files.DETAILS)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
