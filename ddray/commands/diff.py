"""`ddray diff`: what two results say differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddray.errors import RequestError
from ddray.measurements.reading import read_provenance
from ddray.opened import SweepResults, open_results
from ddray.results import Results

HEADLINES = ("test_acc", "mia_auc_strongest", "fair_worst_acc", "adv_acc")
SHOWN = 20
"""Experiments that are listed of a metric."""
CHANCE = 0.05
MADE_BY = {"ddray": "ddray", "torch": "torch", "devices": "device", "commits": "commit"}


def diff_facts(first: str, second: str, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Compare two results.

    Args:
        first: A sweep that was run here, or a results folder.
        second: Likewise.
        metrics: Names; none: the headlines that both have.

    Returns:
        ``first``, ``second``: names; ``made_by``: what differs of versions and devices -> both; ``metrics``: for each
        ``metric``, ``both`` (experiments), ``equal``, ``differ``, ``with_interval``, ``beyond`` (whose interval leaves
        0 out), ``only_first``, ``only_second``, and ``rows``: the experiments that differ, those beyond first, then by
        size.

    Raises:
        DdrayError: One is no results, or lacks a metric that was named.
    """
    one, other = open_results(first), open_results(second)
    named = list(dict.fromkeys(metrics)) or [name for name in HEADLINES if _has(one, name) and _has(other, name)]
    if not named:
        raise RequestError(f"{first}, {second}: have no headline in common. Name one with --metric.")
    made = [read_provenance(Results(each.folder).measurements) for each in (one, other)]
    return {
        "first": one.name,
        "second": other.name,
        "made_by": {
            title: [made[0][name], made[1][name]] for name, title in MADE_BY.items() if made[0][name] != made[1][name]
        },
        "metrics": [_metric(one, other, name) for name in named],
    }


def _has(results: SweepResults, metric: str) -> bool:
    return metric in results.metrics()


def _metric(one: SweepResults, other: SweepResults, metric: str) -> dict[str, Any]:
    table = one.against(other, metric)
    levels = [name for name in table.index.names if table.index.get_level_values(name).nunique(dropna=False) > 1]
    rows: list[dict[str, Any]] = []
    for (_, entry), at in zip(table.iterrows(), table.index.to_frame().to_dict("records"), strict=True):
        said = {name: _level(value) for name, value in at.items()}
        facts = {name: None if value is None or value != value else float(value) for name, value in entry.items()}
        place = ", ".join(f"{name} {said[name]}" for name in levels if said[name] is not None)
        rows.append({"place": place or "all", **facts})
    both = [row for row in rows if row["difference"] is not None]
    differ = [row for row in both if row["difference"] != 0]
    told = [row for row in both if row["low"] is not None]
    for row in differ:
        row["beyond"] = row["low"] is not None and not row["low"] <= 0 <= row["high"]
    return {
        "metric": metric,
        "both": len(both),
        "equal": len(both) - len(differ),
        "differ": len(differ),
        "with_interval": len(told),
        "beyond": sum(row["beyond"] for row in differ),
        "only_first": sum(row["first"] is not None and row["second"] is None for row in rows),
        "only_second": sum(row["second"] is not None and row["first"] is None for row in rows),
        "rows": sorted(differ, key=lambda row: (not row["beyond"], -abs(row["difference"]))),
    }


def _level(value: Any) -> Any:
    """A value of the index; columns with nulls are floating-point numbers in a data frame."""
    if value is None or value != value:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value


def diff_text(facts: Mapping[str, Any]) -> str:
    """For a terminal."""
    return "\n".join(_lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{facts['first']} (first) and {facts['second']} (second)"
    for title, (first, second) in facts["made_by"].items():
        yield f"  {title}: {', '.join(first) or 'none'}; second: {', '.join(second) or 'none'}"
    for metric in facts["metrics"]:
        yield from _metric_lines(metric)


def _metric_lines(metric: Mapping[str, Any]) -> Iterator[str]:
    only = [f"{metric[f'only_{side}']} only in the {side}" for side in ("first", "second") if metric[f"only_{side}"]]
    told = f"{metric['both']} experiments in both, {metric['equal']} equal"
    if metric["differ"]:
        told += f", {metric['differ']} different"
    yield f"{metric['metric']}: {', '.join([told, *only])}"
    if metric["differ"]:
        chance = CHANCE * metric["with_interval"]
        yield (
            f"  {metric['beyond']} of {metric['with_interval']} differ beyond their 95 % intervals; "
            f"about {chance:.2g} would by chance"
        )
    for row in metric["rows"][:SHOWN]:
        interval = f" ({row['low']:+.4g} to {row['high']:+.4g})" if row["low"] is not None else " (no interval)"
        mark = "*" if row["beyond"] else " "
        yield f"  {mark} {row['place']}: {row['first']:.4g} -> {row['second']:.4g}, {row['difference']:+.4g}{interval}"
    if len(metric["rows"]) > SHOWN:
        yield f"    and {len(metric['rows']) - SHOWN} more; --json has all"
