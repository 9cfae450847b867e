"""Reading the file: substitutions, tags, merges, lines; and that what was substituted is never shown."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esm import config
from esm.config.document import Document, read
from esm.errors import ConfigurationRefused
from esm.model.clocks import UnixTime
from esm.model.function import HostedFunction
from esm.settings import load_settings

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
HOSTED = {"Runtime": "python3.11", "Handler": "a.b", "CodeUri": "."}
ASYNCHRONOUS = {
    "EventInvokeConfig": {
        "MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": {
            "OnSuccess": {"Destination": "arn:aws:sns:us-east-1:000000000000:t"},
            "OnFailure": {"Destination": "arn:aws:s3:::some-bucket"},
        },
    },
    "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:d"}, "RecursiveLoop": "Allow",
    "Connection": "c", "Description": "for people", "Role": "arn:aws:iam::000000000000:role/r",
}  # fmt: skip
WHOLE: dict[str, Any] = json.loads(json.dumps({
    "region": "us-east-1", "account_id": "000000000000", "endpoint_url": "http://127.0.0.1:1",
    "endpoints": {"sqs": "http://127.0.0.1:2"},
    "connections": {
        "c": {"Region": "eu-west-1", "EndpointUrl": "http://127.0.0.1:4", "ExternalId": "some-id", "Profile": "p",
              "RoleArn": "arn:aws:iam::000000000000:role/r", "SessionName": "esm-session"},
    },
    "defaults": {
        "MaximumRetryAttempts": 7, "Tags": {"team": "a"},
        "kinesis": {"BatchSize": 9, "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]}},
    },
    "functions": {
        "h": {**HOSTED, "Timeout": 3, "MemorySize": 128, "ReservedConcurrentExecutions": 1,
              "Environment": {"Variables": {"AA": "x"}}, **ASYNCHRONOUS},
        "u": {"Url": "https://127.0.0.1:3", "Protocol": "http", "Timeout": 3, "MaxConcurrency": 2,
              "Headers": {"X-A": "some value"}, "HeadersFrom": {"X-B": {"Env": "PRESENT"}, "X-C": {"File": "header"}},
              "BearerTokenFile": "token", "CaFile": "ca", "ClientCertFile": "cert", "ClientKeyFile": "key",
              "ErrorStatusCodes": [429, "500-599"], **ASYNCHRONOUS},
        "p": {"Listen": "0.0.0.0:9001", "Protocol": "runtime-api", "Timeout": 3, "TokenFile": "token",
              "CertFile": "cert", "KeyFile": "key", "ClientCaFile": "ca", "Insecure": False, "MaxConcurrency": 2,
              **ASYNCHRONOUS},
        "a": {"Arn": "arn:aws:lambda:us-east-1:000000000000:function:a:live", "RecursiveLoop": "Terminate",
              "Connection": "c", "Description": "more"},
    },
    "mappings": [
        {"FunctionName": "h", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q", "Enabled": True,
         "BatchSize": 1, "ScalingConfig": {"MaximumConcurrency": 2}, "VisibilityHeartbeat": True,
         "FailureBackoff": {"MinimumDelayInSeconds": 1, "MaximumDelayInSeconds": 2}, "Connection": "c",
         "FilterCriteria": {"Filters": [{"Pattern": {"body": {"a": ["x", {"prefix": "y"}, 1, None]}}}]},
         "Tags": [{"Key": "team", "Value": "b"}], "RoleArn": "arn:aws:iam::000000000000:role/r"},
        {"FunctionName": "a", "EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP",
         "StartingPositionTimestamp": 1, "ParallelizationFactor": 1, "MaximumRetryAttempts": 1,
         "MaximumRecordAgeInSeconds": 60, "MaximumBatchingWindowInSeconds": 1, "BisectBatchOnFunctionError": True,
         "FunctionResponseTypes": ["ReportBatchItemFailures"], "UUID": "12345678-1234-1234-1234-123456789012",
         "TumblingWindowInSeconds": 5, "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
         "MetricsConfig": {"Metrics": ["EventCount"]}, "InvocationType": "RequestResponse",
         "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:d",
                                             "IncludePayload": True, "WhenUnreachable": "drop", "Connection": "c"}}},
        {"FunctionName": "u", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q.fifo", "HoldGroupOnFailure": True,
         "FunctionResponseTypes": ["ReportBatchItemFailures"]},
        {"FunctionName": "u", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q",
         "ProvisionedPollerConfig": {"MinimumPollers": 2, "MaximumPollers": 3}},
        {"Type": "AWS::Lambda::EventSourceMapping", "Properties": {
            "FunctionName": "u", "EventSourceArn": STREAM, "StartingPosition": "LATEST", "InvocationType": "Event",
            "KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k", "LastModified": 5}},
    ],
}))  # fmt: skip
"""A file with every member that there is."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configuration")


def document(folder: Path, text: str, **environ: str) -> Document:
    path = folder / "esm.yaml"
    path.write_text(text, encoding="utf-8")
    return read(path, environ)


def refused(folder: Path, text: str, **environ: str) -> list[str]:
    path = folder / "esm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationRefused) as caught:
        config.load(path, environ, load_settings({}, {}), UnixTime(1_800_000_000))
    return [str(problem) for problem in caught.value.problems]


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The place of every value within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, one in inner for place in places(one, (*path, name)))]


def changed(place: tuple[str | int, ...], value: Any) -> Any:
    """WHOLE with another value at one place."""
    if not place:
        return value
    whole: Any = copy.deepcopy(WHOLE)
    at = whole
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    return whole


def around(place: tuple[str | int, ...], document: Any) -> Any:
    """The document with nothing but what a changed function or mapping needs: the rest costs time alone."""
    match place:
        case ("functions", str(key), *_):
            return {**document, "functions": {key: document["functions"][key]}, "mappings": []}
        case ("mappings", int(index), *_):
            functions = dict.fromkeys(WHOLE["functions"], WHOLE["functions"]["a"])
            return {**document, "functions": functions, "mappings": [document["mappings"][index]]}
        case _:
            return document


PLACES = places(WHOLE)


def test_the_whole_file_makes_sense(folder: Path) -> None:
    path = folder / "esm.yaml"
    path.write_text(yaml.safe_dump(WHOLE))
    assert len(config.load(path, {"PRESENT": "x"}, load_settings({}, {}), UnixTime(2)).mappings) == 5


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${X}", 30), ('"${X}"', "30"), ("'${X}'", "30"), ("${X}s", "30s"), ("1${X}", "130"), ("${Y:-5}", 5),
        ("${Y:-true}", True), ("${Y:-}", ""), ("${Y:-null}", "null"), ("${Y:-~}", "~"),
        ("${Y:-2026-01-01}", "2026-01-01"),
        ("${EMPTY}", ""), ("${EMPTY:-a}", "a"), ("$${X}", "${X}"), ("a$${X}${X}", "a${X}30"), ("$X", "$X"), ("$", "$"),
        ("!!int '${X}'", 30), ("${Y:-a:-b}", "a:-b"),
    ],
)  # fmt: skip
def test_a_substituted_scalar_is_a_number_only_when_it_is_plain_and_whole(
    folder: Path, written: str, value: object
) -> None:
    found = document(folder, f"a: {written}\n", X="30", EMPTY="")
    assert (found.value, found.problems) == ({"a": value}, [])


@pytest.mark.parametrize("text", ["{a: b}", "[1]", "x # y", "&a x", "*a", "a: b", "- x", "!!int 5", "|", "<<", "="])
def test_a_value_is_never_read_as_structure(folder: Path, text: str) -> None:
    assert document(folder, "a: ${X}\nb: c${X}\n", X=text).value == {"a": text, "b": "c" + text}


def test_a_file_gives_its_content_without_its_last_line_end(folder: Path) -> None:
    (folder / "unix").write_bytes(b"one\ntwo\n")
    (folder / "windows").write_bytes(b"one\r\n")
    (folder / "bare").write_bytes(b"7")
    found = document(folder, f"a: ${{file:unix}}\nb: ${{file:./windows}}\nc: ${{file:{folder}/bare}}\n")
    assert found.value == {"a": "one\ntwo", "b": "one", "c": 7}
    assert [path.name for path in found.files] == ["esm.yaml", "unix", "windows", "bare"]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("${NOPE}", "the variable NOPE is not set"), ("${file:nope}", "the file 'nope' cannot be read"),
        ("${file:.}", "the file '.' cannot be read"), ("${file:binary}", "it is not UTF-8 text"),
        ("${file:long}", "holds more than 65536 bytes"), ("'${file:'", "without its }"), ("'${X'", "without its }"),
        ("${}", "is no substitution"), ("${1X}", "is no substitution"), ("${X-1}", "is no substitution"),
        ("'${A:-${X}}'", "none within another"), ('"${file:\\0}"', "its name is none"),
    ],
)  # fmt: skip
def test_a_substitution_that_cannot_be_made_is_refused_once_at_its_place(folder: Path, written: str, text: str) -> None:
    (folder / "binary").write_bytes(b"\xff")
    (folder / "long").write_text("x" * 65_537)
    account = "account_id: '000000000000'\n"
    (problem,) = refused(folder, f"{account}region: {written}\n", X="1")
    assert problem.startswith(f"{folder / 'esm.yaml'}:2: region = ")
    assert text in problem


def test_an_account_or_a_variable_of_digits_alone_needs_no_quotes_when_it_is_substituted(folder: Path) -> None:
    path = folder / "esm.yaml"
    members = "Runtime: python3.11\n  Handler: a.b\n  CodeUri: .\n  Environment:\n   Variables:\n    PIN: ${PIN}\n"
    path.write_text("region: us-east-1\naccount_id: ${ACCOUNT}\nfunctions:\n h:\n  " + members)
    for account in ("000000000000", "123456789012", "012345678901", "089000000000"):
        found = config.load(path, {"ACCOUNT": account, "PIN": "0123"}, load_settings({}, {}), UnixTime(0))
        function = found.functions["h"]
        assert isinstance(function, HostedFunction)
        assert (found.account_id, function.environment) == (account, (("PIN", "0123"),))


@pytest.mark.parametrize("account", ["000000000000", "123456789012", "0x1F", "1_000"])
def test_an_account_without_quotes_is_shown_as_it_was_written(folder: Path, account: str) -> None:
    problems = refused(folder, f"region: us-east-1\naccount_id: {account}\n")
    remedy = "was read as a number: put its twelve digits in quotes"
    assert problems == [f"{folder / 'esm.yaml'}:2: account_id = {account!r}: {remedy}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mappings: !Sub []", "mappings: is CloudFormation's !Sub, which only CloudFormation resolves"),
        ("functions: !!set {a}", "functions: has the tag '"),
        ("mappings: !Mine []", "mappings: has the tag '!Mine'"),
        ("region: !Mine x", "region: cannot be read as '!Mine'"),
        ("endpoint_url: !Ref x", "endpoint_url: is CloudFormation's !Ref"),
        ("endpoint_url: !!binary aGk=", "endpoint_url: has the tag !!binary"),
        ("endpoint_url: !!python/name:os.system x", "endpoint_url: cannot be read as !!python/name:os.system"),
        ("a: 0x" + "f" * 17, "a: is a number of more than 64 bits"),
        ('a: "\\ud800"', "a: holds half of a surrogate pair"),
        ('"\\ud800": a', "a key must be a plain word"), ("[a]: b", "a key must be a plain word"),
        ("<<: 5", "must name a table"), ("a: &a [*a]", "nested deeper than 50"), ("a: &a {<<: *a}", "nested deeper"),
        ('"\\UFFFFFFFF": a', "is not YAML"), ("a: b\n---\nc: d", "is not YAML"), ("a: *b", "is not YAML"),
    ],
)  # fmt: skip
def test_what_json_could_not_say_is_refused(folder: Path, text: str, problem: str) -> None:
    assert any(problem in found for found in refused(folder, text))


def test_a_substitution_within_braces_is_told_to_stand_in_quotes(folder: Path) -> None:
    (problem,) = refused(folder, "a: 1\nfunctions: {f: {Url: ${X}}}\n", X="http://h")
    assert problem.startswith(f"{folder / 'esm.yaml'}:2: is not YAML: ")
    assert problem.endswith("(within { } and [ ] a ${...} must stand in quotes)")


def test_a_table_may_be_merged_and_used_again(folder: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: *b\nd: {<<: [{z: 3, y: 4}, *b], x: 5}\n"
    found = document(folder, text)
    b = {"x": 1, "y": 2}
    assert found.value == {"a": {"x": 1, "y": 1}, "b": b, "c": b, "d": {"x": 5, "y": 4, "z": 3}}
    assert not found.problems


def test_a_file_cannot_blow_up_by_repetition(folder: Path) -> None:
    lists = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert "more than 100000 values" in refused(folder, lists)[0]
    merges = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
    assert document(folder, merges).value["a39"] == {"x": 1}


def test_every_problem_has_the_line_of_its_place(folder: Path) -> None:
    text = """region: us-east-1
account_id: "000000000000"
functions:
  f: {Url: "http://h", Protocol: rie, Timeout: 3}
mappings:
  - FunctionName: f
    EventSourceArn: arn:aws:sqs:us-east-1:000000000000:q
    BatchSize: 0
    ScalingConfig:
      MaximumConcurrency: 1
  - FunctionName: f
    EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/s
    MaximumRetryAttempts: -7
    BatchSise: 5
"""
    file = folder / "esm.yaml"
    constraint = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must {}"
    least = "have value greater than or equal to {}"
    null = constraint.format("null", "startingPosition", "not be null.").replace("'null'", "null")
    assert refused(folder, text) == [
        f"{file}:8: mappings[0].BatchSize = 0: {constraint.format(0, 'batchSize', least.format(1))}",
        f"{file}:10: mappings[0].ScalingConfig.MaximumConcurrency = 1: "
        + constraint.format(1, "scalingConfig.maximumConcurrency", least.format(2)),
        f"{file}:14: mappings[1].BatchSise: is unknown: did you mean BatchSize?",
        f"{file}:13: mappings[1].MaximumRetryAttempts = -7: "
        + constraint.format(-7, "maximumRetryAttempts", least.format(-1)),
        f"{file}:11: mappings[1].StartingPosition: {null}",
    ]


SECRET_LENGTH = 8
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=SECRET_LENGTH, max_size=200) | st.sampled_from(
    ["arn:aws:sqs:us-east-1:999999999999:hidden.fifo", "http://user:hidden99@host", "8888888888888888", "8.88888888e88",
     "arn:aws:kinesis:us-east-1:999999999999:stream/hidden/consumer/c:1", "ENOSUCH\nLINE'\"\\", "hidden99" * 40,
     "kafka://hidden99", "2999-12-31T00:00:00Z", "0888888888"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    place=st.sampled_from([place for place in PLACES if place]), secret=secrets,
    written=st.sampled_from(['"${SECRET}"', "${SECRET}", '"a${SECRET}"', "!!int '${SECRET}'", '"${file:secret}"']),
)  # fmt: skip
@example(place=("mappings", 1, "EventSourceArn"), secret=STREAM + "hidden/consumer/c:1", written="${SECRET}")
def test_no_problem_shows_what_was_substituted(folder: Path, place: Any, secret: str, written: str) -> None:
    (folder / "secret").write_bytes(secret.encode())
    path = folder / "esm.yaml"
    path.write_text(yaml.safe_dump(changed(place, "@@")).replace("'@@'", written))
    try:
        config.load(path, {"SECRET": secret, "PRESENT": secret}, load_settings({}, {}), UnixTime(1_800_000_000))
    except ConfigurationRefused as refusal:
        before = " ".join(str(part) for part in (folder, yaml.safe_dump(WHOLE)))
        for shown in map(str, refusal.problems):
            assert secret not in shown or secret in before
            assert repr(secret)[1:-1] not in shown or secret in before
            assert json.dumps(secret)[1:-1] not in shown or secret in before


nasty = st.sampled_from([
    float("nan"), float("inf"), float("-inf"), 2**64, -(2**64), 2**10_000, -1, 1e400, "", "\0", "a\0b", "a" * 5000,
    "http://[", "http://", "http://h:99999", "http://h:x", "http://h h", "http://u:p@h", "arn:aws:sqs:x",
    "arn:aws:sqs:", "arn:aws:sqs:us-east-1:000000000000:q.fifo", "arn:aws:s3:::b", "kafka://t", "arn:::::", "f:", ":",
    "u:live", "h:live", "a:other", "a:$LATEST", "a: ", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "2026-01-01", "\ud800", "../../..", "12345678123412341234123456789012", "१२३४५६७८९०१२", "${", "}", "\u2028",
    "\x85",
])  # fmt: skip
anything = st.recursive(
    nasty | st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers() | nasty, inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(place=st.sampled_from(PLACES), value=anything)
def test_no_value_at_any_place_brings_anything_but_a_refusal(folder: Path, place: Any, value: Any) -> None:
    path = folder / "esm.yaml"
    path.write_text(yaml.safe_dump(around(place, changed(place, value))))
    try:
        config.load(path, {}, load_settings({}, {}), UnixTime(1_800_000_000))
    except ConfigurationRefused as refusal:
        assert [str(problem).encode() for problem in refusal.problems]


pieces = st.sampled_from([
    *"{}[]:,&*!<>|-?#'\"\\ \n\t$%@`~=", "a", "b", "0", "1.5", "<<: ", "&x ", "*x", "!!int ", "!t ", "${A}", "${B:-c}",
    "- ", "\n  ", "functions: ", "mappings:\n- ", "FunctionName: ", "--- ", "... ", "%YAML 1.1\n", "\\ud800", "? ",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.lists(pieces, max_size=25).map("".join))
def test_no_text_brings_anything_but_a_refusal(folder: Path, text: str) -> None:
    assert refused(folder, text, A="x")
