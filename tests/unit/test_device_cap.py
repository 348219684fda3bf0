"""A share of a card becomes a limit on this process's memory: Ray's fractions alone are bookkeeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from workspace import Workspace, stages

from ddray.plan.jobs import make_job
from ddray.plan.shares import CONTEXT_MIB
from ddray.run.board import Board
from ddray.run.local import run_one
from ddray.run.stage import WorkerEnv
from trainables import device


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A machine that has a card, as far as torch's own functions say; collects the limits it is given."""
    given: list[float] = []
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "set_per_process_memory_fraction": lambda fraction, device=None: given.append(fraction),
        "reset_peak_memory_stats": lambda *_: None,
        "max_memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "get_device_name": lambda *_: "a card",
        "get_device_properties": lambda *_: SimpleNamespace(total_memory=32 * 2**30),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return given


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.125])
def test_the_share_is_the_limit(limits: list[float], share: float) -> None:
    device.prepare("cuda", 1, share)
    assert limits == [share]
    device.reset()
    assert limits == [share, 1.0], "the next job in this process starts without it"


def test_what_the_driver_takes_of_a_share_is_left_to_it(limits: list[float]) -> None:
    device.prepare("cuda", 1, 0.25, beside_mib=1024)
    device.prepare("cuda", 1, 1 / 64, beside_mib=1024)
    assert limits == [0.25 - 1 / 32, 1 / 128], "of a share that is no larger, half is left to tensors"


def test_no_share_is_no_limit(limits: list[float]) -> None:
    device.prepare("cuda", 1, None)
    assert limits == [1.0]
    device.prepare("cpu", 1, None)
    assert limits == [1.0], "on a CPU nothing is capped"
    device.reset()


@pytest.mark.parametrize("share, expected", [(0.25, [0.25 - CONTEXT_MIB / (32 * 1024)]), (0.0, [])])
def test_a_job_caps_itself_at_what_it_was_given(
    workspace: Workspace, limits: list[float], share: float, expected: list[float]
) -> None:
    """With a share the stage itself fails, for there is no card; without one it stays on the CPU, uncapped."""
    stage = stages(workspace.prepare(workspace.tiny(resources=f"{{distill: {{gpu: {share}}}}}")), "distill")[0]
    assert stage.share == share
    folders = workspace.folders
    env = WorkerEnv(folders.store, str(folders.data), str(folders.cache), {})
    job = make_job([stage], 1)
    outcome = run_one(job, env, Board(), threading.Event())
    assert limits[:1] == expected
    assert (outcome.done == [stage.key]) == (not expected)
