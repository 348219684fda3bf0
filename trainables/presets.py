"""Published settings by (method, data set, images per class), each value with its source. No torch.

What a sweep does not set comes from here, then from the settings model's own defaults. A combination without a
published value takes the nearest one and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_LOOPS = "VICO-UoE/DatasetCondensation utils.py (get_loops)"
_DM_CODE = "VICO-UoE/DatasetCondensation readme.md (DM commands)"


@dataclass(frozen=True)
class Preset:
    """One value a paper or its code gives for some combinations."""

    method: str
    setting: str
    value: Any
    source: str
    datasets: tuple[str, ...] = ()
    """Empty: any data set."""
    ipcs: tuple[int, ...] = ()
    """Empty: any number of images per class."""


@dataclass(frozen=True)
class Chosen:
    """The value taken for one setting and why."""

    setting: str
    value: Any
    source: str
    exact: bool
    """False: no published value for this combination; the nearest one is used."""


PRESETS: tuple[Preset, ...] = (
    Preset("dm", "lr_img", 1.0, _DM_CODE, ("cifar10",), (1, 10, 50)),
    Preset("dm", "lr_img", 10.0, _DM_CODE, ("cifar10",), (100, 200, 500, 1000, 1250)),
    Preset("dm", "lr_img", 1.0, _DM_CODE, ("cifar100",), (1, 10, 50, 100, 125)),
    Preset("dm", "iterations", 20_000, "VICO-UoE/DatasetCondensation main_DM.py (default; its loop runs one more)"),
    Preset("dm", "batch_real", 256, "VICO-UoE/DatasetCondensation main_DM.py (default)"),
    Preset("dm", "momentum_img", 0.5, "VICO-UoE/DatasetCondensation main_DM.py"),
    *(
        Preset(method, "loops", loops, source, ipcs=(ipc,))
        for method in ("dsa", "dc")
        for ipc, loops, source in (
            (1, (1, 1), _LOOPS),
            (10, (10, 50), _LOOPS),
            (20, (20, 25), _LOOPS),
            (30, (30, 20), _LOOPS),
            (40, (40, 15), _LOOPS),
            (50, (50, 10), _LOOPS),
            (100, (50, 10), "VICO-UoE/DatasetCondensation issue #2 (the authors' words; also (100, 2))"),
        )
    ),
    *(
        Preset(method, setting, value, f"VICO-UoE/DatasetCondensation main.py ({what})")
        for method in ("dsa", "dc")
        for setting, value, what in (
            ("iterations", 1000, "default; its loop runs one more"),
            ("lr_img", 0.1, "default"),
            ("momentum_img", 0.5, "image optimiser"),
            ("lr_net", 0.01, "default"),
            ("batch_real", 256, "default"),
            ("batch_train", 256, "default"),
            ("distance", "ours", "default"),
        )
    ),
)


def choose(method: str, dataset: str, ipc: int | None) -> list[Chosen]:
    """The preset of every setting that has one.

    Nearest means: same data set before any other (CIFAR-10 stands in for data sets without published values), then
    the IPC with the smallest ratio, the smaller one at a tie.

    Args:
        method: A method's name.
        dataset: A known data set's name (``like`` for declared folders).
        ipc: Images per class, or None where the method has none.
    """
    chosen = []
    for setting in dict.fromkeys(preset.setting for preset in PRESETS if preset.method == method):
        candidates = [preset for preset in PRESETS if (preset.method, preset.setting) == (method, setting)]
        at = [preset for preset in candidates if not preset.datasets or dataset in preset.datasets]
        pool = at or [preset for preset in candidates if "cifar10" in preset.datasets] or candidates
        best, distance, published = min(
            ((preset, *_distance(preset, ipc)) for preset in pool), key=lambda entry: entry[1:]
        )
        exact = bool(at) and distance == 1.0
        source = best.source
        if not exact:
            where = "" if not best.ipcs else f" at ipc {published}"
            source += f" for {'/'.join(best.datasets)}{where}; none published for {dataset} ipc {ipc}"
        chosen.append(Chosen(setting, best.value, source, exact))
    return chosen


def _distance(preset: Preset, ipc: int | None) -> tuple[float, int]:
    """(ratio to the nearest published ipc, that ipc); ratio 1 is a hit."""
    if not preset.ipcs or ipc is None:
        return 1.0, 0
    return min((max(ipc, other) / min(ipc, other), other) for other in preset.ipcs)
