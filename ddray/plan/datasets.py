"""The data sets of a sweep as the planner needs them: constants, class sizes, content digest.

The digest is part of every key. It is pinned for data sets we have seen; for others it is known once the decoded
cache exists. Until then planning goes on with a placeholder (nothing of such a data set can be finished), and
``read_all``, which running a sweep asks for, decodes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ddray.errors import EnvironmentProblem, RequestError
from ddray.plan.points import Sweep
from trainables.configs import DatasetConfig
from trainables.data.known import KNOWN
from trainables.data.layout import DataBroken, DataMissing, Index, find_index, known_dataset, resized_digest
from trainables.presets import constants


class Build(Protocol):
    """``trainables.data.cache.build``: handed in, because decoding loads heavy libraries and planning must not."""

    def __call__(
        self,
        base: str,
        folder: str | None,
        resize: int | None,
        data: Path,
        cache: Path,
        *,
        download: bool = False,
        classes: int | None = None,
    ) -> Index: ...


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One data set of a sweep."""

    config: DatasetConfig
    train_per_class: int
    """Images in the smallest training class."""
    test_per_class: int
    read: bool
    """Whether the digest is real: pinned, or known from decoding."""
    decoded: bool
    """Whether the decoded cache exists on this machine."""
    alarm: str | None = None
    """What is wrong with the images: identical ones."""
    constants_given: bool = False
    """Whether the sweep says whose constants normalise the images; else a method's program may."""

    def for_method(self, method: str) -> DatasetInfo:
        """The same with the constants of a method's program, which its sets, experts and networks share."""
        program = constants(method, self.config.base)
        if program is None or self.constants_given:
            return self
        known = KNOWN[program.of]
        return replace(self, config=self.config.model_copy(update={"mean": known.mean, "std": known.std}))


def resolve(
    sweep: Sweep, names: Iterable[str], data: Path, cache: Path, build: Build, *, read: Collection[str] = ()
) -> dict[str, DatasetInfo]:
    """What is known of the named data sets.

    Args:
        sweep: Holds the declared data sets.
        names: The names that points use.
        data: DDRAY_DATA.
        cache: DDRAY_CACHE.
        build: Decodes a data set. Declared folders are decoded at once when they are there, because nothing is known
            of them otherwise.
        read: Decode (and for known data sets download) these if they have not been read yet, and see that what has
            been is still what was read.

    Raises:
        RequestError: A data set is broken: the message names file and row.
        EnvironmentProblem: It is not there; the message says where to put it.
    """
    return {name: _resolve(sweep, name, data, cache, build, name in read) for name in dict.fromkeys(names)}


def _resolve(sweep: Sweep, name: str, data: Path, cache: Path, build: Build, read: bool) -> DatasetInfo:
    declared = sweep.datasets.get(name)
    base = declared.like if declared is not None else name
    folder = declared.folder if declared is not None else None
    resize = declared.resize if declared is not None else None
    classes = declared.classes if declared is not None else None
    known = known_dataset(base, classes)
    normalised = KNOWN[declared.constants] if declared is not None and declared.constants is not None else known
    pinned = known.digest if folder is None else None
    if pinned is not None and resize is not None:
        pinned = resized_digest(pinned, resize)
    try:
        index = find_index(base, folder, resize, data, cache, classes=classes)
        if read or (index is None and folder is not None and (data / folder).is_dir()):
            index = build(base, folder, resize, data, cache, download=read, classes=classes)
    except DataBroken as error:
        raise RequestError([str(error)]) from error
    except DataMissing as error:
        raise EnvironmentProblem(str(error)) from error
    digest = index.digest if index is not None else pinned or f"unread:{name}"
    config = DatasetConfig(
        name=name,
        base=base,
        folder=folder,
        resize=resize,
        digest=digest,
        num_classes=known.num_classes,
        image_size=resize or known.image_size,
        channels=1 if known.channels == 1 else 3,
        mean=normalised.mean,
        std=normalised.std,
        flip=known.flip,
    )
    return DatasetInfo(
        config=config,
        train_per_class=min(index.train_counts) if index is not None else known.train_per_class,
        test_per_class=min(index.test_counts) if index is not None else known.test_per_class,
        read=index is not None or pinned is not None,
        decoded=index is not None,
        alarm=f"{name}: {index.duplicates_told()}" if index is not None and index.duplicates else None,
        constants_given=declared is not None and declared.constants is not None,
    )


def class_sizes(datasets: Mapping[str, DatasetInfo]) -> dict[str, int]:
    """Training images in the smallest class of each data set."""
    return {name: info.train_per_class for name, info in datasets.items()}
