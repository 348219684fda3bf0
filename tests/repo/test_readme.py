"""What the pages tell people to type works, and what they say the program prints is what it prints."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from pages import ROOT, SWEEPS, Block, Command, blocks, commands, run, table

from ddray.cli import cli
from ddray.errors import EnvironmentProblem, RequestError
from ddray.plan.schema import EVALUATIONS
from ddray.run.sweep import DONE, FAILED, INTERRUPTED
from ddray.settings import NUMERIC_ENVIRONMENT, RAY_ENVIRONMENT, Folders
from trainables.methods import METHODS
from trainables.networks import NETWORKS

README = ROOT / "README.md"
CHEAP = ("check", "plan", "report", "status", "schema", "doctor")
"""Verbs that are run for real; of the others the command line is parsed."""


def test_the_first_block_is_two_commands() -> None:
    assert blocks("sh", README)[0].text == "make quickstart\nmake test\n"


@pytest.mark.parametrize("command", commands(), ids=str)
def test_command_exists(command: Command) -> None:
    words = command.words
    if words[0] == "make":
        ran = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    elif words[0] == "ddray":
        parse(words[1:])
    elif words[:3] == ("ray", "job", "submit"):
        assert shutil.which("ray", path=str(Path(sys.executable).parent))
        inner = words[words.index("--") + 1 :]
        assert inner[0] == "ddray"
        parse(inner[1:])
    elif words[1:3] == ("-m", "venv"):
        assert words[0] == "python3"
    elif words[1:4] == ("-m", "pip", "install"):
        assert words[0] == ".venv/bin/python"
        check_pip(words[4:])
    elif words[0] == "sbatch":
        check_batch_script(ROOT / words[1], words[2:])
    elif words[0] == "docker":
        check_compose(words[1:])
    else:
        script = ROOT / words[0]
        assert script.is_file(), f"{words[0]}: unknown program; add it here with a check"
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", script]).returncode == 0


def parse(words: tuple[str, ...]) -> None:
    """Parse a command line of ddray without running it; the sweep it names must be there."""
    verb = cli.commands[words[0]]
    context = verb.make_context(words[0], list(words[1:]))
    sweep = context.params.get("sweep")
    if sweep is not None:
        assert (ROOT / sweep).is_file() or sweep in {path.stem for path in SWEEPS}


def check_batch_script(script: Path, arguments: tuple[str, ...]) -> None:
    """Its syntax, and the command of ddray in it with the arguments that the page gives."""
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "ddray sweep" in line and line.startswith("srun")]
    line = line.replace('"$@"', " ".join(arguments)).replace('"$SLURM_CPUS_PER_TASK"', "16")
    words = tuple(shlex.split(line.replace('"$SLURM_JOB_NUM_NODES"', "2")))
    parse(words[words.index("ddray") + 1 :])
    assert "--signal=TERM@" in text, "it is told to stop before its time is over"
    assert "-eq 130" in text, "and goes on afterwards"
    if "ray" in words:
        from ray.scripts.scripts import cli as ray_cli

        start = words[words.index("ray") + 1 : words.index("--")]
        assert start[0] in ray_cli.commands
        options = {option for parameter in ray_cli.commands[start[0]].params for option in parameter.opts}
        options |= {option for parameter in ray_cli.commands["start"].params for option in parameter.opts}
        assert {word for word in start if word.startswith("--")} <= options


def check_pip(words: tuple[str, ...]) -> None:
    options = subprocess.run([sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True).stdout
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if word.startswith("--"):
            assert word in options
        elif word.startswith("."):
            assert word[2:-1] in extras


def check_compose(words: tuple[str, ...]) -> None:
    from ruamel.yaml import YAML

    assert words[0] == "compose"
    content = YAML(typ="safe").load((ROOT / words[words.index("-f") + 1]).read_text())
    services = content["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    if "--profile" in words:
        assert words[words.index("--profile") + 1] in profiles
    declared = set(content["volumes"])
    for service in services.values():
        bound = [volume for volume in service["volumes"] if not isinstance(volume, str)]
        assert {volume.split(":")[0] for volume in service["volumes"] if volume not in bound} <= declared
        assert all(volume["type"] == "bind" for volume in bound)
        # A path may hold a question mark, a colon or a space: it is mounted, never part of an address or a command.
        assert not any("DDRAY_HOME" in word for word in service.get("command", ()))
        assert set(service.get("depends_on", ())) <= set(services)


@functools.cache
def once(
    words: tuple[str, ...], variables: tuple[tuple[str, str], ...], home: Path
) -> subprocess.CompletedProcess[str]:
    """What a command says that stands on several pages."""
    return run(*words, home=home, **dict(variables))


def test_an_option_that_is_not_there_is_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(("sweep", "sweeps/quickstart.yaml", "--card", "1"))


@pytest.mark.parametrize("command", [c for c in commands() if c.words[0] == "ddray" and c.words[1] in CHEAP], ids=str)
def test_cheap_command_runs(command: Command, finished_home: Path) -> None:
    ran = once(command.words[1:], tuple(command.variables.items()), finished_home)
    if command.words[1] == "doctor":  # 3 on a machine that is not fit, which is not the page's fault
        assert ran.returncode in (0, 3), ran.stderr
        assert "python" in ran.stdout
        return
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    if "--json" in command.words:
        json.loads(ran.stdout)
    else:
        assert ran.stdout.strip()


def test_every_cheap_verb_is_shown_or_tested_elsewhere() -> None:
    shown = {command.words[1] for command in commands() if command.words[0] == "ddray"}
    assert set(CHEAP) - shown <= {"schema"}


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_block_runs(block: Block, finished_home: Path, tmp_path: Path) -> None:
    for library in re.findall(r"^import (\w+)", block.text, re.MULTILINE):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"NOT RUN: {library} is not installed")
    (tmp_path / "outputs").symlink_to(finished_home)
    environment = {**os.environ, "DDRAY_HOME": str(tmp_path / "outputs"), "DDRAY_STORE": str(finished_home / "store")}
    ran = subprocess.run(
        [sys.executable, "-c", block.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    assert "random" in ran.stdout


def test_the_quoted_report_has_the_form_of_the_real_one(finished_home: Path) -> None:
    quoted, _ = blocks("text", README)  # the other is held against a sweep that has its evaluations: test_full_grid.py
    shown = [line.partition(": ")[0] for line in quoted.text.splitlines() if line.startswith(("#", "- "))]
    assert len(shown) == 7
    real = [line.partition(": ")[0] for line in run("report", "quickstart", home=finished_home).stdout.splitlines()]
    assert [line for line in shown if line not in real] == []


def test_the_quoted_numbers_are_those_that_are_recorded() -> None:
    """Of the quickstart's report, as the store of ``tests/golden`` gives it; and those of its reading."""
    from goldens import TABLES

    from ddray.report.report import page_of

    (recorded,) = (each for each in TABLES if each.name == "quickstart")
    real = {shape(line) for line in page_of(recorded.shown()["report"]).splitlines()}
    quoted = [line for block in blocks("text", README)[:2] for line in block.text.splitlines()]
    missing = [line for line in map(shape, quoted) if line not in real and not set(line) <= set("|-")]
    assert missing == []
    (table,) = recorded.shown()["report"]["privacy"]
    (row,) = table["rows"]
    dm = row["cells"]["dm"]
    less = {attack: found["less"]["random"] for attack, found in dm["by_attack"].items()}
    said = shape(README.read_text(encoding="utf-8"))
    for sentence in (
        f"with an AUC of {100 * dm['strongest']['value']:.1f}, more than",
        f"of twenty ({100 * dm['as_published']:.1f}; an alarm says so)",
        f"leaks {100 * less['rmia']['value']:.1f} points more than one trained on random images "
        f"({100 * less['rmia']['low']:.1f} to {100 * less['rmia']['high']:.1f}",
        f"`shokri`, shows no difference ({100 * less['shokri']['value']:.1f} points, "
        f"{100 * less['shokri']['low']:.1f} to {100 * less['shokri']['high']:.1f})",
    ):
        assert sentence in said
    assert dm["strongest"]["low"] > dm["as_published"]
    assert less["rmia"]["p_adjusted"] < 0.05 < less["shokri"]["p_adjusted"]


def shape(line: str) -> str:
    return " ".join(line.split())


def test_what_this_version_computes() -> None:
    named = {
        what: set(re.findall(r"\b[a-z]\w+", cells)) for what, cells in table(README, "", "What this version computes")
    }
    assert named["methods"] & set(METHODS) == {
        name for name, method in METHODS.items() if method.settings.__module__.startswith("trainables.")
    }
    assert named["networks"] & set(NETWORKS) == set(NETWORKS)
    assert set(EVALUATIONS) <= set(named)


def test_exit_codes() -> None:
    codes = [int(code) for code, _ in table(README, "exit code")]
    assert codes == [DONE, FAILED, RequestError.exit_code, EnvironmentProblem.exit_code, INTERRUPTED]


def test_places_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddray.settings import folders

    rows = {name: default for name, default, _ in table(README, "variable", "Environment variables")}
    in_code = set(re.findall(r'"(DDRAY_[A-Z]+)"', (ROOT / "ddray" / "settings.py").read_text()))
    assert {name for name in rows if name.startswith("DDRAY_")} == in_code
    for name in rows:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / rows["DDRAY_HOME"]
    expected = {name: Path(default.replace("<home>", str(home))) for name, default in rows.items()}
    found = folders()
    assert found == Folders(home, str(expected["DDRAY_STORE"]), expected["DDRAY_DATA"], expected["DDRAY_CACHE"])


def test_what_is_set_for_libraries() -> None:
    text = README.read_text()
    details = text[text.index("<details>") : text.index("</details>")]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", details, re.MULTILINE)
    assert {name: (value, why) for name, value, why in rows} == RAY_ENVIRONMENT | NUMERIC_ENVIRONMENT


def test_no_host_but_the_public_indices_of_pytorch() -> None:
    """Which packages people get is their own registry's matter."""
    found = set(re.findall(r"https?://([\w.-]+)", README.read_text())) - {"127.0.0.1", "HEAD"}
    assert found == {"download.pytorch.org"}
