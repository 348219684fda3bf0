"""A method of another package: what `ddray new method` writes works at once, and a broken package breaks nothing else.

Nothing is installed: the metadata that an installation would leave are made by setuptools from the written
pyproject.toml, and both folders are put on Python's path of other processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from workspace import Workspace

from ddray.commands.new import new_method
from trainables import testing
from trainables.configs import MethodSettings
from trainables.methods import METHODS
from trainables.registry import CHOSEN, LEARNED, Method, method
from trainables.testing import check_method, run_method

NAME = "pixel_means"


def python(*arguments: object, path: list[Path], cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A new process with folders on its path."""
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
    )
    assert not check or ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran


def site_of(package: Path) -> Path:
    """A folder with the metadata of a package, as after its installation."""
    site = package.parent / f"{package.name}-site"
    site.mkdir()
    program = (
        "from setuptools import build_meta; build_meta.prepare_metadata_for_build_wheel(__import__('sys').argv[1])"
    )
    python("-c", program, site, path=[], cwd=package)
    return site


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new method as it is written; only looked at."""
    return new_method(NAME, tmp_path_factory.mktemp("new") / "mine")


@pytest.fixture(scope="module")
def path(package: Path) -> list[Path]:
    return [package, site_of(package)]


# --- what is written works --------------------------------------------------------------------------------------------


def test_the_command_says_what_it_wrote_and_what_to_do_next(package: Path, workspace: Workspace) -> None:
    made = workspace.folder / "mine" / NAME
    ran = workspace.run("new", "method", NAME, "--into", made.parent)
    assert ran.code == 0, ran.err
    assert f"pip install --editable {made}" in ran.out
    files = {file.relative_to(made): file.read_bytes() for file in made.rglob("*") if file.is_file()}
    assert all(str(name) in ran.out for name in files)
    assert all((package / name).read_bytes() == content for name, content in files.items())


def test_its_own_test_passes(package: Path, path: list[Path]) -> None:
    ran = python("-m", "pytest", "-q", "-p", "no:cacheprovider", package, path=path, cwd=package)
    assert "2 passed" in ran.stdout


def test_it_is_swept_by_name_like_any_other(package: Path, path: list[Path], workspace: Workspace) -> None:
    sweep = package / f"try_{NAME}.yaml"
    narrow = ["--set", "defaults.axes.seed=[0]", "--set", "defaults.train.epochs=2", "--set", "grids.try.axes.ipc=[1]"]

    def ddray(*arguments: object) -> subprocess.CompletedProcess[str]:
        return python("-m", "ddray", *arguments, path=path, cwd=workspace.folder)

    assert "2 points" in ddray("check", sweep, *narrow).stdout
    facts = json.loads(ddray("plan", sweep, *narrow, "--json").stdout)
    assert facts["stages"]["distill"]["todo"] == 2
    assert facts["blocked"] == {}
    ran = ddray("sweep", sweep, *narrow, "--local", "--no-mlflow", "--quiet")
    assert "2 of 2 points done" in ran.stderr
    assert "- Accuracy: Pixel means is the only distilled set" in ran.stdout
    (results,) = (workspace.folders.results).glob(f"try_{NAME}-*")
    assert "| Pixel means" in (results / "report.md").read_text()
    rows = parquet.read_table(results / "measurements.parquet").to_pylist()
    mine = [row for row in rows if row["method"] == NAME and row["metric"] == "test_acc"]
    assert [(row["status"], row["distill_iters"], row["init"]) for row in mine] == [("ok", 100, "real")]
    assert json.loads(mine[0]["param_json"])["settings"]["lr_img"] == 0.1
    assert f'"{NAME}"' in ddray("schema").stdout
    assert (
        f"from other packages: {NAME}"
        in python("-m", "ddray", "doctor", path=path, cwd=workspace.folder, check=False).stdout
    )


def test_planning_it_loads_no_torch(package: Path, path: list[Path], workspace: Workspace) -> None:
    program = (
        "import sys\nfrom ddray.cli import cli\n"
        "cli.main(['plan', sys.argv[1]], standalone_mode=False)\n"
        f"assert {NAME!r} in sys.modules\n"
        "sys.exit('torch' in sys.modules)"
    )
    python("-c", program, package / f"try_{NAME}.yaml", path=path, cwd=workspace.folder)


def test_the_published_values_of_its_readme_are_shown(package: Path, path: list[Path], workspace: Workspace) -> None:
    (block,) = (package / "README.md").read_text().split("```python\n")[1:]
    module = workspace.folder / f"{NAME}.py"  # before the package on the path
    module.write_text((package / module.name).read_text() + "\n\n" + block.partition("```")[0])
    first = [workspace.folder, *path]
    ran = python("-m", "ddray", "preset", NAME, "cifar10", 10, "--json", path=first, cwd=workspace.folder)
    (entry,) = json.loads(ran.stdout)["settings"]
    assert (entry["setting"], entry["value"], entry["kind"]) == ("lr_img", 0.1, "published")
    assert entry["source"] == "our paper, Table 4"


def test_it_is_written_as_we_write(package: Path, workspace: Workspace) -> None:
    config = Path(__file__).resolve().parents[2] / "pyproject.toml"
    for command in (["check"], ["format", "--check"]):
        python("-m", "ruff", *command, "--config", config, "--no-cache", package, path=[], cwd=workspace.folder)


def test_nothing_is_overwritten(package: Path, workspace: Workspace) -> None:
    before = {file: file.read_bytes() for file in package.rglob("*") if file.is_file()}
    ran = workspace.run("new", "method", NAME, "--into", package.parent)
    assert ran.code == 2
    assert "is there already and nothing is overwritten" in ran.err
    assert {file: file.read_bytes() for file in package.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "name, reason",
    [
        ("dm", "exists already, in trainables.methods"),
        ("json", "something else to Python"),
        ("torch", "something else to Python"),
        ("class", "something else to Python"),
        ("Mine", "not a name"),
        ("my-method", "not a name"),
        ("../up", "not a name"),
        ("2nd", "not a name"),
        ("a__b", "not a name"),
        ("train", "a kind of stage"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, reason: str, workspace: Workspace) -> None:
    ran = workspace.run("new", "method", name, "--into", workspace.folder / "mine")
    assert ran.code == 2
    assert reason in ran.err
    assert not (workspace.folder / "mine").exists()


def test_a_place_that_cannot_be_written_is_said(workspace: Workspace) -> None:
    (workspace.folder / "file").write_text("")
    ran = workspace.run("new", "method", NAME, "--into", workspace.folder / "file")
    assert ran.code == 3
    assert "cannot be written" in ran.err


# --- packages that are broken -----------------------------------------------------------------------------------------

BROKEN = {
    "no_import": ("import no_such_library", "ModuleNotFoundError"),
    "bad_syntax": ("def", "SyntaxError"),
    "leaves": ("raise SystemExit(1)", "SystemExit"),
    "duplicate": (
        "from trainables.configs import MethodSettings\nfrom trainables.registry import method\n"
        "@method('before_it', title='B', function=None, uses=frozenset())\nclass Before(MethodSettings): ...\n"
        "@method('dm', title='DM')\nclass Mine(MethodSettings): ...\n",
        "method dm: declared twice; got duplicate_package, after trainables.methods",
    ),
    "no_default": (
        "from trainables.configs import MethodSettings\nfrom trainables.registry import CHOSEN, method\n"
        "@method('bare', title='B', uses=CHOSEN)\nclass Mine(MethodSettings):\n    x: int\n",
        "settings without a default; got x",
    ),
    "nothing": ("", "nothing is declared in it"),
}


def test_broken_packages_are_reported_and_leave_the_rest_working(
    package: Path, path: list[Path], workspace: Workspace
) -> None:
    everything = list(path)
    for kind, (text, _) in BROKEN.items():
        folder = workspace.folder / kind
        (folder / f"{kind}-1.dist-info").mkdir(parents=True)
        (folder / f"{kind}_package.py").write_text(text)
        (folder / f"{kind}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {kind}\nVersion: 1\n")
        (folder / f"{kind}-1.dist-info" / "entry_points.txt").write_text(f"[ddray.methods]\nx = {kind}_package\n")
        everything.insert(0, folder)
    plan = python("-m", "ddray", "plan", package / f"try_{NAME}.yaml", path=everything, cwd=workspace.folder)
    assert "12 points" in plan.stdout
    doctor = python("-m", "ddray", "doctor", "--json", path=everything, cwd=workspace.folder, check=False)
    assert doctor.returncode == 3
    findings = [entry for entry in json.loads(doctor.stdout) if entry["what"] == "method missing"]
    assert len(findings) == len(BROKEN)
    for kind, (_, reason) in BROKEN.items():
        said = f"{kind}: entry point ddray.methods:x ({kind}_package) gives no method; got "
        (warning,) = (line for line in plan.stderr.splitlines() if line.startswith(said))
        assert reason in warning
        (finding,) = (entry for entry in findings if entry["value"].startswith(said))
        assert (finding["level"], finding["value"]) == ("bad", warning)
        assert "uninstall" in finding["remedy"]
    listed = python("-m", "ddray", "preset", path=everything, cwd=workspace.folder).stdout
    assert NAME in listed
    assert "before_it" not in listed, "a package is in as a whole or not at all"


# --- the checker ------------------------------------------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    "random": {},
    "dm": {"batch_real": 6},
    "dsa": {"iterations": 2, "batch_real": 6, "loops": (2, 1)},
    "idc": {"inner_loop": 2, "net_images": 6, "batch_real": 6},
    "herding": {},
    "kmeans": {"restarts": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_our_own_methods_keep_their_promises(name: str, tmp_path: Path) -> None:
    check_method(name, tmp_path, **SMALL[name])


class Settings(MethodSettings):
    """Of methods that break one promise each."""

    budget = "iterations"
    iterations: int = 3
    breaks: str = ""


def faulty(origin: Any, settings: Settings, context: Any) -> Any:
    """A random walk from the start, with one fault."""
    from trainables.payloads import load_tensors, save_tensors

    breaks = settings.breaks
    images, indices = context.initial_images(origin)
    if breaks == "start":
        images = images + 1
    if breaks == "real indices":
        indices = indices.roll(1)
    if breaks == "noise indices" and context.init == "noise":
        indices = torch.full_like(indices, testing.FIRST_INDEX)
    done = 0
    if checkpoint := context.restore():
        done, folder = checkpoint
        images = load_tensors(folder / "x.safetensors")["images"]
    state = torch.Generator().manual_seed(context.config.distill_seed)

    def save(folder: Path) -> None:
        save_tensors(folder / "x.safetensors", {"images": images})

    loops = settings.iterations + (1 if breaks == "length" else 0)
    for iteration in context.iterations(loops, start=done, save=save):
        generator = context.generator("step", iteration)
        if breaks == "seed":
            generator = torch.Generator().manual_seed(iteration)
        if breaks == "sequence":
            generator = state
        rate = 1 / settings.iterations if breaks == "budget" else 0.1
        if breaks == "global read":
            images = images + rate * torch.randn_like(images)
        elif breaks == "global write":
            torch.manual_seed(iteration)
            images = images + rate
        else:
            images = images + rate * torch.randn(images.shape, generator=generator)
        if breaks == "seed" and iteration == 0:
            images = torch.randn(images.shape, generator=generator)
    if breaks == "origin":
        origin.images.mul_(2)
    if breaks == "nan":
        images[0] = torch.nan
    if breaks == "count":
        images, indices = images[1:], indices[1:]
    found = context.finish(images, indices, iterations=loops)
    if breaks == "labels":
        found.labels.classes.copy_(found.labels.classes.flip(0))
    if breaks == "facts":
        found.info["space"] = "normalised"
    return found


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Method:
    made = Method(
        name="faulty",
        title="F",
        settings=Settings,
        uses=LEARNED - {"distill_aug"},
        init="real",
        function=f"{__name__}:faulty",
    )
    monkeypatch.setitem(METHODS, "faulty", made)
    return made


CHECKS = {
    "": None,
    "origin": testing.check_set,
    "nan": testing.check_set,
    "count": testing.check_set,
    "labels": testing.check_set,
    "facts": testing.check_set,
    "real indices": testing.check_set,
    "seed": testing.check_seed,
    "global read": testing.check_global_state,
    "global write": testing.check_global_state,
    "sequence": testing.check_interruption,
    "length": testing.check_budget,
    "budget": testing.check_budget,
    "start": testing.check_start,
    "noise indices": testing.check_start,
}
ALL = (
    testing.check_set,
    testing.check_seed,
    testing.check_global_state,
    testing.check_interruption,
    testing.check_budget,
    testing.check_start,
    testing.check_too_few,
)


@pytest.mark.parametrize("fault", CHECKS)
def test_each_broken_promise_is_noticed_by_its_check(fault: str, declared: Method, tmp_path: Path) -> None:
    wanted = CHECKS[fault]
    for number, check in enumerate(ALL):
        folder = tmp_path / str(number)
        folder.mkdir()
        if check is wanted:
            with pytest.raises(AssertionError, match="method faulty breaks a promise: "):
                check("faulty", folder, breaks=fault)
        elif not fault:
            check("faulty", folder)


def test_too_few_images_have_to_be_refused(declared: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.distill.context import DistillContext

    def repeated(self: Any, origin: Any) -> Any:
        rows = torch.cat([members[torch.arange(self.ipc) % len(members)] for members in origin.by_class])
        return origin.images[rows], origin.indices[rows]

    monkeypatch.setattr(DistillContext, "initial_images", repeated)
    with pytest.raises(AssertionError, match="more images than a class has are refused"):
        testing.check_too_few("faulty", tmp_path)


def test_presets_that_the_settings_do_not_take_are_noticed(declared: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables import presets
    from trainables.published import PRESETS, Preset

    row = Preset(method="faulty", values={"iterations": "many"}, source="a/b")
    with monkeypatch.context() as patch:
        patch.setattr("trainables.presets.PRESETS", [*PRESETS, row])
        with pytest.raises(AssertionError, match="presets are values that the settings take"):
            testing.check_presets("faulty")
    presets._choose.cache_clear()


def test_settings_that_load_torch_are_noticed(declared: Method) -> None:
    """This test's own module does."""
    with pytest.raises(AssertionError, match="breaks a promise"):
        testing.check_light("faulty")


def test_a_method_that_is_not_declared_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such method; known: random"):
        check_method("no_such_method", tmp_path)


def test_the_global_states_are_put_back(tmp_path: Path) -> None:
    import random

    before = torch.get_rng_state(), random.getstate()
    testing.check_global_state("random", tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_method_runs_on_the_tiny_origin(tmp_path: Path) -> None:
    found = run_method("random", tmp_path, ipc=3)
    assert found.images.shape == (9, 1, 8, 8)
    assert found.info["classes"] == list(testing.CLASSES)


def test_a_declaration_that_cannot_be_is_refused() -> None:
    for name, said in (("dm", "declared twice"), ("train", "a kind of stage"), ("A", "lower-case")):
        with pytest.raises(ValueError, match=said):
            method(name, title="T", uses=CHOSEN)(MethodSettings)
    with pytest.raises(ValueError, match="no such budget; got 'steps'"):
        method("mine", title="T", uses=CHOSEN)(type("S", (MethodSettings,), {"budget": "steps"}))
    assert "mine" not in METHODS
