"""`ddray status`: what runs, what is done, how the last run ended and how to go on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ddray.errors import RequestError
from ddray.results import results_of
from ddray.run.progress import duration
from ddray.run.status import FILE
from ddray.settings import Folders
from ddray.store.artifacts import Store

STALE_SECONDS = 60.0
"""A running sweep writes its status every two seconds; after a crash another process may get the same number."""
WATCH_SECONDS = 2.0
QUEUED = 3
"""Jobs that wait are named up to here: there may be many, and nothing else is to be said of them."""


def status_facts(folders: Folders, name: str | None) -> list[dict[str, Any]]:
    """State of one sweep (by name or path), or of every sweep that was run here.

    Returns:
        For each: ``sweep``, ``results``, ``counts`` of points, and ``run``: the last one's ``status.json`` with its
        ``end`` (``died`` where it wrote none) and ``checkpoints``; ``running``: the same while it runs, else None.

    Raises:
        RequestError: The named sweep was never run.
    """
    if name is not None:
        name = Path(name).stem if name.endswith((".yaml", ".yml")) else name
        if not results_of(folders, name).folder.is_dir() and not (folders.runs / name).is_dir():
            raise RequestError([f"{name}: was never run with home {folders.home}. Run: ddray sweep FILE"])
        names = [name]
    else:
        names = sorted(
            {entry.name for folder in (folders.results, folders.runs) if folder.is_dir() for entry in folder.iterdir()}
        )
    return [_facts(folders, each) for each in names]


def status_text(facts: list[dict[str, Any]]) -> str:
    """One paragraph per sweep."""
    if not facts:
        return "no sweep was run here yet; start with: ddray sweep sweeps/quickstart.yaml"
    return "\n".join("\n".join(_lines(entry)) for entry in facts)


def watched(look: Callable[[], list[dict[str, Any]]], on: bool) -> Iterator[list[dict[str, Any]]]:
    """What is to be printed: once, or again and again while a sweep runs."""
    yield (facts := look())
    while on and any(entry["running"] for entry in facts):
        time.sleep(WATCH_SECONDS)
        yield (facts := look())


def _facts(folders: Folders, name: str) -> dict[str, Any]:
    results = results_of(folders, name)
    facts = {"sweep": name, "results": str(results.folder), "counts": results.state().get("counts")}
    runs = list(_runs(folders.runs / name))
    running = next((run for run in runs if run["end"] is None), None)
    run = running or next(iter(runs), None)
    if run is not None:
        run["checkpoints"] = _checkpoints(run, folders) if run["end"] not in ("done", "failed") else []
    return {**facts, "running": running, "run": run}


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    """What the runs of a sweep wrote of themselves, the last one first; ``end`` is None for one that runs."""
    for run in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []:
        try:
            status, written = json.loads((run / FILE).read_text()), (run / FILE).stat().st_mtime
            status["jobs"]["total"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # cut short, or of another program
        status["written_at"] = datetime.fromtimestamp(written).astimezone().isoformat(timespec="seconds")
        if status.get("pid") is None:
            status.setdefault("end", "ended")
        elif not _lives(status, time.time() - written):
            status["end"] = "died"
        else:
            status["end"] = None
        yield status


def _lives(status: dict[str, Any], age: float) -> bool:
    """Whether the process that wrote a status still does; of another host's the file alone tells."""
    if age > STALE_SECONDS:
        return False
    if status.get("host", socket.gethostname()) != socket.gethostname():
        return True
    try:
        os.kill(status["pid"], 0)  # asks only whether the process exists
    except PermissionError:
        return True
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    return True


def _checkpoints(run: dict[str, Any], folders: Folders) -> list[dict[str, Any]]:
    """Of the stages that were under way: label, iterations and folder of the furthest checkpoint that is there."""
    location = run.get("store", folders.store)
    under_way = [job for job in (*run.get("stopped", ()), *run.get("running", ())) if job.get("lineage")]
    if not under_way or ("://" not in location and not Path(location).is_dir()):
        return []
    store = Store(location, folders.cache / "artifacts")
    found = []
    for job in under_way:
        checkpoints, total = store.checkpoints(job["lineage"]), job.get("total") or job.get("budget")
        done = [iteration for iteration in checkpoints.done() if iteration <= (total or iteration)]
        if done:
            folder = f"{store.location}/{checkpoints.folder}"
            at = {"done": done[-1], "total": total, "unit": job.get("unit", "it"), "folder": folder}
            found.append({"label": job["label"], **at})
    return found


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    yield entry["sweep"]
    if counts := entry["counts"]:
        yield (
            f"  points: {counts['done']} of {counts['points']} done, {counts['failed']} failed, "
            f"{counts['blocked']} blocked"
        )
    if (run := entry["run"]) is not None:
        yield from _running(run) if run["end"] is None else _ended(run)
    yield f"  results: {entry['results']}"


def _running(run: dict[str, Any]) -> Iterator[str]:
    jobs = run["jobs"]
    left = f", about {duration(run['eta'])} left" if run.get("eta") is not None else ""
    since = f", started {_local(run['started_at'])}" if run.get("started_at") else ""
    host = run.get("host", socket.gethostname())
    where = f" on {host}" if host != socket.gethostname() else ""
    yield f"  running (process {run['pid']}{where}): {jobs['done']} of {jobs['total']} jobs{left}{since}"
    for job in run.get("running", ()):
        at = f" {job['done']}/{job['total']} {job.get('unit', '')}" if job.get("total") else ""
        yield f"    {job['label']}{at}, {duration(job['seconds'])}"
    queued = run.get("queued", [])
    for job in queued[:QUEUED]:
        yield f"    queued: {job['label']}, {duration(job['seconds'])}"
    if len(queued) > QUEUED:
        yield f"    and {len(queued) - QUEUED} more queued"


def _ended(run: dict[str, Any]) -> Iterator[str]:
    jobs = run["jobs"]
    when = f" {_local(run['ended_at'])}" if run.get("ended_at") else ""
    if run["end"] == "died":
        when = f" without an end; last heard of {_local(run['written_at'])} (process {run['pid']})"
    began = f", started {_local(run['started_at'])}" if run.get("started_at") else ""
    yield f"  last run: {run['end']}{when}{began}; {jobs['done']} of {jobs['total']} jobs done"
    if run.get("reason"):
        yield f"    {run['reason'].splitlines()[0]}"
    if run["checkpoints"]:
        yield "  checkpoints:"
        for each in run["checkpoints"]:
            of = f" of {each['total']}" if each["total"] else ""
            yield f"    {each['label']}: {each['done']}{of} {each['unit']}, in {each['folder']}"
    if run["end"] != "done" and run.get("command"):
        folder = run.get("cwd", str(Path.cwd()))
        yield f"  continue: {run['command']}" + (f"    (in {folder})" if folder != str(Path.cwd()) else "")


def _local(time_of_day: str) -> str:
    """``2026-01-31 17:05:09`` in the time of this place."""
    return datetime.fromisoformat(time_of_day).astimezone().strftime("%Y-%m-%d %H:%M:%S")
