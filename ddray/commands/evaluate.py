"""The command: import what was given, then run its evaluations."""

from __future__ import annotations

import contextlib
import json
import sys

from ddray.errors import RequestError, show
from ddray.external.evaluation import FILE, load_evaluation
from ddray.external.options import Options, checked
from ddray.external.planning import info_of, subject_of
from ddray.plan.imported import NAME
from ddray.report.report import machine_report
from ddray.request import Request
from ddray.results import results_of, write_json
from ddray.run.importing import bring_in
from ddray.run.sweep import RunOptions, run_sweep
from ddray.settings import Folders
from ddray.store.artifacts import Store
from trainables.data.cache import build
from trainables.methods import EXTERNAL


def evaluate_file(
    options: Options, run: RunOptions, folders: Folders, *, as_json: bool = False, import_only: bool = False
) -> int:
    """Import what was given and run its evaluations.

    Args:
        options: From the command line.
        run: Where and how jobs run.
        folders: Where things are.
        as_json: Print the machine report instead of the report.
        import_only: Run nothing; sweeps name what was imported.

    Returns:
        The exit code, as of ``run_sweep``.

    Raises:
        RequestError: The request is wrong or lacks a fact, or a file cannot be used.
        EnvironmentProblem: The data set is not there.
    """
    evaluation = checked(options)
    path = results_of(folders, evaluation.name).folder / FILE
    known = load_evaluation(path) if path.is_file() else None
    if known is not None and known.sha256.get(known.kind) != evaluation.sha256.get(evaluation.kind):
        raise RequestError(
            f"--name: {show(evaluation.name)} holds the evaluation of another file; got {evaluation.file}; expected "
            f"{known.file} as it was. Give another --name, or move {path.parent} away."
        )
    store = Store(folders.store, folders.cache / "artifacts")
    if known is not None and known.requested == evaluation.requested and known.content is not None:
        evaluation = evaluation.with_content(known.content)
    info = info_of(evaluation, folders, build, read=True)
    if evaluation.content is None or not store.has(subject_of(evaluation, info).stage().key):
        evaluation = evaluation.with_content(bring_in(evaluation, info, store, folders))
    results_of(folders, evaluation.name).register(Request(path))
    write_json(path, evaluation.model_dump(mode="json", by_alias=True))
    if import_only:
        sys.stderr.write(
            f"imported as {evaluation.name}: name it in a sweep, with method {EXTERNAL} and "
            f"settings: {{{EXTERNAL}: {{{NAME}: {evaluation.name}}}}}\n"
        )
        return 0
    if not as_json:
        return run_sweep(Request(path), run, folders)
    with contextlib.redirect_stdout(sys.stderr):
        code = run_sweep(Request(path), run, folders)
    sys.stdout.write(json.dumps(machine_report(path.parent), sort_keys=True) + "\n")
    return code
