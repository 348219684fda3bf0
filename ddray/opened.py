"""A finished sweep in a notebook or a script, ``ddray.open("quickstart")``: numbers as data frames, figures, distilled
sets as arrays, networks.

The long table holds every number with everything that tells it from others, in a hundred columns; a mean that looks at
too few of them mixes experiments without a word. ``SweepResults.table`` takes means over repeats alone, and refuses
where what is left to average is no repeat. Pandas and PyArrow are imported when a frame is asked for, torch when a
network is, Ray never.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddray.errors import DdrayError, suggest
from ddray.plan.axes import in_report
from ddray.results import Results, results_of
from ddray.settings import folders

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn

_ALWAYS = ("dataset", "architecture", "protocol", "method", "ipc")
"""Levels of the index of every table; others where they differ."""
_OF_REPEAT = {"schema_version", "row_id", "sweep", "grids", "point", "stage_key", "distilled_hash", "model_hash"}
"""Columns of identity that differ between repeats, or are no setting; axes of repeats beside them."""
_FOLLOWS = {"class_ids", "data_hash", "effective_ipc", "ratio", "budget_fraction", "norm_layer", "selection"}
"""Columns of identity that follow from others."""
_MEASURED_KEYS = ("metric", "unit", "class_id", "split", "repeat", "agg")
_NO_KEYS = {"converged_share", "attack_lib_version", "param_json"}
"""Columns of parameters that are no setting of the evaluation."""
_OF_POINT = {"settings", "changed_settings", "unpublished", "declared", "against_point"}
"""Entries of ``param_json`` that other columns stand for, or that name a single point."""
_REST = "param"
"""The level that holds what else ``param_json`` says."""
_SIDE = "side"
"""Of two results: 0 or 1."""
_CONFIGURATION = "distill_cfg_hash"
_HARD_TO_READ = {_REST, _CONFIGURATION}


@dataclass(frozen=True)
class SweepResults:
    """The results folder of a sweep, opened by ``ddray.open``."""

    folder: Path
    """``results/<sweep>``."""

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.folder.name

    def measurements(self) -> pd.DataFrame:
        """``measurements.parquet`` as it is: one row per number (docs/metrics.md). Before averaging anything of it, see
        ``table``: most of its columns tell experiments apart.

        Raises:
            DdrayError: The file is not there, not readable, or of a newer ddray.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        from ddray.measurements.columns import SCHEMA_VERSION

        path = Results(self.folder).measurements
        try:
            table = pq.read_table(path)
            versions = table["schema_version"].unique().to_pylist()
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise DdrayError(f"{path}: cannot be read; got {error}. Run `ddray collect` to make it again.") from error
        if newer := [version for version in versions if version > SCHEMA_VERSION]:
            raise DdrayError(
                f"{path}: was written by a newer ddray; got version {newer[0]}; expected {SCHEMA_VERSION}."
            )
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def metrics(self) -> list[str]:
        """Names of the metrics that it has numbers of."""
        frame = self.measurements()
        return sorted(frame["metric"][frame["value"].notna()].astype(str).unique())

    def table(self, metric: str, **where: Any) -> pd.DataFrame:
        """One metric, a row for each experiment: means over repeats (seeds) and over nothing else.

        Args:
            metric: Its name (docs/metrics.md).
            where: Column -> value, for those rows alone: ``table("mia_auc", attack="rmia")``.

        Returns:
            Index: data set, network, recipe, method, ipc, and every other key without which two experiments would fall
            together. Columns: ``mean``; ``sd`` (ddof 1) over ``n`` repeats; ``over``, what they are (distillations or
            draws where there are several, each by the mean of its trainings; else trainings); ``low``, ``high`` and
            ``about``: of a single repeat its interval, and what that is about; ``missing``: repeats without a number.
            Units are those of docs/metrics.md: fractions, not percent.

        Raises:
            DdrayError: No such metric or column, or two numbers differ in nothing that is known: then their mean would
                mix what nobody can tell apart.
        """
        import pandas as pd

        rows = _narrowed(self.measurements(), metric, where, self.folder)
        rows = rows.assign(**{_REST: [_rest(text) for text in rows["param_json"]]})
        keys = _telling(rows, list(_keys(list(rows.columns))))
        entries = [
            {**dict(zip(keys, at, strict=True)), **_summary(members, metric)}
            for at, members in rows.groupby(keys, observed=True, dropna=False, sort=False)
        ]
        return pd.DataFrame(entries).set_index(keys).sort_index()

    def against(self, other: SweepResults, metric: str, **where: Any) -> pd.DataFrame:
        """One metric of two results, a row for each experiment that either has.

        Args:
            other: The second results.
            metric: Its name.
            where: As for ``table``.

        Returns:
            Index: as of ``table``, the same for both. Columns: ``first`` and ``second``, means over repeats (missing
            where one has no such experiment); ``n_first``, ``n_second``; ``difference``, second less first; ``low`` and
            ``high``, its 95 % interval as if both were independent, which repeats of equal seeds are not: it is then
            too wide. Of several repeats on both sides by Welch's t; of one each by their own intervals (MOVER), where
            they have them.

        Raises:
            DdrayError: As for ``table``.
        """
        import pandas as pd

        sides = [_narrowed(each.measurements(), metric, where, each.folder) for each in (self, other)]
        rows = pd.concat([side.assign(**{_SIDE: at}) for at, side in enumerate(sides)], ignore_index=True)
        rows = rows.assign(**{_REST: [_rest(text) for text in rows["param_json"]]})
        named = list(_keys(list(rows.columns)))
        loose = [name for name in named if name != _CONFIGURATION]
        # The configuration of a set has the method's version in it: two versions would have nothing in common.
        of_each = rows.groupby([*loose, _SIDE], observed=True, dropna=False)[_CONFIGURATION].nunique(dropna=False)
        keys = _telling(rows, loose if int(of_each.max()) == 1 else named)
        entries = []
        for at, members in rows.groupby(keys, observed=True, dropna=False, sort=False):
            first, second = (_summary(members[members[_SIDE] == side], metric) for side in (0, 1))
            entries.append({**dict(zip(keys, at, strict=True)), **_difference(first, second)})
        return pd.DataFrame(entries).set_index(keys).sort_index()

    def report(self) -> dict[str, Any]:
        """What the report says, as JSON types: what ``ddray report --json`` prints."""
        from ddray.report.report import machine_report

        return machine_report(self.folder)

    def claims(self) -> pd.DataFrame:
        """The paper's claims C1 to C20, with the verdict of this sweep and what it rests on."""
        import pandas as pd

        return pd.DataFrame(self.report()["claims"]).set_index("id")

    def figures(self) -> list[str]:
        """Names of the report's figures."""
        return list(self._pictures())

    def figure(self, name: str, form: str = "svg") -> bytes:
        """A figure of the report.

        Args:
            name: One of ``figures()``.
            form: ``svg``, ``png`` or ``pdf``.

        Raises:
            DdrayError: There is no such figure or format.
        """
        from ddray.report.drawing import FORMATS, drawn

        pictures = self._pictures()
        if name not in pictures or form not in FORMATS:
            raise DdrayError(
                f"{self.name}: no figure {name!r} as {form!r}; it has {', '.join(pictures) or 'none'}, as "
                f"{', '.join(FORMATS)}. {suggest(name, list(pictures))}".rstrip()
            )
        return drawn(pictures[name].draw, pictures[name].rows).written(form)

    def _pictures(self) -> dict[str, Any]:
        from ddray.report.page import Picture
        from ddray.report.report import elements_of

        return {each.name: each for each in elements_of(self.report()) if isinstance(each, Picture)}

    def distilled_set(self, **where: Any) -> DistilledImages:
        """One distilled set.

        Args:
            where: Column -> value, as many as it takes to mean one: ``distilled_set(method="dm", ipc=10)``.

        Raises:
            DdrayError: None or several are meant, or the store no longer has it.
        """
        from trainables import files

        row, folder = self._stage("distill_s", "distilled set", where)
        arrays = files.load_arrays(folder / files.SET_TENSORS)
        return DistilledImages(arrays["images"], arrays["labels"], files.load_json(folder / files.SET_INFO), row)

    def model(self, **where: Any) -> nn.Module:
        """One trained network, which takes images (N, C, H, W) in [0, 1] and gives logits.

        Args:
            where: As for ``distilled_set``: ``model(method="dm", ipc=10, seed=0)``.

        Raises:
            DdrayError: None or several are meant, or the store no longer has it.
        """
        from trainables.evaluate.robustness.network import pixel_network
        from trainables.payloads import TrainedModel

        _, folder = self._stage("train_s", "network", where)
        return pixel_network(TrainedModel.load(folder), "cpu")

    def _stage(self, cost: str, what: str, where: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
        """The point and the payload of the one stage whose cost stands on rows that have these values."""
        from ddray.store.artifacts import DamagedArtifact, Store

        rows = _narrowed(self.measurements(), cost, where, self.folder)
        rows = rows.drop_duplicates("stage_key")
        if len(rows) > 1:
            keys = [key for key in _keys(list(rows.columns)) if key != _REST and rows[key].nunique(dropna=False) > 1]
            keys += [key for key in in_report("repeat") if rows[key].nunique(dropna=False) > 1]
            told = "; ".join(f"{key}: {', '.join(map(str, rows[key].unique()[:8]))}" for key in keys)
            raise DdrayError(f"{self.name}: {len(rows)} are meant; expected one {what}. Say more of {told}.")
        known, key = folders(), str(rows["stage_key"].iloc[0])
        try:
            artifact = Store(known.store, known.cache / "artifacts").open(key)
        except (KeyError, DamagedArtifact) as error:
            raise DdrayError(
                f"{self.name}: the store {known.store} has no sound {what} {key[:12]}; got {error}. Run the sweep "
                "again, or set DDRAY_STORE to where it was computed."
            ) from error
        return rows.iloc[0].to_dict(), artifact.folder


@dataclass(frozen=True)
class DistilledImages:
    """A distilled set."""

    images: NDArray[Any]
    """(N, C, H, W) float32 in pixel space: learned ones leave [0, 1]. With ``info["factor"]`` above 1 each holds
    several training images."""
    labels: NDArray[Any]
    """(N,) int64: positions of the classes."""
    info: Mapping[str, Any]
    """How it was made: ``method`` settings, ``factor``, ``iterations``, ``init``, ..."""
    point: Mapping[str, Any]
    """The columns of a point that has it."""


def open_results(results: str | Path) -> SweepResults:
    """See ``ddray.open``."""
    path = Path(results)
    if Results(path).measurements.is_file():
        return SweepResults(path.resolve())
    if path.suffix in (".yaml", ".yml"):
        path = Path(path.stem)
    known = folders()
    found = results_of(known, path.name)
    if len(path.parts) == 1 and found.measurements.is_file():
        return SweepResults(found.folder)
    names = sorted(entry.parent.name for entry in known.results.glob("*/measurements.parquet"))
    raise DdrayError(
        f"{results}: no results; got neither a folder with measurements.parquet nor a sweep below {known.results} "
        f"(DDRAY_HOME); known names: {', '.join(names) or 'none'}. {suggest(str(results), names)}".rstrip()
    )


def _narrowed(frame: pd.DataFrame, metric: str, where: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """The rows of a metric that have these values."""
    names = sorted(frame["metric"].astype(str).unique())
    if metric not in names:
        raise DdrayError(
            f"{folder.name}: no metric {metric!r}; it has {', '.join(names)}. {suggest(metric, names)}".rstrip()
        )
    mask = frame["metric"] == metric
    for name, value in where.items():
        if name not in frame.columns:
            raise DdrayError(f"{folder.name}: no column {name!r}. {suggest(name, frame.columns)}".rstrip())
        mask &= frame[name].isna() if value is None else frame[name] == value
    if not mask.any():
        raise DdrayError(f"{folder.name}: no row of {metric} has {', '.join(f'{k}={v!r}' for k, v in where.items())}.")
    found: pd.DataFrame = frame[mask]
    return found


def _keys(columns: list[str]) -> Iterator[str]:
    """What tells experiments apart, in the order of the table."""
    from ddray.measurements.columns import names

    identity = {*names("identity")} - _OF_REPEAT - _FOLLOWS - {*in_report("repeat")}
    parameters = {*names("parameters")} - _NO_KEYS
    for name in columns:
        if name in identity or name in _MEASURED_KEYS or name in parameters or name == _REST:
            yield name


def _telling(rows: pd.DataFrame, keys: list[str]) -> list[str]:
    """As few of the keys as tell the same experiments apart; those that people read least are left out first."""
    apart = rows[keys].astype(object).drop_duplicates()
    for name in (*(key for key in keys if key in _HARD_TO_READ), *reversed(keys)):
        without = [key for key in keys if key != name]
        if name in keys and name not in _ALWAYS and not apart[without].duplicated().any():
            keys = without
    return keys


def _rest(text: Any) -> str:
    param = json.loads(text) if isinstance(text, str) else {}
    kept = {name: value for name, value in param.items() if name not in _OF_POINT}
    return json.dumps(kept, sort_keys=True) if kept else ""


def _summary(members: pd.DataFrame, metric: str) -> dict[str, Any]:
    from ddray.measurements.statistics import by_seed, spread

    known = members[members["value"].notna()]
    seeds = [(_number(one), _number(other)) for one, other in zip(known["distill_seed"], known["seed"], strict=True)]
    if len(set(seeds)) < len(seeds):
        differing = [name for name in ("point", "stage_key", "note") if known[name].nunique(dropna=False) > 1]
        raise DdrayError(
            f"{metric}: {len(seeds)} numbers of {len(set(seeds))} repeats of {members['method'].iloc[0]} differ in no "
            f"key, only in {', '.join(differing) or 'nothing'}; expected one for each pair of distill_seed and seed. "
            "Look at measurements()."
        )
    mean = spread(
        by_seed((one, other or 0, value) for (one, other), value in zip(seeds, known["value"], strict=True)),
        "draws" if (members["method"] == "random").all() else "distillations",
    )
    alone = known.iloc[0] if len(known) == 1 else None
    value: Callable[[str], Any] = lambda name: None if alone is None else alone[name]  # noqa: E731
    return {
        "mean": None if mean is None else mean.mean,
        "sd": None if mean is None else mean.sd,
        "n": 0 if mean is None else mean.count,
        "over": None if mean is None else mean.unit,
        "low": value("ci_low"),
        "high": value("ci_high"),
        "about": value("ci_unit"),
        "missing": len(members) - len(known),
    }


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    one, other = first["mean"], second["mean"]
    facts = {"first": one, "second": other, "n_first": first["n"], "n_second": second["n"]}
    if one is None or other is None:
        return {**facts, "difference": None, "low": None, "high": None}
    low, high = _interval(first, second)
    return {**facts, "difference": other - one, "low": low, "high": high}


def _interval(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float | None, float | None]:
    difference = second["mean"] - first["mean"]
    if first["n"] > 1 and second["n"] > 1:
        from scipy import stats

        parts = [each["sd"] ** 2 / each["n"] for each in (first, second)]
        if sum(parts) == 0:
            return difference, difference
        freedom = sum(parts) ** 2 / sum(
            part**2 / (each["n"] - 1) for part, each in zip(parts, (first, second), strict=True)
        )
        half = float(stats.t.ppf(0.975, freedom)) * sum(parts) ** 0.5
        return difference - half, difference + half
    ends = [each[name] for each in (first, second) for name in ("low", "high")]
    if any(end is None or end != end for end in ends):
        return None, None
    low_1, high_1, low_2, high_2 = ends
    below = ((second["mean"] - low_2) ** 2 + (high_1 - first["mean"]) ** 2) ** 0.5
    above = ((high_2 - second["mean"]) ** 2 + (first["mean"] - low_1) ** 2) ** 0.5
    return difference - below, difference + above


def _number(value: Any) -> int | None:
    """A seed; columns with nulls are floating-point numbers in a data frame."""
    return None if value is None or value != value else int(value)
