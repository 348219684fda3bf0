"""`ddray show` and `ddray debug`: looking at a stage, and running it by hand."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddray.commands import names
from ddray.errors import RequestError
from ddray.plan.keys import short
from ddray.settings import Folders
from ddray.store.artifacts import DamagedArtifact, Store
from trainables import files

INFOS = (files.METRICS, files.MAP_INFO, files.MODEL_INFO, files.SET_INFO, files.EXPERT_INFO, files.ATTACK_INFO)
"""Files of payloads that hold numbers; those of an ensemble's members have names that end so."""
NUMBERS = 30
"""Numbers that are printed of one stage."""
TELLING = ("audit", "attack", "norm", "epsilon", "fpr", "target_row", "class_id", "split")
"""Columns that tell numbers of one metric apart."""


def show_facts(folders: Folders, name: str) -> dict[str, Any]:
    """Everything known of a stage: manifest, numbers, failure, claim; or of a point: its stages with their numbers.

    Args:
        folders: Where the store and the sweeps that were run are.
        name: The beginning of a key, or as of ``names.find``.

    Raises:
        RequestError: Nothing is called so, or several things are.
    """
    store = _store(folders)
    key = _key(store, name)
    if key is None:
        found = names.find(folders, name)
        if isinstance(found, names.Point):
            return _point_facts(store, found)
        key = found.key
    return _stage_facts(store, key, name)


def _stage_facts(store: Store, key: str, label: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"key": key, "label": label, "failure": store.failure(key)}
    facts["claim"] = store.claim(key).holder()
    if store.has(key):
        facts["manifest"] = manifest = _manifest(store, key)
        facts["numbers"] = _numbers(store, key, manifest["files"])
    return facts


def _point_facts(store: Store, found: names.Point) -> dict[str, Any]:
    stages = []
    for stage in found.chain.stages:
        facts = _stage_facts(store, stage.key, stage.label)
        state = "done" if "manifest" in facts else "failed" if facts["failure"] is not None else "not computed"
        told = {"cause": facts["failure"]["cause"]} if state == "failed" else {"numbers": facts.get("numbers", [])}
        stages.append({"kind": stage.kind, "key": stage.key, "label": stage.label, "state": state, **told})
    return {"point": found.hash, "name": found.name, "sweep": found.sweep, "stages": stages}


def _numbers(store: Store, key: str, entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a finished stage measured: rows as of ``measurements.parquet``, or numbers about what it made."""
    rows: list[dict[str, Any]] = []
    for name, entry in entries.items():
        if name.endswith(INFOS):
            try:
                content = files.load_json(store.file(key, name, entry))
            except (DamagedArtifact, KeyError, ValueError) as damage:
                raise RequestError([f"{damage}: run its sweep"]) from damage
            if isinstance(content, list):
                rows += content
            else:
                facts = content.get("facts", content)
                rows += [
                    {"metric": fact, "value": value} for fact, value in facts.items() if type(value) in (int, float)
                ]
    return sorted(rows, key=lambda row: row.get("class_id") is not None)


def show_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    if "point" in facts:
        return "\n".join(_point_lines(facts))
    lines = [f"key {facts['key']}"]
    manifest, failure = facts.get("manifest"), facts["failure"]
    if manifest is None and failure is None:
        lines.append(f"not computed yet: {facts['label']}")
    if manifest is not None:
        lines.append(f"finished: {manifest['label']}")
        if facts["numbers"]:
            lines += ["", "numbers:", *_number_lines(facts["numbers"])]
        lines += ["", "inputs:"]
        lines += [f"  {role}: {short(key)}" for role, key in manifest["inputs"].items()] or ["  none"]
        lines += ["", "files:"]
        lines += [
            f"  {name}  {entry['bytes']} bytes  {entry['sha256'][:12]}" for name, entry in manifest["files"].items()
        ]
        lines += ["", "provenance:", *_indented(manifest["provenance"]), "", "configuration:"]
        lines += _indented(manifest["config"])
    if failure is not None:
        lines += [f"failed: {failure['label']}", f"cause: {failure['cause']}", "", failure["traceback"].rstrip(), ""]
        if "config" in failure:
            lines += ["configuration:", *_indented(failure["config"]), ""]
        lines += [
            f"run it here: ddray debug {short(facts['key'])}",
        ]
    if facts["claim"] is not None:
        lines += ["", f"claimed by process {facts['claim'].get('pid')} on {facts['claim'].get('host')}"]
    return "\n".join(lines)


def _point_lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"point {short(facts['point'])}  {facts['name']}  of sweep {facts['sweep']}"
    for stage in facts["stages"]:
        yield f"  {short(stage['key'])}  {stage['state']:<12}  {stage['label']}"
        if stage["state"] == "failed":
            yield f"      {stage['cause']}"
    for stage in facts["stages"]:
        if numbers := stage.get("numbers"):
            yield from ("", f"{stage['kind']}:", *_number_lines(numbers))


def _number_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per number: which, value, interval, how many it is about."""
    lines = []
    for row in rows[:NUMBERS]:
        which = [f"{name}={row[name]}" for name in TELLING if row.get(name) is not None]
        value = f"{row['value']:.6g}" if row["value"] is not None else "none"
        unit = f" {row['unit']}" if row.get("unit") else ""
        notes = [f"n={row['n']}"] if row.get("n") is not None else []
        if row.get("ci_low") is not None and row.get("ci_high") is not None:
            notes.insert(0, f"{row['ci_low']:.4g} to {row['ci_high']:.4g}")
        notes += [row["flag"]] if row.get("flag") else []
        lines.append(
            f"  {' '.join([row['metric'], *which])}  {value}{unit}" + (f"  ({', '.join(notes)})" if notes else "")
        )
    if len(rows) > NUMBERS:
        lines.append(f"  and {len(rows) - NUMBERS} more; --json has all")
    return lines


def debug_stage(folders: Folders, key: str, *, pdb: bool) -> int:
    """Run one stage in this process, from its recorded failure or its manifest.

    Returns:
        0 when it succeeds (its artifact is committed), 1 when it fails (the traceback is printed).
    """
    from ddray.run.board import Board
    from ddray.run.stage import Busy, Heartbeat, WorkerEnv, code_state, run_stage

    store = _store(folders)
    full = _find(store, key)
    spec = _spec(store, full)
    if store.has(full):
        sys.stdout.write(f"{short(full)} is finished already: {spec['label']}\n")
        return 0
    env = WorkerEnv(store=folders.store, data=str(folders.data), cache=str(folders.cache), code=code_state())
    sys.stderr.write(f"running {spec['label']} ({short(full)}) here\n")
    try:
        with Heartbeat("debug", Board().tick) as heartbeat:
            run_stage(spec, store, env, heartbeat, cpus=spec["cpus"], share=spec["gpu"])
    except Busy:
        holder = store.claim(full).holder() or {}
        sys.stderr.write(f"process {holder.get('pid')} on {holder.get('host')} is computing it; try again later\n")
        return 1
    except Exception:
        traceback.print_exc()
        if pdb:
            import pdb as debugger

            debugger.post_mortem()
        return 1
    sys.stdout.write(f"{short(full)} succeeded; run the sweep again to go on\n")
    return 0


def _spec(store: Store, key: str) -> dict[str, Any]:
    failure = store.failure(key)
    if failure is not None and failure.keys() >= {"config", "kind", "inputs"}:
        base = failure
    elif store.has(key):
        base = _manifest(store, key)
    else:
        raise RequestError([f"{short(key)}: nothing was recorded that says how to run it. Run its sweep."])
    return {
        "key": key,
        "lineage": base.get("lineage", key),
        "budget": base.get("budget"),
        "kind": base["kind"],
        "version": base.get("version", 1),
        "label": base["label"],
        "config": base["config"],
        "inputs": base["inputs"],
        "cpus": float(base.get("cpus", 1)),
        "gpu": float(base.get("gpu", 1)),
    }


def _manifest(store: Store, key: str) -> dict[str, Any]:
    try:
        manifest = store.manifest(key)
    except DamagedArtifact as damage:
        raise RequestError([f"{damage}: run its sweep"]) from damage
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}


def _find(store: Store, beginning: str) -> str:
    key = _key(store, beginning)
    if key is None:
        raise RequestError([f"{beginning}: no finished or failed stage has a key that begins so, in {store.location}"])
    return key


def _key(store: Store, beginning: str) -> str | None:
    """The key of a finished or failed stage that begins so, or None."""
    known = store.keys() | store.failures()
    matches = sorted(key for key in known if key.startswith(beginning.lower()))
    if len(matches) > 1:
        some = ", ".join(short(key) for key in matches[:5])
        raise RequestError([f"{beginning}: {len(matches)} keys begin so ({some} …); give more characters"])
    return matches[0] if matches else None


def _store(folders: Folders) -> Store:
    if "://" not in folders.store and not Path(folders.store).is_dir():
        raise RequestError([f"{folders.store}: there is no store here yet. Set DDRAY_STORE, or run a sweep first."])
    return Store(folders.store, folders.cache / "artifacts")


def _indented(value: Any) -> list[str]:
    return ["  " + line for line in json.dumps(value, indent=1, sort_keys=True).splitlines()]
