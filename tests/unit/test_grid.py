"""Sweeps to grid points: products, exclusions, unused axes, merging, what cannot be, and filters."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddray.errors import RequestError
from ddray.plan.axes import AXES
from ddray.plan.feasible import network_problem
from ddray.plan.grid import select
from ddray.plan.points import GridPoint
from ddray.prepare import expanded, load
from trainables.methods import METHODS
from trainables.protocols import PROTOCOLS

ANYWHERE = [name for name, method in METHODS.items() if not method.settings.of_groups]
"""Methods that take any data set."""
LEARNED = [name for name in ANYWHERE if "init" in METHODS[name].uses]
EXAMPLE = """\
ddray: 1
defaults: {protocol: paper2023, axes: {architecture: [convnet3], seed: [0, 1, 2], distill_seed: [0]}}
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
    exclude: [{dataset: cifar100, ipc: 100}]
    evaluations: {robustness: {attacks: [deepfool_l2], images: 1000}}
"""


def points_of(folder: Path, grids: str, top: str = "", **options: Any) -> list[GridPoint]:
    """Points of ``grids: {…}`` written on line 3."""
    path = folder / "s.yaml"
    path.write_text(f"ddray: 1\n{top}\ngrids: {{{grids}}}\n", encoding="utf-8")
    return expanded(load(path), **options)


def axes(entries: str, **rest: str) -> str:
    return ", ".join([f"axes: {{{entries}}}", *(f"{name}: {value}" for name, value in rest.items())])


# --- product ------------------------------------------------------------------------------------------------------


def test_the_documented_example_has_the_points_of_the_paper(tmp_path: Path) -> None:
    path = tmp_path / "full.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    points = expanded(load(path))
    table1 = [point for point in points if point.grids == ("table1",)]
    table3 = [point for point in points if point.grids == ("table3",)]
    # 4 methods x 2 inits, and random once, and full once; each on 4 origins x 3 draws
    assert len(table1) == (4 * 2 + 1 + 1) * 4 * 3
    # 4 methods x (5 + 4) ipc values, and full per data set; each with 3 networks x 3 seeds
    assert len(table3) == (4 * 9 + 2) * 3 * 3
    assert len(points) == len(table1) + len(table3)
    assert not [point for point in table3 if point.dataset == "cifar100" and point.ipc == 100]
    assert {point.class_draw for point in table1} == {None}  # ten of ten classes: nothing is drawn


def test_order_is_the_file_s_with_the_last_axis_fastest(tmp_path: Path) -> None:
    points = points_of(tmp_path, "t: {" + axes("dataset: [svhn, digits], seed: [2, 1], method: dm, ipc: [3, 1]") + "}")
    order = [(point.dataset, point.seed, point.ipc) for point in points]
    assert order == list(itertools.product(["svhn", "digits"], [2, 1], [3, 1]))


def test_left_out_axes_take_their_defaults(tmp_path: Path) -> None:
    by_method = {
        p.method: p
        for p in points_of(tmp_path, "t: {" + axes("method: [dm, random, full], dataset: digits, ipc: 1") + "}")
    }
    dm, random, full = by_method["dm"], by_method["random"], by_method["full"]
    assert (dm.architecture, dm.seed, dm.distill_seed, dm.init, dm.distill_aug) == ("convnet3", 0, 0, "real", "dsa")
    for point in (dm, random, full):
        assert (point.origin_per_class, point.origin_draw, point.num_classes, point.class_draw) == (None,) * 4
        assert point.train_aug is None
        assert point.protocol == "paper2023"
    assert (random.ipc, random.init, random.distill_seed, random.distill_aug) == (1, None, 0, None)
    assert (full.ipc, full.init, full.distill_seed, full.distill_aug) == (None, None, None, None)


def test_draws_are_null_where_nothing_is_drawn(tmp_path: Path) -> None:
    entries = "method: full, dataset: digits, origin_per_class: [null, 5], origin_draw: [0, 1]"
    entries += ", num_classes: [null, 3, 10], class_draw: [0, 4]"
    points = points_of(tmp_path, "t: {" + axes(entries) + "}")
    origins = {(p.origin_per_class, p.origin_draw) for p in points}
    classes = {(p.num_classes, p.class_draw) for p in points}
    assert origins == {(None, None), (5, 0), (5, 1)}
    assert classes == {(None, None), (3, 0), (3, 4)}, "all ten classes are no other point than null"
    assert len(points) == len(origins) * len(classes)


@pytest.mark.parametrize("method", list(METHODS))
def test_unused_axes_are_null_and_used_ones_are_not(tmp_path: Path, method: str) -> None:
    dataset = "cifar10" if method in ANYWHERE else "cifar10_s"
    entries = f"method: {method}, dataset: {dataset}, ipc: 1, init: noise"
    entries += ", distill_seed: 3, distill_aug: none, train_aug: idc"
    (point,) = points_of(tmp_path, "t: {" + axes(entries) + "}")
    for axis, value in (("ipc", 1), ("init", "noise"), ("distill_seed", 3), ("distill_aug", "none")):
        assert getattr(point, axis) == (value if axis in METHODS[method].uses else None)
    assert point.train_aug == "idc"


# --- exclusion ----------------------------------------------------------------------------------------------------


def test_exclusions_need_all_their_axes_and_take_lists(tmp_path: Path) -> None:
    entries = "method: dm, dataset: [digits, svhn], ipc: [1, 2, 3], seed: [0, 1]"
    points = points_of(
        tmp_path, "t: {" + axes(entries, exclude="[{dataset: svhn, ipc: [2, 3]}, {seed: 1, ipc: 1}]") + "}"
    )
    got = {(p.dataset, p.ipc, p.seed) for p in points}
    every = set(itertools.product(["digits", "svhn"], [1, 2, 3], [0, 1]))
    assert got == {p for p in every if not (p[0] == "svhn" and p[1] > 1) and not (p[1] == 1 and p[2] == 1)}


def test_long_exclusions_work_like_short_ones(tmp_path: Path) -> None:
    entries = f"method: full, dataset: [digits, svhn], seed: {list(range(100))}"
    short = [{"dataset": "svhn", "seed": seed} for seed in range(90)]
    long = [{"dataset": "svhn", "seed": list(range(90))}]
    left = [points_of(tmp_path, "t: {" + axes(entries, exclude=json.dumps(rules)) + "}") for rules in (short, long)]
    assert [point.hash for point in left[0]] == [point.hash for point in left[1]]
    assert len(left[0]) == 100 + 10


def test_exclusions_apply_before_unused_axes_become_null(tmp_path: Path) -> None:
    some = points_of(tmp_path, "t: {" + axes("method: full, dataset: digits, ipc: [1, 2]", exclude="[{ipc: 1}]") + "}")
    assert len(some) == 1  # what is left of ipc 2
    with pytest.raises(RequestError, match=r"s.yaml:3: grids.t.exclude: zero points; every combination is excluded"):
        points_of(
            tmp_path, "t: {" + axes("method: full, dataset: digits, ipc: [1, 2]", exclude="[{ipc: [1, 2]}]") + "}"
        )


@pytest.mark.parametrize(
    "entry, message",
    [
        ("{ipc: 3}", r"grids.t.exclude.ipc: matches nothing; got 3; expected values of the axis: 1, 2"),
        ("{ipc: [1, 3]}", r"grids.t.exclude.ipc: matches nothing; got 3;"),
        (
            "{architecture: vgg16}",
            r"exclude.architecture: matches nothing; got 'vgg16'; expected values of the axis: 'convnet3'",
        ),
        ("{}", r"grids.t.exclude: an empty entry; it would exclude everything"),
    ],
)
def test_exclusions_that_match_nothing_are_mistakes(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        points_of(tmp_path, "t: {" + axes("method: dm, dataset: digits, ipc: [1, 2]", exclude=f"[{entry}]") + "}")


def test_exclusions_of_defaults_concern_the_grids_they_concern(tmp_path: Path) -> None:
    top = "defaults: {exclude: [{ipc: 3}, {dataset: svhn, ipc: 2}]}"
    points = points_of(
        tmp_path,
        "t: {" + axes("method: dm, dataset: digits, ipc: [1, 2]") + "}, "
        "u: {" + axes("method: dm, dataset: svhn, ipc: [1, 2, 3]") + "}",
        top,
    )
    assert {(p.dataset, p.ipc) for p in points} == {("digits", 1), ("digits", 2), ("svhn", 1)}


# --- identity and merging -----------------------------------------------------------------------------------------


def test_equal_points_of_several_grids_are_one(tmp_path: Path) -> None:
    first = axes("method: dm, dataset: digits, ipc: [1, 2]", evaluations="{robustness: {attacks: [fgsm], images: 90}}")
    second = axes(
        "method: dm, dataset: digits, ipc: [2, 3]",
        evaluations="{robustness: {attacks: [cw_l2, fgsm], images: 90}, embedding: {}}",
    )
    points = points_of(tmp_path, f"a: {{{first}}}, b: {{{second}}}")
    assert [(p.ipc, p.grids, p.grid.name) for p in points] == [(1, ("a",), "a"), (2, ("a", "b"), "a"), (3, ("b",), "b")]
    assert points[0].evaluations == {"robustness": {"attacks": ["fgsm"], "images": 90}}
    assert points[1].evaluations == {"robustness": {"attacks": ["fgsm", "cw_l2"], "images": 90}, "embedding": {}}


def test_what_is_not_said_counts_as_the_default_when_points_unite(tmp_path: Path) -> None:
    def unite(first: str, second: str) -> Any:
        entries = "method: full, dataset: digits, origin_per_class: 20"
        text = f"a: {{{axes(entries, evaluations=first)}}}, b: {{{axes(entries, evaluations=second)}}}"
        return points_of(tmp_path, text)[0].evaluations

    assert unite("{privacy: {}}", "{privacy: {targets: 3}}") == {"privacy": {"targets": 3}}
    assert unite("{privacy: {rows: standard}}", "{privacy: {rows: 16}}") == {"privacy": {"rows": 16}}
    one, two = "{robustness: {epsilons_l2: [1, 0.5]}}", "{robustness: {epsilons_l2: [0.5, 1.0], images: 1000}}"
    assert unite(one, two) == {"robustness": {"epsilons_l2": [0.5, 1.0], "images": 1000}}
    assert unite("{robustness: {}}", "{robustness: {attacks: [fgsm]}}") == {
        "robustness": {"attacks": ["deepfool_l2", "deepfool_linf", "fgsm"]}
    }
    clash = r"b.evaluations.privacy.targets: grids 'a' and 'b' share points and differ; got 4 here and 3 at .*s.yaml:3"
    with pytest.raises(RequestError, match=clash):
        unite("{privacy: {}}", "{privacy: {targets: 4}}")


def test_one_network_is_one_point_however_it_is_asked_for(tmp_path: Path) -> None:
    said = axes("method: full, dataset: digits, num_classes: [null, 10]")
    augmented = said.replace("num_classes", "train_aug: [dsa, none], num_classes")
    (point,) = points_of(tmp_path, f"t: {{{said}}}")
    assert (point.train_aug, point.num_classes) == (None, None)
    assert [found.train_aug for found in points_of(tmp_path, f"t: {{{augmented}}}")] == [None, "none"]
    other = points_of(tmp_path, f"t: {{{augmented}, protocol: dc300}}")
    assert [found.train_aug for found in other] == ["dsa", None], "the recipe's own is none"


def test_draws_that_are_the_same_classes_are_refused(tmp_path: Path) -> None:
    from trainables.data.known import class_subset

    assert class_subset(10, 2, 0) == class_subset(10, 2, 3) != class_subset(10, 2, 1)
    said = "method: full, dataset: cifar10, num_classes: 2, class_draw: "
    points_of(tmp_path, f"t: {{{axes(said + '[0, 1, 2]')}}}")
    with pytest.raises(RequestError, match=r"class_draw.*the same classes twice; got draws 0 and 3, both of which are"):
        points_of(tmp_path, f"t: {{{axes(said + '[0, 1, 3]')}}}")


def test_settings_of_audits_that_a_grid_does_not_ask_for_cannot_disagree(tmp_path: Path) -> None:
    """The paper's audit in one grid, ours in another: each says how its own is done."""

    def unite(*asked: str) -> Any:
        entries = "method: full, dataset: digits, origin_per_class: 20"
        grids = (f"g{place}: {{{axes(entries, evaluations=each)}}}" for place, each in enumerate(asked))
        return points_of(tmp_path, ", ".join(grids))[0].evaluations["privacy"]

    seed, pool = "{privacy: {audit: [seed], shadows: 2}}", "{privacy: {audit: pool, rows: 6, attacks: [loss]}}"
    pool = pool.replace("pool,", "[pool],")
    for order in ((seed, pool), (pool, seed)):
        found = unite(*order)
        assert set(found["audit"]) == {"seed", "pool"}
        assert (found["shadows"], found["rows"]) == (2, 6)
        assert "shokri" in found["attacks"], "seed asks for all of them"
    third = "{privacy: {audit: [one_run], population: 5}}"
    assert unite(third, seed)["population"] == 5
    with pytest.raises(RequestError, match=r"g1.evaluations.privacy.population: .*got 5 here and null"):
        unite(pool, third)
    with pytest.raises(RequestError, match=r"g2.evaluations.privacy.rows: .*got 8 here and 6"):
        unite(seed, pool, pool.replace("rows: 6", "rows: 8"))
    with pytest.raises(RequestError, match=r"g1.evaluations.privacy.start: "):
        unite(pool, "{privacy: {audit: [seed], start: false}}")


UNMEASURABLE = [
    (
        "{privacy: {}}",
        "",
        r"s.yaml:3: grids.t.evaluations.privacy: members are told from .* origin_per_class null; "
        r"expected a number. Set axes.origin_per_class, as \[400\]",
    ),
    (
        "{privacy: {canaries: 5, audit: [seed, one_run]}}",
        "origin_per_class: 10",
        r"privacy.canaries: canaries are images of a pool; got audit seed, one_run; expected pool",
    ),
    (
        "{privacy: {canaries: 201}}",
        "origin_per_class: 10",
        r"privacy.canaries: more canaries than the pool of origin_per_class 10 has images; "
        r"got 201; expected at most 200",
    ),
    ("{privacy: {canaries: 41}}", "origin_per_class: 10, num_classes: 2", r"got 41; expected at most 40"),
    ("{privacy: {rows: 1000000000}}", "origin_per_class: 10", r"privacy.rows: more than .* 1000000000; .* at most 500"),
    ("{privacy: {shadows: 500}}", "origin_per_class: 10", r"privacy.shadows: more than .* got 500; .* at most 499"),
    ("{robustness: {images: 9}}", "", r"robustness.images: fewer images than classes; got 9; expected at least 10"),
]


@pytest.mark.parametrize("asked, more, expected", UNMEASURABLE)
def test_evaluations_that_cannot_be(tmp_path: Path, asked: str, more: str, expected: str) -> None:
    entries = f"method: [random, full], dataset: digits, ipc: 1, {more}"
    with pytest.raises(RequestError, match=expected) as error:
        points_of(tmp_path, "t: {" + axes(entries, evaluations=asked) + "}")
    assert "1 problem" in str(error.value), "once, however many points"


def test_the_grid_that_asks_is_named(tmp_path: Path) -> None:
    entries = "method: random, dataset: digits, ipc: 1"
    text = f"a: {{{axes(entries)}}}, b: {{{axes(entries, evaluations='{privacy: {}}')}}}"
    with pytest.raises(RequestError, match=r"grids.b.evaluations.privacy"):
        points_of(tmp_path, text)


def test_sets_are_embedded_where_the_encoder_takes_the_images(tmp_path: Path) -> None:
    top = "datasets: {large: {like: digits, resize: 128}}"
    entries = "dataset: large, ipc: 1, architecture: resnet18, method: "
    with pytest.raises(RequestError, match=r"evaluations.embedding: .*large; got 128 pixels; expected: .*features of"):
        points_of(tmp_path, "t: {" + axes(entries + "random", evaluations="{embedding: {}}") + "}", top)
    (full,) = points_of(tmp_path, "t: {" + axes(entries + "full", evaluations="{embedding: {}}") + "}", top)
    assert "embedding" in full.evaluations, "there is no set to embed, and nothing to refuse"


def test_settings_protocol_and_train_tell_points_apart_evaluations_do_not(tmp_path: Path) -> None:
    def hashes(**rest: str) -> set[str]:
        entries = "method: [dm, full], dataset: digits, ipc: 1"
        return {p.hash for p in points_of(tmp_path, "t: {" + axes(entries, **rest) + "}")}

    plain = hashes()
    assert len(plain) == 2
    assert hashes(evaluations="{robustness: {}}") == plain
    assert len(hashes(settings="{dm: {iterations: 3}}") & plain) == 1  # full has no such setting
    assert not hashes(protocol="quick") & plain
    assert not hashes(train="{lr: 0.5}") & plain


def test_a_value_equal_to_the_recipe_s_is_no_change(tmp_path: Path) -> None:
    recipe = PROTOCOLS["paper2023"].recipe
    text = axes("method: full, dataset: digits", train=f"{{lr: {recipe.lr}, epochs: {recipe.epochs}, batch: 7}}")
    (point,) = points_of(tmp_path, f"t: {{{text}}}")
    assert point.train == {"batch": 7}


def test_numbers_written_differently_are_one_setting(tmp_path: Path) -> None:
    def text(value: str) -> str:
        return axes("method: dm, dataset: digits, ipc: 1", settings=f"{{dm: {{lr_img: {value}}}}}")

    (point,) = points_of(tmp_path, f"a: {{{text('1')}}}, b: {{{text('1.0')}}}")
    assert point.grids == ("a", "b")


def test_identity_is_canonical_and_leaves_null_axes_out(tmp_path: Path) -> None:
    (point,) = points_of(tmp_path, "t: {" + axes("method: full, dataset: digits, seed: 4") + "}")
    assert json.loads(point.identity) == {
        "axes": {"method": "full", "dataset": "digits", "architecture": "convnet3", "seed": 4},
        "settings": {},
        "protocol": "paper2023",
        "train": {},
    }
    # Pinned: results are filed under it. A change here orphans the rows of finished sweeps.
    assert point.hash == "a55feda065dadb0297a49c88957f13bc448198a01ca205749205692d00bb8d06"
    again = pickle.loads(pickle.dumps(point))
    assert again == point
    assert again.hash == point.hash


def test_the_axes_are_the_point_s_fields_in_order() -> None:
    assert tuple(GridPoint.__dataclass_fields__)[: len(AXES)] == tuple(AXES)
    assert tuple(AXES) == (
        "method",
        "dataset",
        "ipc",
        "init",
        "architecture",
        "seed",
        "distill_seed",
        "origin_per_class",
        "origin_draw",
        "num_classes",
        "class_draw",
        "distill_aug",
        "train_aug",
        "labels",
    )


# --- what cannot be -----------------------------------------------------------------------------------------------

RESIZED = (
    "datasets: {d64: {like: digits, resize: 64}, d65: {like: digits, resize: 65}, mini: {like: cifar10, folder: m}}"
)


@pytest.mark.parametrize(
    "entries, message",
    [
        ("dataset: digits, ipc: 1", r"s.yaml:3: grids.t.axes: missing key 'method'"),
        ("method: dm, ipc: 1", r"s.yaml:3: grids.t.axes: missing key 'dataset'"),
        (
            "method: [dm, full], dataset: digits",
            r"grids.t.axes: missing key 'ipc'; got method dm; expected images per class",
        ),
        (
            "method: random, dataset: digits, ipc: 125",
            r"axes.ipc: more images than a class of digits holds.*got 125; expected at most 124",
        ),
        ("method: dm, dataset: digits, ipc: 125, init: real", r"axes.ipc: more images than a class of digits holds"),
        (
            "method: dm, dataset: digits, ipc: [1, 9], origin_per_class: 8",
            r"axes.ipc: more images than a class of the origin \(origin_per_class 8\) holds.*got 9; expected at most 8",
        ),
        (
            "method: full, dataset: digits, origin_per_class: [null, 125]",
            r"axes.origin_per_class: more images than the smallest class of digits has; got 125; expected at most 124",
        ),
        (
            "method: full, dataset: digits, num_classes: [2, 11]",
            r"axes.num_classes: more classes than digits has; got 11; expected 2 to 10",
        ),
        (
            "method: full, dataset: digits, architecture: vgg16",
            r"axes.architecture: cannot take the images of digits; got 8 pixels; .*28",
        ),
        (
            "method: full, dataset: d65",
            r"cannot take the images of d65; got 65 pixels; expected: convnet3 takes images of 8 to 64",
        ),
        (
            "method: dm, dataset: d65, ipc: 1, architecture: vgg16",
            r"axes.method: cannot take the images of d65; .*dm matches on convnet3",
        ),
        (
            "method: full, dataset: digits, seed: ["
            + ", ".join(map(str, range(1001)))
            + "], distill_seed: ["
            + ", ".join(map(str, range(1000)))
            + "]",
            r"axes: too many combinations; got 1,001,000 up to here; expected at most 1,000,000",
        ),
    ],
)
def test_combinations_that_cannot_be(tmp_path: Path, entries: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        points_of(tmp_path, "t: {" + axes(entries) + "}", RESIZED)


@pytest.mark.parametrize(
    "entries",
    [
        "method: dm, dataset: digits, ipc: 125, init: noise",
        "method: [random, dm], dataset: digits, ipc: 124",
        "method: full, dataset: [mnist, digits], architecture: [resnet18]",
        "method: full, dataset: mnist, architecture: vgg16",
        "method: full, dataset: d64",
        "method: random, dataset: mini, ipc: 9999",
    ],
)
def test_combinations_at_the_edge(tmp_path: Path, entries: str) -> None:
    assert points_of(tmp_path, "t: {" + axes(entries) + "}", RESIZED)


def test_excluding_the_pair_is_a_remedy(tmp_path: Path) -> None:
    entries = "method: full, dataset: [digits, svhn], architecture: [convnet3, vgg16]"
    with pytest.raises(RequestError, match="Exclude the pair"):
        points_of(tmp_path, "t: {" + axes(entries) + "}")
    points = points_of(tmp_path, "t: {" + axes(entries, exclude="[{dataset: digits, architecture: vgg16}]") + "}")
    assert len(points) == 3


def test_class_sizes_and_networks_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "t: {" + axes("method: random, dataset: mini, ipc: 9") + "}"
    with pytest.raises(RequestError, match="got 9; expected at most 7"):
        points_of(tmp_path, text, RESIZED, class_size={"mini": 7}.get)
    monkeypatch.setattr("ddray.plan.feasible.network_problem", lambda name, size, channels: f"no {name} today")
    with pytest.raises(RequestError, match="expected: no convnet3 today"):
        points_of(tmp_path, text, RESIZED)


def test_networks_and_the_sizes_they_take() -> None:
    takes = {
        name: [size for size in range(4, 257) if network_problem(name, size, 3) is None]
        for name in ("convnet3", "resnet18", "vgg16")
    }
    assert takes == {"convnet3": list(range(8, 65)), "resnet18": list(range(8, 257)), "vgg16": list(range(28, 257))}


def test_problems_of_all_grids_at_once_with_their_values_lines(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "ddray: 1\ngrids:\n  a:\n    axes:\n      method: random\n      dataset: digits\n"
        "      ipc:\n        - 1\n        - 500\n"
        "  b: {axes: {method: full, dataset: digits, num_classes: [10,\n      12]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(RequestError) as caught:
        expanded(load(path))
    assert len(caught.value.problems) == 2
    assert "s.yaml:9: grids.a.axes.ipc: more" in str(caught.value)
    assert "s.yaml:11: grids.b.axes.num_classes: more" in str(caught.value)


def test_augmentation_is_set_once(tmp_path: Path) -> None:
    text = axes("method: full, dataset: digits, train_aug: none", train="{augmentation: dsa}")
    with pytest.raises(RequestError, match=r"grids.t.train.augmentation: set twice; got axes.train_aug at .*s.yaml:3"):
        points_of(tmp_path, f"t: {{{text}}}")


# --- filters ------------------------------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path: Path) -> list[GridPoint]:
    return points_of(tmp_path, "t: {" + axes("method: [dm, random, full], dataset: [digits, svhn], ipc: [1, 2]") + "}")


def test_filters(some: list[GridPoint]) -> None:
    assert select(some) == some
    assert {p.method for p in select(some, only=["method=dm,full"])} == {"dm", "full"}
    assert {(p.method, p.ipc) for p in select(some, only=["method=dm", "ipc=2"])} == {("dm", 2)}
    assert {p.method for p in select(some, only=["method=dm", "method=full"])} == {"dm", "full"}
    assert {p.method for p in select(some, only=["ipc=null"])} == {"full"}
    assert {p.method for p in select(some, skip=["ipc=null", "method=random"])} == {"dm"}
    assert select(some, limit=3) == some[:3]
    assert select(some, only=["ipc = 1, 2"], skip=["dataset=svhn"], limit=99) == [
        p for p in some if p.ipc is not None and p.dataset == "digits"
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"only": ["methd=dm"]}, r"--only: unknown axis 'methd'; known: method, .*Did you mean 'method'\?"),
        ({"skip": ["ipc=7"]}, r"--skip: ipc: matches no point; got '7'; present: 1, 2, null"),
        ({"only": ["method=dm,dsa"]}, r"--only: method: matches no point; got 'dsa'; present: dm, full, random"),
        ({"only": ["ipc"]}, r"--only: not axis=value,value; got 'ipc'"),
        ({"only": ["ipc="]}, r"--only: not axis=value,value"),
        ({"only": ["method=full", "ipc=1"]}, r"--only, --skip: no point is left of 10"),
        ({"skip": ["dataset=digits,svhn"]}, r"no point is left"),
        ({"limit": 0}, r"--limit: out of range; got 0"),
        ({"only": ["a=1"], "skip": ["b=1"], "limit": -1}, r"3 problems"),
    ],
)
def test_filters_that_cannot_be(some: list[GridPoint], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        select(some, **options)


# --- properties, size, weight -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    methods=st.lists(st.sampled_from(ANYWHERE), min_size=1, unique=True),
    ipcs=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    inits=st.lists(st.sampled_from(["noise", "real"]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    distill_seeds=st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True),
)
def test_the_number_of_points_is_the_product_of_the_axes_each_method_uses(
    tmp_path_factory: pytest.TempPathFactory,
    methods: list[str],
    ipcs: list[int],
    inits: list[str],
    seeds: list[int],
    distill_seeds: list[int],
) -> None:
    entries = (
        f"init: {json.dumps(inits)}, seed: {seeds}, method: {json.dumps(methods)}, ipc: {ipcs}, dataset: digits, "
        f"distill_seed: {distill_seeds}"
    )
    points = points_of(tmp_path_factory.getbasetemp(), "t: {" + axes(entries) + "}")
    counts = {"ipc": len(ipcs), "init": len(inits), "distill_seed": len(distill_seeds)}
    expected = 0
    for method in methods:
        count = len(seeds)
        for axis, values in counts.items():
            count *= values if axis in METHODS[method].uses else 1
        expected += count
    assert len(points) == expected == len({point.hash for point in points})
    assert [point.hash for point in points] == [
        point.hash for point in points_of(tmp_path_factory.getbasetemp(), "t: {" + axes(entries) + "}")
    ]


def test_a_hundred_thousand_points_are_distinct_and_share_what_they_can(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(2000)))
    entries = f"method: {json.dumps(LEARNED)}, dataset: [cifar10, svhn], ipc: [1, 10, 50], init: [noise, real]"
    entries += f", seed: [{seeds}]"
    points = points_of(tmp_path, "t: {" + axes(entries, evaluations="{robustness: {}}") + "}")
    assert len(points) == len(LEARNED) * 2 * 3 * 2 * 2000
    assert len({(p.method, p.dataset, p.ipc, p.init, p.seed) for p in points}) == len(points)
    for name in ("settings", "train", "evaluations", "grids", "grid"):
        assert len({id(getattr(point, name)) for point in points}) == 1, name
    assert not hasattr(points[0], "__dict__")


def test_reading_and_expanding_load_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from ddray.plan import schema; schema.json_schema();"
        "from ddray.prepare import expanded, load;"
        f"print(len(expanded(load(Path({str(path)!r})))));"
        "heavy = {'torch', 'ray', 'mlflow', 'pyarrow', 'sklearn', 'scipy', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["462", "[]"]


def test_methods_use_axes_that_are_used_by_method() -> None:
    by_method = {name for name, axis in AXES.items() if axis.by_method}
    assert {axis for method in METHODS.values() for axis in method.uses} <= by_method
    assert {axis.draws_from for axis in AXES.values()} <= {*AXES, None}


# --- settings by images per class -----------------------------------------------------------------------------------


def test_a_setting_may_depend_on_the_images_per_class(tmp_path: Path) -> None:
    given = "settings: {dsa: {iterations: {1: 7, 50: 9}, loops: {1: [2, 3]}, lr_img: 1}}"
    points = points_of(tmp_path, f"g: {{axes: {{method: [dsa], dataset: [digits], ipc: [1, 10, 50]}}, {given}}}")
    assert [dict(point.settings) for point in points] == [
        {"iterations": 7, "loops": [2, 3], "lr_img": 1.0},
        {"lr_img": 1.0},
        {"iterations": 9, "lr_img": 1.0},
    ]


def test_points_are_equal_when_their_own_settings_are(tmp_path: Path) -> None:
    """What a mapping says of other numbers is not part of a point."""
    one, two = (
        f"{name}: {{axes: {{method: [dm], dataset: [digits], ipc: [1]}}, settings: {{dm: {{iterations: {value}}}}}}}"
        for name, value in (("a", "{1: 7, 10: 8}"), ("b", "7"))
    )
    (point,) = points_of(tmp_path, f"{one}, {two}")
    assert point.grids == ("a", "b")


@pytest.mark.parametrize(
    "given, complaint",
    [
        ("{iterations: {1: -1}}", r"settings\.dm\.iterations\.1: out of range; got -1"),
        ("{iterations: {ten: 5}}", r"settings\.dm\.iterations\.ten: not a number of images per class; got 'ten'"),
        ("{architecture: {1: convnet3}}", r"settings\.dm\.architecture: "),
    ],
)
def test_mistakes_in_such_a_setting(tmp_path: Path, given: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        points_of(tmp_path, f"g: {{axes: {{method: [dm], dataset: [digits], ipc: [1]}}, settings: {{dm: {given}}}}}")


def test_settings_that_do_not_fit_the_presets_are_refused_with_their_place(tmp_path: Path) -> None:
    """At 50 images per class MTT's starts come from the first 40 epochs; ten epochs are fine for one image."""
    text = "g: {axes: {method: [mtt], dataset: [cifar10], ipc: [IPC]}, settings: {mtt: {expert_snapshots: 10}}}"
    assert len(points_of(tmp_path, text.replace("IPC", "1"))) == 1
    with pytest.raises(RequestError, match=r"s\.yaml:3: grids\.g\.settings\.mtt: .*presets of cifar10 at ipc 50"):
        points_of(tmp_path, text.replace("IPC", "1, 50"))
