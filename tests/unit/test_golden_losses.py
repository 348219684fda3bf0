"""The first five losses of every method on a tiny set, recorded: whoever changes a number means to.

``tests/golden/losses.json`` holds one list per method and numerics class (instruction set and version of torch; one
thread). In a recorded class losses agree to 1e-6 of themselves: sums may be split differently on processors of one
class. In another class they agree to 1 % of the recorded ones of any class: single-precision networks amplify
rounding from iteration to iteration. Record with ``DDRAY_RECORD=1 make test ARGS=tests/unit/test_golden_losses.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from support import FakeContext, distil, distill_config, tiny_experts

from trainables.methods import METHODS

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
METHODS_WITH_A_LOSS = [
    name for name, method in METHODS.items() if method.settings.budget and method.function.startswith("trainables.")
]


def numerics_class() -> str:
    version = ".".join(torch.__version__.split(".")[:2])
    return f"cpu {torch.backends.cpu.get_cpu_capability()} torch {version}"


def losses(method: str, folder: Path) -> list[float]:
    config = distill_config(method, iterations=5)
    context = FakeContext(folder)
    distil(config, context, inputs=tiny_experts(config, folder / "experts"))
    return [values["loss"] for values in context.measured if "loss" in values]


@pytest.mark.parametrize("method", METHODS_WITH_A_LOSS)
def test_the_first_losses_are_the_recorded_ones(method: str, tmp_path: Path) -> None:
    found = losses(method, tmp_path)
    assert len(found) == 5
    recorded: dict[str, dict[str, list[float]]] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("DDRAY_RECORD"):
        recorded.setdefault(method, {})[numerics_class()] = found
        GOLDEN.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
        return
    of_method = recorded[method]
    if numerics_class() in of_method:
        assert found == pytest.approx(of_method[numerics_class()], rel=1e-6)
    else:
        assert found == pytest.approx(next(iter(of_method.values())), rel=1e-2)


def test_another_seed_has_other_losses(tmp_path: Path) -> None:
    """The control: the comparison can fail."""
    recorded = json.loads(GOLDEN.read_text())["dm"]
    config = distill_config("dm", iterations=5, distill_seed=1)
    context = FakeContext(tmp_path)
    distil(config, context)
    found = [values["loss"] for values in context.measured]
    assert all(found != pytest.approx(losses, rel=1e-2) for losses in recorded.values())
