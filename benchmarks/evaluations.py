"""Seconds of each evaluation stage on digits: 500 test images, ConvNet3 of two blocks as in the quickstart.

    python -m benchmarks.evaluations [--only accuracy,fgsm] [--threads 1] [--json]

A stage runs as a worker runs it, from the folders of its inputs, with the settings a sweep has by default, save where
digits have too few images. What it builds on is made first and not timed: a network trained on all digits for two
epochs; the attacks that ``robustness`` sums up; for ``privacy`` six rows of a matrix, each ten random images of a class
and a training of forty steps; for ``embedding`` and ``tsne`` ten random images of a class. Left out: ``cw_l2``, which
takes minutes, and what needs the extra ``strong``.

Everything takes about two minutes on one core: 500 images and not the 1000 of a sweep, digits of 8 x 8 pixels,
trainings of seconds, each input made once. Two thirds of it are PGD with its restarts;
``--only privacy,embedding,tsne`` takes half a minute.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.steps import Clock
from trainables import device, stages
from trainables.attacks import ROBUSTNESS_ATTACKS, attack_settings, epsilons_for
from trainables.configs import (
    AccuracyConfig,
    AttackConfig,
    DatasetConfig,
    DistillConfig,
    EmbeddingConfig,
    Kind,
    NetworkConfig,
    OriginConfig,
    PrivacyConfig,
    PrivacySettings,
    RecipeConfig,
    RobustnessConfig,
    SignalsConfig,
    StageConfig,
    TrainConfig,
    TsneConfig,
)
from trainables.data.known import KNOWN
from trainables.networks import parse

IMAGES = 500
ROWS, TARGETS, PER_CLASS = 6, 3, 40
"""Of the membership matrix: 80 images of each class are candidates."""
IPC = 10
REAL_PER_CLASS = 100
CLASSES = tuple(range(10))
ATTACKS = tuple(name for name, spec in ROBUSTNESS_ATTACKS.items() if spec.extra is None and name != "cw_l2")


class Bench:
    """Finished stages in a folder, made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = Clock()
        self._context.data = self._context.cache = folder
        known = KNOWN["digits"]
        assert known.digest is not None
        self.dataset = DatasetConfig(
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

    def stage(self, name: str, kind: Kind, config: StageConfig, inputs: Mapping[str, Path]) -> float:
        """Run one and keep what it made as ``name``; seconds, saving included."""
        started = time.perf_counter()
        payload = stages.run(kind, config, inputs, self._context)
        target = self._folder / name
        target.mkdir(exist_ok=True)
        payload.save(target)
        return time.perf_counter() - started

    def made(self, name: str, make: Callable[[], float]) -> Path:
        """The folder of a stage's payload."""
        if not (self._folder / name).exists():
            make()
        return self._folder / name

    def trained(self, name: str, origin: OriginConfig, inputs: Mapping[str, Path], **other: Any) -> Path:
        """A network trained on the input ``set``, or on the origin where there is none."""
        length = other.pop("length", {"epochs": 2})
        recipe = RecipeConfig(
            lr=0.01,
            momentum=0.9,
            weight_decay=5e-4,
            milestones=(0.5,),
            gamma=0.1,
            batch=64,
            augmentation="none",
            **length,
        )
        network = NetworkConfig.of(parse("convnet3-d2"), image_size=8, channels=1, num_classes=10)
        config = TrainConfig(
            dataset=self.dataset,
            origin=origin,
            on_origin=not inputs,
            network=network,
            recipe=recipe,
            curve_points=0,
            **{"seed": 0, **other},
        )
        return self.made(name, lambda: self.stage(name, "train", config, inputs))

    def model(self) -> Path:
        """A network trained on all digits."""
        return self.trained("model", OriginConfig(classes=CLASSES), {})

    def random(self, name: str, origin: OriginConfig) -> Path:
        """Ten images of each class of an origin."""
        config = DistillConfig(
            method="random",
            method_version=1,
            dataset=self.dataset,
            origin=origin,
            ipc=IPC,
            init=None,
            augmentation=None,
            network=None,
            settings={},
            distill_seed=0,
        )
        return self.made(name, lambda: self.stage(name, "distill", config, {}))


def accuracy(bench: Bench) -> float:
    inputs = {"model": bench.model()}
    return bench.stage("accuracy", "accuracy", AccuracyConfig(num_classes=10), inputs)


def attack(bench: Bench, name: str) -> float:
    config = AttackConfig(
        attack=name,
        dataset=bench.dataset,
        classes=CLASSES,
        images=IMAGES,
        epsilons=epsilons_for(name),
        settings=attack_settings(name),
    )  # type: ignore[arg-type]
    inputs = {"model": bench.model()}
    return bench.stage(name, "attack", config, inputs)


def robustness(bench: Bench) -> float:
    inputs = {f"attack.{name}": bench.made(name, lambda name=name: attack(bench, name)) for name in ATTACKS}  # type: ignore[misc]
    return bench.stage("robustness", "robustness", RobustnessConfig(num_classes=10, attacks=ATTACKS), inputs)  # type: ignore[arg-type]


def privacy(bench: Bench) -> float:
    """The audit ``pool`` with all attacks; the settings of a sweep, but fewer rows and images."""
    signals, inputs = SignalsConfig(population=20, reserve=20), {}
    own = OriginConfig(kind="draw", per_class=PER_CLASS, draw=0, classes=CLASSES)
    for row in range(ROWS):
        origin = OriginConfig(kind="pool", per_class=PER_CLASS, draw=0, row=row, classes=CLASSES)
        role = f"row.{row}"
        inputs[f"{role}.set"] = bench.random(f"{role}.set", origin)
        inputs[f"{role}.model"] = bench.trained(
            f"{role}.model", origin, {"set": inputs[f"{role}.set"]}, length={"steps": 40}, seed=row, signals=signals
        )
    asked = PrivacySettings()
    config = PrivacyConfig(
        dataset=bench.dataset,
        origin=own,
        method="random",
        ipc=IPC,
        init=None,
        audit=("pool",),
        rows=ROWS,
        targets=TARGETS,
        shadows=0,
        attacks=asked.attacks,
        canaries=asked.canaries,
        signals=signals,
        start=asked.start,
    )
    return bench.stage("privacy", "privacy", config, inputs)


def embedding(bench: Bench) -> float:
    config = EmbeddingConfig(dataset=bench.dataset, classes=CLASSES, real_per_class=REAL_PER_CLASS, neighbours=10)
    inputs = {"encoder": bench.model(), "set": bench.random("set", OriginConfig(classes=CLASSES))}
    return bench.stage("embedding", "embedding", config, inputs)


def tsne(bench: Bench) -> float:
    config = TsneConfig(
        dataset=bench.dataset, classes=CLASSES, real_per_class=REAL_PER_CLASS, sources=("random",), perplexity=50.0
    )
    inputs = {"encoder": bench.model(), "embedding.0": bench.made("embedding", lambda: embedding(bench))}
    return bench.stage("tsne", "tsne", config, inputs)


EVALUATIONS: dict[str, Callable[[Bench], float]] = {
    "accuracy": accuracy,
    **{name: (lambda bench, name=name: attack(bench, name)) for name in ATTACKS},  # type: ignore[misc]
    "robustness": robustness,
    "privacy": privacy,
    "embedding": embedding,
    "tsne": tsne,
}
"""Name -> seconds of its stage. A new evaluation is one more entry."""


def measure(names: list[str], threads: int) -> list[dict[str, Any]]:
    """One entry per evaluation."""
    device.prepare("cpu", threads)
    # Imported beforehand: seconds that a worker spends once.
    import foolbox  # noqa: F401

    import trainables.evaluate.embedding
    import trainables.evaluate.privacy.audit  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as folder:
        bench = Bench(Path(folder))
        bench.model()
        return [{"name": name, "seconds": round(EVALUATIONS[name](bench), 3)} for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(EVALUATIONS)
    if unknown := sorted(set(wanted) - set(EVALUATIONS)):
        parser.error(f"--only: unknown {', '.join(unknown)}; known: {', '.join(EVALUATIONS)}")
    results = measure(wanted, given.threads)
    if given.json:
        print(json.dumps({"name": "evaluations", "images": IMAGES, "threads": given.threads, "results": results}))
        return
    for result in results:
        print(f"{result['name']:16} {result['seconds']} s")


if __name__ == "__main__":
    main()
