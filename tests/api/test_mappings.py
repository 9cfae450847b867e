"""Event source mappings through the API: states, texts, order of checks and answers as recorded."""

from typing import Any

import pytest

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.mapping import Mapping, State
from tests.api.served import Answered, Served, World, function_arn, served

PATH = "/2015-03-31/event-source-mappings"
QUEUE = "arn:aws:sqs:us-east-1:111111111111:q"
STREAM = "arn:aws:kinesis:us-east-1:111111111111:stream/s"
TABLE = "arn:aws:dynamodb:us-east-1:111111111111:table/t/stream/2025-11-25T15:47:03.123"
FIRST = "00000000-0000-4000-8000-000000000000"


def declared() -> Mapping:
    source = Arn.parse("arn:aws:sqs:us-east-1:111111111111:of-the-file")
    return Mapping("aaaaaaaa-0000-4000-8000-000000000000", "f", function_arn("f"), source, SourceKind.SQS)


async def made(api: Served, **more: Any) -> dict[str, Any]:
    request = {"FunctionName": "f", "EventSourceArn": QUEUE} | more
    answer = await api.call("POST", PATH, {name: value for name, value in request.items() if value is not None})
    assert answer.status == 202, answer.body
    return answer.json


def refused(answer: Answered) -> tuple[int, str, dict[str, str]]:
    return answer.status, answer.headers["x-amzn-ErrorType"], answer.json


INVALID = "InvalidParameterValueException"


def invalid(text: str) -> tuple[int, str, dict[str, str]]:
    return 400, INVALID, {"Type": "User", "message": text}


async def test_a_queues_mapping_is_answered_with_the_recorded_keys_and_no_others() -> None:
    async with served() as api:
        assert await made(api) == {
            "BatchSize": 10, "EventSourceArn": QUEUE,
            "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:111111111111:event-source-mapping:{FIRST}",
            "FunctionArn": "arn:aws:lambda:us-east-1:111111111111:function:f", "FunctionResponseTypes": [],
            "LastModified": 1769860800.5, "MaximumBatchingWindowInSeconds": 0, "State": "Creating",
            "StateTransitionReason": "USER_INITIATED", "UUID": FIRST,
        }  # fmt: skip


async def test_a_streams_mapping_is_answered_with_the_recorded_keys_and_no_others() -> None:
    async with served() as api:
        for source in (STREAM, TABLE):
            found = await made(api, EventSourceArn=source, StartingPosition="TRIM_HORIZON")
            uuid = found["UUID"]
            assert found == {
                "BatchSize": 100, "BisectBatchOnFunctionError": False, "DestinationConfig": {"OnFailure": {}},
                "EventSourceArn": source,
                "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:111111111111:event-source-mapping:{uuid}",
                "FunctionArn": "arn:aws:lambda:us-east-1:111111111111:function:f", "FunctionResponseTypes": [],
                "LastModified": 1769860800.5, "LastProcessingResult": "No records processed",
                "MaximumBatchingWindowInSeconds": 0, "MaximumRecordAgeInSeconds": -1, "MaximumRetryAttempts": -1,
                "ParallelizationFactor": 1, "StartingPosition": "TRIM_HORIZON", "State": "Creating",
                "StateTransitionReason": "User action", "TumblingWindowInSeconds": 0, "UUID": uuid,
            }  # fmt: skip


async def test_optional_keys_are_there_when_they_are_set() -> None:
    async with served() as api:
        filters = {"Filters": [{"Pattern": '{"body":{"a":[1]}}'}]}
        found = await made(api, FilterCriteria=filters, ScalingConfig={"MaximumConcurrency": 2})
        assert (found["FilterCriteria"], found["ScalingConfig"]) == (filters, {"MaximumConcurrency": 2})
        await api.runs(FIRST)
        update = {"FilterCriteria": {}, "ScalingConfig": {}, "ProvisionedPollerConfig": {"MinimumPollers": 3}}
        answer = await api.call("PUT", f"{PATH}/{FIRST}", update | {"MetricsConfig": {"Metrics": ["EventCount"]}})
        assert answer.json.keys() & {"FilterCriteria", "ScalingConfig"} == set()
        assert answer.json["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 200}
        assert answer.json["MetricsConfig"] == {"Metrics": ["EventCount"]}
        destination = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:111111111111:dead"}}
        stream = await made(
            api, EventSourceArn=STREAM, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=1700000000,
            DestinationConfig=destination, KMSKeyArn="arn:aws:kms:us-east-1:111111111111:key/k",
        )  # fmt: skip
        assert (stream["StartingPositionTimestamp"], stream["DestinationConfig"]) == (1700000000.0, destination)
        assert stream["KMSKeyArn"].endswith("key/k")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("f", "f"), ("arn:aws:lambda:us-east-1:111111111111:function:f", "f"), ("f:$LATEST", "f:$LATEST"),
        ("f:1", "f:1"), ("arn:aws:lambda:us-east-1:111111111111:function:f:1", "f:1"),
        ("111111111111:function:f", "f"),
    ],
)  # fmt: skip
async def test_the_qualifier_stays_in_the_functions_arn_as_given(name: str, shown: str) -> None:
    async with served() as api:
        found = await made(api, FunctionName=name)
        assert found["FunctionArn"] == f"arn:aws:lambda:us-east-1:111111111111:function:{shown}"


async def test_states_follow_the_recorded_table() -> None:
    async with served() as api:
        assert (await made(api, Enabled=False))["State"] == "Disabled"
        path = f"{PATH}/{FIRST}"
        for update, first, later in (
            ({"Enabled": True}, "Enabling", State.ENABLED), ({"BatchSize": 5}, "Updating", State.ENABLED),
            ({"Enabled": False}, "Disabling", State.DISABLED), ({"BatchSize": 6}, "Updating", State.DISABLED),
        ):  # fmt: skip
            answer = await api.call("PUT", path, update)
            assert (answer.status, answer.json["State"]) == (202, first)
            assert (await api.call("GET", path)).json["State"] == first
            await api.runs(FIRST, later)
            assert (await api.call("GET", path)).json["State"] == later.value
        answer = await api.call("DELETE", path)
        assert (answer.status, answer.json["State"], answer.json["BatchSize"]) == (202, "Deleting", 6)
        assert (await api.call("GET", path)).json["State"] == "Deleting"
        stored = await api.catalogue.mapping(FIRST)
        assert stored is not None
        assert await api.catalogue.finish_mapping(stored, lambda _: True)
        assert (await api.call("GET", path)).status == 404


async def test_a_mapping_on_its_way_is_in_use_unless_it_is_stuck() -> None:
    async with served() as api:
        await made(api)
        path = f"{PATH}/{FIRST}"
        text = "Cannot {} the event source mapping because it is in use."
        for method, verb in (("PUT", "update"), ("DELETE", "delete")):
            answer = await api.call(method, path, {"BatchSize": 2} if method == "PUT" else None)
            message = {"Type": "User", "Message": text.format(verb)}
            assert refused(answer) == (400, "ResourceInUseException", message)
        await api.runs(FIRST, State.CREATING, has_problem=True)
        assert (await api.call("PUT", path, {"BatchSize": 2})).status == 202
        api.world.problems[FIRST] = "Function does not exist"
        shown = (await api.call("GET", path)).json
        assert shown["StateTransitionReason"] == "PROBLEM: Function does not exist"
        assert (await api.call("DELETE", path)).status == 202
        assert (await api.call("DELETE", path)).status == 400


async def test_the_recorded_order_of_checks() -> None:
    missing = RequestRefused("Stream not found: x")
    async with served(World(refusal=missing)) as api:

        async def create(**request: Any) -> tuple[int, str, dict[str, str]]:
            return refused(await api.call("POST", PATH, request))

        on_success = {"OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:111111111111:x"}}
        unsupported = "Unsupported DestinationConfig parameter for given event source mapping type."
        assert await create(FunctionName="no", EventSourceArn=STREAM, DestinationConfig=on_success,
                            StartingPosition="LATEST") == invalid(unsupported)  # fmt: skip
        assert await create(FunctionName="no") == invalid("Unrecognized event source.")
        assert await create(FunctionName="no", EventSourceArn=QUEUE) == invalid("Function does not exist")
        assert await create(FunctionName="f", EventSourceArn=QUEUE) == invalid("Stream not found: x")
        assert await create(FunctionName="f", EventSourceArn=QUEUE, BatchSize=11) == invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
        assert await create(FunctionName="f", EventSourceArn=STREAM) == invalid(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must"
            " not be null."
        )
        assert await create(FunctionName="f", EventSourceArn=TABLE, StartingPosition="AT_TIMESTAMP") == invalid(
            f"Unsupported starting position for arn type: {TABLE}"
        )
        assert await create(
            FunctionName="f", EventSourceArn=QUEUE, FilterCriteria={"Filters": [{"Pattern": "x"}]}
        ) == invalid("Invalid filter pattern definition.")
        status, exception, body = await create(FunctionName="f", EventSourceArn=STREAM, StartingPosition="x")
        assert (status, exception, body.keys()) == (400, "ValidationException", {"message"})
        assert api.audit.changes == []


async def test_one_source_and_function_have_one_mapping() -> None:
    async with served(World(declared_mappings=(declared(),))) as api:
        await made(api)
        await made(api, EventSourceArn=STREAM, StartingPosition="LATEST")
        of_queue = 'An event source mapping with SQS arn (" {} ") and function (" f ") already exists.'
        of_stream = 'The event source arn (" {} ") and function (" f ") provided mapping already exists.'
        for source, uuid, text in (
            (QUEUE, FIRST, of_queue), (STREAM, FIRST[:-1] + "1", of_stream),
            ("arn:aws:sqs:us-east-1:111111111111:of-the-file", declared().uuid, of_queue),
        ):  # fmt: skip
            request = {"FunctionName": "f", "EventSourceArn": source, "StartingPosition": "LATEST"}
            if "sqs" in source:
                del request["StartingPosition"]
            advice = f" Please update or delete the existing mapping with UUID {uuid}"
            body = {"Type": "User", "message": text.format(source) + advice}
            assert refused(await api.call("POST", PATH, request)) == (409, "ResourceConflictException", body)
        await made(api, FunctionName="g")
        await api.runs(FIRST)
        answer = await api.call("PUT", f"{PATH}/{FIRST}", {"FunctionName": "g"})
        assert answer.status == 409


async def test_a_mapping_that_is_not_there_is_not_found() -> None:
    async with served() as api:
        body = {"Type": "User", "Message": "The resource you requested does not exist."}
        for method in ("GET", "PUT", "DELETE"):
            answer = await api.call(method, f"{PATH}/{FIRST}", {} if method == "PUT" else None)
            assert refused(answer) == (404, "ResourceNotFoundException", body)


async def test_those_of_the_file_are_shown_and_not_changed() -> None:
    async with served(World(declared_mappings=(declared(),))) as api:
        path = f"{PATH}/{declared().uuid}"
        assert (await api.call("GET", path)).json["State"] == "Creating"
        api.world.views[declared().uuid] = await view_of(api, declared().uuid)
        assert (await api.call("GET", path)).json["State"] == "Disabled"
        assert (await api.call("GET", path)).json["StateTransitionReason"] == "paused by operator"
        for method in ("PUT", "DELETE"):
            answer = await api.call(method, path, {"BatchSize": 1} if method == "PUT" else None)
            assert answer.status == 400
            assert "stands in the configuration (esm.yaml: mappings[0]) and is read-only" in answer.json["message"]
        tags = f"/2017-03-31/tags/arn:aws:lambda:us-east-1:111111111111:event-source-mapping:{declared().uuid}"
        assert (await api.call("GET", tags)).json == {"Tags": {}}
        assert (await api.call("POST", tags, {"Tags": {"a": "b"}})).status == 400


async def view_of(api: Served, uuid: str) -> Any:
    await api.runs(uuid, State.DISABLED, reason="paused by operator")
    return api.world.views[uuid]


async def test_lists_are_by_source_by_function_and_in_pages() -> None:
    async with served(World(declared_mappings=(declared(),))) as api:
        for number in range(5):
            await made(api, EventSourceArn=f"{QUEUE}{number}", FunctionName="g:1" if number == 0 else "f")

        async def listed(**query: Any) -> list[str]:
            answer = await api.call("GET", PATH, params=query)
            assert answer.status == 200
            return [one["EventSourceArn"].rpartition(":")[2] for one in answer.json["EventSourceMappings"]]

        assert await listed() == ["q0", "q1", "q2", "q3", "q4", "of-the-file"]
        assert await listed(EventSourceArn=f"{QUEUE}3") == ["q3"]
        assert await listed(FunctionName="g") == ["q0"]
        assert await listed(FunctionName="g:1") == ["q0"]
        assert await listed(FunctionName="g:$LATEST") == []
        assert await listed(FunctionName="nobody") == []
        assert await listed(EventSourceArn=f"{QUEUE}-none") == []
        found, marker = [], None
        while True:
            query = {"MaxItems": 2} | ({"Marker": marker} if marker else {})
            page = (await api.call("GET", PATH + "/", params=query)).json
            found += [one["UUID"] for one in page["EventSourceMappings"]]
            marker = page.get("NextMarker")
            if marker is None:
                break
        assert len(found) == len(set(found)) == 6
        assert refused(await api.call("GET", PATH, params={"Marker": "?"}))[1] == INVALID


async def test_tags_are_read_set_and_removed() -> None:
    async with served() as api:
        arn = (await made(api, Tags={"a": "1"}))["EventSourceMappingArn"]
        await api.runs(FIRST)
        path = f"/2017-03-31/tags/{arn}"
        answer = await api.call("POST", path, {"Tags": {"b": "2"}})
        assert (answer.status, answer.body) == (204, b"")
        assert (await api.call("GET", path)).json == {"Tags": {"a": "1", "b": "2"}}
        assert (await api.call("GET", f"{PATH}/{FIRST}")).json["State"] == "Enabled"
        assert (await api.call("DELETE", path, params=[("tagKeys", "a"), ("tagKeys", "x")])).status == 204
        assert (await api.call("GET", path)).json == {"Tags": {"b": "2"}}
        assert refused(await api.call("POST", path, {"Tags": {}})) == invalid(
            "An error occurred and the request cannot be processed."
        )
        many = {str(number): "" for number in range(51)}
        assert "at most 50" in (await api.call("POST", path, {"Tags": many})).json["message"]
        other = arn.replace(FIRST, FIRST[:-1] + "9")
        assert refused(await api.call("GET", f"/2017-03-31/tags/{other}")) == (
            404, "ResourceNotFoundException", {"Type": "User", "Message": f"Event source mapping not found: {other}"}
        )  # fmt: skip
        assert (await api.call("GET", path.replace("us-east-1", "eu-west-1"))).status == 404
        function = "/2017-03-31/tags/arn:aws:lambda:us-east-1:111111111111:function:"
        assert (await api.call("GET", f"{function}f")).json == {"Tags": {}}
        assert (await api.call("GET", f"{function}no")).status == 404
        assert (await api.call("POST", f"{function}f", {"Tags": {"a": "b"}})).status == 400


async def test_every_change_is_one_audit_event() -> None:
    async with served() as api:
        arn = (await made(api))["EventSourceMappingArn"]
        await api.runs(FIRST)
        await api.call("PUT", f"{PATH}/{FIRST}", {"BatchSize": 2})
        await api.runs(FIRST)
        await api.call("POST", f"/2017-03-31/tags/{arn}", {"Tags": {"b": "2"}})
        await api.runs(FIRST)
        await api.call("DELETE", f"{PATH}/{FIRST}")
        assert [change["operation"] for change in api.audit.changes] == [
            "CreateEventSourceMapping", "UpdateEventSourceMapping", "TagResource", "DeleteEventSourceMapping"
        ]  # fmt: skip
        assert {change["who"] for change in api.audit.changes} == {"anonymous"}
        create, update, _, delete = api.audit.changes
        assert (create["before"], delete["after"]) == ("null", "null")
        assert '"BatchSize":10' in str(update["before"])
        assert '"BatchSize":2' in str(update["after"])
        assert create["request_id"] == "request-0"
