"""Which teachers there are: networks trained on the real images that label the images of a set. No torch.

A teacher's name is ``teacher``, then what differs from it: the training protocol it follows, epochs, the temperature
its labels are read at, and ``online`` where it labels every batch anew instead of each image once, in this order
(``teacher-dsa1000-e50-t4-online``). What ``teacher`` alone is, Qin et al.
publish: a network of the student's architecture, trained at a constant rate and stopped early, the earlier the fewer
the images that it is to label (NeurIPS 2024, Table 7; sunnytqin/no-distillation at commit d63c4c6).
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainables.configs import TeacherConfig
from trainables.protocols import PROTOCOLS

ONLINE = "online"
PROTOCOL = "qin_teacher"
"""Of ``teacher`` alone."""
_OTHERS = [name for name in PROTOCOLS if name != PROTOCOL]
SEED = 1_000_000_000
"""Of the training of a point's own teacher; no repeat of a sweep has it, and so none begins with the teacher's
weights. Teachers of shadows have those after it."""
_STEPS_AN_EPOCH = math.ceil(50_000 / PROTOCOLS[PROTOCOL].recipe.batch)
"""Of CIFAR-10 and CIFAR-100, on which the epochs below were counted."""


@dataclass(frozen=True)
class Stop:
    """What Qin et al. found best on test images: the rate of a data set's teacher, and when it was stopped."""

    lr: float
    epochs: dict[int, int]
    """Images per class that it labels -> epochs. At 1, 10, 50, 100 the teachers had test accuracies of 56.0, 65.1, 74.9
    and 76.5 % on CIFAR-10, of 33.1, 47.6, 52.7 and 52.7 % on CIFAR-100."""


STOPS: dict[str, Stop] = {
    "cifar10": Stop(5e-4, {1: 20, 10: 44, 50: 128, 100: 164}),
    "cifar100": Stop(1e-2, {1: 13, 10: 36, 50: 125, 100: 125}),
}
"""By known data set. Others, for which nobody published any, take those of CIFAR-10."""


@dataclass(frozen=True)
class Teacher:
    """What a name says."""

    protocol: str = PROTOCOL
    epochs: int | None = None
    """None: as long as the protocol says; of ``teacher`` alone as ``STOPS`` says."""
    temperature: float = 1.0
    """That its logits and the student's are divided by."""
    online: bool = False
    """Whether it labels the images of every step as they are then, augmented and mixed."""

    @property
    def name(self) -> str:
        """The one spelling."""
        options = [
            *([self.protocol] if self.protocol != PROTOCOL else []),
            *([f"e{self.epochs}"] if self.epochs is not None else []),
            *([f"t{self.temperature:g}"] if self.temperature != 1 else []),
            *([ONLINE] if self.online else []),
        ]
        return "-".join(["teacher", *options])

    @property
    def config(self) -> TeacherConfig:
        """What the student's stage has to know of it."""
        return TeacherConfig(temperature=self.temperature, online=self.online)

    def changes(self, dataset: str, ipc: int) -> dict[str, Any]:
        """What its training has instead of the protocol's values.

        Published epochs are counted in steps, so that they mean as much training on a small origin as on the whole of
        CIFAR; between published numbers of images per class the nearest holds, by ratio.

        Args:
            dataset: Known data set whose constants apply.
            ipc: Images per class that it labels.
        """
        if self.protocol != PROTOCOL:
            return {} if self.epochs is None else {"epochs": self.epochs}
        stop = STOPS.get(dataset, STOPS["cifar10"])
        if self.epochs is not None:
            return {"lr": stop.lr, "epochs": self.epochs}
        nearest = min(stop.epochs, key=lambda known: (abs(math.log(known / ipc)), known))
        return {"lr": stop.lr, "steps": stop.epochs[nearest] * _STEPS_AN_EPOCH}


@cache
def parse(name: str) -> Teacher:
    """What a teacher's name says.

    Raises:
        ValueError: It is none, or not its one spelling. The message names the nearest that is.
    """
    first, *rest = name.split("-")
    if first != "teacher":
        raise ValueError(
            f"unknown labels {name[:80]!r}; known: null (the set's own, hard ones), teacher, and teacher with a "
            f"protocol, epochs, a temperature and online, as teacher-dsa1000-e50-t4.{_suggest(first, ['teacher'], '')}"
        )
    given: dict[str, Any] = {}
    for option in rest:
        kind, value = _option(option, name)
        if kind in given:
            raise ValueError(f"labels {name[:80]!r} have two options for the {kind}; expected one. Remove one.")
        given[kind] = value
    teacher = Teacher(**given)
    if teacher.epochs is not None and PROTOCOLS[teacher.protocol].recipe.epochs is None:
        raise ValueError(
            f"labels {name[:80]!r}: protocol {teacher.protocol} is counted in steps; expected none of epochs. Drop "
            f"e{teacher.epochs}."
        )
    if teacher.name != name:
        raise ValueError(
            f"{name[:80]!r} is not how these labels are written; expected {teacher.name!r} (protocol, epochs, "
            f"temperature, online, without what teacher has anyway). Write {teacher.name!r}."
        )
    return teacher


def name_pattern() -> str:
    """A regular expression of all names, for editors."""
    temperature = r"(?!1$)(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?)"
    return f"^teacher(-({'|'.join(_OTHERS)}))?(-e[1-9][0-9]{{0,5}})?(-t{temperature})?(-{ONLINE})?$"


def _option(text: str, name: str) -> tuple[str, Any]:
    if text in PROTOCOLS:
        return "protocol", text
    if text == ONLINE:
        return "online", True
    if numbered := re.fullmatch(r"e([1-9][0-9]{0,5})", text):
        return "epochs", int(numbered[1])
    if (numbered := re.fullmatch(r"t([0-9]{1,6}(?:\.[0-9]{1,6})?)", text)) and float(numbered[1]) > 0:
        return "temperature", float(numbered[1])
    raise ValueError(
        f"unknown option {text[:80]!r} of labels {name[:80]!r}; expected a protocol ({', '.join(_OTHERS)}), epochs "
        f"(e50), a temperature above 0 (t4) or online.{_suggest(text, [*_OTHERS, ONLINE], 'teacher-')}"
    )


def _suggest(text: str, names: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(text, names, n=1)
    return f" Did you mean {prefix + near[0]!r}?" if near else ""
