"""Settings: what is known, what is refused, and every problem in one go."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import ConfigurationRefused
from esm.settings import Settings, load_settings, settings_table


def refused(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as caught:
        load_settings(environ, {})
    return [str(problem) for problem in caught.value.problems]


def test_variables_of_the_environment_are_read() -> None:
    settings = load_settings({"ESM_SQS_WAIT_S": "1", "ESM_LOG_LEVEL": "debug", "PATH": "/bin"}, {})
    assert (settings.sqs_wait_s, settings.log_level) == (1, "DEBUG")


def test_an_argument_is_stronger_than_a_variable() -> None:
    assert load_settings({"ESM_CONFIG": "a.yaml"}, {"config": "b.yaml"}).config == "b.yaml"


def test_an_unknown_variable_is_refused_by_name_with_the_nearest_known_one() -> None:
    assert refused(ESM_SQS_WAITS="1") == ["environment: ESM_SQS_WAITS: no such setting: did you mean ESM_SQS_WAIT_S?"]


def test_names_that_kubernetes_makes_are_passed_over() -> None:
    names = ["ESM_SERVICE_HOST", "ESM_SERVICE_PORT", "ESM_SERVICE_PORT_HTTP", "ESM_PORT", "ESM_PORT_80_TCP_ADDR"]
    load_settings(dict.fromkeys(names, "x"), {})


def test_all_problems_come_in_one_go() -> None:
    texts = refused(ESM_LOG_FORMAT="xml", ESM_SQS_WAIT_S="21", ESM_NOPE="1", ESM_METRICS_ADDRESS="9464")
    assert len(texts) == 4
    assert any("host:port" in text for text in texts)


def test_a_grace_shorter_than_a_receive_is_refused() -> None:
    (text,) = refused(ESM_SHUTDOWN_GRACE_S="20")
    assert "use 25 or more" in text
    assert load_settings({"ESM_SHUTDOWN_GRACE_S": "6", "ESM_SQS_WAIT_S": "1"}, {}).shutdown_grace_s == 6


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:9", ("::1", 9)), ("0.0.0.0:0", ("0.0.0.0", 0))]
)
def test_addresses_are_taken_apart(address: str, parts: tuple[str, int]) -> None:
    assert load_settings({"ESM_METRICS_ADDRESS": address}, {}).metrics_host_port == parts


def test_tag_keys_become_valid_labels() -> None:
    settings = load_settings({"ESM_METRICS_TAGS": "team, cost-centre,aws:stack"}, {})
    assert settings.tag_labels == {"team": "tag_team", "cost-centre": "tag_cost_centre", "aws:stack": "tag_aws_stack"}
    assert load_settings({}, {}).tag_labels == {}


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("a-b,a.b", "'a-b' and 'a.b' both become the label tag_a_b"),
        ("team,team", "both become the label tag_team"),
        (",".join(f"k{n}" for n in range(11)), "11 tag keys are too many: name at most 10"),
        ("team,", "1 to 128 characters"),
        ("x" * 129, "has 129"),
    ],
)
def test_tag_keys_that_clash_or_are_too_many_are_refused(keys: str, text: str) -> None:
    (found,) = refused(ESM_METRICS_TAGS=keys)
    assert "ESM_METRICS_TAGS" in found
    assert text in found


def test_a_secret_is_not_shown() -> None:
    settings = load_settings({"ESM_FUNCTION_AWS_SECRET_ACCESS_KEY": "hush"}, {})
    assert "hush" not in repr(settings)
    assert settings.function_environment == {"AWS_SECRET_ACCESS_KEY": "hush"}


def test_a_table_costs_for_each_stored_position_so_that_they_are_stored_once_a_second() -> None:
    table = {"ESM_STATE": "dynamodb://esm"}
    assert load_settings(table, {}).checkpoint_interval_s == 1
    assert load_settings({**table, "ESM_CHECKPOINT_INTERVAL_S": "0"}, {}).checkpoint_interval_s == 0
    assert load_settings({"ESM_STATE": "memory://"}, {}).checkpoint_interval_s == 0


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"ESM_STATE": "dynamodb://x"}, "dynamodb://TABLE or memory://"),
        ({"ESM_STATE": "dynamodb://esm?region=eu"}, "dynamodb://TABLE or memory://"),
        ({"ESM_STATE": "dynamodb://esm", "ESM_BLOBS": "s3:/bucket"}, "must be s3://BUCKET or s3://BUCKET/PREFIX"),
        ({"ESM_STATE": "dynamodb://esm", "ESM_BLOBS": "s3://Bucket"}, "must be s3://BUCKET or s3://BUCKET/PREFIX"),
        ({"ESM_STATE": "dynamodb://esm", "ESM_BLOBS": "s3://bucket//x"}, "must be s3://BUCKET or s3://BUCKET/PREFIX"),
        ({"ESM_STATE": "dynamodb://esm", "ESM_BLOBS": "s3://bucket/" + "x" * 250}, "256 characters at most"),
        ({"ESM_STATE": "dynamodb://esm", "ESM_BLOBS_CONNECTION": "x"}, "how ESM_BLOBS is reached, and there is none"),
        ({"ESM_BLOBS": "s3://bucket"}, "ESM_BLOBS is for ESM_STATE=dynamodb://TABLE alone: remove it"),
        ({"ESM_STATE_CONNECTION": "x"}, "ESM_STATE_CONNECTION is for ESM_STATE=dynamodb://TABLE alone: remove it"),
    ],
)
def test_a_state_and_its_bucket_that_make_no_sense_are_refused_by_name(environ: dict[str, str], text: str) -> None:
    (found,) = refused(**environ)
    assert text in found


def test_the_table_names_every_setting() -> None:
    table = settings_table()
    assert all(f"`ESM_{name.upper()}`" in table for name in Settings.model_fields)


@given(st.dictionaries(st.sampled_from([f"ESM_{name.upper()}" for name in Settings.model_fields]), st.text()))
def test_no_value_brings_anything_but_settings_or_a_refusal(environ: dict[str, str]) -> None:
    try:
        load_settings(environ, {})
    except ConfigurationRefused as refusal:
        assert refusal.problems


def test_nothing_but_the_given_environment_is_read() -> None:
    program = "from esm.settings import load_settings as load; print(load({}, {}).sqs_wait_s)"
    environ = {**os.environ, "ESM_SQS_WAIT_S": "7", "esm_sqs_wait_s": "8"}
    answer = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert answer.stdout == "20\n"


def test_a_name_in_other_letters_is_refused_not_passed_over() -> None:
    assert refused(ESM_Sqs_Wait_S="1") == ["environment: ESM_Sqs_Wait_S: no such setting: did you mean ESM_SQS_WAIT_S?"]


def test_an_empty_variable_counts_as_not_set() -> None:
    names = [f"ESM_{name.upper()}" for name in Settings.model_fields]
    assert load_settings(dict.fromkeys(names, ""), {}) == load_settings({}, {})


def test_the_grace_is_looked_at_even_while_another_setting_is_wrong() -> None:
    texts = refused(ESM_SHUTDOWN_GRACE_S="10", ESM_LOG_FORMAT="xml")
    assert len(texts) == 2
    assert any("use 25 or more" in text for text in texts)
    assert len(refused(ESM_SHUTDOWN_GRACE_S="10", ESM_SQS_WAIT_S="x")) == 1


@pytest.mark.parametrize("wait_s", range(21))
def test_a_grace_lasts_at_least_five_seconds_more_than_a_receive(wait_s: int) -> None:
    environ = {"ESM_SQS_WAIT_S": str(wait_s)}
    assert load_settings({**environ, "ESM_SHUTDOWN_GRACE_S": str(wait_s + 5)}, {}).sqs_wait_s == wait_s
    assert f"ESM_SHUTDOWN_GRACE_S={wait_s + 4}" in refused(**environ, ESM_SHUTDOWN_GRACE_S=str(wait_s + 4))[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SQS_WAIT_S", "21"), ("SQS_WAIT_S", "-1"), ("BUFFER_BYTES_MAX", "33554431"), ("BUFFER_BYTES_MAX", "1e9"),
        ("KINESIS_READS_PER_S", "5.1"), ("KINESIS_READS_PER_S", "0"), ("DYNAMODB_READS_PER_S", "4.5"),
        ("HOST_CONCURRENCY", "0"), ("HOST_IDLE_S", "inf"), ("HOST_IDLE_S", "nan"), ("SHUTDOWN_GRACE_S", "nan"),
        ("CHECKPOINT_INTERVAL_S", "-1"), ("ACCOUNT_ID", "12"), ("METRICS_PER_SHARD", "maybe"), ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"), ("STATE", "postgres://h/db"), ("STATE", "state.db"), ("ENDPOINT_URL", "localhost:4566"),
        ("ENDPOINT_URL", "http://"), ("FUNCTION_AWS_ENDPOINT_URL", "x"), ("METRICS_ADDRESS", "9464"),
        ("METRICS_ADDRESS", "::1:9464"), ("METRICS_ADDRESS", "a:65536"), ("METRICS_ADDRESS", "a:²"),
        ("METRICS_ADDRESS", ":9464"), ("METRICS_ADDRESS", "[::1]"), ("METRICS_ADDRESS", "a:"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_with_its_name_and_value(name: str, value: str) -> None:
    (text,) = refused(**{f"ESM_{name}": value})
    assert text.startswith(f"environment: ESM_{name} = {value!r}: ")


@pytest.mark.parametrize("name", ["ESM_ENDPOINT_URL", "ESM_FUNCTION_AWS_ENDPOINT_URL", "ESM_STATE"])
def test_a_url_with_a_password_is_refused_and_not_shown(name: str) -> None:
    (text,) = refused(**{name: "http://user:hush@host"})
    assert "hush" not in text


def test_an_override_names_a_setting() -> None:
    with pytest.raises(AssertionError, match="names a field"):
        load_settings({}, {"confg": "x"})
