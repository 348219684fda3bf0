"""The searcher without a cluster: what it releases, and what it makes of trials that end."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from workspace import Workspace, stages

from ddray.plan.jobs import Job, make_job
from ddray.run.ledger import Ledger, Node
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.stage import Outcome

tune = pytest.importorskip("ddray.run.tune")
FINISHED = tune.Searcher.FINISHED


class Bench:
    """A searcher over some jobs on one node, with what a test wants to look at."""

    def __init__(self, workspace: Workspace, jobs: list[Job], *, cpus: float, gpus: int = 0) -> None:
        self.schedule = Schedule(jobs, set())
        progress = Progress(self.schedule, "test", quiet=True, cost=lambda stage: stage.work)
        self.stop = threading.Event()
        self.handler = OutcomeHandler(self.schedule, {}, progress, self.stop)
        self.searcher = tune.Admitter(
            self.schedule,
            self.handler,
            Ledger([Node(cpus, [1.0] * gpus)]),
            progress,
            self.stop,
            workspace.store,
            use_gpus=gpus > 0,
        )
        self._trials = iter(range(1000))

    def release(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Trials until the searcher has nothing now."""
        for number in self._trials:
            suggested = self.searcher.suggest(f"t{number}")
            if suggested is None or suggested == FINISHED:
                return
            yield f"t{number}", suggested

    def end(self, trial: str, outcome: Outcome | None) -> None:
        result = None if outcome is None else {"outcome": json.dumps(asdict(outcome))}
        self.searcher.on_trial_complete(trial, result, error=outcome is None)


def distillations(workspace: Workspace, count: int, share: float = 0.25) -> list[Job]:
    path = workspace.tiny(distill_seeds=tuple(range(count)), resources=f"{{distill: {{gpu: {share}}}}}")
    found = stages(workspace.prepare(path), "distill", method="dm")
    return [make_job([stage], 1) for stage in found]


def test_no_more_is_released_than_fits_and_a_small_look_ahead(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 12), cpus=16, gpus=1)
    released = list(bench.release())
    assert len(released) == 4 + tune.LOOK_AHEAD, "four quarters of one card, and those that wait for an actor"
    assert len(bench.searcher.ledger.taken) == 4
    first, _ = released[0]
    bench.end(first, Outcome(done=[bench.searcher.trials[first].stages[0].key]))
    assert len(bench.searcher.ledger.taken) == 4, "the first of the look-ahead took the place"
    assert len(list(bench.release())) == 1


def test_without_gpus_shares_are_not_asked_for(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 2), cpus=1)
    (_, config), *_ = bench.release()
    assert (config["cpus"], config["gpu"]) == (1.0, 0.0)
    assert json.loads(str(config["spec"]))["gpu"] == 0.0


def test_a_job_whose_worker_dies_is_tried_once_more_then_failed(workspace: Workspace) -> None:
    (job,) = distillations(workspace, 1)
    bench = Bench(workspace, [job], cpus=1)
    ((trial, _),) = bench.release()
    bench.end(trial, None)
    assert not bench.schedule.failed
    assert bench.handler.waiting, "it waits a moment, then it is ready again"
    assert list(bench.release()) == []
    assert workspace.store.failure(job.stages[0].key) is None
    bench.handler.release_deferred(at_once=True)
    ((trial, _),) = bench.release()
    bench.end(trial, None)
    assert list(bench.schedule.failed) == [job.stages[0].key]
    failure = workspace.store.failure(job.stages[0].key)
    assert failure is not None
    assert "died" in failure["cause"]
    assert bench.searcher.suggest("last") == FINISHED


def test_a_failure_of_an_earlier_run_is_not_the_cause_of_this_death(workspace: Workspace) -> None:
    (job,) = distillations(workspace, 1)
    workspace.store.record_failure(job.stages[0].key, {"cause": "old"})
    bench = Bench(workspace, [job], cpus=1)
    ((trial, _),) = bench.release()
    bench.end(trial, None)
    assert not bench.schedule.failed


def test_nothing_is_released_while_stopping(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 2), cpus=2)
    bench.stop.set()
    assert bench.searcher.suggest("t") == FINISHED


def test_what_another_driver_finished_needs_no_trial(workspace: Workspace) -> None:
    """Found when the job would start: it is settled there and then."""
    path = workspace.tiny()
    assert workspace.run("sweep", path, "--local", "--no-mlflow").code == 0
    found = stages(workspace.prepare(path), "distill", method="dm")
    bench = Bench(workspace, [make_job([stage], 1) for stage in found], cpus=1)
    assert bench.searcher.suggest("t") == FINISHED
    assert set(bench.schedule.finished.values()) == {"done"}


def test_short_jobs_of_one_shape_follow_each_other(workspace: Workspace) -> None:
    """A worker serves one shape; going back and forth between shapes would start workers all the time."""
    small, large = distillations(workspace, 6, share=0.25), distillations(workspace, 6, share=0.5)
    # the same keys with other shares: distinct jobs for a schedule, alternating in plan order
    alternating = [job for pair in zip(small[:3], large[3:], strict=True) for job in pair]
    bench = Bench(workspace, alternating, cpus=1, gpus=1)
    shares = []
    while not bench.schedule.over:
        for trial, config in list(bench.release()):
            shares.append(config["gpu"])
            bench.end(trial, Outcome(done=[bench.searcher.trials[trial].stages[0].key]))
    assert len(shares) == 6
    changes = sum(before != after for before, after in itertools.pairwise(shares))
    assert changes == 1, shares
