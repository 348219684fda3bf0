"""Test accuracy of a block, beside the paper's Table 3 where comparable, and its differences to random images."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from statistics import fmean
from typing import Any

from ddray.measurements.reading import Numbers
from ddray.measurements.references import CHEN2023, known_data
from ddray.measurements.statistics import Values, accuracy_difference, paired
from ddray.report.beside_paper import BesidePaper
from ddray.report.comparable import ROW_AXES, Cell, ReportBlock, RowKey
from ddray.report.page import Element, Heading, Lines
from ddray.report.sections import BlockSection, Measured, SweepSection
from ddray.report.table import Column, Facts, Table
from ddray.report.words import cell_table, cells_of, plus_minus, resolution, span, variant_title
from trainables.methods import EXTERNAL, METHODS

BASELINES = ("random", "full")
_TWO_SIDED_95 = 1.96
"""Standard deviations within which 95 % of normal values lie."""


def _rows(block: ReportBlock, numbers: Numbers) -> list[dict[str, Any]]:
    """The rows of a block: ``cells`` by variant, and ``against_random``."""
    return [
        {
            **key.facts,
            "cells": {cell.variant: _cell(cell, numbers.plain) for cell in cells},
            "against_random": _differences({cell.variant: cell for cell in cells}),
        }
        for key, cells in block.rows.items()
    ]


def _cell(cell: Cell, numbers: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    first, trained_lr = cell.points[0], numbers.get("trained_lr", {})
    rates = {trained_lr[point["point"]] for point in cell.points if point["point"] in trained_lr}
    published = CHEN2023.accuracy_of(known_data(first), first["ipc"], first["architecture"], cell.method)
    states = Counter(point["status"] for point in cell.points)
    return {
        "method": cell.method,
        "planned": len(cell.points),
        "done": states.pop("ok", 0),
        "not_done": dict(sorted(states.items())),
        "accuracy": cell.mean(),
        "test_images": min((point["n"] for point in cell.points if point["n"]), default=None),
        "init": first["init"],
        "learned_lr": sorted(rates - {first["lr"]}),
        "distilled": _distilled(cell, numbers.get("distill_s", {})),
        "budget_fraction": first["budget_fraction"],
        "distill_iters": first["distill_iters"],
        "paper": asdict(published) if published else None,
        "objections": CHEN2023.objections(first),
        "unpublished": first["param"].get("unpublished", {}),
        "constants": first["constants"],
        **({"labels": labels} if (labels := first["param"].get("labels")) else {}),
    }


def _distilled(cell: Cell, seconds: Mapping[str, float]) -> dict[str, Any] | None:
    """Mean ``hours`` of a set that is learned, and the ``machine`` that took them; None where nothing is learned, or
    where the sets of a cell were made on several."""
    learned = cell.method in METHODS and "init" in METHODS[cell.method].uses
    by_set = {
        point["distill_seed"]: seconds[point["point"]] for point in cell.points if learned and point["point"] in seconds
    }
    machines = {machine_of(point["numerics"]) for point in cell.points if point["numerics"]}
    if not by_set or len(machines) != 1:
        return None
    return {"hours": fmean(by_set.values()) / 3600, "machine": machines.pop()}


def machine_of(numerics: str) -> str:
    """What a numerics class ran on: a card's or a processor's name, and how many threads of that."""
    told = json.loads(numerics)
    name = str(told.get("device_name", told.get("device", "a machine"))).partition(", family")[0]
    if told.get("device") == "cuda":
        return name
    threads = told.get("threads", 1)
    return f"{threads} thread{'s' if threads != 1 else ''} of {name}"


def _differences(cells: Mapping[str, Cell]) -> dict[str, Any]:
    """Seed-paired differences to ``random``, which starts from the images a method with init real starts from; of a
    set that no seed made (``herding``, one that was brought) the differences to every draw of them."""
    if "random" not in cells:
        return {}
    random: Values = cells["random"].values()
    differences = {}
    for variant, cell in cells.items():
        if variant in BASELINES:
            continue
        seeded = cell.method in METHODS and "distill_seed" in METHODS[cell.method].uses
        difference = paired(cell.values(), random, seeded)
        if difference is not None:
            differences[variant] = {**asdict(difference), "unit": "distillations" if seeded else "draws"}
    return differences


# --- test accuracy ----------------------------------------------------------------------------------------------------


def _elements(block: Facts) -> Iterator[Element]:
    """Our accuracies, the paper's below them."""
    beside = BesidePaper(block, "Table 3", "is over three trainings")
    rows = beside.rows(_accuracy, plus_minus)
    notes = [*_seed_level(block), *_constants(block), *beside.notes]
    yield Table("Test accuracy, percent: mean ± sd", beside.columns(), rows, notes, resolution(block))


def _accuracy(cell: Facts) -> str:
    if cell["accuracy"] is None:
        return ", ".join(f"{count} {state}" for state, count in cell["not_done"].items())
    shown = plus_minus({**cell["accuracy"], "level": cell["accuracy"]["short"]})
    return shown if cell["done"] == cell["planned"] else f"{shown} ({cell['done']} of {cell['planned']} points)"


def _seed_level(block: Facts) -> list[str]:
    """Which repeats ± is about."""
    if block["optimizer"] is None:
        return ["One model, as it was brought."]
    levels: dict[str, dict[str, None]] = {}
    for row in cells_of(block):
        if row["cell"]["accuracy"]:
            levels.setdefault(row["method"], {})[row["cell"]["accuracy"]["seed_level"]] = None
    if not levels:
        return []
    each = [f"{variant_title(name)} {', '.join(levels[name])}" for name in block["methods"] if name in levels]
    if all(row["cell"]["accuracy"]["sd"] is None for row in cells_of(block) if row["cell"]["accuracy"]):
        about = "One training of each: how much trainings scatter is not known here, nor how much distillations do."
    elif any("×" in level for of_variant in levels.values() for level in of_variant):
        about = (
            "With ×, ± is over distilled sets, each by the mean of its trainings; otherwise over trainings of one set."
        )
    elif set(levels) == {"full"}:
        about = "± is over trainings."
    else:
        about = "± is over trainings of one distilled set and leaves out how much distillations scatter."
    return [f"Seed level: {'; '.join(each)}. {about}"]


def _constants(block: Facts) -> list[str]:
    """Whose constants normalise the images, where methods of the block differ in them, as the authors' programs do."""
    methods: dict[str, dict[str, None]] = {}
    for row in cells_of(block):
        methods.setdefault(row["cell"]["constants"] or "others", {})[variant_title(row["method"])] = None
    if len(methods) < 2:
        return []
    each = [f"{name} for {', '.join(titles)}" for name, titles in sorted(methods.items())]
    return [f"Images are normalised with the constants of {'; of '.join(each)}: those of the methods' programs."]


# --- against random images --------------------------------------------------------------------------------------------


def _has_methods(block: Facts) -> bool:
    """Whether the block has more than baselines; nothing stands beside what was brought alone."""
    methods = {row["cell"]["method"] for row in cells_of(block)}
    return bool(methods - {*BASELINES, EXTERNAL}) or {"random", EXTERNAL} <= methods


def _against_random(block: Facts) -> Iterator[Element]:
    """One row per difference, with its interval."""
    rows = [
        {**entry, "method": variant, **difference}
        for entry in block["rows"]
        for variant, difference in entry["against_random"].items()
    ]
    if not rows:
        yield Heading("Against random images", 3)
        yield Lines(("No method has a distillation seed and a training seed in common with random here.",))
        return
    notes = [
        "Unit: a distilled set, by the mean over the trainings whose seeds both sides have. A set that no seed made is "
        "compared with every draw of random images."
    ]
    if any(
        entry["cells"][variant]["init"] == "noise" for entry in block["rows"] for variant in entry["against_random"]
    ):
        notes.append("With init noise a pair shares its training seeds, not its images.")
    columns = [
        Column("difference, points", "mean", lambda mean: f"{100 * mean:+.2f}"),
        Column("95 % t-interval", _t_interval),
        Column("pairs", _pairs),
        Column("trainings each", "trainings", partial(span, form="d")),
    ]
    yield cell_table("Against random images, paired by distill_seed", block["row_axes"], rows, columns, notes)


def _t_interval(difference: Facts) -> str:
    if difference["low"] is None:
        return "none: one pair"
    return f"{100 * difference['low']:+.2f} to {100 * difference['high']:+.2f}"


def _pairs(difference: Facts) -> str:
    unit: str = difference["unit"]
    return f"{difference['pairs']} {unit if difference['pairs'] != 1 else unit.removesuffix('s')}"


# --- alarms -----------------------------------------------------------------------------------------------------------


def _below_random(block: Facts) -> list[str]:
    alarms = []
    for entry in block["rows"]:
        cells: Mapping[str, Facts] = entry["cells"]
        baseline = (cells.get("random") or {}).get("accuracy")
        for variant, cell in cells.items():
            if cell["method"] in BASELINES or baseline is None or cell["accuracy"] is None:
                continue
            paired_difference = entry["against_random"].get(variant)
            difference = (paired_difference or {"mean": cell["accuracy"]["mean"] - baseline["mean"]})["mean"]
            if difference < 0:
                row = RowKey.of(entry, ROW_AXES).text
                said = f"{block['title']}: {variant} is {-100 * difference:.2f} points below random at {row}"
                alarms.append(
                    said + ("" if _resolved(cell, baseline) else ", which the test images do not tell from 0")
                )
    return alarms


def _resolved(cell: Facts, baseline: Facts) -> bool:
    """Whether test images alone would hardly make such a difference."""
    images = cell["test_images"]
    return images is not None and accuracy_difference([cell["accuracy"]["mean"]], [baseline["mean"]], images).high < 0


def _copies(_: Facts, measured: Measured) -> list[str]:
    """Repeats that left one and the same network: they are copies, and their scatter of 0 says nothing."""
    alarms = []
    for block in measured.blocks:
        for cell in block.own_cells:
            models = [point["model_hash"] for point in cell.points if point["model_hash"] is not None]
            if len(set(models)) < len(models):
                alarms.append(
                    f"{block.title}: {cell.variant} at {cell.key.text}: {len(models)} trainings left "
                    f"{len(set(models))} different networks: the others are copies to the last byte, and no repeats"
                )
    return alarms


def _at_chance(_: Facts, measured: Measured) -> list[str]:
    """Accuracies that guessing reaches as well, whether or not random images are there to compare with."""
    alarms = []
    for block in measured.blocks:
        for cell in block.own_cells:
            first, mean = cell.points[0], cell.mean()
            images = [point["n"] for point in cell.points if point["n"]]
            if mean is None or not images:
                continue
            chance = 1 / first["num_classes"]
            reach = chance + _TWO_SIDED_95 * math.sqrt(chance * (1 - chance) / min(images))
            if mean["mean"] <= reach:
                alarms.append(
                    f"{block.title}: {cell.variant} is at chance at {cell.key.text}: {100 * mean['mean']:.2f} %, where "
                    f"guessing among {first['num_classes']} classes stays below {100 * reach:.2f} % in 39 of 40 cases "
                    f"on {min(images)} test images"
                )
    return alarms


COPIES = SweepSection(id="copies", order=12, elements=lambda _: (), alarms=_copies)
AT_CHANCE = SweepSection(id="at_chance", order=11, elements=lambda _: (), alarms=_at_chance)
ACCURACY = BlockSection(
    id="rows", order=10, plain=("trained_lr", "distill_s"), facts=_rows, elements=_elements, alarms=_below_random
)
AGAINST_RANDOM = BlockSection(id="against_random", order=30, applies=_has_methods, elements=_against_random)
