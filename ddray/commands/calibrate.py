"""`ddray calibrate`: what a sweep's stages take here, from a few steps of each, kept for plan and sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddray.plan.datasets import Build, resolve
from ddray.prepare import Prepared
from ddray.price.devices import cards_here, cores_here, device_here
from ddray.price.fitting import PAYS, least_share
from ddray.price.measured import FILE, measured_in
from ddray.run.calibrate import Calibration, calibrate
from ddray.run.progress import duration
from ddray.settings import Folders
from ddray.store.artifacts import Store


def calibrated(prepared: Prepared, folders: Folders, build: Build, seconds: float) -> dict[str, Any]:
    """Try what nothing is known of, and keep it in the store.

    Args:
        prepared: The sweep.
        folders: Where data and store are.
        build: Decodes a data set.
        seconds: Of each trial.

    Returns:
        ``device``; ``shapes``: ``label``, ``cost_class``, ``seconds`` of the whole stage, ``step_seconds``, ``steps``
        (seen), ``total``, ``peak_mib``; ``company``: processes at once -> their work in that of one; ``served``: the
        same with the driver's multi-process service; ``least_share``: of a card, what jobs then ask for at least;
        ``beside``: what they ran; ``untried``: cost classes; ``failed``: label -> why.
    """
    selected = [chain for chain in prepared.plan.chains if chain.point.hash in prepared.plan.selected]
    names = sorted({chain.point.dataset for chain in selected})
    resolve(prepared.sweep, names, folders.data, folders.cache, build, read=names)
    store = Store(folders.store, folders.cache / "artifacts")
    measured = measured_in(store)
    device = device_here()
    cores = cores_here()
    found = calibrate(prepared.plan, measured, folders, device.measured_as, cores, seconds)
    store.keep_hint(FILE, measured.dumps())
    count = f"{len(cards_here())} of them" if device.is_card else f"{cores} cores"
    return {"is_card": device.is_card, **_facts(found, f"{device.name}, {count}")}


def _facts(found: Calibration, device: str) -> dict[str, Any]:
    return {
        "device": device,
        "shapes": [
            {
                "label": stage.label,
                "cost_class": stage.cost_class,
                "seconds": seen.seconds,
                "step_seconds": seen.step,
                "steps": seen.steps,
                "total": seen.total,
                "peak_mib": seen.peak_mib,
            }
            for stage, seen in found.seen
        ],
        "company": found.company,
        "served": found.served,
        "least_share": least_share(found.company),
        "beside": found.beside.label if found.beside is not None else None,
        "untried": found.untried,
        "failed": {stage.label: why for stage, why in found.failed},
    }


def calibrated_text(facts: Mapping[str, Any]) -> str:
    """For a terminal."""
    return "\n".join(_lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield facts["device"]
    if not facts["shapes"]:
        yield "nothing to try: the store knows what every stage takes here that could be begun at once"
    for shape in facts["shapes"]:
        yield (
            f"  {shape['label']}: {shape['step_seconds']:.3g} s a step, {duration(shape['seconds'])} in all "
            f"({shape['steps']} of {shape['total']} steps seen), peak {shape['peak_mib']:.0f} MiB"
        )
    if facts["company"]:
        told = ", ".join(f"{count} at once {gain:.2f}" for count, gain in facts["company"].items() if int(count) > 1)
        best = max(facts["company"].values())
        verdict = f"company {'pays' if best >= PAYS else 'does not pay'}"
        if facts["is_card"]:
            verdict += f": jobs ask for {facts['least_share']:g} of a card at least"
        if facts["served"]:
            with_service = ", ".join(f"{count} at once {gain:.2f}" for count, gain in facts["served"].items())
            verdict += f"; with the driver's multi-process service (nvidia-cuda-mps-control -d) {with_service}"
        yield f"  work in that of one process ({facts['beside']}): {told}; {verdict}"
    for label, why in facts["failed"].items():
        yield f"  {label}: failed; {why}"
    if facts["untried"]:
        yield f"  not tried, because they need what other stages make: {', '.join(facts['untried'])}"
    if facts["shapes"]:
        yield "kept in the store: ddray plan and ddray sweep go by it"
