"""The report as a person meets it: the first page, the figures, one HTML file that needs nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pytest
import worlds
from goldens import TABLES
from panels import ONE, panel_of
from pyarrow import parquet

from ddray.report.comparable import Cell, RowKey
from ddray.report.drawing import INK, drawn, inline_svg, style_of
from ddray.report.figures import pictures
from ddray.report.html import SetPicture, html_page
from ddray.report.maps import map_pictures
from ddray.report.page import Heading, Lines, Picture, first_page
from ddray.report.report import elements_of, machine_report
from ddray.report.sections.accuracy import _distilled
from ddray.report.sections.short import SHORT
from ddray.report.table import Bullets
from ddray.report.written import write_report
from ddray.store import files
from trainables.payloads import Metrics

CHROMIUM = shutil.which("chromium")


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_flush", lambda path: None)


@pytest.fixture
def attacked(tmp_path: Path) -> Path:
    return worlds.robust(tmp_path)


def sentences(facts: dict[str, Any]) -> dict[str, str]:
    (listed,) = SHORT.elements(facts)
    assert isinstance(listed, Bullets)
    return dict(entry.split(": ", 1) for entry in listed.entries)


# --- in short ---------------------------------------------------------------------------------------------------------


def test_the_answer_in_short_holds_the_numbers_of_the_tables(attacked: Path) -> None:
    facts = machine_report(attacked)
    said = sentences(facts)
    assert list(said) == ["Accuracy", "Privacy", "Robustness", "Fairness", "Generalisation"]
    row = facts["blocks"][0]["rows"][1]
    assert f"DM is the only distilled set, {100 * row['cells']['dm']['accuracy']['mean']:.2f}" in said["Accuracy"]
    assert f"random real images {100 * row['cells']['random']['accuracy']['mean']:.2f}" in said["Accuracy"]
    assert f"{100 * row['against_random']['dm']['mean']:+.2f} points over random" in said["Accuracy"]
    assert "1 pair, so without an interval" in said["Accuracy"]
    (attack,) = [each for each in facts["blocks"][0]["robustness"] if each["attack"] == "deepfool_l2"]
    (entry,) = [each for each in attack["rows"] if each["method"] == "dm" and each["ipc"] == 2]
    (within,) = [each for each in entry["adv_acc"] if each["epsilon"] == 0.5]
    assert f"is right on {100 * within['mean']:.1f}" in said["Robustness"]
    assert "within 0.5 of DeepFool (L2) a network trained on DM" in said["Robustness"]


def test_what_a_sweep_cannot_say_has_its_reason(tmp_path: Path) -> None:
    said = sentences(machine_report(worlds.filled(tmp_path, worlds.SWEEP)))
    assert said["Privacy"] == "this sweep cannot say, because no set is audited."
    assert said["Robustness"] == "this sweep cannot say, because no network is attacked."
    assert said["Generalisation"].startswith("this sweep cannot say, because its sets train one network alone")


def test_an_evaluation_that_is_not_done_yet_is_no_missing_evaluation(tmp_path: Path) -> None:
    folder = worlds.filled(tmp_path, ONE, make=lambda stage, chain, inputs: None)
    said = sentences(machine_report(folder))
    assert said["Privacy"].startswith("this sweep cannot say, because none of its")
    assert said["Accuracy"] == "this sweep cannot say, because no distilled set has an accuracy yet."


@pytest.mark.parametrize(("auc", "shown"), [(0.52, False), (0.70, True)])
def test_a_leak_within_the_null_band_is_not_shown(tmp_path: Path, auc: float, shown: bool) -> None:
    def made(stage: Any, chain: Any, inputs: Any) -> Any:
        if stage.kind == "accuracy":
            return worlds.payload_of(stage, chain, 0.5)
        if stage.kind != "privacy":
            return None
        rows = panel_of({"loss": auc, "shokri": 0.5})
        band = {
            name: {**rows[-3], "metric": f"mia_auc_strongest_null_{name}", "attack": "loss"} for name in ("low", "high")
        }
        return Metrics([*rows, {**band["low"], "value": 0.46}, {**band["high"], "value": 0.54}])

    said = sentences(machine_report(worlds.filled(tmp_path, ONE, make=made)))["Privacy"]
    assert f"with an AUC of {100 * auc:.1f} % (95 % interval" in said
    assert "in 46.0 to 54.0" in said
    assert ("no leak is shown, which is not that there is none" in said) is not shown


# --- figures ----------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path) -> dict[str, Picture]:
    return {each.name: each for each in elements_of(machine_report(folder)) if isinstance(each, Picture)}


def test_figures_show_the_numbers_of_the_report(attacked: Path) -> None:
    facts, found = machine_report(attacked), pictures_in(attacked)
    accuracy = list(csv.DictReader(io.StringIO(found["block-1-accuracy"].csv())))
    for entry in accuracy:
        row = facts["blocks"][0]["rows"][int(entry["rank"])]
        assert float(entry["percent"]) == pytest.approx(100 * row["cells"][entry["method"]]["accuracy"]["mean"])
    assert {entry["method"] for entry in accuracy} == {"random", "dm", "full"}
    curves = [name for name in found if "robustness" in name]
    assert len(curves) == len(facts["blocks"][0]["robustness"]) > 1, "one for each attack"
    rows = found["block-1-robustness"].rows
    assert {row["place"] for row in rows if row["method"] == "full"} == {row["place"] for row in rows}, "in each panel"


def test_classes_are_shown_as_they_were_measured(attacked: Path) -> None:
    facts, found = machine_report(attacked), pictures_in(attacked)
    rows = parquet.read_table(attacked / "measurements.parquet").to_pylist()
    values: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["metric"] == "test_acc_class" and row["value"] is not None and row["ipc"] in (None, 1):
            values.setdefault((row["method"], row["class_id"]), []).append(100 * row["value"])
    shown = {
        (row["method"], row["class_id"]): row for row in found["block-1-classes"].rows if row["place"] in ("1", "any")
    }
    assert shown.keys() == values.keys()
    assert len(shown) >= 20
    for name, row in shown.items():
        assert (row["percent"], row["n"]) == (pytest.approx(fmean(values[name])), len(values[name]))
    full = {row["class_rank"]: row["percent"] for row in shown.values() if row["method"] == "full"}
    assert [full[rank] for rank in sorted(full)] == sorted(full.values(), reverse=True)
    kept = {(row["method"], row["class_id"]): row["kept_percent"] for row in found["block-1-kept"].rows}
    assert {round(share, 9) for (method, _), share in kept.items() if method == "full"} == {100}
    cells = facts["blocks"][0]["rows"][0]["cells"]
    drawn_of = {
        (row["measure"], row["method"]): row["variance"] for row in found["block-1-variance"].rows if row["rank"] == 0
    }
    assert drawn_of["loss", "dm"] == pytest.approx(cells["dm"]["fairness"]["fair_var_loss"]["mean"])
    assert drawn_of["accuracy", "dm"] == pytest.approx(1e4 * cells["dm"]["fairness"]["fair_var_acc"]["mean"])


def test_leakage_stands_against_the_accuracy_of_what_is_attacked() -> None:
    (recorded,) = (each for each in TABLES if each.name == "quickstart")
    report = recorded.shown()["report"]
    found = {each.name: each for each in pictures("privacy", report, "")}
    (row,) = report["privacy"][0]["rows"]
    shown = {each["method"]: each for each in found["tradeoff"].rows}
    assert shown.keys() == row["cells"].keys() == {"random", "dm", "full"}
    for method, cell in row["cells"].items():
        assert shown[method]["percent"] == 100 * cell["strongest"]["value"]
        assert shown[method]["target_accuracy_percent"] == 100 * cell["target_accuracy"]["value"]
    assert "nothing shown" in drawn(found["tradeoff"].draw, found["tradeoff"].rows).written("svg").decode()


def test_networks_stand_side_by_side_with_the_numbers_of_their_tables() -> None:
    """In the smoke run of the study, whose first three tables differ in the network alone."""
    (recorded,) = (each for each in TABLES if each.name == "full_grid")
    report = recorded.shown()["report"]
    (picture,) = (each for each in pictures("rankings", report, "") if each.name.startswith("networks"))
    tables = {block["architecture"]: block["rows"][0]["cells"] for block in report["blocks"][:3]}
    assert len(tables) == 3
    assert {row["network"] for row in picture.rows} == set(tables)
    at_one = [row for row in picture.rows if row["place"] in ("1", "any")]
    assert len(at_one) == sum(len(cells) for cells in tables.values())
    for row in at_one:
        assert row["percent"] == 100 * tables[row["network"]][row["method"]]["accuracy"]["mean"]
    drawn(picture.draw, picture.rows).written("svg")
    report["blocks"] = [block for block in report["blocks"] if block["architecture"] == "convnet3-w16"]
    assert list(pictures("rankings", report, "")) == [], "one network is compared with no other"


def test_accuracy_stands_against_the_hours_that_a_set_took() -> None:
    (recorded,) = (each for each in TABLES if each.name == "quickstart")
    block = recorded.shown()["report"]["blocks"][0]
    (picture,) = (each for each in pictures("rows", block, "") if each.name == "hours")
    taken = {(row["method"], row["place"]): row for row in picture.rows}
    assert {method for method, _ in taken} == {"random", "dsa", "dm", "mtt", "idc"}, "the full data is not distilled"
    for row in block["rows"]:
        for method, cell in row["cells"].items():
            if method in ("random", "full"):
                continue
            shown = taken[method, str(row["ipc"])]
            assert shown["hours"] == cell["distilled"]["hours"] > 0
            assert shown["percent"] == 100 * cell["accuracy"]["mean"]
    assert all(taken["random", place]["hours"] is None for place in ("1", "5"))
    svg = drawn(picture.draw, picture.rows).written("svg").decode()
    assert "seconds of distillation on 1 thread of AMD EPYC" in svg
    for cell in block["rows"][0]["cells"].values():
        if cell["distilled"]:
            cell["distilled"]["machine"] = "1 thread of another"
    assert "hours" not in {each.name for each in pictures("rows", block, "")}, "hours of two machines do not compare"


def test_hours_are_of_one_set_however_many_networks_were_trained_on_it() -> None:
    numerics = json.dumps({"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3"})
    points = [
        {"point": f"{seed}.{distilled}", "method": "dm", "distill_seed": distilled, "seed": seed, "numerics": numerics}
        for seed in (0, 1, 2)
        for distilled in (0, 1)
    ]
    cell = Cell(RowKey((), ()), "dm", points)
    seconds = {point["point"]: 3600.0 * (1 + point["distill_seed"]) for point in points}
    assert _distilled(cell, seconds) == {"hours": 1.5, "machine": "NVIDIA H100 80GB HBM3"}
    assert _distilled(cell, {}) is None
    other = {**points[0], "numerics": json.dumps({"device": "cpu", "device_name": "EPYC, family 25", "threads": 2})}
    assert _distilled(Cell(RowKey((), ()), "dm", [other]), seconds) == {"hours": 1.0, "machine": "2 threads of EPYC"}
    assert _distilled(Cell(RowKey((), ()), "dm", [*points, other]), seconds) is None, "two machines"
    random = Cell(RowKey((), ()), "random", [{**point, "method": "random"} for point in points])
    assert _distilled(random, seconds) is None, "nothing is learned"


def test_without_the_full_data_there_is_nothing_to_keep(attacked: Path) -> None:
    (block, *_) = machine_report(attacked)["blocks"]
    for row in block["rows"]:
        row["cells"].pop("full", None)
    names = {picture.name: picture for picture in pictures("classes", block, "")}
    assert set(names) == {"classes"}
    assert {row["class_rank"] for row in names["classes"].rows} == {None}
    drawn(names["classes"].draw, names["classes"].rows).written("svg")


def test_a_figure_is_the_same_bytes_twice_and_says_nothing_of_the_day(attacked: Path) -> None:
    for number, picture in enumerate(pictures_in(attacked).values()):
        for form in ("svg", "png", "pdf") if number % 4 == 0 else ("svg",):  # that is what a report holds
            once, again = (drawn(picture.draw, picture.rows).written(form) for _ in range(2))
            assert once == again
            assert b"Matplotlib v" not in once
    assert drawn(picture.draw, picture.rows).written("svg") != drawn(picture.draw, picture.rows[:1]).written("svg")


def test_a_method_has_one_colour_everywhere_and_variants_differ() -> None:
    alone, beside = style_of("dm", ["dm"]), style_of("dm", ["random", "dsa", "dm", "full"])
    assert alone == beside
    variants = ["dm (iterations 100)", "dm (iterations 200)"]
    one, other = (style_of(name, variants) for name in variants)
    assert (one.colour, one.marker) == (other.colour, other.marker) == (alone.colour, alone.marker)
    assert one.line != other.line
    paper = [style_of(name, [name]) for name in ("random", "full", "dsa", "dm", "mtt", "idc")]
    assert len({style.colour for style in paper}) == len(paper)


def test_maps_show_every_point_once_and_a_broken_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    names = ("fit_id", "dataset", "ipc", "source", "method", "init", "class_id", "x", "y")
    rows = [
        dict(zip(names, ("a", "digits", 1, source, method, None, 0, float(at), 0.0), strict=True))
        for source, method in (("real", None), ("dm", "dm"), ("random", "random"))
        for at in range(3)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "embeddings.parquet")
    (picture,) = map_pictures(tmp_path)
    assert picture.title == "Map of digits, ipc 1"
    assert len(picture.rows) == len(rows)
    svg = drawn(picture.draw, picture.rows).written("svg").decode()
    assert ">dm<" in svg
    assert ">random<" in svg
    (tmp_path / "embeddings.parquet").write_bytes(b"nothing")
    assert map_pictures(tmp_path) == []
    assert map_pictures(tmp_path / "elsewhere") == []


# --- the page ---------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a browser would fetch or run, names, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.tags.append(tag)
        self.ids += [known["id"] or ""] if "id" in known else []
        fetched = ("src", "srcset", "data", "poster", "background") + (
            ("href",) if tag in ("link", "use", "image") else ()
        )
        self.asked += [known[name] or "" for name in fetched if name in known]
        assert not [name for name in known if name.startswith("on")], "no handlers"
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "link", "br", "img"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(attacked: Path) -> None:
    text = html_page(elements_of(machine_report(attacked)), [SetPicture("DM, digits", b"\x89PNG")])
    page = _Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert page.asked
    assert all(asked.startswith(("data:", "#")) for asked in page.asked)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert {asked[1:] for asked in page.asked if asked.startswith("#")} <= set(page.ids)
    assert INK not in text
    assert "prefers-color-scheme: dark" in text


def test_names_of_users_stay_text() -> None:
    text = html_page(
        [Heading('<script>alert("1")</script>', 1), Lines(("<img src=x onerror=y>",)), Bullets("", ["a: <b>"])],
        [SetPicture("<i>set</i>", b"")],
    )
    page = _Page(text)
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert "<img src=x" not in text


def test_an_inline_figure_takes_the_colour_of_its_page(attacked: Path) -> None:
    picture = next(iter(pictures_in(attacked).values()))
    svg = drawn(picture.draw, picture.rows).written("svg")
    assert INK.encode() in svg
    inline = inline_svg(svg)
    assert INK not in inline
    assert "currentColor" in inline
    assert inline.startswith("<svg")
    assert 'width="' not in inline.split(">", 1)[0]


def test_files_of_a_report_are_built_whole_and_old_figures_go(attacked: Path) -> None:
    write_report(attacked, "tiny")
    names = {path.name for path in (attacked / "figures").iterdir()}
    assert {name.partition(".")[0] for name in names if name.endswith(".svg")} == set(pictures_in(attacked))
    assert {name.partition(".")[0] for name in names if name.endswith(".csv")} == set(pictures_in(attacked))
    (attacked / "figures" / "stale.svg").touch()
    write_report(attacked, "tiny")
    assert {path.name for path in (attacked / "figures").iterdir()} == names
    text = (attacked / "report.md").read_text()
    for name in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (attacked / name).is_file()
    first = first_page(text)
    assert text.startswith(first.strip())
    assert "## In short" in first
    assert "| method |" not in first


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_a_message_and_without_scrolling_sideways(attacked: Path, width: int) -> None:
    """A script in a copy of the page measures it: what is wider than the window is scrolled inside its own box."""
    page = html_page(elements_of(machine_report(attacked)))
    measure = "<script>document.title = 'wide ' + (document.documentElement.scrollWidth - innerWidth)</script></body>"
    copy = attacked / "measured.html"
    copy.write_text(page.replace("</body>", measure))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    words = [
        str(CHROMIUM),
        *flags,
        f"--window-size={width},900",
        "--enable-logging=stderr",
        "--dump-dom",
        copy.as_uri(),
    ]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120)
    (wide,) = re.findall(r"<title>wide (-?\d+)</title>", ran.stdout)
    assert int(wide) <= 0
    assert "CONSOLE" not in ran.stderr
