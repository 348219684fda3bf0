"""`ddray ui`: MLflow's own server on our database, bound to this machine unless told otherwise."""

from __future__ import annotations

import socket
import subprocess
import sys

from ddray.errors import EnvironmentProblem, RequestError
from ddray.settings import Places


def serve(places: Places, host: str, port: int) -> int:
    """Run the MLflow UI until it is interrupted.

    Returns:
        The server's exit code; an interruption is 0.

    Raises:
        RequestError: There is nothing to show yet.
        EnvironmentProblem: The port is taken.
    """
    if not places.mlflow_database.exists():
        raise RequestError(
            [f"{places.mlflow_database}: nothing to show yet. Run a sweep, or: ddray collect SWEEP --mlflow"]
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EnvironmentProblem(f"{host}:{port}: cannot be used; got {error}. Choose another --port.") from error
    command = [
        sys.executable, "-P", "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{places.mlflow_database}",
        "--default-artifact-root", places.mlflow_artifacts.as_uri(),
    ]  # fmt: skip
    sys.stderr.write(f"MLflow: http://{host}:{port} (end with Ctrl-C)\n")
    try:
        return subprocess.run(command).returncode
    except KeyboardInterrupt:
        return 0
