"""Recorded stores: what this code computes and shows is compared with what was computed and shown when they were made.

In ``tests/golden/`` lie ``NAME.tar.xz``, the store that a sweep filled, and ``NAME.parquet`` and ``NAME.json``, the
table and the report that were built from it. Keys tell what a change has to do: a stage whose key is still planned
must give what is recorded under it, so whoever changes the one raises the version that changes the other.

``python tests/record_goldens.py`` records again; it refuses what changed without a version.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from ddray.results import RENDERER_VERSION
from trainables.device import numerics_class

FOLDER = Path(__file__).parent / "golden"
AGAIN = "python tests/record_goldens.py"
NOT_READ = ("model.safetensors", "expert.safetensors")
"""Payload files that neither tables nor report read: left out of stores whose stages are not run again."""
ACROSS = {
    "experts": 1e-4,
    "distill": 1e-3,
    "ensemble": 5e-3,
    "train": 5e-3,
    "accuracy": 1e-9,
    "attack": 1e-3,
    "robustness": 1e-9,
    "privacy": 1e-4,
    "embedding": 1e-3,
    "tsne": 0.05,
}
"""Kind -> how far apart its numbers may be on another instruction set: ten times what was measured or more. Kinds that
compute from recorded logits agree to rounding, networks amplify it."""
CHAOTIC = ("tsne.json.fit_id ", "tsne.safetensors: points ")
"""What no tolerance holds: the last bit of a distance decides where t-SNE puts a point."""
SIMULATED = dict.fromkeys(("mia_auc_strongest_null_low", "mia_auc_strongest_null_high"), 3e-3)
"""Metric -> how far apart it may be on another machine, by itself: quantiles of draws along eigenvectors, whose signs
are the linear algebra's choice. Draws leave 2 % of a standard deviation open, a thousandth of an AUC."""
SHOWN = 1e-9
"""Relative: numbers that are made of recorded ones. Their sums, too, are split by the processor."""


@dataclass(frozen=True)
class Recorded:
    """One recorded store.

    Attributes:
        whole: Whether it holds every file, so that its stages can be run again.
    """

    name: str
    profile: str | None = None
    whole: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        return () if self.profile is None else ("--profile", self.profile)

    @property
    def sweep(self) -> str:
        """The name that its results have."""
        return self.name if self.profile is None else f"{self.name}@{self.profile}"

    def path(self, suffix: str) -> Path:
        return FOLDER / f"{self.name}.{suffix}"

    @property
    def yaml(self) -> Path:
        """The sweep file: a shipped one, or one of these tests alone."""
        shipped = FOLDER.parents[1] / "sweeps" / f"{self.name}.yaml"
        return shipped if shipped.exists() else self.path("yaml")

    def unpack(self, store: Path) -> None:
        """Lay the recorded store there."""
        with lzma.open(self.path("tar.xz")) as compressed, tarfile.open(fileobj=compressed) as archive:
            archive.extractall(store, filter="data")

    def pack(self, store: Path) -> None:
        """Record a store: the same files give the same bytes, and nothing says on which machine it was made."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for path in sorted(store.glob("artifacts/*/*/*")):
                if self.whole or path.name not in NOT_READ:
                    entry = tarfile.TarInfo(str(path.relative_to(store)))
                    data = _nameless(path.read_bytes()) if path.name == "manifest.json" else path.read_bytes()
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        self.path("tar.xz").write_bytes(lzma.compress(content.getvalue(), preset=9))

    def shown(self) -> dict[str, Any]:
        """The report, and the version of the renderer that made it."""
        content: dict[str, Any] = json.loads(self.path("json").read_text(encoding="utf-8"))
        return content


STAGES = Recorded("stages", whole=True)
TABLES = (STAGES, Recorded("quickstart"), Recorded("full_grid", "smoke"))


def _nameless(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["provenance"]["host"] = "recorded"
    return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()


# --- payloads -----------------------------------------------------------------------------------------------------


def differences(recorded: Path, now: Path, tolerance: float) -> Iterator[str]:
    """How the payload files of two folders differ.

    Args:
        recorded: Whose files count; other files than the payload's are left aside.
        now: The payload of today.
        tolerance: 0: to the byte. Else of a tensor's largest number, or of a number by itself.
    """
    files = {path.name for path in recorded.iterdir()} - {"manifest.json"}
    if others := files ^ {path.name for path in now.iterdir()} - {"manifest.json"}:
        yield f"files {sorted(others)} are not on both sides"
    for name in sorted(files & {path.name for path in now.iterdir()}):
        old, new = (recorded / name).read_bytes(), (now / name).read_bytes()
        if old == new:
            continue
        if name.endswith(".safetensors"):
            yield from (f"{name}: {text}" for text in _tensors(load(old), load(new), tolerance))
        else:
            yield from (f"{name}{text}" for text in _values(json.loads(old), json.loads(new), tolerance))


def _tensors(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    if old.keys() != new.keys():
        yield f"holds {sorted(new)} and not {sorted(old)}"
    for name in sorted(old.keys() & new.keys()):
        one, other = old[name], new[name]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            yield f"{name} is {other.dtype} {other.shape} and not {one.dtype} {one.shape}"
        elif one.size and not np.array_equal(one, other, equal_nan=True):
            first, second = one.astype(np.float64), other.astype(np.float64)
            finite = np.isfinite(first) & np.isfinite(second)
            apart = float(np.abs(first - second)[finite].max(initial=0.0))
            scale = float(np.abs(first)[finite].max(initial=1e-30))
            if apart > tolerance * scale or not np.array_equal(first[~finite], second[~finite], equal_nan=True):
                yield f"{name} is {apart / scale:.1e} of its largest number apart, {tolerance:.0e} are allowed"


def _values(old: Any, new: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """How two JSON values differ."""
    number = (int, float)
    if isinstance(old, number) and isinstance(new, number) and not isinstance(old, bool) and not isinstance(new, bool):
        if not math.isclose(old, new, rel_tol=tolerance, abs_tol=tolerance * 1e-3):
            yield f"{where} was {old!r} and is {new!r}"
    elif isinstance(old, dict) and isinstance(new, dict):
        if tolerance:
            tolerance = max(tolerance, SIMULATED.get(old.get("metric", ""), 0.0))
        for name in sorted(old.keys() | new.keys()):
            if name not in old or name not in new:
                yield f"{where}.{name} is on one side only"
            else:
                yield from _values(old[name], new[name], tolerance, f"{where}.{name}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where} had {len(old)} entries and has {len(new)}"
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from _values(one, other, tolerance, f"{where}[{index}]")
    elif old != new:
        yield f"{where} was {old!r} and is {new!r}"


def tolerance_of(manifest: Mapping[str, Any]) -> float:
    """How far a stage computed here may be from the recorded one, of a tensor's largest number."""
    same = manifest["provenance"]["numerics"] == numerics_class("cpu")
    return 0.0 if same else ACROSS[manifest["kind"]]


# --- tables -------------------------------------------------------------------------------------------------------


def row_differences(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """How the rows of two tables of measurements differ, each told apart by its ``row_id``."""
    before, after = ({row["row_id"]: row for row in rows} for rows in (old, new))
    for row_id in sorted(before.keys() | after.keys()):
        row = before.get(row_id) or after[row_id]
        what = " ".join(
            str(row[name]) for name in ("method", "ipc", "architecture", "metric", "attack", "class_id")
            if row[name] is not None
        )  # fmt: skip
        if row_id not in before or row_id not in after:
            yield f"{what}: the row is {'new' if row_id in after else 'gone'}"
        else:
            yield from (f"{what}: {text}" for text in _values(dict(before[row_id]), dict(after[row_id]), SHOWN))


def shown_cells(report: str) -> Counter[str]:
    """Every cell of a report's tables as ``heading | row | column: text``: the order of columns and all prose apart."""
    cells: Counter[str] = Counter()
    heading, header = "", None
    for line in report.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            header = None
            continue
        texts = [text.strip() for text in line.strip().strip("|").split("|")]
        if header is None:
            header = texts
        elif not set("".join(texts)) <= set("-: "):
            label, *rest = texts
            cells.update(f"{heading} | {label} | {name}: {text}" for name, text in zip(header[1:], rest, strict=True))
    return cells


# --- what to do about it ------------------------------------------------------------------------------------------


def stage_message(kind: str, label: str, texts: Iterable[str]) -> str:
    """Of a stage that gives other results under the same key."""
    constant = f"the version of STAGE_KINDS[{kind!r}] in ddray/plan/kinds.py"
    if kind == "distill":
        constant = f"the method's `version` (or, if all methods changed, {constant})"
    return (
        f"{label}: the results changed and the key did not:\n{_list(texts)}\n"
        f"Finished work of every user would keep this key and the old results. If you meant to change them, raise "
        f"{constant}, say so in CHANGELOG.md under Invalidates, and record again: {AGAIN}"
    )


def renderer_message(sweep: str, texts: Iterable[str], *, raised: bool = False) -> str:
    """Of tables that are built differently from the same store; ``raised``: with another RENDERER_VERSION."""
    if raised:
        return f"{sweep}: RENDERER_VERSION was raised. If this is what it was raised for:\n{_list(texts)}\n{AGAIN}"
    return (
        f"{sweep}: what is built from the recorded store changed and RENDERER_VERSION did not:\n{_list(texts)}\n"
        f"Finished sweeps would keep their old tables. If you meant to change them, raise RENDERER_VERSION (and "
        f"SCHEMA_VERSION if a column changed its name, type or meaning), and record again: {AGAIN}"
    )


def plan_message(sweep: str, jobs: int) -> str:
    """Of a recorded store that this code does not take for finished."""
    return (
        f"{sweep}: {jobs} jobs are to be done on the recorded store: keys changed, and finished work of every user "
        f"would be computed again. If you raised a version or changed the sweep on purpose, record again: {AGAIN}"
    )


def _list(texts: Iterable[str], most: int = 12) -> str:
    texts = list(texts)
    more = [f"  ... and {len(texts) - most} more"] if len(texts) > most else []
    return "\n".join([*(f"  {text}" for text in texts[:most]), *more])


Run = Callable[..., Any]
"""``Workspace.run``: the arguments of a ddray command -> its code, out and err."""


@dataclass(frozen=True)
class Built:
    """What this code builds from a recorded store."""

    jobs: int
    """To be done before it is finished."""
    renderer: int
    rows: list[dict[str, Any]]
    maps: list[dict[str, Any]]
    report: dict[str, Any]
    """For machines."""
    cells: Counter[str]


def build(recorded: Recorded, run: Run, results: Path) -> Built:
    """Plan, tables and report of the store in force.

    Args:
        recorded: Whose sweep.
        run: Runs ddray.
        results: The folder ``results`` in force.
    """
    from pyarrow import parquet

    def said(*arguments: object) -> str:
        ran = run(*arguments)
        assert ran.code == 0, ran.err
        return str(ran.out)

    sweep = (recorded.yaml, *recorded.arguments)
    jobs = json.loads(said("plan", *sweep, "--json"))["jobs"]
    said("collect", *sweep)
    folder = results / recorded.sweep
    maps = folder / "embeddings.parquet"
    return Built(
        jobs,
        RENDERER_VERSION,
        parquet.read_table(folder / "measurements.parquet").to_pylist(),
        parquet.read_table(maps).to_pylist() if maps.exists() else [],
        json.loads(said("report", *sweep, "--json")),
        shown_cells((folder / "report.md").read_text(encoding="utf-8")),
    )


def shown_differences(recorded: Recorded, built: Built) -> list[str]:
    """How tables and report differ from the recorded ones."""
    from pyarrow import parquet

    shown = recorded.shown()
    texts = list(row_differences(parquet.read_table(recorded.path("parquet")).to_pylist(), built.rows))
    texts += [f"embeddings.parquet{text}" for text in _values(shown["maps"], built.maps, SHOWN)]
    texts += [f"report --json: {text}" for text in _values(shown["report"], built.report, SHOWN)]
    cells = Counter(shown["cells"])
    texts += [f"report.md lacks: {cell}" for cell in sorted((cells - built.cells).elements())]
    texts += [f"report.md has: {cell}" for cell in sorted((built.cells - cells).elements())]
    return texts
