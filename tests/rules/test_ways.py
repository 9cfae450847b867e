"""As whom a mapping polls, notifies and invokes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.arn import Arn, SourceKind
from esm.model.connection import DAEMON, Connection, Way, Ways
from esm.model.function import Function, HostedFunction, LambdaFunction, UrlFunction
from esm.model.mapping import Mapping
from esm.rules.ways import ways

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:123456789012:q")
EXECUTION = "arn:aws:iam::123456789012:role/execution"
POLLING = "arn:aws:iam::444455556666:role/polling"
PLACE = Connection("place", region="eu-west-1", endpoint_url="http://emulator:4566")
GATE = Connection("gate", role_arn="arn:aws:iam::444455556666:role/gate")
PROFILE = Connection("profile", profile="partner")
CONNECTIONS = {connection.name: connection for connection in (PLACE, GATE, PROFILE)}

MAPPING = Mapping("u", "f", FUNCTION, QUEUE, SourceKind.SQS)
HOSTED = HostedFunction("f", FUNCTION, EXECUTION, "python3.11", "app.handler", "/code", has_role=True)
BEHIND_URL = UrlFunction("f", FUNCTION, EXECUTION, "http://f", "rie", 3, has_role=True)
IN_LAMBDA = LambdaFunction("f", FUNCTION)

names = st.sampled_from([None, *CONNECTIONS])
functions = st.builds(
    lambda function, connection, has_role: (
        replace(function, connection=connection)
        if isinstance(function, LambdaFunction)
        else replace(function, connection=connection, has_role=has_role)
    ),
    st.sampled_from([HOSTED, BEHIND_URL, IN_LAMBDA]), names, st.booleans(),
)  # fmt: skip
mappings = st.builds(
    lambda source, destination, role: replace(
        MAPPING, connection=source, on_failure_connection=destination, role_arn=role
    ),
    names, names, st.sampled_from([None, POLLING]),
)  # fmt: skip


@given(mappings, functions)
def test_each_way_goes_through_the_connection_that_names_it_and_no_other(mapping: Mapping, function: Function) -> None:
    found = ways(mapping, function, CONNECTIONS)
    assert found.source.connection == CONNECTIONS.get(mapping.connection or "")
    assert found.destination.connection == CONNECTIONS.get(mapping.on_failure_connection or "")
    assert found.asynchronous.connection == CONNECTIONS.get(function.connection or "")


@given(mappings, functions)
def test_a_mappings_role_polls_and_notifies_whatever_else_is_configured(mapping: Mapping, function: Function) -> None:
    mapping = replace(mapping, role_arn=POLLING)
    found = ways(mapping, function, CONNECTIONS)
    assert found.source.role_arn == found.destination.role_arn == POLLING


@given(mappings, functions)
def test_a_functions_role_polls_where_it_was_configured_and_nothing_else_says_as_whom(
    mapping: Mapping, function: Function
) -> None:
    mapping = replace(mapping, role_arn=None)
    for way in (ways(mapping, function, CONNECTIONS).source, ways(mapping, function, CONNECTIONS).destination):
        has_identity = way.connection in (GATE, PROFILE)
        has_role = not isinstance(function, LambdaFunction) and function.has_role
        assert way.role_arn == (EXECUTION if has_role and not has_identity else None)


@given(mappings, functions)
def test_invoking_is_never_as_a_role_of_the_mapping(mapping: Mapping, function: Function) -> None:
    found = ways(mapping, function, CONNECTIONS)
    assert found.target.role_arn is None
    expected = CONNECTIONS.get(function.connection or "") if isinstance(function, LambdaFunction) else None
    assert found.target.connection == expected
    assert found.asynchronous.role_arn != POLLING


def test_without_any_of_it_the_daemon_does_everything_itself() -> None:
    assert ways(MAPPING, IN_LAMBDA, {}) == Ways()
    assert ways(MAPPING, replace(HOSTED, has_role=False), {}) == Ways()


def test_status_says_who_polls() -> None:
    assert DAEMON.shown == "daemon"
    assert Way(GATE).shown == "connection gate"
    assert Way(role_arn=POLLING).shown == f"role {POLLING}"
    assert Way(GATE, POLLING).shown == f"role {POLLING} through connection gate"


def test_an_external_id_is_never_shown() -> None:
    assert "sesame" not in repr(Ways(source=Way(replace(GATE, external_id="sesame"))))
