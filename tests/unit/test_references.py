"""The paper's numbers as we hold them, and when ours may stand beside them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ddray.measurements.references import CHEN2023, REFERENCES, Published, percent

COMPARABLE: dict[str, Any] = {
    "dataset": "cifar10",
    "ipc": 10,
    "architecture": "convnet3",
    "method": "dm",
    "protocol": "paper2023",
    "budget_fraction": 1.0,
    "distill_iters": 20_000,
    "distill_cfg_hash": "x",
    "init": "real",
    "distill_aug": "dsa",
    "distill_arch": "convnet3",
    "factor": 1,
    "origin_per_class": None,
    "class_draw": None,
    "num_classes": 10,
    "param": {},
}


def table3() -> dict[tuple[str, int, str, str], Published]:
    return {
        (at.dataset, at.ipc, at.architecture, at.method): value
        for at, value in CHEN2023.values
        if value.where.startswith("Table 3")
    }


def table1() -> dict[tuple[int | None, str | None, str], Published]:
    return {
        (at.origin_per_class, at.init, at.method): value
        for at, value in CHEN2023.values
        if value.where.startswith("Table 1")
    }


def table2() -> dict[tuple[int | None, int | None, str], Published]:
    return {
        (at.origin_per_class, at.num_classes, at.method): value
        for at, value in CHEN2023.values
        if value.where.startswith("Table 2")
    }


def test_every_paper_has_values_and_says_where_they_are_from() -> None:
    for reference in REFERENCES:
        assert reference.values
        assert reference.url.startswith("https://")
        assert all(0 < value.mean < 1 and value.where for _, value in reference.values)


def test_table3_is_whole() -> None:
    cells = table3()
    assert len(cells) == 135
    assert Counter(at[0] for at in cells) == {"cifar10": 75, "cifar100": 60}
    assert {at[3] for at in cells} == {"dsa", "dm", "mtt", "idc", "full"}
    assert {at[2] for at in cells} == {"convnet3", "resnet18", "vgg16"}
    assert all(0 < cell.mean < 1 and 0 < (cell.sd or 0) < 0.06 for cell in cells.values())


def test_table3_cells_are_those_printed() -> None:
    dm = table3()["cifar10", 10, "convnet3", "dm"]
    assert (dm.mean, dm.sd) == (pytest.approx(0.5307), pytest.approx(0.0091))
    assert dm.where == "Table 3, CIFAR10, IPC 10, ConvNet3, dm"
    assert table3()["cifar100", 50, "vgg16", "idc"].mean == pytest.approx(0.5349)


def test_no_distilled_set_beats_the_full_data() -> None:
    for (dataset, ipc, architecture, method), cell in table3().items():
        if method != "full":
            assert cell.mean < table3()[dataset, ipc, architecture, "full"].mean


def test_idc_is_first_everywhere() -> None:
    for (dataset, ipc, architecture, method), cell in table3().items():
        if method not in ("full", "idc"):
            assert cell.mean < table3()[dataset, ipc, architecture, "idc"].mean


def test_full_data_needs_no_ipc_and_takes_the_repeated_value() -> None:
    full = CHEN2023.accuracy_of("cifar100", None, "convnet3", "full")
    assert full is not None
    assert full.mean == pytest.approx(0.6435)
    assert table3()["cifar100", 1, "convnet3", "full"].doubt is not None
    assert CHEN2023.accuracy_of("digits", None, "convnet3", "full") is None


def test_tables_1_and_2_are_whole_and_agree_where_they_meet() -> None:
    assert (len(table1()), len(table2())) == (24, 18)
    assert {at[1] for at in table1()} == {"noise", "real"}
    for origin in (80, 400):
        for method in ("dsa", "dm", "idc"):
            one, two = table1()[origin, "real", method], table2()[origin, 10, method]
            assert abs(one.mean - two.mean) < 0.001 or two.doubt is not None


def test_leaks_shrink_with_the_origin() -> None:
    for init in ("noise", "real"):
        for method in ("dsa", "dm", "idc"):
            means = [table1()[origin, init, method].mean for origin in (40, 80, 200, 400)]
            assert means == sorted(means, reverse=True)


def test_a_row_like_the_papers_may_be_compared() -> None:
    assert CHEN2023.objections(COMPARABLE) == []
    full = {"method": "full", "ipc": None, "distill_cfg_hash": None, "budget_fraction": None, "distill_iters": None}
    assert CHEN2023.objections({**COMPARABLE, **full}) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "quick"}, "protocol quick"),
        (
            {"protocol": "paper2023*", "param": {"protocol_changes": {"epochs": 5}}},
            "protocol paper2023* (epochs changed)",
        ),
        ({"budget_fraction": 0.05}, "budget 5 %"),
        ({"budget_fraction": None}, "no published number of iterations"),
        ({"init": "noise"}, "init noise"),
        ({"distill_aug": "none"}, "distillation augmented by none"),
        ({"distill_arch": "resnet18"}, "distilled on resnet18"),
        ({"factor": 2}, "factor 2"),
        ({"method": "idc"}, "factor 1"),
        ({"origin_per_class": 40}, "origin 40 per class"),
        ({"class_draw": 0, "num_classes": 2}, "2 classes"),
        ({"param": {"settings": {"lr_img": 5.0, "batch_real": 256}}}, "settings lr_img=5.0"),
        ({"constants": "mnist"}, "normalised with the constants of mnist, DM's program with cifar10's"),
        ({"param": {"declared": {"resize": 16}}}, "a data set declared in the sweep"),
        ({"method": "random"}, "no such cell in the paper"),
        ({"dataset": "digits"}, "no such cell in the paper"),
        ({"ipc": 3}, "no such cell in the paper"),
    ],
)
def test_every_difference_is_an_objection(change: dict[str, Any], reason: str) -> None:
    assert CHEN2023.objections({**COMPARABLE, **change}) == [reason]


def test_percent() -> None:
    assert [percent(share) for share in (0.05, 1.0, 0.0025, 0.9167)] == ["5 %", "100 %", "0.25 %", "91.7 %"]
