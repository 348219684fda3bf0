"""The Ray that jobs run on: started here, or a cluster that is joined; and its nodes, as they come and go.

Ray lives in a thread of its own from start to end. It gives the process handlers for the signals that we promise to
hear, and its daemons and workers would die of a TERM that a batch system sends to all processes at once, before any
stage had written its checkpoint. A thread that blocks these signals passes that on to everything it starts; and the
thread must last, because Linux ends the daemons together with the thread that started them.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddray.errors import EnvironmentProblem, without_addresses
from ddray.run.board import Board
from ddray.run.causes import HOST_MEMORY, WORKER
from ddray.run.ledger import Node
from ddray.run.nodes import PLACES, Agreement, disagreement, on_this_node
from ddray.run.signals import ENDING, StopRequest
from ddray.run.stage import WorkerEnv
from ddray.settings import LONGEST_TEMPORARY

log = logging.getLogger(__name__)

BOARD = "ddray-board"
LAST_LINES = 100
REACH_SECONDS = 5.0
WHY_SECONDS = 120.0
"""For which a node is asked why a worker of it died."""
LISTEN_SECONDS = 0.01
"""Ray's own handlers are in force for at most this long while it starts."""
NEEDED = ("raylet", "gcs_server")
"""Ray's processes without which no job goes on; it does without its dashboard and its log monitor."""
SILENT_SECONDS = 45.0
"""After so long without an answer a cluster counts as lost; at 60 Ray itself would abort this process."""
INTERRUPTIONS = 8
"""Of the main thread, one a second, before the process ends without it."""
SHUTDOWN_SECONDS = 20.0
ANSWER_SECONDS = 120.0
"""A node that has not said by then whether it may take jobs is left out: a process starts there, nothing more."""
POLL_SECONDS = 2.0
"""Between two looks at the nodes."""
WITNESS_LOOKS = 10
"""How often an answer is looked for in the store: a network file system shows it late."""


class Cluster:
    """A Ray that runs."""

    def __init__(self, own: bool) -> None:
        self.own = own
        """Whether it was started here."""
        self.lost = ""
        """What of it is gone, once that was noticed."""
        self._answered_at = time.monotonic()

    def answered(self) -> None:
        """It has just answered."""
        self._answered_at = time.monotonic()

    def missing(self) -> str:
        """What of it is gone, or ""."""
        if self.own and (dead := [name for name, _ in _dead_processes() if name in NEEDED]):
            return f"Ray's own process {' and '.join(dead)} on this machine ended"
        silent = time.monotonic() - self._answered_at
        return f"Ray has not answered for {silent:.0f} s" if silent > SILENT_SECONDS else ""

    @contextlib.contextmanager
    def watched(self, stop: StopRequest) -> Iterator[None]:
        """End what runs inside, in the main thread, when a part of Ray is gone: Ray itself would wait for minutes.

        Raises:
            EnvironmentProblem: It is gone.
        """
        over = threading.Event()

        def watch() -> None:
            while not self.lost:
                if over.wait(1.0):
                    return
                self.lost = self.missing()
            stop.set()
            for _ in range(INTERRUPTIONS):
                _thread.interrupt_main()
                if over.wait(1.0):
                    return
            # The main thread waits in Ray's own code for what is gone. Nothing is lost with this process.
            os.write(2, f"{self._problem()}\n".encode())
            os._exit(EnvironmentProblem.exit_code)

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            yield
        except KeyboardInterrupt:
            if not self.lost:
                raise
        finally:
            over.set()
            watcher.join()
        if self.lost:
            raise self._problem()

    def _problem(self) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"{self.lost}; what is finished is kept, and checkpoints of the rest. Run the same command again to "
            "continue. If it happens again, look at the memory of the machine (`dmesg`), or run with --local."
        )


@contextlib.contextmanager
def running(
    sweep: str, address: str | None, cpus: int | None, gpus: int | None, stop: StopRequest
) -> Iterator[Cluster]:
    """Ray, from here to the end of the block.

    Args:
        sweep: Its name, shown in the dashboard.
        address: Of a running cluster, or None to start Ray here.
        cpus: CPUs to offer when Ray is started here; None: all.
        gpus: GPUs to offer when Ray is started here; None: those there are.
        stop: Hears the signals before, while and after Ray starts.

    Raises:
        EnvironmentProblem: Ray cannot be started or reached.
    """
    _reach(address)
    for name in PLACES:
        if os.environ.get(name):  # workers started here inherit it, perhaps with another working directory
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    ready, over = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def keep() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            _init(sweep, address, cpus, gpus)
        except BaseException as error:
            problems.append(error)
            ready.set()
            return
        ready.set()
        over.wait()
        ray.shutdown()

    cluster = Cluster(own=address is None)
    keeper = threading.Thread(target=keep, name="ray", daemon=True)
    keeper.start()
    try:
        while not ready.wait(LISTEN_SECONDS):
            stop.listen()
        stop.listen()
        if problems and stop.is_set():  # Ctrl-C reaches Ray's own processes too, and one that starts may end of it
            raise KeyboardInterrupt
        if problems:
            raise _explained(problems[0], address)
        cluster.answered()
        yield cluster
    finally:
        over.set()
        given_up = time.monotonic() + SHUTDOWN_SECONDS
        while keeper.is_alive() and time.monotonic() < given_up:
            keeper.join(LISTEN_SECONDS)
            stop.listen()  # Ray, when it ends, gives the signals back to the system, which would end this process
        if cluster.lost:  # the same shutdown again at the end of this process would wait for what is gone
            atexit.unregister(ray.shutdown)


class Members:
    """The nodes of the cluster that may take jobs, as they join, answer and are gone.

    Args:
        joined: Whether others made the cluster: then each node is asked whether it shares version, store and data with
            us, and counts from its answer on. Ours has this machine alone, and its first worker looks.
        board: Where nodes answer.
        agreed: What they must share.
        env: The driver's folders.
        answered: Whether a node's answer is in the store.
        say: Tells a person.
    """

    def __init__(
        self,
        joined: bool,
        board: Any,
        agreed: Agreement,
        env: WorkerEnv,
        answered: Callable[[str], bool],
        say: Callable[[str], None],
    ) -> None:
        self.joined = joined
        self.nodes: tuple[Node, ...] = ()
        """Those that may take jobs now."""
        self.refused: dict[str, str] = {}
        """Node -> why it may not."""
        self.places: Mapping[str, str] = {}
        """Job -> node on which its worker is."""
        self._board = board
        self._agreed = agreed
        self._env = env
        self._living: tuple[Node, ...] = ()
        self._answered = answered
        self._say = say
        self._asked: dict[str, tuple[Any, float]] = {}
        self._looks: Counter[str] = Counter()
        self._trusted: set[str] = set()
        self._known: dict[str, Node] | None = None
        """Those of the last look, once the first were all there."""

    def first(self, stop: StopRequest) -> None:
        """Wait until every node that lives has answered, or a stop is asked for."""
        self.poll()
        while not (all(self._is_settled(node) for node in self._living) or stop.is_set()):
            time.sleep(POLL_SECONDS / 10)
            self.poll()
        self._known = {node.id: node for node in self.nodes}

    def poll(self) -> None:
        """Look at the cluster: who lives, who has answered, who is to be asked."""
        # A node without CPUs takes no jobs, so that nobody need ask it.
        living = [node for node in map(_node, filter(itemgetter("Alive"), ray.nodes())) if node.cpus > 0]
        names = {node.id: node for node in living}
        for node, problem in ray.get(self._board.judged.remote(), timeout=10).items():
            if node not in self._trusted and node not in self.refused:
                self._hear(names.get(node, Node(node, 0.0, 0)), problem)
        for node in living:
            if not self._is_settled(node):
                self._ask(node)
        self._living = tuple(living)
        self.nodes = tuple(
            node for node in living if node.id not in self.refused and (node.id in self._trusted or not self.joined)
        )
        self._tell()

    def has_refused(self, node: str) -> bool:
        """Whether a node may not take jobs, as far as is known at this moment."""
        return bool(node) and (node in self.refused or bool(ray.get(self._board.judged.remote(), timeout=10).get(node)))

    def is_gone(self, node: str) -> bool:
        """Whether a node was there and is no more."""
        return bool(node) and all(found["NodeID"] != node or not found["Alive"] for found in ray.nodes())

    def _is_settled(self, node: Node) -> bool:
        return not self.joined or node.id in self._trusted or node.id in self.refused

    def _ask(self, node: Node) -> None:
        if node.id not in self._asked:
            here = NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = ray.remote(_look_around).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
            self._asked[node.id] = (task.remote(self._agreed, self._env), time.monotonic())
            return
        answer, asked_at = self._asked[node.id]
        if ray.wait([answer], timeout=0)[0]:
            try:
                ray.get(answer)
            except ray.exceptions.RayTaskError as error:  # no ddray there, or one that cannot answer
                cause = without_addresses(str(error.cause or error)).strip().splitlines()[-1]
                expected = f"ddray {self._agreed.versions.get('ddray', '?')}"
                self._refuse(node, f"It cannot answer; got {cause}; expected {expected}. Install it there.")
            except ray.exceptions.RayError as error:  # the node went away meanwhile, or could not start a process
                log.debug("node %s gave no answer: %s", node, error)
                del self._asked[node.id]
        elif time.monotonic() - asked_at > ANSWER_SECONDS:
            self._refuse(node, f"It has started no process in {ANSWER_SECONDS:.0f} s. Look at it with `ray status`.")

    def _hear(self, node: Node, problem: str) -> None:
        if problem:
            self._refuse(node, problem)
        elif self._answered(node.id):
            self._trusted.add(node.id)
        else:
            self._looks[node.id] += 1
            if self._looks[node.id] >= WITNESS_LOOKS:
                self._refuse(
                    node,
                    f"It writes into another store than the one at {self._env.store} here; got no answer of it there. "
                    "Mount the same folder on all nodes.",
                )

    def _refuse(self, node: Node, problem: str) -> None:
        self.refused[node.id] = problem
        self._say(f"left out: node {node.name or node.id[:8]}. {problem}")

    def _tell(self) -> None:
        """Who has joined and who is gone."""
        if self._known is None:
            return
        now = {node.id: node for node in self.nodes}
        for node in now.keys() - self._known.keys():
            self._say(f"a node has joined: {now[node]}")
        for node in self._known.keys() - now.keys() - self.refused.keys():
            self._say(f"a node is gone: {self._known[node]}; what ran there is tried again")
        self._known = now


def start_board() -> Any:
    """The board as an actor, on the driver's own node.

    It holds only what jobs tell every second: a new one is as good when it is lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_concurrency": 1, "max_restarts": -1, "scheduling_strategy": here}
    return ray.remote(Board).options(name=BOARD, **options).remote()


def judged(board: Any, agreed: Agreement, env: WorkerEnv) -> str:
    """Why the node of this process must not take jobs, "" if it may; who comes first to a node looks, and tells."""
    node = ray.get_runtime_context().get_node_id()
    said: dict[str, str] = ray.get(board.judged.remote(), timeout=10)
    if node not in said:
        said[node] = disagreement(agreed, on_this_node(env), node)
        ray.get(board.judge.remote(node, said[node]), timeout=10)
    return said[node]


def _look_around(agreed: Agreement, env: WorkerEnv) -> None:
    """The task that asks a node."""
    judged(ray.get_actor(BOARD), agreed, env)


def _node(facts: Mapping[str, Any]) -> Node:
    has = facts["Resources"]
    name = str(facts.get("NodeManagerHostname") or facts.get("NodeName") or facts["NodeID"][:8])
    address = facts.get("NodeManagerAddress")
    told = f"{name} ({address}, {facts['NodeID'][:8]})" if address else name
    return Node(facts["NodeID"], float(has.get("CPU", 0.0)), int(has.get("GPU", 0)), told)


def free() -> str:
    """What Ray says is free in the whole cluster."""
    resources = ray.available_resources()
    return f"{resources.get('CPU', 0.0):g} CPUs and {resources.get('GPU', 0.0):g} GPUs"


def dashboard() -> str:
    """The dashboard's address, "" where there is none."""
    from ray._private.worker import get_dashboard_url  # Ray has no public name for it

    url = get_dashboard_url()
    if not url:
        return ""
    # Ray guards its own servers with a token, since whoever reaches them can run code.
    guarded = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return f"http://{url}" + (" (it asks for a token: `ray get-auth-token` prints it)" if guarded else "")


def say_what_runs(label: str) -> None:
    """Put a job's label into the title of the worker that runs it, where the dashboard's list of workers, ``ps`` and
    ``nvidia-smi`` show it. Ray puts its own title back when the job is done."""
    import ray._raylet as raylet  # Ray has no public name for it

    raylet.setproctitle(f"ray::{label}")  # type: ignore[attr-defined]


def cause_of_death(worker: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and words of why a worker process ended, as far as its log tells.

    Args:
        worker: Its ``pid`` and ``node``; empty when it died before it posted anything.
    """
    if not worker.get("pid"):
        return WORKER, "it ended before it began"
    text = _last_words(worker)
    if text is None:
        return WORKER, "its node cannot be asked why; it may be gone"
    fatal = re.search(r"^Fatal Python error: (.+)$", text, re.MULTILINE)
    if fatal is None:
        return (
            HOST_MEMORY,
            "killed without a trace, as a system does that runs out of memory (`dmesg` on its node tells)",
        )
    frame = re.search(r'File "([^"]+)", line (\d+) in (\S+)', text[fatal.end() :])
    where = f" in {frame[3]} ({'/'.join(Path(frame[1]).parts[-3:])}:{frame[2]})" if frame else ""
    return (
        WORKER,
        f"{fatal[1].lower()}{where}, a fault of native code; `ddray doctor` tells the instruction set and versions",
    )


def _last_words(worker: Mapping[str, Any]) -> str | None:
    """The end of a worker's log; None where its node is gone, or does not answer for a while.

    A node that has just started or has much to do may take its time to answer.
    """
    from ray.util.state import get_log

    ours = ray.get_runtime_context().gcs_address  # else that of the Ray that was started last on this machine
    until = time.monotonic() + WHY_SECONDS
    while True:
        try:
            return "".join(
                get_log(
                    address=ours, node_id=worker["node"], pid=worker["pid"], suffix="err", tail=LAST_LINES, timeout=20
                )
            )
        except Exception as error:
            log.debug("no log of worker %s: %s", worker["pid"], error)
        there = any(node["NodeID"] == worker["node"] and node["Alive"] for node in ray.nodes())
        if not there or not dashboard() or time.monotonic() > until:
            return None
        time.sleep(1)


def _dead_processes() -> list[tuple[str, Any]]:
    from ray._private import worker  # Ray has no public name for it

    node = worker._global_node
    return node.dead_processes() if node is not None else []


def _init(sweep: str, address: str | None, cpus: int | None, gpus: int | None) -> None:
    common: dict[str, Any] = {
        "namespace": f"ddray-{sweep}-{time.time_ns()}",
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "job_config": JobConfig(metadata={"ddray.sweep": sweep, "job_name": f"ddray sweep {sweep}"}),
    }
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that it could not take SIGTERM for itself
    if address is not None:
        ray.init(address=address, **common)
    else:
        # "local": a Ray of our own, whatever else runs on the machine or stands in RAY_ADDRESS.
        with _short_temporary_folder():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                object_store_memory=256 * 2**20,
                **common,
            )


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Let Ray's processes inherit a folder whose path leaves room for names of sockets; a batch system's may not."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_TEMPORARY:
        yield
        return
    before = {name: os.environ.get(name) for name in ("TMPDIR", "RAY_TMPDIR")}
    os.environ.update(dict.fromkeys(before, "/tmp"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _explained(error: BaseException, address: str | None) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return error
    text = str(error)
    if address is not None:
        advice = "Check the address with `ray status`, and that ddray and Ray have the same versions on all nodes."
    elif "timed out during startup" in text or "GCS has become overloaded" in text or "Timed out" in text:
        advice = "The machine was too busy to start Ray in time: try again, give fewer --cpus, or run with --local."
    elif "AF_UNIX" in text:
        advice = "Set RAY_TMPDIR to a shorter path, as /tmp, or run with --local."
    else:
        advice = "`ddray doctor` looks for the usual reasons; --local runs in this process without Ray."
    where = f"the cluster at {address} could not be reached" if address else "Ray could not be started on this machine"
    problem = EnvironmentProblem(f"{where}; got {text.strip().splitlines()[-1] if text.strip() else error!r}. {advice}")
    problem.__cause__ = error
    return problem


def _reach(address: str | None) -> None:
    """Try the address ourselves first: Ray waits for minutes for a cluster that is not there.

    Raises:
        EnvironmentProblem: Nobody listens there.
    """
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"--address: no Ray cluster answers; got {address} ({error}); expected `auto` or the HOST:PORT that "
            "`ray start --head` printed. Check it with `ray status`, or leave --address out to start Ray here."
        ) from error
