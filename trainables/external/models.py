"""Networks that were trained elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from trainables.configs import DatasetConfig, NetworkConfig, OriginConfig, SignalsConfig
from trainables.context import Context
from trainables.data.origins import QueriedImages, load_test
from trainables.external.content import SHOWN, check_finite, read, shape_of
from trainables.models.network import build, num_parameters
from trainables.payloads import Outputs, TrainedModel
from trainables.train import outputs_on, predict

STATES = ("state_dict", "model_state_dict", "model", "net", "network")
"""Names under which others keep the parameters of a network."""
_RENAMED = {
    "resnet18": (
        (r"^conv1\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^layer([1-4])\.", lambda match: f"stages.{int(match[1]) - 1}."),
        (r"\.shortcut\.", ".downsample."),
        (r"^(fc|linear)\.", "classifier."),
    ),
}
"""Published names that are not ours: torchvision's and the DC family's. Their ConvNet and VGG have ours."""


def read_state(path: Path, network: NetworkConfig) -> dict[str, Tensor]:
    """A network's parameters under our names, of our shapes.

    The published ConvNet's names (``features.N.*``, ``classifier.*``; DC networks.py) are ours. Of ResNet18,
    torchvision's and the DC family's are translated. A prefix ``module.`` and an outer dictionary are taken off.

    Raises:
        ValueError: The file cannot be read, or holds another network.
    """
    where = str(path)
    content = read(path)
    if isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = [content[name] for name in STATES if isinstance(content.get(name), Mapping)]
        content = inner[0] if len(inner) == 1 else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"{where}: not a state dict; got {shape_of(content)}; expected parameters by name. Write it with "
            "torch.save(model.state_dict(), ...)."
        )
    given = {_our_name(str(name), network.architecture): value.detach() for name, value in content.items()}
    if len(given) < len(content):
        raise ValueError(
            f"{where}: parameters have two names; got {len(content)} tensors for {len(given)} parameters; expected "
            "each once. Write the state dict of one network."
        )
    wanted = build(network, "external").state_dict()
    for name in wanted:  # of batch norm; counts batches, which nothing reads, and old files lack it
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, wanted[name])
    _check_names(given, wanted, network, where)
    state = {name: given[name].to(wanted[name].dtype).contiguous() for name in wanted}
    check_finite(state, where)
    return state


def _our_name(name: str, architecture: str) -> str:
    name = name.removeprefix("module.")
    for pattern, ours in _RENAMED.get(architecture, ()):
        name = re.sub(pattern, ours, name)
    return name


def _check_names(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: NetworkConfig, where: str) -> None:
    lacking = [name for name in wanted if name not in given]
    strange = [name for name in given if name not in wanted]
    other = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    differences = [
        f"{what} {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for what, names in (("no", lacking), ("unknown", strange), ("shapes", other))
        if names
    ]
    if differences:
        name = network.variant.name
        raise ValueError(
            f"{where}: parameters are not those of {name} for images of {network.image_size} pixels, "
            f"{network.channels} channels and {network.num_classes} classes; got {'; '.join(differences)}; expected "
            f"{len(wanted)} tensors from {next(iter(wanted))} to {list(wanted)[-1]}.{_guess(given, network)}"
        )
    whole = [name for name in wanted if wanted[name].is_floating_point() and not given[name].is_floating_point()]
    if whole:
        raise ValueError(
            f"{where}: parameters are not floating point; got {whole[0]} of {given[whole[0]].dtype}; expected 16, 32 "
            "or 64 bits. Write the parameters that the network computes with."
        )


def _guess(given: Mapping[str, Tensor], network: NetworkConfig) -> str:
    """Which ConvNet a file seems to hold, in words; what is evaluated is what the user says."""
    kernels = [value for name, value in given.items() if name.startswith("features.") and value.ndim == 4]
    if network.architecture != "convnet3" or not kernels:
        return " Check --architecture and --dataset."
    return (
        f" The file has {len(kernels)} convolutions with {len(kernels[0])} filters: try --architecture "
        f"convnet3-d{len(kernels)}-w{len(kernels[0])}, without what is the default."
    )


def trained_model(
    state: dict[str, Tensor],
    network: NetworkConfig,
    dataset: DatasetConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    members: OriginConfig | None,
    classes: tuple[int, ...],
    context: Context,
) -> TrainedModel:
    """The payload of a network trained elsewhere: its outputs on all test images, and on its members if they are
    known (split ``origin``).

    Args:
        state: From ``read_state``.
        mean: Per channel, of images in [0, 1]: what it expects its input to be normalised with.
        std: Likewise.
        members: Training images that it was trained on.
        classes: The data set's own label numbers, ascending: its outputs.
    """
    built = build(network, "external", device=context.device)
    built.load_state_dict(state)
    built.eval()
    as_expected = dataset.model_copy(update={"mean": mean, "std": std})
    test = load_test(as_expected, classes, context.data, context.cache, context.device)
    outputs = {"test": Outputs(predict(built, test.images).cpu(), test.labels.cpu(), test.ids.cpu())}
    if members is not None:
        queries = QueriedImages(as_expected, members, SignalsConfig(), context.data, context.cache, context.device)
        outputs |= outputs_on(built, queries, poll=context.poll)
    info = {"num_parameters": num_parameters(built)}
    return TrainedModel(state, network, mean, std, outputs, info)
