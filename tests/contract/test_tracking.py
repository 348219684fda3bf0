"""The mirror's contract: MLflow says what the store says, mirroring again changes nothing, and it survives anything."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds

from ddray.errors import EnvironmentProblem
from ddray.measurements.exports.picture import GAP, picture
from ddray.measurements.rows import collect
from ddray.results import RUNS_HTML
from ddray.settings import Folders
from ddray.store.artifacts import Store
from ddray.tracking import content, measured, writer
from ddray.tracking import mirror as mirroring
from ddray.tracking.links import write_links
from ddray.tracking.mirror import MirrorResult, mirror
from ddray.tracking.runs import Place, Run, tracking_uri
from ddray.tracking.schema import check_schema

SWEEP = """
ddray: 1
grids:
  small:
    protocol: quick
    axes: {method: [random, dm, full], dataset: [digits], ipc: [2], seed: [0, 1]}
    settings: {dm: {iterations: 200}}
"""
"""Six points: two each of random, dm and full; the two of random and of dm share a distilled set."""


@dataclass
class World:
    sweep: Any
    plan: Any
    store: Store
    folders: Folders
    folder: Path

    def mirror(self, **said: Any) -> MirrorResult:
        collect(self.plan, self.sweep, self.store, self.folder)
        return mirror(self.plan, self.sweep, self.store, self.folders, self.folder, **said)

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri(self.folders.mlflow_database))

    def runs(self) -> dict[str, Any]:
        """Active runs by point; that no point has two is asserted here."""
        experiment = self.client.get_experiment_by_name(f"ddray/{self.sweep.name}")
        found = self.client.search_runs([experiment.experiment_id], max_results=1000)
        runs = {run.data.tags["ddray.point"]: run for run in found}
        assert len(runs) == len(found)
        return runs

    def run(self, **axes: Any) -> Any:
        (chain,) = worlds.chains_of(self.plan, **axes)
        return self.runs()[chain.point.hash]


ELSEWHERE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from contract.test_tracking import world
print(world(Path(sys.argv[1])).mirror())
"""


def mirror_elsewhere(folder: Path) -> subprocess.CompletedProcess[str]:
    """Mirror the world of a folder in a new process: MLflow remembers databases, even deleted ones, within one."""
    tests = Path(worlds.__file__).parent
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(tests)], capture_output=True, text=True, check=False
    )


def world(folder: Path) -> World:
    sweep, plan, store = worlds.world(folder, SWEEP)
    folders = Folders(folder / "home", store.location, folder / "data", folder / "cache")
    return World(sweep, plan, store, folders, folder / "results")


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in them; making one takes seconds."""
    made = world(tmp_path_factory.mktemp("blank"))
    made.folders.mlflow_database.parent.mkdir(parents=True)
    made.client.search_experiments()
    return made.folders.mlflow_database


@pytest.fixture
def empty(tmp_path: Path, blank: Path) -> World:
    made = world(tmp_path)
    made.folders.mlflow_database.parent.mkdir(parents=True)
    shutil.copy(blank, made.folders.mlflow_database)
    return made


@pytest.fixture
def done(empty: World) -> World:
    worlds.fill(empty.store, empty.plan)
    return empty


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Mirrored: random done, dm failed, one of full done and one pending. Tests only look."""
    made = world(tmp_path_factory.mktemp("mixed"))
    worlds.fill(made.store, made.plan, chains=worlds.chains_of(made.plan, method="random"))
    worlds.fill(made.store, made.plan, chains=worlds.chains_of(made.plan, method="full", seed=0))
    worlds.fail(
        made.store, worlds.stage_of(worlds.chains_of(made.plan, method="dm")[0], "distill"), "StageFailure: diverged"
    )
    assert made.mirror() == MirrorResult(5, 0, 0)
    return made


def test_points_with_an_outcome_have_a_run_and_pending_ones_none(mixed: World) -> None:
    runs = mixed.runs()
    (pending,) = worlds.chains_of(mixed.plan, method="full", seed=1)
    assert runs.keys() == {chain.point.hash for chain in mixed.plan.chains} - {pending.point.hash}
    states = {(run.data.tags["method"], run.info.status, run.data.tags["status"]) for run in runs.values()}
    assert states == {("random", "FINISHED", "done"), ("dm", "FAILED", "failed"), ("full", "FINISHED", "done")}


def test_a_page_leads_from_points_to_runs(mixed: World) -> None:
    page = (mixed.folder / RUNS_HTML).read_text()
    number = mixed.client.get_experiment_by_name(f"ddray/{mixed.sweep.name}").experiment_id
    assert dict(re.findall(r'<tr id="(\w+)">.*href="([^"]+)"', page)) == {
        point: f"http://127.0.0.1:5000/#/experiments/{number}/runs/{run.info.run_id}?workflowType=machine_learning"
        for point, run in mixed.runs().items()
    }
    assert "<code>ddray ui</code>" in page


def test_a_page_that_was_lost_is_written_by_the_next_mirror_though_nothing_changed(done: World) -> None:
    done.mirror()
    page = done.folder / RUNS_HTML
    before = page.read_bytes()
    page.unlink()
    assert done.mirror() == MirrorResult(0, 0, 0)
    assert page.read_bytes() == before


def test_a_database_without_an_interface_is_named_instead(done: World) -> None:
    place = Place(None, None, "postgresql://somebody:secret@db/mlflow")
    runs = {chain.point.hash: [Run("1" * 32, None, True)] for chain in done.plan.chains}
    write_links(done.folder, done.sweep.name, done.plan.chains, runs, place, "7")
    page = (done.folder / RUNS_HTML).read_text()
    assert "postgresql://db/mlflow" in page
    assert "secret" not in page
    assert "<a " not in page
    write_links(done.folder, done.sweep.name)
    assert f"ddray collect {done.sweep.name} --mlflow" in (done.folder / RUNS_HTML).read_text()


def test_a_run_says_what_the_point_is(mixed: World) -> None:
    run = mixed.run(method="random", seed=1)
    (chain,) = worlds.chains_of(mixed.plan, method="random", seed=1)
    assert run.info.run_name == "random-digits-ipc2-convnet3-s1"
    tags = run.data.tags
    expected = {
        "dataset": "digits",
        "ipc": "2",
        "architecture": "convnet3",
        "seed": "1",
        "protocol": "quick",
        "git_commit": "0123456789abcdef",
        "dirty": "false",
    }
    assert {name: tags[name] for name in expected} == expected
    for kind in ("distill", "train", "accuracy"):
        assert tags[f"ddray.stage.{kind}"] == worlds.stage_of(chain, kind).key
    assert run.data.params["train.recipe.epochs"] == "100"
    assert run.data.params["distill.distill_seed"] == "0"
    assert len(run.data.params) <= 100


def test_a_run_holds_the_numbers_of_the_store(mixed: World) -> None:
    from trainables.payloads import Metrics

    (chain,) = worlds.chains_of(mixed.plan, method="random", seed=1)
    run = mixed.run(method="random", seed=1)
    rows = Metrics.load(mixed.store.open(worlds.stage_of(chain, "accuracy").key).folder).rows
    for row in rows:
        if row.get("class_id") is None and row["value"] is not None:
            assert run.data.metrics[row["metric"]] == pytest.approx(row["value"], rel=1e-12)
    assert run.data.metrics["train_s"] == 2.5
    assert run.data.metrics["distill_bytes"] > 0
    assert not [name for name in run.data.metrics if name.endswith("_class")]
    assert run.data.metrics["worst_class_acc"] == run.data.metrics["fair_worst_acc"]
    assert len(run.data.metrics) <= 40
    curve = mixed.client.get_metric_history(run.info.run_id, "curve_test_acc")
    assert [entry.step for entry in curve] == [50, 100]
    assert [entry.value for entry in curve] == pytest.approx([0.43 / 2, 0.43])


def test_a_run_has_its_classes_and_its_picture(mixed: World, tmp_path: Path) -> None:
    from PIL import Image

    run = mixed.run(method="random", seed=0)
    names = [entry.path for entry in mixed.client.list_artifacts(run.info.run_id)]
    assert sorted(names) == ["distilled.png", "per_class.json"]
    table = json.loads(
        Path(mixed.client.download_artifacts(run.info.run_id, "per_class.json", str(tmp_path))).read_text()
    )
    assert table["columns"] == ["class_id", "test_acc_class", "test_loss_class"]
    assert [row[0] for row in table["data"]] == list(range(10))
    image = Image.open(mixed.client.download_artifacts(run.info.run_id, "distilled.png", str(tmp_path)))
    assert image.size == (2 * (64 + GAP) + GAP, 10 * (64 + GAP) + GAP)
    full = mixed.run(method="full", seed=0)
    assert [entry.path for entry in mixed.client.list_artifacts(full.info.run_id)] == ["per_class.json"]


def test_a_run_names_its_data(mixed: World) -> None:
    run = mixed.run(method="random", seed=0)
    (chain,) = worlds.chains_of(mixed.plan, method="random", seed=0)
    told = {
        (each.dataset.name, each.dataset.digest, each.tags[0].value): each.tags[0].key
        for each in run.inputs.dataset_inputs
    }
    distill, train = worlds.stage_of(chain, "distill"), worlds.stage_of(chain, "train")
    digest = train.config.dataset.digest.removeprefix("sha256:")
    assert set(told) == {("digits", digest[:36], "evaluation"), (distill.label, distill.key[:36], "training")}


def test_the_experiment_has_a_view_with_the_headlines(mixed: World) -> None:
    tags = mixed.client.get_experiment_by_name("ddray/tiny").tags
    view = json.loads(tags[f"mlflow.sharedViewState.{content.VIEW}"])
    assert view["selectedColumns"][1:5] == [f"metrics.`{name}`" for name in content.HEADLINES]
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_report_is_a_run_and_is_renewed_with_it(done: World) -> None:
    done.folder.mkdir(parents=True, exist_ok=True)
    (done.folder / "report.html").write_text("<p>first</p>")
    (done.folder / "report.md").write_text("first")
    (done.folder / "figures").mkdir()
    (done.folder / "figures" / "accuracy.png").write_bytes(b"png")
    assert done.mirror() == MirrorResult(6, 0, 0), "a run more than the points, which nobody counts"
    run = done.runs()["report"]
    names = [entry.path for entry in done.client.list_artifacts(run.info.run_id)]
    assert sorted(names) == ["figures", "report.html", "report.md"]
    (done.folder / "report.html").write_text("<p>second</p>")
    assert done.mirror() == MirrorResult(0, 0, 0)
    again = done.runs()["report"]
    assert again.info.run_id == run.info.run_id
    assert Path(done.client.download_artifacts(run.info.run_id, "report.html")).read_text() == "<p>second</p>"
    digest = again.data.tags["ddray.digest"]
    done.mirror()
    assert done.runs()["report"].data.tags["ddray.digest"] == digest


def number(metric: str, value: float, *parameters: Any) -> measured.Number:
    """``parameters``: attack, norm, epsilon, audit, false-positive rate."""
    filled = (*parameters, *[None] * (5 - len(parameters)))
    return measured.Number(metric, value, None, filled, "ok", None, 0)


def test_epsilons_are_steps_and_budgets_have_names_that_a_person_reads() -> None:
    epsilons = [number / 255 for number in (0, 1, 2, 4, 8, 16)]
    rows = [number("adv_acc", 1 - epsilon, "pgd_linf", "linf", epsilon) for epsilon in epsilons]
    rows += [number("adv_acc", 1 - epsilon, "deepfool_l2", "l2", epsilon) for epsilon in (0.0, 0.25, 0.5)]
    shown = content.metrics(measured.MeasuredPoint(rows))
    curve = [(each.step, each.value) for each in shown if each.name == "adv_acc/pgd_linf/curve 255 eps"]
    assert curve == [(level, pytest.approx(1 - level / 255)) for level in (0, 1, 2, 4, 8, 16)]
    assert [each.step for each in shown if each.name == "adv_acc/deepfool_l2/curve 1000 eps"] == [0, 250, 500]
    singles = {each.name: each.value for each in shown if "curve" not in each.name}
    assert singles == {
        "robust_acc": pytest.approx(1 - 8 / 255),
        "adv_acc/pgd_linf/eps 8/255": pytest.approx(1 - 8 / 255),
        "adv_acc/pgd_linf/eps 2/255": pytest.approx(1 - 2 / 255),
        "adv_acc/deepfool_l2/eps 0.5": 0.5,
    }


def test_the_strongest_attack_is_the_auc_and_there_are_forty_names_at_most() -> None:
    attacks = ("loss", "shokri", "lira_online", "lira_offline", "rmia", "calib", "data_release", "entropy")
    rows = [number("mia_auc", 0.5 + index / 100, attack, None, None, "pool") for index, attack in enumerate(attacks)]
    rows += [number("mia_k", 3.0, attack, None, None, "pool") for attack in attacks]
    rows += [number("mia_auc_strongest", 0.56, "data_release", None, None, "pool")]
    point = measured.MeasuredPoint([*rows, *(number(f"metric_{index}", 1.0) for index in range(60))])
    names = {each.name: each.value for each in content.metrics(point)}
    assert names["auc"] == 0.56
    assert "mia_auc/entropy/pool" not in names, "in no panel"
    assert [name for name in names if name.startswith("mia_k")] == ["mia_k/data_release/pool"]
    assert len(names) == content.MAX_METRICS - 1, "one is left for the curve of the training"
    assert content.headline_attack(point) == "data_release"


def test_a_failed_run_says_why(mixed: World) -> None:
    assert "StageFailure: diverged" in mixed.run(method="dm", seed=0).data.tags["note"]


def test_artifacts_lie_below_home(mixed: World) -> None:
    experiment = mixed.client.get_experiment_by_name("ddray/tiny")
    assert experiment.artifact_location == (mixed.folders.mlflow_artifacts / "tiny").as_uri()
    assert len(list(mixed.folders.mlflow_artifacts.rglob("distilled.png"))) == 2


def test_mirroring_again_does_nothing_and_needs_no_mlflow(mixed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("MLflow was asked for")

    monkeypatch.setattr(writer, "_mlflow", refuse)
    assert mixed.mirror() == MirrorResult(0, 0, 0)


def test_what_arrives_later_is_added_to_the_run_that_is_there(empty: World) -> None:
    worlds.fill(empty.store, empty.plan, chains=worlds.chains_of(empty.plan, method="random"))
    distill = worlds.stage_of(worlds.chains_of(empty.plan, method="dm")[0], "distill")
    worlds.fail(empty.store, distill)
    assert empty.mirror() == MirrorResult(4, 0, 0)
    before = {point: run.info.run_id for point, run in empty.runs().items()}
    worlds.fill(empty.store, empty.plan)
    assert empty.mirror() == MirrorResult(2, 2, 0)
    after = empty.runs()
    assert len(after) == 6
    assert all(after[point].info.run_id == run for point, run in before.items())
    run = empty.run(method="dm", seed=0)
    assert (run.info.status, run.data.tags["status"], run.data.tags["note"]) == ("FINISHED", "done", "")
    assert run.data.metrics["test_acc"] == pytest.approx(0.52)


def test_a_deleted_database_is_rebuilt_the_same_and_quietly(done: World, tmp_path: Path) -> None:
    assert done.mirror() == MirrorResult(6, 0, 0)
    before = contents(done)
    done.folders.mlflow_database.rename(tmp_path / "before.db")
    ran = mirror_elsewhere(tmp_path)
    assert (ran.stdout.strip(), ran.stderr) == (str(MirrorResult(6, 0, 0)), "")
    rebuilt = world(tmp_path)
    rebuilt.folders = replace(rebuilt.folders, home=shutil.copytree(done.folders.home, tmp_path / "copy"))
    assert contents(rebuilt) == before


def contents(looked_at: World) -> dict[str, Any]:
    return {point: (run.data.metrics, run.data.params, run.data.tags) for point, run in looked_at.runs().items()}


@pytest.mark.parametrize("call", ["log_batch", "log_artifacts", "set_terminated", "set_tag"])
def test_a_killed_mirror_is_completed(done: World, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    from mlflow import MlflowClient

    calls = []
    original = getattr(MlflowClient, call)

    def dying(*given: Any, **said: Any) -> Any:
        calls.append(call)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given, **said)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, dying)
        with pytest.raises(KeyboardInterrupt):
            done.mirror()
    assert len(done.runs()) == 3
    assert done.mirror() == MirrorResult(3, 1, 0)
    runs = done.runs()
    assert len(runs) == 6
    for run in runs.values():
        assert run.info.status == "FINISHED"
        history = done.client.get_metric_history(run.info.run_id, "curve_test_acc")
        assert [entry.step for entry in history] == [50, 100]
        assert len(done.client.get_metric_history(run.info.run_id, "test_acc")) == 1
    assert done.mirror() == MirrorResult(0, 0, 0)


def test_points_that_left_the_plan_are_tagged_and_may_return(done: World) -> None:
    done.mirror()
    whole = done.plan
    done.plan = worlds.plan_of(worlds.sweep_of(done.folder, SWEEP.replace("seed: [0, 1]", "seed: [0]")))
    assert done.mirror() == MirrorResult(0, 0, 3)
    planned = [run.data.tags["ddray.planned"] for run in done.runs().values()]
    assert sorted(planned) == ["false"] * 3 + ["true"] * 3
    assert done.mirror() == MirrorResult(0, 0, 3)
    done.plan = whole
    assert done.mirror() == MirrorResult(0, 3, 0)
    assert {run.data.tags["ddray.planned"] for run in done.runs().values()} == {"true"}


def test_doubled_runs_are_reduced_to_one(done: World) -> None:
    done.mirror()
    run = done.run(method="full", seed=0)
    done.client.create_run(run.info.experiment_id, tags={"ddray.point": run.data.tags["ddray.point"]})
    assert done.mirror() == MirrorResult(0, 1, 0)
    assert done.run(method="full", seed=0).info.run_id == run.info.run_id


def test_a_changed_configuration_replaces_the_run(done: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done.mirror()
    monkeypatch.setattr(measured, "VERSION", measured.VERSION + 1)
    monkeypatch.setattr(content, "params", lambda chain: {"train.recipe.epochs": "7"})
    assert done.mirror() == MirrorResult(0, 6, 0)
    assert {run.data.params["train.recipe.epochs"] for run in done.runs().values()} == {"7"}


def test_a_deleted_experiment_comes_back(done: World) -> None:
    done.mirror()
    client = done.client
    client.delete_experiment(client.get_experiment_by_name("ddray/tiny").experiment_id)
    done.mirror()
    assert len(done.runs()) == 6


def test_tables_that_cannot_be_read_directly_are_asked_of_mlflow(done: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done.mirror()
    monkeypatch.setattr(mirroring, "existing_runs", lambda database, experiment: None)
    assert done.mirror() == MirrorResult(0, 0, 0)


def test_only_one_mirror_at_a_time(done: World) -> None:
    from filelock import FileLock

    before = done.folders.mlflow_database.read_bytes()
    lock = FileLock(str(done.folders.mlflow_database) + ".lock")
    with lock, pytest.raises(EnvironmentProblem, match="another mirror is writing"):
        done.mirror(lock_seconds=0.1)
    assert done.folders.mlflow_database.read_bytes() == before


def test_a_broken_database_says_what_to_do_and_that_helps(done: World, tmp_path: Path) -> None:
    database = done.folders.mlflow_database
    database.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(EnvironmentProblem, match="Delete the file and mirror again"):
        done.mirror()
    database.unlink()
    assert mirror_elsewhere(tmp_path).stdout.strip() == str(MirrorResult(6, 0, 0))


def test_a_database_of_another_mlflow_is_said_to_be_one(done: World) -> None:
    database = done.folders.mlflow_database
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (ours,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        check_schema(database)  # control
        connection.execute("UPDATE alembic_version SET version_num = 'feedfeedfeed'")
        connection.execute("DELETE FROM tags")
        connection.commit()
    with pytest.raises(EnvironmentProblem, match=rf"another version of MLflow; got schema feedfeedfeed; .*{ours}"):
        done.mirror()


@pytest.mark.parametrize("content", ["another program", "text", "nothing"])
def test_what_is_no_database_of_mlflow_is_told_apart(tmp_path: Path, content: str) -> None:
    database = tmp_path / "what? 50%" / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(b"no database, whatever its name" * 100 if content == "text" else b"")
    if content == "another program":
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
    if content == "nothing":
        check_schema(database)
        return
    said = "got tables songs" if content == "another program" else "not a database"
    with pytest.raises(EnvironmentProblem, match=rf"{said}.*Delete the file and mirror again"):
        check_schema(database)


@pytest.mark.parametrize("unquotes", [True, False], ids=["SQLAlchemy 2.1", "SQLAlchemy 2.0"])
@pytest.mark.parametrize("name", ["plain", "what next?", "50%", "50%25 #1", "für Müller & Söhne", "a=b;c"])
def test_the_address_of_a_database_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unquotes: bool
) -> None:
    """Whether the library unquotes paths or takes them as they stand."""
    import sqlalchemy.engine

    ours = sqlalchemy.engine.make_url

    def as_it_stands(address: str) -> Any:
        return types.SimpleNamespace(database=address.split("///", 1)[1].split("?")[0])

    if not unquotes:
        monkeypatch.setattr(sqlalchemy.engine, "make_url", as_it_stands)
    database = tmp_path / name / "mlflow.db"
    database.parent.mkdir()
    address = tracking_uri(database)
    if unquotes:
        assert ours(address).database == str(database)
        engine = sqlalchemy.create_engine(address)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE songs (title TEXT)")
        engine.dispose()
    else:  # what that version hands to SQLite: the path as it stands, with the option uri where it is asked for
        path, _, query = address.split("///", 1)[1].partition("?")
        with contextlib.closing(sqlite3.connect(path, uri=query == "uri=true")) as connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [database]


def test_the_repositorys_folder_is_not_taken_for_mlflow(done: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    with pytest.raises(EnvironmentProblem, match="folder mlflow/ of this repository is not the package"):
        done.mirror()


def test_a_broken_table_says_what_to_do(done: World) -> None:
    done.folder.mkdir()
    (done.folder / "measurements.parquet").write_bytes(b"PAR1")
    with pytest.raises(EnvironmentProblem, match="Run `ddray collect`"):
        mirror(done.plan, done.sweep, done.store, done.folders, done.folder)


# --- the picture ------------------------------------------------------------------------------------------------------


def pixels(content: bytes) -> Any:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_picture_has_a_row_per_class_and_clamps() -> None:
    images = np.linspace(-1, 2, 24)[:, None, None, None] * np.ones((1, 1, 16, 16))
    labels = np.repeat([0, 1], 12)
    shown = pixels(picture(images, labels, {"space": "pixel01"}))
    assert shown.shape == (2 * 66 + 2, 10 * 66 + 2, 3)
    assert (shown[2:66, 2:66] == 0).all()
    assert (shown[70:130, -60:-10] == 255).all()


def test_normalised_images_are_shown_as_they_were() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 3, 8, 8)), np.arange(4)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    normalised = (images - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    facts = {"space": "normalised", "mean": mean, "std": std}
    assert picture(normalised, labels, facts) == picture(images, labels, {"space": "pixel01"})
