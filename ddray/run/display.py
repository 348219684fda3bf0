"""The live table of a sweep that runs, on a terminal of any size."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ddray.run.progress import Progress, Released, duration

ROWS = 12
"""Jobs that are shown at most."""
FAILURES = 3
FRAME_LINES = 5
"""Title, head of the table, two lines of counts, and the line of the cursor."""
GAP = 2
"""Columns between two columns of the table."""


@contextlib.contextmanager
def shown(progress: Progress, quiet: bool) -> Iterator[None]:
    """The table on a terminal's stderr, drawn anew twice a second; elsewhere lines alone."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    console = Console(stderr=True)
    progress.say = lambda text, style: console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
    with Live(LiveTable(progress), console=console, refresh_per_second=2, transient=True, redirect_stdout=False):
        yield


class LiveTable:
    """What runs, what waits, what failed last, and how far it all is."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        labels = [stage.label.split() for job in progress.schedule.jobs.values() for stage in job.stages]
        self.shared = set(labels[0][1:]).intersection(*labels[1:]) if len(labels) > 1 else set()
        """Words that all stages have: said once, in the title, because rows are short."""
        self.title = " ".join([progress.title, *(word for word in labels[0] if word in self.shared)] if labels else [])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(2, (options.height or options.size.height) - FRAME_LINES)
        failures = self.progress.failures[-min(FAILURES, room // 3) :] if room > 2 else []
        released = [*self.progress.jobs("running"), *self.progress.jobs("queued")]
        rows = min(ROWS, room - len(failures))
        shown = released if len(released) <= rows else released[: rows - 1]
        width = options.max_width
        parts: list[RenderableType] = [_line(self.title, "italic"), self._table(shown, width)]
        if len(shown) < len(released):
            parts.append(_line(f"… and {len(released) - len(shown)} more"))
        parts += [_line(f"failed {failure}", "red") for failure in failures]
        yield Group(*parts, _line(self._counts()), _line(self._times()))

    def _table(self, shown: Sequence[Released], width: int) -> Table:
        now = time.monotonic()
        columns = {
            "stage": [self._label(each) for each in shown],
            "progress": [_at(each) for each in shown],
            "value": [_values(each) for each in shown],
            "time": [duration(now - each.since) for each in shown],
        }
        widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
        stage = width - _together(widths.values()) + widths["stage"]
        if stage < widths["stage"]:  # which stages they are comes before how they do
            del columns["value"]
            stage += widths["value"] + GAP
        columns["stage"] = [shortened(label, max(1, stage)) for label in columns["stage"]]
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, expand=True)
        for name in columns:
            left = name == "stage"
            table.add_column(name, justify="left" if left else "right", ratio=1 if left else None, no_wrap=True)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*map(Text, row))
        return table

    def _label(self, released: Released) -> str:
        words = str(released.stage.get("label", released.job.label)).split()
        return " ".join([*words[:1], *(word for word in words[1:] if word not in self.shared)])

    def _counts(self) -> str:
        counts = self.progress.counts()
        lost = counts["failed"] + counts["blocked"]
        text = f"{counts['done']} of {counts['total']} jobs done"
        text += f", {lost} failed or blocked" if lost else ""
        return text + f", {counts['running']} running" + (f", {counts['queued']} queued" if counts["queued"] else "")

    def _times(self) -> str:
        left = self.progress.eta()
        text = f"{duration(time.monotonic() - self.progress.started_at)} so far"
        return text + (f", about {duration(left)} left" if left is not None else "")


def shortened(label: str, width: int) -> str:
    """A label in so many characters: words are left out of its middle, never letters of a word while that can be.

    What a stage does stands first, what tells it from its neighbours last.
    """
    if len(label) <= width:
        return label
    words = label.split()
    for left_out in range(1, len(words)):
        kept = len(words) - left_out
        head = (kept + 1) // 2
        text = " ".join([*words[:head], "…", *words[len(words) - (kept - head) :]])
        if len(text) <= width:
            return text
    return label[: width - 1] + "…"


def _at(released: Released) -> str:
    if released.state == "queued":
        return "queued"
    stage = released.stage
    return f"{stage['done']}/{stage['total']} {stage['unit']}" if stage.get("total") else "starting"


def _values(released: Released) -> str:
    values = list(released.stage.get("values", {}).items())[:2]
    return ", ".join(f"{name} {value:.4g}" for name, value in values)


def _together(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - GAP


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
