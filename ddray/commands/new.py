"""`ddray new method NAME`: a package of its own that adds a method, small and complete. Light.

What is written works before anything is changed in it: an installed package whose entry point declares the method, a
test that holds it to the promises of ``trainables.testing``, and a sweep to try it.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path
from string import Template

from ddray.errors import EnvironmentProblem, RequestError, printable, show
from trainables.configs import KINDS
from trainables.methods import METHODS

_MODULE = '''"""$title: a method of dataset distillation for ddray.

The distilled images of a class move until their mean meets the mean of the class's real images:

    L = 1/2 * sum over classes c of || mean of S_c - mean of B real images of c ||^2

That is little, on purpose: replace the loss and its gradient, keep the rest. K classes, n distilled images of each;
images are (N, C, H, W) float32 and normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainables.configs import Held, MethodSettings
from trainables.registry import LEARNED, method

# Planning a sweep imports this file to read the settings, and must stay instant: torch and what needs it are imported
# where they are used. When the computation grows, put it into a module of its own and name that in the decorator:
# function="${name}_distill:distill" (and add the module to pyproject.toml).
if TYPE_CHECKING:
    from trainables.data.origins import Origin
    from trainables.distill.context import DistillContext
    from trainables.payloads import DistilledSet


@method(
    "$name",
    title="$title",
    uses=LEARNED - {"distill_aug"},
    init="real",
)
class ${camel}Settings(MethodSettings):
    """Matching the means of classes."""

    budget: ClassVar[str | None] = "iterations"

    iterations: int = Field(default=1000, ge=1)
    """Image updates."""
    lr_img: float = Field(default=0.1, gt=0)
    """Learning rate of a class's mean, in normalised units."""
    momentum_img: float = Field(default=0.5, ge=0, lt=1)
    batch_real: int = Field(default=256, ge=1)
    """Real images per class and update; a class with fewer gives all it has."""

    def passes(self, num_classes: int, ipc: int, real_images: int) -> float:
        """An iteration's cost in forward passes of one image, a gradient counting three: there is no network here.

        Jobs are ordered by it, and the remaining time follows from it; results do not.
        """
        return 0.0

    def held(self, num_classes: int, ipc: int, real_images: int, batch_statistics: bool) -> Held:
        """What an iteration holds of a card beside origin and set, in images on their way through a network: none here.

        A job's share of a card follows from it; without this method a job takes a whole card.
        """
        return Held(networks=0)


def distill(origin: Origin, settings: ${camel}Settings, context: DistillContext) -> DistilledSet:
    """Distil ``origin`` by matching the means of its classes.

    Every random number is drawn by its place in the computation (here: the iteration), never in sequence, so that an
    interruption leaves no trace and a longer budget continues a shorter one.

    Args:
        origin: What is distilled, on the context's device.
        settings: Budget, rates, batch.
        context: Start, seeds, real batches, progress, checkpoints, and the payload at the end.

    Raises:
        StageFailure: The loss is not finite.
        ValueError: A class has fewer than ``ipc`` images to start from.
    """
    import torch

    from trainables.payloads import load_tensors, save_tensors

    images, indices = context.initial_images(origin)
    momentum = torch.zeros_like(images)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        saved = load_tensors(folder / "$name.safetensors")
        images, momentum = saved["images"].to(images.device), saved["momentum"].to(images.device)

    def save(folder: Path) -> None:
        save_tensors(folder / "$name.safetensors", {"images": images, "momentum": momentum})

    for iteration in context.iterations(settings.iterations, start=done, save=save):
        batches = context.real_batches(origin, settings.batch_real, iteration)
        targets = torch.stack([origin.images[batch].mean(dim=0) for batch in batches])
        means = images.unflatten(0, (context.num_classes, context.ipc)).mean(dim=1)
        context.check_loss(float((means - targets).square().sum()) / 2, iteration)
        momentum.mul_(settings.momentum_img).add_((means - targets).repeat_interleave(context.ipc, dim=0))
        images.sub_(momentum, alpha=settings.lr_img)
        context.check_images(images, iteration)

    return context.finish(images, indices, iterations=settings.iterations)
'''

_TEST = '''"""What every method promises, and what is this one's own."""

from __future__ import annotations

from pathlib import Path

from trainables.testing import FolderContext, check_method, run_method


def test_it_keeps_the_promises_of_a_method(tmp_path: Path) -> None:
    check_method("$name", tmp_path, iterations=3, batch_real=6)


def test_the_means_meet(tmp_path: Path) -> None:
    context = FolderContext(tmp_path)
    run_method("$name", tmp_path, context=context, init="noise", iterations=60)
    losses = [values["loss"] for values in context.measured]
    assert losses[-1] < 0.01 * losses[0]
'''

_PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "ddray-$dashed"
version = "0.1.0"
description = "$title, a method of dataset distillation for ddray"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["ddray"]

# This is how ddray finds the method: the module of this entry point is imported, and its decorator declares it.
[project.entry-points."ddray.methods"]
$name = "$name"

[tool.setuptools]
py-modules = ["$name"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README = """# $title

A method of dataset distillation for [ddray](https://github.com/ddray/ddray).

```sh
python -m pip install --editable .
python -m pytest
ddray sweep try_$name.yaml
```

| file | what |
|---|---|
| `$name.py` | the settings, and the computation `distill(origin, settings, context)` |
| `tests/test_$name.py` | the promises of every method (`trainables.testing`), and what is this one's own |
| `try_$name.yaml` | a small sweep, beside random images |
| `pyproject.toml` | the entry point `ddray.methods`, by which ddray finds it |

Seeds, checkpoints, snapshots, progress, training, evaluation and tables come from ddray. `ddray doctor` says why a
method is missing when its module cannot be imported. On a cluster the package must be installed on every node.

When results change, raise `version=` in the decorator: what was computed before is then computed again. Values that
were published for some data sets are declared below the settings, and `ddray preset $name` shows them:

```python
from trainables.published import Preset, publish

publish(
    Preset(
        method="$name",
        values={"lr_img": 0.1},
        source="our paper, Table 4",
        datasets=("cifar10",),
        ipcs=(1, 10),
    )
)
```
"""

_SWEEP = """ddray: 1
defaults:
  protocol: quick
  axes: {dataset: [digits], seed: [0, 1, 2]}
grids:
  try:
    axes: {method: [random, $name], ipc: [1, 10]}
    settings: {$name: {iterations: 100}}
"""


def new_method(name: str, into: Path) -> Path:
    """Write the package of a new method.

    Args:
        name: As sweep files will say it; also the module's name.
        into: Folder in which the package's folder is made; made too if it is not there.

    Returns:
        The package's folder, ``into/name``.

    Raises:
        RequestError: The name cannot be used, or the folder is there already.
        EnvironmentProblem: The folder cannot be written.
    """
    problem = _name_problem(name)
    if problem:
        raise RequestError(f"new method: {problem}")
    folder = into / name
    if folder.exists():
        raise RequestError(
            f"new method: {printable(folder)} is there already and nothing is overwritten; expected a new folder. "
            "Choose another name, or another place with --into."
        )
    words = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "title": name.replace("_", " ").capitalize(),
        "camel": "".join(part.capitalize() for part in name.split("_")),
    }
    try:
        (folder / "tests").mkdir(parents=True)
        for path, text in _files(name).items():
            (folder / path).write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            f"new method: {printable(folder)} cannot be written; got {error.strerror or error}; expected a folder you "
            "can write to. Name one with --into."
        ) from error
    return folder


def next_steps(name: str, folder: Path) -> str:
    """What was made and what to type next."""
    place = printable(folder)
    return "\n".join(
        [
            f"{place}: {', '.join(_files(name))}",
            "",
            f"    python -m pip install --editable {place}",
            f"    python -m pytest {place}",
            f"    ddray sweep {printable(folder / f'try_{name}.yaml')}",
        ]
    )


def _files(name: str) -> dict[str, str]:
    return {
        f"{name}.py": _MODULE,
        f"tests/test_{name}.py": _TEST,
        f"try_{name}.yaml": _SWEEP,
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
    }


def _name_problem(name: str) -> str:
    """Why a method cannot be called this, or an empty text."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 40:
        return f"not a name; got {show(name)}; expected up to 40 lower-case letters, digits and single underscores."
    if name in KINDS:
        return f"{show(name)} is a kind of stage; expected a new name. Choose another."
    if name in METHODS:
        owner = METHODS[name].settings.__module__
        return f"method {show(name)} exists already, in {owner}; expected a new name. Choose another."
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        return (
            f"{show(name)} means something else to Python, and the method's module would hide it or be hidden; "
            "expected a name that nothing has. Choose another."
        )
    return ""
