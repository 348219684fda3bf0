"""All three networks: their names, their sizes, what they do to images, and what they leave alone."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pages import ROOT, table
from support import tiny_network

from trainables.configs import NetworkConfig, NetworkSettings
from trainables.models.network import Network, build, num_parameters, uses_batch_statistics
from trainables.networks import (
    NETWORKS,
    NORMS,
    Variant,
    name_pattern,
    option_problem,
    parse,
    size_limits,
    size_problem,
    variant_of,
)

TINY = ("convnet3-w4", "resnet18-w4", "vgg16-w4")


def tiny(name: str, size: int = 32, channels: int = 3, num_classes: int = 3) -> NetworkConfig:
    return NetworkConfig.of(parse(name), image_size=size, channels=3 if channels == 3 else 1, num_classes=num_classes)


def images_of(network: NetworkConfig, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, network.channels, network.image_size, network.image_size, generator=generator)


# --- against the published descriptions ---


@pytest.mark.parametrize(
    "name, size, channels, classes, count",
    [
        ("convnet3", 32, 3, 10, 320_010),
        ("convnet3", 32, 3, 100, 504_420),
        ("convnet3", 32, 3, 2, 303_618),
        ("convnet3", 32, 3, 5, 309_765),
        ("convnet3", 28, 1, 10, 317_706),
        ("convnet3-d4", 64, 3, 200, 857_160),
        ("convnet3-batch", 32, 3, 10, 320_010),
        ("convnet3-none", 32, 3, 10, 320_010 - 3 * 256),
        ("resnet18", 32, 3, 10, 11_173_962),
        ("resnet18", 32, 3, 100, 11_220_132),
        ("resnet18", 64, 3, 10, 11_173_962),
        ("resnet18-instance", 32, 3, 10, 11_173_962),
        ("resnet18-w32", 32, 3, 10, 2_797_610),
        ("vgg16", 32, 3, 10, 14_728_266),
        ("vgg16", 32, 3, 100, 14_774_436),
        ("vgg16", 64, 3, 10, 14_728_266),
        ("vgg16-instance", 32, 3, 10, 14_728_266),
        ("vgg16-none", 32, 3, 10, 14_728_266 - 2 * 4224),
    ],
)
def test_parameter_counts(name: str, size: int, channels: int, classes: int, count: int) -> None:
    # On the meta device nothing is drawn: counting needs shapes only.
    with torch.device("meta"):
        network = build(tiny(name, size, channels, classes), 0, device="meta")
    assert num_parameters(network) == count


def stages_of(name: str, part: str) -> list[int]:
    with torch.device("meta"):
        network = build(tiny(name, num_classes=10), 0, device="meta")
    return [num_parameters(block) for block in network.get_submodule(part).children()]


def test_parameters_are_where_the_published_tables_have_them() -> None:
    assert sum(stages_of("resnet18", "stem")) == 1_856
    assert stages_of("resnet18", "stages") == [147_968, 525_568, 2_099_712, 8_393_728]
    convolutions = [count for count in stages_of("vgg16", "features") if count]
    pairs = [conv + norm for conv, norm in zip(convolutions[::2], convolutions[1::2], strict=True)]
    assert pairs == [1_920, 37_056, 74_112, 147_840, 295_680, 590_592, 590_592, 1_181_184, *[2_360_832] * 5]


def test_vgg_pools_after_the_convolutions_of_the_published_layout() -> None:
    seen = 0
    pooled_after = []
    for module in build(tiny("vgg16-w4"), 0).get_submodule("features").children():
        seen += isinstance(module, torch.nn.Conv2d)
        if isinstance(module, torch.nn.MaxPool2d):
            pooled_after.append(seen)
    assert pooled_after == [2, 4, 7, 10, 13]


def test_resnet_has_the_small_images_stem_and_no_early_pooling() -> None:
    network = build(tiny("resnet18-w4"), 0)
    images = images_of(tiny("resnet18-w4"))
    sizes = [images.shape[-1]]
    maps = network.get_submodule("stem")(images)
    for stage in network.get_submodule("stages").children():
        maps = stage(maps)
        sizes.append(maps.shape[-1])
    assert sizes == [32, 32, 16, 8, 4]
    assert not any(isinstance(module, torch.nn.MaxPool2d) for module in network.modules())
    biased = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.bias is not None]
    assert biased == []


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_convolutions_start_from_he_fan_out(name: str) -> None:
    network = build(tiny(f"{name}-w32"), 0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
            assert module.bias is None or not module.bias.any()


def test_vgg_without_norm_still_passes_on_what_it_sees() -> None:
    """The reason for He's initialisation: under PyTorch's default the images make next to no difference."""
    config = tiny("vgg16-w16-none")
    network, images = build(config, 0).requires_grad_(False), images_of(config, 8)

    def difference() -> float:
        embeddings = network.embed(images)
        return float(embeddings.std(0).norm() / embeddings.mean(0).norm())

    ours = difference()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.reset_parameters()
    assert ours > 0.05
    assert difference() < ours / 100


# --- every network, every kind of image ---


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_size_passes(name: str, size: int, channels: int) -> None:
    config = tiny(name, size, channels, num_classes=5)
    network = build(config, 0)
    images = images_of(config).requires_grad_()
    embeddings = network.embed(images)
    assert embeddings.shape == (2, network.embedding_size)
    if not name.startswith("convnet3"):
        assert network.embedding_size == 8 * config.width, "pooled to one pixel, whatever the image's size"
    logits = network(images)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, network.classifier(embeddings), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 0].square().sum(), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0, "gradients reach every image"


@pytest.mark.parametrize("name", ["convnet3-w4", "convnet3-d4-w4", "resnet18-w4", "resnet18-w4-instance", "vgg16-w4"])
def test_the_smallest_images_pass_and_are_told_apart(name: str) -> None:
    smallest, _ = size_limits(parse(name))
    config = tiny(name, smallest)
    embeddings = build(config, 0).embed(images_of(config, 4))
    assert (embeddings[1:] - embeddings[0]).abs().amax(1).min() > 1e-4
    with pytest.raises(ValueError, match=f"images of {smallest - 1} pixels; .* takes images of {smallest} to"):
        build(tiny(name, smallest - 1), 0)


def test_instance_norm_of_single_pixels_would_see_nothing() -> None:
    """The control for ResNet18's smallest size: at 8 pixels its last maps have one pixel each."""
    from trainables.models.resnet import ResNet18

    config = tiny("resnet18-w4-instance", 8)
    embeddings = ResNet18(config).embed(images_of(config, 4))
    assert (embeddings - embeddings[0]).abs().max() == 0


@pytest.mark.parametrize("size", range(28, 36))
def test_vgg_takes_sizes_that_five_halvings_would_lose(size: int) -> None:
    assert build(tiny("vgg16-w4", size, 3), 0)(images_of(tiny("vgg16-w4", size, 3))).isfinite().all()


NORMED = [
    f"{base}-w4" + (f"-{norm}" if norm != NETWORKS[base].norm else "")
    for base in NETWORKS
    for norm in NETWORKS[base].norms
]


@pytest.mark.parametrize("name", NORMED)
def test_only_batch_norm_lets_images_depend_on_each_other(name: str) -> None:
    config = tiny(name)
    network, images = build(config, 0), images_of(config, 6)
    batch = config.norm == "batch"
    assert uses_batch_statistics(network) == batch
    alone, together = network(images[:1]), network(images)[:1]
    assert torch.allclose(alone, together, rtol=1e-3, atol=1e-4) == (not batch)
    network.eval()
    torch.testing.assert_close(network(images[:1]), network(images)[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NORMED)
def test_modes_differ_by_running_statistics_only(name: str) -> None:
    config = tiny(name)
    network, images = build(config, 0), images_of(config, 6)
    before = {key: value.clone() for key, value in network.named_buffers()}
    trained = network(images)
    changed = [key for key, value in network.named_buffers() if not torch.equal(value, before[key])]
    assert bool(changed) == (config.norm == "batch")
    network.eval()
    buffers = {key: value.clone() for key, value in network.named_buffers()}
    assert torch.allclose(network(images), trained, rtol=1e-4, atol=1e-5) == (config.norm != "batch")
    assert all(torch.equal(value, buffers[key]) for key, value in network.named_buffers()), "looking changes nothing"


@pytest.mark.parametrize("name", TINY)
def test_layout_does_not_matter(name: str) -> None:
    config = tiny(name)
    network, images = build(config, 0).eval(), images_of(config)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in convolutions)
    last = network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, network(images), rtol=1e-3, atol=1e-5)
    plain = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    torch.testing.assert_close(last, plain(images), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [*TINY, "resnet18-w4-instance"])
def test_second_derivatives_exist(name: str) -> None:
    """What gradient matching and trajectory matching need: the gradient of a gradient's size."""
    config = tiny(name)
    network, images = build(config, 0), images_of(config).requires_grad_()
    loss = network(images).logsumexp(1).sum()
    first = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(part.square().sum() for part in first), images)
    assert second.isfinite().all()
    assert second.abs().max() > 0


@pytest.mark.parametrize("name", TINY)
def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (build(tiny(name), "x", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    state, same = first.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], same[key]) for key in state)
    different = [key for key, value in first.named_parameters() if not torch.equal(value, other.get_parameter(key))]
    assert {"classifier.weight"} < set(different)


def test_impossible_configurations_are_refused() -> None:
    for config, message in [
        (tiny_network(size=8, depth=4), "network: cannot take images of 8 pixels; .* 16 to 128 pixels. Resize"),
        (tiny_network(norm="group", width=6), "network: group norm has 4 groups; got width 6; .*multiple of 4"),
        (tiny_network(architecture="resnet18", depth=34), "network: resnet18 has no depth 34; expected 18"),
        (tiny_network(architecture="vgg16", depth=16, norm="layer"), "network: vgg16 has no norm 'layer'; expected"),
        (tiny_network(architecture="resnet18", depth=18, norm="none"), "network: resnet18 has no norm 'none'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(config, 0)


def test_every_network_offers_the_same() -> None:
    for name in TINY:
        network = build(tiny(name), 0)
        assert isinstance(network, Network)
        assert network.classifier.in_features == network.embedding_size


# --- names ---

OPTIONS = st.builds(
    Variant,
    st.sampled_from(list(NETWORKS)),
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 16, 18]),
    st.sampled_from([1, 4, 6, 32, 64, 128, 640, 4096]),
    st.sampled_from(NORMS),
)


@given(OPTIONS)
def test_names_say_everything(network: Variant) -> None:
    possible = option_problem(network) is None
    if possible:
        assert parse(network.name) == network
        described = NetworkConfig.of(parse(network.name), image_size=64, channels=3, num_classes=7)
        assert described.variant == network
        assert (described.image_size, described.channels, described.num_classes) == (64, 3, 7)
        assert re.fullmatch(name_pattern(), network.name)
    else:
        with pytest.raises(ValueError, match=r"cannot be: .*expected"):
            parse(network.name)


@given(OPTIONS, st.permutations(["d", "w", "n"]), st.sets(st.sampled_from("dwn")))
def test_every_network_has_one_name(network: Variant, order: list[str], spelled: set[str]) -> None:
    """Other orders, and options that hold anyway, are refused with the one spelling."""
    usual = NETWORKS[network.base]
    parts = {"d": f"d{network.depth}", "w": f"w{network.width}", "n": network.norm}
    needed = {"d": network.depth != usual.depth, "w": network.width != usual.width, "n": network.norm != usual.norm}
    name = "-".join([network.base, *(parts[part] for part in order if needed[part] or part in spelled)])
    if option_problem(network) is not None:
        return
    if name == network.name:
        assert parse(name) == network
    else:
        with pytest.raises(ValueError, match=f"Write '{network.name}'"):
            parse(name)
        assert not re.fullmatch(name_pattern(), name)


def test_plain_names_are_the_published_networks() -> None:
    for base in NETWORKS:
        assert parse(base) == variant_of(base)
        assert parse(base).name == base
        assert parse(base).relative_width == 1
    assert parse("resnet18-w32").relative_width == 0.5


@pytest.mark.parametrize(
    "name, message",
    [
        ("resnet-18", r"unknown architecture 'resnet-18'; known: convnet3, resnet18, vgg16.*Did you mean 'resnet18'\?"),
        ("VGG16-Instance", r"unknown architecture .*Did you mean 'vgg16-instance'\?"),
        ("resnet18-inst", r"unknown option 'inst' of .*Did you mean 'resnet18-instance'\?"),
        ("convnet3-width64-batch", r"unknown option 'width64' .*Did you mean 'convnet3-w64-batch'\?"),
        ("convnet3-d4-d5", r"two options for the depth"),
        ("convnet3-d7", r"convnet3 has no depth 7; expected 1 to 6"),
        ("resnet18-d34", r"resnet18 has no depth 34; expected 18"),
        ("resnet18-w0", r"width 0 is out of range; expected 1 to 4096"),
        ("vgg16-layer", r"vgg16 has no norm 'layer'; expected one of instance, batch, group, none"),
        ("convnet3-w6-group", r"expected a multiple of 4"),
        ("resnet18-batch", r"not how this architecture is written; expected 'resnet18'"),
        ("resnet18-w032", r"Write 'resnet18-w32'"),
        ("resnet18-", r"unknown option ''"),
        ("", r"unknown architecture ''"),
        ("x" * 9999, r"^.{0,250}$"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(name)


@given(st.text(max_size=30) | st.lists(st.sampled_from([*NETWORKS, *NORMS, "d4", "w9", "-"])).map("-".join))
def test_any_text_is_a_name_or_is_answered(text: str) -> None:
    try:
        assert parse(text).name == text
    except ValueError as error:
        guess = re.search(r"(?:Did you mean|Write) '([^']*)'", str(error))
        if guess:
            assert parse(guess[1]).name == guess[1], "a name that is offered is accepted"


def test_sizes_by_depth() -> None:
    takes = {name: size_limits(parse(name)) for name in ("convnet3-d1", "convnet3", "convnet3-d4", "convnet3-d6")}
    assert takes == {"convnet3-d1": (2, 64), "convnet3": (8, 64), "convnet3-d4": (16, 128), "convnet3-d6": (64, 256)}
    # 28 pixels with one channel are padded to 32, which five halvings leave a pixel of; with three they are not.
    assert size_problem(parse("convnet3-d5"), 28, 1) is None
    assert size_problem(parse("convnet3-d5"), 28, 3) == "convnet3-d5 takes images of 32 to 256 pixels"


def test_the_page_about_sweep_files_has_the_published_networks() -> None:
    shown = {row[0]: row[2:] for row in table(ROOT / "docs" / "sweep-files.md", "name", "Networks and their options")}
    expected = {}
    for base, usual in NETWORKS.items():
        low, high = size_limits(parse(base))
        depths = f" ({usual.depths[0]} to {usual.depths[-1]})" if len(usual.depths) > 1 else ""
        others = ", ".join(norm for norm in usual.norms if norm != usual.norm)
        expected[base] = [str(usual.width), f"{usual.depth}{depths}", f"{usual.norm} ({others})", f"{low} to {high}"]
    assert shown == expected


def test_methods_may_match_on_the_depths_of_names() -> None:
    (limits,) = {
        (low.ge, high.le)
        for low, high in [NetworkSettings.model_fields["depth"].metadata]  # the field's ge and le, in this order
    }
    assert limits == (min(NETWORKS["convnet3"].depths), max(NETWORKS["convnet3"].depths))
