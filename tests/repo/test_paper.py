"""docs/paper.md: each table, figure and claim of the paper has its grids; points and price are those of the plan."""

from __future__ import annotations

import pytest
from pages import ROOT, table

from ddray.plan.jobs import Plan
from ddray.prepare import prepare
from ddray.price.bill import hours, priced_stages
from ddray.price.devices import CARDS
from ddray.price.estimates import Prices
from ddray.price.measured import Measured
from ddray.report.figures import all_figures
from ddray.report.sections import all_sections
from ddray.report.sections.claims import CLAIMS
from ddray.request import Request
from ddray.settings import folders
from trainables.data.cache import build

PAGE = ROOT / "docs" / "paper.md"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return prepare(Request(ROOT / "sweeps" / "full_grid.yaml"), folders(), build).plan


def grids_of(cell: str) -> list[str]:
    return [name for name in cell.replace(",", " ").split() if name != "none"]


def test_every_item_has_its_grids_points_and_price(plan: Plan) -> None:
    priced = priced_stages(plan.jobs, Prices(CARDS["v100-32g"], Measured()), {})
    for item, _, _, grids, points, price in table(PAGE, "item"):
        chains = [chain for chain in plan.chains if set(grids_of(grids)) & set(chain.point.grids)]
        keys = {stage.key for chain in chains for stage in chain.all_stages}
        found = (item, str(len(chains)), hours(sum(priced[key].hours for key in keys)))
        assert found == (item, points, price)


def test_every_grid_of_the_study_is_there_and_no_other(plan: Plan) -> None:
    named = {name for row in table(PAGE, "item") for name in grids_of(row[3])}
    assert named == {grid for chain in plan.chains for grid in chain.point.grids}
    assert {name for row in table(PAGE, "claim") for name in grids_of(row[2])} <= named


def test_every_claim_is_there_in_its_words() -> None:
    assert [(row[0], row[1]) for row in table(PAGE, "claim")] == [(claim.id, claim.text) for claim in CLAIMS]
    for row, claim in zip(table(PAGE, "claim"), CLAIMS, strict=True):
        assert (row[2] == "none") == (claim.contrasts is None), claim.id


def test_what_it_says_of_the_report_is_there() -> None:
    known = {each.id for each in (*all_figures(), *all_sections())} | {"sets", "embedding"}
    assert {name for row in table(PAGE, "item") for name in grids_of(row[2])} <= known
