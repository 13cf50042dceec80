"""An S3 server in this process (moto's), with faults on demand."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
BUCKET = "judge"


class Faults:
    """Answers the next requests wrongly: `busy` with 503, `slow` after a pause, `cut` with half of what they give."""

    def __init__(self, application: Application):
        self._application = application
        self.pending: list[str] = []
        self.requests: list[str] = []
        self.every: int | None = None  # each so many requests one is busy and one is cut

    def __call__(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(f"{request['REQUEST_METHOD']} {request['PATH_INFO']}")
        fault = self.pending.pop(0) if self.pending else None
        if self.every is not None and len(self.requests) % self.every == 0:
            fault = ("busy", "cut")[len(self.requests) // self.every % 2]
        if fault == "busy":
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Retry-After", "0")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        if fault == "slow":
            time.sleep(0.5)
        answer = self._application(request, start)
        return self._half(answer) if fault == "cut" else answer

    def _half(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        content = b"".join(answer)
        yield content[: len(content) // 2]
        raise ConnectionAbortedError("cut off on purpose")


class ObjectStore:
    """`client` is boto3's, and sees no faults; `url` begins the names of all objects."""

    def __init__(self) -> None:
        application = DomainDispatcherApplication(create_backend_app)
        self.faults = Faults(application)
        self._servers = [make_server("127.0.0.1", 0, each, threaded=True) for each in (self.faults, application)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        faulty, sound = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self.environment = {
            "AWS_ENDPOINT_URL": faulty,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.client = boto3.client(
            "s3", endpoint_url=sound, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        self.client.create_bucket(Bucket=BUCKET)
        self.url = f"s3://{BUCKET}"

    def names(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def content(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def empty(self) -> None:
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)

    def put(self, name: str, content: bytes) -> str:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)
        return f"{self.url}/{name}"

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
