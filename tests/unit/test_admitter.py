"""The searcher without a cluster: what it releases, and what it makes of trials that end."""

from __future__ import annotations

import itertools
import json
import re
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
from ddray.run.watch import Watch

tune = pytest.importorskip("ddray.run.tune")
FINISHED = tune.Searcher.FINISHED


class Members:
    """A cluster without Ray."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes
        self.refused: dict[str, str] = {}
        self.gone: set[str] = set()

    def is_gone(self, node: str) -> bool:
        return node in self.gone

    def has_refused(self, node: str) -> bool:
        return node in self.refused


class Bench:
    """A searcher over some jobs on one node, with what a test wants to look at."""

    def __init__(
        self, workspace: Workspace, jobs: list[Job], *, cpus: float, gpus: int = 0, gpus_expected: int = 0
    ) -> None:
        self.schedule = Schedule(jobs, set())
        self.progress = Progress(self.schedule, "test", quiet=True, cost=lambda stage: stage.work)
        self.stop = threading.Event()
        self.handler = OutcomeHandler(self.schedule, {}, self.progress, self.stop, workspace.store)
        self.members = Members(Node("here", cpus, gpus))
        self.searcher = tune.Admitter(
            self.schedule,
            self.handler,
            Ledger(self.members.nodes),
            self.progress,
            self.stop,
            workspace.store,
            members=self.members,
            watch=Watch(lambda text: None, gpus_expected=gpus_expected),
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


def test_a_job_that_waited_for_others_of_the_sweep_is_not_late(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is when nothing begins for a while after it got a place."""
    clock = itertools.accumulate(itertools.repeat(0.001), initial=1000.0)
    past = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: next(clock) + past[0])
    said: list[str] = []
    bench = Bench(workspace, distillations(workspace, 3), cpus=1)
    bench.searcher.watch.say = said.append
    monkeypatch.setattr(tune.cluster, "free", lambda: "0 CPUs")
    (first, config), *_ = bench.release()
    assert bench.searcher.ahead, "another one waits for its place"
    bench.progress.update({str(config["job"]): {"label": "it", "node": "here"}})
    past[0] += 600
    assert list(bench.release()) == []
    assert said == []
    bench.end(first, Outcome(done=[bench.searcher.trials[first].stages[0].key]))
    past[0] += 30
    list(bench.release())
    assert said == [], "it has had a place for half a minute"
    past[0] += 60
    list(bench.release())
    assert len(said) == 1
    assert re.search(r"has waited 1 min 30 s for 1 CPU, which this sweep leaves free", said[0])


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


def test_deaths_that_turn_out_to_be_their_nodes_do_not_count(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = distillations(workspace, 1)
    bench = Bench(workspace, [job], cpus=1)
    node = ""
    monkeypatch.setattr(bench.searcher, "_worker_of", lambda job: {"node": node})
    for node in ("first", "second", "third"):
        ((trial, _),) = bench.release()
        bench.end(trial, None)
        assert not bench.schedule.failed, node
        bench.members.gone.add(node)  # the cluster tells it after the worker's end
        bench.handler.release_deferred(at_once=True)
    node = "sound"
    for expected in (0, 1):
        ((trial, _),) = bench.release()
        bench.end(trial, None)
        assert len(bench.schedule.failed) == expected, "the control: on a node that stays the second death counts"
        bench.handler.release_deferred(at_once=True)


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


# --- a cluster that changes -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The searcher looks at the cluster whenever it is asked."""
    monkeypatch.setattr(tune, "ATTEND_SECONDS", 0.0)


def test_nodes_that_join_get_full_sized_work_and_nodes_that_die_leave_no_ghosts(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 20), cpus=2, gpus=1)
    assert len(list(bench.release())) == 2 + tune.LOOK_AHEAD
    bench.members.nodes += (Node("joined", 8, 2),)
    assert len(list(bench.release())) == 8 - tune.LOOK_AHEAD + tune.LOOK_AHEAD, "those that waited took places too"
    assert len(bench.searcher.ledger.taken) == 10
    bench.members.nodes = bench.members.nodes[1:]
    assert list(bench.release()) == []
    assert {slot.node for slot in bench.searcher.ledger.taken.values()} == {"joined"}
    assert len(bench.searcher.ledger.taken) == 8


def test_a_job_is_booked_where_its_worker_says_that_it_is(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 2), cpus=4, gpus=1)
    bench.members.nodes += (Node("other", 4, 1),)
    ((_, config), _) = bench.release()
    name = str(config["job"])
    assert bench.searcher.ledger.taken[name].node == "here"
    bench.progress.update({name: {"pid": 1, "node": "other"}})
    assert list(bench.release()) == []
    assert bench.searcher.ledger.taken[name].node == "other"


def test_gpus_that_are_expected_are_asked_for_and_no_more(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 12), cpus=4, gpus_expected=2)
    released = [config for _, config in bench.release()]
    assert [config["gpu"] for config in released] == [0.25] * 8, "what two cards take: the demand that a cluster sees"
    assert not bench.searcher.ledger.taken
    bench.members.nodes += (Node("joined", 8, 1),)
    assert len(list(bench.release())) == tune.LOOK_AHEAD, "of a shape that runs, and one more card is awaited"
    assert len(bench.searcher.ledger.taken) == 4


def test_gpus_that_join_are_used_from_then_on(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 12), cpus=1)
    ((_, config), *_) = bench.release()
    assert config["gpu"] == 0.0
    bench.members.nodes += (Node("joined", 8, 1),)
    later = [config["gpu"] for _, config in bench.release()]
    assert set(later) == {0.25}
    bench.members.nodes = bench.members.nodes[:1]
    assert all(config["gpu"] for _, config in bench.release()), "a card that died may come again"


def test_work_that_no_node_can_hold_waits_in_ray_until_patience_ends(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 12), cpus=4, gpus=1)
    bench.members.nodes = ()
    bench.searcher.watch.patience = 0.0
    bench.handler._deferred.append((float("inf"), "of another driver"))  # nothing is given up for as long
    assert [trial for trial, _ in itertools.islice(bench.release(), 1)], "the demand for which a cluster grows"
    bench.handler._deferred.clear()
    assert bench.searcher.suggest("t") == FINISHED, "patience was none"
    assert bench.stop.is_set()
    assert "no node came in 0 s that has 1 CPU and 0.25 GPU" in bench.handler.environment
    assert tune.NothingBegins(bench.searcher).stop_all()


def test_what_has_begun_is_let_end_and_what_waits_in_ray_is_not(workspace: Workspace) -> None:
    bench = Bench(workspace, distillations(workspace, 2), cpus=4, gpus=1)
    ending = tune.NothingBegins(bench.searcher)
    (trial, _), _ = bench.release()
    bench.searcher.begun.add(trial)
    assert not ending.stop_all()
    bench.stop.set()
    assert not ending.stop_all()
    bench.end(trial, Outcome(interrupted=True))
    assert ending.stop_all()


@pytest.mark.parametrize("why", ["gone", "refused"])
def test_a_worker_whose_node_went_away_says_nothing_of_its_stage(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    (job,) = distillations(workspace, 1)
    bench = Bench(workspace, [job], cpus=1)
    monkeypatch.setattr(bench.searcher, "_worker_of", lambda job: {"pid": 1, "node": "lost"})
    if why == "gone":
        bench.members.gone.add("lost")
    else:
        bench.members.refused["lost"] = "It has another ddray."
    for _ in range(4):
        bench.handler.release_deferred(at_once=True)
        ((trial, config),) = bench.release()
        bench.end(trial, None)
    assert not bench.schedule.failed
    assert config["left_out"] == sorted(bench.members.refused)
