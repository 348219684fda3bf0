"""Where things are, and the environment variables in force: the one place that reads and sets them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

UI_HOST, UI_PORT = "127.0.0.1", 5000
"""Where ``ddray ui`` shows MLflow unless told otherwise."""
RAY_ENVIRONMENT: dict[str, tuple[str, str]] = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": ("1", "no CSV and JSON files per trial: the store holds the results"),
    "TUNE_MAX_PENDING_TRIALS_PG": ("64", "the default of one pending trial costs 2.5 s a job; the searcher admits"),
    "TUNE_GLOBAL_CHECKPOINT_S": ("86400", "Tune's own state is scratch; the store is the truth"),
    "TUNE_FORCE_TRIAL_CLEANUP_S": ("10", "an interrupted sweep must end within 25 s"),
    "TUNE_DISABLE_SIGINT_HANDLER": ("1", "we stop gently: stages checkpoint first"),
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": ("1", "a job reports an outcome, not a metric to optimise"),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": ("0", "failures are told by our own summary, with the command to look closer"),
    "TUNE_WARN_THRESHOLD_S": ("5", "silence about slow steps that are not slow"),
    "RAY_AIR_NEW_OUTPUT": ("0", "our own live table"),
    "RAY_CHDIR_TO_TRIAL_DIR": ("0", "relative paths keep their meaning in a worker"),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": ("0", "`uv run ddray …` must not rebuild the environment in every worker"),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": ("0", "keeps CUDA_VISIBLE_DEVICES as it is for jobs without a GPU"),
    "RAY_USAGE_STATS_ENABLED": ("0", "nothing is sent anywhere"),
    "GIT_PYTHON_REFRESH": ("quiet", "foolbox and MLflow import GitPython, which fails where git is missing"),
    "MLFLOW_DISABLE_TELEMETRY": ("true", "nothing is sent anywhere"),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": ("3", "a server that does not answer is said after seconds, not minutes"),
    "PYTHONHASHSEED": ("0", "workers iterate sets in one order"),
}
"""Variable -> (value, reason). A value the user has set is left alone."""

NUMERIC_ENVIRONMENT: dict[str, tuple[str, str]] = {
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", "cuBLAS gives the same bytes only with a fixed workspace"),
}
LONGEST_TEMPORARY = 107 - len("/ray/session_2026-11-26_01-42-43_903000_4194304/sockets/plasma_store_0")
"""Bytes of a folder in which the names of Ray's sockets still fit into the 107 that Linux allows."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders in force. All absolute, so that they mean the same in every worker."""

    home: Path
    store: str
    """A path or a URL."""
    data: Path
    cache: Path
    tracking: str = ""
    """Address of an MLflow that is not ours, whose runs are in a server or a database of its own; "": ours."""

    @property
    def results(self) -> Path:
        return self.home / "results"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def mlflow_database(self) -> Path:
        return self.home / "mlflow" / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.home / "mlflow" / "artifacts"


def folders() -> Folders:
    """Read DDRAY_HOME, DDRAY_STORE, DDRAY_DATA, DDRAY_CACHE and MLFLOW_TRACKING_URI."""
    home = _folder("DDRAY_HOME", Path("outputs"))
    store = os.environ.get("DDRAY_STORE") or str(home / "store")
    if "://" not in store:
        store = str(Path(store).expanduser().absolute())
    return Folders(
        home=home,
        store=store,
        data=_folder("DDRAY_DATA", home / "data"),
        cache=_folder("DDRAY_CACHE", home / "cache"),
        tracking=os.environ.get("MLFLOW_TRACKING_URI", ""),
    )


def set_environment() -> None:
    """Set what Ray, Tune and the libraries read from the environment, before they are imported."""
    for name, (value, _) in (RAY_ENVIRONMENT | NUMERIC_ENVIRONMENT).items():
        os.environ.setdefault(name, value)


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()
