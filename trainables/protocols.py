"""The named training protocols: recipes with their sources. No torch.

``docs/protocols.md`` shows this table; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.configs import RecipeConfig


@dataclass(frozen=True)
class Protocol:
    """A recipe under the name that every row carries."""

    recipe: RecipeConfig
    source: str


def _sgd(epochs: int, augmentation: str, **other: Any) -> RecipeConfig:
    """The DC family's optimiser: SGD 0.01, momentum 0.9, weight decay 5e-4, one drop by ten at half, batches of 256."""
    values: dict[str, Any] = {
        "epochs": epochs,
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "milestones": (0.5,),
        "gamma": 0.1,
        "batch": 256,
        "augmentation": augmentation,
    }
    return RecipeConfig.model_validate({**values, **other})


def _dpsgd(epsilon: float) -> RecipeConfig:
    """Gradient descent with noise on the real images: what a set with a guarantee has to beat at equal accuracy."""
    private = {"epsilon": epsilon, "delta": 1e-5, "clip": 1.0}
    return _sgd(30, "none", lr=0.1, weight_decay=0.0, milestones=(), batch=256, private=private)


_IDC: dict[str, Any] = {"batch": 64, "milestones": (2 / 3, 5 / 6), "gamma": 0.2, "cutmix": 0.5}
"""What the recipe of IDC's authors has instead."""

PROTOCOLS: dict[str, Protocol] = {
    "paper2023": Protocol(
        _sgd(2000, "dsa"),
        "Chen et al. 2023 give 2000 epochs and 3 repeats and nothing else; the rest is the DC family's recipe",
    ),
    "dc300": Protocol(
        _sgd(300, "none"),
        "DC (Zhao et al., ICLR 2021): 300 epochs, no augmentation (its program: 1000 with one, as for MNIST)",
    ),
    "dsa1000": Protocol(_sgd(1000, "dsa"), "DSA (ICML 2021) and DM (WACV 2023): 1000 epochs, DSA augmentation"),
    "idc": Protocol(
        _sgd(1000, "idc", **_IDC),
        "IDC (Kim et al., ICML 2022): 1000 epochs, batches of 64, x0.2 at 2/3 and 5/6, IDC augmentation and CutMix",
    ),
    "quick": Protocol(_sgd(100, "dsa"), "ours: a tenth of dsa1000, to try things out; not a published recipe"),
    "ncfm": Protocol(
        _sgd(
            2000,
            "idc",
            optimiser="adamw",
            lr=1e-3,
            weight_decay=0.01,
            milestones=(0.2, 0.4, 0.6, 0.8),
            gamma=0.5,
            batch=128,
            cutmix=0.5,
        ),
        "NCFM (Wang et al., CVPR 2025): 2000 epochs of AdamW, x0.5 at each fifth, IDC augmentation and CutMix; it "
        "reports the best of 20 looks at the test images, ours is the last epoch",
    ),
    "datadam": Protocol(
        _sgd(1800, "dsa", batch=64),
        "DataDAM (Sajedi et al., ICCV 2023): 1800 epochs, batches of 64, on ConvNet3 with batch norm "
        "(convnet3-batch); it reports the best of 11 sets on the test images",
    ),
    "datm": Protocol(
        _sgd(1000, "dsa", batch=128, temperature=1.0),
        "DATM (Guo et al., ICLR 2024): 1000 epochs, batches of 128, soft labels by cross-entropy at temperature 1; its "
        "sets are whitened and bring their learning rate",
    ),
    "qin": Protocol(
        _sgd(3000, "dsa", milestones=(0.25, 0.5, 0.75), gamma=0.3),
        "Qin et al., NeurIPS 2024: 3000 epochs, x0.3 at each quarter, soft labels by cross-entropy; it reports the "
        "best of 15 looks at the test images",
    ),
    "rded": Protocol(
        _sgd(
            300,
            "rrc_flip",
            optimiser="adamw",
            lr=1e-3,
            weight_decay=0.01,
            decay_on="matrices",
            schedule="half_cosine",
            milestones=(),
            batch=50,
            crop_area=1.0,
            cutmix=1.0,
            label_loss="kl",
            temperature=20.0,
        ),
        "RDED (Sun et al., CVPR 2024): 300 epochs of AdamW, flips and CutMix, labels of an online teacher by kl at "
        "temperature 20; batches of 50 as for 10 images per class of CIFAR-10 (of 10 and 100 for 1 and 50); it reports "
        "the best of looks at the test images",
    ),
    "dpsgd_eps1": Protocol(
        _dpsgd(1.0), "ours: 30 epochs of DP-SGD (Abadi et al., CCS 2016) with epsilon 1; method full alone"
    ),
    "dpsgd_eps10": Protocol(_dpsgd(10.0), "the same with epsilon 10"),
    "qin_teacher": Protocol(
        _sgd(20, "dsa", lr=5e-4, momentum=0.0, weight_decay=0.0, milestones=()),
        "the network that labels Qin et al.'s images (buffer.py): constant rate, no momentum, no decay; 20 epochs at "
        "5e-4 for 1 image per class of CIFAR-10, others by images per class (trainables/teachers.py)",
    ),
    "paper2023_fixed_lr": Protocol(
        _sgd(2000, "dsa", learned_lr="never"),
        "paper2023, in which sets of MTT are trained at 0.01 too: the paper does not say what it does with their rate",
    ),
    "paper2023_idc": Protocol(
        _sgd(2000, "idc", **_IDC), "2000 epochs of Chen et al. 2023, the rest IDC's recipe, which the paper also knows"
    ),
    "paper2023_idc_fixed_lr": Protocol(
        _sgd(2000, "idc", learned_lr="never", **_IDC), "paper2023_idc, in which sets of MTT are trained at 0.01 too"
    ),
}
