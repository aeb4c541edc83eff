"""An S3 of the test's own, with the bucket `exports`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.fetching import CANARY, CONTENT

KEY = {"AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16, "AWS_SECRET_ACCESS_KEY": CANARY * 2, "AWS_REGION": "eu-south-1"}


@contextmanager
def running_s3() -> Iterator[dict[str, str]]:
    """The variables with which it is read."""
    pytest.importorskip("obstore")
    moto, boto3 = pytest.importorskip("moto.server"), pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        variables = KEY | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        client = boto3.client(
            "s3", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x",
        )  # fmt: skip
        client.create_bucket(Bucket="exports")
        yield variables
    finally:
        server.stop()


class Bucket:
    """The bucket `exports`."""

    root = "s3://exports"

    def __init__(self, variables: Mapping[str, str]) -> None:
        import obstore

        self.variables = variables
        config = {name.lower(): value for name, value in variables.items()}
        opened: Any = obstore.store.from_url
        self._store = opened(self.root, config=config, client_options={"allow_http": True})
        self._obstore: Any = obstore

    def put(self, key: str, content: bytes = CONTENT) -> None:
        self._obstore.put(self._store, key, content)

    def remove(self, key: str) -> None:
        self._obstore.delete(self._store, key)

    def names(self) -> dict[str, bytes]:
        keys = [meta["path"] for chunk in self._obstore.list(self._store) for meta in chunk]
        return {key: bytes(self._obstore.get(self._store, key).bytes()) for key in keys}

    def clear(self) -> None:
        for key in self.names():
            self.remove(key)
