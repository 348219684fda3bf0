"""Bringing a file into the store: read, checked, and committed as the artifact of a finished stage."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddray.errors import EnvironmentProblem, RequestError
from ddray.external.evaluation import Evaluation, FileContent
from ddray.external.planning import subject_of
from ddray.plan.datasets import DatasetInfo
from ddray.plan.imported import Imported
from ddray.run.context import StageContext
from ddray.run.stage import code_state, versions
from ddray.settings import Folders
from ddray.store.artifacts import Store
from ddray.store.manifest import Manifest
from trainables.configs import DatasetConfig, ExternalConfig, NetworkConfig, OriginConfig
from trainables.data.layout import DataMissing
from trainables.networks import parse

if TYPE_CHECKING:
    from trainables.payloads import DistilledSet, TrainedModel


def bring_in(evaluation: Evaluation, info: DatasetInfo, store: Store, folders: Folders) -> FileContent:
    """Read an evaluation's files and put what they hold into the store, unless it is there.

    Args:
        evaluation: Checked.
        info: Of its data set, decoded.
        store: Where the artifact goes.
        folders: Where the data are.

    Returns:
        What the files say that the request does not.

    Raises:
        RequestError: A file cannot be read, or does not hold what the request says.
        EnvironmentProblem: The data set is not there.
    """
    sys.stderr.write(f"reading {evaluation.file}\n")
    try:
        members = _members(evaluation, info.config, folders)
        if evaluation.kind == "set":
            payload = _read_set(evaluation, info.config, members, folders)
            content = _content_of(payload, evaluation, members)
            return _commit(subject_of(evaluation.with_content(content), info), payload, content, store, {})
        content = FileContent(ipc=None, members=members)
        subject = subject_of(evaluation.with_content(content), info)
        model, said = _read_model(Path(evaluation.file), subject, store, folders)
        return _commit(subject, model, content, store, said)
    except DataMissing as error:
        raise EnvironmentProblem(str(error)) from error
    except ValueError as error:
        raise RequestError(str(error)) from error


def _content_of(payload: DistilledSet, evaluation: Evaluation, members: OriginConfig | None) -> FileContent:
    """What the files of a set say. Classes may hold different numbers of images, one at least."""
    counts = payload.labels.classes.bincount(minlength=len(evaluation.classes))
    fewest, most = int(counts.min()), int(counts.max())
    ipc = len(payload.labels) // len(evaluation.classes)
    if fewest == most:
        return FileContent(ipc=ipc, members=members)
    sys.stderr.write(
        f"{evaluation.file}: classes hold different numbers of images, {fewest} to {most}; tables say ipc={ipc}, their "
        "mean rounded down\n"
    )
    return FileContent(ipc=ipc, members=members, fewest=fewest, most=most)


def _read_set(
    evaluation: Evaluation, dataset: DatasetConfig, members: OriginConfig | None, folders: Folders
) -> DistilledSet:
    from trainables.data.origins import load_origin
    from trainables.data.pixels import fit_whitening
    from trainables.external.sets import Soft, read_rate, read_set

    assert evaluation.space is not None
    labels: Any = evaluation.labels
    if "labels" in evaluation.sha256:
        labels = Path(labels)
    soft = whitening = None
    if evaluation.label_form is not None:
        assert evaluation.label_source is not None
        classes: Any = evaluation.image_classes
        if "image-classes" in evaluation.sha256:
            classes = Path(classes)
        soft = Soft(evaluation.label_form, evaluation.temperature, evaluation.label_source, classes)
    if evaluation.space == "whitened":
        everything = OriginConfig(classes=evaluation.classes)
        if members not in (None, everything):
            raise ValueError(
                f"{evaluation.members}: members of a whitened set; got some of the training images; expected all: the "
                "whitening is theirs. Take the set back to pixels where it was made, or leave --members out."
            )
        origin = load_origin(dataset, everything, folders.data, folders.cache, "cpu")
        whitening = fit_whitening(origin.images, dataset.mean, dataset.std)
    payload = read_set(
        Path(evaluation.file),
        dataset,
        evaluation.classes,
        space=evaluation.space,
        mean=evaluation.mean,
        std=evaluation.std,
        factor=evaluation.factor,
        labels=labels,
        nth=evaluation.nth,
        soft=soft,
        whitening=whitening,
        unwhiten=evaluation.unwhiten,
    )
    if evaluation.learned_for is None:
        return payload
    network = NetworkConfig.of(
        parse(evaluation.learned_for),
        image_size=dataset.image_size,
        channels=dataset.channels,
        num_classes=len(evaluation.classes),
    )
    file = evaluation.learned_rate_file
    rate = evaluation.learned_lr if file is None else read_rate(Path(file))
    learned = {"learned_lr": rate, "network": network.model_dump(mode="json")}
    return dataclasses.replace(payload, info={**payload.info, **learned})


def _read_model(file: Path, subject: Imported, store: Store, folders: Folders) -> tuple[TrainedModel, dict[str, Any]]:
    """The model with what it says of its images, and where that was computed."""
    import torch

    from trainables import device as devices
    from trainables.external.models import read_state, trained_model

    config = subject.config
    assert isinstance(config, ExternalConfig)
    state = read_state(file, config.network)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    devices.prepare(device, 1)
    try:
        context = StageContext(
            device=device,
            data=folders.data,
            cache=folders.cache,
            checkpoints=store.checkpoints(subject.stage().lineage),
            budget=None,
            stop=threading.Event(),
            on_progress=lambda _: None,
        )
        model = trained_model(
            state,
            config.network,
            config.dataset,
            config.mean,
            config.std,
            config.origin if config.asked else None,
            subject.classes,
            context,
        )
        return model, {"device": device, "numerics": devices.numerics_class(device)}
    finally:
        devices.reset()


def _members(evaluation: Evaluation, dataset: DatasetConfig, folders: Folders) -> OriginConfig | None:
    if evaluation.members is None:
        return None
    from trainables.data.cache import open_split
    from trainables.external.members import read_members

    labels = open_split(dataset, "train", folders.data, folders.cache).labels
    path = Path(evaluation.members)
    return read_members(path, dataset, evaluation.classes, evaluation.members_order, folders.data, labels)


def _commit(
    subject: Imported, payload: DistilledSet | TrainedModel, content: FileContent, store: Store, said: dict[str, Any]
) -> FileContent:
    stage = subject.stage()
    with store.writing() as folder:
        payload.save(folder)
        # No seconds and no memory: what it took to make is not known, and to read it is not that.
        provenance = {
            **code_state(),
            "versions": versions(),
            "host": socket.gethostname(),
            "imported": True,
            "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **said,
        }
        manifest = Manifest(
            key=stage.key,
            kind=stage.kind,
            version=stage.version,
            label=stage.label,
            config=stage.config.model_dump(mode="json"),
            inputs={},
            files={},
            provenance=provenance,
        )
        store.commit(folder, manifest)
    return content
