"""Networks that were trained elsewhere."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.configs import DatasetConfig, NetworkConfig, OriginConfig, SignalsConfig
from trainables.context import Context
from trainables.data.origins import QueriedImages, load_test
from trainables.external.content import SHOWN, check_finite, read, shape_of
from trainables.models.network import build, num_parameters
from trainables.networks import NETWORKS, Variant, option_problem, size_problem
from trainables.payloads import Outputs, TrainedModel
from trainables.train import outputs_on, predict

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch's own wrappers add, wherever they stand."""
_DEEPEST = 4
"""Dictionaries within dictionaries that are looked into."""
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
    torchvision's and the DC family's are translated. What torch's wrappers and outer modules put before every name is
    taken off, dictionaries are looked into, and a pruned parameter is what its mask leaves.

    Raises:
        ValueError: The file cannot be read, or holds another network, or several.
    """
    where = str(path)
    content = read(path)
    found = dict(_states(content, ()))
    if not found:
        raise ValueError(
            f"{where}: not a state dict; got {shape_of(content)}; expected parameters by name. Write it with "
            "torch.save(model.state_dict(), ...)."
        )
    wanted = build(network, "external").state_dict()
    states = {name: _named(state, network, wanted, where) for name, state in found.items()}
    fitting = [name for name, state in states.items() if state.keys() == wanted.keys()]
    if len(fitting) > 1 and not _equal([states[name] for name in fitting]):
        raise ValueError(
            f"{where}: holds several such networks; got {', '.join(fitting[:SHOWN])}; expected one. Write the one that "
            "is meant: torch.save(content[...], ...)."
        )
    chosen = fitting[0] if fitting else max(states, key=lambda name: _likeness(states[name], wanted))
    given = states[chosen]
    _check_names(given, wanted, network, where, found[chosen])
    state = {name: given[name].to(wanted[name].dtype).contiguous() for name in wanted}
    check_finite(state, where)
    return state


def _states(content: Any, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(where, tensors) of every dictionary that holds tensors by names of layers; what is no tensor is no parameter."""
    if not isinstance(content, Mapping) or len(path) > _DEEPEST:
        return
    tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if all(isinstance(name, str) for name in tensors) and any("." in name for name in tensors):
        yield ".".join(path) or "the file itself", tensors
    for name, value in content.items():
        yield from _states(value, (*path, str(name)))


def _named(
    state: Mapping[str, Tensor], network: NetworkConfig, wanted: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """A state under our names, as far as it can be."""
    bare = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in state}
    bare.pop("n_averaged", None)  # of torch's averaged models
    names = list(bare.values())
    while not _fit(names, network, wanted) and (outer := _common(names)):
        names = [name.removeprefix(outer) for name in names]
    ours = [_our_name(name, network.architecture) for name in names]
    given = {name: state[theirs] for name, theirs in zip(ours, bare, strict=True)}
    if len(given) < len(ours):
        raise ValueError(
            f"{where}: parameters have two names; got {len(ours)} tensors for {len(given)} parameters; expected "
            "each once. Write the state dict of one network."
        )
    for name in [name for name in given if name.endswith("_mask")]:  # torch.nn.utils.prune
        whole = name.removesuffix("_mask")
        if f"{whole}_orig" in given and given[f"{whole}_orig"].shape == given[name].shape:
            given[whole] = given.pop(f"{whole}_orig") * given.pop(name)
    for name in wanted:  # of batch norm; counts batches, which nothing reads, and old files lack it
        if name.endswith("num_batches_tracked") and not given.keys().isdisjoint(wanted):
            given.setdefault(name, wanted[name])
    return given


def _fit(names: Iterable[str], network: NetworkConfig, wanted: Mapping[str, Tensor]) -> bool:
    """Whether any name is one of the network's."""
    return any(_our_name(name, network.architecture) in wanted for name in names)


def _common(names: Sequence[str]) -> str:
    """The first part of all names, with its dot; empty where they differ."""
    outer = {name.partition(".")[0] for name in names}
    return f"{outer.pop()}." if len(outer) == 1 and all("." in name for name in names) else ""


def _equal(states: Sequence[Mapping[str, Tensor]]) -> bool:
    first, *others = states
    return all(
        first[name].shape == other[name].shape and bool((first[name] == other[name]).all())
        for other in others
        for name in first
    )


def _likeness(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int]:
    return len(state.keys() & wanted.keys()), len(state)


def _our_name(name: str, architecture: str) -> str:
    for pattern, ours in _RENAMED.get(architecture, ()):
        name = re.sub(pattern, ours, name)
    return name


def _check_names(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    network: NetworkConfig,
    where: str,
    written: Mapping[str, Tensor],
) -> None:
    """Refuse parameters that are not the network's, with what they are.

    Args:
        given: Under our names.
        wanted: A new network's.
        written: As the file has them.
    """
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
        advice = _advice(written, wanted, network)
        if not (lacking or other):
            advice = "Write the parameters without what is unknown, where the network computes without it."
        raise ValueError(
            f"{where}: parameters are not those of {network.variant.name} for images of {network.image_size} pixels, "
            f"{network.channels} channels and {network.num_classes} classes; got {'; '.join(differences)}; expected "
            f"{len(wanted)} tensors from {next(iter(wanted))} to {list(wanted)[-1]}. {advice}"
        )
    whole = [name for name in wanted if wanted[name].is_floating_point() and not given[name].is_floating_point()]
    if whole:
        raise ValueError(
            f"{where}: parameters are not floating point; got {whole[0]} of {given[whole[0]].dtype}; expected 16, 32 "
            "or 64 bits. Write the parameters that the network computes with."
        )


def _advice(written: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: NetworkConfig) -> str:
    """What a file's parameters seem to be, in words; what is evaluated is what the user says."""
    names = list(written)
    for outer in dict.fromkeys(name[: at + 1] for name in names for at, sign in enumerate(name) if sign == "."):
        below = {_our_name(name.removeprefix(outer), network.architecture) for name in names if name.startswith(outer)}
        if below >= wanted.keys() and len(below) < len(names):
            return f"Those that begin with {outer!r} would be: write them alone."
    fitting = [other.variant.name for other in _others(written, network) if _fits(written, other)]
    if fitting:
        return f"They would fit {', '.join(fitting[:SHOWN])}: try --architecture {fitting[0]}."
    some = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    return (
        f"The file has {len(names)} tensors, {some}, which fit none of {', '.join(NETWORKS)} for such images and "
        "classes. Check --architecture, --dataset and --classes."
    )


def _others(written: Mapping[str, Tensor], network: NetworkConfig) -> Iterator[NetworkConfig]:
    """Every network for the same images that begins with as many filters as the file's first kernel."""
    width = next((len(value) for value in written.values() if value.ndim == 4), 0)
    for base, spec in NETWORKS.items():
        for depth, norm in itertools.product(spec.depths, spec.norms):
            variant = Variant(base, depth, width, norm)
            if not option_problem(variant) and not size_problem(variant, network.image_size, network.channels):
                yield NetworkConfig.of(
                    variant,
                    image_size=network.image_size,
                    channels=network.channels,
                    num_classes=network.num_classes,
                )


def _fits(written: Mapping[str, Tensor], network: NetworkConfig) -> bool:
    """Whether names and shapes are those of a network; no numbers are drawn for it."""
    with torch.device("meta"):
        wanted = build(network, "external", device="meta").state_dict()
    try:
        given = _named(written, network, wanted, "")
    except ValueError:
        return False
    return given.keys() == wanted.keys() and all(given[name].shape == wanted[name].shape for name in wanted)


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
