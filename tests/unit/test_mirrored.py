"""Which of a point's many numbers MLflow gets: those one compares runs by, one for each name."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ddray.measurements.columns import MEASUREMENTS
from ddray.tracking.measured import mirrored

AUC: dict[str, Any] = {
    "property": "privacy",
    "metric": "mia_auc",
    "attack": "shokri",
    "audit": "pool",
    "agg": "mean_targets",
    "nonmember_source": "pool",
    "status": "ok",
}
ROBUST: dict[str, Any] = {
    "property": "robustness",
    "metric": "adv_acc",
    "attack": "deepfool_l2",
    "norm": "l2",
    "epsilon": 0.5,
    "adv_def": "clip",
    "agg": "single",
    "status": "ok",
}
LOSS: dict[str, Any] = {"property": "performance", "metric": "test_loss", "status": "ok"}


def kept(*rows: dict[str, Any]) -> list[bool]:
    found: list[bool] = mirrored(pa.Table.from_pylist(list(rows), schema=MEASUREMENTS)).to_pylist()
    return found


@pytest.mark.parametrize(
    "row",
    [
        AUC,
        ROBUST,
        LOSS,
        {**AUC, "nonmember_source": "test_balanced", "agg": "single"},
        {**ROBUST, "epsilon": 0.0},
        {**ROBUST, "epsilon": 0.15},  # a step of the curve
        {**AUC, "metric": "mia_adv_max", "status": "failed"},
    ],
)
def test_headlines_are_mirrored(row: dict[str, Any]) -> None:
    assert kept(row) == [True]


@pytest.mark.parametrize(
    ("row", "other"),
    [
        (AUC, {"member_role": "member_init"}),
        (AUC, {"repeat": 0, "target_row": 0}),
        (AUC, {"agg": "pooled"}),
        (AUC, {"nonmember_source": "reserve"}),
        (AUC, {"variance_mode": "per_example"}),
        (AUC, {"param_json": '{"iteration":0}'}),
        (AUC, {"metric": "mia_adv_max"}),
        (ROBUST, {"adv_def": "norm"}),
        (ROBUST, {"metric": "adv_dist_q10"}),
        (LOSS, {"property": "cost", "metric": "accuracy_s"}),
    ],
)
def test_what_would_take_a_headlines_name_or_crowd_the_page_is_not(row: dict[str, Any], other: dict[str, Any]) -> None:
    assert kept(row, {**row, **other}) == [True, False]
