"""The tiers of ``sweeps/full_grid.yaml`` on eight cards, simulated: ``python -m benchmarks.simulation``.

Beside them, by the same estimates: one job on a card at a time (each then runs as fast as the whole card is assumed to
be), and what the points would take if each computed all its stages alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddray.plan.jobs import Job
from ddray.prepare import prepare
from ddray.price.bill import priced_stages
from ddray.price.devices import CARDS, Machine
from ddray.price.estimates import Prices
from ddray.price.fitting import fit
from ddray.price.measured import Measured
from ddray.request import Request
from ddray.run.simulate import HOUR, Simulation, seconds_of, simulate
from ddray.settings import Folders
from trainables.data.cache import build

SWEEP = Path(__file__).resolve().parent.parent / "sweeps" / "full_grid.yaml"
CARD, COUNT = "v100-32g", 8


def rows() -> list[dict[str, Any]]:
    """A row for each tier."""
    found = []
    with tempfile.TemporaryDirectory(prefix="ddray-bench-") as home:
        for profiles in ((), ("rigorous",)):
            folders = Folders(Path(home), str(Path(home) / "store"), Path(home) / "data", Path(home) / "cache")
            plan = prepare(Request(SWEEP, profiles=profiles), folders, build).plan
            machine, prices = Machine(CARDS[CARD], COUNT), Prices(CARDS[CARD], Measured())
            fit(plan, (), machine, Measured())
            started = time.perf_counter()
            packed = _simulated(plan.jobs, machine, prices)
            took = time.perf_counter() - started
            whole = _simulated([replace(job, gpu=1.0 if job.gpu else 0.0) for job in plan.jobs], machine, prices)
            priced = priced_stages(plan.jobs, prices, {})
            alone = sum(priced[key].hours for chain in plan.chains for key in {each.key for each in chain.all_stages})
            found.append(
                {
                    "name": "simulation",
                    "profile": "".join(profiles) or "default",
                    "machine": str(machine),
                    "jobs": len(plan.jobs),
                    "seconds_to_simulate": round(took, 2),
                    "hours": round(packed.makespan / HOUR, 1),
                    "no_order_is_faster_than": round(packed.lower_bound() / HOUR, 1),
                    "of_bound": round(packed.makespan / packed.lower_bound(), 3),
                    "idle": round(1 - packed.utilisation, 3),
                    "hours_one_job_a_card": round(whole.makespan / HOUR, 1),
                    "card_hours": round(packed.work / HOUR),
                    "card_hours_if_nothing_were_shared": round(alone),
                }
            )
    return found


def _simulated(jobs: list[Job], machine: Machine, prices: Prices) -> Simulation:
    return simulate(jobs, (), machine, seconds_of(jobs, prices, {}))


def main() -> None:
    for row in rows():
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
