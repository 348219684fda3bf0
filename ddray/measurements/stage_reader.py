"""What the store says of the stages of a plan, about every stage once, however many points share it."""

from __future__ import annotations

import logging
from collections import Counter

from ddray.measurements.buffer import EvaluationRows, Templates
from ddray.measurements.coverage import State
from ddray.measurements.identity import StageRecord, own_labels, teacher_of
from ddray.measurements.stage_rows import Row, audit_cost_rows, described_rows, is_described, map_rows
from ddray.plan.graph import Chain, Stage
from ddray.plan.jobs import Plan, blocked_stages
from ddray.plan.keys import short
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files

log = logging.getLogger(__name__)


class StageReader:
    """Reads the stages of a plan from a store; what is damaged counts as not done."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.stages = plan.stages
        self.templates = Templates()
        self.done = store.keys() & plan.stages.keys()
        self.failed = store.failures() & plan.stages.keys()
        self.blocked = blocked_stages(plan.stages, self.done)
        self._users = Counter(stage.key for chain in plan.chains for stage in chain.stages)
        """Points that are still to come, by stage."""
        self._records: dict[str, StageRecord | None] = {}
        self._rows: dict[str, EvaluationRows | None] = {}
        self._described: dict[str, list[Row]] = {}
        self._seconds: dict[str, float | None] = {}
        self._causes: dict[str, str] = {}

    def record(self, stage: Stage | None) -> StageRecord | None:
        """The record of a finished stage; None for others."""
        if stage is None or stage.key not in self.done:
            return None
        if stage.key not in self._records:
            try:
                self._records[stage.key] = StageRecord.of(self.store.manifest(stage.key))
            except (KeyError, DamagedArtifact) as error:
                self._lost(stage, error)
                self._records[stage.key] = None
        return self._records[stage.key]

    def rows(self, stage: Stage, chain: Chain) -> EvaluationRows | None:
        """The rows of a finished evaluation; None for others."""
        if stage.key not in self._rows:
            self._rows[stage.key] = self._read_rows(stage, chain) if stage.key in self.done else None
        return self._rows[stage.key]

    def _read_rows(self, stage: Stage, chain: Chain) -> EvaluationRows | None:
        name = files.MAP_INFO if stage.kind == "tsne" else files.METRICS
        try:
            artifact = self.store.open(stage.key)
            content = files.load_json(artifact.folder / name)
            rows = map_rows(content) if stage.kind == "tsne" else content
            self._records[stage.key] = StageRecord.of(artifact.manifest)
            return self.templates.split(rows, own_labels(chain))
        except (KeyError, DamagedArtifact) as error:
            self._lost(stage, error)
        except ValueError as error:
            self._lost(stage, self.store.discard(stage.key, f"{name}: {error}"))
        return None

    def described(self, stage: Stage, record: StageRecord) -> list[Row]:
        """How the making of a distilled set went, where its method tells."""
        if not is_described(stage):
            return []
        if stage.key not in self._described:
            try:
                path = self.store.file(stage.key, files.SET_INFO, record.files[files.SET_INFO])
                self._described[stage.key] = described_rows(files.load_json(path))
            except (KeyError, DamagedArtifact) as error:
                self._lost(stage, error)
                self._described[stage.key] = []
        return [dict(row) for row in self._described[stage.key]]

    def audit_costs(self, stage: Stage, chain: Chain) -> list[Row]:
        """What an audit needed beside the point's own set, teacher and model. Points that share it each say so; ``ddray
        plan`` counts it once."""
        own = {*(each.key for each in chain.stages), teacher_of(chain)}
        beside: dict[str, Stage] = {}
        stack = [key for _, key in stage.inputs]
        while stack:
            key = stack.pop()
            if key not in own and key not in beside:
                beside[key] = self.stages[key]
                stack += [needed for _, needed in beside[key].inputs]
        seconds = [self._seconds_of(each) for each in beside.values()]
        known = [each for each in seconds if each is not None]
        return audit_cost_rows(beside.values(), sum(known) if len(known) == len(seconds) else None)

    def _seconds_of(self, stage: Stage) -> float | None:
        """Of a finished stage that points may share and none holds; its manifest is read once and not kept."""
        if stage.key not in self._seconds:
            record = self.record(stage)
            if not self._users[stage.key]:
                self._records.pop(stage.key, None)
            self._seconds[stage.key] = record.provenance.get("seconds") if record is not None else None
        return self._seconds[stage.key]

    def leave(self, chain: Chain) -> None:
        """Forget what no later point needs."""
        for stage in chain.stages:
            self._users[stage.key] -= 1
            if not self._users[stage.key]:
                self._records.pop(stage.key, None)
                self._rows.pop(stage.key, None)

    def why_missing(self, stage: Stage) -> tuple[State, str | None]:
        """State and note of an evaluation without a result: what stands in its way, itself first."""
        if stage.key in self.blocked:
            reason = self.blocked[stage.key]
            return State("blocked", reason), reason
        stack = [stage.key]
        while stack:
            key = stack.pop()
            if key in self.failed:
                return State("failed", key), f"{self.stages[key].kind} {short(key)}: {self.cause(key)}"
            stack += [needed for _, needed in self.stages[key].inputs if needed not in self.done]
        return State("pending"), None

    def cause(self, key: str) -> str:
        """Why a stage failed."""
        if key not in self._causes:
            self._causes[key] = (self.store.failure(key) or {}).get("cause", "not recorded")
        return self._causes[key]

    def _lost(self, stage: Stage, error: Exception) -> None:
        reason = "removed while the tables were made" if isinstance(error, KeyError) else str(error)
        log.warning("%s: %s", stage.label, reason)
        self.done.discard(stage.key)
