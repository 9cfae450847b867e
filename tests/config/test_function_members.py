"""Members of functions: HTTP, asynchronous events, loops, connections."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esm.config.statuses import statuses
from esm.errors import ConfigurationRefused
from esm.model.arn import Arn
from esm.model.connection import Connection
from esm.model.function import AsyncRules, Function, HostedFunction, LambdaFunction, PulledFunction, UrlFunction
from tests.config.written import BASE, FIFO, QUEUE, ROLE, STREAM, load, refusal, written

TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
BUCKET = "arn:aws:s3:::some-bucket"
URL = {"Url": "https://h", "Protocol": "http", "Timeout": 3}
ARN = "arn:aws:lambda:us-east-1:111122223333:function:g"


def document(function: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**BASE, "functions": {"f": function}, "connections": {"other": {}}, **more}


def made(folder: Path, function: dict[str, Any], **environ: str) -> Function:
    return load(written(folder, document(function)), **environ).functions["f"]


def url(folder: Path, *, environ: dict[str, str] | None = None, **members: Any) -> UrlFunction:
    function = made(folder, {**URL, **members}, **environ or {})
    assert isinstance(function, UrlFunction)
    return function


def refused(folder: Path, function: dict[str, Any], **environ: str) -> list[str]:
    path = written(folder, document(function))
    return [text.split("functions.f", 1)[1] for text in refusal(path, **environ)]


@pytest.mark.parametrize("protocol", ["rie", "web-adapter", "http"])
def test_every_protocol_is_taken_with_nothing_sent_along(tmp_path: Path, protocol: str) -> None:
    function = url(tmp_path, Protocol=protocol)
    assert function == UrlFunction(
        key="f", arn=Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"),
        role="arn:aws:iam::000000000000:role/f", url="https://h", protocol=protocol, timeout_s=3,
    )  # fmt: skip


def test_everything_of_a_function_behind_a_url_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    function = url(
        tmp_path, Headers={"X-B": "b", "X-A": "${PIN}"},
        HeadersFrom={"X-Env": {"Env": "SECRET"}, "X-File": {"File": "h/../value"}, "X-Abs": {"File": "/run/abs"}},
        BearerTokenFile="token", CaFile="ca.pem", ClientCertFile="/run/cert.pem", ClientKeyFile="key.pem",
        MaxConcurrency=7, ErrorStatusCodes="500-599,429", Role=ROLE, RecursiveLoop="Allow", Connection="other",
        Description="for people", environ={"PIN": "0123", "SECRET": "s3cret"},
    )  # fmt: skip
    assert function.headers == (("X-A", "0123"), ("X-B", "b"), ("X-Env", "s3cret"))
    assert function.header_files == (("X-Abs", "/run/abs"), ("X-File", f"{tmp_path}/h/../value"))
    assert (function.bearer_token_file, function.ca_file) == (f"{tmp_path}/token", f"{tmp_path}/ca.pem")
    assert (function.client_cert_file, function.client_key_file) == ("/run/cert.pem", f"{tmp_path}/key.pem")
    assert (function.concurrency_max, function.error_statuses) == (7, ((429, 429), (500, 599)))
    assert (function.role, function.has_role, function.allows_loops, function.connection) == (ROLE, True, True, "other")
    assert "s3cret" not in repr(function)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Headers": {"X A": "b"}}, ".Headers.X A: is not the name of a header"),
        ({"Headers": ["x"]}, ".Headers: must be a"), ({"Headers": {"A": ""}}, ".Headers.A: is empty"),
        ({"Headers": {"Lambda-Runtime-Trace-Id": "x"}}, "esm sets itself"),
        ({"Headers": {"X-Amzn-Trace-Id": "x"}}, ".Headers.X-Amzn-Trace-Id: is a header that esm sets itself"),
        ({"Headers": {"A": 5}}, ".Headers.A: must be a string"), ({"Headers": {"A": "b\r\nC: d"}}, "line break"),
        ({"Headers": {"Host": "x"}}, "esm sets itself"), ({"Headers": {"A": "1", "a": "2"}}, "is set twice"),
        ({"Headers": {"Authorization": "x"}, "BearerTokenFile": "t"}, "BearerTokenFile sets Authorization"),
        ({"Headers": {"A": "1"}, "HeadersFrom": {"a": {"Env": "PATH"}}}, ".HeadersFrom.a: is set twice"),
        ({"HeadersFrom": {"A": {"Env": "NOPE"}}}, ".HeadersFrom.A.Env = 'NOPE': names a variable that is not set"),
        ({"HeadersFrom": {"A": {"Env": "X", "File": "y"}}}, ".HeadersFrom.A: must be {Env: VARIABLE} or {File: path}"),
        ({"HeadersFrom": {"A": {}}}, "must be {Env"), ({"HeadersFrom": {"A": {"Env": None}}}, "must be {Env"),
        ({"HeadersFrom": {"A": "b"}}, "must be {Env"), ({"HeadersFrom": {"A": {"File": 5}}}, "must be a string"),
        ({"HeadersFrom": {"A": {"File": "a\0"}}}, "NUL"), ({"HeadersFrom": 5}, ".HeadersFrom: must be a table"),
        ({"ClientCertFile": "c"}, ".ClientKeyFile: is needed, too"), ({"ClientKeyFile": "c"}, ".ClientCertFile: is"),
        ({"CaFile": "c", "Url": "http://h"}, ".CaFile: means something with an https:// Url only"),
        ({"MaxConcurrency": 0}, "1 to 10000"), ({"ErrorStatusCodes": "5xx"}, "must be statuses and ranges"),
        ({"ErrorStatusCodes": 99}, "must be statuses"), ({"ErrorStatusCodes": [600]}, "must be statuses"),
        ({"ErrorStatusCodes": "599-500"}, "must be statuses"), ({"ErrorStatusCodes": True}, "must be statuses"),
        ({"ErrorStatusCodes": {"a": 1}}, "must be statuses"),
        ({"ErrorStatusCodes": "500", "Protocol": "rie"}, "means nothing with Protocol rie"),
        ({"RecursiveLoop": "Never"}, ".RecursiveLoop = 'Never': must be Allow or Terminate"),
        ({"Connection": "x"}, ".Connection = 'x': is no key of connections: (there are: other)"),
        ({"Description": "x" * 257}, "has 257 characters"), ({"Description": 5}, "must be a string"),
        ({"Tags": {"a": "b"}}, ".Tags: is not supported for this kind of function"),
        ({"Protocol": "web-adaptor"}, ".Protocol = 'web-adaptor': must be rie"),
        ({"Protocol": None}, ".Protocol: is needed: rie"),
        ({"CodeUri": "."}, ".CodeUri: is not supported for this kind of function"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_named_with_its_remedy(tmp_path: Path, members: dict[str, Any], problem: str) -> None:
    texts = refused(tmp_path, {**URL, **members}, PATH="x")
    assert any(problem in text for text in texts), texts


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("500-599", ((500, 599),)), (" 503 , 429 ", ((429, 429), (503, 503))), (429, ((429, 429),)), ("", ()), ([], ()),
        ([500, "502-504"], ((500, 500), (502, 504))), ("100-599", ((100, 599),)), ("500,", None), ("-", None),
        ("0500", None), ([None], None), (1.5, None), ("५००", None),
    ],
)  # fmt: skip
def test_statuses_are_written_as_lambda_web_adapter_has_them(value: object, found: object) -> None:
    assert statuses(value) == found


def test_a_secret_header_is_in_no_problem(tmp_path: Path) -> None:
    for secret in ("line\nend", "nul\0", "bell\a"):
        texts = refused(
            tmp_path, {**URL, "HeadersFrom": {"A": {"Env": "S"}}, "Headers": {"B": "x${S}"}}, S="tell-no-one" + secret
        )
        assert len(texts) == 2
        assert "tell-no-one" not in "".join(texts)


@pytest.mark.parametrize("kind", ["hosted", "url"])
def test_asynchronous_events_have_lambdas_rules(tmp_path: Path, kind: str) -> None:
    (tmp_path / "code").mkdir()
    hosted = {"Runtime": "python3.11", "Handler": "a.b", "CodeUri": "code"}
    members = hosted if kind == "hosted" else URL
    function = made(tmp_path, members)
    assert isinstance(function, HostedFunction | UrlFunction)
    assert function.asynchronous == AsyncRules(2, 21_600, None, None, None)
    asked = {
        **members,
        "EventInvokeConfig": {
            "MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60,
            "DestinationConfig": {"OnSuccess": {"Destination": TOPIC}, "OnFailure": {"Destination": BUCKET}},
        },
        "DeadLetterConfig": {"TargetArn": QUEUE}, "RecursiveLoop": "Terminate", "Role": ROLE, "Connection": "other",
    }  # fmt: skip
    function = made(tmp_path, asked)
    assert isinstance(function, HostedFunction | UrlFunction)
    assert function.asynchronous == AsyncRules(0, 60, Arn.parse(TOPIC), Arn.parse(BUCKET), Arn.parse(QUEUE))
    assert (function.allows_loops, function.has_role, function.connection) == (False, True, "other")


SELF = "arn:aws:lambda:us-east-1:000000000000:function:f"


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"EventInvokeConfig": {}}, "You must specify at least one of error handling or destination setting."),
        ({"EventInvokeConfig": {"DestinationConfig": {}}}, "You must specify at least one of error handling"),
        ({"EventInvokeConfig": 5}, "must be a table with MaximumRetryAttempts"),
        ({"EventInvokeConfig": {"MaximumRetryAttempts": 3}}, ".EventInvokeConfig.MaximumRetryAttempts = 3: must be"),
        ({"EventInvokeConfig": {"MaximumEventAgeInSeconds": 59}}, "60 to 21600"),
        ({"EventInvokeConfig": {"Retries": 1, "MaximumRetryAttempts": 1}}, ".EventInvokeConfig.Retries: is unknown"),
        ({"DeadLetterConfig": {"TargetArn": FIFO}}, "is FIFO: Lambda supports standard queues and topics only"),
        ({"DeadLetterConfig": {"TargetArn": BUCKET}}, "use SQS or SNS."),
        ({"DeadLetterConfig": {"TargetArn": "x"}}, "The destination ARN x is invalid."),
        ({"DeadLetterConfig": {"Arn": QUEUE}}, "is unknown; known are TargetArn"),
        ({"DeadLetterConfig": []}, "must be a table"),
    ],
)  # fmt: skip
def test_wrong_rules_for_asynchronous_events_are_named(tmp_path: Path, members: dict[str, Any], problem: str) -> None:
    texts = refused(tmp_path, {**URL, **members})
    assert any(problem in text for text in texts), texts


@pytest.mark.parametrize(
    ("name", "arn", "problem"),
    [
        ("OnSuccess", SELF, "You can't specify the function as a destination for itself."),
        ("OnFailure", SELF + ":$LATEST", "You can't specify the function as a destination for itself."),
        (
            "OnSuccess", BUCKET,
            f"config DestinationConfig(onSuccess=OnSuccess(destination={BUCKET}), onFailure=null) is invalid.",
        ),
        ("OnFailure", "x", "The destination ARN x is invalid."),
        ("OnFailure", FIFO, "is FIFO: Lambda supports standard queues and topics only."),
        ("OnFailure", ARN, "is not supported by this version of esm: use SQS, SNS or S3."),
        ("OnSuccess", "arn:aws:events:us-east-1:000000000000:event-bus/b", "esm: use SQS or SNS."),
    ],
)  # fmt: skip
def test_destinations_of_asynchronous_events_are_refused_as_on_aws(
    tmp_path: Path, name: str, arn: str, problem: str
) -> None:
    config = {"DestinationConfig": {name: {"Destination": arn}}}
    (text,) = refused(tmp_path, {**URL, "EventInvokeConfig": config})
    assert text.startswith(f".EventInvokeConfig.DestinationConfig.{name}.Destination = '{arn}': ")
    assert text.endswith(problem)


def test_a_function_in_lambda_keeps_its_connection_whatever_names_it(tmp_path: Path) -> None:
    function = {"Arn": ARN, "Connection": "other", "RecursiveLoop": "Allow", "Description": "x"}
    names = ["f", "f:live", ARN, f"{ARN}:1"]
    items = [{"FunctionName": name, "EventSourceArn": f"{QUEUE}{index}"} for index, name in enumerate(names)]
    found = load(written(tmp_path, document(function, mappings=items)))
    functions = [found.function_of(one) for one in found.mappings]
    for one in functions:
        assert isinstance(one, LambdaFunction)
        assert (one.connection, one.allows_loops) == ("other", True)
    assert [str(one.arn) for one in functions] == [ARN, f"{ARN}:live", ARN, f"{ARN}:1"]
    assert replace(functions[1], arn=functions[0].arn) == functions[0]


@pytest.mark.parametrize("name", ["000000000000:function:f", "000000000000:f", "000000000000:function:f:$LATEST"])
def test_a_partial_arn_names_a_function_of_this_region(tmp_path: Path, name: str) -> None:
    items = [{"FunctionName": name, "EventSourceArn": QUEUE}]
    found = load(written(tmp_path, document(URL, mappings=items)))
    assert isinstance(found.function_of(found.mappings[0]), UrlFunction)


def test_functions_in_lambda_have_their_own_rules_for_events_on_aws(tmp_path: Path) -> None:
    (text,) = refused(tmp_path, {"Arn": ARN, "DeadLetterConfig": {"TargetArn": QUEUE}})
    assert "is not supported for this kind of function; it takes Arn, RecursiveLoop, Connection, Description" in text


WAY = {"Region": "eu-west-1", "EndpointUrl": "http://h:1", "RoleArn": ROLE, "ExternalId": "a:b", "SessionName": "esm",
       "Profile": "p"}  # fmt: skip


def test_a_connection_is_a_way_into_an_account(tmp_path: Path) -> None:
    item = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST", "Connection": "a",
            "MaximumRetryAttempts": 1,
            "DestinationConfig": {"OnFailure": {"Destination": QUEUE, "Connection": "b"}}}  # fmt: skip
    ways = {"a": WAY, "b": {}, "c": {}}
    found = load(written(tmp_path, {**BASE, "connections": ways, "mappings": [item]}))
    assert found.connections["a"] == Connection("a", "eu-west-1", "http://h:1", ROLE, "a:b", "esm", "p")
    assert found.connections["b"] == Connection("b")
    assert found.warnings == ("connections.c is used by no mapping, function or destination",)


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        ({"Region": "EU"}, "connections.c.Region = 'EU': must be a region"), ({"Region": 5}, "must be a string"),
        ({"EndpointUrl": "h"}, "connections.c.EndpointUrl = 'h': must be a URL"),
        ({"RoleArn": "x"}, "must be a role's ARN"), ({"RoleArn": ROLE, "ExternalId": "a b"}, "must have 2 to 1224"),
        ({"ExternalId": "ab"}, "means something with a RoleArn only"),
        ({"SessionName": "x", "RoleArn": ROLE}, "2 to 64"),
        ({"Regoin": "x"}, "did you mean Region?"), ([], "must be a table with any of Region"),
    ],
)  # fmt: skip
def test_a_wrong_connection_is_named(tmp_path: Path, way: object, problem: str) -> None:
    texts = refusal(written(tmp_path, {**BASE, "connections": {"c": way}}))
    assert any(problem in text for text in texts), texts


def test_an_external_id_from_the_environment_is_not_shown(tmp_path: Path) -> None:
    way = {"RoleArn": ROLE, "ExternalId": "${ID}"}
    (text,) = refusal(written(tmp_path, {**BASE, "connections": {"c": way}}), ID="se cret")
    assert "${ID}" in text
    assert "se cret" not in text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["x", "${X}", "500-599", QUEUE, "\0", "a\nb"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["Env", "File", "Destination", "OnFailure", "TargetArn", "X-A"]), inner),
    max_leaves=4,
)  # fmt: skip
MEMBERS = st.sampled_from([
    "Headers", "HeadersFrom", "BearerTokenFile", "CaFile", "ClientCertFile", "ClientKeyFile", "MaxConcurrency",
    "ErrorStatusCodes", "EventInvokeConfig", "DeadLetterConfig", "RecursiveLoop", "Connection", "Description",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.dictionaries(MEMBERS, anything, max_size=3))
def test_no_member_brings_anything_but_a_refusal(tmp_path: Path, members: dict[str, Any]) -> None:
    try:
        made(tmp_path, {**URL, **members}, X="y")
    except ConfigurationRefused as refused_:
        assert refused_.problems


PULLING = {"Listen": "127.0.0.1:9001", "Protocol": "runtime-api", "Timeout": 3}


@pytest.mark.parametrize(
    ("members", "address"),
    [
        ({}, ("127.0.0.1", 9001)), ({"Listen": 9002}, ("127.0.0.1", 9002)), ({"Listen": "9003"}, ("127.0.0.1", 9003)),
        ({"Listen": "[::1]:9001"}, ("::1", 9001)), ({"Listen": "localhost:80"}, ("localhost", 80)),
        ({"Listen": "0.0.0.0:9001", "TokenFile": "t"}, ("0.0.0.0", 9001)),
        ({"Listen": "[::]:9001", "Insecure": True}, ("::", 9001)), ({"Listen": "${PORT}"}, ("127.0.0.1", 9004)),
        ({"Listen": "esm:9001", "CertFile": "c", "KeyFile": "k", "ClientCaFile": "a"}, ("esm", 9001)),
    ],
)  # fmt: skip
def test_a_function_that_pulls_listens_where_it_says(
    tmp_path: Path, members: dict[str, Any], address: tuple[str, int]
) -> None:
    function = made(tmp_path, {**PULLING, **members}, PORT="9004")
    assert isinstance(function, PulledFunction)
    assert (function.host, function.port) == address


def test_everything_of_a_function_that_pulls_is_taken_over(tmp_path: Path) -> None:
    function = made(tmp_path, {
        **PULLING, "TokenFile": "t", "CertFile": "c", "KeyFile": "k", "ClientCaFile": "/run/a", "MaxConcurrency": 7,
        "Role": ROLE, "RecursiveLoop": "Allow", "Connection": "other", "Description": "for people",
        "EventInvokeConfig": {"MaximumRetryAttempts": 1},
    })  # fmt: skip
    assert function == PulledFunction(
        key="f", arn=Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"), role=ROLE, host="127.0.0.1",
        port=9001, timeout_s=3, token_file=f"{tmp_path}/t", cert_file=f"{tmp_path}/c", key_file=f"{tmp_path}/k",
        client_ca_file="/run/a", concurrency_max=7, has_role=True, asynchronous=AsyncRules(1), allows_loops=True,
        connection="other",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Protocol": None}, ".Protocol: is needed: runtime-api"),
        ({"Protocol": "rie"}, ".Protocol: with Listen must be runtime-api"), ({"Timeout": None}, ".Timeout: is needed"),
        ({"Url": "http://x"}, "it has Url and Listen"),
        *(({"Listen": one}, ".Listen: must be host:port") for one in (
            "", "x", "h:", ":1", "h:0", "h:65536", 0, -1, True, 1.5, ["h:1"], "h:1/x", "::1:80", "a b:1")),
        ({"Listen": "0.0.0.0:9001"}, "lets everybody who reaches it take the function's events: name a TokenFile"),
        ({"Listen": "10.0.0.1:9001", "CertFile": "c", "KeyFile": "k"}, "lets everybody who reaches it"),
        ({"Insecure": True, "TokenFile": "t"}, ".Insecure: contradicts TokenFile"),
        ({"Insecure": "yes"}, ".Insecure: must be true or false"),
        ({"ClientCaFile": "a"}, ".CertFile: is needed, too"), ({"CertFile": "a"}, ".KeyFile: is needed, too"),
        ({"Headers": {"A": "b"}}, ".Headers: is not supported for this kind of function"),
        ({"MaxConcurrency": 0}, ".MaxConcurrency: must be a whole number from 1"),
        ({"Handler": "a.b"}, ".Handler: is not supported for this kind"), ({"TokenFile": 5}, ".TokenFile: must be a"),
    ],
)  # fmt: skip
def test_what_a_function_that_pulls_cannot_have_is_named(tmp_path: Path, members: dict[str, Any], problem: str) -> None:
    found = [re.sub(r" = .*?: ", ": ", text, count=1) for text in refused(tmp_path, {**PULLING, **members})]
    assert any(problem in text for text in found), found


def test_the_runtime_api_goes_with_no_url(tmp_path: Path) -> None:
    (text,) = refused(tmp_path, {**URL, "Protocol": "runtime-api"})
    assert "goes with Listen instead of Url" in text


@pytest.mark.parametrize(("other", "is_refused"), [("127.0.0.1:9001", True), ("0.0.0.0:9001", True), (9002, False)])
def test_two_functions_never_listen_at_one_address(tmp_path: Path, other: Any, is_refused: bool) -> None:  # noqa: FBT001
    more = {"Insecure": True} if other == "0.0.0.0:9001" else {}
    functions = {"f": PULLING, "g": {**PULLING, "Listen": other, **more}}
    path = written(tmp_path, {**BASE, "functions": functions})
    if not is_refused:
        assert load(path).functions.keys() == {"f", "g"}
        return
    (text,) = refusal(path)
    assert "functions.g.Listen = " in text
    assert "is where f listens, too" in text
