"""The Ray that jobs run on: started here, or a cluster that is joined.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from ddray.errors import EnvironmentProblem
from ddray.run.ledger import Node, nodes_of
from ddray.run.signals import ENDING, StopRequest
from ddray.settings import LONGEST_TEMPORARY

log = logging.getLogger(__name__)

LAST_LINES = 100
NODE_PLACES = ("DDRAY_DATA", "DDRAY_CACHE")
REACH_SECONDS = 5.0
LISTEN_SECONDS = 0.01
"""Ray's own handlers are in force for at most this long while it starts."""
NEEDED = ("raylet", "gcs_server")
"""Ray's processes without which no job goes on; it does without its dashboard and its log monitor."""
SILENT_SECONDS = 45.0
"""After so long without an answer a cluster counts as lost; at 60 Ray itself would abort this process."""
INTERRUPTIONS = 8
"""Of the main thread, one a second, before the process ends without it."""
SHUTDOWN_SECONDS = 20.0


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
    for name in NODE_PLACES:
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


def nodes() -> list[Node]:
    """The nodes that live now."""
    return nodes_of(node["Resources"] for node in ray.nodes() if node["Alive"])


def dashboard() -> str:
    """The dashboard's address, "" where there is none."""
    from ray._private.worker import get_dashboard_url  # Ray has no public name for it

    url = get_dashboard_url()
    if not url:
        return ""
    # Ray guards its own servers with a token, since whoever reaches them can run code.
    guarded = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return f"http://{url}" + (" (it asks for a token: `ray get-auth-token` prints it)" if guarded else "")


def cause_of_death(worker: Mapping[str, Any]) -> str:
    """Why a worker process ended, as far as its log tells.

    Args:
        worker: Its ``pid`` and ``node``; empty when it died before it posted anything.
    """
    if not worker.get("pid"):
        return "it ended before it began"
    from ray.util.state import get_log

    try:
        chunks = get_log(node_id=worker["node"], pid=worker["pid"], suffix="err", tail=LAST_LINES, timeout=5)
        text = "".join(chunks)
    except Exception as error:  # no dashboard, or the node is gone
        log.debug("no log of worker %s: %s", worker["pid"], error)
        return "its node cannot be asked why; it may be gone"
    fatal = re.search(r"^Fatal Python error: (.+)$", text, re.MULTILINE)
    if fatal is None:
        return "killed without a trace in its log, as a system does that runs out of memory (`dmesg` on its node tells)"
    frame = re.search(r'File "([^"]+)", line (\d+) in (\S+)', text[fatal.end() :])
    where = f" in {frame[3]} ({'/'.join(Path(frame[1]).parts[-3:])}:{frame[2]})" if frame else ""
    return f"{fatal[1].lower()}{where}, a fault of native code; `ddray doctor` tells the instruction set and versions"


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
