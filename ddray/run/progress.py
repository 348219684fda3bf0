"""What a person sees while a sweep runs: a live table on a terminal, one line per event otherwise. On stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddray.plan.jobs import Job
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

ROWS = 12
FAILURES = 3
OVERHEAD_GFLOP = 2.0
"""Added to each job's estimated work so that many tiny jobs count for what they take."""


class Progress:
    """Counts jobs and shows what runs. Safe to call from several threads."""

    def __init__(self, schedule: Schedule, title: str, *, quiet: bool = False) -> None:
        self.schedule = schedule
        self.title = title
        self.started_at = time.monotonic()
        self.failures: list[str] = []
        self._running: dict[str, tuple[Job, float]] = {}
        self._shown: Mapping[str, Mapping[str, Any]] = {}
        self._done_work = 0.0
        self._lock = threading.RLock()
        self._quiet = quiet
        self._live: Live | None = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as RichLive

            self._live = RichLive(
                console=Console(stderr=True), get_renderable=self._render, refresh_per_second=2, transient=True
            )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, job: Job) -> None:
        with self._lock:
            self._running[job.name] = (job, time.monotonic())

    def ended(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            self._running.pop(job.name, None)
            self._done_work += job.work + OVERHEAD_GFLOP
            for key, cause in outcome.failed.items():
                self.failures.append(f"{key[:12]} {cause}")
            count = len(self.schedule.finished)
        if outcome.failed:
            key, cause = next(iter(outcome.failed.items()))
            self._line(f"[{count}/{len(self.schedule.jobs)}] failed {job.label} ({key[:12]}): {cause}", style="red")
        else:
            self._line(
                f"[{count}/{len(self.schedule.jobs)}] done   {job.label} ({outcome.seconds:.1f} s){self._eta_text()}"
            )

    def interrupted(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            self._running.pop(job.name, None)
        self._line(f"stopped {job.label}; its checkpoint is kept")

    def deferred(self, job: Job) -> None:
        with self._lock:
            self._running.pop(job.name, None)

    def note(self, text: str) -> None:
        """A line that is neither a start nor an end."""
        self._line(text, style="yellow")

    def update(self, shown: Mapping[str, Mapping[str, Any]]) -> None:
        """Latest progress of the running jobs, from the board."""
        self._shown = shown

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON types, for ``ddray status`` in another terminal."""
        with self._lock:
            finished = list(self.schedule.finished.values())
            return {
                "jobs": {
                    "total": len(self.schedule.jobs),
                    **{name: finished.count(name) for name in ("done", "failed", "blocked")},
                },
                "running": [
                    {
                        "job": name,
                        "label": job.label,
                        "seconds": round(time.monotonic() - since, 1),
                        **{
                            k: v for k, v in self._shown.get(name, {}).items() if k in ("kind", "done", "total", "unit")
                        },
                    }
                    for name, (job, since) in self._running.items()
                ],
                "elapsed": round(time.monotonic() - self.started_at, 1),
                "eta": self._eta(),
            }

    def _eta(self) -> float | None:
        """Seconds left, from the estimated work done so far; None before a twentieth of it is done."""
        partial = 0.0
        for name, (job, _) in self._running.items():
            shown = self._shown.get(name, {})
            if shown.get("total"):
                partial += job.work * min(1.0, shown["done"] / shown["total"])
        done = self._done_work + partial
        total = sum(job.work for job in self.schedule.jobs.values()) + OVERHEAD_GFLOP * len(self.schedule.jobs)
        left = self.schedule.remaining_work() - partial
        left += OVERHEAD_GFLOP * (len(self.schedule.jobs) - len(self.schedule.finished))
        if done < total / 20:  # start-up would dominate the estimate
            return None
        return round(max(0.0, (time.monotonic() - self.started_at) * left / done), 1)

    def _eta_text(self) -> str:
        eta = self._eta()
        return "" if eta is None or eta < 1 else f", about {duration(eta)} left"

    def _line(self, text: str, style: str | None = None) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _render(self) -> RenderableType:
        from rich.table import Table

        with self._lock:
            running = sorted(self._running.items(), key=lambda entry: entry[1][1])
            finished = list(self.schedule.finished.values())
            eta = self._eta()
        done, failed = finished.count("done"), finished.count("failed") + finished.count("blocked")
        caption = f"{done} of {len(self.schedule.jobs)} jobs done"
        caption += f", {failed} failed or blocked" if failed else ""
        caption += f", {duration(time.monotonic() - self.started_at)} so far"
        caption += f", about {duration(eta)} left" if eta is not None else ""
        table = Table(title=self.title, caption=caption, title_justify="left", caption_justify="left", expand=True)
        for column in ("stage", "progress", "value", "running"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for name, (job, since) in running[:ROWS]:
            shown = self._shown.get(name, {})
            label = str(shown.get("label", job.label))
            at = f"{shown['done']}/{shown['total']} {shown['unit']}" if shown.get("total") else "starting"
            values = ", ".join(f"{key} {value:.4g}" for key, value in list(shown.get("values", {}).items())[:2])
            table.add_row(label, at, values, duration(time.monotonic() - since))
        if len(running) > ROWS:
            table.add_row(f"… and {len(running) - ROWS} more", "", "", "")
        for failure in self.failures[-FAILURES:]:
            table.add_row(f"failed {failure}", "", "", "", style="red")
        return table


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
