"""What one step holds of a card, without a card: the plan's estimate beside a step on tensors without numbers.

    python -m benchmarks.footprints [--only dm_ipc10,dsa_ipc1] [--json]

Configurations are those of ``benchmarks.steps``, on the whole of CIFAR-10 (5,000 images per class). Columns:

    estimated_mib  by the plan, from which a job's share of a card follows (``docs/resources.md``)
    held_mib       that live at the step's fullest (``trainables/dry_run.py``)
    operators      handed to the device
    waits          of the host for a number
    gflop          of convolutions and matrix products, as PyTorch counts them
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.steps import CLASSES, STEPS, Distillation
from ddray.plan.kinds import STAGE_KINDS, Load
from trainables.dry_run import distilling
from trainables.networks import parse

EACH = 5000


def load_of(distillation: Distillation) -> Load:
    """What the plan takes it to work on: the whole of CIFAR-10."""
    config = distillation.config
    return Load(
        method=config.method,
        settings=distillation.settings,
        ipc=config.ipc,
        network=parse("convnet3"),
        image_size=32,
        channels=3,
        num_classes=CLASSES,
        test_images=10_000,
        origin_images=EACH,
        train_images=config.ipc,
    )


def estimated_mib(distillation: Distillation) -> float:
    """What the plan takes it to hold."""
    held = STAGE_KINDS["distill"].memory(distillation.config, load_of(distillation))
    assert held is not None
    return held


def row(name: str) -> dict[str, Any]:
    """All figures of one configuration."""
    with tempfile.TemporaryDirectory() as folder:
        distillation = Distillation(STEPS[name], Path(folder))
        took = distilling(distillation.config, EACH, distillation.inputs)
    return {
        "name": name,
        "estimated_mib": round(estimated_mib(distillation)),
        "held_mib": round(took.held_mib),
        "operators": took.operators,
        "waits": took.waits,
        "gflop": round(took.gflop, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(STEPS)
    if unknown := sorted(set(wanted) - set(STEPS)):
        parser.error(f"--only: unknown {', '.join(unknown)}; known: {', '.join(STEPS)}")
    for name in wanted:
        found = row(name)
        print(
            json.dumps(found) if given.json else "  ".join(f"{key} {value}" for key, value in found.items()), flush=True
        )


if __name__ == "__main__":
    main()
