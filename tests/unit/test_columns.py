"""The table of measurements: complete, named like the axes, the same after a round trip; and what "equal" means."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddray import measurements
from ddray.measurements.columns import (
    COLUMNS,
    MEASUREMENTS,
    VALUES,
    comparable,
    names,
)
from ddray.plan.axes import AXES

SPECIFIED = """
schema_version row_id sweep grids point stage_key protocol budget_fraction dataset num_classes class_ids
origin_per_class origin_draw data_hash method ipc ratio init distill_arch distill_aug distill_iters distill_cfg_hash
distill_seed zca label_kind factor distilled_hash architecture norm_layer train_aug train_epochs optimizer lr seed
selection model_hash property metric value unit ci_low ci_high ci_level ci_method ci_unit n n_pos n_neg repeat agg std
n_agg class_id class_rank split attack threat_model audit shadow_kind shadow_fidelity n_shadows target_row
variance_mode fpr member_role nonmember_source prior norm epsilon adv_def attack_steps rel_stepsize overshoot
candidates restarts converged_share attack_lib attack_lib_version perplexity embed_dim param_json git_commit
code_version torch_version numpy_version sklearn_version device dtype deterministic wall_s started_at status flag note
"""


ROOT = Path(measurements.__file__).parents[2]
FOLDERS = ("trainables/evaluate", "ddray/measurements", "ddray/report")
WRITERS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def row(**values: object) -> dict[str, object]:
    return {"row_id": "a", "property": "performance", "metric": "test_acc", "value": 0.5, **values}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=MEASUREMENTS)


def test_every_specified_column_is_there_once() -> None:
    counted = Counter(column.name for column in COLUMNS)
    assert set(SPECIFIED.split()) <= counted.keys()
    assert set(counted.values()) == {1}


def test_every_axis_has_a_column_of_its_name() -> None:
    assert set(AXES) <= set(names("identity"))


def test_groups_cover_the_table() -> None:
    groups = ("identity", "measurement", "parameters", "provenance", "quality")
    assert sorted(name for group in groups for name in names(group)) == sorted(MEASUREMENTS.names)


def test_types_are_the_specified_ones() -> None:
    assert MEASUREMENTS.field("method").type == pa.dictionary(pa.int32(), pa.string())
    assert MEASUREMENTS.field("n").type == pa.int32()
    assert MEASUREMENTS.field("value").type == pa.float64()
    assert MEASUREMENTS.field("class_ids").type == pa.list_(pa.int32())
    assert MEASUREMENTS.field("dirty").type == pa.bool_()
    assert MEASUREMENTS.field("point").type == pa.string()


def written(source: str) -> set[tuple[str, str]]:
    """Names with a text that a program gives them: in dictionaries, keyword arguments and assignments to an item."""
    found: list[tuple[ast.expr | None, ast.expr]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            found += zip(node.keys, node.values, strict=True)
        elif isinstance(node, ast.Call):
            found += [(ast.Constant(word.arg), word.value) for word in node.keywords]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            found.append((node.targets[0].slice, node.value))
    plain = [(key, branch) for key, value in found for branch in branches(value)]
    return {
        (str(key.value), str(value.value))
        for key, value in plain
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def branches(value: ast.expr) -> list[ast.expr]:
    return [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def test_every_value_that_is_written_is_described() -> None:
    assert written('row = {"flag": "a" if x else "b"}; row["agg"] = "c"; f(audit="d", n=1)') == {
        ("flag", "a"),
        ("flag", "b"),
        ("agg", "c"),
        ("audit", "d"),
    }
    found = {pair for path in WRITERS for pair in written(path.read_text(encoding="utf-8"))}
    other_uses = {"norm", "split", "status"}  # names of other dictionaries' keys, too
    found = {(name, value) for name, value in found if name in VALUES.keys() - other_uses}
    # Enough of them for the search to have worked; what comes from variables is seen by the full grid's test.
    assert {("flag", "above_ceiling"), ("flag", "outside_band"), ("agg", "mean_targets"), ("audit", "one_run")} <= found
    assert not [(name, value) for name, value in found if value not in VALUES[name]]
    meanings = {column.name: column.meaning for column in COLUMNS}
    for name, values in VALUES.items():
        assert meanings[name].endswith(": " + ", ".join(values))


def test_flags_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == set(VALUES["flag"])


def test_schema_survives_parquet(tmp_path: Path) -> None:
    pq.write_table(table(row(class_ids=[3, 5], grids=["a"])), tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").schema.equals(MEASUREMENTS)


def test_equal_means_equal_without_provenance_costs_and_order() -> None:
    one = table(
        row(git_commit="x", wall_s=1.0), row(row_id="b", method="dm"), row(row_id="c", property="cost", value=3.0)
    )
    other = table(
        row(row_id="c", property="cost", value=9.0), row(row_id="b", method="dm"), row(git_commit="y", wall_s=7.0)
    )
    assert not one.equals(other)
    assert comparable(one).equals(comparable(other))
    assert comparable(one).num_rows == 2


@pytest.mark.parametrize("change", [{"value": 0.6}, {"method": "dm"}, {"status": "failed"}, {"epsilon": 0.1}])
def test_a_difference_that_matters_stays(change: dict[str, object]) -> None:
    assert not comparable(table(row())).equals(comparable(table(row(**change))))


def test_a_row_without_a_property_is_kept() -> None:
    assert comparable(table(row(property=None))).num_rows == 1
