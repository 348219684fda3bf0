"""Sweep files to one resolved sweep: layers, includes, profiles, --set, names, and every complaint with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddray.errors import DdrayError, EnvironmentProblem, RequestError
from ddray.plan.axes import AXES
from ddray.plan.points import DatasetDecl, Grid, GridPoint, NotifyDecl, ResourceDecl, Sweep
from ddray.plan.schema import EVALUATIONS, json_schema
from ddray.prepare import expanded, load
from trainables.attacks import ROBUSTNESS_ATTACKS
from trainables.configs import RecipeConfig
from trainables.methods import METHODS
from trainables.protocols import PROTOCOLS

ROOT = Path(__file__).parents[2]

EXAMPLE = """\
# yaml-language-server: $schema=../ddray.schema.json
ddray: 1                        # grammar version; the sweep's name is the file's stem
datasets:                       # optional: folders under DDRAY_DATA that are not a known data set
  cifar100_mini: {folder: cifar100-mini, like: cifar100}    # constants, presets, label column of
  digits32: {like: digits, resize: 32}                      # a known set at another size
defaults:                       # precedence: defaults < grid < profile < --set; maps merge, lists replace
  protocol: paper2023
  axes: {architecture: [convnet3], seed: [0, 1, 2], distill_seed: [0]}
grids:
  table1:
    axes:
      method: [dsa, dm, mtt, idc, random, full]
      dataset: [cifar10]
      ipc: [10]
      init: [noise, real]
      origin_per_class: [40, 80, 200, 400]
      origin_draw: [0, 1, 2]
      num_classes: [10]
      class_draw: [0]
      seed: [0]
    evaluations: {privacy: {audit: [seed, pool], rows: 16, targets: 3}}
  table3:
    axes:
      method: [dsa, dm, mtt, idc, full]
      dataset: [cifar10, cifar100]
      ipc: [1, 10, 20, 50, 100]
      architecture: [convnet3, resnet18, vgg16]
    exclude: [{dataset: cifar100, ipc: 100}]     # values or lists; applied before unused axes become null
    settings: {dsa: {loops: {100: [50, 10]}}}    # per method; unset values come from presets
    evaluations: {robustness: {attacks: [deepfool_l2], images: 1000}}
resources: {distill: {cpus: 1}, idc: {gpu: 0.5}} # by stage kind or method
notify: {command: "notify-send '{sweep} {status}'"}
profiles:                       # a patch of the above; null removes a grid
  laptop: {defaults: {protocol: quick}, grids: {table3: null, table1: {axes: {method: [dm, random]}}}}
# include: [table1.yaml, table3.yaml]   # instead of grids: the union of files; equal grid names are an error,
                                        # each file keeps its own defaults, same-named profiles apply together
"""

SMALL = """\
ddray: 1
defaults: {protocol: quick, axes: {seed: [0, 1]}}
grids:
  one:
    axes: {method: [dm, full], dataset: digits, ipc: [1, 10]}
  two:
    protocol: dc300
    axes: {method: dm, dataset: digits, ipc: [5], seed: [7]}
profiles:
  fast: {defaults: {protocol: dsa1000}, grids: {two: {axes: {ipc: [2]}}}}
  few: {grids: {one: null}}
"""


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def sweep_of(folder: Path, text: str, **options: Any) -> Sweep:
    return load(write(folder, text), **options)


def grid_of(sweep: Sweep, name: str) -> Grid:
    return next(entry for entry in sweep.grids if entry.name == name)


def with_grid(body: str, top: str = "") -> str:
    """A sweep of one grid; ``body`` stands on line 3, ``top`` on line 5 and after."""
    return f"ddray: 1\ngrids: {{t: {{axes: {{method: dm, dataset: digits, ipc: 1}},\n  {body}\n}}}}\n{top}"


# --- what a file means --------------------------------------------------------------------------------------------


def test_the_documented_example(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, EXAMPLE, "full.yaml"))
    assert (sweep.name, sweep.stem, sweep.files) == ("full", "full", (tmp_path / "full.yaml",))
    assert [entry.name for entry in sweep.grids] == ["table1", "table3"]
    table1, table3 = sweep.grids
    assert table1.axes["seed"] == (0,)
    assert table3.axes["seed"] == (0, 1, 2)
    assert list(table3.axes) == ["architecture", "seed", "distill_seed", "method", "dataset", "ipc"]
    assert table3.exclude == ({"dataset": ("cifar100",), "ipc": (100,)},)
    assert table3.settings == {"dsa": {"loops": {"100": [50, 10]}}}
    assert table3.evaluations == {"robustness": {"attacks": ["deepfool_l2"], "images": 1000}}
    assert table1.evaluations == {"privacy": {"audit": ["seed", "pool"], "rows": 16, "targets": 3}}
    assert {entry.protocol for entry in sweep.grids} == {"paper2023"}
    assert sweep.datasets["digits32"] == DatasetDecl("digits32", None, "digits", 32)
    assert sweep.datasets["cifar100_mini"].folder == "cifar100-mini"
    assert sweep.resources == {"distill": ResourceDecl(1, None), "idc": ResourceDecl(None, 0.5)}
    assert sweep.notify == NotifyDecl("notify-send '{sweep} {status}'")
    assert table3.where("axes.ipc.4").endswith("full.yaml:26")
    assert table3.where("axes.seed").endswith("full.yaml:8")
    assert table3.where().endswith("full.yaml:22")


def test_the_documented_profile(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, EXAMPLE, "full.yaml"), profiles=["laptop"])
    assert sweep.name == "full@laptop"
    (table1,) = sweep.grids
    assert table1.protocol == "quick"
    assert table1.axes["method"] == ("dm", "random")
    assert table1.axes["ipc"] == (10,)


def test_precedence_is_defaults_grid_profile_set(tmp_path: Path) -> None:
    plain = sweep_of(tmp_path, SMALL)
    assert [entry.protocol for entry in plain.grids] == ["quick", "dc300"]
    fast = sweep_of(tmp_path, SMALL, profiles=["fast"])
    assert [entry.protocol for entry in fast.grids] == ["dsa1000", "dsa1000"]
    assert grid_of(fast, "two").axes["ipc"] == (2,)
    both = sweep_of(tmp_path, SMALL, profiles=["fast"], sets=["defaults.protocol=idc", "grids.two.axes.ipc=[3, 4]"])
    assert [entry.protocol for entry in both.grids] == ["idc", "idc"]
    assert grid_of(both, "two").axes["ipc"] == (3, 4)
    assert grid_of(both, "two").where("axes.ipc") == "--set"


def test_maps_merge_and_lists_replace(tmp_path: Path) -> None:
    text = (
        "ddray: 1\ndefaults: {settings: {dm: {iterations: 5, lr_img: 2}}, train: {batch: 8, lr: 1},\n"
        "  exclude: [{ipc: 1}],"
        "  axes: {seed: [0, 1, 2]}}\n"
        "grids: {t: {axes: {method: dm, dataset: digits, ipc: [1, 2], seed: [5]},\n"
        "  settings: {dm: {lr_img: 3}}, train: {lr: 2}, exclude: [{ipc: 2}]}}\n"
    )
    entry = grid_of(sweep_of(tmp_path, text), "t")
    assert entry.settings == {"dm": {"iterations": 5, "lr_img": 3.0}}
    assert entry.train == {"batch": 8, "lr": 2.0}
    assert entry.exclude == ({"ipc": (2,)},)
    assert entry.axes["seed"] == (5,)


def test_profiles_apply_in_the_order_given(tmp_path: Path) -> None:
    text = SMALL + "  slow: {defaults: {protocol: paper2023}}\n"
    assert sweep_of(tmp_path, text, profiles=["fast", "slow"]).grids[0].protocol == "paper2023"
    sweep = sweep_of(tmp_path, text, profiles=["slow", "fast"])
    assert sweep.grids[0].protocol == "dsa1000"
    assert sweep.name == "s@slow@fast"


def test_null_in_a_profile_or_set_removes_a_grid(tmp_path: Path) -> None:
    assert [entry.name for entry in sweep_of(tmp_path, SMALL, profiles=["few"]).grids] == ["two"]
    assert [entry.name for entry in sweep_of(tmp_path, SMALL, sets=["grids.two=null"]).grids] == ["one"]


PRICED = """\
ddray: 1
defaults: {protocol: quick, axes: {dataset: digits}}
grids:
  cheap: {axes: {method: [random], ipc: [1, 10]}}
  dear: {profiles: [rigorous, all], axes: {method: [dm], ipc: [50]}}
profiles:
  rigorous: {}
  all: {grids: {dear: {axes: {ipc: [60]}}}}
"""


def test_a_grid_may_belong_to_profiles(tmp_path: Path) -> None:
    assert [grid.name for grid in sweep_of(tmp_path, PRICED).grids] == ["cheap"]
    assert grid_of(sweep_of(tmp_path, PRICED, profiles=["rigorous"]), "dear").axes["ipc"] == (50,)
    assert grid_of(sweep_of(tmp_path, PRICED, profiles=["rigorous", "all"]), "dear").axes["ipc"] == (60,)
    assert grid_of(sweep_of(tmp_path, PRICED, sets=["grids.dear.axes.ipc=[2]"], profiles=["all"]), "dear").axes[
        "ipc"
    ] == (2,)
    assert [grid.name for grid in sweep_of(tmp_path, PRICED, sets=["grids.dear=null"], profiles=["all"]).grids] == [
        "cheap"
    ]
    with pytest.raises(RequestError, match=r"grids\.dear: is there .* got none; expected --profile rigorous or all"):
        sweep_of(tmp_path, PRICED, sets=["grids.dear.axes.ipc=[2]"])
    with pytest.raises(
        RequestError, match=r"s.yaml:5: grids.dear.profiles: unknown profile 'al'; known: rigorous, all"
    ):
        sweep_of(tmp_path, PRICED.replace("rigorous, all]", "al]"))
    with pytest.raises(RequestError, match="no grid is left"):
        sweep_of(tmp_path, PRICED.replace("cheap: {", "cheap: {profiles: [all], "))


def test_steps_and_epochs_take_each_others_place_between_layers(tmp_path: Path) -> None:
    text = "ddray: 1\ndefaults: {train: {epochs: 5}}\n"
    text += "grids: {t: {axes: {method: full, dataset: digits}, train: {steps: 9}}}"
    assert grid_of(sweep_of(tmp_path, text), "t").train == {"steps": 9}
    assert grid_of(sweep_of(tmp_path, text, sets=["defaults.train.epochs=3"]), "t").train == {"epochs": 3}


def test_scalars_stand_for_lists_and_null_for_everything(tmp_path: Path) -> None:
    text = (
        "ddray: 1\ngrids: {t: {axes: {method: full, dataset: digits, origin_per_class: [null, 5], num_classes: null}}}"
    )
    axes = sweep_of(tmp_path, text).grids[0].axes
    assert axes["method"] == ("full",)
    assert axes["origin_per_class"] == (None, 5)
    assert axes["num_classes"] == (None,)


def test_a_grid_without_protocol_takes_the_study_s(tmp_path: Path) -> None:
    assert sweep_of(tmp_path, with_grid("")).grids[0].protocol == "paper2023"


def test_set_reaches_every_part(tmp_path: Path) -> None:
    sets = [
        "resources.distill.dm.gpu=0.25",
        "resources.train.cpus=2",
        "notify.command=echo {status}",
        "datasets.mini={like: digits, folder: mini}",
        "grids.one.axes.dataset=[mini]",
        "defaults.train.epochs=3",
        "defaults.evaluations.robustness={}",
        "grids.two.settings.dm.iterations=7",
    ]
    sweep = sweep_of(tmp_path, SMALL, sets=sets)
    assert sweep.resources["distill.dm"].gpu == 0.25
    assert sweep.resources["train"].cpus == 2
    assert sweep.notify is not None
    assert sweep.notify.command == "echo {status}"
    assert sweep.grids[0].axes["dataset"] == ("mini",)
    assert sweep.grids[1].train == {"epochs": 3}
    assert sweep.grids[1].evaluations == {"robustness": {}}
    assert sweep.grids[1].settings == {"dm": {"iterations": 7}}


def test_the_name_tells_profiles_and_set_values(tmp_path: Path) -> None:
    def name(*sets: str) -> str:
        return sweep_of(tmp_path, SMALL, sets=sets, profiles=["fast"]).name

    assert re.fullmatch(r"s@fast-[0-9a-f]{6}", name("defaults.protocol=quick"))
    assert name("defaults.protocol=quick") == name("defaults.protocol= quick")
    assert name("defaults.protocol=quick") != name("defaults.protocol=idc")
    first, second = "defaults.protocol=quick", "defaults.train.lr=1"
    assert name(first, second) == name(second, first)
    assert name(first, first) == name(first)


def test_the_digest_covers_what_is_asked_for_not_how_it_is_written(tmp_path: Path) -> None:
    digest = sweep_of(tmp_path, SMALL).digest
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    reworded = "# a comment\n" + SMALL.replace("seed: [7]", "seed: 7").replace("ddray: 1", "ddray: 1\ndescription: x")
    assert sweep_of(tmp_path, reworded).digest == digest
    assert sweep_of(tmp_path, SMALL.replace("seed: [7]", "seed: [8]")).digest != digest
    assert sweep_of(tmp_path, SMALL, profiles=["fast"]).digest != digest
    assert sweep_of(tmp_path, SMALL, sets=["grids.two.axes.seed=7"]).digest == digest


def test_methods_of_later_versions_take_any_settings(tmp_path: Path) -> None:
    reserved = [name for name, method in METHODS.items() if method.settings is None]
    for name in reserved:
        text = with_grid(f"settings: {{{name}: {{anything: [1, {{deep: true}}]}}}}")
        assert sweep_of(tmp_path, text).grids[0].settings == {name: {"anything": [1, {"deep": True}]}}


def test_every_recipe_field_attack_and_protocol_is_accepted(tmp_path: Path) -> None:
    recipe = {**PROTOCOLS["idc"].recipe.model_dump(mode="json"), "lr": 0.5, "temperature": 4.0}
    recipe.pop("steps")
    recipe.pop("private")
    assert set(recipe) | {"steps", "private"} == set(RecipeConfig.model_fields)
    noisy = {"private": {"epsilon": 3.0, "delta": 0.001, "clip": 2.0}}
    assert sweep_of(tmp_path, with_grid(f"train: {json.dumps(noisy)}")).grids[0].train == noisy
    assert sweep_of(tmp_path, with_grid(f"train: {json.dumps(recipe)}")).grids[0].train == recipe
    asked = {"attacks": list(ROBUSTNESS_ATTACKS), "images": 7}
    text = with_grid(f"evaluations: {{robustness: {json.dumps(asked)}, privacy: {{}}, embedding: {{perplexity: 5}}}}")
    got = sweep_of(tmp_path, text).grids[0].evaluations
    assert got == {"robustness": asked, "privacy": {}, "embedding": {"perplexity": 5.0}}
    assert set(got) == set(EVALUATIONS)
    for name in PROTOCOLS:
        assert sweep_of(tmp_path, with_grid(f"protocol: {name}")).grids[0].protocol == name


# --- several files --------------------------------------------------------------------------------------------------

FIRST = """\
ddray: 1
defaults: {protocol: quick}
grids: {one: {axes: {method: full, dataset: digits}}}
profiles: {laptop: {defaults: {protocol: dc300}}, mine: {grids: {one: {axes: {seed: [3]}}}}}
resources: {train: {cpus: 2}}
"""
SECOND = """\
ddray: 1
defaults: {protocol: idc}
datasets: {mini: {like: digits, folder: mini}}
grids: {two: {axes: {method: full, dataset: mini}}}
profiles: {laptop: {grids: {two: {axes: {seed: [5]}}}}}
"""


def union(folder: Path, top: str = "", first: str = FIRST, second: str = SECOND) -> Path:
    write(folder, first, "parts/first.yaml")
    write(folder, second, "parts/second.yaml")
    return write(folder, f"ddray: 1\ninclude: [parts/first.yaml, parts/second.yaml]\n{top}", "all.yaml")


def test_included_files_keep_their_defaults(tmp_path: Path) -> None:
    sweep = load(union(tmp_path))
    assert [(entry.name, entry.protocol) for entry in sweep.grids] == [("one", "quick"), ("two", "idc")]
    assert sweep.files == tuple(tmp_path / name for name in ("all.yaml", "parts/first.yaml", "parts/second.yaml"))
    assert sweep.resources == {"train": ResourceDecl(2, None)}
    assert list(sweep.datasets) == ["mini"]
    assert sweep.grids[1].where("axes.method").endswith("parts/second.yaml:4")


def test_profiles_of_one_name_apply_in_all_files_that_have_it(tmp_path: Path) -> None:
    sweep = load(union(tmp_path), profiles=["laptop"])
    assert [entry.protocol for entry in sweep.grids] == ["dc300", "idc"]
    assert sweep.grids[1].axes["seed"] == (5,)
    assert load(union(tmp_path), profiles=["mine"]).grids[0].axes["seed"] == (3,)


def test_a_profile_of_the_including_file_applies_to_all_grids_last(tmp_path: Path) -> None:
    top = "profiles: {laptop: {defaults: {protocol: dsa1000}, grids: {one: null}}}\n"
    sweep = load(union(tmp_path, top), profiles=["laptop"])
    assert [(entry.name, entry.protocol) for entry in sweep.grids] == [("two", "dsa1000")]


def test_the_including_file_has_the_last_word_on_resources(tmp_path: Path) -> None:
    assert load(union(tmp_path, "resources: {train: {cpus: 4}}")).resources["train"].cpus == 4


@pytest.mark.parametrize(
    "content",
    [
        "hunter2:*:19000:0:99999:7:::\n",
        "aws: {hunter2: hunter2}\n",
        "hunter2\n",
        "[hunter2, x]\n",
        "a: hunter2\nb: [*hunter2]\n",
        "- !hunter2 x\n",
        'key: "\\hunter2"\n',
        "hunter2: 1\nhunter2: 2\n",
        "x: !!python/object/apply:hunter2 {}\n",
        b"hunter2\xff\xfe",
        "hunter2\x00",
        "",
    ],
)
def test_what_stands_in_a_file_that_is_no_sweep_is_not_said(tmp_path: Path, content: str | bytes) -> None:
    """A sweep from elsewhere may name any file of whoever plans it, and messages travel."""
    main = union(tmp_path)
    (tmp_path / "parts" / "second.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError) as refused:
        load(main)
    assert "hunter2" not in str(refused.value)
    assert "second.yaml: not a sweep file, but included; expected a mapping that begins with ddray: 1" in str(
        refused.value
    )


def test_what_is_wrong_in_an_included_sweep_is_still_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"second.yaml:3: not YAML"):
        load(union(tmp_path, second="ddray: 1\ngrids: {x: {\n  axes: ]}}"))
    with pytest.raises(RequestError, match=r"second.yaml:2: unknown key 'sgrid'"):
        load(union(tmp_path, second="ddray: 1\nsgrid: {}\n"))


@pytest.mark.parametrize(
    "top, first, second, message",
    [
        (
            "",
            FIRST,
            SECOND.replace("two", "one"),
            r"second.yaml:4: grids: two grids are called 'one'; first at .*first.yaml:3",
        ),
        ("grids: {x: {}}", FIRST, SECOND, r"all.yaml:3: grids: grids and include exclude each other"),
        ("defaults: {}", FIRST, SECOND, r"all.yaml:3: defaults: nothing here uses them"),
        ("", FIRST, "ddray: 1\ninclude: [../all.yaml]", r"second.yaml:2: include: a cycle"),
        ("", FIRST, "ddray: 1\ninclude: [second.yaml]", r"second.yaml:2: include: a cycle"),
        ("", FIRST, "ddray: 1\ninclude: [first.yaml]", r"second.yaml:2: include: 'first.yaml' is included twice"),
        ("", FIRST, "ddray: 1\ninclude: [none.yaml]", r"second.yaml:2: include: no such file '.*none.yaml'"),
        ("", FIRST, "ddray: 1\ninclude: []", r"second.yaml:2: include: an empty list"),
        ("", FIRST, "ddray: 1\ninclude: x.yaml", r"second.yaml:2: include: wrong type; got 'x.yaml'; expected a list"),
        ("", FIRST, "ddray: 2", r"second.yaml:1: ddray: written for a newer ddray"),
        ("", FIRST, SECOND + "resources: {train: {cpus: 3}}", r"resources.train: differs from .*:5; expected the same"),
        (
            "profiles: {p: {grids: {tow: null}}}",
            FIRST,
            SECOND,
            r"all.yaml:3: profiles.p.grids: unknown grid 'tow'; known: ",
        ),
        (
            "",
            FIRST + "foo: 1\n",
            SECOND + "bar: 1\n",
            r"first.yaml:6: unknown key 'foo'(.|\n)*second.yaml:6: unknown key 'bar'",
        ),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, top: str, first: str, second: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load(union(tmp_path, top, first, second))


def test_a_profile_must_exist_somewhere(tmp_path: Path) -> None:
    known = r"--profile: unknown profile 'laptp'; known: laptop, mine. Did you mean 'laptop'\?"
    with pytest.raises(RequestError, match=known):
        load(union(tmp_path), profiles=["laptp"])
    with pytest.raises(RequestError, match="--profile: unknown profile 'x'; known: none in this sweep"):
        load(write(tmp_path, with_grid("")), profiles=["x"])
    with pytest.raises(RequestError, match="--profile: 'laptop' is given twice"):
        load(union(tmp_path), profiles=["laptop", "laptop"])


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        # the root
        (
            "ddray: 2\nfoo: 1",
            r"s.yaml:1: ddray: written for a newer ddray; got grammar 2; expected 1\. Update ddray\.\n1 problem;",
        ),
        ("grids: {}", r"s.yaml:1: missing key 'ddray'; expected 1"),
        ("ddray: true", r"s.yaml:1: ddray: wrong type; got true; expected 1"),
        ("ddray: '1'", r"s.yaml:1: ddray: wrong type; got '1'; expected 1"),
        ("ddray: 0", r"s.yaml:1: ddray: out of range; got 0; expected 1"),
        ("ddray: 1", r"s.yaml:1: no grids; expected grids, or include"),
        ("ddray: 1\ngrids: {}", r"s.yaml:1: grids: no grid is left"),
        ("ddray: 1\ngrid: {}", r"s.yaml:2: unknown key 'grid'; known: ddray, .*\. Did you mean 'grids'\?"),
        ("ddray: 1\ngrids:", r"s.yaml:2: grids: wrong type; got null; expected a mapping"),
        ("ddray: 1\ngrids: [1]", r"s.yaml:2: grids: wrong type; got a list of 1; expected a mapping"),
        ("ddray: 1\ngrids: {a b: {}}", r"s.yaml:2: grids: not a name; got 'a b'; expected letters"),
        (
            "ddray: 1\ngrids: {t: null}",
            r"s.yaml:2: grids.t: wrong type; got null; expected a mapping with any of protocol",
        ),
        ("ddray: 1\nddray: 1\ngrids: {}", r"s.yaml:2: duplicate key 'ddray'; first at .*s.yaml:1"),
        (with_grid("", "description: [1]"), r"s.yaml:5: description: wrong type; got a list of 1; expected text"),
        # axes
        (with_grid("axes: {}"), r"s.yaml:3: grids.t: duplicate key 'axes'"),
        (
            "ddray: 1\ngrids: {t: {axes: {method: [dm, dss]}}}",
            r"s.yaml:2: grids.t.axes.method: unknown method 'dss'; known: .*dsa.*\. Did you mean 'dsa'\?",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {dataset: cifar}}}",
            r"s.yaml:2: grids.t.axes.dataset: unknown data set 'cifar'; known: .*cifar100.* Did you mean 'cifar10",
        ),
        ("ddray: 1\ngrids: {t: {axes: {dataset: [7]}}}", r"grids.t.axes.dataset: wrong type; got 7"),
        (
            "ddray: 1\ngrids: {t: {axes: {ipc: true}}}",
            r"grids.t.axes.ipc: wrong type; got true; expected an integer >= 1",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {ipc: [1,\n  '2']}}}",
            r"s.yaml:3: grids.t.axes.ipc: wrong type; got '2'; expected an integer",
        ),
        ("ddray: 1\ngrids: {t: {axes: {ipc: 1.0}}}", r"grids.t.axes.ipc: wrong type; got 1.0"),
        (
            "ddray: 1\ngrids: {t: {axes: {ipc: [0]}}}",
            r"grids.t.axes.ipc: out of range; got 0; expected an integer >= 1",
        ),
        ("ddray: 1\ngrids: {t: {axes: {ipc: [null]}}}", r"grids.t.axes.ipc: wrong type; got null"),
        ("ddray: 1\ngrids: {t: {axes: {ipc: []}}}", r"grids.t.axes.ipc: an empty list; expected at least one value"),
        ("ddray: 1\ngrids: {t: {axes: {ipc: {a: 1}}}}", r"grids.t.axes.ipc: wrong type; got a mapping with 1 key"),
        (
            "ddray: 1\ngrids: {t: {axes: {seed: [0, 1,\n 0]}}}",
            r"s.yaml:3: grids.t.axes.seed: duplicate value 0; expected every value once",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {seed: -1}}}",
            r"grids.t.axes.seed: out of range; got -1; expected an integer >= 0",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {num_classes: 1}}}",
            r"grids.t.axes.num_classes: out of range; got 1; expected an integer >= 2 or null",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {origin_per_class: 0}}}",
            r"axes.origin_per_class: out of range; got 0; expected an integer >= 1 or null",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {init: random}}}",
            r"grids.t.axes.init: unknown init 'random'; known: noise, real",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {architecture: convnet}}}",
            r"unknown architecture 'convnet'; .*Did you mean 'convnet3'\?",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {distill_aug: idc}}}",
            r"grids.t.axes.distill_aug: unknown distill_aug 'idc'; known: dsa, none",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {train_aug: [dsa, yes]}}}",
            r"grids.t.axes.train_aug: unknown train_aug 'yes'; known: dsa, idc, crop_flip, rrc_flip, none",
        ),
        (
            "ddray: 1\ngrids: {t: {axes: {seeds: 1}}}",
            r"grids.t.axes: unknown key 'seeds'; known: method, .*\. Did you mean 'seed'\?",
        ),
        # the rest of a grid
        (
            with_grid("protocol: paper2024"),
            r"s.yaml:3: grids.t.protocol: unknown protocol 'paper2024'; .*Did you mean 'paper2023'\?",
        ),
        (with_grid("protocol: null"), r"s.yaml:3: grids.t.protocol: wrong type; got null"),
        (with_grid("train: {epoch: 1}"), r"grids.t.train: unknown key 'epoch'; .*Did you mean 'epochs'\?"),
        (with_grid("train: {lr: 0}"), r"grids.t.train.lr: out of range; got 0; expected a number > 0"),
        (
            with_grid("train: {epochs: 1, steps: 1}"),
            r"grids.t.train.steps: epochs and steps are alternatives; got both",
        ),
        (with_grid("train: {milestones: 0.5}"), r"grids.t.train.milestones: wrong type; got 0.5; expected a list"),
        (with_grid("exclude: {ipc: 1}"), r"grids.t.exclude: wrong type; got a mapping with 1 key; expected a list"),
        (with_grid("exclude: [{ipcs: 1}]"), r"grids.t.exclude: unknown key 'ipcs'; .*Did you mean 'ipc'\?"),
        (with_grid("exclude: [{seed: 1}, {method: x}]"), r"grids.t.exclude\[1\].method: unknown method 'x'"),
        (with_grid("exclude: [{dataset: x}]"), r"grids.t.exclude\[0\].dataset: unknown data set 'x'"),
        (with_grid("settings: {dmm: {}}"), r"grids.t.settings: unknown key 'dmm'; known: .*dm"),
        (
            with_grid("settings: {dm: {iteration: 1}}"),
            r"grids.t.settings.dm: unknown key 'iteration'; .*Did you mean 'iterations'\?",
        ),
        (
            with_grid("settings: {dm: {iterations: many}}"),
            r"grids.t.settings.dm.iterations: wrong type; got 'many'; expected an integer >= 0 or {ipc: value}",
        ),
        (with_grid("settings: {full: {x: 1}}"), r"grids.t.settings.full: unknown key 'x'"),
        (
            with_grid("evaluations: [privacy]"),
            r"grids.t.evaluations: wrong type; got a list of 1; expected a mapping with any of robustness",
        ),
        (
            with_grid("evaluations: {accuracy: {}}"),
            r"grids.t.evaluations: unknown key 'accuracy'; .*Accuracy is always evaluated",
        ),
        (
            with_grid("evaluations: {privacy: null}"),
            r"grids.t.evaluations.privacy: wrong type; got null; expected a mapping",
        ),
        (
            with_grid("evaluations: {robustness: {attacks: [deepfool]}}"),
            r"unknown attack 'deepfool'; .*Did you mean 'deepfool_l2'\?",
        ),
        (with_grid("evaluations: {robustness: {attacks: []}}"), r"robustness.attacks: an empty list"),
        (
            with_grid("evaluations: {robustness: {attacks: [fgsm, fgsm]}}"),
            r"robustness.attacks: duplicate value 'fgsm'",
        ),
        (with_grid("evaluations: {robustness: {dataset: digits}}"), r"evaluations.robustness: unknown key 'dataset'"),
        (
            with_grid("evaluations: {privacy: {audit: [pol]}}"),
            r"privacy.audit: unknown audit 'pol'; known: seed, pool, one_run",
        ),
        (
            with_grid("evaluations: {privacy: {rows: 5}}"),
            r"privacy.rows: out of range; got 5; expected an integer >= 4, a multiple of 2, or one of smoke, standard",
        ),
        (
            with_grid("evaluations: {privacy: {rows: smok}}"),
            r"privacy.rows: unknown tier 'smok'; known: smoke, standard, full, or an integer .* Did you mean 'smoke'\?",
        ),
        (
            with_grid("evaluations: {privacy: {rows: [6]}}"),
            r"privacy.rows: wrong type; got a list of 1",
        ),
        (
            with_grid("evaluations: {privacy: {attacks: [lira]}}"),
            r"privacy.attacks: unknown attack 'lira'; known: loss, conf, .*, blind\.",
        ),
        (with_grid("evaluations: {privacy: {rows: null}}"), r"privacy.rows: wrong type; got null"),
        (
            with_grid("evaluations: {robustness: {epsilons_linf: [8]}}"),
            r"robustness.epsilons_linf: out of range; got 8; expected a number > 0, <= 1",
        ),
        (with_grid("evaluations: {robustness: {epsilons_l2: [0]}}"), r"epsilons_l2: out of range; got 0; .* > 0"),
        (with_grid("evaluations: {embedding: {real_per_class: 9}}"), r"real_per_class: out of range; got 9; .* >= 10"),
        # beside the grids
        (
            with_grid("", "datasets: {x: {folder: a}}"),
            r"s.yaml:5: datasets.x: missing key 'like'; expected one of digits",
        ),
        (with_grid("", "datasets: {x: {like: cifar1}}"), r"s.yaml:5: datasets.x.like: unknown data set 'cifar1'"),
        (
            with_grid("", "datasets: {digits: {like: digits, resize: 32}}"),
            r"datasets.digits: a known data set has this name",
        ),
        (
            with_grid("", "datasets: {x: {like: digits, folder: ../x}}"),
            r"datasets.x.folder: outside DDRAY_DATA; got '../x'",
        ),
        (
            with_grid("", "datasets: {x: {like: digits, folder: /x}}"),
            r"datasets.x.folder: outside DDRAY_DATA; got '/x'",
        ),
        (with_grid("", "datasets: {x: {like: digits, resize: 3}}"), r"datasets.x.resize: out of range; got 3"),
        (
            with_grid("", "resources: {distil: {cpus: 1}}"),
            r"resources: unknown key 'distil'; known: .*Did you mean 'distill'\?",
        ),
        (
            with_grid("", "resources: {train: {gpu: 2}}"),
            r"resources.train.gpu: out of range; got 2; expected a number >= 0, <= 1",
        ),
        (
            with_grid("", "resources: {train: {cpus: 0}}"),
            r"resources.train.cpus: out of range; got 0; expected an integer >= 1",
        ),
        (with_grid("", "resources: {train: {memory: 2}}"), r"resources.train: unknown key 'memory'; known: cpus, gpu"),
        (with_grid("", "notify: {}"), r"notify: missing key 'command'"),
        (with_grid("", "notify: {command: ''}"), r"notify.command: out of range; got ''"),
        # profiles, also ones that are not chosen
        (with_grid("", "profiles: {p: {axes: {}}}"), r"s.yaml:5: profiles.p: unknown key 'axes'"),
        (
            with_grid("", "profiles: {p: {grids: {tt: null}}}"),
            r"s.yaml:5: profiles.p.grids: unknown grid 'tt'; known: t\.",
        ),
        (
            with_grid("", "profiles: {p: {grids: {t: {axes: {ipc: x}}}}}"),
            r"profiles.p.grids.t.axes.ipc: wrong type; got 'x'",
        ),
        (
            with_grid("", "profiles: {p: {defaults: {axes: {dataset: x}}}}"),
            r"profiles.p.defaults.axes.dataset: unknown data set 'x'",
        ),
    ],
)
def test_every_mistake_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        sweep_of(tmp_path, text)
    assert "pydantic" not in str(caught.value)
    assert "Input should" not in str(caught.value)


@pytest.mark.parametrize(
    "argument, message",
    [
        ("protocol", r"--set: not PATH=VALUE; got 'protocol'"),
        ("=1", r"--set: not PATH=VALUE"),
        ("defaults..x=1", r"--set: not PATH=VALUE"),
        ("a\udcff=1", r"--set: not PATH=VALUE"),
        (
            "defaults.protocl=quick",
            r"--set: defaults: unknown key 'protocl'; known: protocol, .*Did you mean 'protocol'\?",
        ),
        ("protocol=quick", r"--set: unknown key 'protocol'; known: "),
        ("grids.one.axes.ipc=x", r"--set: grids.one.axes.ipc: wrong type; got 'x'"),
        ("grids.on.axes.ipc=1", r"--set: grids: unknown grid 'on'; known: one, two. Did you mean 'one'\?"),
        ("grids.one.axes.dataset=x", r"--set: grids.one.axes.dataset: unknown data set 'x'"),
        ("grids.one.axes.ipc.0=1", r"--set: grids.one.axes.ipc: wrong type; got a mapping"),
        ("grids.one.axes.ipc=[1", r"--set: not YAML"),
        ("grids.one.axes.ipc=!!python/name:os.system", r"--set: tags are not allowed"),
        ("grids.one=null", r""),
        ("ddray=1", r"--set: ddray: cannot be set"),
        ("include=[x]", r"--set: include: cannot be set"),
        ("profiles.fast.defaults.protocol=quick", r"--set: profiles.fast.defaults.protocol: cannot be set"),
        ("datasets.x.folder=mini", r"--set: datasets.x: missing key 'like'"),
        ("resources.distill.dn.gpu=1", r"--set: resources: unknown key 'distill.dn'; .*Did you mean 'distill.d"),
        (".".join("a" * 60) + "=1", r"--set: .*: no usable value"),
    ],
)
def test_wrong_set_arguments(tmp_path: Path, argument: str, message: str) -> None:
    if not message:
        assert sweep_of(tmp_path, SMALL, sets=[argument]).name.startswith("s-")
        return
    with pytest.raises(RequestError, match=message):
        sweep_of(tmp_path, SMALL, sets=[argument])


def test_patching_a_removed_grid_is_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--set: grids.one: patches a grid that is removed at .*s.yaml:11"):
        sweep_of(tmp_path, SMALL, profiles=["few"], sets=["grids.one.axes.ipc=1"])
    with pytest.raises(RequestError, match="no grid is left"):
        sweep_of(tmp_path, SMALL, sets=["grids={one: null, two: null}"])


@pytest.mark.parametrize("name", ["a@b.yaml", ".hidden.yaml", "-x.yaml"])
def test_the_stem_must_make_a_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="the file's stem names the results folder"):
        load(write(tmp_path, SMALL, name))


ARCHITECTURES = (
    "convnet3",
    "convnet3-d4",
    "resnet18-w32",
    "resnet18-w32-instance",
    "convnet3-d2-w64-batch",
    "vgg16-none",
)
NOT_ARCHITECTURES = (
    "resnet-18",
    "resnet18-batch",
    "resnet18-instance-w32",
    "vgg16-layer",
    "convnet3-d7",
    "vgg16-w0",
    "",
)


def architectures(names: str) -> str:
    return f"ddray: 1\ngrids:\n  t:\n    axes: {{method: full, dataset: cifar10, architecture: {names}}}\n"


def test_architectures_have_options(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, architectures(f"[{', '.join(ARCHITECTURES)}]"))
    assert grid_of(sweep, "t").axes["architecture"] == ARCHITECTURES
    assert [point.architecture for point in expanded(sweep)] == list(ARCHITECTURES)


@pytest.mark.parametrize(
    "names, message",
    [
        (
            "resnet-18",
            r"s.yaml:4: grids.t.axes.architecture: unknown architecture 'resnet-18'; .*Did you mean 'resnet18'\?$",
        ),
        (
            "[convnet3, resnet18-batch]",
            r"s.yaml:4: grids.t.axes.architecture: .*expected 'resnet18' .*Write 'resnet18'\.$",
        ),
        ("vgg16-instance-w32", r"Write 'vgg16-w32-instance'\.$"),
        (
            "vgg16-layer",
            r"vgg16 has no norm 'layer'; expected one of instance, batch, group, none\. Change the norm\.$",
        ),
        ("18", r"axes.architecture: wrong type; got 18; expected one of convnet3, resnet18, vgg16 or text or a list"),
        ("[vgg16, vgg16]", r"duplicate value 'vgg16'"),
        ("convnet3-d6", r"got 32 pixels; expected: convnet3-d6 takes images of 64 to 256 pixels"),
    ],
)
def test_wrong_architectures_are_answered_with_the_nearest(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        expanded(sweep_of(tmp_path, architectures(names)))
    (problem,) = caught.value.problems
    assert re.search(message, problem)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            "{depth: 4}",
            r"s.yaml:3: grids.t.settings.dm.depth: .*got 8 pixels; expected: dm matches on convnet3-d4 takes",
        ),
        (
            "{architecture: vgg16}",
            r"s.yaml:3: grids.t.settings.dm.architecture: .*dm matches on vgg16 takes images of 28",
        ),
        ("{architecture: resnet18, norm: layer}", r"s.yaml:3: grids.t.settings.dm: dm cannot match .*no norm 'layer'"),
        ("{architecture: resnet18, depth: 4}", r"s.yaml:3: grids.t.settings.dm: dm cannot match .*no depth 4"),
        ("{norm: group, width: 6}", r"s.yaml:3: grids.t.settings.dm: dm cannot match .*multiple of 4"),
        (
            "{architecture: resnet18-instance}",
            r"settings.dm.architecture: unknown architecture .*Did you mean 'resnet18'",
        ),
    ],
)
def test_networks_that_a_method_cannot_match_on(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        expanded(sweep_of(tmp_path, with_grid(f"settings: {{dm: {settings}}}")))
    (problem,) = caught.value.problems
    assert re.search(message, problem)


def test_all_problems_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "ddray: 1\n"
        "defaults: {protocol: quik}\n"
        "grids:\n"
        "  a:\n"
        "    axes: {method: [dm, dss], dataset: digits, ipc: [10, 500, x], architecture: vgg16}\n"
        "    axes: {}\n"
        "  b:\n"
        "    axes: {method: full, dataset: [digits, none], origin_per_class: 1000, num_classes: 11}\n"
        "resources: {distil: {}}\n"
    )
    with pytest.raises(RequestError) as caught:
        sweep_of(tmp_path, text, sets=["nothing=1"], profiles=["no"])
    found = "\n".join(caught.value.problems)
    for part in (
        "s.yaml:2: defaults.protocol: unknown protocol 'quik'",
        "s.yaml:5: grids.a.axes.method: unknown method 'dss'",
        "s.yaml:5: grids.a.axes.ipc: wrong type; got 'x'",
        "s.yaml:5: grids.a.axes.ipc: more images than a class of digits holds",
        "s.yaml:5: grids.a.axes.architecture: cannot take the images of digits; got 8 pixels",
        "s.yaml:6: grids.a: duplicate key 'axes'",
        "s.yaml:8: grids.b.axes.dataset: unknown data set 'none'",
        "s.yaml:8: grids.b.axes.num_classes: more classes than digits has; got 11",
        "s.yaml:8: grids.b.axes.origin_per_class: more images than the smallest class of digits has; got 1000",
        "s.yaml:9: resources: unknown key 'distil'",
        "--set: unknown key 'nothing'",
        "--profile: unknown profile 'no'",
    ):
        assert part in found
    lines = [int(match) for match in re.findall(r"s.yaml:(\d+): ", found)]
    assert lines == sorted(lines)
    assert str(caught.value).endswith(f"{len(caught.value.problems)} problems; nothing was started.")


def test_no_conclusions_from_what_a_mistake_hides(tmp_path: Path) -> None:
    for text in (
        "ddray: 1\ngrids: {t: {axes: {method: dm, dataset: digits, ipcs: 1}}}",
        "ddray: 1\ngrids: {t: {axes: {method: dmm, dataset: digits, ipc: 1}}}",
        "ddray: 1\ngrids: {t: {axes: {method: [dmm], dataset: digits, ipc: 1}}}",
        "ddray: 1\ngrids: {t: {axes: {method: full, dataset: digits}, exclude: [{dataset: digits, ipc: x}]}}",
        "ddray: 1\ngrids: {t: {axes: {method: dm, dataset: digit, ipc: 1}, exclude: [{ipc: 1}]}}",
        "ddray: 1\ndefault: {axes: {ipc: 1}}\ngrids: {t: {axes: {method: dm, dataset: digits}}}",
        "ddray: 1\ndatasets: {x: {like: digit}}\ngrids: {t: {axes: {method: full, dataset: x}}}",
    ):
        with pytest.raises(RequestError) as caught:
            sweep_of(tmp_path, text)
        assert len(caught.value.problems) == 1, caught.value


def test_errors_carry_exit_codes() -> None:
    error = RequestError(["a: b", "c: d"])
    assert isinstance(error, DdrayError)
    assert (error.exit_code, EnvironmentProblem.exit_code) == (2, 3)
    assert str(error) == "a: b\nc: d\n2 problems; nothing was started."
    assert str(RequestError(["a: b"])) == "a: b\n1 problem; nothing was started."


# --- the schema for editors -----------------------------------------------------------------------------------------


def test_the_written_schema_is_current() -> None:
    written = (ROOT / "ddray.schema.json").read_text(encoding="utf-8")
    assert written == json.dumps(json_schema(), indent=2, sort_keys=True) + "\n", (
        "run: ddray schema > ddray.schema.json"
    )


def test_the_schema_accepts_the_example_and_refuses_mistakes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from ruamel.yaml import YAML

    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())

    def wrong(text: str) -> list[Any]:
        content = YAML(typ="safe", pure=True).load(text)
        return list(validator.iter_errors(json.loads(json.dumps(content))))

    assert not wrong(EXAMPLE)
    for old, new in [
        ("method: [dm,", "method: [dn,"),
        ("ipc: [10]", "ipc: ['10']"),
        ("protocol: quick", "protocol: quik"),
        ("grids:\n", "grid:\n"),
        ("rows: 16", "rows: 15"),
        ("gpu: 0.5", "gpu: 5"),
        ("idc: {gpu", "icd: {gpu"),
    ]:
        broken = EXAMPLE.replace(old, new)
        assert broken != EXAMPLE or old == "method: [dm,"
        assert wrong(broken) or broken == EXAMPLE


def test_the_schema_knows_the_architectures() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for names, accepted in ((ARCHITECTURES, True), (NOT_ARCHITECTURES, False)):
        for name in names:
            for value in (name, [name]):
                content = {"ddray": 1, "grids": {"t": {"axes": {"architecture": value}}}}
                assert validator.is_valid(content) == accepted, name
    offered = json_schema()["$defs"]["Axes"]["properties"]["architecture"]
    assert '"enum": ["convnet3", "resnet18", "vgg16"]' in json.dumps(offered), "what an editor completes"


def test_the_schema_names_and_explains_everything() -> None:
    schema = json_schema()
    axes = schema["$defs"]["Axes"]["properties"]
    assert tuple(axes) == tuple(AXES)
    for name in ("Axes", "GridBlock", "Patch", "Train", "DMSettings", "RobustnessSettings", "DatasetBlock", "Resource"):
        assert schema["$defs"][name]["additionalProperties"] is False
    for name in ("Axes", "GridBlock", "DatasetBlock", "Resource", "Notify"):
        assert all("description" in entry for entry in schema["$defs"][name]["properties"].values()), name
    assert "description" in schema["$defs"]["DMSettings"]["properties"]["iterations"]
    assert set(schema["$defs"]["Settings"]["properties"]) == set(METHODS)
    assert '"default": null' not in json.dumps(schema)


# --- anything at all --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "ddray",
        "datasets",
        "defaults",
        "grids",
        "include",
        "resources",
        "notify",
        "profiles",
        "protocol",
        "train",
        "axes",
        "exclude",
        "settings",
        "evaluations",
        *AXES,
        *METHODS,
        *PROTOCOLS,
        *EVALUATIONS,
        "digits",
        "cifar10",
        "t",
        "like",
        "folder",
        "attacks",
        "fgsm",
        "epochs",
        "steps",
        "lr",
        "iterations",
        "command",
        "gpu",
        "cpus",
        "convnet3",
        "vgg16",
        "noise",
        "real",
        "none",
        "s.yaml",
        "é",
        "",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2000),
    st.integers(),
    st.floats(allow_nan=False),
    WORDS,
    st.text(max_size=5),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


def axis_values(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, st.lists(values, max_size=3), SCALARS)


NUMBERS = st.one_of(st.integers(-1, 12), st.none())
BLOCK = st.fixed_dictionaries(
    {},
    optional={
        "axes": st.fixed_dictionaries(
            {
                "method": axis_values(st.sampled_from(list(METHODS))),
                "dataset": axis_values(st.sampled_from(["digits", "cifar10", "mini"])),
                "ipc": axis_values(st.integers(1, 300)),
            },
            optional={
                axis: axis_values(st.one_of(NUMBERS, WORDS))
                for axis in AXES
                if axis not in ("method", "dataset", "ipc")
            },
        ),
        "exclude": st.one_of(
            ANYTHING, st.lists(st.dictionaries(st.sampled_from(tuple(AXES)), NUMBERS, max_size=2), max_size=2)
        ),
        "protocol": st.one_of(st.sampled_from(list(PROTOCOLS)), SCALARS),
        "train": ANYTHING,
        "settings": st.dictionaries(st.sampled_from(list(METHODS)), ANYTHING, max_size=2),
        "evaluations": st.dictionaries(
            st.sampled_from(list(EVALUATIONS)), st.one_of(st.just({}), ANYTHING), max_size=2
        ),
    },
)
GRIDS = st.dictionaries(st.sampled_from(["t", "u", "a b", ""]), st.one_of(BLOCK, BLOCK, ANYTHING), max_size=2)
PATCH = st.fixed_dictionaries({}, optional={"defaults": BLOCK, "grids": GRIDS, "resources": ANYTHING})
SWEEPS = st.fixed_dictionaries(
    {"ddray": st.just(1), "grids": GRIDS},
    optional={
        "defaults": BLOCK,
        "profiles": st.dictionaries(st.sampled_from(["p", "q"]), st.one_of(PATCH, ANYTHING), max_size=2),
        "datasets": st.one_of(ANYTHING, st.just({"mini": {"like": "digits", "resize": 16}})),
        "resources": ANYTHING,
        "notify": ANYTHING,
        "include": st.one_of(ANYTHING, st.just(["s.yaml"])),
        "description": ANYTHING,
    },
)


def points_or_refusal(path: Path, **options: Any) -> list[GridPoint]:
    """The points, or none when the request was wrong; anything else is a bug."""
    try:
        points = expanded(load(path, **options))
    except RequestError as error:
        problems = error.problems
        points = []
    else:
        problems = ()
        assert points
    assert all(re.match(r".*?:\d+: |--\w+: |.*: ", problem) for problem in problems)
    assert "pydantic" not in "".join(problems)
    assert len({point.hash for point in points}) == len(points)
    return points


@settings(max_examples=150, deadline=None)
@given(st.one_of(ANYTHING, st.dictionaries(WORDS, ANYTHING, max_size=5)))
def test_any_structure_is_a_sweep_or_a_request_error(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    points_or_refusal(write(tmp_path_factory.getbasetemp(), json.dumps(content)))


@settings(max_examples=300, deadline=None)
@given(SWEEPS, st.lists(st.sampled_from(["p", "q"]), max_size=2))
def test_any_near_sweep_is_a_sweep_or_a_request_error(
    tmp_path_factory: pytest.TempPathFactory, content: object, profiles: list[str]
) -> None:
    points_or_refusal(write(tmp_path_factory.getbasetemp(), json.dumps(content)), profiles=profiles)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=5).map(".".join) | st.text(max_size=8),
    st.one_of(ANYTHING.map(json.dumps), st.text(max_size=8)),
)
def test_any_set_argument_is_applied_or_a_request_error(
    tmp_path_factory: pytest.TempPathFactory, path: str, value: str
) -> None:
    points_or_refusal(write(tmp_path_factory.getbasetemp(), SMALL), sets=[f"{path}={value}"])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, len(EXAMPLE)), st.integers(0, 30), st.text(st.sampled_from("{}[]:,-&*!|>'\"\n #0aé\t"), max_size=4)
)
def test_a_damaged_example_is_a_sweep_or_a_request_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: str
) -> None:
    points_or_refusal(write(tmp_path_factory.getbasetemp(), EXAMPLE[:at] + put + EXAMPLE[at + cut :]))


def test_constants_of_another_data_set(tmp_path: Path) -> None:
    """MTT and IDC normalise CIFAR-100 as CIFAR-10: another network input, hence another key; the same data."""
    from ddray.plan.datasets import resolve
    from trainables.data.cache import build
    from trainables.data.known import KNOWN

    text = """
    ddray: 1
    datasets:
      plain: {like: digits, resize: 8}
      other: {like: digits, resize: 8, constants: mnist}
    grids: {g: {axes: {method: [random], dataset: [plain, other], ipc: [1]}}}
    """
    sweep = load(write(tmp_path, text))
    facts = resolve(sweep, ["plain", "other"], tmp_path, tmp_path / "cache", build)
    plain, other = facts["plain"].config, facts["other"].config
    assert (plain.mean, plain.std) == (KNOWN["digits"].mean, KNOWN["digits"].std)
    assert (other.mean, other.std) == (KNOWN["mnist"].mean, KNOWN["mnist"].std)
    assert plain.key_material() != other.key_material()
    assert plain.model_copy(update={"mean": other.mean, "std": other.std}).key_material() == other.key_material()
    with pytest.raises(
        RequestError, match=r"datasets.other.constants: other channels; got .*cifar10.* with 3; expected 1"
    ):
        load(write(tmp_path, text.replace("constants: mnist", "constants: cifar10")))
