"""Two commands timed in turn, on one machine, in one run: the only way in which two programs are compared here.

    python -m benchmarks.in_turn [--rounds 7] [--read PATTERN] [--json] FIRST SECOND

FIRST and SECOND are shell commands. A round runs both, and every other round the second one first, so that a machine
that grows slower or warmer favours neither. What is compared is the wall-clock time of the whole command, or, with
``--read``, the number that the pattern's first group finds in its output: ``--read 'seconds ([0-9.]+)'``.

Printed: median and range of each command, the ratio second / first of each round, their geometric mean with an interval
that holds 95 % (Student's t over the logarithms of the rounds' ratios), and the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

from benchmarks.machine import machine


@dataclass(frozen=True)
class Pair:
    """What two commands took, round by round; the same rounds in both."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """second / first."""
        return tuple(second / first for first, second in zip(self.first, self.second, strict=True))

    def ratio(self) -> tuple[float, float, float]:
        """Geometric mean of the ratios, and the ends of its 95 % interval."""
        logs = [math.log(ratio) for ratio in self.ratios]
        middle, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
        half = float(stats.t.ppf(0.975, len(logs) - 1)) * error
        return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def in_turn(first: Callable[[], float], second: Callable[[], float], rounds: int) -> Pair:
    """Take both numbers ``rounds`` times, every other time the second one first."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            taken[which].append((first, second)[which]())
    return Pair(tuple(taken[0]), tuple(taken[1]))


def measured(command: str, pattern: str | None) -> float:
    """Seconds that a shell command takes, or the number it prints.

    Raises:
        SystemExit: The command fails, or prints no such number.
    """
    started = time.perf_counter()
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ran.returncode != 0:
        raise SystemExit(
            f"{command}\nended with {ran.returncode}; expected 0. It said:\n{(ran.stdout + ran.stderr)[-2000:]}"
        )
    if pattern is None:
        return seconds
    found = re.search(pattern, ran.stdout)
    if found is None:
        raise SystemExit(f"{command}\nprinted nothing that matches {pattern!r}; got:\n{ran.stdout[-2000:]}")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="FIRST")
    parser.add_argument("second", metavar="SECOND")
    parser.add_argument("--rounds", type=int, default=7, help="at least 3; one more is run before, and not counted")
    parser.add_argument("--read", metavar="PATTERN", help="compare the number that its first group finds in the output")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error(f"--rounds: got {options.rounds}; expected 3 or more, or no interval can be given")
    commands = [options.first, options.second]
    for command in commands:
        measured(command, options.read)
    pair = in_turn(*(lambda command=command: measured(command, options.read) for command in commands), options.rounds)
    middle, low, high = pair.ratio()
    if options.json:
        facts = {"commands": commands, "first": pair.first, "second": pair.second, "ratio": middle}
        print(json.dumps({**facts, "interval": [low, high], "machine": machine()}))
        return
    for name, command, taken in zip(("first", "second"), commands, (pair.first, pair.second), strict=True):
        print(f"{name:<7} {statistics.median(taken):9.3f}  ({min(taken):.3f} to {max(taken):.3f})  {command}")
    print(f"second / first: {middle:.3f}, 95 % interval {low:.3f} to {high:.3f}, {options.rounds} rounds in turn")
    print(machine())


if __name__ == "__main__":
    sys.exit(main())
