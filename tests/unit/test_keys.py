"""Keys: some are pinned, and what changes one is exactly what can change a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace import Workspace

from ddray.plan.keys import SHORT, canonical, digest, short, stage_key
from trainables.attacks import MEMBERSHIP_ATTACKS
from trainables.configs import (
    AccuracyConfig,
    AttackConfig,
    Config,
    DatasetConfig,
    DistillConfig,
    EmbeddingConfig,
    EnsembleConfig,
    NetworkConfig,
    OriginConfig,
    PrivacyConfig,
    RecipeConfig,
    RobustnessConfig,
    SignalsConfig,
    TrainConfig,
    TsneConfig,
)

SWEEP = """
ddray: 1
datasets:
  digits32: {like: digits, resize: 32}
defaults:
  axes: {architecture: [convnet3], seed: [0], distill_seed: [0]}
grids:
  digits_random:
    axes: {method: [random], dataset: [digits], ipc: [1]}
    protocol: quick
  digits_dm:
    axes: {method: [dm], dataset: [digits], ipc: [10], init: [noise, real], distill_seed: [0, 1]}
    settings: {dm: {iterations: 100, batch_real: 64}}
    protocol: quick
  digits_full:
    axes: {method: [full], dataset: [digits]}
    protocol: quick
    train: {steps: 100}
  cifar10_random:
    axes: {method: [random], dataset: [cifar10], ipc: [10]}
    protocol: dc300
  cifar10_dm:
    axes: {method: [dm], dataset: [cifar10], ipc: [1, 50]}
    protocol: dsa1000
  cifar10_origin:
    axes: {method: [dm], dataset: [cifar10], ipc: [10], origin_per_class: [40], origin_draw: [2],
           num_classes: [2], class_draw: [1], seed: [3]}
    settings: {dm: {lr_img: 10, norm: batch, width: 64}}
    protocol: paper2023
  digits_resized:
    axes: {method: [random], dataset: [digits32], ipc: [1]}
    protocol: idc
"""


class Golden(NamedTuple):
    """A stage of the sweep above."""

    kind: Any
    grid: str
    axes: dict[str, Any]
    key: str


GOLDEN = (
    # random on the digits, 1 image per class
    Golden("distill", "digits_random", {}, "7780490fe1aeee7bb6eb7707657b0519e1e3c02292949e381a5e2e1a60bf025d"),
    # its training, recipe quick
    Golden("train", "digits_random", {}, "e880590a09d243e1fa4cdf14a68661d5d18541183284117291bc1540430a1f87"),
    # and that model"s accuracy
    Golden("accuracy", "digits_random", {}, "e26f05f55f932b693b29a114e1cf8c58f4b6f4925730e3a0309fec5b9b813241"),
    # DM on the digits, ipc 10, 100 iterations, from real images
    Golden(
        "distill",
        "digits_dm",
        {"init": "real", "distill_seed": 0},
        "1323e91413f398792927ba9219faa68e9859ed3af96e6979a3c2a30583901cce",
    ),
    # the same from noise
    Golden(
        "distill",
        "digits_dm",
        {"init": "noise", "distill_seed": 0},
        "ff61f41c8e29ab284b5ad2bf6c9376748a75fed765123ee08f24ab8fe3569af5",
    ),
    # the same from real images, another distill_seed
    Golden(
        "distill",
        "digits_dm",
        {"init": "real", "distill_seed": 1},
        "c4877f9abe60672a68a89024835e99057eb531c6f2e98f744f9426b8572064e9",
    ),
    # training on the first of them
    Golden(
        "train",
        "digits_dm",
        {"init": "real", "distill_seed": 0},
        "18ba694a55a46627c45feb60368fab98ca1df3f5bae605589246985d1d84bdcd",
    ),
    # the whole digits, 100 steps
    Golden("train", "digits_full", {}, "c12b34896b5f55e48a2a23001111317a2a023711c6d550bbcd1ae74a8d1f16bd"),
    # and that model"s accuracy
    Golden("accuracy", "digits_full", {}, "f7ebb8a09c6380fa3101760af59353b4c29d371b140f57556ef3c21dd4ba3e4f"),
    # random on CIFAR-10, 10 images per class
    Golden("distill", "cifar10_random", {}, "2580619bff608e5e638f56714a7d939062ecb8369d5b6db5b56eab0792ca60f2"),
    # its training, recipe dc300
    Golden("train", "cifar10_random", {}, "c98e9525da098390d5262ee07a2a713c0072bb97249119aa8f33ff1609469f25"),
    # DM on CIFAR-10 as published, ipc 1
    Golden("distill", "cifar10_dm", {"ipc": 1}, "d4e8006779c90ea85f0a2638b81113cdee568646a19ae9da88515b2215455471"),
    # ipc 50
    Golden("distill", "cifar10_dm", {"ipc": 50}, "dbeadb214e6c0871fdee46003f8d45e9e82eca6ac3ada2c8edd8cec935c1c3a8"),
    # training on it, recipe dsa1000
    Golden("train", "cifar10_dm", {"ipc": 50}, "6ee87651df1b8d419b9ba497277ec7fb41303f34ce84f0f074f26dfe5aba1667"),
    # DM of a draw of 40 images of 2 classes, batch norm, width 64, lr_img 10
    Golden("distill", "cifar10_origin", {}, "56289e75182f0ddc0e4a800067550aa100302a3e72ba4ba5da5493a70e7a8228"),
    # training on it, recipe paper2023, seed 3
    Golden("train", "cifar10_origin", {}, "08dc72f8486a0f87393c59e58aa52eae612fda13b6a74f0219ae051c6fb2f923"),
    # random on the digits at 32 pixels
    Golden("distill", "digits_resized", {}, "caf2b7dcb0ca610af91b107ec926c96ad1ecdc5f24e4658212e8e97460fb799d"),
    # its training, recipe idc
    Golden("train", "digits_resized", {}, "dd6b0a98ce67b590f0ac10b3520b97cdfff5a0a3e4b8ec073493dd0e3e18bab6"),
)
"""If one of these changes, finished work of every user is computed again: CHANGELOG.md has to say so under
*Invalidates*, and somebody has to have meant it."""


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Planned without any data at hand: digests of known data sets are pinned."""
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDRAY_HOME", str(folder))
        for name in ("DDRAY_STORE", "DDRAY_DATA", "DDRAY_CACHE"):
            patch.delenv(name, raising=False)
        workspace = Workspace(folder)
        return workspace.prepare(workspace.write("golden", SWEEP)).plan.chains


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden.kind}-{golden.grid}-{golden.key[:6]}")
def test_golden_keys(chains: Any, golden: Golden) -> None:
    found = {
        chain.stage(golden.kind).key
        for chain in chains
        if chain.point.grids == (golden.grid,)
        and all(getattr(chain.point, axis) == value for axis, value in golden.axes.items())
    }
    assert found == {golden.key}


def test_no_two_stages_share_a_key(chains: Any) -> None:
    stages = {id(stage): stage for chain in chains for stage in chain.stages}
    assert len({stage.key for stage in stages.values()}) == len(stages)
    assert all(len(stage.key) == 64 for stage in stages.values())
    assert short(GOLDEN[0].key) == GOLDEN[0].key[:SHORT]


# --- what a key covers --------------------------------------------------------------------------------------------

DATASET = DatasetConfig(
    name="mine",
    base="digits",
    folder="here",
    resize=8,
    digest="sha256:0",
    num_classes=10,
    image_size=8,
    channels=1,
    mean=(0.3,),
    std=(0.4,),
    flip=False,
)
DRAW = OriginConfig(kind="draw", per_class=4, draw=0, classes=(0, 1, 2))
NETWORK = NetworkConfig(
    architecture="convnet3", norm="instance", width=128, depth=3, image_size=8, channels=1, num_classes=3
)
RECIPE = RecipeConfig(
    epochs=10, lr=0.01, momentum=0.9, weight_decay=5e-4, milestones=(0.5,), gamma=0.1, batch=256, augmentation="dsa"
)
SIGNALS = SignalsConfig(population=5, reserve=7)
BASES: dict[type[Config], Config] = {
    DatasetConfig: DATASET,
    OriginConfig: DRAW,
    NetworkConfig: NETWORK,
    RecipeConfig: RECIPE,
    DistillConfig: DistillConfig(
        method="dm",
        method_version=1,
        dataset=DATASET,
        origin=DRAW,
        ipc=1,
        init="real",
        augmentation="dsa",
        network=NETWORK,
        settings={"iterations": 10, "lr_img": 1.0},
        distill_seed=0,
    ),
    TrainConfig: TrainConfig(dataset=DATASET, origin=DRAW, on_origin=False, network=NETWORK, recipe=RECIPE, seed=0),
    EnsembleConfig: EnsembleConfig(
        base=TrainConfig(dataset=DATASET, origin=DRAW, on_origin=False, network=NETWORK, recipe=RECIPE, seed=0),
        seeds=(0, 1),
    ),
    AccuracyConfig: AccuracyConfig(num_classes=3),
    SignalsConfig: SIGNALS,
    AttackConfig: AttackConfig(
        attack="deepfool_l2", dataset=DATASET, classes=(0, 1, 2), images=30, epsilons=(0.1, 0.5), settings={"steps": 50}
    ),
    RobustnessConfig: RobustnessConfig(num_classes=3, attacks=("deepfool_l2",)),
    PrivacyConfig: PrivacyConfig(
        dataset=DATASET,
        origin=DRAW,
        method="dm",
        ipc=1,
        init="real",
        audit=("seed",),
        rows=6,
        targets=3,
        shadows=2,
        attacks=("loss",),
        canaries=0,
        signals=SIGNALS,
        start=True,
    ),
    EmbeddingConfig: EmbeddingConfig(dataset=DATASET, classes=(0, 1, 2), real_per_class=50, neighbours=10),
    TsneConfig: TsneConfig(dataset=DATASET, classes=(0, 1, 2), real_per_class=50, sources=("dm",), perplexity=30.0),
}

COUNTS = st.integers(1, 10**6)
SEEDS = st.integers(0, 2**31)
NUMBERS = st.floats(1e-6, 0.999)
WORDS = st.text("abcdefghij:-", min_size=1, max_size=8)
LABELS = st.sets(st.integers(0, 99), min_size=2).map(lambda found: tuple(sorted(found)))


def _with(field: str, values: st.SearchStrategy[Any], **together: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Other values of a field, with what has to change with it."""
    return values.map(lambda value: {field: value, **together})


def _part(field: str, base: Config) -> st.SearchStrategy[dict[str, Any]]:
    """A field that holds a configuration: every change of that one."""
    return changes(type(base)).map(lambda change: {field: {**base.model_dump(), **change}})


FIELDS: dict[type[Config], dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    DatasetConfig: {
        "name": _with("name", WORDS),
        "base": _with("base", WORDS),
        "folder": _with("folder", st.none() | WORDS),
        "resize": _with("resize", st.none() | st.integers(4, 256)),
        "digest": _with("digest", WORDS),
        "num_classes": _with("num_classes", st.integers(2, 1000)),
        "image_size": _with("image_size", st.integers(4, 256)),
        "channels": _with("channels", st.just(3)),
        "mean": _with("mean", st.tuples(NUMBERS)),
        "std": _with("std", st.tuples(NUMBERS)),
        "flip": _with("flip", st.just(True)),
    },
    OriginConfig: {
        "kind": _with("kind", st.just("full"), per_class=None, draw=None),
        "per_class": _with("per_class", COUNTS),
        "draw": _with("draw", SEEDS),
        "row": _with("row", SEEDS, kind="pool") | _with("row", SEEDS, kind="coin"),
        "block": _with("block", st.none() | COUNTS),
        "canaries": _with("canaries", COUNTS, kind="pool", row=0),
        "classes": _with("classes", LABELS),
        "indices": _with("indices", LABELS, kind="listed", per_class=None, draw=None),
    },
    NetworkConfig: {
        "architecture": _with("architecture", st.sampled_from(["resnet18", "vgg16"])),
        "norm": _with("norm", st.sampled_from(["batch", "layer", "group", "none"])),
        "width": _with("width", COUNTS),
        "depth": _with("depth", COUNTS),
        "image_size": _with("image_size", COUNTS),
        "channels": _with("channels", st.just(3)),
        "num_classes": _with("num_classes", st.integers(2, 1000)),
    },
    RecipeConfig: {
        "epochs": _with("epochs", COUNTS),
        "steps": _with("steps", COUNTS, epochs=None),
        "lr": _with("lr", NUMBERS),
        "momentum": _with("momentum", NUMBERS),
        "weight_decay": _with("weight_decay", NUMBERS),
        "milestones": _with("milestones", st.lists(NUMBERS, max_size=3).map(tuple)),
        "gamma": _with("gamma", NUMBERS),
        "batch": _with("batch", COUNTS),
        "augmentation": _with("augmentation", st.sampled_from(["idc", "none"])),
        "crop_area": _with("crop_area", NUMBERS),
        "cutmix": _with("cutmix", NUMBERS),
        "optimiser": _with("optimiser", st.just("adamw")),
        "decay_on": _with("decay_on", st.just("matrices")),
        "schedule": _with("schedule", st.sampled_from(["cosine", "half_cosine"]), milestones=()),
        "warmup": _with("warmup", COUNTS),
        "mixup": _with("mixup", NUMBERS, cutmix=0.0),
        "learned_lr": _with("learned_lr", st.sampled_from(["always", "never"])),
        "ensemble": _with("ensemble", st.just(True)),
        "label_loss": _with("label_loss", st.sampled_from(["kl", "mse", "l2"])),
        "temperature": _with("temperature", NUMBERS),
        "scaled": _with("scaled", st.just(True)),
        "private": _with("private", NUMBERS.map(lambda found: {"epsilon": found}), cutmix=0.0),
    },
    AccuracyConfig: {
        "num_classes": _with("num_classes", st.integers(2, 1000)),
        "dataset": _with("dataset", st.sampled_from([None, DATASET.model_dump()])),
    },
    SignalsConfig: {"population": _with("population", SEEDS), "reserve": _with("reserve", SEEDS)},
    RobustnessConfig: {
        "num_classes": _with("num_classes", st.integers(2, 1000)),
        "attacks": _with("attacks", st.sampled_from([("fgsm",), ("fgsm", "deepfool_l2")])),
    },
}


def changes(model: type[Config]) -> st.SearchStrategy[dict[str, Any]]:
    """Any change of one field."""
    return st.sampled_from(sorted(FIELDS[model])).flatmap(lambda field: FIELDS[model][field])


FIELDS[DistillConfig] = {
    "method": _with("method", WORDS),
    "method_version": _with("method_version", COUNTS),
    "dataset": _part("dataset", DATASET),
    "origin": _part("origin", DRAW),
    "ipc": _with("ipc", COUNTS),
    "init": _with("init", st.sampled_from([None, "noise"])),
    "augmentation": _with("augmentation", st.sampled_from([None, "none"])),
    "network": _with("network", st.none()) | _part("network", NETWORK),
    "settings": _with("settings", st.dictionaries(WORDS, NUMBERS | COUNTS | st.none() | st.booleans())),
    "distill_seed": _with("distill_seed", SEEDS),
}
FIELDS[TrainConfig] = {
    "dataset": _part("dataset", DATASET),
    "origin": _part("origin", DRAW),
    "network": _part("network", NETWORK),
    # Noise is for a training on the origin itself.
    "recipe": _part("recipe", RECIPE).map(lambda found: {**found, "on_origin": bool(found["recipe"].get("private"))}),
    "on_origin": _with("on_origin", st.just(True)),
    "seed": _with("seed", SEEDS),
    "curve_points": _with("curve_points", SEEDS),
    "curve_images": _with("curve_images", COUNTS),
    "signals": _with("signals", st.none()) | _part("signals", SIGNALS),
    "ensemble": _with("ensemble", st.sets(SEEDS, min_size=1).map(lambda found: tuple(sorted({0, *found})))),
    "teacher": _with("teacher", st.none() | NUMBERS.map(lambda found: {"temperature": found})),
}
FIELDS[EnsembleConfig] = {
    "base": st.sampled_from(sorted(set(FIELDS[TrainConfig]) - {"seed", "ensemble"})).flatmap(
        lambda field: FIELDS[TrainConfig][field].map(
            lambda change: {"base": {**BASES[EnsembleConfig].base.model_dump(), **change}}  # type: ignore[attr-defined]
        )
    ),
    "seeds": _with("seeds", st.sets(SEEDS).map(lambda found: tuple(sorted({0, *found})))),
}
_IMAGES = {"dataset": _part("dataset", DATASET), "classes": _with("classes", LABELS)}
FIELDS[AttackConfig] = {
    **_IMAGES,
    "attack": _with("attack", st.sampled_from(["fgsm", "cw_l2"])),
    "images": _with("images", COUNTS),
    "epsilons": _with("epsilons", st.lists(NUMBERS, max_size=3).map(tuple)),
    "settings": _with("settings", st.dictionaries(WORDS, NUMBERS | COUNTS)),
}
FIELDS[PrivacyConfig] = {
    "dataset": _part("dataset", DATASET),
    "origin": _part("origin", DRAW),
    "method": _with("method", WORDS),
    "ipc": _with("ipc", st.none() | COUNTS),
    "init": _with("init", st.sampled_from([None, "noise"])),
    "audit": _with("audit", st.sampled_from([("pool",), ("seed", "pool"), ("one_run",)])),
    "unfit": _with("unfit", st.dictionaries(st.just("pool"), WORDS)),
    "rows": _with("rows", SEEDS),
    "targets": _with("targets", COUNTS),
    "shadows": _with("shadows", SEEDS),
    "attacks": _with("attacks", st.sampled_from([tuple(MEMBERSHIP_ATTACKS), ("conf", "loss")])),
    "canaries": _with("canaries", SEEDS),
    "signals": _part("signals", SIGNALS),
    "start": _with("start", st.just(False)),
    "teacher": _with("teacher", st.none() | NUMBERS.map(lambda found: {"temperature": found})),
}
FIELDS[EmbeddingConfig] = {
    **_IMAGES,
    "real_per_class": _with("real_per_class", st.integers(10, 999)),
    "neighbours": _with("neighbours", COUNTS),
}
FIELDS[TsneConfig] = {
    **_IMAGES,
    "real_per_class": _with("real_per_class", st.integers(10, 999)),
    "perplexity": _with("perplexity", NUMBERS),
    "sources": _with("sources", st.lists(WORDS, max_size=3).map(tuple)),
}


def key_of(config: Config) -> str:
    return stage_key("train", 1, config.key_material(), {})


def inside(config: Config) -> Any:
    """The configuration without what stands outside the key, by another way than the key's own."""
    values = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name not in config.outside_key and not (name in config.neutral and config.neutral[name] == value):
            values[name] = inside(value) if isinstance(value, Config) else value
    return values


@pytest.mark.parametrize("model", BASES, ids=lambda model: model.__name__)
def test_every_field_is_tried(model: type[Config]) -> None:
    assert set(FIELDS[model]) == set(model.model_fields)


@pytest.mark.parametrize("model", BASES, ids=lambda model: model.__name__)
@given(data=st.data())
def test_a_key_changes_with_what_can_change_the_result_and_with_nothing_else(
    model: type[Config], data: st.DataObject
) -> None:
    base = BASES[model]
    other = model.model_validate({**base.model_dump(), **data.draw(changes(model))})
    assert (key_of(other) == key_of(base)) == (inside(other) == inside(base))


@given(
    where=st.fixed_dictionaries(
        {
            "name": WORDS,
            "base": WORDS,
            "folder": st.none() | WORDS,
            "resize": st.none() | st.integers(4, 256),
        }
    )
)
def test_where_data_lie_is_outside_the_key(where: dict[str, Any]) -> None:
    assert set(where) == set(DatasetConfig.outside_key)
    other = {**DATASET.model_dump(), **where}
    for model in (DistillConfig, TrainConfig):
        base = BASES[model]
        assert key_of(model.model_validate({**base.model_dump(), "dataset": other})) == key_of(base)


class Later(AccuracyConfig):
    """A configuration that got a field after keys of its kind were in use."""

    neutral: ClassVar[dict[str, Any]] = {**AccuracyConfig.neutral, "bins": 10}

    bins: int = 10


@given(bins=st.integers(0, 100))
def test_a_field_added_later_leaves_finished_work_its_address(bins: int) -> None:
    before, after = AccuracyConfig(num_classes=3), Later(num_classes=3, bins=bins)
    assert (key_of(after) == key_of(before)) == (bins == 10)
    assert ("bins" in after.key_material()) == (bins != 10)


HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
PARTS = st.tuples(
    st.sampled_from(["distill", "train", "accuracy"]),
    st.integers(1, 9),
    st.dictionaries(WORDS, st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["set", "model"]), HEX),
)


@given(one=PARTS, two=PARTS)
def test_kind_version_configuration_and_inputs_are_all_covered(one: Any, two: Any) -> None:
    assert (stage_key(*one) == stage_key(*two)) == (one == two)
    for position, value in enumerate(two):
        changed = (*one[:position], value, *one[position + 1 :])
        assert (stage_key(*changed) == stage_key(*one)) == (value == one[position])


@pytest.mark.parametrize("model", BASES, ids=lambda model: model.__name__)
def test_the_text_that_is_made_once_is_the_canonical_one(model: type[Config]) -> None:
    config = BASES[model]
    assert config.key_json == canonical(config.key_material())
    assert stage_key("train", 1, config.key_json, {}) == stage_key("train", 1, config.key_material(), {})


# --- canonical JSON -----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def reordered(value: Any) -> Any:
    """The same value with every mapping in the opposite order."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_canonical_json_depends_on_the_value_alone(value: Any) -> None:
    assert canonical(reordered(value)) == canonical(value)
    assert json.loads(canonical(value)) == value, "so that different values have different texts"
    assert digest(reordered(value)) == digest(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [1, -float("inf")]}])
def test_what_has_no_json_form_has_no_key(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical(value)


def test_numbers_written_differently_give_one_key(tmp_path: Path) -> None:
    """``lr_img: 10`` and ``lr_img: 1.0e+1`` ask for the same work."""
    workspace = Workspace(tmp_path)
    text = """
ddray: 1
defaults: {{protocol: quick, axes: {{dataset: [digits], method: [dm], ipc: [1]}}}}
grids: {{g: {{axes: {{}}, settings: {{dm: {{lr_img: {number}}}}}, train: {{lr: {rate}}}}}}}
"""
    plans = [
        workspace.prepare(workspace.write(name, text.format(number=number, rate=rate))).plan
        for name, number, rate in (("one", "10", "1"), ("two", "10.0", "1.0"), ("three", "1.0e+1", "1.0e+0"))
    ]
    assert set(plans[0].stages) == set(plans[1].stages) == set(plans[2].stages)
    assert len({plan.chains[0].point.hash for plan in plans}) == 1
