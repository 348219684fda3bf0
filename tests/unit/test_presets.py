"""Presets: what is published where, what is borrowed from where, and that plan, rows and report say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st
from workspace import Workspace

from ddray.commands.preset import methods_facts, preset_facts, preset_text
from ddray.errors import RequestError
from ddray.measurements.rows import collect
from ddray.report.report import machine_report, report
from ddray.results import MEASUREMENTS_FILE
from trainables import presets
from trainables.data.known import KNOWN
from trainables.methods import METHODS
from trainables.presets import PRESETS, Chosen, Preset, choose
from trainables.published import CHEN2023, PROGRAMS, SAID_BY, publish

LEARNING = (
    *("dm", "datadam", "dsa", "dc", "mtt", "tesla", "ftd", "datm", "idc", "dream", "ncfm", "idm", "rded", "fairdd"),
)
IRRELEVANT = {"tesla_cosine"}
"""Settings that cannot change a result."""
COMMAND = ("syn_steps", "match_snapshots", "max_start", "batch_syn", "lr_img", "lr_lr", "lr_syn")


def chosen(method: str, dataset: str, ipc: int | None, **settings: Any) -> dict[str, Chosen]:
    return {entry.setting: entry for entry in choose(method, dataset, ipc, settings)}


def values(method: str, dataset: str, ipc: int | None, **settings: Any) -> dict[str, Any]:
    return {name: entry.value for name, entry in chosen(method, dataset, ipc, **settings).items()}


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", PRESETS, ids=lambda row: f"{row.method}-{'-'.join(row.values)[:30]}")
def test_a_row_is_of_a_method_that_takes_its_values_and_says_where_they_are_from(row: Preset) -> None:
    model = METHODS[row.method].settings
    assert row.values
    assert row.values.keys() | {name for name, _ in row.when} <= model.model_fields.keys()
    taken = model.model_validate(dict(row.values))
    assert {name: getattr(taken, name) for name in row.values} == dict(row.values)
    assert set(row.datasets) <= set(KNOWN)
    assert list(row.ipcs) == sorted(set(row.ipcs))
    assert row.note if row.source is None else "/" in row.source or "et al." in row.source
    assert bool(row.agrees) == (row.source is not None)
    assert set(row.agrees) <= SAID_BY.keys()
    assert row.name is None or row.agrees == (row.name,)


@pytest.mark.parametrize("method", LEARNING)
@pytest.mark.parametrize("dataset", KNOWN)
def test_every_setting_that_matters_has_a_preset_for_every_combination(method: str, dataset: str) -> None:
    for ipc in (1, 2, 10, 20, 37, 50, 100, 1000):
        assert chosen(method, dataset, ipc).keys() == METHODS[method].settings.model_fields.keys() - IRRELEVANT


def test_no_two_rows_claim_the_same_combination() -> None:
    for position, row in enumerate(PRESETS):
        for other in PRESETS[:position]:
            same = (row.method, row.name, row.values.keys(), row.when) == (
                *(other.method, other.name, other.values.keys(), other.when),
            )
            if same and set(row.datasets) & set(other.datasets):
                assert not set(row.ipcs) & set(other.ipcs), (row, other)
            if same and not row.datasets and not other.datasets:
                assert row.ipcs
                assert not set(row.ipcs) & set(other.ipcs), (row, other)


def test_conditions_see_the_value_that_a_point_will_have() -> None:
    """A condition looks at what is set, else at the model's default; so no preset of that setting may differ."""
    for row in PRESETS:
        for name, _ in row.when:
            default = METHODS[row.method].settings.model_fields[name].get_default()
            given_by = [other.values[name] for other in PRESETS if other.method == row.method and name in other.values]
            assert set(given_by) <= {default}, name


@given(
    method=st.sampled_from(LEARNING),
    dataset=st.sampled_from(sorted(KNOWN)),
    ipc=st.integers(1, 2000),
    zca=st.booleans(),
    factor=st.sampled_from([1, 2, 3]),
)
def test_what_was_published_together_is_taken_together(
    method: str, dataset: str, ipc: int, zca: bool, factor: int
) -> None:
    given = {"mtt": {"zca": zca}, "idc": {"factor": factor}}.get(method, {})
    found = chosen(method, dataset, ipc, **given)
    for names in {frozenset(row.values) for row in PRESETS if row.method == method}:
        if names <= found.keys():
            taken = {name: found[name].value for name in names}
            rows = [row for row in PRESETS if row.method == method and dict(row.values) == taken]
            assert rows
            assert len({(found[name].source, found[name].kind) for name in names}) == 1
            if next(iter(names)) not in given and found[next(iter(names))].exact:
                assert any(not row.datasets or dataset in row.datasets for row in rows)
                assert any(not row.ipcs or ipc in row.ipcs for row in rows)


# --- values, as methods.md has them -----------------------------------------------------------------------------------

MTT_ROWS = [
    # preset, data set, ipc, zca, N, M, T+, batch, lr_img, lr_lr, lr_syn; first the authors', whitened or not
    (None, "cifar10", 1, False, 50, 2, 2, None, 1e2, 1e-7, 0.01),
    (None, "cifar10", 1, True, 50, 2, 2, None, 1e2, 1e-7, 0.01),
    (None, "cifar10", 10, False, 30, 2, 20, None, 1e2, 1e-5, 0.001),
    (None, "cifar10", 10, True, 30, 2, 20, None, 1e2, 1e-5, 0.001),
    (None, "cifar10", 50, False, 30, 2, 40, None, 1e3, 1e-5, 0.001),
    (None, "cifar100", 1, False, 20, 3, 20, None, 1e3, 1e-5, 0.01),
    (None, "cifar100", 10, False, 20, 2, 20, None, 1e3, 1e-5, 0.01),
    (None, "cifar100", 50, False, 80, 2, 40, 125, 1e3, 1e-5, 0.01),
    (None, "tiny_imagenet", 1, False, 10, 2, 10, None, 1e4, 1e-4, 0.01),
    (None, "tiny_imagenet", 10, False, 20, 2, 40, 200, 1e4, 1e-4, 0.01),
    (None, "tiny_imagenet", 50, False, 20, 2, 40, 300, 1e4, 1e-4, 0.01),
    ("mct", "cifar10", 1, False, 50, 2, 5, None, 1e3, 1e-7, 0.01),
    ("mct", "cifar10", 10, False, 30, 2, 15, None, 1e3, 1e-5, 0.01),
    ("mct", "cifar10", 50, False, 30, 2, 40, None, 1e3, 1e-5, 0.001),
    ("mct", "cifar10", 10, True, 30, 2, 20, None, 1e5, 1e-4, 0.01),
    ("mct", "cifar10", 50, True, 30, 2, 20, None, 1e2, 1e-5, 0.001),
    ("tesla", "cifar10", 1, False, 50, 2, 5, None, 1e3, 1e-7, 0.01),
]


@pytest.mark.parametrize("row", MTT_ROWS, ids=str)
def test_mtt_commands(row: tuple[Any, ...]) -> None:
    preset, dataset, ipc, zca, *expected = row
    found = chosen("mtt", dataset, ipc, zca=zca, **({"preset": preset} if preset else {}))
    assert [found[name].value for name in COMMAND] == expected
    assert all(found[name].exact for name in COMMAND)
    assert all((CHEN2023 in found[name].agrees) == (preset is None and "cifar" in dataset) for name in COMMAND)


def test_mtt_is_without_zca_unless_the_sweep_sets_it() -> None:
    zca = chosen("mtt", "cifar10", 1)["zca"]
    assert (zca.value, zca.agrees) == (False, (CHEN2023,))
    assert "#31" in chosen("mtt", "cifar10", 10)["lr_img"].note
    gradient = chosen("mtt", "cifar10", 1)["mtt_gradient"]
    assert gradient.value == "recompute"
    assert "memory" in gradient.note


def test_an_alternative_counts_only_by_name_and_where_it_has_values() -> None:
    named = chosen("mtt", "cifar10", 20, preset="mct")
    assert {named[name].value for name in ("max_start", "lr_img")} == {15, 1e3}
    assert named["lr_img"].source.startswith("nearest: Zhong0x29a/MCT")
    assert named["num_experts"] == chosen("mtt", "cifar10", 20)["num_experts"]
    with pytest.raises(ValueError, match=r"preset mct has no values; got cifar100; expected one of cifar10"):
        chosen("mtt", "cifar100", 1, preset="mct")


@pytest.mark.parametrize(
    "dataset, ipc, like",
    [
        ("cifar100", 20, 10),
        ("cifar100", 100, 50),
        ("cifar10", 20, 10),
        ("cifar10", 100, 50),
        ("cifar10", 23, 50),
        ("tiny_imagenet", 100, 50),
    ],
)
def test_mtt_without_a_row_borrows_a_whole_one_and_says_so(dataset: str, ipc: int, like: int) -> None:
    found, lender = chosen("mtt", dataset, ipc), chosen("mtt", dataset, like)
    for name in COMMAND:
        assert found[name].value == lender[name].value
        assert (found[name].kind, lender[name].kind) == ("nearest", "published")
        assert (found[name].agrees, "authors" in lender[name].agrees) == ((), True)
        assert f"for {dataset} ipc {like}; none published for {dataset} ipc {ipc}" in found[name].source


@pytest.mark.parametrize("method", ["dsa", "dc"])
def test_loops(method: str) -> None:
    table = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 100: (50, 10)}
    for ipc, loops in table.items():
        found = chosen(method, "svhn", ipc)["loops"]
        assert (found.value, found.exact) == (loops, True)
    assert "issue #2" in chosen(method, "cifar10", 100)["loops"].source
    assert "none published" in chosen(method, "cifar10", 200)["loops"].source


def test_dm_rates() -> None:
    for dataset, ipc, rate, exact in (
        ("cifar10", 1, 1.0, True),
        ("cifar10", 50, 1.0, True),
        ("cifar10", 100, 10.0, True),
        ("cifar10", 1250, 10.0, True),
        ("cifar10", 20, 1.0, False),
        ("cifar10", 80, 10.0, False),
        ("cifar100", 100, 1.0, True),
        ("cifar100", 500, 1.0, False),
        ("mnist", 100, 10.0, False),
    ):
        found = chosen("dm", dataset, ipc)["lr_img"]
        assert (found.value, found.exact) == (rate, exact), (dataset, ipc)


@pytest.mark.parametrize(
    "dataset, metric, net_images, size, rate_at_ten",
    [
        ("cifar10", "mse", 2000, 32, 5e-3),
        ("cifar100", "mse", 2000, 32, 5e-3),
        ("svhn", "mse", 500, 32, 5e-3),
        ("mnist", "l1", 500, 28, 1e-4),
        ("fashion_mnist", "l1", 500, 28, 0.765625e-4),
    ],
)
def test_idc_by_data_set(dataset: str, metric: str, net_images: int, size: int, rate_at_ten: float) -> None:
    for ipc in (1, 10, 20, 50, 100):
        settings: Any = METHODS["idc"].settings.model_validate(values("idc", dataset, ipc))
        assert settings.lr_img(ipc, size) == pytest.approx(rate_at_ten * ipc / 10)
        assert (settings.metric, settings.net_images, settings.factor) == (metric, net_images, 2)
        assert settings.iterations == 2000 * settings.inner_loop == 200_000
    assert all(entry.exact for entry in chosen("idc", dataset, 10).values())


def test_idc_on_mnist_drops_cutout_and_cutmix_with_a_factor_above_one() -> None:
    names = ("match_aug", "net_aug", "cutmix")
    plain, reduced = ("color_crop_cutout", "color_crop", 0.5), ("color_crop", "color_crop", 0.0)
    for dataset, settings, expected in (
        ("mnist", {}, reduced),
        ("mnist", {"factor": 3}, reduced),
        ("mnist", {"factor": 1}, plain),
        ("fashion_mnist", {}, plain),
        ("cifar10", {"factor": 1}, plain),
    ):
        found = chosen("idc", dataset, 10, **settings)
        assert tuple(found[name].value for name in names) == expected
        assert all(found[name].exact for name in names)


@pytest.mark.parametrize("method", LEARNING)
def test_64_pixels_take_a_network_of_four_blocks(method: str) -> None:
    found = chosen(method, "tiny_imagenet", 10)["depth"]
    assert found.value == 4
    assert found.kind == ("published" if method in ("dm", "dsa", "dc", "mtt") else "ours")
    assert chosen(method, "cifar10", 10)["depth"].value is None
    assert "depth" not in chosen(method, "tiny_imagenet", 10, architecture="resnet18")


# --- what is nearest --------------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> Iterator[list[Preset]]:
    """The table, put back afterwards."""
    kept = list(PRESETS)
    yield PRESETS
    PRESETS[:] = kept
    presets._choose.cache_clear()
    presets._conditions.cache_clear()


def test_same_data_set_first_then_cifar10_then_the_smallest_ratio(table: list[Preset]) -> None:
    rows = {"svhn": (1, 16), "cifar10": (4, 64), "mnist": (5,)}
    publish(
        *(
            Preset(method="m", values={"x": f"{name} {ipc}"}, source="a/b", datasets=(name,), ipcs=(ipc,))
            for name, ipcs in rows.items()
            for ipc in ipcs
        )
    )
    for dataset, ipc, expected in (
        ("svhn", 16, "svhn 16"),
        ("svhn", 64, "svhn 16"),
        ("svhn", 3, "svhn 1"),
        ("svhn", 5, "svhn 16"),
        ("svhn", 4, "svhn 1"),  # a tie: the smaller one
        ("digits", 5, "cifar10 4"),
        ("digits", 16, "cifar10 4"),
        ("digits", 17, "cifar10 64"),
        ("mnist", 900, "mnist 5"),
    ):
        found = chosen("m", dataset, ipc)["x"]
        assert found.value == expected
        assert found.exact == (f"{dataset} {ipc}" == expected)
        assert found.exact or f"none published for {dataset} ipc {ipc}" in found.source


def test_rows_that_would_be_taken_apart_are_refused(table: list[Preset]) -> None:
    publish(Preset(method="m", values={"x": 1, "y": 2}, source="a/b"))
    with pytest.raises(ValueError, match="rows would be taken apart"):
        publish(Preset(method="m", values={"x": 1}, source="a/b", datasets=("svhn",)))
    publish(Preset(method="other", values={"x": 1}, source="a/b"))


def test_a_table_that_grows_is_seen(table: list[Preset]) -> None:
    assert chosen("m", "svhn", 1) == {}
    publish(Preset(method="m", values={"x": 1}, source=None, note="because"))
    found = chosen("m", "svhn", 1)["x"]
    assert (found.value, found.kind, found.source) == (1, "ours", "no published value; ours: because")


# --- plan, row, report ------------------------------------------------------------------------------------------------

BORROWING = """
ddray: 1
grids:
  small:
    protocol: quick
    axes: {method: [random, dm, idc], dataset: [digits], ipc: [2], seed: [0]}
    settings: {dm: {iterations: 200}, idc: {factor: 1, iterations: 100}}
"""
SET = {"dm": {"iterations": 200}, "idc": {"factor": 1, "iterations": 100}}
LENT = {
    method: {entry.setting for entry in choose(method, "digits", 2, given)} - given.keys()
    for method, given in SET.items()
}
"""No program of theirs reads digits: everything is borrowed."""


def test_the_plan_says_what_is_borrowed(workspace: Workspace) -> None:
    path = workspace.write("small", BORROWING)
    found = json.loads(workspace.run("plan", path, "--json").out)["unpublished_settings"]
    lent: dict[str, set[str]] = {"dm": set(), "idc": set()}
    for entry in found:
        lent[entry["method"]] |= entry["settings"].keys()
    assert lent == LENT
    assert {"lr_img", "batch_real", "architecture"} <= lent["dm"]
    assert all((entry["dataset"], entry["ipc"]) == ("digits", 2) for entry in found)
    (rate,) = (entry for entry in found if "lr_img" in entry["settings"])
    assert rate["settings"] == {"lr_img": 1.0}
    assert "for cifar10 ipc 1; none published for digits ipc 2" in rate["source"]
    text = workspace.run("plan", path).out
    assert "settings without a published value:" in text
    assert "dm digits ipc=2: lr_img = 1.0" in text
    assert "factor =" not in text, "the sweep sets it"
    assert all(entry["source"] in text for entry in found)


def test_rows_and_report_say_what_is_borrowed(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    sweep, plan, store = worlds.world(tmp_path, BORROWING)
    worlds.fill(store, plan, accuracy=lambda point: 0.5)
    folder = tmp_path / "r"
    collect(plan, sweep, store, folder)
    for row in pq.read_table(folder / MEASUREMENTS_FILE).to_pylist():
        said = json.loads(row["param_json"] or "{}").get("unpublished", {})
        assert said.keys() == LENT.get(row["method"], set())
        assert all("none published for" in source and "digits" in source for source in said.values())
    text = report(folder)
    section = text[text.index("## Settings without a published value") :]
    assert "- DM lr_img: nearest: " in section
    assert "- IDC cutmix, lr_base, match_aug, metric, net_aug, net_images: nearest: " in section
    assert "- IDC architecture, batch_real, " in section
    cells = machine_report(folder)["blocks"][0]["rows"][0]["cells"]
    assert cells["idc"]["unpublished"].keys() == LENT["idc"]


def test_nothing_is_said_where_everything_is_published(workspace: Workspace) -> None:
    path = workspace.write(
        "all", "ddray: 1\ngrids: {g: {axes: {method: [dsa, mtt, random], dataset: [cifar10], ipc: [10]}}}"
    )
    assert json.loads(workspace.run("plan", path, "--json").out)["unpublished_settings"] == []
    assert "without a published value" not in workspace.run("plan", path).out


def test_a_published_value_in_a_sweep_is_no_change(tmp_path: Path) -> None:
    """Lists of YAML and tuples of settings are the same values."""
    import pyarrow.parquet as pq

    text = """
    ddray: 1
    grids: {g: {protocol: quick, axes: {method: [dsa], dataset: [digits], ipc: [10]},
                settings: {dsa: {loops: [10, 50], lr_net: 0.02}}}}
    """
    sweep, plan, store = worlds.world(tmp_path, text)
    collect(plan, sweep, store, tmp_path / "r")
    rows = pq.read_table(tmp_path / "r" / MEASUREMENTS_FILE, columns=["param_json"]).to_pylist()
    assert json.loads(rows[0]["param_json"])["changed_settings"] == {"lr_net": 0.02}


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_a_sweep_gets(workspace: Workspace) -> None:
    facts = json.loads(workspace.run("preset", "dsa", "cifar10", "10", "--json").out)
    shown = {entry["setting"]: entry["value"] for entry in facts["settings"]} | facts["defaults"]
    path = workspace.write("s", "ddray: 1\ngrids: {g: {axes: {method: [dsa], dataset: [cifar10], ipc: [10]}}}")
    (chain,) = workspace.prepare(path).plan.chains
    config: Any = chain.stages[0].config
    model = METHODS["dsa"].settings
    assert model.model_validate_json(json.dumps(shown)) == model.model_validate(config.settings)
    text = workspace.run("preset", "dsa", "cifar10", "10").out
    for entry in facts["settings"]:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{entry['setting']} "))
        assert json.dumps(entry["value"]) in line
        assert entry["source"] in line
    assert "all values are published for cifar10, ipc 10" in text


def test_the_command_tells_borrowed_and_own_values_from_published_ones() -> None:
    facts = preset_facts("idc", "tiny_imagenet", 10)
    kinds = {entry["setting"]: entry["kind"] for entry in facts["settings"]}
    assert (kinds["lr_base"], kinds["depth"], kinds["iterations"]) == ("nearest", "ours", "nearest")
    text = preset_text(facts)
    (verdict,) = (line for line in text.splitlines() if line.startswith("not published for tiny_imagenet, ipc 10:"))
    assert {name for name, kind in kinds.items() if kind != "published"} == set(
        verdict.partition(": ")[2].partition(";")[0].split(", ")
    )
    assert "tesla_cosine = 0" in preset_text(preset_facts("mtt", "cifar10", 1))


@pytest.mark.parametrize("method", list(PROGRAMS))
@pytest.mark.parametrize("dataset", list(KNOWN))
def test_nothing_is_published_for_data_that_the_authors_program_does_not_read(method: str, dataset: str) -> None:
    kinds = {entry.kind for entry in choose(method, dataset, 10)}
    assert ("published" in kinds) == (dataset in PROGRAMS[method]), kinds
    borrowed = [entry for entry in choose(method, dataset, 10) if entry.kind == "nearest"]
    assert all("none published for" in entry.source and dataset in entry.source for entry in borrowed)


def test_what_is_set_moves_what_depends_on_it() -> None:
    facts = preset_facts("idc", "mnist", 10, ["factor=1"])
    found = {entry["setting"]: entry for entry in facts["settings"]}
    assert (found["factor"]["value"], found["factor"]["kind"]) == (1, "set")
    assert found["cutmix"]["value"] == 0.5 != values("idc", "mnist", 10)["cutmix"]


def test_the_command_says_who_states_what() -> None:
    text = preset_text(preset_facts("mtt", "cifar100", 50))
    (line,) = (line for line in text.splitlines() if line.startswith("batch_syn"))
    assert "the authors, Chen et al. 2023" in line
    assert "images are normalised with the constants of cifar10: GeorgeCazenavette/mtt-distillation" in text
    assert "by name: mct (MCT), tesla (TESLA)" in text
    assert "published, but not what Chen et al. 2023 state: loops" in preset_text(preset_facts("dsa", "cifar10", 100))
    named = {entry["setting"]: entry for entry in preset_facts("mtt", "cifar10", 1, ["preset=mct"])["settings"]}
    assert (named["max_start"]["value"], named["max_start"]["agrees"]) == (5, ["mct"])
    with pytest.raises(RequestError, match="preset: mtt: preset tesla has no values; got cifar100"):
        preset_facts("mtt", "cifar100", 1, ["preset=tesla"])


def test_without_an_ipc_every_published_one_is_shown() -> None:
    facts = preset_facts("dsa", "cifar10", None)
    loops = {tuple(entry["ipcs"]): entry["value"] for entry in facts["settings"] if entry["setting"] == "loops"}
    assert loops[(10,)] == [10, 50]
    assert {ipc for ipcs in loops for ipc in ipcs} == {1, 10, 20, 30, 40, 50, 100}
    (rate,) = (entry for entry in facts["settings"] if entry["setting"] == "lr_img")
    assert rate["ipcs"] is None


def test_without_arguments_the_methods_are_listed(workspace: Workspace) -> None:
    text = workspace.run("preset").out
    for name, method in METHODS.items():
        assert any(line.split()[0] == name and method.title in line for line in text.splitlines() if line)
    (mtt,) = methods_facts("mtt")["methods"]
    assert mtt["published"]["cifar100"] == [1, 10, 50]


@pytest.mark.parametrize("method", ["random", "full"])
def test_a_method_that_learns_nothing_says_so(method: str) -> None:
    assert "nothing is learned" in preset_text(preset_facts(method, "cifar10", 1))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["dsaa", "cifar10"], r"unknown method 'dsaa'; known: .*Did you mean 'dsa'\?"),
        (["dsaa"], r"unknown method 'dsaa'"),
        (["dsa", "cifar11"], r"unknown data set 'cifar11'; known: .*Did you mean 'cifar10'\?"),
        (["dsa", "cifar10", "0"], r"0 is not in the range x>=1"),
        (["dsa", "cifar10", "1", "--set", "lopps=1"], r"unknown key 'lopps'.*Did you mean 'loops'\?"),
        (["dsa", "cifar10", "1", "--set", "lr_img=-1"], r"--set: lr_img: out of range; got -1; expected a number > 0"),
        (["dsa", "cifar10", "1", "--set", "loops"], r"not SETTING=VALUE; got 'loops'"),
        (["random", "cifar10", "1", "--set", "x=1"], r"random has no settings"),
        (["dsa", "--set", "x=1"], r"--set needs METHOD and DATASET"),
    ],
)
def test_a_wrong_request_ends_with_2_and_the_nearest_name(
    workspace: Workspace, arguments: list[str], message: str
) -> None:
    import re

    ran = workspace.run("preset", *arguments)
    assert ran.code == 2
    assert re.search(message, ran.err), ran.err


def test_an_error_is_raised_for_programs() -> None:
    with pytest.raises(RequestError, match="unknown method"):
        preset_facts("none", "cifar10", 1)


@pytest.mark.parametrize("arguments", [[], ["mtt", "cifar10", "10"], ["mtt", "cifar10", "--json"]], ids=str)
def test_the_command_is_light(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom ddray.cli import cli\n"
        f"cli.main({['preset', *arguments]!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    home = tmp_path / "home"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "DDRAY_HOME": str(home)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
    assert not home.exists(), "looking makes nothing"
