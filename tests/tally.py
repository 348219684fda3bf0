"""What became of a sweep that something happened to: counted by trial, summed up by kind of fault at the end of a run.

A test of a fault carries ``@pytest.mark.fault(KIND)`` and takes the fixture ``trial``. The counts travel with pytest's
own reports; a kind that no test met, or that could not be brought about here, is said to be NOT RUN.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

KINDS = (
    "worker killed",
    "driver killed",
    "GCS killed",
    "raylet killed",
    "node dies, node joins",
    "disk full",
    "errors of reading and writing",
    "damaged files",
    "MLflow's database",
    "clock jumps",
    "TERM with 30 s notice",
    "two drivers on one store",
)
TRIAL = "trial of a fault"


@dataclass
class Sum:
    """Of one kind."""

    trials: int = 0
    lost: int = 0
    recomputed: int = 0
    failed: int = 0
    """Tests."""
    not_run: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.failed or self.lost or self.recomputed:
            return "FAILED"
        if not self.trials:
            return f"NOT RUN: {'; '.join(self.not_run) or 'no test met it'}"
        return f"held; in part NOT RUN: {'; '.join(self.not_run)}" if self.not_run else "held"


class Tally:
    """A pytest plugin."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        """Test -> kind."""
        self.sums: dict[str, Sum] = defaultdict(Sum)

    @pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if mark := item.get_closest_marker("fault"):
                (kind,) = mark.args
                assert kind in KINDS, f"{item.nodeid}: no kind of fault is called {kind!r}"
                self.kinds[item.nodeid] = kind
                item.add_marker("faults")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = self.kinds.get(report.nodeid)
        if kind is None:
            return
        total = self.sums[kind]
        if report.failed:
            total.failed += 1
        if report.skipped and isinstance(report.longrepr, tuple):
            total.not_run.append(report.longrepr[2].removeprefix("Skipped: ").removeprefix("NOT RUN: "))
        if report.when == "teardown":
            counts: list[Any] = [value for name, value in report.user_properties if name == TRIAL]
            total.trials += len(counts)
            total.lost += sum(lost for lost, _ in counts)
            total.recomputed += sum(recomputed for _, recomputed in counts)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.sums:
            terminalreporter.section("faults: lost and recomputed after running again")
            for line in self.table():
                terminalreporter.write_line(line)

    def table(self) -> list[str]:
        """A line for each kind."""
        width = max(map(len, KINDS))
        lines = [f"{'kind':{width}}  trials  lost  recomputed  verdict"]
        for kind in KINDS:
            total = self.sums.get(kind, Sum())
            lines.append(f"{kind:{width}}  {total.trials:6}  {total.lost:4}  {total.recomputed:10}  {total.verdict}")
        return lines
