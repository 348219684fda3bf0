"""`ddray evaluate` as a person runs it: sets and models from files get the numbers that ours get, or are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from support import digits_config
from workspace import Ran, Workspace, places_in, stages

from ddray.external.evaluation import FILE
from ddray.prepare import prepare
from ddray.request import Request
from trainables.data.cache import build, open_split
from trainables.data.known import KNOWN
from trainables.data.pixels import normalise

OURS = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 3}
  axes: {dataset: [digits], architecture: [convnet3-d2-w16], seed: [0, 1]}
grids:
  chosen:
    axes: {method: [random], ipc: [2]}
  audited:
    axes: {method: [full], origin_per_class: [12], seed: [0]}
    train: {epochs: 40, augmentation: none, lr: 0.05}
    evaluations: {privacy: {audit: [seed], shadows: 0, attacks: [loss, conf], start: false}}
"""
RECIPE = ("--protocol", "quick", "--train", "epochs=3", "--architecture", "convnet3-d2-w16")
MODEL = ("--dataset", "digits", "--normalisation", "digits", "--architecture", "convnet3-d2-w16")
HERE = ("--local", "--no-mlflow")


class Exported:
    """A sweep of ours, and its sets and models as files that could be anybody's."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        path = workspace.write("ours", OURS)
        ran = workspace.run("sweep", path, *HERE)
        assert ran.code == 0, ran.err
        prepared = workspace.prepare(path)
        (made,) = stages(prepared, "distill")
        (trained,) = stages(prepared, "train", method="full")
        self.folder = workspace.folder / "files"
        self.folder.mkdir()
        self.set_key, self.model_key = made.key, trained.key
        shutil.copy(workspace.store.open(made.key).folder / "set.safetensors", self.folder / "set.safetensors")
        state = load_file(workspace.store.open(trained.key).folder / "model.safetensors")
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, self.folder / "net.pt")
        (self.folder / "members.json").write_text('{"kind": "draw", "per_class": 12, "draw": 0}')

    def evaluate(self, *arguments: object) -> Ran:
        return self.workspace.run("evaluate", *arguments, *HERE)

    def rows(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = parquet.read_table(self.workspace.results(name).measurements).to_pylist()
        return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, digits_cache: Path) -> Any:
    with places_in(tmp_path_factory.mktemp("evaluate"), digits_cache) as workspace:
        yield Exported(workspace)


@pytest.fixture(autouse=True)
def the_exported_places(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of the whole file instead of the test's own."""
    for name in ("HOME", "STORE", "CACHE"):
        monkeypatch.setenv(f"DDRAY_{name}", str(exported.workspace.folder / name.lower()))


def numbers(rows: list[dict[str, Any]], **chosen: Any) -> dict[tuple[Any, ...], float]:
    """What was measured, by what tells it from other numbers; without times."""
    found = {}
    for row in rows:
        if row["property"] != "cost" and row["status"] == "ok" and all(row[name] == chosen[name] for name in chosen):
            key = tuple(row[name] for name in ("metric", "class_id", "seed", "attack", "epsilon", "fpr", "member_role"))
            found[(*key, row["nonmember_source"])] = row["value"]
    return found


def refused(ran: Ran) -> str:
    assert ran.code == 2, (ran.code, ran.err)
    assert "Traceback" not in ran.err
    assert "nothing was started" in ran.err
    return ran.err


# --- sets -------------------------------------------------------------------------------------------------------------


def test_our_own_set_from_a_file_gets_our_own_numbers(exported: Exported) -> None:
    request = (
        "--set",
        exported.folder / "set.safetensors",
        "--dataset",
        "digits",
        "--space",
        "pixel01",
        *RECIPE,
        "--seeds",
        "0,1",
        "--robustness",
        "none",
        "--name",
        "again",
    )
    ran = exported.evaluate(*request)
    assert ran.code == 0, ran.err
    assert "2 of 2 points done" in ran.err
    ours, theirs = numbers(exported.rows("ours"), method="random"), numbers(exported.rows("again"))
    accuracy = {key: value for key, value in theirs.items() if not str(key[0]).startswith("mia")}
    assert accuracy == ours
    assert len({value for key, value in ours.items() if key[0] == "test_loss"}) == 2, "the seeds must differ"
    row = next(row for row in exported.rows("again") if row["metric"] == "test_acc")
    known = next(row for row in exported.rows("ours") if row["metric"] == "test_acc" and row["method"] == "random")
    assert row["method"] == "external"
    for column in ("data_hash", "ipc", "effective_ipc", "protocol", "lr", "model_hash", "ratio", "origin_per_class"):
        assert row[column] == known[column], column
    assert (row["init"], row["distill_seed"], row["distill_iters"], row["factor"]) == (None, None, None, 1)
    assert json.loads(row["param_json"])["settings"]["space"] == "pixel01"

    before = exported.workspace.manifests()
    again = exported.evaluate(*request)
    assert (again.code, "nothing to do; 2 of 2 points done" in again.err) == (0, True)
    assert exported.workspace.manifests() == before
    for command in (("report", "again"), ("collect", "again"), ("sweep", "again", *HERE), ("plan", "again")):
        ran = exported.workspace.run(*command)
        assert (ran.code, "Traceback" in ran.err) == (0, False), command
    more = exported.evaluate(*request[:-5], "0,1,2", *request[-4:])
    assert "3 of 3 points done" in more.err


def test_normalised_images_and_further_networks(exported: Exported) -> None:
    content = load_file(exported.folder / "set.safetensors")
    torch.save([(content["images"] - 0.25) / 0.5, content["labels"]], exported.folder / "normalised.pt")
    ran = exported.evaluate(
        "--set",
        exported.folder / "normalised.pt",
        "--dataset",
        "digits",
        "--space",
        "normalised",
        "--mean",
        "0.25",
        "--std",
        "0.5",
        *RECIPE,
        "--architecture",
        "convnet3-d1-w8",
        "--robustness",
        "fgsm",
        "--images",
        "20",
    )
    assert ran.code == 0, ran.err
    rows = exported.rows("normalised")
    found = numbers([row for row in rows if row["architecture"] == "convnet3-d2-w16"])
    ours = numbers(exported.rows("ours"), method="random", seed=0)
    losses = {key: value for key, value in ours.items() if key[0] == "test_loss_class"}
    assert losses
    assert {key: found[key] for key in losses} == pytest.approx(losses, abs=1e-4)
    attacked = [row for row in rows if row["metric"] == "adv_acc"]
    assert {row["architecture"] for row in attacked} == {"convnet3-d2-w16", "convnet3-d1-w8"}
    assert {row["n"] for row in attacked} == {20}


def test_a_factor_trains_on_the_decoded_images(exported: Exported) -> None:
    ran = exported.evaluate(
        "--set",
        exported.folder / "set.safetensors",
        "--dataset",
        "digits",
        "--space",
        "pixel01",
        *RECIPE,
        "--factor",
        "2",
        "--robustness",
        "none",
        "--name",
        "decoded",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["sweep"] == "decoded"
    (row,) = [row for row in exported.rows("decoded") if row["metric"] == "train_acc"]
    assert (row["n"], row["ipc"], row["effective_ipc"]) == (80, 2, 8)


# --- models -----------------------------------------------------------------------------------------------------------


def test_our_own_model_from_a_file_gets_our_own_numbers(exported: Exported) -> None:
    ran = exported.evaluate(
        "--model",
        exported.folder / "net.pt",
        *MODEL,
        "--robustness",
        "none",
        "--members",
        exported.folder / "members.json",
        "--name",
        "model",
    )
    assert ran.code == 0, ran.err
    ours = numbers(exported.rows("ours"), method="full")
    theirs = {(*key[:2], 0, *key[3:]): value for key, value in numbers(exported.rows("model")).items()}
    of_training = {"train_acc", "train_loss", "trained_lr", "optimism"}
    assert {key[0] for key in ours.keys() - theirs.keys()} <= of_training
    assert {key: theirs[key] for key in ours if key in theirs} == {key: ours[key] for key in ours if key in theirs}
    assert {"test_acc", "test_acc_class", "test_loss", "fair_var_acc", "mia_auc"} <= {key[0] for key in theirs}
    found = [value for key, value in ours.items() if key[0] == "mia_auc" and key[3] == "loss" and value is not None]
    assert max(found) > 0.55, "the audit must have something to find"
    row = next(row for row in exported.rows("model") if row["metric"] == "test_acc")
    assert (row["method"], row["protocol"], row["norm_layer"]) == ("external", "external", "instance")
    for column in ("lr", "optimizer", "train_epochs", "train_aug", "selection", "ipc", "seed", "budget_fraction"):
        assert row[column] is None, column
    assert row["origin_per_class"] == 12


def test_members_by_index_are_the_same_members(exported: Exported) -> None:
    signals = load_file(exported.workspace.store.open(exported.model_key).folder / "signals.safetensors")
    (exported.folder / "members.txt").write_text("\n".join(map(str, signals["origin.ids"].tolist())))
    ran = exported.evaluate(
        "--model",
        exported.folder / "net.pt",
        *MODEL,
        "--robustness",
        "none",
        "--members",
        exported.folder / "members.txt",
        "--members-order",
        "canonical",
        "--name",
        "listed",
    )
    assert ran.code == 0, ran.err
    # Which of the test images stand against as many members is drawn for each origin; all of them is all of them.
    chosen = {"metric": "mia_auc", "attack": "loss", "nonmember_source": "test"}
    ours = numbers(exported.rows("ours"), method="full", **chosen)
    theirs = {(*key[:2], 0, *key[3:]): value for key, value in numbers(exported.rows("listed")).items()}
    assert ours
    assert {key: theirs[key] for key in ours} == ours
    text = (exported.workspace.results("listed").folder / "report.md").read_text()
    each = len(signals["origin.ids"]) // 10
    assert f"protocol external, origin {each} per class\n" in text
    assert "without it an AUC says little" in text


@pytest.mark.parametrize(
    "origin",
    [
        {"kind": "pool", "per_class": 20, "draw": 0, "row": 0},
        {"kind": "coin", "per_class": 20, "draw": 0, "row": 1},
        {"kind": "draw", "per_class": 12, "draw": 0, "block": 1},
    ],
)
def test_members_of_every_kind_of_origin_are_audited(exported: Exported, origin: dict[str, Any]) -> None:
    name = origin["kind"]
    (exported.folder / f"{name}.json").write_text(json.dumps(origin))
    request = ("--robustness", "none", "--members", exported.folder / f"{name}.json", "--name", f"of-{name}")
    ran = exported.evaluate("--model", exported.folder / "net.pt", *MODEL, *request)
    assert ran.code == 0, ran.err
    rows = [row for row in exported.rows(f"of-{name}") if row["metric"] == "mia_auc" and row["attack"] == "loss"]
    (row,) = [row for row in rows if row["nonmember_source"] == "test_balanced" and row["member_role"] is None]
    assert row["n_pos"] == row["n_neg"] > 100
    assert abs(row["value"] - 0.5) < 0.15  # the model was not made of these


def test_members_of_some_classes_are_audited_class_by_class(exported: Exported) -> None:
    (exported.folder / "uneven.json").write_text(json.dumps(list(range(104)) + list(range(128, 134))))
    request = (
        "--robustness",
        "none",
        "--members",
        exported.folder / "uneven.json",
        "--members-order",
        "canonical",
        "--name",
        "uneven",
    )
    ran = exported.evaluate("--model", exported.folder / "net.pt", *MODEL, *request)
    assert ran.code == 0, ran.err
    rows = [row for row in exported.rows("uneven") if row["metric"] == "mia_auc" and row["attack"] == "loss"]
    found = {row["nonmember_source"]: row for row in rows if row["member_role"] is None}
    assert (found["test_balanced"]["n_pos"], found["test_balanced"]["n_neg"]) == (56, 56)
    assert (found["test"]["value"], found["test"]["flag"]) == (None, "not_applicable")
    assert "the class alone gives an AUC of 0.9" in found["test"]["param_json"]


def test_without_members_privacy_is_not_applicable_and_says_why(exported: Exported) -> None:
    ran = exported.evaluate("--model", exported.folder / "net.pt", *MODEL, "--images", "20", "--name", "unknown")
    assert ran.code == 0, ran.err
    rows = [row for row in exported.rows("unknown") if row["property"] == "privacy"]
    assert rows
    assert {(row["value"], row["flag"]) for row in rows} == {(None, "not_applicable")}
    text = (exported.workspace.results("unknown").folder / "report.md").read_text()
    assert "its members are not known" in text
    assert "One model, as it was brought." in text
    for nonsense in ("full origin", "Against random images", "without it an AUC says little", "one distilled set"):
        assert nonsense not in text, "what is said of sets and sweeps"
    attacked = [row for row in exported.rows("unknown") if row["metric"] == "adv_acc"]
    assert {row["attack"] for row in attacked} == {"deepfool_l2", "deepfool_linf"}


def test_a_name_belongs_to_one_file(exported: Exported) -> None:
    state = load_file(exported.workspace.store.open(exported.model_key).folder / "model.safetensors")
    request = (*MODEL, "--robustness", "none", "--name", "mine")
    save_file(state, exported.folder / "first.safetensors")
    assert exported.evaluate("--model", exported.folder / "first.safetensors", *request).code == 0
    before = exported.rows("mine")
    save_file({name: 2 * value for name, value in state.items()}, exported.folder / "second.safetensors")
    message = refused(exported.evaluate("--model", exported.folder / "second.safetensors", *request))
    assert "holds the evaluation of another file" in message
    assert exported.rows("mine") == before
    assert "run from another file" in refused(
        exported.evaluate("--model", exported.folder / "net.pt", *MODEL, "--name", "ours")
    )


def test_what_is_lost_from_the_store_is_said_and_imported_again(exported: Exported) -> None:
    request = ("--model", exported.folder / "net.pt", *MODEL, "--robustness", "none", "--name", "lost")
    assert exported.evaluate(*request).code == 0
    train, accuracy = _keys(exported, "lost", "train", "accuracy")
    assert "train external digits file=" in exported.workspace.run("show", train).out
    for key in (train, accuracy):
        shutil.rmtree(exported.workspace.store.open(key).folder)
    gone = exported.workspace.run("sweep", "lost", *HERE)
    assert gone.code == 1
    assert "import it again with ddray evaluate" in gone.err
    assert exported.evaluate(*request).code == 0
    assert exported.workspace.store.has(train)


def _keys(exported: Exported, name: str, *kinds: Any) -> list[str]:
    """Keys of the stages of an evaluation's only point."""
    request = Request(exported.workspace.results(name).folder / FILE)
    (chain,) = prepare(request, exported.workspace.folders, build).plan.chains
    found = [chain.stage(kind) for kind in kinds]
    return [stage.key for stage in found if stage is not None]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_file_with_code_is_refused_and_not_run(exported: Exported, tmp_path: Path) -> None:
    target = tmp_path / "was-run"

    class Payload:
        def __reduce__(self) -> Any:
            return open, (str(target), "w")

    torch.save({"images": torch.rand(20, 1, 8, 8), "labels": Payload()}, tmp_path / "evil.pt")
    request = ("--dataset", "digits", "--space", "pixel01", *RECIPE)
    message = refused(exported.evaluate("--set", tmp_path / "evil.pt", *request))
    assert "would need code to be run" in message
    assert "torch.save({'images'" in message
    refused(exported.evaluate("--model", tmp_path / "evil.pt", *MODEL))
    assert not target.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # control: a loader that trusts it runs it
    assert target.exists()
    assert not exported.workspace.results("evil").folder.exists()


def test_every_missing_fact_is_named_at_once(exported: Exported) -> None:
    of_set = refused(exported.evaluate("--set", exported.folder / "set.safetensors"))
    assert "--space: missing" in of_set
    assert "--dataset: missing" in of_set
    assert "2 problems" in of_set
    of_model = refused(exported.evaluate("--model", exported.folder / "net.pt"))
    for option in ("--dataset", "--architecture", "--normalisation"):
        assert f"{option}: missing" in of_model
    alone = refused(exported.evaluate("--model", exported.folder / "net.pt", *MODEL[:2], *MODEL[4:], "--mean", "0.3"))
    assert "--normalisation: missing; got --mean alone" in alone
    assert "expected one of --set FILE, --model FILE" in refused(exported.evaluate("--dataset", "digits"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--dataset", "digist", "--space", "pixel01"),
            "unknown data set 'digist'; expected one.*Did you mean 'digits'",
        ),
        (("--dataset", "digits", "--space", "normalised"), "--normalisation: missing"),
        (
            ("--dataset", "digits", "--space", "pixel01", "--std", "1"),
            "--std: only of normalised images; got --space pixel01",
        ),
        (
            ("--dataset", "digits", "--space", "normalised", "--mean", "1,2,3", "--std", "0"),
            "--mean: one number per cha",
        ),
        (("--dataset", "digits", "--space", "pixel01", "--protocol", "quik"), "unknown recipe 'quik'.*Did you mean"),
        (("--dataset", "digits", "--space", "pixel01", "--train", "epochs=0"), "--train: epochs"),
        (("--dataset", "digits", "--space", "pixel01", "--robustness", "fgms"), "unknown attack 'fgms'.*Did you mean"),
        (("--dataset", "digits", "--space", "pixel01", "--architecture", "vgg16"), "cannot take the images of digits"),
        (("--dataset", "digits", "--space", "pixel01", "--classes", "3,44"), "--classes: out of range"),
        (
            ("--dataset", "digits", "--space", "pixel01", "--images", "9"),
            "--images: fewer.*got 9; expected at least 10",
        ),
        (
            ("--dataset", "digits", "--space", "pixel01", "--classes", "3,4,5", "--images", "2"),
            "expected at least 3, one",
        ),
        (("--dataset", "digits", "--space", "pixel01", "--seeds", "a"), "--seeds: not whole numbers"),
        (("--dataset", "digits", "--space", "pixel01", "--unwhiten"), "--unwhiten: nothing is whitened"),
        (("--dataset", "digits", "--space", "whitened", "--classes", "0,1"), "whitened images of some classes"),
        (("--dataset", "digits", "--space", "pixel01", "--temperature", "4"), "--temperature: belongs to soft labels"),
        (
            ("--dataset", "digits", "--space", "pixel01", "--label-form", "logits"),
            "(?s)--temperature: missing.*--label-source: missing",
        ),
        (
            ("--dataset", "digits", "--space", "pixel01", "--learned-lr", "0.1"),
            "--learned-for: missing; got no --architecture",
        ),
        (("--dataset", "digits", "--space", "pixel01", "--learned-lr", "lr.pt"), "--learned-lr: cannot be read"),
        (("--dataset", "digits", "--space", "pixel01", "--learned-for", "convnet3"), "of which learning rate"),
        (("--dataset", "digits", "--space", "pixel01", "--name", "../x"), "--name: not a name"),
        (("--dataset", "digits", "--space", "pixel01", "--labels", "nowhere.pt"), "--labels: cannot be read"),
        (("--dataset", "mnist", "--space", "pixel01", "--classes", "0,1"), None),
    ],
)
def test_wrong_requests_are_refused(exported: Exported, arguments: tuple[str, ...], message: str | None) -> None:
    ran = exported.evaluate("--set", exported.folder / "set.safetensors", *arguments)
    if message is None:  # the request is right; this machine has no such data
        assert ran.code == 3, ran.err
        assert "Traceback" not in ran.err
    else:
        assert re.search(message, refused(ran)), ran.err


@pytest.mark.parametrize(
    "text, order, message",
    [
        ("[1000000000000000000000000000000]", "canonical", "not indices of training images; got 10000000"),
        ('{"kind": "listed", "indices": [-5, 3, 999999]}', None, "not indices of training images; got -5"),
        ('{"kind": "pool", "per_class": 9, "draw": 0, "row": 0, "canaries": 999}', None, "canaries are not audited"),
        (
            '{"kind": "draw", "per_class": 12, "draw": 0}',
            "files",
            "an origin needs no order; got --members-order files",
        ),
    ],
)
def test_wrong_members_are_refused(
    exported: Exported, tmp_path: Path, text: str, order: str | None, message: str
) -> None:
    (tmp_path / "members.json").write_text(text)
    request = ("--members", tmp_path / "members.json", *(("--members-order", order) if order else ()))
    of_model = refused(exported.evaluate("--model", exported.folder / "net.pt", *MODEL, *request, "--name", "wrong"))
    of_set = ("--set", exported.folder / "set.safetensors", "--dataset", "digits", "--space", "pixel01", *RECIPE)
    assert message in of_model
    assert message in refused(exported.evaluate(*of_set, *request, "--name", "wrong"))
    assert not exported.workspace.results("wrong").folder.exists()


def test_broken_and_odd_files_are_refused(exported: Exported, tmp_path: Path) -> None:
    state = load_file(exported.workspace.store.open(exported.model_key).folder / "model.safetensors")
    torch.save({name: value.to_sparse() for name, value in state.items()}, tmp_path / "sparse")
    torch.save({name: value.to("meta") for name, value in state.items()}, tmp_path / "meta")
    (tmp_path / "pops").write_bytes(b"\x80\x04.")
    (tmp_path / "cut").write_bytes((exported.folder / "net.pt").read_bytes()[:-50])
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    messages = {
        "sparse": "got a sparse one",
        "meta": "got one without numbers",
        "pops": "cannot be read",
        "cut": "cannot be read",
        "empty": "not a kind of file",
        "folder": "cannot be read",
    }
    of_set = ("--dataset", "digits", "--space", "pixel01", *RECIPE)
    for name, message in messages.items():
        assert message in refused(exported.evaluate("--model", tmp_path / name, *MODEL))
        of_folder = "no pictures" if name == "folder" else message  # a set may be one
        assert of_folder in refused(exported.evaluate("--set", tmp_path / name, *of_set))
    one = exported.evaluate("--set", exported.folder / "set.safetensors", *of_set, "--nth", "7", "--name", "nth")
    assert "holds one set; got --nth 7; expected 0" in refused(one)


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.rand(20, 1, 8, 7), "images have another shape; got (20, 1, 8, 7); expected (N, 1, 8, 8) for digits"),
        (torch.full((20, 1, 8, 8), torch.nan), "not finite; got 1280 of 1280"),
    ],
)
def test_wrong_contents_are_refused_with_the_facts(
    exported: Exported, tmp_path: Path, images: torch.Tensor, message: str
) -> None:
    torch.save({"images": images, "labels": torch.arange(10).repeat(2)}, tmp_path / "wrong.pt")
    request = ("--dataset", "digits", "--space", "pixel01", *RECIPE)
    assert message in refused(exported.evaluate("--set", tmp_path / "wrong.pt", *request))
    other = refused(exported.evaluate("--model", exported.folder / "net.pt", *MODEL[:-1], "convnet3"))
    assert "parameters are not those of convnet3 for images of 8 pixels, 1 channels and 10 classes" in other
    assert "try --architecture convnet3-d2-w16" in other


# --- files as other programs write them -------------------------------------------------------------------------------

MEAN, STD = KNOWN["digits"].mean, KNOWN["digits"].std
NORMALISED = ("--space", "normalised", "--normalisation", "digits")
LOGITS = ("--label-form", "logits", "--temperature", "1", "--label-source", "learned", "--image-classes", "class-major")
PROBABILITIES = ("--label-form", "probabilities", "--label-source", "teacher", "--image-classes", "class-major")


def write(folder: Path, **files: Any) -> None:
    folder.mkdir()
    for name, content in files.items():
        torch.save(content, folder / f"{name}.pt")


def family(name: str, folder: Path, images: torch.Tensor, labels: torch.Tensor) -> tuple[object, ...]:
    """Write a set as a family's program does; the options with which it is read (docs/evaluate.md has the table)."""
    normal = normalise(images, MEAN, STD)
    rows = 6 * torch.nn.functional.one_hot(labels, 10).float() + torch.linspace(0, 1, 10)
    whitened = 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    if name in ("IDM", "FairDD, COBRA"):
        write(folder, set={"data": [[normal, labels]], "accs_all_exps": {}})
        return ("--set", folder / "set.pt", *NORMALISED, "--factor", "2" if name == "IDM" else "1")
    if name in ("NCFM", "DREAM"):
        write(folder, data_20000=[images, labels])
        return ("--set", folder / "data_20000.pt", "--space", "pixel01", "--factor", "2")
    if name == "DataDAM":
        write(folder, syn_data_digits_ipc_2={"data": normal, "label": labels})
        return ("--set", folder / "syn_data_digits_ipc_2.pt", *NORMALISED)
    pair = ("--set", folder / "images_best.pt", "--labels", folder / "labels_best.pt")
    if name == "FTD":
        write(folder, images_best=whitened, labels_best=labels)
        return (*pair, "--space", "whitened")
    if name == "TESLA":
        write(folder, images_best=normal, labels_best=rows.softmax(1))
        return (*pair, *NORMALISED, *PROBABILITIES)
    if name == "DATM":
        write(folder, images_best=whitened, labels_best=rows, lr_best=torch.tensor(0.05))
        return (*pair, "--space", "whitened", *LOGITS, "--learned-lr", folder / "lr_best.pt")
    if name == "RDED":
        for index, (image, label) in enumerate(zip(images[:-1], labels[:-1], strict=True)):
            (at := folder / f"{int(label):05d}").mkdir(parents=True, exist_ok=True)
            pixels = (255 * image[0]).round().byte().numpy()
            Image.fromarray(pixels).save(at / f"class{int(label)}_id{index}.jpg")
        return ("--set", folder, "--space", "pixel01")
    assert name == "DD-Ranking random"
    write(folder, images=images, labels=labels)
    return ("--set", folder / "images.pt", "--labels", folder / "labels.pt", "--space", "pixel01")


FAMILIES = ("IDM", "NCFM", "DREAM", "DataDAM", "FTD", "TESLA", "DATM", "RDED", "DD-Ranking random", "FairDD, COBRA")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_each_familys_layout_is_evaluated(exported: Exported, tmp_path: Path, name: str) -> None:
    ours = load_file(exported.folder / "set.safetensors")
    options = family(name, tmp_path / "files", ours["images"], ours["labels"])
    called = re.sub(r"\W+", "_", name).lower()
    further = ("--robustness", "none", *(("--embedding",) if name == "RDED" else ()))
    ran = exported.evaluate(*options, "--dataset", "digits", *RECIPE, *further, "--name", called)
    assert ran.code == 0, ran.err
    (row,) = [each for each in exported.rows(called) if each["metric"] == "test_acc" and each["class_id"] is None]
    assert 0 <= row["value"] <= 1
    assert row["ipc"] == (1 if name == "RDED" else 2)
    assert row["zca"] == (name in ("FTD", "DATM"))
    assert row["label_kind"] == ("soft" if name in ("TESLA", "DATM") else "hard")
    assert row["effective_ipc"] == row["ipc"] * (4 if name in ("IDM", "NCFM", "DREAM") else 1)
    param = json.loads(row["param_json"])
    if name == "DATM":
        assert param["labels"]["temperature"] == 1
        found = {each["metric"]: each["value"] for each in exported.rows(called)}
        assert found["trained_lr"] == pytest.approx(0.05)
        assert found["label_agreement"] == 1
    if name == "RDED":
        assert param["settings"]["images_per_class"] == [1, 2]
        assert "classes hold different numbers of images, 1 to 2; tables say ipc=1" in ran.err
    again = exported.evaluate(*options, "--dataset", "digits", *RECIPE, *further, "--name", called)
    assert "reading" not in again.err


def test_one_hot_probabilities_from_a_file_train_as_hard_labels_do(exported: Exported, tmp_path: Path) -> None:
    ours = load_file(exported.folder / "set.safetensors")
    nearly = torch.nn.functional.one_hot(ours["labels"], 10).double() * (1 - 1e-9) + 1e-10
    write(tmp_path / "files", images=ours["images"], labels=nearly, classes=ours["labels"])
    place = tmp_path / "files"
    common = ("--set", place / "images.pt", "--space", "pixel01", "--dataset", "digits", *RECIPE)
    of_soft = (*PROBABILITIES[:-1], place / "classes.pt")
    for name, options in {
        "as_hard": ("--labels", place / "classes.pt"),
        "as_soft": ("--labels", place / "labels.pt", *of_soft),
    }.items():
        ran = exported.evaluate(*common, *options, "--robustness", "none", "--name", name)
        assert ran.code == 0, ran.err
    hard, soft = (numbers(exported.rows(name), metric="test_acc") for name in ("as_hard", "as_soft"))
    assert list(hard.values()) == pytest.approx(list(soft.values()), abs=0.2)


def test_a_whitened_set_of_some_of_the_images_is_refused(exported: Exported, tmp_path: Path) -> None:
    """Whitened by whom, nobody knows then."""
    ours = load_file(exported.folder / "set.safetensors")
    write(tmp_path / "files", set={"images": ours["images"] - 0.3, "labels": ours["labels"]})
    options = ("--set", tmp_path / "files" / "set.pt", "--space", "whitened", "--dataset", "digits", *RECIPE)
    some = exported.evaluate(*options, "--members", exported.folder / "members.json", "--name", "some")
    assert "members of a whitened set; got some of the training images" in refused(some)
    (tmp_path / "all.json").write_text('{"kind": "full"}')
    assert exported.evaluate(*options, "--members", tmp_path / "all.json", "--robustness", "none").code == 0


def test_the_pixels_of_a_whitened_set(exported: Exported, tmp_path: Path, digits_cache: Path) -> None:
    """Our own images whitened by anyone come back as they were, and train as our own do."""
    ours = load_file(exported.folder / "set.safetensors")
    split = open_split(digits_config(), "train", Path(), digits_cache)
    every = torch.from_numpy(np.asarray(split.images) / 255).reshape(-1, *ours["images"].shape[1:])
    flat = every.double().flatten(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    matrix = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    whitened = ((ours["images"].double().flatten(1) - flat.mean(0)) @ matrix).reshape(ours["images"].shape).float()
    write(tmp_path / "files", images=whitened, labels=ours["labels"])
    place = tmp_path / "files"
    files = ("--set", place / "images.pt", "--labels", place / "labels.pt", "--space", "whitened", "--unwhiten")
    ran = exported.evaluate(*files, "--dataset", "digits", *RECIPE, "--seeds", "0,1", "--name", "unwhitened")
    assert ran.code == 0, ran.err
    mine = [row for row in exported.rows("ours") if row["method"] == "random"]
    found = numbers(exported.rows("unwhitened"), metric="test_acc")
    assert list(found.values()) == pytest.approx(list(numbers(mine, metric="test_acc").values()), abs=0.3)


# --- data sets that a sweep file declares -----------------------------------------------------------------------------


def own_images(folder: Path, classes: int = 10) -> None:
    """Digits under other names, as image files: the last 20 of each class, 8 of them for testing."""
    known = load_digits()
    for label in range(classes):
        for nth, image in enumerate(known.images[known.target == label][-20:]):
            path = folder / ("test" if nth < 8 else "train") / f"class{label}" / f"{nth}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9375).astype(np.uint8)).save(path)


def test_data_of_ones_own_that_a_sweep_declares(exported: Exported) -> None:
    own_images(exported.workspace.folders.data / "my digits?")
    sweep = exported.workspace.write(
        "declares",
        "ddray: 1\n"
        "datasets: {mine: {like: digits, folder: 'my digits?'}, large: {like: digits, resize: 16}}\n"
        "grids: {x: {protocol: quick, axes: {method: [random], dataset: [mine], ipc: [1]}}}\n",
    )
    request = ("--model", exported.folder / "net.pt", *MODEL[2:], "--robustness", "none", "--datasets", sweep)
    ran = exported.evaluate(*request, "--dataset", "mine", "--name", "own")
    assert ran.code == 0, ran.err
    rows = exported.rows("own")
    assert {row["dataset"] for row in rows} == {"mine"}
    (accuracy,) = [row for row in rows if row["metric"] == "test_acc"]
    assert accuracy["value"] > 0.5, "its digits are known to the network"
    assert exported.workspace.run("collect", "own").code == 0, "the declaration is kept with the evaluation"
    of_set = ("--set", exported.folder / "set.safetensors", "--space", "pixel01", *RECIPE, "--datasets", sweep)
    assert r"got (20, 1, 8, 8); expected (N, 1, 16, 16) for large" in refused(
        exported.evaluate(*of_set, "--dataset", "large", "--name", "large")
    )
    message = refused(exported.evaluate(*of_set, "--dataset", "mime", "--name", "large"))
    assert "unknown data set 'mime'" in message
    assert "Did you mean 'mine'?" in message
    assert "Of your own data: --datasets SWEEP" in refused(exported.evaluate(*of_set[:-2], "--dataset", "plants"))


def test_data_of_ones_own_with_fewer_classes(exported: Exported) -> None:
    own_images(exported.workspace.folders.data / "three", 3)
    sweep = exported.workspace.write(
        "three",
        "ddray: 1\n"
        "datasets: {three: {like: digits, folder: three, classes: 3}}\n"
        "grids: {x: {protocol: quick, axes: {method: [random], dataset: [three], ipc: [1]}}}\n",
    )
    whole = load_file(exported.folder / "set.safetensors")
    first = whole["labels"] < 3
    save_file({name: whole[name][first] for name in ("images", "labels")}, exported.folder / "three.safetensors")
    ran = exported.evaluate(
        *("--set", exported.folder / "three.safetensors", "--dataset", "three", "--datasets", sweep),
        *("--space", "pixel01", *RECIPE, "--robustness", "none", "--name", "three"),
    )
    assert ran.code == 0, ran.err
    (accuracy,) = [row for row in exported.rows("three") if row["metric"] == "test_acc"]
    assert accuracy["value"] > 1 / 3


# --- in a sweep -------------------------------------------------------------------------------------------------------

BESIDE = """
ddray: 1
defaults:
  protocol: quick
  train: {epochs: 3}
  axes: {dataset: [digits], architecture: [convnet3-d2-w16], seed: [0, 1], labels: [null, teacher-quick-e2]}
grids:
  sets:
    axes: {method: [random, external], ipc: [2]}
    settings: {external: {imported: brought}}
"""
BROUGHT = ("--dataset", "digits", "--space", "pixel01", "--name", "brought", "--import-only")


def test_a_set_from_a_file_is_a_method_of_a_sweep(exported: Exported) -> None:
    before = exported.workspace.manifests()
    ran = exported.evaluate("--set", exported.folder / "set.safetensors", *BROUGHT)
    assert ran.code == 0, ran.err
    assert "imported as brought" in ran.err
    assert len(exported.workspace.manifests()) <= len(before) + 1, "the set is read, and nothing is trained on it"
    path = exported.workspace.write("beside", BESIDE)
    ran = exported.workspace.run("sweep", path, *HERE)
    assert (ran.code, "8 of 8 points done" in ran.err) == (0, True), ran.err
    rows = exported.rows("beside")
    for labels in (None, "teacher-quick-e2"):
        theirs, ours = (
            numbers(rows, method=method, metric="test_acc", labels=labels) for method in ("external", "random")
        )
        assert theirs == ours, "it is the set that random made"
        assert len(ours) == 2
    ran = exported.workspace.run("report", "beside", "--json")
    (block,) = json.loads(ran.out)["blocks"]
    assert block["methods"] == ["random", "external"]
    assert [row["labels"] for row in block["rows"]] == ["hard", "teacher-quick-e2"]
    assert [row["against_random"]["external"]["mean"] for row in block["rows"]] == [0, 0]
    assert [entry["method"] for entry in block["labels"]] == ["external"]
    text = (exported.workspace.results("beside").folder / "report.md").read_text()
    assert "full origin" in text


def test_what_was_imported_has_to_go_with_the_points(exported: Exported) -> None:
    assert exported.evaluate("--set", exported.folder / "set.safetensors", *BROUGHT).code == 0
    for given, instead, said in (
        ("{imported: brought}", "{}", "needs a name"),
        ("imported: brought", "imported: nobody_s", "nothing of this name was imported; got 'nobody_s'; expected "),
        ("ipc: [2]", "ipc: [2, 3]", "axes.ipc: brought was imported for another value; got 3; expected 2"),
        ("ipc: [2]", "ipc: [2], num_classes: [3]", "got '0,1,2'; expected '0,1,2,3,4,5,6,7,8,9'"),
        ("ipc: [2]", "ipc: [2], origin_per_class: [12]", "got 12; expected null"),
    ):
        assert given in BESIDE
        path = exported.workspace.write("unfit", BESIDE.replace(given, instead))
        message = refused(exported.workspace.run("sweep", path, *HERE))
        assert said in message
        assert re.search(r"unfit\.yaml:\d+: grids\.sets\.", message), message


def test_a_model_from_a_file_is_audited_beside_ours(exported: Exported) -> None:
    ran = exported.evaluate(
        "--model", exported.folder / "net.pt", *MODEL, "--members", exported.folder / "members.json",
        "--name", "net", "--import-only",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    path = exported.workspace.write("audited", OURS.replace("method: [full]", "method: [full, external]").replace(
        "    train: {epochs: 40,", "    settings: {external: {imported: net}}\n    train: {epochs: 40,"
    ).replace("method: [full, external], ", "method: [full, external], ipc: [1], "))  # fmt: skip
    ran = exported.workspace.run("sweep", path, *HERE)
    assert ran.code == 0, ran.err
    found = {}
    for method in ("full", "external"):
        chosen = {"metric": "mia_auc", "attack": "loss", "nonmember_source": "test"}
        by_seed = numbers(exported.rows("audited"), method=method, **chosen)
        found[method] = {(*key[:2], *key[3:]): value for key, value in by_seed.items()}  # nobody knows its seed
        (row, *_) = [row for row in exported.rows("audited") if row["method"] == method]
        assert (row["ipc"], row["origin_per_class"]) == (None, 12)
    assert found["full"]
    assert found["full"] == found["external"], "it is the network that full left"
