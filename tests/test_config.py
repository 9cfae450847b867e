"""Configuration files: what they become, and every problem in one go."""

import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esm import config
from esm.config import Configuration
from esm.errors import ConfigurationRefused
from esm.model.clocks import UnixTime
from esm.model.function import HostedFunction, LambdaFunction, UrlFunction
from esm.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
BASE: dict[str, Any] = {
    "region": "us-east-1", "account_id": "000000000000",
    "functions": {"f": {"Url": "http://127.0.0.1:1", "Protocol": "rie", "Timeout": 3}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path


def load(folder: Path, text: str | dict[str, Any], **environ: str) -> Configuration:
    path = folder / "esm.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    surrounding = {name: environ.pop(name) for name in list(environ) if name.startswith("ESM_")}
    return config.load(path, environ, load_settings(surrounding, {}), UnixTime(1_800_000_000))


def problems(folder: Path, text: str | dict[str, Any], **environ: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as caught:
        load(folder, text, **environ)
    return [f"{problem.path}: {problem.text}" for problem in caught.value.problems]


def hosted(**more: Any) -> dict[str, Any]:
    return {**BASE, "functions": {"h": {"Runtime": "python3.11", "Handler": "a.b", "CodeUri": "code", **more}}}


def test_a_hosted_function_has_lambdas_defaults(folder: Path) -> None:
    function = load(folder, hosted()).functions["h"]
    assert isinstance(function, HostedFunction)
    assert (function.timeout_s, function.memory_mb, function.reserved_concurrency) == (3, 128, None)
    assert function.code == str(folder / "code")
    assert str(function.arn) == "arn:aws:lambda:us-east-1:000000000000:function:h"
    assert function.role == "arn:aws:iam::000000000000:role/h"


def test_a_mapping_of_a_key_a_key_with_latest_and_an_arn(folder: Path) -> None:
    other = "arn:aws:lambda:us-east-1:111122223333:function:other:live"
    found = load(folder, {**BASE, "mappings": [
        {"FunctionName": "f", "EventSourceArn": QUEUE},
        {"FunctionName": "f:$LATEST", "EventSourceArn": QUEUE + "2"},
        {"FunctionName": other, "EventSourceArn": QUEUE},
        {"FunctionName": "arn:aws:lambda:us-east-1:000000000000:function:f", "EventSourceArn": QUEUE + "3"},
    ]})  # fmt: skip
    functions = [found.function_of(mapping) for mapping in found.mappings]
    assert [type(function) for function in functions] == [UrlFunction, UrlFunction, LambdaFunction, UrlFunction]
    assert [mapping.function_arn.qualifier for mapping in found.mappings] == [None, "$LATEST", "live", None]


def test_the_uuid_is_that_of_the_unqualified_function_and_the_source(folder: Path) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    (mapping,) = load(folder, {**BASE, "mappings": [{"FunctionName": "f:$LATEST", "EventSourceArn": QUEUE}]}).mappings
    assert mapping.uuid == str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn}|{QUEUE}"))
    given_uuid = "12345678-1234-1234-1234-1234567890AB"
    one = {"FunctionName": "f", "EventSourceArn": QUEUE, "UUID": given_uuid}
    assert load(folder, {**BASE, "mappings": [one]}).mappings[0].uuid == given_uuid.lower()


def test_variables_defaults_files_and_literals_are_substituted(folder: Path) -> None:
    (folder / "secret").write_text("s3cret\n")
    text = """
region: ${REGION}
account_id: "${ACCOUNT:-000000000000}"
functions:
  h:
    Runtime: python3.11
    Handler: a.b
    CodeUri: code
    Timeout: ${TIMEOUT:-30}
    Environment: {Variables: {AA: "${file:secret}", BB: "$${X}", CC: "${EMPTY:-x}"}}
"""
    function = load(folder, text, REGION="eu-west-1", EMPTY="").functions["h"]
    assert isinstance(function, HostedFunction)
    assert function.timeout_s == 30
    assert dict(function.environment) == {"AA": "s3cret", "BB": "${X}", "CC": "x"}


def test_an_unset_variable_is_refused_by_name(folder: Path) -> None:
    texts = problems(folder, "region: ${NOPE}\naccount_id: '000000000000'\n")
    assert "region: the variable NOPE is not set: set it, or give a default, ${NOPE:-value}" in texts


def test_a_substituted_value_is_never_shown(folder: Path) -> None:
    with pytest.raises(ConfigurationRefused) as caught:
        load(folder, "region: us-east-1\naccount_id: ${SECRET}\n", SECRET="hush-hush")
    assert "hush" not in str(caught.value)
    assert "${SECRET}" in str(caught.value)


def test_a_substituted_value_brings_no_structure_along(folder: Path) -> None:
    text = hosted(Environment={"Variables": {"AA": "${TEXT}"}})
    function = load(folder, text, TEXT="x # {a: b}\nc: d").functions["h"]
    assert isinstance(function, HostedFunction)
    assert function.environment == (("AA", "x # {a: b}\nc: d"),)


def test_everything_that_a_hosted_function_can_have_is_read(folder: Path) -> None:
    (folder / "layer").mkdir()
    with zipfile.ZipFile(folder / "code.zip", "w") as archive:
        archive.writestr("bootstrap", "x")
    text = hosted(
        Runtime="provided.al2023", Handler=None, CodeUri="code.zip", Layers=["layer", "code.zip"],
        EphemeralStorage={"Size": 1024}, Network="none", ReservedConcurrentExecutions=4,
        ProvisionedConcurrencyConfig={"ProvisionedConcurrentExecutions": 2},
        FileSystemConfigs=[{"Path": "layer", "LocalMountPath": "/mnt/shared"}],
    )  # fmt: skip
    function = load(folder, text).functions["h"]
    assert isinstance(function, HostedFunction)
    assert (function.runtime, function.handler, function.code) == ("provided.al2023", "", str(folder / "code.zip"))
    assert function.layers == (str(folder / "layer"), str(folder / "code.zip"))
    assert (function.ephemeral_mb, function.has_network, function.provisioned_concurrency) == (1024, False, 2)
    assert function.file_systems == ((str(folder / "layer"), "/mnt/shared"),)


def test_every_problem_comes_in_one_go(folder: Path) -> None:
    texts = problems(folder, {
        "regoin": "x", "region": "us-east-1", "account_id": 12,
        "functions": {"f": {"Url": "ftp://x"}, "g": {"Runtime": "Node 20", "Handler": "x y", "CodeUri": "nope"}},
        "mappings": [{"FunctionName": "nobody", "EventSourceArn": QUEUE, "BatchSize": 0}],
    })  # fmt: skip
    for text in (
        "regoin: is unknown: did you mean region?", "account_id: was read as a number", "functions.f.Url: must be",
        "functions.f.Protocol: is needed", "functions.f.Timeout: is needed", "functions.g.Runtime: must be",
        "functions.g.CodeUri: there is no folder", "mappings[0].FunctionName: is no key of functions:",
        "mappings[0].BatchSize: 1 validation error detected",
    ):  # fmt: skip
        assert any(found.startswith(text) for found in texts), (text, texts)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not YAML"),
        ("region: a\nregion: b\n", "stands twice, in lines 1 and 2"),
        ("- a\n", "must be a table"),
        ("? [a]\n: b\n", "a key must be a plain word"),
        ("functions: 5\n", "must be a table"),
        ("mappings: {}\n", "must be a list"),
        ("connections: []\n", "must be a table"),
        ("defaults: 5\n", "must be a table of parameters, and of source types"),
    ],
)
def test_a_file_of_the_wrong_shape_says_what_is_wrong(folder: Path, text: str, problem: str) -> None:
    assert any(problem in found for found in problems(folder, text))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Timeout": "3"}, "without quotes"), ({"Timeout": 901}, "1 to 900"), ({"MemorySize": 64}, "128 to 10240"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "reserved"),
        ({"Environment": {"Variables": {"A_B": 5}}}, "put it in quotes"),
        ({"Environment": {"Variables": {"1A": "x"}}}, "begins with a letter"),
        ({"Environment": {"Variables": {"AB": "x" * 4096}}}, "at most 4096"),
        ({"Environment": ["x"]}, "must be {Variables"), ({"VpcConfig": {}}, "is not supported for this kind"),
        ({"Role": "me"}, "must be a role's ARN"), ({"Handlr": "x"}, "did you mean Handler?"),
        ({"Url": "http://x"}, "exactly one of"),
    ],
)  # fmt: skip
def test_a_wrong_member_of_a_function_is_named_with_its_remedy(
    folder: Path, members: dict[str, Any], problem: str
) -> None:
    assert any(problem in found for found in problems(folder, hosted(**members)))


def test_a_hosted_function_has_no_version(folder: Path) -> None:
    (text,) = problems(folder, {**BASE, "mappings": [{"FunctionName": "f:live", "EventSourceArn": QUEUE}]})
    assert "use $LATEST" in text


def test_one_function_and_source_may_stand_once(folder: Path) -> None:
    one = {"FunctionName": "f", "EventSourceArn": QUEUE}
    (text,) = problems(folder, {**BASE, "mappings": [one, one]})
    assert 'An event source mapping with SQS arn (" ' + QUEUE in text


def test_a_stream_without_any_limit_is_warned_about(folder: Path) -> None:
    one = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    assert len(load(folder, {**BASE, "mappings": [one]}).warnings) == 1
    assert not load(folder, {**BASE, "mappings": [{**one, "MaximumRetryAttempts": 1}]}).warnings


def test_source_and_starting_position_may_not_change_under_one_uuid(folder: Path) -> None:
    fixed = {"FunctionName": "f", "UUID": str(uuid.uuid4()), "StartingPosition": "LATEST", "EventSourceArn": STREAM}
    before = load(folder, {**BASE, "mappings": [fixed]})
    for change in ({"EventSourceArn": STREAM + "2"}, {"StartingPosition": "TRIM_HORIZON"}):
        with pytest.raises(ConfigurationRefused, match="cannot change"):
            config.check_successor(before, load(folder, {**BASE, "mappings": [{**fixed, **change}]}))
    config.check_successor(before, load(folder, {**BASE, "mappings": [{**fixed, "BatchSize": 5}]}))


def test_a_change_of_any_file_that_was_read_changes_the_digest(folder: Path) -> None:
    (folder / "part").write_text("000000000000")
    found = load(folder, "region: us-east-1\naccount_id: '${file:part}'\n")
    before = config.digest(found)
    (folder / "part").write_text("000000000001")
    assert config.digest(found) != before


def test_a_file_that_cannot_be_read_is_refused_and_says_how_to_name_one(folder: Path) -> None:
    (folder / "binary").write_bytes(b"\xff")
    for name, reason in (
        ("nope", "No such file"),
        (".", "holds no *.yaml or *.yml file"),
        ("binary", "not UTF-8"),
        ("\0", "is none"),
        ("*.conf", "holds no"),
    ):
        with pytest.raises(ConfigurationRefused) as caught:
            config.load(folder / name, {}, load_settings({}, {}), UnixTime(0))
        (problem,) = caught.value.problems
        assert reason in problem.text
        assert problem.text.endswith("Name the file with -c or ESM_CONFIG.")


def test_a_file_that_vanishes_changes_the_digest(folder: Path) -> None:
    found = load(folder, BASE)
    before = config.digest(found)
    (folder / "esm.yaml").unlink()
    assert config.digest(found) != before


def test_region_and_endpoints_change_with_a_restart_only(folder: Path) -> None:
    before = load(folder, BASE)
    with pytest.raises(ConfigurationRefused, match="region: cannot change while the daemon runs: restart it"):
        config.check_successor(before, load(folder, {**BASE, "region": "eu-west-1"}))


IN_A_TABLE = {"ESM_STATE": "dynamodb://esm", "ESM_STATE_CONNECTION": "central", "ESM_BLOBS": "s3://bucket"}
WAYS = {**BASE, "connections": {"central": {"Region": "eu-west-1"}, "archive": {"Profile": "archive"}}}


def test_the_state_is_reached_by_a_connection_of_the_file_which_then_counts_as_used(folder: Path) -> None:
    found = load(folder, WAYS, **IN_A_TABLE)
    assert (found.state_connection, found.blobs_connection) == (found.connections["central"],) * 2
    assert found.warnings == ("connections.archive is used by no mapping, function or destination",)
    found = load(folder, WAYS, **IN_A_TABLE, ESM_BLOBS_CONNECTION="archive")
    assert found.blobs_connection == found.connections["archive"]
    assert not found.warnings
    assert load(folder, WAYS).state_connection is None


def test_a_connection_that_a_setting_names_and_the_file_lacks_is_refused_by_the_settings_name(folder: Path) -> None:
    (text,) = problems(folder, BASE, **IN_A_TABLE)
    assert text.startswith("ESM_STATE_CONNECTION: is no key of connections:")


def test_the_connection_of_the_state_changes_with_a_restart_only(folder: Path) -> None:
    before = load(folder, WAYS, **IN_A_TABLE)
    after = {**WAYS, "connections": {"central": {"Region": "eu-west-2"}, "archive": {"Profile": "other"}}}
    with pytest.raises(ConfigurationRefused, match=r"connections\.central: the state is reached by it: cannot change"):
        config.check_successor(before, load(folder, after, **IN_A_TABLE))


@pytest.mark.parametrize("name", ["local.yaml", "aws.yaml"])
def test_the_examples_are_complete(name: str) -> None:
    path = ROOT / "config" / name
    found = config.load(path, {}, Settings(), UnixTime(1_800_000_000))
    assert found.mappings
    assert not found.warnings


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Url": "http://["}, "functions.f.Url: must be a URL"), ({"Url": "http://"}, "functions.f.Url: must be a URL"),
        ({"Url": "http://h:99999"}, "functions.f.Url: must be a URL"), ({"Url": 5}, "functions.f.Url: must be http"),
        ({"Url": "http://u:p@h"}, "without user and password"), ({"Timeout": None}, "functions.f.Timeout: is needed"),
        ({"Protocol": "grpc"}, "functions.f.Protocol: must be rie"),
        ({"Protocol": ["rie"]}, "functions.f.Protocol: must be rie"),
        ({"MemorySize": 128}, "functions.f.MemorySize: is not supported for this kind of function"),
        ({"Arn": "x"}, "it has Url and Arn"), ({"Url": None}, "functions.f.Url: must be http"),
    ],
)  # fmt: skip
def test_a_wrong_member_of_a_function_behind_a_url_is_named(
    folder: Path, members: dict[str, Any], problem: str
) -> None:
    function = {**BASE["functions"]["f"], **members}
    assert any(problem in text for text in problems(folder, {**BASE, "functions": {"f": function}}))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"Handler": "app"}, "module.function"), ({"Handler": "app."}, "module.function"),
        ({"Runtime": "Python 3"}, "such as python3.11"), ({"Runtime": 3.11}, "such as python3.11"),
        ({"CodeUri": "a\0b"}, "no folder or zip file that can be looked at"), ({"CodeUri": "x" * 5000}, "no folder"),
        ({"CodeUri": "esm.yaml"}, "there is no folder"), ({"CodeUri": None}, "CodeUri: is needed"),
        ({"Layers": "code"}, "must be a list of paths"), ({"Layers": ["nope"]}, "Layers[0]: there is no folder"),
        ({"Layers": ["code"] * 6}, "Cannot reference more than 5 layers."),
        ({"EphemeralStorage": {"Size": 100}}, "512 to 10240"), ({"EphemeralStorage": 512}, "EphemeralStorage"),
        ({"ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 0}}, "1 to 1000"),
        ({"ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 3}, "ReservedConcurrentExecutions": 2},
         "is above ReservedConcurrentExecutions (2)"),
        ({"FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/a"}]}, "FileSystemConfigs[0].Arn: is not known"),
        ({"FileSystemConfigs": [{"Path": "code", "LocalMountPath": "/srv"}]}, "must be /mnt/ and a name"),
        ({"FileSystemConfigs": [{"Path": "code", "LocalMountPath": "/mnt/.."}]}, "must be /mnt/ and a name"),
        ({"FileSystemConfigs": [{"LocalMountPath": "/mnt/a"}]}, "Path: is needed"),
        ({"FileSystemConfigs": [{"Path": "code", "LocalMountPath": "/mnt/a"}] * 2}, "name one LocalMountPath twice"),
        ({"FileSystemConfigs": "code"}, "must be a list of {Path"), ({"Network": "vpc"}, "must be host or none"),
        ({"Runtime": "provided.al2023", "Handler": "a b"}, "no spaces"),
        ({"Timeout": True}, "without quotes"), ({"Timeout": 0}, "1 to 900"), ({"Timeout": 3.5}, "1 to 900"),
        ({"ReservedConcurrentExecutions": -1}, "0 to 1000"), ({"Environment": False}, "must be {Variables"),
        ({"Environment": {"Variables": []}}, "must be {Variables"),
        ({"Environment": {"Vars": {}}}, "must be {Variables"),
        ({"Environment": {"Variables": {"A": "x"}}}, "two or more"), ({"Role": "arn:aws:iam::1:role/x"}, "role's ARN"),
        ({"Environment": {"Variables": {"AB": "\0"}}}, "NUL"), ({"Environment": {"Variables": {"AB": None}}}, "quotes"),
        ({"Environment": {"Variables": {"AB": "é" * 2048}}}, "hold 4098 bytes"),
    ],
)  # fmt: skip
def test_a_wrong_member_of_a_hosted_function_is_named(folder: Path, members: dict[str, Any], problem: str) -> None:
    assert any(problem in text for text in problems(folder, hosted(**members)))


def test_four_kilobytes_of_variables_are_allowed(folder: Path) -> None:
    load(folder, hosted(Environment={"Variables": {"AB": "x" * 4094}}))
    load(folder, hosted(Environment={}))
    load(folder, hosted(Environment=None))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("f:", "ends in a colon"), ("f:live", "use $LATEST"), ("a:other", "has another qualifier already"),
        ("a:not an alias", "names no version or alias"),
        ("nobody:live", "is no key of functions: (there are: a, f)"),
        ("arn:aws:lambda:us-east-1:000000000000:function:f:", "is no function's ARN"),
        ("arn:aws:lambda:us-east-1:000000000000:function:f:live", "use $LATEST"),
        (5, "is needed"), (None, "is needed"),
    ],
)  # fmt: skip
def test_a_function_name_that_leads_nowhere_is_refused(folder: Path, name: object, problem: str) -> None:
    arn = "arn:aws:lambda:us-east-1:111122223333:function:audit:live"
    known = {**BASE, "functions": {**BASE["functions"], "a": {"Arn": arn}}}
    (text,) = problems(folder, {**known, "mappings": [{"FunctionName": name, "EventSourceArn": QUEUE}]})
    assert text.startswith("mappings[0].FunctionName: ")
    assert problem in text


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"), ("eusc-de-east-1", "aws-eusc"), ("elasticmq", "aws"),
    ],
)  # fmt: skip
def test_arns_of_functions_are_of_the_regions_partition(folder: Path, region: str, partition: str) -> None:
    function = load(folder, {**BASE, "region": region}).functions["f"]
    assert isinstance(function, UrlFunction)
    assert str(function.arn) == f"arn:{partition}:lambda:{region}:000000000000:function:f"
    assert function.role == f"arn:{partition}:iam::000000000000:role/f"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"mappings": 0}, "mappings: must be a list"), ({"mappings": ["x"]}, "mappings[0]: must be a table"),
        ({"endpoints": False}, "endpoints: must be a table"), ({"endpoints": {"sqz": "http://h"}}, "did you mean sqs?"),
        ({"endpoints": {"sqs": "h:1"}}, "endpoints.sqs: must be a URL"), ({"region": "US East"}, "region: is needed"),
        ({"endpoint_url": "http://u:p@h"}, "without user and password"),
        ({"account_id": "१" * 12}, "account_id: is needed"),
        ({"functions": {"a b": {"Arn": "x"}}}, "1 to 64 letters"),
        ({"defaults": []}, "defaults: must be a table"), ({"connections": {"c": 5}}, "connections.c: must be a table"),
    ],
)  # fmt: skip
def test_a_wrong_value_at_the_top_is_named(folder: Path, change: dict[str, Any], problem: str) -> None:
    assert any(problem in text for text in problems(folder, {**BASE, **change}))


def test_settings_fill_in_what_the_file_leaves_out(folder: Path) -> None:
    path = folder / "esm.yaml"
    path.write_text("region: null\n")
    environ = {"ESM_REGION": "eu-west-1", "ESM_ACCOUNT_ID": "123456789012", "ESM_ENDPOINT_URL": "http://h:1"}
    found = config.load(path, {}, load_settings(environ, {}), UnixTime(0))
    assert (found.region, found.account_id, found.endpoint_url) == ("eu-west-1", "123456789012", "http://h:1")


def test_the_later_of_two_equal_mappings_is_the_one_refused(folder: Path) -> None:
    one = {"FunctionName": "f", "EventSourceArn": QUEUE}
    wrong = {"FunctionName": "nobody", "EventSourceArn": QUEUE}
    texts = problems(folder, {**BASE, "mappings": [one, wrong, one, {**one, "UUID": "x"}]})
    assert [text.partition(":")[0] for text in texts] == ["mappings[1].FunctionName", "mappings[3].UUID", "mappings[2]"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6,
)  # fmt: skip
places = st.sampled_from([
    "region", "account_id", "endpoint_url", "endpoints", "functions", "mappings", "functions.f", "functions.f.Timeout",
    "functions.f.Url", "functions.f.Protocol", "functions.f.Role", "mappings.0", "mappings.0.FunctionName",
    "mappings.0.EventSourceArn", "mappings.0.BatchSize", "mappings.0.Enabled", "mappings.0.DestinationConfig",
    "mappings.0.DestinationConfig.OnFailure", "mappings.0.ScalingConfig", "mappings.0.UUID",
    "mappings.0.FunctionResponseTypes", "mappings.0.StartingPosition", "mappings.0.StartingPositionTimestamp",
    "mappings.0.FilterCriteria", "mappings.0.Tags",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=places, value=values)
def test_no_value_at_any_place_brings_anything_but_a_refusal(folder: Path, place: str, value: Any) -> None:
    mapping = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST", "DestinationConfig": {}}
    document: Any = yaml.safe_load(yaml.safe_dump({**BASE, "mappings": [mapping]}))
    *path, last = place.split(".")
    at = document
    for step in path:
        at = at[int(step) if step.isdigit() else step]
    at[int(last) if last.isdigit() else last] = value
    try:
        load(folder, yaml.safe_dump(document))
    except ConfigurationRefused as refusal:
        assert refusal.problems


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text())
def test_no_text_brings_anything_but_a_refusal(folder: Path, text: str) -> None:
    path = folder / "esm.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        config.load(path, {}, load_settings({}, {}), UnixTime(0))
    except ConfigurationRefused as refusal:
        assert refusal.problems
