"""Every verb explains itself, and the README lists exactly these."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from pages import ROOT, run, table

from ddray.cli import cli


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_help(verb: str, tmp_path: Path) -> None:
    ran = run(verb, "--help", home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert ran.stdout.startswith(f"Usage: ddray {verb}")
    for parameter in cli.commands[verb].params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.name in ("host", "port"), f"{parameter.name}: no help text"
            assert parameter.opts[0] in ran.stdout
    assert not (tmp_path / "home").exists(), "asking for help makes nothing"


def test_help_of_all_fits_and_lists_every_verb(tmp_path: Path) -> None:
    for arguments in (["--help"], ["-h"]):
        ran = run(*arguments, home=tmp_path)
        assert ran.returncode == 0
        listed = {line.split()[0] for line in ran.stdout.partition("Commands:")[2].splitlines() if line.strip()}
        assert listed == set(cli.commands)


def test_the_readme_lists_the_verbs_with_their_arguments() -> None:
    shown = {}
    for command, meaning in table(ROOT / "README.md", "command"):
        _, verb, *arguments = command.split()
        shown[verb] = " ".join(arguments)
        assert meaning
    assert shown == {
        verb: " ".join(
            parameter.make_metavar(click.Context(command))
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        )
        for verb, command in cli.commands.items()
    }


@pytest.mark.parametrize(
    "arguments, hint",
    [(["chek", "x"], "check"), (["plan", "sweeps/quickstart.yaml", "--jsn"], "--json"), (["check"], "SWEEP")],
)
def test_a_slip_is_a_wrong_request_with_a_hint(arguments: list[str], hint: str, tmp_path: Path) -> None:
    ran = run(*arguments, home=tmp_path)
    assert ran.returncode == 2
    assert hint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_version(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert run("--version", home=tmp_path).stdout.strip().endswith(version("ddray"))
