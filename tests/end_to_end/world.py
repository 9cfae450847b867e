"""What an end-to-end test needs: the daemon as a process, handlers that keep a ledger, clients of the emulators."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests import servers

ACCOUNT = "000000000000"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"

HANDLER = """
import base64, json, os, time

def note(**entry):
    line = json.dumps({"at": time.time(), "pid": os.getpid(), **entry}) + "\\n"
    fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)

def body(record):
    if "body" in record:
        return json.loads(record["body"]), record["messageId"]
    if "kinesis" in record:
        return json.loads(base64.b64decode(record["kinesis"]["data"])), record["kinesis"]["sequenceNumber"]
    image = record["dynamodb"]["NewImage"]
    return {"id": image["id"]["S"], "key": image["key"]["S"]}, record["dynamodb"]["SequenceNumber"]

def handler(event, context):
    found = [body(record) for record in event["Records"]]
    time.sleep(float(os.environ.get("SLEEP_S", "0")))
    bad = [item for data, item in found if data.get("id", "").startswith("poison")]
    mode = os.environ.get("MODE", "raise")
    if bad and mode == "raise":
        note(failed=[data["id"] for data, _ in found])
        raise ValueError("poison")
    note(taken=[[data.get("key"), data["id"]] for data, item in found if item not in bad],
         counts=[record.get("attributes", {}).get("ApproximateReceiveCount") for record in event["Records"]])
    return {"batchItemFailures": [{"itemIdentifier": item} for item in bad]}
"""


def client(service: str, url: str) -> Any:
    """A boto3 client of an emulator."""
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


def wait_for(what: Callable[[], Any], text: str, timeout_s: float = 40) -> Any:
    """The first true answer of `what`; fails with `text` after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.1)
    return pytest.fail(f"not within {timeout_s} s: {text}")


class World:
    """One test's folder, ledger, configuration and daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger_path = folder / "ledger"
        self.config_path = folder / "esm.yaml"
        self.log_path = folder / "daemon.log"
        self.environ: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "code").mkdir()
        (folder / "code" / "app.py").write_text(HANDLER)

    def function(self, **more: Any) -> dict[str, Any]:
        """A hosted function over the handler above; `more` overrides, lower-case names are its variables."""
        variables = {"LEDGER": str(self.ledger_path), **{k: v for k, v in more.items() if k.isupper()}}
        members = {k: v for k, v in more.items() if not k.isupper()}
        return {
            "Runtime": RUNTIME, "Handler": "app.handler", "CodeUri": "./code", "Timeout": 3,
            "Environment": {"Variables": variables}, **members,
        }  # fmt: skip

    def configure(self, **document: Any) -> None:
        """Write the configuration file, as an editor does: a new file in its place."""
        document = {"region": REGION, "account_id": ACCOUNT, **document}
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(document))
        fresh.replace(self.config_path)

    def start(self, *arguments: str, program: tuple[str, ...] = ("-m", "esm"), **settings: str) -> None:
        """Start the daemon, or another program with its arguments, and wait until it is ready."""
        port = servers.free_port()
        self.metrics_url = f"http://127.0.0.1:{port}"
        api_port = servers.free_port()
        self.api_url = f"http://127.0.0.1:{api_port}"
        environ = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), **CREDENTIALS, "ESM_LOG_LEVEL": "DEBUG",
            "ESM_STATE": f"sqlite:///{self.folder}/state.db", "ESM_METRICS_ADDRESS": f"127.0.0.1:{port}",
            "ESM_API_ADDRESS": f"127.0.0.1:{api_port}",
            "ESM_SQS_WAIT_S": "1", "ESM_SHUTDOWN_GRACE_S": "10", "ESM_KINESIS_READS_PER_S": "5",
            "ESM_KINESIS_IDLE_READS_PER_S": "5", "ESM_DYNAMODB_IDLE_READS_PER_S": "4",
            "ESM_HOST_ISOLATION": "none",  # the ledger lies where no sandbox sees it
            **self.environ, **settings,
        }  # fmt: skip
        self.settings = environ
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, "run", "-c", str(self.config_path), *arguments],
                env=environ, stdout=log, stderr=log, cwd=servers.ROOT, start_new_session=True,
            )  # fmt: skip
        wait_for(self._is_ready, "the daemon is ready")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `esm` command with the daemon's settings."""
        environ = getattr(self, "settings", {"PATH": os.environ["PATH"], **CREDENTIALS})
        return subprocess.run(
            [sys.executable, "-m", "esm", *arguments, "-c", str(self.config_path)],
            env=environ, cwd=servers.ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.process = None
        return status

    def close(self) -> None:
        """End the daemon, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)

    def log(self) -> str:
        """What the daemon has logged."""
        return self.log_path.read_text()

    def ledger(self) -> list[dict[str, Any]]:
        """Invocations, oldest first."""
        return [json.loads(line) for line in self._lines()]

    def taken(self) -> list[str]:
        """Ids of records that a function took, in that order, again when taken again."""
        return [identity for entry in self.ledger() for _, identity in entry.get("taken", [])]

    def first_orders(self) -> dict[str, list[str]]:
        """By key: the ids in the order in which they were first taken."""
        orders: dict[str, list[str]] = {}
        for entry in self.ledger():
            for key, identity in entry.get("taken", []):
                if identity not in orders.setdefault(key, []):
                    orders[key].append(identity)
        return orders

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that bear the labels."""
        with urllib.request.urlopen(f"{self.metrics_url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((name + "{", name + " ")) and all(label in line for label in wanted)
        )

    def status(self) -> list[dict[str, Any]]:
        """What the daemon shows of its mappings."""
        with urllib.request.urlopen(f"{self.metrics_url}/status", timeout=5) as answer:
            return json.loads(answer.read())

    def _lines(self) -> Iterator[str]:
        if self.ledger_path.exists():
            yield from self.ledger_path.read_text().splitlines()

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
        try:
            with urllib.request.urlopen(f"{self.metrics_url}/readyz", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


class Queue:
    """A queue of an emulator, with a dead-letter queue."""

    def __init__(
        self, url: str, name: str, *, visibility_s: int = 5, receives_max: int = 5, is_fifo: bool = False
    ) -> None:
        self.sqs = client("sqs", url)
        kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if is_fifo else {}
        dead, name = (f"{name}-dead.fifo", f"{name}.fifo") if is_fifo else (f"{name}-dead", name)
        self.name, self.is_fifo = name, is_fifo
        self.dead_url = self.sqs.create_queue(QueueName=dead, Attributes=kind)["QueueUrl"]
        redrive = {"deadLetterTargetArn": self.arn_of(dead), "maxReceiveCount": receives_max}
        attributes = {"VisibilityTimeout": str(visibility_s), "RedrivePolicy": json.dumps(redrive), **kind}
        self.url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.arn = self.arn_of(name)

    @staticmethod
    def arn_of(name: str) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"

    def send(self, *ids: str, key: str = "k") -> None:
        group = {"MessageGroupId": key} if self.is_fifo else {}
        for start in range(0, len(ids), 10):
            entries = [
                {"Id": str(number), "MessageBody": json.dumps({"id": identity, "key": key}), **group}
                for number, identity in enumerate(ids[start : start + 10])
            ]
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)

    def count(self, url: str | None = None) -> int:
        """Messages visible and in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)["Attributes"]
        return sum(int(value) for value in found.values())

    def dead(self) -> list[str]:
        """Ids in the dead-letter queue (they stay hidden for a while once looked at)."""
        return [message["id"] for message in drain_queue(self.sqs, self.dead_url)]


def drain_queue(sqs: Any, url: str) -> list[Any]:
    """Bodies of all messages of a queue, read and removed."""
    found = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found
