"""Numbers for Prometheus of a sweep that runs, as a real Ray exports them, and the page that draws them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from workspace import Running, Workspace

from ddray.run.gauges import GAUGES, PREFIX, STATES

PAGE: dict[str, Any] = json.loads((ROOT / "docs" / "grafana.json").read_text())
BIN = Path(sys.executable).parent
DISCOVERY = "ray/prom_metrics_service_discovery.json"
VALUE = re.compile(rf"^{PREFIX}(ddray_\w+)\{{(.*)\}} (\S+)$", re.MULTILINE)


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dd") as folder:
        yield Path(folder)


def exported(temporary: Path) -> dict[tuple[str, str], float]:
    """(name, state or "") -> value, of what the addresses say that Ray has written down."""
    if not (temporary / DISCOVERY).exists():
        return {}
    found = {}
    for target in (each for entry in json.loads((temporary / DISCOVERY).read_text()) for each in entry["targets"]):
        try:
            text = urllib.request.urlopen(f"http://{target}/metrics", timeout=5).read().decode()
        except OSError:
            continue
        for name, tags, value in VALUE.findall(text):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
            assert labels["sweep"] == "tiny"
            found[name, labels.get("state", "")] = float(value)
    return found


def titles(running: Running) -> list[str]:
    """Of the workers, as the dashboard lists them."""
    found = re.search(r"Ray dashboard: (\S+)", running.err)
    assert found, running.err

    token = subprocess.run([BIN / "ray", "get-auth-token"], capture_output=True, text=True).stdout.strip()

    def asked(path: str) -> Any:
        request = urllib.request.Request(f"{found[1]}{path}", headers={"Authorization": f"Bearer {token}"})
        return json.loads(urllib.request.urlopen(request, timeout=5).read())["data"]

    nodes = [node["raylet"]["nodeId"] for node in asked("/nodes?view=summary")["summary"]]
    workers = [worker for node in nodes for worker in asked(f"/nodes/{node}")["detail"].get("workers", [])]
    return [" ".join(worker["cmdline"]) for worker in workers]


@pytest.mark.ray
def test_prometheus_can_follow_a_sweep(workspace: Workspace, temporary: Path) -> None:
    variables = {"RAY_TMPDIR": str(temporary), "RAY_metrics_report_interval_ms": "1000"}
    path = workspace.tiny(iterations=200_000)
    with workspace.start("sweep", path, "--no-mlflow", "--cpus", "2", **variables) as running:
        running.until(lambda: exported(temporary).get(("ddray_jobs", "done"), 0) > 0)
        found = exported(temporary)
        running.until(lambda: any("distill dm digits" in title for title in titles(running)))
    jobs = {state: value for (name, state), value in found.items() if name == "ddray_jobs"}
    assert set(jobs) == {*STATES, "waiting"}
    assert sum(jobs.values()) == len(workspace.prepare(path).plan.jobs)
    assert jobs["running"] >= 1, "the distillation goes on"
    assert jobs["failed"] == jobs["blocked"] == 0
    assert jobs["waiting"] >= 1, "its networks wait for it"
    assert (found["ddray_cpus", ""], found["ddray_cards", ""]) == (2, 0)
    assert 1 <= found["ddray_cpus_booked", ""] <= 2
    assert found["ddray_cards_booked", ""] == 0


def test_the_page_asks_for_every_number_and_for_no_other_of_ours() -> None:
    asked = re.findall(rf"{PREFIX}(ddray_\w+)", json.dumps([panel["targets"] for panel in PAGE["panels"]]))
    assert set(asked) == set(GAUGES)
    states = re.findall(r'state=\\*"(\w+)', json.dumps(PAGE["panels"]))
    assert set(states) <= {*STATES, "waiting"}


def test_panels_have_their_own_places() -> None:
    taken = [
        (x, y)
        for panel in PAGE["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24, "Grafana's page has 24 columns"
