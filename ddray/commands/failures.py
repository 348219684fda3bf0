"""`ddray failures`: the stages that failed, by cause, with what helps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ddray.plan.keys import short
from ddray.run.causes import CAUSES, ERROR

SHOWN = 5
"""Stages that are named of one cause."""


def failures_text(facts: Mapping[str, Any]) -> str:
    """One paragraph per cause, with what helps and the command that tries it again."""
    if not facts["causes"]:
        return f"{facts['sweep']}: nothing failed"
    return "\n".join("\n".join(_lines(facts["sweep"], cause)) for cause in facts["causes"])


def _lines(sweep: str, entry: Mapping[str, Any]) -> Iterator[str]:
    cause = CAUSES.get(entry["kind"], CAUSES[ERROR])
    stages = entry["stages"]
    waiting = f", {entry['waiting']} more wait for them" if entry["waiting"] else ""
    yield f"{len(stages)} x {cause.title} ({entry['kind']}), {entry['points']} points incomplete{waiting}"
    yield f"    {entry['cause']}"
    for stage in stages[:SHOWN]:
        at = f", {datetime.fromtimestamp(stage['at']).astimezone():%Y-%m-%d %H:%M}" if stage["at"] else ""
        host = f" on {stage['host']}" if stage["host"] else ""
        yield f"    {short(stage['key'])}  {stage['label']}{at}{host}"
    if len(stages) > SHOWN:
        yield f"    and {len(stages) - SHOWN} more"
    advice = cause.advice.replace("KEY", short(stages[0]["key"])).replace("SWEEP", sweep)
    yield f"    what helps: {advice}"
