"""A sweep as numbers for Prometheus: Ray exports them beside its own, on the node of the driver.

Ray writes the addresses that a Prometheus is to ask into ``prom_metrics_service_discovery.json`` of its temporary
folder. ``docs/grafana.json`` draws these numbers; its test asks for each by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

from ddray.run.ledger import Ledger

PREFIX = "ray_"
"""That Ray puts before every name."""
GAUGES: dict[str, str] = {
    "ddray_jobs": "Jobs by state: waiting (for others or for a place), queued (in Ray, for a worker), running, done, "
    "failed, blocked (by one that failed).",
    "ddray_cards": "Cards of the nodes that take jobs.",
    "ddray_cards_booked": "Shares of cards that jobs have, added up.",
    "ddray_cpus": "CPUs of the nodes that take jobs.",
    "ddray_cpus_booked": "CPUs that jobs have.",
    "ddray_seconds_left": "Until all jobs will have ended, by the speed so far; absent until that is known.",
}
"""Name -> what it says; each is tagged with the sweep."""
STATES = ("queued", "running", "done", "failed", "blocked")


class Gauges:
    """The numbers of one sweep.

    Args:
        sweep: Its name, the tag ``sweep``.
    """

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        self._gauges = {
            name: Gauge(name, text, ("sweep", "state") if name == "ddray_jobs" else ("sweep",))
            for name, text in GAUGES.items()
        }

    def show(self, counts: Mapping[str, int], ledger: Ledger, left: float | None) -> None:
        """Tell how things stand.

        Args:
            counts: ``Progress.counts``.
            ledger: What is booked.
            left: Seconds; None: not known.
        """
        for state in STATES:
            self._set("ddray_jobs", counts[state], state=state)
        self._set("ddray_jobs", counts["total"] - sum(counts[state] for state in STATES), state="waiting")
        nodes, slots = ledger.nodes.values(), ledger.taken.values()
        self._set("ddray_cards", sum(node.gpus for node in nodes))
        self._set("ddray_cards_booked", sum(slot.share for slot in slots))
        self._set("ddray_cpus", sum(node.cpus for node in nodes))
        self._set("ddray_cpus_booked", sum(slot.cpus for slot in slots))
        if left is not None:
            self._set("ddray_seconds_left", left)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(value, {"sweep": self._sweep, **tags})
