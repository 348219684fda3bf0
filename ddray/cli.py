"""The command line. Light: heavy imports stand inside the commands that need them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from ddray.errors import DdrayError, EnvironmentProblem, without_addresses
from ddray.run.causes import CAUSES
from ddray.run.signals import interrupting
from ddray.settings import UI_HOST, UI_PORT, folders, set_environment

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = 130
RUN_OPTIONS = (
    *("local", "address", "cpus", "gpus", "gpus_expected", "wait_for_nodes", "mps"),
    *("gpu", "precision", "mlflow", "quiet"),
)
"""What ``run_options`` adds: the fields of ``ddray.run.sweep.RunOptions``."""


def main() -> None:
    """The console script: every expected error becomes a message and an exit code, never a traceback."""
    with interrupting():
        try:
            set_environment()
            code = cli.main(standalone_mode=False)
        except (click.exceptions.Abort, KeyboardInterrupt):
            click.echo("interrupted; what is finished is kept. Run the same command again to continue.", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except DdrayError as error:
            click.echo(without_addresses(str(error)), err=True)
            code = error.exit_code
        except BrokenPipeError:
            sys.stderr.close()
            code = 0
        except OSError as error:  # no request is to blame for it, and no traceback helps
            click.echo(f"the system refused: {error}. Look at the disk, its rights and its space.", err=True)
            code = EnvironmentProblem.exit_code
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ddray", prog_name="ddray")
def cli() -> None:
    """What does a model trained on a distilled set cost you, in accuracy, privacy, robustness and fairness?

    SWEEP is the path of a sweep file, or the name of a sweep that was run before.
    """


def sweep_options(command: Command) -> Command:
    """SWEEP and what narrows or changes it."""
    options = [
        click.argument("sweep"),
        click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change one value of the sweep file."),
        click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Apply a profile of the sweep file."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def filter_options(command: Command) -> Command:
    """What narrows what is run, never what counts as coverage."""
    options = [
        click.option("--only", multiple=True, metavar="AXIS=A,B", help="Run only points with these values."),
        click.option("--skip", multiple=True, metavar="AXIS=A,B", help="Leave out points with these values."),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Run only the first N points."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where and how jobs run; the command gets them as ``run``."""

    @wraps(command)
    def wrapped(**given: Any) -> Any:
        said = {name: given.pop(name) for name in RUN_OPTIONS}
        _check_address(given.get("sweep", "..."), **{name: said[name] for name in RUN_OPTIONS[:7]})
        from ddray.run.sweep import RunOptions

        return command(run=RunOptions(**said), **given)

    options = [
        click.option("--local", is_flag=True, help="Run the jobs in this process, without Ray."),
        click.option(
            "--address", metavar="HOST:PORT", help="Use the Ray cluster at this address (`auto` on one of its nodes)."
        ),
        click.option("--cpus", type=click.IntRange(min=1), help="CPUs to use on this machine.  [default: all]"),
        click.option("--gpus", type=click.IntRange(min=0), help="GPUs to use on this machine.  [default: all]"),
        click.option(
            "--gpus-expected",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="GPUs that the cluster will have once it has grown: jobs ask for them before they are there.",
        ),
        click.option(
            "--wait-for-nodes",
            type=click.FloatRange(min=0),
            metavar="MINUTES",
            help="Wait so long, with nothing to do, for nodes that jobs need and the cluster does not have yet.",
        ),
        click.option(
            "--mps",
            is_flag=True,
            help="Start the driver's multi-process service, under which jobs that share a card compute at one time.",
        ),
        click.option(
            "--gpu",
            metavar="DEVICE",
            help="What cards the cluster has (v100-32g, h100-80g, ...): shares follow from their memory.  "
            "[default: as here, else v100-32g]",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "tf32", "bf16"]),
            default="float32",
            show_default=True,
            help="Of the networks' arithmetic; what is finished stays as it is.",
        ),
        click.option("--mlflow/--no-mlflow", default=True, help="Mirror the results to MLflow.", show_default=True),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
    ]
    found: Callable[..., Any] = wrapped
    for option in reversed(options):
        found = option(found)
    return found


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How long, until when, for how much: handed over as one ``within``."""

    @wraps(command)
    def wrapped(given_for: str | None, until: str | None, budget: str | None, **rest: Any) -> Any:
        from datetime import datetime

        from ddray.run.limits import limit_of

        return command(within=limit_of(given_for, until, budget, datetime.now().astimezone()), **rest)

    found: Callable[..., Any] = wrapped
    for option in reversed(
        [
            click.option("--for", "given_for", metavar="TIME", help="Only what ends within 90m, 12h, 2d, ..."),
            click.option("--until", metavar="TIME", help="Only what ends by 18:00, or by 2026-12-01 08:00."),
            click.option(
                "--budget", metavar="HOURS", help="Only what costs so many hours of cards (or cores), like 200h."
            ),
        ]
    ):
        found = option(found)
    return found


def _request(sweep: str, sets: tuple[str, ...], profiles: tuple[str, ...], **filters: Any) -> Any:
    from dataclasses import replace

    from ddray.results import find_sweep

    found = find_sweep(folders(), sweep)
    if sets or profiles or found.path == Path(sweep):
        found = replace(found, sets=sets, profiles=profiles)
    return replace(found, **filters)


def prepared_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the prepared sweep instead of the arguments that describe it."""

    @wraps(command)
    def wrapped(sweep: str, sets: tuple[str, ...], profiles: tuple[str, ...], **rest: Any) -> Any:
        from ddray.prepare import prepare
        from trainables.data.cache import build

        filters = {name: rest.pop(name) for name in ("only", "skip", "limit") if name in rest}
        return command(prepare(_request(sweep, sets, profiles, **filters), folders(), build), **rest)

    return wrapped


@cli.command(short_help="Is the sweep file valid?")
@sweep_options
@prepared_command
def check(prepared: Any) -> None:
    """Is the sweep file valid? Says everything that is wrong, at once."""
    points, stages = len(prepared.plan.chains), len(prepared.plan.stages)
    click.echo(f"{prepared.sweep.name}: valid; {points} points, {stages} stages")
    for note in prepared.notes:
        click.echo(f"note: {note}")


@cli.command(short_help="Points, stages and jobs: finished, to do, blocked.")
@sweep_options
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--points", "show_points", is_flag=True, help="List the points.")
@click.option("--gpu", metavar="DEVICE", help="Price it for this card (v100-32g, h100-80g, ...) or cpu-N.")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="So many of them.  [default: what is here]")
@click.option("--simulate", is_flag=True, help="Say when what would be done; --json lists every job.")
@click.option(
    "--gantt", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw that (.png, .svg, .pdf)."
)
@limit_options
@prepared_command
def plan(
    prepared: Any,
    as_json: bool,
    show_points: bool,
    gpu: str | None,
    gpus: int | None,
    simulate: bool,
    gantt: Path | None,
    within: Any,
) -> None:
    """How many points, stages and jobs: total, finished, to do, blocked and why; what they cost. Starts nothing."""
    from ddray.commands.plan import Ahead, plan_facts, plan_text
    from ddray.price.devices import machine

    facts = plan_facts(prepared, folders(), machine(gpu, gpus), Ahead(simulate, within, gantt))
    click.echo(json.dumps(facts, sort_keys=True) if as_json else plan_text(prepared.plan, facts, show_points))


@cli.command(short_help="What its stages take here, from a few steps of each.")
@sweep_options
@filter_options
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=8.0, show_default=True, help="Of each trial, after its start."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@prepared_command
def calibrate(prepared: Any, seconds: float, as_json: bool) -> None:
    """What a sweep's stages take on this device: a few steps of every shape that the store knows nothing of.

    Then the quickest of them beside itself, twice, four and eight times: whether jobs together do more work than one
    after the other. What is seen is kept in the store, and `ddray plan` and `ddray sweep` go by it.
    """
    from ddray.commands.calibrate import calibrated, calibrated_text
    from trainables.data.cache import build

    facts = calibrated(prepared, folders(), build, seconds)
    click.echo(json.dumps(facts, sort_keys=True) if as_json else calibrated_text(facts))


@cli.command()
@sweep_options
@filter_options
@limit_options
@run_options
def sweep(
    sweep: str,
    sets: tuple[str, ...],
    profiles: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    limit: int | None,
    within: Any,
    run: Any,
) -> int:
    """Compute what is missing of a sweep, then its tables. Running it again continues."""
    from dataclasses import replace

    from ddray.run.sweep import run_sweep

    request = _request(sweep, sets, profiles, only=only, skip=skip, limit=limit)
    return run_sweep(request, replace(run, limit=within), folders())


@cli.command(short_help="What failed, by cause, and what helps.")
@sweep_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@prepared_command
def failures(prepared: Any, as_json: bool) -> None:
    """What failed of a sweep, by cause: which stages, what waits for them, what helps."""
    from ddray.commands.failures import failures_text
    from ddray.run.failed import failures_facts
    from ddray.store.artifacts import Store

    facts = failures_facts(prepared, Store(folders().store, folders().cache / "artifacts"))
    click.echo(json.dumps(facts, sort_keys=True) if as_json else failures_text(facts))


@cli.command(short_help="Run again what failed, by cause.")
@sweep_options
@filter_options
@click.option(
    "--cause",
    "causes",
    multiple=True,
    type=click.Choice(list(CAUSES)),
    help="Only what failed for it; several: any of them.  [default: all]",
)
@limit_options
@run_options
def retry(
    sweep: str,
    sets: tuple[str, ...],
    profiles: tuple[str, ...],
    causes: tuple[str, ...],
    within: Any,
    run: Any,
    **filters: Any,
) -> int:
    """Run again the points of a sweep that failed, and nothing else; `ddray failures` lists them."""
    from dataclasses import replace

    from ddray.run.sweep import run_sweep

    options = replace(run, limit=within, failed_for=causes or tuple(CAUSES))
    return run_sweep(_request(sweep, sets, profiles, **filters), options, folders())


@cli.command(short_help="The suite, for a set or model made elsewhere.")
@click.option(
    "--set",
    "set_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A distilled set: a file, or a folder of pictures.",
)
@click.option("--model", "model_file", type=click.Path(path_type=Path), metavar="FILE", help="A trained network.")
@click.option("--dataset", metavar="NAME", help="What the set stands for, or the network tells apart.")
@click.option(
    "--datasets",
    type=click.Path(path_type=Path),
    metavar="SWEEP",
    help="A sweep file that declares data sets of your own; --dataset may then be one of them.",
)
@click.option(
    "--architecture",
    "architectures",
    multiple=True,
    metavar="NAME",
    help="The model's; of a set, what is trained on it (several: once each).  [default of a set: convnet3]",
)
@click.option("--name", help="Of results/NAME.  [default: the file's]")
@click.option("--classes", metavar="A,B,...", help="The data set's classes that take part, by number.  [default: all]")
@click.option(
    "--normalisation",
    metavar="NAME",
    help="What images are normalised with: the constants of a data set, or none. Instead of --mean and --std.",
)
@click.option("--mean", metavar="A,B,C", help="Per channel, of images in [0, 1].")
@click.option("--std", metavar="A,B,C", help="Per channel, of images in [0, 1].")
@click.option(
    "--space",
    type=click.Choice(["pixel01", "normalised", "whitened"]),
    help="What the numbers of the set's images are; whitened: by ZCA of all training images.",
)
@click.option(
    "--unwhiten", is_flag=True, help="Train on the pixels of a whitened set.  [default: whitened, as made for]"
)
@click.option(
    "--factor", type=click.IntRange(1, 8), help="Each image holds FACTOR x FACTOR of them (IDC).  [default: 1]"
)
@click.option("--labels", metavar="FILE", help="The set's labels, or `class-major`.  [default: in the set's file]")
@click.option(
    "--label-form",
    type=click.Choice(["logits", "probabilities", "targets"]),
    help="What soft labels are.  [default: labels are hard]",
)
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), help="T that logits are read at.")
@click.option(
    "--label-source", type=click.Choice(["learned", "teacher"]), help="Whether soft labels were learned or a network's."
)
@click.option(
    "--image-classes",
    metavar="FILE",
    help="Of images with soft labels: a file, `class-major` or `argmax`.  [default: in the set's file]",
)
@click.option("--learned-lr", metavar="NUMBER|FILE", help="A learning rate that was learned with the set.")
@click.option("--learned-for", metavar="NAME", help="The network that it is for.  [default: the one --architecture]")
@click.option("--nth", type=click.IntRange(min=0), help="Which set of a file that holds several, from 0.")
@click.option("--protocol", metavar="NAME", help="Recipe of the trainings.  [default: paper2023]")
@click.option("--train", multiple=True, metavar="NAME=VALUE", help="Change one value of the recipe.")
@click.option("--seeds", metavar="A,B,...", help="Of the trainings.  [default: 0]")
@click.option("--robustness", metavar="A,B,...", help="Attacks, or `none`.  [default: deepfool_l2,deepfool_linf]")
@click.option("--images", type=click.IntRange(min=1), help="Test images that are attacked.  [default: 1000]")
@click.option("--embedding", is_flag=True, help="Also where the set lies among real images (trains an encoder).")
@click.option(
    "--members",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Training images it was made of: indices, or the JSON of an origin. Privacy needs it.",
)
@click.option(
    "--members-order",
    type=click.Choice(["files", "canonical"]),
    help="What indices count: images in the order of the data set's files, or in ddray's own.",
)
@click.option(
    "--import-only", is_flag=True, help="Only read the file; a sweep's method `external` names it then by --name."
)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run: Any, as_json: bool, import_only: bool, datasets: Path | None, **given: Any) -> int:
    """Run the suite on what ddray did not make: train on a distilled set, or take a trained model as it is.

    Files are safetensors, npz, or what torch.save writes of tensors; nothing in them is run. What a file does not say
    is asked for, never guessed. The results are a sweep's, under the name.
    """
    from ddray.commands.evaluate import evaluate_file
    from ddray.external.options import Options
    from ddray.prepare import load

    declared = load(datasets).datasets if datasets is not None else {}
    return evaluate_file(Options(datasets=declared, **given), run, folders(), as_json=as_json, import_only=import_only)


@cli.command(short_help="Rebuild the tables and the report from the store.")
@sweep_options
@click.option("--mlflow", is_flag=True, help="Mirror to MLflow too.")
@click.option("--samples", is_flag=True, help="Write samples/ and artifacts.parquet too: every example, every file.")
@prepared_command
def collect(prepared: Any, mlflow: bool, samples: bool) -> None:
    """Rebuild measurements.parquet, coverage.json, report.md and embeddings.parquet from the store."""
    from ddray.results import results_of
    from ddray.run.sweep import mirror_to_mlflow, rebuild
    from ddray.store.artifacts import Store

    here = folders()
    store = Store(here.store, here.cache / "artifacts")
    results = results_of(here, prepared.sweep.name)
    results.register(prepared.request)
    finished = rebuild(prepared, results, store)
    if samples:
        _companions(prepared, results.folder, store)
    if mlflow:
        mirror_to_mlflow(prepared, results, store, here)
    click.echo(f"{results.measurements}: {finished.done} of {finished.points} points done")


def _companions(prepared: Any, folder: Path, store: Any) -> None:
    """The tables beside the measurements that are made on request: examples and files."""
    from ddray.measurements.exports.artifacts import ARTIFACTS_FILE, write_artifacts
    from ddray.measurements.exports.samples import SAMPLES_FOLDER, write_samples

    rows = write_samples(prepared.plan, prepared.sweep, store, folder)
    click.echo(f"{folder / SAMPLES_FOLDER}: {rows} rows")
    click.echo(f"{folder / ARTIFACTS_FILE}: {write_artifacts(prepared.plan, store, folder)} files")


@cli.command(short_help="The numbers of a sweep, beside the paper's values.")
@sweep_options
@click.option("--full", is_flag=True, help="Print all of it, not its first page.")
@click.option(
    "--format", "form", type=click.Choice(["md", "csv", "latex", "html", "json"]), help="Print all of it as ..."
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--claims", is_flag=True, help="Only what the sweep says of the paper's claims.")
@click.option("--figures", is_flag=True, help="Draw the figures as SVG, PNG and PDF, and print their names.")
@click.option("--open", "in_browser", is_flag=True, help="Open report.html in a browser.")
@prepared_command
def report(prepared: Any, full: bool, form: str | None, claims: bool, figures: bool, in_browser: bool) -> None:
    """The answer in short, coverage and alarms; with --full every table.

    Accuracy, fairness, robustness, informativeness; membership inference as in the paper's Tables 1 and 2. The paper's
    values stand beside ours where they may be compared. report.html in the results folder has the figures.
    """
    from ddray.commands.report import figures_text, report_text
    from ddray.results import results_of

    folder = results_of(folders(), prepared.sweep.name).folder
    text = figures_text(prepared, folder) if figures else report_text(prepared, folder, form, full, claims)
    click.echo(text, nl=False)
    if in_browser:
        click.launch(str(folder / "report.html"))


@cli.command(short_help="What two results say differently.")
@click.argument("first")
@click.argument("second")
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Of docs/metrics.md.  [default: the headlines]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def diff(first: str, second: str, metrics: tuple[str, ...], as_json: bool) -> None:
    """What two results say differently: what made them, experiments that only one has, numbers.

    FIRST and SECOND are names of sweeps that were run here, or results folders, also of another version.
    """
    from ddray.commands.diff import diff_facts, diff_text

    facts = diff_facts(first, second, metrics)
    click.echo(json.dumps(facts, sort_keys=True) if as_json else diff_text(facts))


@cli.command(short_help="Distilled sets as files for other programs.")
@sweep_options
@click.argument("into", type=click.Path(path_type=Path, file_okay=False))
@filter_options
@click.option(
    "--form",
    type=click.Choice(["safetensors", "dc", "mtt", "idc", "png"]),
    default="safetensors",
    show_default=True,
    help="How they are written: dc, mtt, idc as the authors' programs do; png: to look at.",
)
@prepared_command
def export(prepared: Any, into: Path, form: str) -> None:
    """Write the finished distilled sets of a sweep below INTO, a folder each, and sets.json: how to read them.

    `ddray evaluate` reads every form again, png with its 256 levels.
    """
    from ddray.commands.export import INDEX, export_sets
    from ddray.store.artifacts import Store

    here = folders()
    written = export_sets(prepared, Store(here.store, here.cache / "artifacts"), into, form)
    click.echo(f"{into}: {len(written)} sets; what a reader has to know of them stands in {into / INDEX}")


@cli.command(short_help="One SELECT over the measurements.")
@click.argument("sql", metavar="SELECT")
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME", help="Only of this sweep; several: of these.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="Of the answer.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there.")
def query(sql: str, sweeps: tuple[str, ...], form: Any, out: Path | None) -> None:
    """Answer a question in SQL: one SELECT over the table `measurements` of all sweeps that were run here.

    It has the columns of docs/metrics.md, a row for each number. Nothing else can be read, nothing can be written.
    """
    from ddray.commands import query as queries

    click.echo(queries.written(queries.query(folders(), sql, sweeps), form, out), nl=False)


@cli.command(short_help="What runs and what is done.")
@click.argument("sweep", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Again every two seconds, while something runs.")
def status(sweep: str | None, as_json: bool, watch: bool) -> None:
    """What runs and what is done, of one sweep or of all that were run here.

    Also how the last run ended, where its checkpoints are, and how to go on.
    """
    from ddray.commands.status import status_facts, status_text, watched

    for facts in watched(lambda: status_facts(folders(), sweep), watch):
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(facts, sort_keys=True) if as_json else status_text(facts))


@cli.command(short_help="What is behind a key, a label or a run's name.")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(key: str, as_json: bool) -> None:
    """What is behind a key: numbers, configuration, inputs, provenance, or why it failed.

    KEY is the beginning of a stage's key, the label of a stage, or a point: the name of its run in MLflow, or the
    beginning of its hash.
    """
    from ddray.commands.browse import show_facts, show_text

    facts = show_facts(folders(), key)
    click.echo(json.dumps(facts, sort_keys=True) if as_json else show_text(facts))


@cli.command(short_help="Run one stage here, with its traceback.")
@click.argument("key")
@click.option("--pdb", is_flag=True, help="Open the debugger where it fails.")
def debug(key: str, pdb: bool) -> int:
    """Run one stage here, in this process, with its traceback."""
    from ddray.commands.browse import debug_stage

    return debug_stage(folders(), key, pdb=pdb)


@cli.command(short_help="Is this machine fit?")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> int:
    """Is this machine fit: versions, GPU and torch, Ray, data, disk, settings in force."""
    from ddray.commands.doctor import examine, text

    findings = examine(folders())
    click.echo(json.dumps([finding.as_json() for finding in findings]) if as_json else text(findings))
    return 3 if any(finding.level == "bad" for finding in findings) else 0


@cli.command(short_help="Published settings of a method, each with its source.")
@click.argument("method", required=False)
@click.argument("dataset", required=False)
@click.argument("ipc", required=False, type=click.IntRange(min=1))
@click.option("--set", "sets", multiple=True, metavar="SETTING=VALUE", help="As if the sweep set this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def preset(method: str | None, dataset: str | None, ipc: int | None, sets: tuple[str, ...], as_json: bool) -> None:
    """What a sweep gets that sets nothing: every value with its source, and which are borrowed or ours.

    Without IPC: for every number of images per class that something is published for. Without DATASET: what there is.
    """
    from ddray.commands.preset import methods_facts, methods_text, preset_facts, preset_text

    if method is None or dataset is None:
        if sets:
            raise click.UsageError("--set needs METHOD and DATASET.")
        facts, text = methods_facts(method), methods_text
    else:
        facts, text = preset_facts(method, dataset, ipc, sets), preset_text
    click.echo(json.dumps(facts, sort_keys=True) if as_json else text(facts))


@cli.command(short_help="Begin a method of your own.")
@click.argument("kind", type=click.Choice(["method"]), metavar="method")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="Folder to put it in.  [default: here]")
def new(kind: str, name: str, into: Path) -> None:
    """Write a package that adds a method: it works at once, with a test that holds it to every method's promises.

    NAME is what sweep files will say: lower-case letters, digits, underscores.
    """
    from ddray.commands.new import new_method, next_steps

    folder = new_method(name, into)
    click.echo(next_steps(name, folder))


@cli.command(short_help="The JSON schema of sweep files, for editors.")
def schema() -> None:
    """The JSON schema of sweep files, for editors."""
    from ddray.plan.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


@cli.command(short_help="Open MLflow on the results.")
@click.option("--host", default=UI_HOST, show_default=True)
@click.option("--port", default=UI_PORT, show_default=True, type=click.IntRange(1, 65535))
def ui(host: str, port: int) -> int:
    """Open MLflow on the results."""
    from ddray.commands.ui import serve

    return serve(folders(), host, port)


def _check_address(
    sweep: str,
    *,
    address: str | None,
    local: bool,
    cpus: int | None,
    gpus: int | None,
    gpus_expected: int,
    wait_for_nodes: float | None,
    mps: bool,
) -> None:
    """Refuse what cannot work before anything else is looked at."""
    if mps and (local or address is not None):
        raise click.UsageError(
            "--mps is for a Ray that is started here. With --local one job runs at a time; on the nodes of a cluster "
            "start the service before Ray: nvidia-cuda-mps-control -d"
        )
    if address is None and (gpus_expected or wait_for_nodes is not None):
        raise click.UsageError(
            "--gpus-expected and --wait-for-nodes are for a cluster that grows, at --address; this machine does not."
        )
    if address is None:
        return
    if local:
        raise click.UsageError("--local and --address exclude each other: --local runs without Ray.")
    if cpus is not None or gpus is not None:
        raise click.UsageError("--cpus and --gpus are for a Ray started here; a cluster at --address has its own.")
    if address.startswith("ray://"):
        host = address.removeprefix("ray://").split(":")[0]
        raise click.UsageError(
            f"--address: got {address!r}; expected `auto` or HOST:PORT, from a node of the cluster. "
            f"From outside, submit the driver instead:\n    ray job submit --address http://{host}:8265 -- "
            f"ddray sweep {sweep} --address auto"
        )
