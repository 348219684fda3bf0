"""Plan + store -> ``measurements.parquet`` and ``coverage.json``.

Every planned point has rows, whatever a filter narrowed: its numbers, or one row per evaluation that says why there is
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ddray.atomic import replacing
from ddray.collector import no_cycle_search
from ddray.measurements.buffer import RowBuffer, Templates
from ddray.measurements.columns import COLUMNS, MEASUREMENTS
from ddray.measurements.coverage import Coverage, State, Tally
from ddray.measurements.derived.driver import derive
from ddray.measurements.derived.records import PointRecord, PointRecords
from ddray.measurements.identity import PROVENANCE, PointColumns, own_labels, provenance_values
from ddray.measurements.metrics import EVALUATIONS
from ddray.measurements.stage_reader import StageReader
from ddray.measurements.stage_rows import cost_rows
from ddray.plan.graph import Chain
from ddray.plan.jobs import Plan
from ddray.plan.points import Sweep
from ddray.results import MEASUREMENTS_FILE
from ddray.store.artifacts import Store
from trainables import files
from trainables.configs import AttackConfig

_NO_PROVENANCE = (None,) * len(PROVENANCE)
_BUFFER_ROWS = 1 << 17
"""Rows per buffer and row group: few enough to stay small in memory, enough to be quick."""
_REPEATING = [column.name for column in COLUMNS if column.name not in {"row_id", "value", "ci_low", "ci_high"}]
"""Columns worth a dictionary in the file."""


def collect(plan: Plan, sweep: Sweep, store: Store, folder: Path, data: Sequence[str] = ()) -> Coverage:
    """Write the tables of a sweep, each replaced atomically.

    Rows come in the order of the plan, and of a point's stages; after them, in the order of the plan too, what is
    derived from several points (``derived/``). Numbers of an evaluation are read from its artifact, whose files are
    checked against their digests; what is damaged is moved away with a warning and counts as pending.

    Args:
        plan: The whole sweep; ``selected`` is not looked at.
        sweep: Gives name and digest.
        store: What exists.
        folder: ``results/<sweep>``; created.
        data: What is wrong with the data sets, one sentence each.
    """
    reader, tally = StageReader(plan, store), Tally()
    with (
        no_cycle_search(),
        replacing(folder / MEASUREMENTS_FILE) as temporary,
        pq.ParquetWriter(temporary, MEASUREMENTS, compression="zstd", use_dictionary=_REPEATING) as writer,
    ):
        _write(plan, sweep, reader, tally, writer)
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
                "cause": reader.cause(key),
                "points": count,
            }
            for key, count in sorted(tally.failed.items())
        ],
        dict(tally.blocked.most_common()),
        list(data),
    )
    coverage.save(folder)
    return coverage


def _write(plan: Plan, sweep: Sweep, reader: StageReader, tally: Tally, writer: pq.ParquetWriter) -> None:
    points, records = PointColumns(), PointRecords()
    buffer = RowBuffer(sweep.name)

    def flush(least: int) -> None:
        nonlocal buffer
        if len(buffer) >= least:
            writer.write_table(buffer.table())
            buffer = RowBuffer(sweep.name)

    for chain in plan.chains:
        tally.add(chain.point.method, _add_point(buffer, chain, reader, points, records))
        flush(_BUFFER_ROWS)
    derive(records.points, reader.store)
    for record in records.points:
        _add_derived(buffer, record, reader.templates)
        flush(_BUFFER_ROWS)
    flush(0)


def _add_point(
    buffer: RowBuffer, chain: Chain, reader: StageReader, points: PointColumns, records: PointRecords
) -> dict[str, State]:
    """Append a point's rows; returns the state of its evaluations."""
    distilled, trained = reader.record(chain.stage("distill")), reader.record(chain.stage("train"))
    learned = reader.record(chain.stage("ensemble")) or trained  # what really trained the model, wherever it was copied
    values, param = points.values(chain, distilled, trained), points.param(chain)
    buffer.begin_point(chain.point.hash, values, param)
    point = records.begin(chain, values, param, trained)
    states: dict[str, State] = {}
    for stage in chain.stages:
        evaluates = stage.kind in EVALUATIONS
        rows = reader.rows(stage, chain) if evaluates else None
        record = reader.record(stage)
        if record is not None and (rows is not None or not evaluates):
            provenance = provenance_values(record, learned if learned is not None and evaluates else record)
            buffer.begin_stage(stage.kind, stage.key, provenance)
            if rows is not None:
                buffer.add(rows)
                records.add(point, stage, rows, provenance)
                states[stage.kind] = State("done")
            costs = cost_rows(stage, record)
            if isinstance(stage.config, AttackConfig):
                attacked = (files.ATTACK_TENSORS, files.ATTACK_INFO)
                point.keep(f"attack.{stage.config.attack}", stage.key, record, attacked)
            elif stage.kind == "privacy":
                point.keep(stage.kind, stage.key, record, (files.DETAILS,))
                costs += reader.audit_costs(stage, chain)
            elif stage.kind == "distill":
                costs += reader.described(stage, record)
            if costs:
                buffer.add(reader.templates.split(costs))
        elif evaluates:
            states[stage.kind], note = reader.why_missing(stage)
            buffer.begin_stage(stage.kind, stage.key, _NO_PROVENANCE, states[stage.kind].status, note)
            metric = EVALUATIONS[stage.kind]
            buffer.add(reader.templates.split([{"property": metric.property, "metric": metric.id}]))
    reader.leave(chain)
    return states


def _add_derived(buffer: RowBuffer, record: PointRecord, templates: Templates) -> None:
    """Append what was derived for a point: rows of the evaluations they are derived from."""
    if not record.derived:
        return
    buffer.begin_point(record.chain.point.hash, record.values, record.param)
    for kind, rows in record.derived.items():
        key, provenance = record.stages[kind]
        buffer.begin_stage(kind, key, provenance)
        buffer.add(templates.split(rows, own_labels(record.chain)))
    record.derived.clear()
