"""What a step takes of a card, found out without one: memory, operators, arithmetic, and how often the host waits.

A step runs on tensors of torch's device ``meta``, which have shapes and types and no numbers: nothing is computed, and
the storages that live at one time are what a card would have to hold. The ways that are taken are the card's
(``matching.PATHS`` and the like).

Not in it: what the driver and the libraries hold, what their kernels need beside inputs and outputs, and what the
allocator rounds up.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from trainables import optimise, train
from trainables.configs import DatasetConfig, DistillConfig, EnsembleConfig, TrainConfig
from trainables.data.origins import Origin, TestSet
from trainables.distill import matching, unroll
from trainables.distill.context import DistillContext
from trainables.evaluate.robustness import network as attacked
from trainables.methods import METHODS
from trainables.models.network import build

STEPS = 2
"""The second is looked at: what is made once is there then, and momentum lives."""
ANSWER = 1.0
"""What a tensor without numbers says when it is asked for one: finite, and true."""
_READS = torch.ops.aten._local_scalar_dense.default
_COPIES = torch.ops.aten._to_copy.default
_COPIES_INTO = torch.ops.aten.copy_.default


@dataclass(frozen=True, slots=True)
class Took:
    """One step."""

    held_mib: float
    """At its fullest, images and all."""
    operators: int
    """Handed to the device, views included."""
    waits: int
    """Times that the host asked for a number, and so waited for the device."""
    gflop: float
    """Of convolutions and matrix products, a multiply-add counted as two. As PyTorch counts them: too many where
    convolutions have groups, as those of several classes or networks at once."""


class Counted(TorchDispatchMode):
    """Counts what happens inside it on one device.

    Args:
        device: ``meta``; or another, to compare with.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.live = 0
        """Bytes of the storages that live, of those that were made inside or passed through."""
        self.peak = self.operators = self.waits = self.flop = 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def restart(self) -> None:
        """Begin to count anew; what lives stays."""
        self.peak, self.operators, self.waits, self.flop = self.live, 0, 0, 0

    def took(self) -> Took:
        """Since the last restart."""
        return Took(self.peak / 2**20, self.operators, self.waits, self.flop / 1e9)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = self._there(args, kwargs)
        if given and function in (_READS, _COPIES, _COPIES_INTO) and self._leaves(function, args, kwargs):
            self.waits += 1
            if given[0].is_meta:
                return _answer(function, args, kwargs)
        found = function(*args, **kwargs)
        made = self._there(found)
        if given or made:
            self.operators += 1
            flop = flop_registry.get(function.overloadpacket)
            self.flop += flop(*args, **kwargs, out_val=found) if flop is not None else 0
            for tensor in (*given, *made):
                self._count(tensor.untyped_storage())
        return found

    def _there(self, *values: Any) -> list[Tensor]:
        """The tensors among values that are on the device."""
        leaves = tree_leaves(values)
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == self.device]

    def _leaves(self, function: Any, args: Any, kwargs: Any) -> bool:
        """Whether numbers go from the device to the host."""
        if function is _COPIES_INTO:
            return bool(args[0].device.type != self.device)
        if function is _COPIES:
            wanted = kwargs.get("device")
            return wanted is not None and torch.device(wanted).type != self.device
        return True

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            size = self._known[storage] = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


def _answer(function: Any, args: Any, kwargs: Any) -> Any:
    """What the host gets of a tensor without numbers."""
    if function is _READS:
        return ANSWER
    if function is _COPIES_INTO:
        return args[0].fill_(ANSWER)
    return torch.full(args[0].shape, ANSWER, dtype=kwargs.get("dtype") or args[0].dtype)


@contextmanager
def as_on_a_card(room: int = 0) -> Iterator[None]:
    """Inside, tensors of the device ``meta`` are handled like those of a card.

    Args:
        room: Bytes that it has to spare (``device.spare_memory``).
    """
    tables: list[dict[str, Any]] = [matching.SIZES, matching.PATHS, optimise.CHUNK, train.EVAL_BATCH, attacked.BATCH]
    with ExitStack() as entered:
        for table in tables:
            entered.enter_context(patch.dict(table, meta=table["cuda"]))
        entered.enter_context(patch.object(unroll, "spare_memory", lambda device: room))
        yield


class _Enough(Exception):
    """The step that is looked at is done."""


class _FewSteps:
    """A context (``trainables.context.Context``) that ends after the step that is looked at."""

    device = "meta"
    data = cache = Path()

    def __init__(self, counted: Counted) -> None:
        self.took: Took | None = None
        self._counted = counted

    def restore(self) -> None:
        return None

    def iterations(self, total: int, *, start: int = 0, save: Any = None, unit: str = "it") -> Iterator[int]:
        for iteration in range(STEPS):
            self._counted.restart()
            yield iteration
        self._end()

    def _end(self) -> NoReturn:
        self.took = self._counted.took()
        raise _Enough

    def poll(self) -> None:
        """Nobody interrupts."""

    def measure(self, **values: float) -> None:
        """Nobody looks."""


def distilling(
    config: DistillConfig, origin_images: int, inputs: Mapping[str, Path] | None = None, room: int = 0
) -> Took:
    """A run of a method's loop.

    Args:
        config: With a budget of two runs or more.
        origin_images: Real images of each class.
        inputs: As of the stage: experts.
        room: As of ``as_on_a_card``.
    """
    counted = Counted()
    context = _FewSteps(counted)
    method = METHODS[config.method]
    settings = method.settings.model_validate(config.settings)
    with as_on_a_card(room), counted, suppress(_Enough):
        origin = _origin(config.dataset, config.origin.classes, origin_images)
        method.load()(origin, settings, DistillContext(config, context, inputs or {}))
    assert context.took is not None, f"{config.method} ended before its {STEPS} runs"
    return context.took


def training(config: TrainConfig | EnsembleConfig, images: int, test_images: int) -> Took:
    """A step of a training, of one network or of several at once; or the look at the test images, if that holds more.

    Args:
        config: With two steps or more.
        images: In all.
        test_images: In all.
    """
    counted = Counted()
    context = _FewSteps(counted)
    base = config.base if isinstance(config, EnsembleConfig) else config
    labels, tested = torch.zeros(images, dtype=torch.int64), torch.zeros(test_images, dtype=torch.int64)
    with as_on_a_card(), counted:
        shown = _images(base.dataset, images)
        test = TestSet(_images(base.dataset, test_images), tested, torch.arange(test_images))
        with suppress(_Enough):
            if isinstance(config, EnsembleConfig):
                train.train_ensemble(config, shown, labels, test, context)
            else:
                train.train(config, shown, labels, test, context)
        assert context.took is not None, f"the training ended before its {STEPS} steps"
        counted.restart()
        train.predict(build(base.network, "looked at", device="meta"), test.images)
    return replace(context.took, held_mib=max(context.took.held_mib, counted.took().held_mib))


def _images(dataset: DatasetConfig, count: int) -> Tensor:
    return torch.empty(count, dataset.channels, dataset.image_size, dataset.image_size, device="meta")


def _origin(dataset: DatasetConfig, classes: tuple[int, ...], each: int) -> Origin:
    labels = torch.arange(len(classes)).repeat_interleave(each)
    by_class = tuple(torch.arange(number * each, (number + 1) * each) for number in range(len(classes)))
    return Origin(_images(dataset, len(labels)), labels.to("meta"), torch.arange(len(labels)), by_class)
