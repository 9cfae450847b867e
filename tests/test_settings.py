"""Settings: what is known, what is refused, and every problem in one go."""

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


def test_a_secret_is_not_shown() -> None:
    settings = load_settings({"ESM_FUNCTION_AWS_SECRET_ACCESS_KEY": "hush"}, {})
    assert "hush" not in repr(settings)
    assert settings.function_environment == {"AWS_SECRET_ACCESS_KEY": "hush"}


def test_the_table_names_every_setting() -> None:
    table = settings_table()
    assert all(f"`ESM_{name.upper()}`" in table for name in Settings.model_fields)


@given(st.dictionaries(st.sampled_from([f"ESM_{name.upper()}" for name in Settings.model_fields]), st.text()))
def test_no_value_brings_anything_but_settings_or_a_refusal(environ: dict[str, str]) -> None:
    try:
        load_settings(environ, {})
    except ConfigurationRefused as refusal:
        assert refusal.problems
