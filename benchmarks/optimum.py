"""How far from the best order the executors' rule is, where the best can be found: random graphs of at most 8 jobs.

    python -m benchmarks.optimum [--graphs 600] [--seed 0]

A graph has 3 to 8 jobs of 1 to 9 seconds on an eighth, a quarter, a half or a whole card, each of which waits for none,
one or two of those before it; one or two cards. The optimum is exact: branch and bound over all schedules in which no
job could begin earlier, one of which is optimal for the time of the last end.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence

from ddray.plan.graph import Stage
from ddray.plan.jobs import Job, make_job
from ddray.price.devices import CARDS, Machine
from ddray.run.simulate import simulate

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
Placed = dict[int, tuple[float, float, int]]
"""Job -> start, end, card."""


def graph(chance: random.Random) -> tuple[list[Job], int]:
    """Jobs and a number of cards."""
    jobs: list[Job] = []
    for number in range(chance.randint(3, 8)):
        needs = chance.sample(range(number), min(number, chance.choice((0, 0, 1, 2))))
        inputs = tuple((f"input{at}", f"j{need}") for at, need in enumerate(needs))
        name, seconds, share = f"j{number}", float(chance.randint(1, 9)), chance.choice(SHARES)
        stage = Stage(
            key=name, inputs=inputs, lineage=name, budget=None, version=1, label=name, config=None, unavailable=None,
            cpus=1.0, share=share, work=seconds, size=1, kind="train",
        )  # fmt: skip
        jobs.append(make_job([stage], 1))
    return jobs, chance.randint(1, 2)


def optimum(jobs: Sequence[Job], cards: int) -> float:
    """The shortest time in which all jobs can end: exact, by branch and bound."""
    names = {job.stages[0].key: number for number, job in enumerate(jobs)}
    needs = [[names[key] for key in job.needs] for job in jobs]
    tails = [job.work for job in jobs]
    for number in reversed(range(len(jobs))):
        for need in needs[number]:
            tails[need] = max(tails[need], jobs[need].work + tails[number])
    bound = max(*tails, sum(job.work * job.gpu for job in jobs) / cards)
    best, seen = float("inf"), set()

    def starts(number: int, placed: Placed) -> list[tuple[float, int]]:
        """The earliest time at which there is room for a job, and the cards that have it."""
        ready = max((placed[need][1] for need in needs[number]), default=0.0)
        for time in sorted({ready, *(end for _, end, _ in placed.values() if end > ready)}):
            if free := [(time, card) for card in range(cards) if _has_room(jobs, number, placed, time, card)]:
                return free
        raise AssertionError("at the end of all others every card is free")

    def extend(placed: Placed) -> None:
        nonlocal best
        if best <= bound or (state := frozenset(placed.items())) in seen:
            return
        seen.add(state)
        if len(placed) == len(jobs):
            best = min(best, max(end for _, end, _ in placed.values()))
        for number in range(len(jobs)):
            if number not in placed and all(need in placed for need in needs[number]):
                for time, card in starts(number, placed):
                    if time + tails[number] < best:
                        extend({**placed, number: (time, time + jobs[number].work, card)})

    extend({})
    return best


def _has_room(jobs: Sequence[Job], number: int, placed: Placed, time: float, card: int) -> bool:
    """Whether a card has room for a job from a time until it ends."""
    there = [(start, end, jobs[other].gpu) for other, (start, end, at) in placed.items() if at == card]
    begins = [time, *(start for start, _, _ in there if time < start < time + jobs[number].work)]
    return all(
        sum(share for start, end, share in there if start <= moment < end) + jobs[number].gpu <= 1 for moment in begins
    )


def ratios(graphs: int, seed: int) -> list[float]:
    """Time of the rule over that of the best order, ascending."""
    chance, found = random.Random(seed), []
    for _ in range(graphs):
        jobs, cards = graph(chance)
        ours = simulate(jobs, (), Machine(CARDS["v100-32g"], cards), lambda job: job.work).makespan
        found.append(ours / optimum(jobs, cards))
    return sorted(found)


def row(graphs: int = 600, seed: int = 0) -> dict[str, float]:
    """The figures of docs/benchmarks/."""
    found = ratios(graphs, seed)
    return {
        "graphs": graphs,
        "mean": round(statistics.fmean(found), 3),
        "at_most_1.1": round(sum(ratio <= 1.1 + 1e-9 for ratio in found) / graphs, 3),
        "95_percent_below": round(found[int(0.95 * graphs)], 3),
        "largest": round(found[-1], 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(row(options.graphs, options.seed)))
