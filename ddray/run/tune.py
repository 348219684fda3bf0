"""The Ray Tune executor: jobs as trials.

Tune asks our searcher for configurations; the searcher admits jobs: it hands out what is ready by the plan and fits
the free cards by the ledger, plus a small look-ahead of the same shape so that an actor that becomes free finds its
next job waiting. The trainable runs one job per trial; actors are reused between jobs of one shape, because a new
one pays seconds for importing torch.

A cluster that grows adds nodes for what waits in Ray and fits nowhere. So jobs that no node can hold are released all
the same, as many as were asked for (`--gpus-expected`) or a few: they are the demand.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.search import Searcher

from ddray.errors import EnvironmentProblem, RequestError
from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, Shape
from ddray.run import cluster
from ddray.run.causes import ERROR
from ddray.run.gauges import Gauges
from ddray.run.ledger import Ledger, Node, Slot, next_job
from ddray.run.nodes import Agreement, agreement, on_this_node
from ddray.run.outcomes import OutcomeHandler
from ddray.run.progress import Progress
from ddray.run.schedule import Schedule
from ddray.run.signals import StopRequest
from ddray.run.stage import Outcome, WorkerEnv, between_jobs, run_job
from ddray.run.watch import PATIENCE_SECONDS, Waiting, Watch, asked
from ddray.settings import set_environment
from ddray.store.artifacts import Store
from ddray.store.witness import Witness

log = logging.getLogger(__name__)

LOOK_AHEAD = 4
MOST_WAITING = 32
"""Jobs released without a free place, half of what Tune takes before it asks no more (TUNE_MAX_PENDING_TRIALS_PG)."""
NODE_LABEL = "ray.io/node-id"
"""Ray puts it on every node."""
SYNC_SECONDS = 0.5
ATTEND_SECONDS = 0.5
SHOW_SECONDS = 5.0
"""Between two values of the gauges; Ray exports them every ten seconds."""


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
    gpus_expected: int,
    wait_for_nodes: float | None,
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
        gpus_expected: GPUs that a cluster will have once it has grown.
        wait_for_nodes: Minutes to wait for nodes that a job needs and a cluster does not have yet; None: such a job is
            refused, unless the cluster has no node at all.
        on_start: Called with the dashboard's address.

    Raises:
        EnvironmentProblem: Ray cannot be started or reached, or no node may take jobs.
        RequestError: A job asks for more than any node has.
    """
    joined = address is not None
    store = Store(env.store, Path(env.cache) / "artifacts")
    witness = Witness(store.files)
    with cluster.running(sweep, address, cpus, gpus, stop) as ray_cluster:
        on_start(cluster.dashboard())
        witness.write()
        agreed = _agreement(schedule, env, witness, joined)
        board = cluster.start_board()
        members = cluster.Members(joined, board, agreed, env, witness.answered, progress.note)
        try:
            members.first(stop)
            _refuse_impossible(schedule, members, gpus_expected, waits=wait_for_nodes is not None)
            patience = PATIENCE_SECONDS if wait_for_nodes is None else 60 * wait_for_nodes
            watch = Watch(progress.note, gpus_expected=gpus_expected, patience=patience)
            admitter = Admitter(
                schedule,
                handler,
                Ledger(members.nodes),
                progress,
                stop,
                store,
                members=members,
                board=board,
                watch=watch,
                gauges=Gauges(sweep),
            )
            over = threading.Event()
            syncing = threading.Thread(
                target=_sync, args=(board, members, progress, stop, over, ray_cluster), daemon=True
            )
            syncing.start()
            try:
                with ray_cluster.watched(stop):
                    _fit(admitter, env, agreed, run_folder)
            finally:
                over.set()
                syncing.join(timeout=5)
        finally:
            witness.remove()


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
        members: cluster.Members | None = None,
        board: Any = None,
        watch: Watch | None = None,
        gauges: Gauges | None = None,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.handler = handler
        self.ledger = ledger
        self.progress = progress
        self.stop = stop
        self.store = store
        self.members = members
        self.board = board
        self.watch = watch or Watch(progress.note)
        self.gauges = gauges
        self.use_gpus = False
        """Whether jobs ask for GPUs: there are some, there were, or they are expected."""
        self.trials: dict[str, Job] = {}
        self.begun: set[str] = set()
        """Trials that have a worker."""
        self.shapes: dict[str, Shape] = {}
        """Released job -> what was asked of Ray for it."""
        self.released_at: dict[str, float] = {}
        self.placed_at: dict[str, float] = {}
        """Released job -> when it got a place in our books: until then it waits for others of the sweep."""
        self._freed: Shape | None = None
        self.deaths: dict[str, list[str]] = defaultdict(list)
        """Key -> nodes of the workers that died while computing it; "" where none is known."""
        self.ahead: set[str] = set()
        """Released without a free place: they wait in Ray for an actor of their shape."""
        self.awaited: set[str] = set()
        """Released for nodes that are to come."""
        self._attended = self._shown = 0.0
        self._now = time.monotonic()
        """Of the question that is answered."""
        self._follow()

    def shape(self, job: Job) -> Shape:
        """CPUs and share of a GPU that are asked of Ray."""
        return job.asks(self.use_gpus)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Nothing is optimised."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next job for a trial, None for "nothing now", FINISHED at the end."""
        self._now = time.monotonic()
        self._attend()
        if self.stop.is_set():
            return str(Searcher.FINISHED)
        self.handler.release_deferred()
        while True:
            job = next_job(self.schedule, self.ledger, self.use_gpus, self._admissible, self._rank)
            if job is None:
                over = self.schedule.over and not self.handler.waiting
                return str(Searcher.FINISHED) if over else None
            if not all(self.store.has(stage.key) for stage in job.stages):
                break
            # Another driver has finished it meanwhile.
            self.handler.settle(job, Outcome(done=[stage.key for stage in job.stages]))
        shape = self.shapes[job.name] = self.shape(job)
        slot = self.ledger.fit(shape, self._end(job))
        if slot is not None:
            self._place(job.name, slot)
        elif self._is_awaited(shape):
            self.awaited.add(job.name)
        else:
            self.ahead.add(job.name)
        self.trials[trial_id] = job
        self.released_at[job.name] = time.time()
        self.progress.started(job)
        cpus, gpu = shape
        left_out = sorted(self.members.refused) if self.members is not None else []
        spec = json.dumps(job.spec() | {"gpu": gpu})
        return {"job": job.name, "cpus": cpus, "gpu": gpu, "left_out": left_out, "spec": spec}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take a job's outcome; a trial that ended without one died."""
        self.begun.discard(trial_id)
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

    def _attend(self) -> None:
        """See what became of the cluster, and what waits for it."""
        now = time.monotonic()
        if now - self._attended < ATTEND_SECONDS:
            return
        self._attended = now
        self._follow()
        if self.gauges is not None and now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self.gauges.show(self.progress.counts(), self.ledger, self.progress.eta())
        if self.members is None:
            return
        waiting = [
            Waiting(
                queued.job.label,
                self.shapes[queued.job.name],
                now - max(queued.since, self.placed_at.get(queued.job.name, 0.0)),
            )
            for queued in self.progress.jobs("queued")
            if queued.job.name in self.shapes and queued.job.name not in self.ahead
        ]
        self.watch.tell(waiting, self.ledger, cluster.free)
        idle = self.shapes.keys() <= self.awaited and not self.handler.waiting
        shapes = {*self.shapes.values(), *map(self.shape, self.schedule.heads())} if idle else ()
        if problem := self.watch.given_up(shapes, self.ledger, self.members.refused, now):
            self.handler.environment = self.handler.environment or problem
            self.stop.set()

    def _follow(self) -> None:
        """Take the nodes as they are now into the books, and jobs where their workers are."""
        if self.members is not None and self.members.nodes != tuple(self.ledger.nodes.values()):
            self.ledger.follow(self.members.nodes)
        self.use_gpus = self.use_gpus or self.ledger.gpus > 0 or self.watch.gpus_expected > 0
        cores = sum(node.cpus for node in self.ledger.nodes.values())
        self.schedule.places = max(1.0, self.ledger.gpus if self.use_gpus else cores)
        self.handler.ladder.widest = max((node.cpus for node in self.ledger.nodes.values()), default=float("inf"))
        for running in self.progress.jobs("running"):
            name = running.job.name
            if running.node in self.ledger.nodes and name in self.shapes:
                self.ledger.place(name, running.node, self.shapes[name])
                self.ahead.discard(name)
                self.awaited.discard(name)
        self._give_places()

    def _give_places(self) -> None:
        """Book those that wait, as far as there is room."""
        for waiting in (self.awaited, self.ahead):
            for name in sorted(waiting, key=self.released_at.__getitem__):
                slot = self.ledger.fit(self.shapes[name])
                if slot is not None:
                    self._place(name, slot)
                    waiting.discard(name)

    def _place(self, name: str, slot: Slot) -> None:
        self.ledger.take(name, slot)
        self.placed_at[name] = time.monotonic()

    def _admissible(self, job: Job) -> bool:
        shape = self.shape(job)
        waiting = self.ahead | self.awaited
        if self.ledger.fit(shape, self._end(job)) is not None and all(self.shapes[name] != shape for name in waiting):
            return True
        if len(waiting) >= MOST_WAITING:
            return False
        if self._is_awaited(shape):
            return True
        # A place that runs empty for another shape would be taken again by what waits in Ray.
        kept = self.ledger.kept is not None and self.ledger.kept[0] != shape
        return not kept and len(self.ahead) < LOOK_AHEAD and shape in self._running_shapes()

    def _end(self, job: Job) -> float:
        """When a job that starts now is expected to have ended."""
        return self._now + self.schedule.seconds(job)

    def _is_awaited(self, shape: Shape) -> bool:
        """Whether a job of this shape is to wait for nodes that are to come."""
        waiting = [self.shapes[name] for name in self.awaited]
        share = shape[1]
        if share > 0 and share + sum(each[1] for each in waiting) <= self.watch.gpus_expected - self.ledger.gpus:
            return True
        return not self.ledger.ever_fits(shape) and waiting.count(shape) < LOOK_AHEAD

    def _rank(self, job: Job) -> int:
        """0 for the shape of the worker that has just become free, 1 for shapes that run, 2 for new ones."""
        if self.shape(job) == self._freed:
            return 0
        return 1 if self.shape(job) in self._running_shapes() else 2

    def _running_shapes(self) -> set[Shape]:
        return {(slot.cpus, slot.share) for slot in self.ledger.taken.values()}

    def _free(self, job: Job) -> None:
        self._freed = self.shapes.pop(job.name)
        self.placed_at.pop(job.name, None)
        self.ahead.discard(job.name)
        self.awaited.discard(job.name)
        self.ledger.release(job.name)
        self._give_places()

    def _post_mortem(self, job: Job) -> Outcome:
        """The worker died, or ended itself after a failure: the store says how far it came."""
        outcome = Outcome(interrupted=self.stop.is_set())
        for stage in job.stages:
            if self.store.has(stage.key):
                outcome.done.append(stage.key)
                continue
            failure = self.store.failure(stage.key)
            if failure is not None and failure.get("at", 0.0) >= self.released_at[job.name]:
                outcome.failed[stage.key] = failure["cause"]
                outcome.kinds[stage.key] = failure.get("cause_kind", ERROR)
            elif not outcome.interrupted:
                self._died_at(stage, job, outcome)
            break
        return outcome

    def _died_at(self, stage: Stage, job: Job, outcome: Outcome) -> None:
        """A stage without a word of its own: once may be bad luck, and its checkpoint is still there."""
        worker = self._worker_of(job)
        node = worker.get("node", "")
        if self._has_refused(node):
            outcome.busy[stage.key] = ""
            return
        if self._is_gone(node):  # says nothing of the stage
            self.progress.note(f"the worker of {stage.label} went with its node; the job is tried again")
            outcome.busy[stage.key] = ""
            return
        # A node is missed some seconds after its workers: a death may turn out to have been its node's.
        stay = [at for at in self.deaths[stage.key] if not self._is_gone(at)]
        self.handler.forgive(stage.key, len(self.deaths[stage.key]) - len(stay))
        self.deaths[stage.key] = [*stay, node]
        kind, cause = cluster.cause_of_death(worker)
        cause = f"its worker died: {cause}"
        record = {**stage.spec(), "cpus": job.cpus, "gpu": job.gpu, "cause": cause, "traceback": ""}
        self.store.record_failure(stage.key, {**record, "cause_kind": kind})
        outcome.failed[stage.key], outcome.kinds[stage.key] = cause, kind

    def _is_gone(self, node: str) -> bool:
        return self.members is not None and self.members.is_gone(node)

    def _has_refused(self, node: str) -> bool:
        """Whether the worker ended because its node may not take jobs."""
        return self.members is not None and self.members.has_refused(node)

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
        self._board = ray.get_actor(cluster.BOARD)
        self._worker = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
        given = WorkerEnv(**json.loads(config["env"]))
        if problem := cluster.judged(self._board, Agreement(**json.loads(config["agreed"])), given):
            self._tick(config["job"], {})
            raise EnvironmentProblem(problem)
        self._env = on_this_node(given)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The actor takes the next job."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the job to its end."""
        job = json.loads(self.config["spec"])
        cluster.say_what_runs(job["label"])
        with between_jobs():
            outcome = run_job(job, self._env, self._tick)
        if outcome.spent:  # the searcher reads the failure from the store
            raise RuntimeError(next(iter(outcome.failed.values())))
        return {"outcome": json.dumps(asdict(outcome)), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: stages checkpoint into the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _tick(self, job: str, progress: dict[str, Any] | None) -> bool:
        posted = {**progress, **self._worker} if progress is not None else None
        return bool(ray.get(self._board.tick.remote(job, posted), timeout=10))


class Beginnings(tune.Callback):
    """Tells the searcher which trials have a worker."""

    def __init__(self, admitter: Admitter) -> None:
        self.admitter = admitter

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.admitter.begun.add(trial.trial_id)


class NothingBegins(tune.Stopper):
    """Ends trials that wait in Ray once a stop was asked for and those that had begun have ended: what they wait for
    may never come."""

    def __init__(self, admitter: Admitter) -> None:
        self.admitter = admitter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.admitter.stop.is_set() and not self.admitter.begun


def _fit(admitter: Admitter, env: WorkerEnv, agreed: Agreement, run_folder: Path) -> None:
    """Hand over to Tune until the searcher says that it has finished."""
    run_folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # our summary tells what failed

    def request(config: dict[str, Any]) -> PlacementGroupFactory:
        bundle = {"CPU": float(config.get("cpus", 1.0))}
        if config.get("gpu"):
            bundle["GPU"] = float(config["gpu"])
        if left_out := config.get("left_out"):
            elsewhere = {NODE_LABEL: f"!in({', '.join(left_out)})"}
            return PlacementGroupFactory([bundle], bundle_label_selector=[elsewhere])
        return PlacementGroupFactory([bundle])

    tuner = tune.Tuner(
        tune.with_resources(JobTrial, request),
        param_space={"env": json.dumps(asdict(env)), "agreed": json.dumps(asdict(agreed))},
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
            stop=NothingBegins(admitter),
            callbacks=[Beginnings(admitter)],
        ),
    )
    tuner.fit()


def _agreement(schedule: Schedule, env: WorkerEnv, witness: Witness, joined: bool) -> Agreement:
    """What nodes must share with us. A Ray that was started here runs this checkout, even if somebody commits to it
    meanwhile, and reads our data: only the store is to be seen."""
    found = {}
    for job in schedule.jobs.values() if joined else ():
        for stage in job.stages:
            if (dataset := getattr(stage.config, "dataset", None)) is not None:
                found[dataset.name] = dataset
    agreed = agreement(env, witness, found.values())
    return agreed if joined else replace(agreed, commit=None)


def _refuse_impossible(schedule: Schedule, members: cluster.Members, gpus_expected: int, *, waits: bool) -> None:
    """A job that no node can ever hold would wait for ever; say so before anything starts."""
    nodes = members.nodes
    if members.refused and not nodes:
        raise EnvironmentProblem("no node of the cluster may take jobs; what they lack is said above.")
    if waits or (members.joined and not nodes):
        return
    with_gpus = gpus_expected > 0 or any(node.gpus for node in nodes)
    problems = []
    for job in schedule.jobs.values():
        shape = (job.cpus, job.gpu if with_gpus else 0.0)
        if shape[1] > 0 and gpus_expected > sum(node.gpus for node in nodes):
            continue
        if not any(node.holds(shape) for node in nodes):
            growing = ", or wait for one that joins with --wait-for-nodes" if members.joined else ""
            problems.append(
                f"resources: {job.label} asks for {asked(shape)}; got nodes with {_told(nodes)}. "
                f"Lower resources: in the sweep, or use a larger machine{growing}."
            )
    if problems:
        raise RequestError(list(dict.fromkeys(problems))[:20])


def _told(nodes: tuple[Node, ...]) -> str:
    return ", ".join(dict.fromkeys(f"{node.cpus:g} CPUs and {node.gpus} GPUs" for node in nodes))


def _sync(
    board: Any,
    members: cluster.Members,
    progress: Progress,
    stop: threading.Event,
    over: threading.Event,
    ray_cluster: cluster.Cluster,
) -> None:
    """Carry progress from the board to the display, the stop from the signal handler to the board, and nodes that come
    and go to the searcher."""
    looked = time.monotonic()
    while not over.is_set():
        try:
            progress.update(ray.get(board.look.remote(stop.is_set()), timeout=10))
            if time.monotonic() - looked > cluster.POLL_SECONDS:
                members.poll()
                looked = time.monotonic()
            ray_cluster.answered()
        except Exception as error:
            if over.is_set():
                return
            log.debug("the board did not answer: %s", error)
        over.wait(SYNC_SECONDS)
