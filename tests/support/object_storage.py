"""A local S3, moto's, as a thread of this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow.fs import S3FileSystem


@contextmanager
def local_s3(bucket: str) -> Iterator[str]:
    """Run it, with one bucket, and let the environment lead there; yields its endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "unguessable")
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        try:
            S3FileSystem(
                region="us-east-1", endpoint_override=endpoint, allow_bucket_creation=True
            ).create_dir(bucket)
            yield endpoint
        finally:
            server.stop()
