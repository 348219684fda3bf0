"""`ddray ui`: MLflow's own server on our database, bound to this machine unless told otherwise."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from ddray.errors import EnvironmentProblem, RequestError
from ddray.settings import Folders
from ddray.tracking.content import VIEW
from ddray.tracking.runs import Place, experiments, tracking_uri
from ddray.tracking.schema import check_schema


def serve(folders: Folders, host: str, port: int) -> int:
    """Run the MLflow UI until it is interrupted.

    Returns:
        0: it was interrupted.

    Raises:
        RequestError: There is nothing to show yet, or it is elsewhere.
        EnvironmentProblem: The port is taken, MLflow cannot use the database, or its server ended by itself.
    """
    if folders.tracking:
        raise RequestError(
            [
                f"MLFLOW_TRACKING_URI: runs are mirrored to {Place.of(folders)}; open that in a browser. Unset the "
                f"variable to look at {folders.mlflow_database}."
            ]
        )
    if not folders.mlflow_database.exists():
        raise RequestError(
            [f"{folders.mlflow_database}: nothing to show yet. Run a sweep, or: ddray collect SWEEP --mlflow"]
        )
    check_schema(folders.mlflow_database)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EnvironmentProblem(f"{host}:{port}: cannot be used; got {error}. Choose another --port.") from error
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        tracking_uri(folders.mlflow_database),
        "--default-artifact-root",
        folders.mlflow_artifacts.as_uri(),
    ]
    sys.stderr.write(f"MLflow: http://{host}:{port} (end with Ctrl-C)\n")
    for name, number in experiments(folders.mlflow_database).items():  # the server itself says what is wrong with it
        # Without the first word in the address MLflow opens its pages about language models.
        page = (
            f"http://{host}:{port}/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
        )
        sys.stderr.write(f"  {name}: {page}\n")
    server = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())  # the server must not outlive us
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0
    if code not in (0, -signal.SIGTERM):
        raise EnvironmentProblem(
            f"ddray ui: MLflow's server ended by itself with exit code {code}; its reason stands above. Check with: "
            f"{sys.executable} -m mlflow --version"
        )
    return 0
