"""`ddray preset`: what a sweep gets that sets nothing, value by value with its source. Light."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddray.errors import RequestError, show, suggest
from ddray.plan.annotations import at_ipc
from ddray.plan.sources import Reader
from ddray.plan.yaml import plain
from trainables.configs import PRESET, canonical_json
from trainables.data.known import KNOWN
from trainables.methods import METHODS, Method
from trainables.presets import PRESETS, Chosen, alternatives, candidates, choose, constants
from trainables.published import CHEN2023, SAID_BY

Facts = dict[str, Any]


def methods_facts(method: str | None = None) -> Facts:
    """Every method, or one, with the combinations it has published values for: data set -> ipcs, empty for any.

    Raises:
        RequestError: There is no such method.
    """
    chosen = METHODS.values() if method is None else [_method(method)]
    return {
        "methods": [
            {
                "method": entry.name,
                "title": entry.title,
                "settings": list(entry.settings.model_fields),
                "published": _published(entry.name),
            }
            for entry in chosen
        ]
    }


def methods_text(facts: Facts) -> str:
    """One line per method; below it the data sets that rows name, with their ipcs."""
    width = max(len(entry["method"]) for entry in facts["methods"])
    lines = []
    for entry in facts["methods"]:
        count = len(entry["settings"])
        said = f"{count} settings" if count else "nothing to set"
        lines.append(f"{entry['method']:<{width}}  {entry['title']}: {said}")
        for dataset, ipcs in entry["published"].items():
            at = f"ipc {', '.join(map(str, ipcs))}" if ipcs else "any ipc"
            lines.append(f"{'':<{width}}    published for {dataset}: {at}")
    return "\n".join([*lines, "", "ddray preset METHOD DATASET [IPC] shows the values with their sources."])


def preset_facts(method: str, dataset: str, ipc: int | None, sets: Sequence[str] = ()) -> Facts:
    """The value of every setting for a combination.

    Args:
        method: A method's name.
        dataset: A known data set's name.
        ipc: Images per class; None shows every ipc that something is published for.
        sets: ``SETTING=VALUE`` each, as a sweep would set it; other values may depend on it.

    Returns:
        ``settings``: those with a preset or set here, each with ``setting``, ``value``, ``kind`` (``published``,
        ``nearest``, ``ours``, ``set``), ``source``, ``note``, ``agrees`` (who states it for the combination) and
        ``ipcs`` (null: the same for all); ``defaults``: the other settings, with the model's default; ``constants``:
        whose mean and deviation the method's program normalises with, where they are not the data set's own, else
        null; ``alternatives``: presets that a sweep may name.

    Raises:
        RequestError: An unknown method, data set or setting, or a value that the setting does not take.
    """
    declared = _method(method)
    if dataset not in KNOWN:
        raise RequestError(
            f"preset: unknown data set {show(dataset)}; known: {', '.join(KNOWN)}. {suggest(dataset, KNOWN)}".rstrip()
            + " A declared folder has the presets of the data set it is like."
        )
    given = _given(declared, sets)
    ipcs = [ipc] if ipc is not None else _ipcs(declared, dataset, given)
    by_setting: dict[str, dict[str, Facts]] = {}
    for at in ipcs:
        set_here = at_ipc(given, at)
        for entry in _chosen(method, dataset, at, set_here):
            if entry.setting not in set_here:
                facts = _entry(entry)
                by_setting.setdefault(entry.setting, {}).setdefault(canonical_json(facts), {**facts, "ipcs": []})
                by_setting[entry.setting][canonical_json(facts)]["ipcs"].append(at)
    settings: list[Facts] = []
    for entries in by_setting.values():
        for facts in entries.values():
            shared = len(facts["ipcs"]) == len(ipcs)
            settings.append({**facts, "ipcs": None if shared else facts["ipcs"]})
    fields = declared.settings.model_fields
    settings += [
        {"setting": name, "value": value, "kind": "set", "source": "set here", "note": "", "agrees": [], "ipcs": None}
        for name, value in given.items()
    ]
    rest = [name for name in fields if name not in by_setting and name not in given]
    defaults = {name: fields[name].get_default() for name in rest}
    program = constants(method, dataset)
    return {
        "method": method,
        "title": declared.title,
        "distils": declared.distils,
        "dataset": dataset,
        "ipc": ipc,
        "settings": settings,
        "defaults": json.loads(canonical_json(defaults)),
        "constants": program._asdict() if program is not None else None,
        "alternatives": list(alternatives(method)),
    }


def preset_text(facts: Facts) -> str:
    """A table of the settings, then what is not published for the combination and what has no preset at all."""
    at = f", ipc {facts['ipc']}" if facts["ipc"] is not None else ""
    place = f"{facts['dataset']}{at}"
    lines = [f"{facts['title']} ({facts['method']}) on {place}"]
    if not facts["settings"] and not facts["defaults"]:
        reason = "it chooses real images at random" if facts["distils"] else "it trains on all images and distils none"
        return "\n".join([*lines, f"nothing is learned and nothing can be set: {reason}"])
    notes = list(dict.fromkeys(entry["note"] for entry in facts["settings"] if entry["note"]))
    rows = [
        (
            *(_name(entry), json.dumps(entry["value"]), _agreement(entry["agrees"])),
            entry["source"] + _mark(entry["note"], notes),
        )
        for entry in facts["settings"]
    ]
    if rows:
        lines += ["", *_table([("setting", "value", "agrees with", "source"), *rows])]
    for number, note in enumerate(notes, 1):
        text = textwrap.fill(f"[{number}] {note}", 100, subsequent_indent="    ")
        lines += ["", text] if number == 1 else [text]
    lines += ["", _verdict(facts, place), *_not_the_papers(facts)]
    if facts["constants"] is not None:
        program = facts["constants"]
        lines.append(f"images are normalised with the constants of {program['of']}: {program['source']}")
    if facts["alternatives"]:
        names = ", ".join(f"{name} ({SAID_BY.get(name, name)})" for name in facts["alternatives"])
        lines.append(f"other published values, by name: {names}; --set preset=NAME here, preset: NAME in a sweep")
    if facts["defaults"]:
        values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in facts["defaults"].items())
        lines.append(f"without a preset, the default of the model: {values}")
    return "\n".join(lines)


def _mark(note: str, notes: Sequence[str]) -> str:
    return f" [{notes.index(note) + 1}]" if note else ""


def _agreement(agrees: Sequence[str]) -> str:
    return ", ".join(SAID_BY.get(name, name) for name in agrees) or "-"


def _not_the_papers(facts: Facts) -> list[str]:
    """Which values Chen et al. 2023 do not state; nothing of methods that the paper does not have."""
    published = [entry for entry in facts["settings"] if entry["kind"] == "published"]
    if not any(CHEN2023 in entry["agrees"] for entry in published):
        return []
    others = dict.fromkeys(_name(entry) for entry in published if CHEN2023 not in entry["agrees"])
    said = SAID_BY[CHEN2023]
    return [f"published, but not what {said} state: {', '.join(others)}"] if others else []


def _verdict(facts: Facts, place: str) -> str:
    counted = [entry for entry in facts["settings"] if entry["kind"] != "set"]
    if not counted:
        return f"no value is published for {place}"
    strange = dict.fromkeys(_name(entry) for entry in counted if entry["kind"] != "published")
    if not strange:
        aside = ", what is set here aside" if len(counted) < len(facts["settings"]) else ""
        return f"all values are published for {place}{aside}"
    return f"not published for {place}: {', '.join(strange)}; the rest is"


def _name(entry: Facts) -> str:
    ipcs = entry["ipcs"]
    return entry["setting"] if ipcs is None else f"{entry['setting']} (ipc {', '.join(map(str, ipcs))})"


def _table(rows: Iterable[tuple[str, str, str, str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]


def _chosen(method: str, dataset: str, ipc: int | None, given: Mapping[str, Any]) -> tuple[Chosen, ...]:
    try:
        return choose(method, dataset, ipc, given)
    except ValueError as error:
        raise RequestError(f"preset: {method}: {error}.") from error


def _method(name: str) -> Method:
    if name not in METHODS:
        raise RequestError(
            f"preset: unknown method {show(name)}; known: {', '.join(METHODS)}. {suggest(name, METHODS)}".rstrip()
        )
    return METHODS[name]


def _published(method: str) -> dict[str, list[int]]:
    """Data set -> ipcs that rows of the method name."""
    found: dict[str, set[int]] = {}
    for row in PRESETS:
        if row.method == method and row.source is not None and row.name is None:
            for dataset in row.datasets or (("any data set",) if row.ipcs else ()):
                found.setdefault(dataset, set()).update(row.ipcs)
    return {dataset: sorted(ipcs) for dataset, ipcs in found.items()}


def _ipcs(method: Method, dataset: str, given: Mapping[str, Any]) -> list[int | None]:
    """The ipcs for which something is published, for this data set or the one that stands in for it."""
    defaults = {name: field.get_default() for name, field in method.settings.model_fields.items()}
    known = defaults | at_ipc(given, None)
    rows = [row for pool in candidates(method.name, dataset, known, known.get(PRESET)) for row in pool]
    return [*sorted({ipc for row in rows for ipc in row.ipcs})] or [None]


def _entry(chosen: Chosen) -> Facts:
    facts: Facts = json.loads(
        canonical_json(
            {
                "setting": chosen.setting,
                "value": chosen.value,
                "kind": chosen.kind,
                "source": chosen.source,
                "note": chosen.note,
                "agrees": chosen.agrees,
            }
        )
    )
    return facts


def _given(method: Method, sets: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` gives, checked as in a sweep file."""
    if sets and not method.settings.model_fields:
        raise RequestError(f"--set: {method.name} has no settings; got {show(sets[0])}; expected none. Drop it.")
    wrong = [text for text in sets if not text.partition("=")[1]]
    if wrong:
        raise RequestError(
            [f"--set: not SETTING=VALUE; got {show(text)}; expected for example iterations=100." for text in wrong]
        )
    reader = Reader()
    below = f"defaults.settings.{method.name}."
    node = reader.sets([below + text for text in sets])
    if reader.problems:
        raise RequestError([problem.replace(below, "").replace(below[:-1], "settings") for problem in reader.problems])
    settings = node.get("defaults", "settings", method.name)
    return dict(plain(settings)) if settings is not None else {}
