"""What a person is told of a sweep that runs: who waits, who works, how long it will take, in 80 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.run.display import ROWS, LiveTable, shortened
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome


def stage(number: int, work: float, label: str = "", *, path: str = "", budget: int | None = None) -> Stage:
    key = f"{number:064x}"
    return Stage(
        kind="distill",
        key=key,
        lineage=path or key,
        budget=budget,
        version=1,
        label=label or f"distill dm digits seed={number}",
        config=None,  # type: ignore[arg-type]
        inputs=(),
        unavailable=None,
        cpus=1.0,
        share=None,
        work=work,
        size=0,
    )


class Run:
    """A sweep with a clock of its own, in which every GFLOP takes a second."""

    def __init__(self, patch: pytest.MonkeyPatch, jobs: list[Job], **options: Any) -> None:
        self.now = 1000.0
        patch.setattr("ddray.run.progress.time.monotonic", lambda: self.now)
        patch.setattr("ddray.run.display.time.monotonic", lambda: self.now)
        self.schedule = Schedule(jobs, ())
        self.progress = Progress(self.schedule, "mine", quiet=True, cost=lambda stage: stage.work, **options)
        self.board: dict[str, dict[str, Any]] = {}

    def start(self, job: Job) -> None:
        self.schedule.running.add(job.name)
        self.progress.started(job)

    def post(self, job: Job, at: Stage | None = None, done: int = 0, total: int = 100, start: int = 0) -> None:
        told: dict[str, Any] = {"pid": 1}
        if at is not None:
            told |= {"key": at.key, "label": at.label, "kind": at.kind, "start": start, "done": done, "total": total}
            told |= {"unit": "it", "values": {"loss": 0.123456}}
        self.board[job.name] = told
        self.progress.update(self.board)

    def end(self, job: Job) -> None:
        done = [stage.key for stage in job.stages]
        self.board.pop(job.name, None)
        self.schedule.finish(job.name, done, {})
        self.progress.ended(job, Outcome(done=done))

    def compute(self, job: Job, start: float = 0.0) -> list[tuple[float, float | None]]:
        """All stages of a job, the first from a share of it on: clock and time left, again and again."""
        told = []
        self.start(job)
        self.post(job)
        for number, each in enumerate(job.stages):
            first = round(100 * start) if number == 0 else 0
            for done in range(first, 101):
                self.post(job, each, done, start=first)
                told.append((self.now, self.progress.eta()))
                self.now += each.work / 100 if done < 100 else 0
            self.post(job)
            told.append((self.now, self.progress.eta()))
        self.end(job)
        told.append((self.now, self.progress.eta()))
        return told


def lines_of(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(LiveTable(progress))
    return captured.get().splitlines()


# --- states -------------------------------------------------------------------------------------------------------


def test_a_released_job_is_queued_until_a_worker_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_job([stage(1, 50)], 1), make_job([stage(2, 50)], 1)
    run = Run(monkeypatch, [first, second])
    run.start(first)
    run.start(second)
    run.now += 30
    run.post(first, first.stages[0], 20)
    run.now += 10
    facts = run.progress.snapshot()
    assert [(job["label"], job["seconds"]) for job in facts["running"]] == [(first.label, 10.0)], "of the work alone"
    assert [(job["label"], job["seconds"]) for job in facts["queued"]] == [(second.label, 40.0)]
    assert facts["jobs"] == {"total": 2, "done": 0, "failed": 0, "blocked": 0, "running": 1, "queued": 1}
    table = "\n".join(lines_of(run.progress))
    assert "20/100 it" in table
    assert "starting" not in table
    assert "1 running, 1 queued" in table
    run.post(second)
    assert "starting" in "\n".join(lines_of(run.progress)), "a worker has it, and no stage yet"
    assert run.progress.snapshot()["queued"] == []


def test_what_a_dead_worker_posted_says_nothing_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job([stage(1, 50)], 1)
    run = Run(monkeypatch, [job])
    run.start(job)
    run.post(job, job.stages[0], 20)
    run.progress.deferred(job)
    run.start(job)
    run.progress.update(run.board)  # nobody has taken the post back
    assert [each.state for each in run.progress.released.values()] == ["queued"]
    run.board[job.name] = {"pid": 2}
    run.progress.update(run.board)
    assert [each.state for each in run.progress.released.values()] == ["running"]


def test_a_job_that_was_stopped_is_kept_with_the_place_of_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job([stage(1, 50, path="ab" * 32, budget=100)], 1)
    run = Run(monkeypatch, [job])
    run.start(job)
    run.post(job, job.stages[0], 20)
    run.progress.interrupted(job, Outcome(interrupted=True))
    facts = run.progress.snapshot()
    assert facts["running"] == []
    (stopped,) = facts["stopped"]
    assert (stopped["lineage"], stopped["done"], stopped["total"]) == ("ab" * 32, 20, 100)


# --- time left ----------------------------------------------------------------------------------------------------


def test_the_time_left_runs_down_evenly_through_stages_and_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [make_job([stage(10 * n, 70), stage(10 * n + 1, 10), stage(10 * n + 2, 20)], 1) for n in (1, 2, 3)]
    run = Run(monkeypatch, jobs)
    run.now += 500  # Ray starts: that is no work
    began = run.now
    told = [each for job in jobs for each in run.compute(job)]
    assert told[0][1] is None, "nothing is known yet"
    said = [(at - began, left) for at, left in told if left is not None]
    assert said[0][0] <= 16, "after a twentieth"
    for at, left in said:
        assert left == pytest.approx(300 - at, abs=0.2)
    assert run.progress.eta() == 0.0


def test_work_that_a_checkpoint_holds_is_neither_left_nor_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths were done yesterday: a tenth is left, and nobody was that fast today."""
    first, second = (make_job([stage(number, 100, path=f"{number:064x}", budget=100)], 1) for number in (1, 2))
    run = Run(monkeypatch, [first, second], checkpoints={first.stages[0].lineage: [40, 90]})
    began = run.now
    for at, left in run.compute(first, start=0.9):
        assert left is None or left == pytest.approx(110 - (at - began), abs=0.2)
    assert run.progress.eta() == pytest.approx(100, abs=0.2)
    for at, left in run.compute(second):
        assert left == pytest.approx(110 - (at - began), abs=0.2)


def test_a_worker_knows_better_than_the_plan_where_it_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings have no budget, and a checkpoint may be damaged."""
    train, damaged = make_job([stage(1, 100)], 1), make_job([stage(2, 100, path="ab" * 32, budget=100)], 1)
    run = Run(monkeypatch, [train, damaged], checkpoints={"ab" * 32: [50]})
    run.compute(train, start=0.5)
    assert run.progress.eta() == pytest.approx(50, abs=0.2), "half of the second is expected to be there"
    run.start(damaged)
    run.post(damaged, damaged.stages[0], 0)
    assert run.progress.eta() == pytest.approx(100, abs=0.2)


def test_a_longer_budget_continues_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = stage(1, 20, path="ab" * 32, budget=20), stage(2, 100, path="ab" * 32, budget=100)
    run = Run(monkeypatch, [make_job([short], 1), make_job([long], 1)])
    run.compute(run.schedule.jobs[make_job([short], 1).name])
    assert run.progress.eta() == pytest.approx(80, abs=0.2)


def test_failed_stages_count_as_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_job([stage(1, 1000)], 1), make_job([stage(2, 100)], 1)
    run = Run(monkeypatch, [first, second])
    run.start(first)
    run.now += 1
    run.schedule.finish(first.name, [], {first.stages[0].key: "boom"})
    run.progress.ended(first, Outcome(failed={first.stages[0].key: "boom"}))
    assert run.progress.eta() is None


# --- the table ----------------------------------------------------------------------------------------------------

LONG = (
    "distill mtt cifar100 ipc=50 init=real origin=400/3 classes=10/2 convnet3-d4-w256 distill_seed=12 row=7 twin",
    "train mtt cifar100 ipc=50 init=real origin=400/3 classes=10/2 convnet3-d4-w256 seed=3 distill_seed=12 row=7",
    "robustness mtt cifar100 ipc=50 init=noise origin=400/3 classes=10/2 vgg16 seed=12 autoattack",
)


@pytest.mark.parametrize("height", [12, 24, 50])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, count: int, height: int) -> None:
    jobs = [make_job([stage(n, 50, f"{LONG[n % 3]} n={n}")], 1) for n in range(count)]
    run = Run(monkeypatch, jobs)
    for n, job in enumerate(jobs):
        run.start(job)
        if n % 2 == 0:
            run.post(job, job.stages[0], 12345, 200000)
    run.progress.failures += [f"{n:012x} ValueError: the loss is nan, and many more words about it {n}" for n in (1, 2)]
    run.now += 100_000
    lines = lines_of(run.progress, height=height)
    assert len(lines) < height
    assert max(map(cell_len, lines)) <= 80
    shown = [line for line in lines if line.startswith(("distill", "train", "robustness"))]
    assert len(shown) == min(count, len(shown)) <= ROWS
    assert len(shown) >= min(count, 4)
    if count > len(shown):
        assert f"… and {count - len(shown)} more" in [line.strip() for line in lines]
    for line in shown:
        assert line.rstrip().endswith("1 d 3 h"), "no cell is cut"
        assert "12345/200000 it" in line or "queued" in line
        words = line.split("  ")[0].split()
        assert all(
            word == "…" or any(word in label.split() or word.startswith("n=") for label in LONG) for word in words
        )
    assert len({line.split("  ")[0] for line in shown}) == len(shown), "no two rows look alike"


def test_a_wide_terminal_shows_values_and_whole_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [make_job([stage(n, 50, label)], 1) for n, label in enumerate(LONG)]
    run = Run(monkeypatch, jobs)
    run.start(jobs[0])
    run.post(jobs[0], jobs[0].stages[0], 3)
    text = "\n".join(lines_of(run.progress, width=140))
    assert "loss 0.1235" in text
    assert "mine mtt cifar100 ipc=50 origin=400/3 classes=10/2" in text, "what all have is said once"
    assert "distill init=real convnet3-d4-w256 distill_seed=12 row=7 twin" in text


def test_a_label_loses_words_of_its_middle() -> None:
    assert shortened("train dm digits ipc=1 seed=3", 40) == "train dm digits ipc=1 seed=3"
    assert shortened("train dm digits ipc=1 init=real convnet3 seed=3", 30) == "train dm … convnet3 seed=3"
    assert shortened("incomprehensibilities", 8) == "incompr…"
