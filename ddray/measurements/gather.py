"""Plan + store -> ``measurements.parquet`` and ``coverage.json``.

Every planned point has rows, whatever a filter narrowed: its numbers, or one row per evaluation that says why there is
none.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from ddray.collector import no_cycle_search
from ddray.errors import EnvironmentProblem
from ddray.measurements.columns import COLUMNS, MEASUREMENTS
from ddray.measurements.derived.notes import Noted, Notes, Row
from ddray.measurements.derived.rows import derive
from ddray.measurements.identity import (
    PROVENANCE,
    Facts,
    cost_rows,
    course_rows,
    param,
    point_values,
    provenance_values,
    training,
)
from ddray.measurements.piece import Numbers, Piece, Templates
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, blocked_stages
from ddray.plan.keys import short
from ddray.plan.points import Sweep
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files
from trainables.configs import AttackConfig

log = logging.getLogger(__name__)

MEASUREMENTS_FILE = "measurements.parquet"
COVERAGE_FILE = "coverage.json"
STATES = ("done", "failed", "blocked", "pending")
EVALUATIONS: dict[str, tuple[str, str]] = {
    "accuracy": ("performance", "test_acc"),
    "robustness": ("robustness", "adv_acc"),
    "privacy": ("privacy", "mia_auc"),
    "embedding": ("informativeness", "embed_outlier_rate"),
    "tsne": ("informativeness", "tsne_trustworthiness"),
}
"""Kind -> property and first metric, which stand on the row of an evaluation without a result."""

_NO_PROVENANCE = (None,) * len(PROVENANCE)
_PIECE_ROWS = 1 << 17
"""Rows per piece and row group: few enough to stay small in memory, enough to be quick."""
_REPEATING = [column.name for column in COLUMNS if column.name not in {"row_id", "value", "ci_low", "ci_high"}]
"""Columns worth a dictionary in the file."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the whole sweep is there. Counts: ``planned``, ``done``, ``failed``, ``blocked``, ``pending``.

    A point is done when all its evaluations are; failed when one failed; else pending when one is; else blocked. An
    evaluation is failed when it or a stage it builds on failed; blocked when this version cannot compute one of them.
    """

    sweep: str
    digest: str
    """The sweep's."""
    points: dict[str, int]
    evaluations: dict[str, dict[str, int]]
    """By evaluation kind, of the points that ask for it."""
    methods: dict[str, dict[str, int]]
    """By method, of points."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Failed stages: ``key``, ``kind``, ``label``, ``cause``, and ``points``: how many lack a result because of it."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why evaluations are blocked -> points."""

    @property
    def planned(self) -> int:
        return self.points["planned"]

    @property
    def done(self) -> int:
        return self.points["done"]

    @property
    def failed(self) -> int:
        return self.points["failed"]

    @property
    def blocked(self) -> int:
        return self.points["blocked"]

    @property
    def pending(self) -> int:
        return self.points["pending"]

    @property
    def complete(self) -> bool:
        """Whether every planned point is done."""
        return self.done == self.planned

    @classmethod
    def load(cls, folder: Path) -> Coverage:
        """Read ``coverage.json``.

        Raises:
            EnvironmentProblem: It is not there or not readable.
        """
        path = folder / COVERAGE_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise EnvironmentProblem(
                f"{path}: the coverage of the sweep cannot be read; got {error}. Run `ddray collect` to make it again."
            ) from error


def collect(plan: Plan, sweep: Sweep, store: Store, folder: Path) -> Coverage:
    """Write the tables of a sweep, each replaced atomically.

    Rows come in the order of the plan, and of a point's stages; after them, in the order of the plan too, what is
    derived from several points (``derived/``). Numbers of an evaluation are read from its artifact, whose files are
    checked against their digests; what is damaged is moved away with a warning and counts as pending.

    Args:
        plan: The whole sweep; ``selected`` is not looked at.
        sweep: Gives name and digest.
        store: What exists.
        folder: ``results/<sweep>``; created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lookup = _Lookup(plan, store)
    notes = Notes(lookup.memo)
    tally = _Tally()

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, MEASUREMENTS, compression="zstd", use_dictionary=_REPEATING) as writer:
            piece = Piece(sweep.name)

            def flush(at: int) -> None:
                nonlocal piece
                if len(piece) >= at:
                    writer.write_table(piece.table())
                    piece = Piece(sweep.name)

            for chain in plan.chains:
                tally.add(chain.point.method, _add(piece, chain, lookup, notes))
                flush(_PIECE_ROWS)
            derive(notes.points, store)
            for noted in notes.points:
                _add_derived(piece, noted, lookup.templates)
                flush(_PIECE_ROWS)
            flush(0)

    with no_cycle_search():
        _replace(folder / MEASUREMENTS_FILE, write)
    coverage = Coverage(
        sweep.name,
        sweep.digest,
        tally.points,
        tally.evaluations,
        tally.methods,
        [
            {
                "key": key,
                "kind": plan.stages[key].kind,
                "label": plan.stages[key].label,
                "cause": lookup.cause(key),
                "points": count,
            }
            for key, count in sorted(tally.failed.items())
        ],
        dict(tally.blocked.most_common()),
    )
    content = json.dumps(asdict(coverage), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    _replace(folder / COVERAGE_FILE, lambda temporary: temporary.write_text(content, encoding="utf-8"))
    return coverage


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class _State(NamedTuple):
    """What became of one evaluation of a point."""

    status: str
    cause: str = ""
    """Key of the failed stage, or why it is blocked."""


def _add(piece: Piece, chain: Chain, lookup: _Lookup, notes: Notes) -> dict[str, _State]:
    """Append a point's rows; returns the state of its evaluations."""
    made, trained = lookup.facts(chain.stage("distill")), lookup.facts(chain.stage("train"))
    learned = lookup.facts(chain.stage("ensemble")) or trained  # what really trained the model, wherever it was copied
    values, said = point_values(chain, made, trained, lookup.memo), param(chain, lookup.memo)
    piece.begin_point(chain.point.hash, values, said)
    noted = notes.begin(chain, values, said, trained)
    states: dict[str, _State] = {}
    for stage in chain.stages:
        evaluates = stage.kind in EVALUATIONS
        numbers = lookup.numbers(stage, chain) if evaluates else None
        facts = lookup.facts(stage)
        if facts is not None and (numbers is not None or not evaluates):
            of_training = learned if learned is not None and evaluates else facts
            provenance = provenance_values(facts, of_training)
            piece.begin_stage(stage.kind, stage.key, provenance)
            if numbers is not None:
                piece.add(numbers)
                notes.add(noted, stage, numbers, provenance)
                states[stage.kind] = _State("done")
                if stage.kind == "privacy":
                    noted.keep(stage.kind, stage.key, facts, (files.DETAILS,))
            elif isinstance(stage.config, AttackConfig):
                noted.keep(f"attack.{stage.config.attack}", stage.key, facts, (files.ATTACK_TENSORS, files.ATTACK_INFO))
            costs = cost_rows(stage, facts)
            if stage.kind == "privacy":
                costs += lookup.beside(stage, chain)
            if stage.kind == "distill":
                costs += lookup.course(stage, facts)
            if costs:
                piece.add(lookup.templates.split(costs))
        elif evaluates:
            states[stage.kind], note = lookup.why(stage)
            piece.begin_stage(stage.kind, stage.key, _NO_PROVENANCE, states[stage.kind].status, note)
            prop, metric = EVALUATIONS[stage.kind]
            piece.add(lookup.templates.split([{"property": prop, "metric": metric}]))
    lookup.leave(chain)
    return states


def _add_derived(piece: Piece, noted: Noted, templates: Templates) -> None:
    """Append what was derived for a point: rows of the evaluations they are derived from."""
    if not noted.derived:
        return
    piece.begin_point(noted.chain.point.hash, noted.values, noted.param)
    for kind, rows in noted.derived.items():
        key, provenance = noted.stages[kind]
        piece.begin_stage(kind, key, provenance)
        piece.add(templates.split(rows, _own_labels(noted.chain)))
    noted.derived.clear()


class _Lookup:
    """Asks the store, about every stage once, however many points share it."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.stages = plan.stages
        self.templates = Templates()
        self.done = store.keys() & plan.stages.keys()
        self.failed = store.failures() & plan.stages.keys()
        self.blocked = blocked_stages(plan.stages, self.done)
        self._users = Counter(stage.key for chain in plan.chains for stage in chain.stages)
        self._facts: dict[str, Facts | None] = {}
        self._numbers: dict[str, Numbers | None] = {}
        self._memo: dict[object, Any] = {}

    def facts(self, stage: Stage | None) -> Facts | None:
        """The facts of a finished stage; None for others."""
        if stage is None or stage.key not in self.done:
            return None
        if stage.key not in self._facts:
            try:
                self._facts[stage.key] = Facts.of(self.store.manifest(stage.key))
            except (KeyError, DamagedArtifact) as error:
                self._lost(stage, error)
                self._facts[stage.key] = None
        return self._facts[stage.key]

    def numbers(self, stage: Stage, chain: Chain) -> Numbers | None:
        """The metrics of a finished evaluation; None for others."""
        if stage.key in self._numbers:
            return self._numbers[stage.key]
        numbers = None
        if stage.key in self.done:
            try:
                artifact = self.store.open(stage.key)
                name = files.MAP_INFO if stage.kind == "tsne" else files.METRICS
                rows = files.load_json(artifact.folder / name)
                if stage.kind == "tsne":
                    rows = _of_map(rows)
                numbers = self.templates.split(rows, _own_labels(chain))
                self._facts[stage.key] = Facts.of(artifact.manifest)
            except (KeyError, DamagedArtifact) as error:
                self._lost(stage, error)
            except (OSError, ValueError) as error:
                self._lost(stage, self.store.discard(stage.key, f"{name}: {error}"))
        self._numbers[stage.key] = numbers
        return numbers

    def course(self, stage: Stage, facts: Facts) -> list[Row]:
        """How the making of a set went, where its method tells."""

        def read() -> Mapping[str, Any]:
            try:
                path = self.store.file(stage.key, files.SET_INFO, facts.files[files.SET_INFO])
                found: Mapping[str, Any] = files.load_json(path)
            except (KeyError, DamagedArtifact) as error:
                self._lost(stage, error)
                return {}
            return found

        rows: list[Row] = self.memo(("course", stage.key), lambda: course_rows(stage, read))
        return [dict(row) for row in rows]

    def beside(self, stage: Stage, chain: Chain) -> list[Row]:
        """What an audit needed beside the point's own set and model: how many distillations and trainings, and the
        seconds of all. Points that share them each say so; ``ddray plan`` counts them once."""
        own = {each.key for each in chain.stages}
        found: dict[str, Stage] = {}
        stack = [key for _, key in stage.inputs]
        while stack:
            key = stack.pop()
            if key not in own and key not in found:
                found[key] = self.stages[key]
                stack += [needed for _, needed in found[key].inputs]
        kinds = Counter(each.kind for each in found.values())
        seconds = [self._seconds(each) for each in found.values()]
        total = None if None in seconds else sum(value for value in seconds if value is not None)
        return [
            {"property": "cost", "metric": metric, "value": value, "unit": unit, "n": len(found), "agg": "single"}
            for metric, value, unit in (
                ("privacy_distillations", float(kinds["distill"]), "stages"),
                ("privacy_trainings", float(kinds["train"]), "stages"),
                ("privacy_beside_s", total, "s"),
            )
            if value is not None
        ]

    def _seconds(self, stage: Stage) -> float | None:
        """Of a finished stage that points may share and none holds; its manifest is read once and not kept."""

        def read() -> float | None:
            facts = self.facts(stage)
            if not self._users[stage.key]:
                self._facts.pop(stage.key, None)
            seconds: float | None = facts.provenance.get("seconds") if facts is not None else None
            return seconds

        found: float | None = self.memo(("seconds", stage.key), read)
        return found

    def leave(self, chain: Chain) -> None:
        """Forget what no later point needs."""
        for stage in chain.stages:
            self._users[stage.key] -= 1
            if not self._users[stage.key]:
                self._facts.pop(stage.key, None)
                self._numbers.pop(stage.key, None)

    def why(self, stage: Stage) -> tuple[_State, str | None]:
        """State and note of an evaluation without a result: what stands in its way, itself first."""
        if stage.key in self.blocked:
            reason = self.blocked[stage.key]
            return _State("blocked", reason), reason
        stack = [stage.key]
        while stack:
            key = stack.pop()
            if key in self.failed:
                return _State("failed", key), f"{self.stages[key].kind} {short(key)}: {self.cause(key)}"
            stack += [needed for _, needed in self.stages[key].inputs if needed not in self.done]
        return _State("pending"), None

    def cause(self, key: str) -> str:
        """Why a stage failed."""
        cause: str = self.memo(("cause", key), lambda: (self.store.failure(key) or {}).get("cause", "not recorded"))
        return cause

    def memo(self, key: object, make: Callable[[], Any]) -> Any:
        """What ``make`` returned the first time it was called for this key."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def _lost(self, stage: Stage, error: Exception) -> None:
        reason = "removed while the tables were made" if isinstance(error, KeyError) else str(error)
        log.warning("%s: %s", stage.label, reason)
        self.done.discard(stage.key)


def _of_map(facts: Mapping[str, Any]) -> list[Row]:
    """A map's numbers, from its facts."""
    common = {"property": "informativeness", "n": sum(facts.get("points", ())), "perplexity": facts["perplexity"]}
    return [
        {
            **common,
            "metric": f"tsne_{name}",
            "value": facts.get(name),
            "unit": unit,
            "agg": "pooled",
            "flag": "degenerate" if facts.get(name) is None else None,
        }
        for name, unit in (("trustworthiness", "ratio"), ("kl_divergence", "nat"))
    ]


def _own_labels(chain: Chain) -> tuple[int, ...] | None:
    """The data set's labels of the class positions, where they differ."""
    classes = training(chain).origin.classes
    return None if classes[-1] == len(classes) - 1 else classes  # ascending without repeats


class _Tally:
    """Counts of coverage."""

    def __init__(self) -> None:
        self.points = _counts()
        self.evaluations: dict[str, dict[str, int]] = {}
        self.methods: dict[str, dict[str, int]] = {}
        self.failed: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()

    def add(self, method: str, states: Mapping[str, _State]) -> None:
        found = {state.status for state in states.values()}
        overall = next(status for status in ("failed", "pending", "blocked", "done") if status in found)
        _count((self.points, self.methods.setdefault(method, _counts())), overall)
        for kind, state in states.items():
            _count((self.evaluations.setdefault(kind, _counts()),), state.status)
        self.failed.update({state.cause for state in states.values() if state.status == "failed"})
        self.blocked.update({state.cause for state in states.values() if state.status == "blocked"})


def _counts() -> dict[str, int]:
    return dict.fromkeys(("planned", *STATES), 0)


def _count(tables: Iterable[dict[str, int]], status: str) -> None:
    for counts in tables:
        counts["planned"] += 1
        counts[status] += 1
