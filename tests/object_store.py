"""A real S3-compatible server in this process, which notes what it is asked: moto's, behind a little WSGI."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BUCKET = "bucket"


class ObjectStore:
    """A bucket behind HTTP."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.asked: list[str] = []
        """Every HTTP request: ``GET /bucket?list-type=2…``."""
        application = DomainDispatcherApplication(create_backend_app)

        def noting(environment: dict[str, Any], start: Any) -> Any:
            self.asked.append("{REQUEST_METHOD} {PATH_INFO}?{QUERY_STRING}".format(**environment))
            return application(environment, start)

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._server = make_server("127.0.0.1", 0, noting, threaded=True)

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def location(self) -> str:
        """The URL of a store that nobody has used."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"

    def hold(self, folder: Path, location: str) -> None:
        """Let the server hold the files of a folder, without asking it three times for each."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        backend, prefix = s3_backends[DEFAULT_ACCOUNT_ID]["aws"], location.removeprefix(f"s3://{BUCKET}/")
        for path in folder.rglob("*"):
            if path.is_file():
                backend.put_object(BUCKET, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    @contextlib.contextmanager
    def serving(self) -> Iterator[ObjectStore]:
        """The server at work, and its bucket made."""
        import fsspec

        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in self.variables.items():
                    patch.setenv(name, value)
                fsspec.filesystem("s3").mkdir(BUCKET)
                yield self
        finally:
            self._server.shutdown()
            thread.join()
