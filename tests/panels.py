"""Audits of membership whose rows are made up: a sweep like the paper's Table 1, and what its audits leave."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

TABLE1 = """
ddray: 1
defaults:
  protocol: PROTOCOL
  axes: {dataset: [cifar10], ipc: [10], origin_per_class: [40, 80], origin_draw: [0, 1], distill_seed: [0], seed: [0]}
  evaluations: {privacy: {audit: [seed], shadows: 0}}
grids:
  methods: {axes: {method: [dm], init: [noise, real]}, settings: {dm: {iterations: 20000}}}
  baselines: {axes: {method: [BASELINES]}}
"""
REACH = 0.03
"""From an AUC to the ends of its interval."""


def table1(protocol: str = "paper2023", baselines: str = "random, full") -> str:
    return TABLE1.replace("PROTOCOL", protocol).replace("BASELINES", baselines)


ONE = table1().replace("origin_draw: [0, 1]", "origin_draw: [0]").replace("per_class: [40, 80]", "per_class: [40]")
"""The same of one draw and one size of the origin."""


def row(metric: str, value: float | None, **columns: Any) -> Row:
    kind = columns.get("audit", "seed")
    source = {"seed": "test_balanced", "pool": "pool", "one_run": "pool"}[kind]
    return {
        "property": "privacy",
        "metric": metric,
        "value": value,
        "unit": "fraction",
        "audit": kind,
        "attack": "shokri",
        "threat_model": "blackbox",
        "nonmember_source": source,
        "n": 80,
        "n_pos": 40,
        "n_neg": 40,
        "agg": "single",
        "ci_low": None if value is None else value - REACH,
        "ci_high": None if value is None else value + REACH,
        "ci_level": 0.95,
        "ci_method": "delong",
        "ci_unit": "images",
        **columns,
    }


def panel_of(aucs: dict[str, float], **columns: Any) -> list[Row]:
    """An audit by attack, as the stage leaves it: the strongest with an interval twice as wide as each one's own."""
    rows = [row("mia_auc", value, **{**columns, "attack": attack}) for attack, value in aucs.items()]
    best = max(aucs, key=lambda attack: aucs[attack])
    rows.append(row("mia_auc_strongest", aucs[best], **{**_twice(aucs[best]), **columns, "attack": best}))
    images = {"unit": "images", "ci_low": None, "ci_high": None}
    rows += [row("mia_k", 80 * (value - 0.5), **{**columns, **images, "attack": name}) for name, value in aucs.items()]
    return [{**each, "n_pos": 400, "n_neg": 400, "n": 800} for each in rows]


def _twice(value: float) -> Row:
    return {"ci_low": value - 2 * REACH, "ci_high": value + 2 * REACH}
