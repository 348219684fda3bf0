"""`ddray show` and `ddray debug`: looking at a stage, and running it by hand."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from ddray.errors import RequestError
from ddray.plan.keys import short
from ddray.settings import Places
from ddray.store.artifacts import DamagedArtifact, Store


def show_facts(places: Places, key: str) -> dict[str, Any]:
    """Everything known of a key: manifest, failure, claim, checkpoints.

    Raises:
        RequestError: No key begins so, or several do.
    """
    store = _store(places)
    full = _find(store, key)
    facts: dict[str, Any] = {"key": full, "failure": store.failure(full), "claim": store.claim(full).holder()}
    if store.has(full):
        facts["manifest"] = _manifest(store, full)
    return facts


def show_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"key {facts['key']}"]
    manifest, failure = facts.get("manifest"), facts["failure"]
    if manifest is not None:
        lines += [f"finished: {manifest['label']}", "", "inputs:"]
        lines += [f"  {role}: {short(key)}" for role, key in manifest["inputs"].items()] or ["  none"]
        lines += ["", "files:"]
        lines += [
            f"  {name}  {entry['bytes']} bytes  {entry['sha256'][:12]}" for name, entry in manifest["files"].items()
        ]
        lines += ["", "provenance:", *_indented(manifest["provenance"]), "", "configuration:"]
        lines += _indented(manifest["config"])
    if failure is not None:
        lines += [f"failed: {failure['label']}", f"cause: {failure['cause']}", "", failure["traceback"].rstrip(), ""]
        lines += [
            "configuration:",
            *_indented(failure["config"]),
            "",
            f"run it here: ddray debug {short(facts['key'])}",
        ]
    if facts["claim"] is not None:
        lines += ["", f"claimed by process {facts['claim']['pid']} on {facts['claim']['host']}"]
    return "\n".join(lines)


def debug_stage(places: Places, key: str, *, pdb: bool) -> int:
    """Run one stage in this process, from its recorded failure or its manifest.

    Returns:
        0 when it succeeds (its artifact is committed), 1 when it fails (the traceback is printed).
    """
    from ddray.run.board import Board
    from ddray.run.stage import Busy, Heartbeat, WorkerEnv, code_state, run_stage

    store = _store(places)
    full = _find(store, key)
    spec = _spec(store, full)
    if store.has(full):
        sys.stdout.write(f"{short(full)} is finished already: {spec['label']}\n")
        return 0
    env = WorkerEnv(store=places.store, data=str(places.data), cache=str(places.cache), code=code_state())
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
    if failure is not None and "config" in failure:
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
    known = store.keys() | store.failures()
    matches = sorted(key for key in known if key.startswith(beginning.lower()))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RequestError([f"{beginning}: no finished or failed stage has a key that begins so, in {store.location}"])
    some = ", ".join(short(key) for key in matches[:5])
    raise RequestError([f"{beginning}: {len(matches)} keys begin so ({some} …); give more characters"])


def _store(places: Places) -> Store:
    if "://" not in places.store and not Path(places.store).is_dir():
        raise RequestError([f"{places.store}: there is no store here yet. Set DDRAY_STORE, or run a sweep first."])
    return Store(places.store, places.cache / "artifacts")


def _indented(value: Any) -> list[str]:
    return ["  " + line for line in json.dumps(value, indent=1, sort_keys=True).splitlines()]
