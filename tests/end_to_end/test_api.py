"""Real clients before a running daemon: boto3, the AWS CLI, and the commands for people without one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import trustme
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests import servers
from tests.end_to_end.test_streams import Stream
from tests.end_to_end.world import REGION, Queue, World, client, wait_for

KEYS = [
    {"AccessKeyId": "admin", "SecretAccessKey": "a-secret-of-the-admin", "Actions": ["*"]},
    {"AccessKeyId": "reader", "SecretAccessKey": "a-secret-of-the-reader", "Actions": ["lambda:Get*", "lambda:List*"]},
]


def caller(world: World, key: str = "anybody", secret: str = "anything", **more: Any) -> Any:
    """boto3's client of the daemon's API."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    return boto3.client(
        "lambda", endpoint_url=world.api_url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret,
        config=config, **more,
    )  # fmt: skip


def state(api: Any, uuid: str) -> str:
    try:
        return api.get_event_source_mapping(UUID=uuid)["State"]
    except api.exceptions.ResourceNotFoundException:
        return "gone"


def aws(world: World, *arguments: str) -> Any:
    """The AWS CLI, where there is one."""
    program = shutil.which("aws")
    if program is None:
        pytest.skip("there is no AWS CLI here")
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(world.folder), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": REGION, "AWS_PAGER": "",
    }  # fmt: skip
    done = subprocess.run(
        [program, "lambda", "--endpoint-url", world.api_url, "--output", "json", *arguments],
        env=environ, cwd=world.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "pyenv" in done.stderr:
        pytest.skip("the AWS CLI here does not start")
    return done


def test_mappings_are_made_changed_and_deleted_by_boto3_and_survive_a_restart(world: World, ministack: str) -> None:
    queue, declared = Queue(ministack, "api-1"), Queue(ministack, "api-2")
    world.configure(
        endpoint_url=ministack, functions={"orders": world.function()},
        mappings=[{"FunctionName": "orders", "EventSourceArn": declared.arn}],
    )  # fmt: skip
    world.start()
    api = caller(world)
    made = api.create_event_source_mapping(FunctionName="orders", EventSourceArn=queue.arn, BatchSize=3)
    uuid = made["UUID"]
    assert (made["ResponseMetadata"]["HTTPStatusCode"], made["State"]) == (202, "Creating")
    began = time.monotonic()
    wait_for(lambda: state(api, uuid) == "Enabled", "it runs")
    assert time.monotonic() - began < 2.5
    queue.send("one")
    wait_for(lambda: world.taken() == ["one"], "it is delivered")
    assert uuid in world.command("status").stdout
    assert "paused." in world.command("pause", uuid[:13]).stdout
    wait_for(lambda: state(api, uuid) == "Disabled", "an operator lets it rest")
    assert api.get_event_source_mapping(UUID=uuid)["StateTransitionReason"] == "paused by operator"
    assert "resumed." in world.command("resume", "api-1").stdout
    assert "made through the API" in world.command("forget", uuid).stderr
    wait_for(lambda: state(api, uuid) == "Enabled", "it goes on")
    assert api.update_event_source_mapping(UUID=uuid, Enabled=False)["State"] == "Disabling"
    wait_for(lambda: state(api, uuid) == "Disabled", "it rests")
    assert world.stop() == 0
    queue.send("two")
    world.start()
    api = caller(world)
    assert state(api, uuid) == "Disabled"
    assert {one["BatchSize"] for one in api.list_event_source_mappings()["EventSourceMappings"]} == {3, 10}
    assert api.update_event_source_mapping(UUID=uuid, Enabled=True, BatchSize=2)["State"] == "Enabling"
    wait_for(lambda: "two" in world.taken(), "it goes on")
    own = next(one for one in api.list_event_source_mappings()["EventSourceMappings"] if one["UUID"] != uuid)
    with pytest.raises(ClientError, match="stands in the configuration"):
        api.delete_event_source_mapping(UUID=own["UUID"])
    with pytest.raises(ClientError, match="already exists"):
        api.create_event_source_mapping(FunctionName="orders", EventSourceArn=declared.arn)
    with pytest.raises(ClientError, match="NonExistentQueue"):
        api.create_event_source_mapping(FunctionName="orders", EventSourceArn=f"{queue.arn}-none")
    wait_for(lambda: state(api, uuid) == "Enabled", "it runs")
    assert api.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    wait_for(lambda: state(api, uuid) == "gone", "it is gone")
    assert "changed through the api" in world.log()
    assert world.stop() == 0


@pytest.mark.node
def test_a_streams_mapping_keeps_its_positions_and_leaves_nothing_behind(
    world: World, ministack: str, kinesalite: str
) -> None:
    stream = Stream(kinesalite, "api-stream", shards=2)
    addresses = {"endpoint_url": ministack, "endpoints": {"kinesis": kinesalite}}
    world.configure(**addresses, functions={"orders": world.function()})
    world.start()
    api = caller(world)
    uuid = api.create_event_source_mapping(
        FunctionName="orders", EventSourceArn=stream.arn, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=1
    )["UUID"]
    stream.put("a", "one")
    wait_for(lambda: world.taken() == ["one"], "it is taken")
    assert world.stop() == 0
    stream.put("a", "two")
    world.start()
    api = caller(world)
    wait_for(lambda: world.taken() == ["one", "two"], "it goes on where it was")
    wait_for(lambda: state(api, uuid) == "Enabled", "it runs")
    shown = api.get_event_source_mapping(UUID=uuid)
    assert (shown["LastProcessingResult"], shown["MaximumRetryAttempts"]) == ("OK", 1)
    world.configure(**addresses)
    wait_for(lambda: "Function does not exist" in world.log(), "its function is gone")
    assert "Function does not exist" in api.get_event_source_mapping(UUID=uuid)["StateTransitionReason"]
    api.delete_event_source_mapping(UUID=uuid)
    wait_for(lambda: state(api, uuid) == "gone", "it is gone")
    assert "Nothing is stored" in world.command("forget", uuid).stderr
    assert world.stop() == 0


def test_functions_are_invoked_in_every_way(world: World, ministack: str) -> None:
    (world.folder / "code" / "echo.py").write_text(
        "import time\n"
        "def handler(event, context):\n"
        "    print('the log')\n"
        "    time.sleep(event.get('sleep', 0))\n"
        "    if event.get('fail'):\n"
        "        raise ValueError('on purpose')\n"
        "    open(event['file'], 'a').close() if 'file' in event else None\n"
        "    return {'got': event, 'arn': context.invoked_function_arn, 'id': context.aws_request_id}\n"
    )
    world.configure(endpoint_url=ministack, functions={
        "echo": world.function(Handler="echo.handler", ReservedConcurrentExecutions=1),
    })  # fmt: skip
    world.start()
    api = caller(world)
    answer = api.invoke(FunctionName="echo", Payload=b'{"a": 1}', Qualifier="$LATEST")
    found = json.loads(answer["Payload"].read())
    assert (answer["StatusCode"], answer["ExecutedVersion"], found["got"]) == (200, "$LATEST", {"a": 1})
    assert found["arn"].endswith("function:echo:$LATEST")
    assert found["id"] == answer["ResponseMetadata"]["RequestId"]
    answer = api.invoke(FunctionName="echo", Payload=b'{"fail": true}')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"].read())["errorMessage"] == "on purpose"
    pieces = list(api.invoke_with_response_stream(FunctionName="echo", Payload=b'{"c": 3}')["EventStream"])
    assert json.loads(b"".join(one["PayloadChunk"]["Payload"] for one in pieces[:-1]))["got"] == {"c": 3}
    assert pieces[-1] == {"InvokeComplete": {}}
    file = world.folder / "ran"
    assert api.invoke(FunctionName="echo", InvocationType="Event",
                      Payload=json.dumps({"file": str(file), "sleep": 1.5}))["StatusCode"] == 202  # fmt: skip
    assert api.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
    throttled: list[dict[str, Any]] = []

    def is_throttled() -> bool:
        try:
            api.invoke(FunctionName="echo", Payload=b"{}")
        except api.exceptions.TooManyRequestsException as error:
            throttled.append(error.response)
        return bool(throttled)

    wait_for(is_throttled, "the one environment is busy", 5)
    assert throttled[0]["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    wait_for(file.exists, "the event is run")
    with pytest.raises(ClientError, match="Function not found"):
        api.invoke(FunctionName="nobody")
    with pytest.raises(ClientError, match="Could not parse request body into json"):
        api.invoke(FunctionName="echo", Payload=b"{")
    done = world.command("invoke", "echo", "--payload", '{"b": 2}')
    assert (done.returncode, json.loads(done.stdout)["got"]) == (0, {"b": 2}), done.stderr
    (world.folder / "event.json").write_text('{"fail": 1}')
    done = world.command("invoke", "echo", "--payload", f"@{world.folder}/event.json")
    assert (done.returncode, "on purpose" in done.stdout) == (1, True)
    assert "accepted: request" in world.command("invoke", "echo", "--event").stdout
    assert "Function not found" in world.command("invoke", "nobody").stderr
    assert "echo.handler" in world.command("functions").stdout
    assert [one["FunctionName"] for one in json.loads(world.command("functions", "--json").stdout)] == ["echo"]
    assert world.stop() == 0
    assert "does not answer" in world.command("functions").stderr


def test_the_aws_cli_drives_the_daemon(world: World, ministack: str) -> None:
    queue = Queue(ministack, "api-cli")
    world.configure(endpoint_url=ministack, functions={"orders": world.function()})
    world.start()
    filters = json.dumps({"Filters": [{"Pattern": '{"body":{"id":["a"]}}'}]})
    done = aws(
        world, "create-event-source-mapping", "--function-name", "orders", "--event-source-arn", queue.arn,
        "--batch-size", "4", "--filter-criteria", filters, "--tags", "team=shop",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    api = caller(world)
    wait_for(lambda: state(api, made["UUID"]) == "Enabled", "it runs")
    queue.send("a", "b")
    wait_for(lambda: world.taken() == ["a"], "one of them matches")
    for arguments, text in (
        (("list-event-source-mappings", "--function-name", "orders"), made["UUID"]),
        (("list-tags", "--resource", made["EventSourceMappingArn"]), "shop"),
        (("list-functions",), "app.handler"),
        (("get-function", "--function-name", "orders"), "app.handler"),
        (("list-event-source-mappings", "--max-items", "1"), made["UUID"]),
    ):
        done = aws(world, *arguments)
        assert (done.returncode, text in done.stdout) == (0, True), done
    event = '{"Records": [{"body": "{\\"id\\": \\"direct\\"}", "messageId": "m"}]}'
    done = aws(world, "invoke", "--function-name", "orders", "--payload", event, "out.json")
    if "Invalid base64" in done.stderr:  # version 2
        raw = ("--cli-binary-format", "raw-in-base64-out")
        done = aws(world, "invoke", *raw, "--function-name", "orders", "--payload", event, "out.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((world.folder / "out.json").read_text()) == {"batchItemFailures": []}
    done = aws(world, "create-function-url-config", "--function-name", "orders", "--auth-type", "NONE")
    assert "function URLs are not supported here" in done.stderr
    assert aws(world, "delete-event-source-mapping", "--uuid", made["UUID"]).returncode == 0
    wait_for(lambda: state(api, made["UUID"]) == "gone", "it is gone")
    assert world.stop() == 0


def test_credentials_and_tls_say_who_may_call(world: World, ministack: str) -> None:
    keys, chain, key = (world.folder / name for name in ("keys.yaml", "chain.pem", "key.pem"))
    keys.write_text(yaml.safe_dump({"credentials": KEYS}))
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(key))
    write_chain(chain, certificate)
    root = world.folder / "root.pem"
    authority.cert_pem.write_to_path(str(root))
    world.configure(endpoint_url=ministack, functions={"orders": world.function()})
    port = servers.free_port()
    world.start(
        ESM_API_ADDRESS=f"0.0.0.0:{port}", ESM_API_CREDENTIALS_FILE=str(keys), ESM_API_TLS_CERT_FILE=str(chain),
        ESM_API_TLS_KEY_FILE=str(key),
    )  # fmt: skip
    world.api_url = f"https://127.0.0.1:{port}"
    admin = caller(world, "admin", KEYS[0]["SecretAccessKey"], verify=str(root))
    reader = caller(world, "reader", KEYS[1]["SecretAccessKey"], verify=str(root))
    forger = caller(world, "admin", "a-secret-of-somebody", verify=str(root))
    event = b'{"Records": []}'
    assert admin.invoke(FunctionName="orders", Payload=event)["StatusCode"] == 200
    assert [one["FunctionName"] for one in reader.list_functions()["Functions"]] == ["orders"]
    for who, code in ((reader, "AccessDeniedException"), (forger, "InvalidSignatureException")):
        with pytest.raises(ClientError) as refused:
            who.invoke(FunctionName="orders", Payload=event)
        assert refused.value.response["Error"]["Code"] == code
    assert KEYS[0]["SecretAccessKey"] not in world.log()
    write_chain(chain, authority.issue_cert("127.0.0.1"), key)
    assert admin.list_functions()["Functions"]
    assert world.stop() == 0


def write_chain(chain: Path, certificate: trustme.LeafCert, key: Path | None = None) -> None:
    if key is not None:
        certificate.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))


def test_beyond_loopback_credentials_are_needed(world: World) -> None:
    world.configure()
    done = subprocess.run(
        [sys.executable, "-m", "esm", "run", "-c", str(world.config_path)],
        env={"PATH": os.environ["PATH"], "ESM_API_ADDRESS": "0.0.0.0:0"}, cwd=servers.ROOT, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "ESM_API_CREDENTIALS_FILE" in done.stderr


def test_the_api_is_served_over_an_empty_configuration(world: World) -> None:
    world.configure()
    world.start()
    assert caller(world).list_functions()["Functions"] == []
    assert client("lambda", world.api_url).list_event_source_mappings()["EventSourceMappings"] == []
    assert world.stop() == 0


def test_every_worker_of_a_crew_sees_what_is_asked_of_one_of_them(world: World, ministack: str) -> None:
    queue = Queue(ministack, "api-crew")
    world.configure(endpoint_url=ministack, functions={"orders": world.function()})
    world.start("--workers", "2", ESM_WORKER_ID="w")
    assert world.log().count("api=127.0.0.1") == 2
    apis = [caller(world) for _ in range(8)]  # connections go to the one or the other
    uuid = apis[0].create_event_source_mapping(FunctionName="orders", EventSourceArn=queue.arn, BatchSize=1)["UUID"]
    began = time.monotonic()
    wait_for(lambda: world.log().count("mapping started") == 2, "both run it")
    assert time.monotonic() - began < 3
    queue.send(*[f"r{number}" for number in range(20)])
    wait_for(lambda: len(set(world.taken())) == 20, "it is delivered")
    for api in apis:
        wait_for(lambda api=api: state(api, uuid) == "Enabled", "everyone shows it")
    apis[1].delete_event_source_mapping(UUID=uuid)
    for api in apis:
        wait_for(lambda api=api: state(api, uuid) == "gone", "it is gone for everyone")
    assert world.stop() == 0
