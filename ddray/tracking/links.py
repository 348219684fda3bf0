"""``runs.html`` beside a report: from the key of a point to its run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType

from ddray.atomic import replacing
from ddray.plan.axes import run_name
from ddray.plan.graph import Chain
from ddray.plan.keys import short
from ddray.results import RUNS_HTML
from ddray.settings import UI_HOST, UI_PORT
from ddray.tracking.runs import Place, Run

_STYLE = (
    ":root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; "
    "max-width: 60rem; padding: 0 1rem } table { border-collapse: collapse } td { padding: .3rem 1rem .3rem 0; "
    "overflow-wrap: anywhere } code { font: .9em ui-monospace, monospace } :target { outline: 2px solid }"
)


def write_links(
    folder: Path,
    sweep: str,
    chains: Sequence[Chain] = (),
    runs: Mapping[str, Sequence[Run]] = MappingProxyType({}),
    place: Place | None = None,
    experiment: str = "",
) -> None:
    """Write the page; it asks nothing of the network before somebody follows a link.

    Args:
        folder: ``results/<sweep>``.
        sweep: Its name.
        chains: Of all points.
        runs: By point.
        place: Where MLflow keeps them; None: the sweep was not mirrored.
        experiment: The sweep's number there.
    """
    server = _server(place) if place is not None else None
    listed = [(chain, run) for chain in chains for run in runs.get(chain.point.hash, ())]
    entries = "\n".join(
        f'<tr id="{chain.point.hash}"><td><code>{short(chain.point.hash)}</code></td>'
        f"<td>{_link(escape(run_name(chain.point)), run, server, experiment)}</td></tr>"
        for chain, run in listed
    )
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(sweep)}: runs in MLflow</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style></head><body><h1>{escape(sweep)}: runs in MLflow</h1>\n"
        f"<p>{_first(sweep, place, server)}</p>\n<table>\n{entries}\n</table></body></html>\n"
    )
    with replacing(folder / RUNS_HTML) as file:
        file.write_text(page, encoding="utf-8")


def _first(sweep: str, place: Place | None, server: str | None) -> str:
    """How to follow the links."""
    if place is None:
        return f"MLflow has none yet. Mirror the sweep with: <code>ddray collect {escape(sweep)} --mlflow</code>"
    pending = "A point without a result or a failure has no run yet."
    if place.database is not None:
        return f"Links lead to port {UI_PORT} of this machine, where <code>ddray ui</code> shows MLflow. {pending}"
    if server is not None:
        return f"Links lead to {escape(str(place))}. {pending}"
    return f"MLflow keeps them in {escape(str(place))}; look for them by their names with the interface it has there."


def _link(name: str, run: Run, server: str | None, experiment: str) -> str:
    if server is None:
        return name
    # Without the word at its end MLflow shows the run among its pages about language models.
    address = f"{server}/#/experiments/{experiment}/runs/{run.id}?workflowType=machine_learning"
    return f'<a href="{escape(address)}">{name}</a>'


def _server(place: Place) -> str | None:
    """The address of MLflow's interface; None where it is a database of others, which has none."""
    if place.database is not None:
        return f"http://{UI_HOST}:{UI_PORT}"
    shown = str(place)
    return shown.rstrip("/") if shown.startswith(("http://", "https://")) else None
