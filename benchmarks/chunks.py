"""Is the number of images that pass a network together on a CPU well chosen? ``python -m benchmarks.chunks``

One gradient of a batch of 256 augmented images with ConvNet, width 128, one thread, for several sizes of images, taken
in parts of 16 to 512 images (``optimise.CHUNK``). The best of some repeats, in turn: all parts, then all again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from benchmarks.machine import machine
from trainables import device, optimise
from trainables.configs import NetworkConfig
from trainables.data import augment
from trainables.models.network import build
from trainables.networks import parse

CHUNKS = (16, 32, 64, 128, 256, 512)
SIZES = {8: ("convnet3-d2", 1, 8), 16: ("convnet3-d2", 1, 6), 32: ("convnet3", 3, 3)}
"""Image size -> network, channels, repeats."""
BATCH, CLASSES = 256, 10


def row(size: int) -> dict[str, Any]:
    """Milliseconds by size of the parts."""
    name, channels, repeats = SIZES[size]
    config = NetworkConfig.of(parse(name), image_size=size, channels=channels, num_classes=CLASSES)
    network = build(config, "chunks").train()
    images, labels = torch.randn(BATCH, channels, size, size), torch.arange(BATCH) % CLASSES
    best = dict.fromkeys(CHUNKS, float("inf"))
    kept = optimise.CHUNK["cpu"]
    try:
        for repeat in range(repeats):
            for chunk in CHUNKS:
                optimise.CHUNK["cpu"] = chunk
                generator = torch.Generator().manual_seed(repeat)
                params = augment.sample(augment.strategy_for(False), BATCH, shared=False, generator=generator)
                began = time.perf_counter()
                optimise.batch_gradient(network, images, labels, params=params)
                best[chunk] = min(best[chunk], time.perf_counter() - began)
                network.zero_grad()
    finally:
        optimise.CHUNK["cpu"] = kept
    return {
        "name": f"chunks_{size}px",
        "chosen": kept,
        **{str(chunk): round(1000 * seconds, 1) for chunk, seconds in best.items()},
        "chosen_over_best": round(best[kept] / min(best.values()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    device.prepare("cpu", 1)
    print(json.dumps(machine()))
    for size in SIZES:
        print(json.dumps(row(size)), flush=True)


if __name__ == "__main__":
    main()
