"""Examples, maps and files: what the measurements say can be computed again from what is written of every example."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import worlds
from numpy.typing import NDArray
from pages import ROOT
from sklearn.metrics import roc_auc_score, roc_curve

from ddray.measurements.exports.artifacts import ARTIFACTS_FILE, write_artifacts
from ddray.measurements.exports.maps import EMBEDDINGS_FILE, write_embeddings
from ddray.measurements.exports.samples import write_samples
from ddray.report.report import report
from ddray.store.manifest import sha256

Row = dict[str, Any]
Columns = dict[str, NDArray[Any]]

AUDITED = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dm], dataset: [digits], ipc: [3], origin_per_class: [20], origin_draw: [0], init: [real]}
    settings: {dm: {iterations: 200}}
    evaluations:
      privacy: {audit: [seed, pool, one_run], rows: 6, targets: 2, shadows: 1, population: 5, reserve: 5,
                attacks: [loss, shokri, lira_offline, data_release]}
      robustness: {attacks: [deepfool_l2, deepfool_linf, fmn_linf, fgsm, pgd_linf], images: 100}
"""


class Made:
    """A finished sweep with its tables and its companions."""

    def __init__(self, world: worlds.World, folder: Path) -> None:
        self.sweep, self.plan, self.store = self.world = world
        self.results = worlds.collected(world, folder)
        self.rows = write_samples(self.plan, self.sweep, self.store, self.results)
        self.samples = pq.read_table(self.results / "samples")
        self._measured = pq.read_table(self.results / "measurements.parquet").to_pylist()

    def measured(self, metric: str, **wanted: Any) -> list[Row]:
        return [
            row
            for row in self._measured
            if row["metric"] == metric and all(row[name] == value for name, value in wanted.items())
        ]

    def examples(self, **wanted: Any) -> Columns:
        """Columns of the samples with these values; None: without one."""
        columns = {name: np.array(self.samples[name].to_pylist(), dtype=object) for name in self.samples.column_names}
        chosen = np.ones(self.samples.num_rows, dtype=bool)
        for name, value in wanted.items():
            chosen &= np.array([entry == value for entry in columns[name]])
        return {name: values[chosen] for name, values in columns.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Made:
    folder = tmp_path_factory.mktemp("audited")
    world = worlds.world(folder, AUDITED, facts=worlds.read_digits)
    worlds.fill(world.store, world.plan, make=worlds.leaking(digits_cache))
    return Made(world, folder)


def known(columns: Columns, name: str) -> NDArray[np.bool_]:
    return np.array([value is not None for value in columns[name]])


def auc(columns: Columns, attack: str, chosen: NDArray[np.bool_]) -> float:
    member = columns["is_member"][chosen].astype(bool)
    return float(roc_auc_score(member, columns[f"score_{attack}"][chosen].astype(float)))


def is_start(row: Row) -> bool:
    return '"iteration":0' in (row["param_json"] or "")


# --- memberships ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack, distance",
    [
        ("loss", None),
        ("shokri", None),
        ("data_release", "pixel"),
        ("data_release", "relative"),
        ("data_release", "features"),
    ],
)
@pytest.mark.parametrize("method", ["random", "dm"])
def test_curves_of_the_audit_seed_can_be_drawn_again(
    made: Made, method: str, attack: str, distance: str | None
) -> None:
    name = attack if distance in (None, "pixel") else f"{attack}_{distance}"
    columns = made.examples(method=method, audit="seed", iteration=None)
    for source in ("test_balanced", "test"):
        chosen = known(columns, f"score_{name}")
        if source == "test_balanced":
            chosen &= columns["balanced"] == True  # noqa: E712  (None is neither)
        wanted = {"audit": "seed", "method": method, "attack": attack, "nonmember_source": source, "member_role": None}
        found = [row for row in made.measured("mia_auc", **wanted) if not is_start(row)]
        (row,) = [row for row in found if json.loads(row["param_json"] or "{}").get("distance") == distance]
        assert auc(columns, name, chosen) == pytest.approx(row["value"], abs=1e-12)
        assert row["n"] == len({*zip(columns["split"][chosen], columns["example_id"][chosen], strict=True)})
        assert row["n_pos"] == (columns["is_member"][chosen] == True).sum()  # noqa: E712


def test_the_whole_curve_gives_the_rate_at_one_percent(made: Made) -> None:
    columns = made.examples(method="random", audit="seed", iteration=None)
    chosen = known(columns, "score_loss")
    false, true, _ = roc_curve(
        columns["is_member"][chosen].astype(bool), columns["score_loss"][chosen].astype(float), drop_intermediate=False
    )
    wanted = {"audit": "seed", "method": "random", "attack": "loss", "nonmember_source": "test", "fpr": 0.01}
    (row,) = [
        row for row in made.measured("mia_tpr_at_fpr", **wanted) if row["member_role"] is None and not is_start(row)
    ]
    assert true[false <= 0.01 + 1e-12].max() == pytest.approx(row["value"], abs=1e-12)


def test_roles_tell_the_strata_apart(made: Made) -> None:
    columns = made.examples(method="random", audit="seed", iteration=None)
    assert set(columns["member_role"]) == {"member_init", "member_other", "non_member"}
    for role in ("member_init", "member_other"):
        chosen = (columns["balanced"] == True) & np.isin(columns["member_role"], [role, "non_member"])  # noqa: E712
        wanted = {"audit": "seed", "method": "random", "attack": "loss", "nonmember_source": "test_balanced"}
        (row,) = [row for row in made.measured("mia_auc", member_role=role, **wanted) if not is_start(row)]
        assert auc(columns, "loss", chosen) == pytest.approx(row["value"], abs=1e-12)


def test_iteration_0_is_a_model_of_its_own(made: Made) -> None:
    started = made.examples(method="dm", audit="seed", iteration=0)
    assert set(started["model_key"]).isdisjoint(made.examples(method="dm", audit="seed", iteration=None)["model_key"])
    chosen = known(started, "score_loss")
    wanted = {"audit": "seed", "method": "dm", "attack": "loss", "nonmember_source": "test", "member_role": None}
    (row,) = [row for row in made.measured("mia_auc", **wanted) if is_start(row)]
    assert auc(started, "loss", chosen) == pytest.approx(row["value"], abs=1e-12)


@pytest.mark.parametrize("attack", ["loss", "shokri", "lira_offline"])
def test_every_target_of_a_pool_has_its_curve(made: Made, attack: str) -> None:
    wanted = {"audit": "pool", "method": "dm", "attack": attack, "nonmember_source": "pool", "member_role": None}
    rows = [row for row in made.measured("mia_auc", **wanted) if not is_start(row) and row["target_row"] is not None]
    assert [row["target_row"] for row in rows] == [0, 2], "the shadows are not attacked"
    for row in rows:
        columns = made.examples(method="dm", audit="pool", target_row=row["target_row"], iteration=None)
        chosen = (columns["split"] == "pool") & known(columns, f"score_{attack}")
        assert auc(columns, attack, chosen) == pytest.approx(row["value"], abs=1e-12)
        assert row["n"] == len(set(columns["example_id"][chosen])) == 400
        reserve = columns["split"] == "reserve"
        assert set(columns["member_role"][reserve]) == {"reserve"}
        assert set(columns["is_member"][reserve]) == {False}


def test_coins_are_memberships(made: Made) -> None:
    columns = made.examples(method="dm", audit="one_run")
    pool = columns["split"] == "pool"
    (bound,) = made.measured("mia_eps_lb", method="dm", attack="loss")
    assert bound["n_pos"] == (columns["is_member"][pool] == True).sum()  # noqa: E712
    assert known(columns, "score_loss").sum() == bound["n"] == pool.sum()


def test_the_report_reads_what_audits_and_attacks_write(made: Made) -> None:
    """Names of metrics and columns agree: every table of the report holds numbers."""
    text = report(made.results)
    privacy = text.partition("## Membership inference, audit seed")[2]
    assert "without a result" not in privacy
    for heading in (
        "AUC, started from",
        "AUC, others",
        "iteration 0",
        "k, at least images",
        "of ceiling %",
        "all test images",
    ):
        assert heading in privacy, heading
    assert "`data_release`" in privacy
    assert "`lira_offline`" in privacy
    assert "### Lower bound on epsilon" in privacy
    for heading in ("median distance", "gap to strongest", "ended %"):
        assert heading in text, heading


# --- robustness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["deepfool_l2", "deepfool_linf", "fmn_linf", "fgsm", "pgd_linf"])
def test_curves_over_epsilon_can_be_drawn_again(made: Made, attack: str) -> None:
    for method in ("random", "dm"):
        columns = made.examples(method=method, audit="seed", iteration=None)
        found = columns[f"adv_found_{attack}"][known(columns, f"adv_found_{attack}")].astype(float)
        rows = made.measured("adv_acc", method=method, attack=attack, adv_def="clip")
        assert len(rows) > 3
        for row in rows:
            assert (found > row["epsilon"]).mean() == pytest.approx(row["value"], abs=1e-12)
            chosen = known(columns, f"adv_found_{attack}")
            assert row["n"] == len(set(columns["example_id"][chosen])) == 100
            assert set(columns["split"][chosen]) == {"test"}


@pytest.mark.parametrize(
    ("attack", "column"),
    [("deepfool_l2", "adv_dist_l2"), ("deepfool_linf", "adv_dist_linf"), ("fmn_linf", "adv_dist_fmn_linf")],
)
def test_distances_are_those_of_the_rows(made: Made, attack: str, column: str) -> None:
    columns = made.examples(method="dm", audit="seed", iteration=None)
    chosen = known(columns, column)
    distances = columns[column][chosen].astype(np.float32)
    for row in made.measured("adv_acc", method="dm", attack=attack, adv_def="norm"):
        if row["epsilon"] > 0:
            assert (distances > np.float32(row["epsilon"])).mean() == pytest.approx(row["value"], abs=1e-12)
    right = (columns["pred"] == columns["y"])[chosen]
    (row,) = made.measured("adv_dist_median", method="dm", attack=attack)
    assert np.median(distances[right].astype(float)) == pytest.approx(row["value"])


# --- every example ----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_models(made: Made) -> None:
    from trainables.payloads import TrainedModel

    chain = worlds.chains_of(made.plan, method="dm")[0]
    signals = TrainedModel.load_outputs(made.store.open(worlds.stage_of(chain, "train").key).folder)
    columns = made.examples(model_key=worlds.stage_of(chain, "train").key)
    for split in ("test", "origin"):
        chosen = columns["split"] == split
        logits = signals[split].logits.double().numpy()
        labels = signals[split].labels.numpy()
        shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        own = shares[np.arange(len(labels)), labels]
        assert columns["example_id"][chosen].tolist() == signals[split].ids.tolist()
        assert columns["y"][chosen].tolist() == labels.tolist()
        assert columns["pred"][chosen].tolist() == logits.argmax(1).tolist()
        assert columns["loss"][chosen].astype(float) == pytest.approx(-np.log(own), rel=1e-9)
        assert columns["phi"][chosen].astype(float) == pytest.approx(np.log(own) - np.log1p(-own), rel=1e-6)


def test_no_example_stands_twice(made: Made) -> None:
    columns = made.examples()
    places = list(zip(columns["model_key"], columns["split"], columns["example_id"], strict=True))
    assert len(places) == len(set(places)) == made.rows == made.samples.num_rows


def test_a_file_per_data_set_and_method_that_says_so(made: Made) -> None:
    folder = made.results / "samples" / "digits"
    assert sorted(path.name for path in folder.iterdir()) == ["dm.parquet", "random.parquet"]
    for path in folder.iterdir():
        table = pq.read_table(path)
        assert set(table["dataset"].to_pylist()) == {"digits"}
        assert set(table["method"].to_pylist()) == {path.stem}


def test_classes_are_the_data_sets_own(tmp_path: Path, digits_cache: Path) -> None:
    text = """
    ddray: 1
    grids:
      g:
        protocol: quick
        axes: {method: [random], dataset: [digits], ipc: [1], num_classes: [3], class_draw: [4]}
    """
    found = Made(_filled(tmp_path, text, digits_cache), tmp_path)
    classes = found.measured("test_acc")[0]["class_ids"]
    assert classes != [0, 1, 2]
    assert set(found.examples(split="test")["y"]) == set(classes)


def _filled(folder: Path, text: str, cache: Path) -> worlds.World:
    world = worlds.world(folder, text, facts=worlds.read_digits)
    worlds.fill(world.store, world.plan, make=worlds.leaking(cache))
    return world


SMALL = """
ddray: 1
grids:
  g:
    protocol: quick
    axes: {method: [random, dm], dataset: [digits], ipc: [1], seed: [0, 1]}
    settings: {dm: {iterations: 200}}
    evaluations: {robustness: {attacks: [deepfool_l2], images: 50}, embedding: {}}
"""


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, SMALL)
    worlds.fill(store, plan)
    results = tmp_path / "results"
    assert write_samples(plan, sweep, store, results) > 0
    before = pq.read_table(results / "samples")
    (results / "samples" / "digits" / "gone.parquet").write_bytes(b"an old file")
    write_samples(plan, sweep, store, results)
    assert pq.read_table(results / "samples").equals(before)
    assert [path.name for path in results.iterdir()] == ["samples"], "nothing half-written is left"


def test_a_damaged_model_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep, plan, store = worlds.world(tmp_path, SMALL)
    worlds.fill(store, plan)
    whole = write_samples(plan, sweep, store, tmp_path / "whole")
    key = worlds.stage_of(plan.chains[0], "train").key
    path = store.open(key).folder / "signals.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        rows = write_samples(plan, sweep, store, tmp_path / "rest")
    assert 0 < rows < whole
    assert f"model {key[:12]} left out" in caplog.text
    assert key not in set(pq.read_table(tmp_path / "rest" / "samples")["model_key"].to_pylist())


def test_an_empty_store_has_no_samples(tmp_path: Path) -> None:
    sweep, plan, store = worlds.world(tmp_path, SMALL)
    (tmp_path / "results").mkdir()
    assert write_samples(plan, sweep, store, tmp_path / "results") == 0
    assert write_embeddings(plan, sweep, store, tmp_path / "results") == 0
    assert write_artifacts(plan, store, tmp_path / "results") == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == [ARTIFACTS_FILE]


def test_nothing_here_loads_torch(tmp_path: Path) -> None:
    world = worlds.world(tmp_path, SMALL)
    worlds.fill(world[2], world[1])
    worlds.collected(world, tmp_path)
    program = """
import sys
from pathlib import Path
import worlds
from ddray.store.artifacts import Store
from ddray.measurements.exports.artifacts import write_artifacts
from ddray.measurements.exports.maps import write_embeddings
from ddray.measurements.exports.samples import write_samples
from ddray.report.report import report
folder = Path(sys.argv[1])
sweep = worlds.sweep_of(folder, (folder / "tiny.yaml").read_text())
plan, store = worlds.plan_of(sweep), Store(str(folder / "store"), folder / "downloads")
assert write_samples(plan, sweep, store, folder / "results")
assert write_embeddings(plan, sweep, store, folder / "results")
assert write_artifacts(plan, store, folder / "results")
assert report(folder / "results")
print("torch" in sys.modules, "sklearn" in sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT / "tests", capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() == ["False", "False"], ran.stderr


# --- maps and files ---------------------------------------------------------------------------------------------------


def test_a_map_keeps_its_sources_together(tmp_path: Path, digits_cache: Path) -> None:
    text = SMALL.replace("robustness: {attacks: [deepfool_l2], images: 50}, ", "").replace("seed: [0, 1]", "seed: [0]")
    sweep, plan, store = world = _filled(tmp_path, text, digits_cache)
    results = worlds.collected(world, tmp_path)
    (stage,) = [stage for stage in plan.stages.values() if stage.kind == "tsne"]
    assert write_embeddings(plan, sweep, store, results) == 15
    table = pq.read_table(results / EMBEDDINGS_FILE)
    assert set(table["fit_id"].to_pylist()) == {stage.key}
    by_source: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        by_source.setdefault(row["source"], []).append(row)
    assert {source: len(rows) for source, rows in by_source.items()} == {"real": 5, "dm": 5, "random": 5}
    assert {row["method"] for row in by_source["real"]} == {None}
    assert {row["method"] for row in by_source["dm"]} == {"dm"}
    points = [(row["x"], row["y"]) for row in table.to_pylist()]
    assert points == [(float(2 * index), float(2 * index + 1)) for index in range(15)]
    assert [row["class_id"] for row in table.to_pylist()] == [index % 3 for index in range(15)]
    assert set(table["perplexity"].to_pylist()) == {5.0}


def test_files_are_listed_with_their_digests(tmp_path: Path) -> None:
    _, plan, store = worlds.world(tmp_path, SMALL)
    worlds.fill(store, plan)
    rows = write_artifacts(plan, store, tmp_path)
    table = pq.read_table(tmp_path / ARTIFACTS_FILE).to_pylist()
    assert rows == len(table)
    assert {row["kind"] for row in table} >= {"distill", "train", "accuracy", "attack", "robustness", "embedding"}
    assert {row["key"] for row in table} == store.keys()
    for row in table:
        path = tmp_path / "store" / row["path"]
        assert (sha256(path), path.stat().st_size) == (row["sha256"], row["bytes"])
        assert not row["path"].startswith("/")


def test_collect_writes_them_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ddray.cli import _companions

    sweep, plan, store = worlds.world(tmp_path, SMALL)
    worlds.fill(store, plan)
    (tmp_path / "results").mkdir()
    prepared = SimpleNamespace(plan=plan, sweep=sweep)
    _companions(prepared, tmp_path / "results", store)
    assert {path.name for path in (tmp_path / "results").iterdir()} == {ARTIFACTS_FILE, "samples"}
    rows = pq.read_table(tmp_path / "results" / "samples").num_rows
    assert f"samples: {rows} rows" in capsys.readouterr().out


def test_columns_have_one_type_in_all_files(made: Made) -> None:
    schemas = {pq.read_schema(path) for path in (made.results / "samples").rglob("*.parquet")}
    (schema,) = schemas
    assert schema.field("is_member").type == pa.bool_()
    assert schema.field("score_lira_offline").type == pa.float64()
