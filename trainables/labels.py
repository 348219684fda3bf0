"""What stands beside the images of a distilled set, and what a network learns of it.

N images, K classes, B images in a batch. The class of each image is there whatever the kind: order, balance, fairness
by class and the control with hard labels need it. Soft labels add K numbers for each image, which are read in one of
three forms.

    logits         y, read as softmax(y / T)
    probabilities  p, rows of which sum to 1
    targets        numbers that the outputs themselves are to come near to (regression; RCIG, FRePo, KIP)

The losses (methods2.md 1.3), of a network's logits z, with q = softmax(z / T), p = softmax(y / T) or p as it is given;
sums over K, means over the batch:

    soft_ce  -sum p log q           DATM, TESLA, QIN
    kl        sum p (log p - log q)  RDED, DD-Ranking
    mse       sum (z - y)^2 / K      DD-Ranking's, from EDC
    l2        sum (z - y)^2          RCIG's evaluation

The first two have equal gradients, (q - p) / (T B). They may be scaled by T^2; without it gradients shrink about as
1 / T^2, which AdamW does not notice and stochastic gradient descent does. So rows state T and the factor together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.configs import LabelForm, LabelLoss, LabelSource, RecipeConfig
from trainables.data.pixels import decode_labels

LOSSES: dict[LabelForm, tuple[LabelLoss, ...]] = {
    "logits": ("soft_ce", "kl", "mse"),
    "probabilities": ("soft_ce", "kl"),
    "targets": ("l2",),
}
"""Which loss goes with which form."""
TOLERANCE = 1e-5
"""How far the sum of a row of probabilities may be from 1."""


@dataclass(frozen=True)
class HardLabels:
    """One class for each image of a distilled set."""

    kind: ClassVar[Literal["hard"]] = "hard"
    """``label_kind`` in the set's description."""

    classes: Tensor
    """(N,) int64: positions in the origin's list of classes."""

    def __len__(self) -> int:
        """N."""
        return len(self.classes)


@dataclass(frozen=True)
class SoftLabels:
    """K numbers for each image of a distilled set, beside its class.

    Raises:
        ValueError: Shapes, numbers or temperature do not fit the form.
    """

    kind: ClassVar[Literal["soft"]] = "soft"
    """``label_kind`` in the set's description."""

    classes: Tensor
    """(N,) int64: positions in the origin's list of classes."""
    rows: Tensor
    """(N, K) float32, in the order of the origin's classes."""
    form: LabelForm
    temperature: float | None = None
    """T that logits are meant to be read at, above 0; of other forms None."""
    source: LabelSource = "learned"
    teacher: Mapping[str, Any] | None = None
    """Of labels from a teacher, what is known of it: network, key, origin, epochs, test accuracy."""

    def __post_init__(self) -> None:
        if problem := rows_problem(self.rows, len(self.classes), self.form):
            raise ValueError(f"soft labels: {problem}")
        if (self.temperature is not None) != (self.form == "logits"):
            raise ValueError(
                f"soft labels: {self.form} have {'a' if self.form == 'logits' else 'no'} temperature; got "
                f"{self.temperature}. {'Say which: 1 where none is known of.' if self.form == 'logits' else 'Drop it.'}"
            )
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise ValueError(f"soft labels: temperature out of range; got {self.temperature}; expected above 0.")

    def __len__(self) -> int:
        """N."""
        return len(self.classes)

    @property
    def info(self) -> dict[str, Any]:
        """What a set's description says of them: what they are, and two numbers about them."""
        said = {
            "label_kind": self.kind,
            "label_form": self.form,
            "temperature": self.temperature,
            "label_source": self.source,
            "label_agreement": self.agreement,
            "label_entropy": self.entropy,
        }
        return said if self.teacher is None else {**said, "teacher": dict(self.teacher)}

    @classmethod
    def of(cls, classes: Tensor, rows: Tensor, info: Mapping[str, Any]) -> SoftLabels:
        """What was saved as tensors and ``info``."""
        return cls(classes, rows, info["label_form"], info["temperature"], info["label_source"], info.get("teacher"))

    @property
    def agreement(self) -> float:
        """Share of the rows whose largest number is that of the image's class; a tie goes to the lower class."""
        return float((self.rows.argmax(1) == self.classes).double().mean())

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the rows as probabilities, in nats; None of targets, which are none."""
        if self.form == "targets":
            return None
        return float(torch.special.entr(self.probabilities().double()).sum(1).mean())

    def probabilities(self, temperature: float | None = None) -> Tensor:
        """The rows as probabilities (N, K) float32.

        Args:
            temperature: At which logits are read; None: their own. Probabilities are what they are.

        Raises:
            ValueError: They are targets, which are no probabilities at any temperature.
        """
        if self.form == "targets":
            raise ValueError(
                "soft labels: targets of a regression are no probabilities. Train on them with the loss l2."
            )
        if self.form == "probabilities":
            return self.rows
        return (self.rows / (temperature or self.temperature or 1.0)).softmax(1)

    def logits(self) -> Tensor:
        """Numbers (N, K) float32 whose softmax (at the temperature of logits, at 1 of probabilities) is the rows.

        Logarithms of probabilities; a probability of 0 becomes the smallest number that float32 holds.

        Raises:
            ValueError: They are targets.
        """
        return self.rows if self.form == "logits" else _log(self.probabilities())


Labels = HardLabels | SoftLabels


def rows_problem(rows: Tensor, count: int, form: LabelForm) -> str | None:
    """What is wrong with the numbers of soft labels; None: nothing.

    Args:
        rows: Should be (N, K) float32, K >= 2.
        count: N.
    """
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] < 2 or rows.dtype != torch.float32:
        return (
            f"they do not fit the images; got {tuple(rows.shape)} {rows.dtype}; expected ({count}, K) torch.float32, a "
            "row for each image."
        )
    if not bool(rows.isfinite().all()):
        return (
            f"numbers that are not finite; got {int((~rows.isfinite()).sum())} of {rows.numel()}. What made them "
            "diverged."
        )
    if form == "probabilities":
        low, sums = float(rows.min()), rows.double().sum(1)
        furthest = float(sums[(sums - 1).abs().argmax()])
        if low < 0 or abs(furthest - 1) > TOLERANCE:
            got = f"numbers down to {low:.3g}" if low < 0 else f"a row that sums to {furthest:.6g}"
            return f"they are no probabilities; got {got}; expected 0 or more, rows that sum to 1. Are they logits?"
    return None


# --- what is learned of them ------------------------------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor, Literal["sum", "none"]], Tensor]
"""Of logits (B, K) and what they are compared with, classes (B,) or rows (B, K): the loss of each image (B,), or their
sum ()."""
Answers = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) as a step has them, augmented and mixed -> what outputs are compared with (B, K)."""


def hard_loss(logits: Tensor, classes: Tensor, reduction: Literal["sum", "none"]) -> Tensor:
    """Cross-entropy with the classes (B,) int64."""
    return F.cross_entropy(logits, classes, reduction=reduction)


@dataclass(frozen=True)
class SoftLoss:
    """The loss of soft labels: ``soft_ce`` and ``kl`` of probabilities (B, K), the others of the rows themselves."""

    name: LabelLoss
    temperature: float = 1.0
    """T that the network's logits are divided by, of ``soft_ce`` and ``kl``."""
    scaled: bool = False
    """Whether those two are multiplied by T^2."""

    def read(self, logits: Tensor) -> Tensor:
        """What outputs are compared with, where labels are these logits (B, K)."""
        return logits if self.name == "mse" else (logits / self.temperature).softmax(-1)

    def __call__(self, logits: Tensor, rows: Tensor, reduction: Literal["sum", "none"]) -> Tensor:
        if self.name in ("mse", "l2"):
            squares = (logits - rows).square()
            losses = squares.mean(-1) if self.name == "mse" else squares.sum(-1)
        else:
            losses = -(rows * (logits / self.temperature).log_softmax(-1)).sum(-1)
            if self.name == "kl":
                losses = losses - torch.special.entr(rows).sum(-1)
            if self.scaled:
                losses = losses * self.temperature**2
        return losses.sum() if reduction == "sum" else losses


@dataclass(frozen=True)
class Lesson:
    """What a network learns of the images of a set."""

    classes: Tensor
    """(N,) int64, one for each training image: accuracy on them is counted by it."""
    learned: Tensor
    """(N,) classes or (N, K) rows: what outputs are compared with."""
    loss: Loss
    info: dict[str, Any]
    """``label_loss``, ``temperature`` and ``scaled`` of soft labels; nothing of hard ones."""
    answers: Answers | None = None
    """What outputs are compared with instead of ``learned``, where every batch is labelled anew."""

    @classmethod
    def hard(cls, classes: Tensor) -> Lesson:
        """Cross-entropy with the classes."""
        return cls(classes, classes, hard_loss, {})


def lesson_of(labels: Labels, recipe: RecipeConfig, factor: int = 1) -> Lesson:
    """What a recipe makes of the labels of a set.

    Args:
        factor: Of the set: its images are decoded to factor^2 training images each (``decode``), which share a label.

    Raises:
        ValueError: The recipe's loss is not for labels of this form.
    """
    classes = decode_labels(labels.classes, factor)
    if isinstance(labels, HardLabels):
        return Lesson.hard(classes)
    name, form = recipe.label_loss, labels.form
    if name not in LOSSES[form]:
        raise ValueError(
            f"train: no loss for such labels; got label_loss {name} and soft labels that are {form}; expected one of "
            f"{', '.join(LOSSES[form])}. Set train: {{label_loss: {LOSSES[form][0]}}}."
        )
    if name in ("mse", "l2"):
        loss, learned = SoftLoss(name), labels.rows
    else:
        temperature = recipe.temperature or labels.temperature or 1.0
        loss, learned = SoftLoss(name, temperature, recipe.scaled), labels.probabilities(temperature)
    info = {"label_loss": name, "temperature": loss.temperature, "scaled": loss.scaled}
    return Lesson(classes, decode_labels(learned, factor), loss, info)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
