"""What an audit of privacy needs beside a point's own set and model: membership rows, coins, blocks and starts.

Each is a path of stages like the main one: ``experts -> distill -> train``, with a teacher of its own where one labels
the images. Its seeds follow from the point's, so
points that differ in what a set does not depend on (network, recipe, training seed) share its sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ddray.plan.audits import MOST_ROWS, Audits, audits, audits_of_import
from ddray.plan.graph import SetStages, Stage
from ddray.plan.resolve import Part, Resolved, SetSpec
from ddray.plan.sets import Inputs, StageTable, label_of
from trainables.configs import PrivacyConfig, PrivacySettings, SignalsConfig
from trainables.methods import METHODS

SEEDS_OF_A_POINT = 1000
"""Seeds of rows and blocks begin there and leave that many to each seed of a point: rows and coin take the lower
``MOST_ROWS``, blocks the rest."""


def privacy(
    table: StageTable, resolved: Resolved, own_set: SetStages, train: Stage
) -> tuple[tuple[tuple[Stage, ...], ...], Stage]:
    """The stage ``privacy`` of a point, and the paths to its inputs.

    Args:
        table: Where they are added.
        resolved: With ``origin_per_class``, or imported.
        own_set: Of the point.
        train: Leaves the point's own model.
    """
    requested = resolved.requested("privacy", PrivacySettings)
    allowed = _allowed(resolved, requested)
    start = requested.start and resolved.set is not None and resolved.set.start is not None
    shadows = _Shadows(table, resolved, allowed.signals)
    if "seed" in allowed.audit:
        shadows.inputs.append(("seed.model", train.key))
        own = own_set.taught_by(table.teacher(resolved))
        shadows.inputs.extend((f"seed.{name}", key) for name, key in own)
        if start:
            shadows.add("seed.start", None, None, SignalsConfig(), start=True)
        for block in range(1, allowed.shadows + 1):
            shadows.add(f"shadow.{block}.model", Part("draw", block=block), MOST_ROWS + block, SignalsConfig())
    for row in range(allowed.rows):
        shadows.add_member(f"row.{row}", Part("pool", row=row, canaries=allowed.canaries), row, start)
    if "one_run" in allowed.audit:
        shadows.add_member("coin", Part("coin", row=0), 0, start=False)
    point = resolved.point
    config = PrivacyConfig(
        dataset=resolved.data.config,
        origin=resolved.origin,
        method=point.method,
        ipc=point.ipc,
        init=point.init,
        audit=allowed.audit,
        unfit=dict(allowed.unfit),
        rows=allowed.rows,
        targets=allowed.targets,
        shadows=allowed.shadows,
        attacks=allowed.attacks,
        canaries=allowed.canaries,
        signals=allowed.signals,
        start=start,
        teacher=resolved.labels,
    )
    stage = table.add("privacy", label_of("privacy", point), config, tuple(shadows.inputs), resolved.load)
    return tuple(shadows.paths), stage


def _allowed(resolved: Resolved, requested: PrivacySettings) -> Audits:
    """What the point's images allow of what is requested."""
    if resolved.imported is not None:
        return audits_of_import(requested, members_known=resolved.imported.members is not None)
    point = resolved.point
    assert point.origin_per_class is not None, "feasible.py refuses the rest"
    return audits(
        requested,
        point.origin_per_class,
        resolved.data.train_per_class,
        _real_images(resolved),
        len(resolved.origin.classes),
    )


def _real_images(resolved: Resolved) -> int:
    """Of each class, that the method starts from or chooses; 0: it takes what there is."""
    point = resolved.point
    if point.ipc is None or (point.init != "real" and "init" in METHODS[point.method].uses):
        return 0
    return resolved.load.settings.real_images(point.ipc)


@dataclass(slots=True)
class _Shadows:
    """Paths beside a point's own, as they are put together."""

    table: StageTable
    resolved: Resolved
    signals: SignalsConfig
    """What the models of pool and coin are asked about."""
    paths: list[tuple[Stage, ...]] = field(default_factory=list)
    inputs: list[tuple[str, str]] = field(default_factory=list)
    """Of the stage ``privacy``: (role, key)."""

    def add_member(self, role: str, part: Part, number: int, start: bool) -> None:
        """A set of other images and the model trained on it; with ``start`` also a model trained on the set's start."""
        made_of = self.add(f"{role}.model", part, number, self.signals)
        self.inputs.extend((f"{role}.{name}", key) for name, key in made_of)
        if start:
            self.add(f"{role}.start", part, number, self.signals, start=True)

    def add(
        self, role: str, part: Part | None, number: int | None, signals: SignalsConfig, start: bool = False
    ) -> Inputs:
        """A path to a model like the point's own, trained on its own and without a curve.

        Args:
            role: Of the model among the inputs of ``privacy``.
            part: Images that take the place of the point's own; None: those.
            number: Of the row or block, for the seeds; None: the point's own seeds.
            signals: What the model is asked about.
            start: Whether it is trained on the start of the set.

        Returns:
            What the model is trained on: keys by role.
        """
        resolved, point = self.resolved, self.resolved.point
        origin = resolved.part(part) if part is not None else resolved.origin
        words: tuple[str, ...] = (str(part),) if part is not None else ()
        set_stages = SetStages()
        if resolved.set is not None:
            spec: SetSpec | None = resolved.set.of(origin, _seed(point.distill_seed, number), *words)
            if start:
                spec = spec.start if spec is not None else None
            assert spec is not None, point.method
            set_stages, words = self.table.set_of(spec), spec.words
        seed = _seed(point.seed, number)
        assert seed is not None
        # Labels tell of the images that their teacher saw: those of this path, and no others.
        of_part = () if part is None else (str(part),)
        apart: dict[str, Any] = {} if part is None else {"origin": origin, "curve_points": 0}
        teacher = self.table.teacher(resolved, *of_part, number=number, **apart)
        config = resolved.training(seed, origin=origin, recipe=resolved.own_recipe, signals=signals, curve_points=0)
        label = label_of("train", point, *words, seed=seed)
        made_of = set_stages.taught_by(teacher)
        model = self.table.add("train", label, config, made_of, resolved.load)
        self.paths.append((*set_stages.stages, *teacher, model))
        self.inputs.append((role, model.key))
        return made_of


def _seed(own: int | None, number: int | None) -> int | None:
    """The seed of a row or block of a point; None: the point's own, or the method has none."""
    return own if own is None or number is None else SEEDS_OF_A_POINT * (own + 1) + number
