"""The Ray Tune executor: jobs as trials.

Tune asks our searcher for configurations; the searcher admits jobs: it hands out what is ready by the plan and fits
the free cards by the ledger, plus a small look-ahead of the same shape so that an actor that becomes free finds its
next job waiting. The trainable runs one job per trial; actors are reused between jobs of one shape, because a new
one pays seconds for importing torch.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.search import Searcher

from ddray.errors import RequestError
from ddray.plan.graph import Stage
from ddray.plan.jobs import Job
from ddray.run import cluster
from ddray.run.board import Board
from ddray.run.ledger import Ledger, Node
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.signals import StopRequest
from ddray.run.stage import Outcome, WorkerEnv, between_jobs, run_job
from ddray.settings import set_environment
from ddray.store.artifacts import Store

log = logging.getLogger(__name__)

BOARD = "ddray-board"
LOOK_AHEAD = 4
DEATHS = 2
"""Workers that may die at one stage: the first may have been bad luck, the second fails the stage."""
SYNC_SECONDS = 0.5


def execute(
    schedule: Schedule,
    handler: OutcomeHandler,
    env: WorkerEnv,
    progress: Progress,
    stop: StopRequest,
    *,
    sweep: str,
    run_folder: Path,
    address: str | None,
    cpus: int | None,
    gpus: int | None,
    on_start: Callable[[str], None],
) -> None:
    """Run every job of the schedule on Ray, or until a stop is asked for.

    Args:
        schedule: What may run when.
        handler: Turns outcomes into the schedule's next state.
        env: Folders and device.
        progress: The display.
        stop: Hears the signals.
        sweep: Name of the sweep, shown in the dashboard.
        run_folder: Scratch for Tune's own files.
        address: Of a running cluster, or None to start Ray here.
        cpus: CPUs to offer when Ray is started here; None: all.
        gpus: GPUs to offer when Ray is started here; None: those there are.
        on_start: Called with the dashboard's address.

    Raises:
        EnvironmentProblem: Ray cannot be started or reached.
        RequestError: A job asks for more than any node has.
    """
    with cluster.running(sweep, address, cpus, gpus, stop) as ray_cluster:
        nodes = cluster.nodes()
        on_start(cluster.dashboard())
        _refuse_impossible(schedule, nodes)
        # It holds only what jobs tell every second: a new one is as good when its node is lost.
        board = ray.remote(Board).options(name=BOARD, num_cpus=0, max_concurrency=1, max_restarts=-1).remote()
        ledger = Ledger(Node(node.cpus, list(node.gpus)) for node in nodes)
        use_gpus = any(node.gpus for node in nodes)
        store = Store(env.store, Path(env.cache) / "artifacts")
        admitter = Admitter(schedule, handler, ledger, progress, stop, store, use_gpus=use_gpus, board=board)
        over = threading.Event()
        syncing = threading.Thread(target=_sync, args=(board, progress, stop, over, ray_cluster), daemon=True)
        syncing.start()
        try:
            with ray_cluster.watched(stop):
                _fit(admitter, env, run_folder)
        finally:
            over.set()
            syncing.join(timeout=5)


class Admitter(Searcher):
    """Tune's searcher: releases ready jobs that fit, and takes their outcomes back."""

    def __init__(
        self,
        schedule: Schedule,
        handler: OutcomeHandler,
        ledger: Ledger,
        progress: Progress,
        stop: threading.Event,
        store: Store,
        *,
        use_gpus: bool,
        board: Any = None,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.handler = handler
        self.ledger = ledger
        self.progress = progress
        self.stop = stop
        self.store = store
        self.use_gpus = use_gpus
        self.trials: dict[str, Job] = {}
        self.released_at: dict[str, float] = {}
        self._freed: tuple[float, float] | None = None
        self.board = board
        self.deaths: Counter[str] = Counter()
        """Key -> workers that died while computing it."""
        self.ahead: dict[str, Job] = {}
        """Released without a free place: they wait in Ray for an actor of their shape."""

    def shape(self, job: Job) -> tuple[float, float]:
        """CPUs and share of a GPU that are asked of Ray; without GPUs everything runs on CPUs."""
        return job.cpus, job.gpu if self.use_gpus else 0.0

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Nothing is optimised."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next job for a trial, None for "nothing now", FINISHED at the end."""
        if self.stop.is_set():
            return str(Searcher.FINISHED)
        self.handler.release_deferred()
        while True:
            job = self.schedule.take(self._admissible, self._rank)
            if job is None:
                over = self.schedule.over and not self.handler.waiting
                return str(Searcher.FINISHED) if over else None
            if not all(self.store.has(stage.key) for stage in job.stages):
                break
            # Another driver has finished it meanwhile.
            self.handler.settle(job, Outcome(done=[stage.key for stage in job.stages]))
        slot = self.ledger.fit(*self.shape(job))
        if slot is not None:
            self.ledger.take(job.name, slot)
        else:
            self.ahead[job.name] = job
        self.trials[trial_id] = job
        self.released_at[job.name] = time.time()
        self.progress.started(job)
        cpus, gpu = self.shape(job)
        return {"job": job.name, "cpus": cpus, "gpu": gpu, "spec": json.dumps(job.spec() | {"gpu": gpu})}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take a job's outcome; a trial that ended without one died."""
        job = self.trials.pop(trial_id, None)
        if job is None:
            return
        self._free(job)
        if result is not None and "outcome" in result:
            outcome = Outcome(**json.loads(result["outcome"]))
        else:
            outcome = self._post_mortem(job)
        self.handler.settle(job, outcome)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial reports once, at its end."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune's state is scratch."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from the store."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that we never do; ours holds locks and the plan."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Admitter:
        return self

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        return None

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        return None

    def _admissible(self, job: Job) -> bool:
        if self.ledger.fit(*self.shape(job)) is not None and not any(
            self.shape(waiting) == self.shape(job) for waiting in self.ahead.values()
        ):
            return True
        return len(self.ahead) < LOOK_AHEAD and self.shape(job) in self._running_shapes()

    def _rank(self, job: Job) -> int:
        """0 for the shape of the worker that has just become free, 1 for shapes that run, 2 for new ones."""
        if self.shape(job) == self._freed:
            return 0
        return 1 if self.shape(job) in self._running_shapes() else 2

    def _running_shapes(self) -> set[tuple[float, float]]:
        return {(slot.cpus, slot.share) for slot in self.ledger.taken.values()}

    def _free(self, job: Job) -> None:
        self._freed = self.shape(job)
        if self.ahead.pop(job.name, None) is None:
            self.ledger.release(job.name)
        for name, waiting in list(self.ahead.items()):
            slot = self.ledger.fit(*self.shape(waiting))
            if slot is not None:
                self.ledger.take(name, slot)
                del self.ahead[name]

    def _post_mortem(self, job: Job) -> Outcome:
        """The worker died, or gave up after running out of GPU memory: the store says how far it came."""
        outcome = Outcome(interrupted=self.stop.is_set())
        for stage in job.stages:
            if self.store.has(stage.key):
                outcome.done.append(stage.key)
                continue
            failure = self.store.failure(stage.key)
            if failure is not None and failure.get("at", 0.0) >= self.released_at[job.name]:
                outcome.failed[stage.key] = failure["cause"]
            elif not outcome.interrupted:
                self._died_at(stage, job, outcome)
            break
        return outcome

    def _died_at(self, stage: Stage, job: Job, outcome: Outcome) -> None:
        """A stage without a word of its own: once may be bad luck, and its checkpoint is still there."""
        self.deaths[stage.key] += 1
        cause = cluster.cause_of_death(self._worker_of(job))
        if self.deaths[stage.key] < DEATHS:
            self.progress.note(f"the worker of {stage.label} died ({cause}); the job is tried again")
            outcome.busy[stage.key] = ""
            return
        cause = f"{self.deaths[stage.key]} workers died at this stage; the last: {cause}"
        record = {**stage.spec(), "cpus": job.cpus, "gpu": job.gpu, "cause": cause, "traceback": ""}
        self.store.record_failure(stage.key, record)
        outcome.failed[stage.key] = cause

    def _worker_of(self, job: Job) -> dict[str, Any]:
        """The worker's process and node, as it posted them last."""
        if self.board is None:
            return {}
        try:
            posted: dict[str, dict[str, Any]] = ray.get(self.board.look.remote(), timeout=10)
        except Exception as error:
            log.debug("the board did not answer: %s", error)
            return {}
        return posted.get(job.name, {})


class JobTrial(tune.Trainable):
    """What Tune sees: one step that runs one job."""

    def setup(self, config: dict[str, Any]) -> None:
        """A new actor: environment first, before anything imports torch."""
        set_environment()
        self._board = ray.get_actor(BOARD)
        self._worker = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
        given = WorkerEnv(**json.loads(config["env"]))
        # Data and cache belong to the node: what its own environment says goes before the driver's.
        self._env = replace(
            given,
            data=os.environ.get(cluster.NODE_PLACES[0]) or given.data,
            cache=os.environ.get(cluster.NODE_PLACES[1]) or given.cache,
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The actor takes the next job."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the job to its end."""
        job = json.loads(self.config["spec"])
        with between_jobs():
            outcome = run_job(job, self._env, self._tick)
        if outcome.out_of_memory:
            # Memory may be stuck in this process: end it, the searcher reads the failure from the store.
            raise MemoryError(next(iter(outcome.failed.values())))
        return {"outcome": json.dumps(asdict(outcome)), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: stages checkpoint into the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _tick(self, job: str, progress: dict[str, Any] | None) -> bool:
        posted = {**progress, **self._worker} if progress is not None else None
        return bool(ray.get(self._board.tick.remote(job, posted), timeout=10))


def _fit(admitter: Admitter, env: WorkerEnv, run_folder: Path) -> None:
    """Hand over to Tune until the searcher says that it has finished."""
    run_folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # our summary tells what failed

    def request(config: dict[str, Any]) -> PlacementGroupFactory:
        bundle = {"CPU": float(config.get("cpus", 1.0))}
        if config.get("gpu"):
            bundle["GPU"] = float(config["gpu"])
        return PlacementGroupFactory([bundle])

    tuner = tune.Tuner(
        tune.with_resources(JobTrial, request),
        param_space={"env": json.dumps(asdict(env))},
        tune_config=tune.TuneConfig(
            search_alg=admitter,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"job_{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"job_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(run_folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            log_to_file=False,
        ),
    )
    tuner.fit()


def _refuse_impossible(schedule: Schedule, nodes: list[Node]) -> None:
    """A job that no node can ever hold would wait for ever; say so before anything starts."""
    use_gpus = any(node.gpus for node in nodes)
    problems = []
    for job in schedule.jobs.values():
        share = job.gpu if use_gpus else 0.0
        if Ledger.never_fits(job.cpus, share, nodes):
            problems.append(
                f"resources: {job.label} asks for {job.cpus:g} CPUs and {share:g} GPU; got nodes with "
                f"{', '.join(f'{node.cpus:g} CPUs and {len(node.gpus)} GPUs' for node in nodes)}. "
                "Lower resources: in the sweep, or use a larger machine."
            )
    if problems:
        raise RequestError(list(dict.fromkeys(problems))[:20])


def _sync(
    board: Any, progress: Progress, stop: threading.Event, over: threading.Event, ray_cluster: cluster.Cluster
) -> None:
    """Carry progress from the board to the display, and the stop from the signal handler to the board."""
    while not over.is_set():
        try:
            progress.update(ray.get(board.look.remote(stop.is_set()), timeout=10))
            ray_cluster.answered()
        except Exception as error:
            if over.is_set():
                return
            log.debug("the board did not answer: %s", error)
        over.wait(SYNC_SECONDS)
