"""The option ``--precision``: what it changes, what it leaves alone, and that rows say so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from support import FakeContext, distil, distill_config, tiny_network, tiny_origin
from workspace import Workspace

from trainables import device
from trainables.methods import METHODS
from trainables.models.network import build

LEARNERS = [name for name, method in METHODS.items() if "init" in method.uses]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    device.reset()
    torch.set_num_threads(1)


def test_bf16_changes_what_networks_compute_and_not_what_they_return() -> None:
    network, images = build(tiny_network(), 0), tiny_origin().images
    device.prepare("cpu", 1)
    exact = network(images).detach(), network.embed(images).detach()
    device.prepare("cpu", 1, precision="bf16")
    rounded = network(images).detach(), network.embed(images).detach()
    for plain, short in zip(exact, rounded, strict=True):
        assert short.dtype == torch.float32
        assert not torch.equal(plain, short)
        assert float((plain - short).norm() / plain.norm()) < 0.03
    assert device.numerics_class("cpu")["dtype"] == "bf16"
    device.reset()
    assert device.numerics_class("cpu")["dtype"] == "float32"
    assert torch.equal(network(images).detach(), exact[0]), "the next job starts as if nothing had been"


@pytest.mark.parametrize("method", LEARNERS)
def test_every_method_runs_in_bf16_close_to_float32(method: str, tmp_path) -> None:
    found = {}
    for precision in ("float32", "bf16"):
        device.prepare("cpu", 1, precision=precision)
        context = FakeContext(tmp_path / precision)
        images = distil(distill_config(method, iterations=2), context).images
        assert images.isfinite().all()
        found[precision] = next(values["loss"] for values in context.measured if "loss" in values)
    assert found["float32"] != found["bf16"]
    # MTT's loss is a quotient of distances between float32 experts and students of either precision.
    assert found["bf16"] == pytest.approx(found["float32"], rel=0.25)


def test_tf32_is_for_cards() -> None:
    with pytest.raises(ValueError, match="got 'tf32' on a CPU"):
        device.prepare("cpu", 1, precision="tf32")


def test_a_sweep_says_in_which_precision_it_was_computed(workspace: Workspace) -> None:
    path = workspace.tiny()
    ran = workspace.run("sweep", path, "--local", "--no-mlflow", "--precision", "bf16", "--only", "method=random")
    assert ran.code == 0, ran.err
    manifests = [json.loads(file.read_text()) for file in workspace.folder.rglob("artifacts/*/*/manifest.json")]
    trained = [manifest for manifest in manifests if manifest["kind"] == "train"]
    assert trained
    assert all(manifest["provenance"]["numerics"]["dtype"] == "bf16" for manifest in trained)
    plan = workspace.prepare(path).plan
    assert {manifest["key"] for manifest in trained} <= set(plan.stages), "keys do not depend on the precision"
