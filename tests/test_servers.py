"""The servers that other tests rely on: they start, answer on loopback alone, and are gone afterwards."""

import socket
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests import servers

CONFIG = Config(retries={"total_max_attempts": 1}, proxies={})


def client(service: str, url: str):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=url, config=CONFIG, **keys)


def test_ministack_answers_for_sqs(ministack):
    url = client("sqs", ministack).create_queue(QueueName="served")["QueueUrl"]

    assert url.endswith("/served")


def test_moto_answers_for_sqs(moto_url):
    url = client("sqs", moto_url).create_queue(QueueName="served")["QueueUrl"]

    assert url.endswith("/served")


def test_kinesalite_answers_for_kinesis(kinesalite):
    client("kinesis", kinesalite).create_stream(StreamName="served", ShardCount=1)

    summary = client("kinesis", kinesalite).describe_stream_summary(StreamName="served")

    assert summary["StreamDescriptionSummary"]["StreamName"] == "served"


def test_dynamodb_local_answers_for_dynamodb(dynamodb_local):
    assert client("dynamodb", dynamodb_local).list_tables()["TableNames"] is not None


@pytest.mark.node
@pytest.mark.parametrize("server", ["kinesalite", "dynamodb_local"])
def test_what_would_listen_everywhere_listens_on_loopback_alone(server, request):
    port = int(request.getfixturevalue(server).rsplit(":", 1)[1])

    listeners = [line.split() for table in ("tcp", "tcp6") for line in lines_of(f"/proc/net/{table}")]
    addresses = {row[1].split(":")[0] for row in listeners if row[3] == "0A" and row[1].endswith(f":{port:04X}")}

    assert addresses == {"0100007F"}


def test_a_server_is_gone_when_its_context_ends():
    with servers.moto() as url:
        port = int(url.rsplit(":", 1)[1])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def lines_of(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii").splitlines()[1:]
