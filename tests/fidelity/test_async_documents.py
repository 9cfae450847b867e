"""Documents of asynchronous destinations and dead-letter queues, byte for byte as recorded."""

import json
from dataclasses import replace

from esm.model.arn import Arn
from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient, Response, Verdict
from esm.model.clocks import UnixTime
from esm.model.notice import Attribute
from esm.rules import async_documents

ARN = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
AT = UnixTime(1764025867.9)
VERDICT = Verdict(AsyncCondition.SUCCESS, AT, "n", (Recipient.ON_SUCCESS,))
TAKEN = Response(200, "$LATEST", None, b'{"any":  "json the function returned"}')
FAILED = Response(
    200, "$LATEST", "Unhandled",
    b'{"errorMessage": "Test exception (this is intentional)", "errorType": "Exception", "requestId": "r"}',
)  # fmt: skip
EVENT = AsyncEvent("r", ARN, b'{"raise_error": 1}', UnixTime(0.0), None, 1, 0, TAKEN, VERDICT)


def failed(condition: AsyncCondition, tries: int, response: Response | None) -> AsyncEvent:
    verdict = replace(VERDICT, condition=condition)
    return replace(EVENT, tries=tries, response=response, verdict=verdict)


def test_success() -> None:
    assert async_documents.document(EVENT) == (
        b'{"version":"1.0","timestamp":"2025-11-24T23:11:07.900Z","requestContext":{"requestId":"r",'
        b'"functionArn":"arn:aws:lambda:us-east-1:111111111111:function:f:$LATEST","condition":"Success",'
        b'"approximateInvokeCount":1},"requestPayload":{"raise_error": 1},'
        b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},'
        b'"responsePayload":{"any":  "json the function returned"}}'
    )


def test_failure() -> None:
    assert async_documents.document(failed(AsyncCondition.RETRIES, 3, FAILED)) == (
        b'{"version":"1.0","timestamp":"2025-11-24T23:11:07.900Z","requestContext":{"requestId":"r",'
        b'"functionArn":"arn:aws:lambda:us-east-1:111111111111:function:f:$LATEST","condition":"RetriesExhausted",'
        b'"approximateInvokeCount":3},"requestPayload":{"raise_error": 1},'
        b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
        b'"responsePayload":' + FAILED.payload + b"}"
    )


def test_an_age_that_ended_shows_the_last_try_and_a_blocked_function_shows_none() -> None:
    aged = json.loads(async_documents.document(failed(AsyncCondition.AGE, 2, FAILED)))
    assert list(aged) == [
        "version", "timestamp", "requestContext", "requestPayload", "responseContext", "responsePayload",
    ]  # fmt: skip
    assert aged["requestContext"]["condition"] == "EventAgeExceeded"
    assert aged["requestContext"]["approximateInvokeCount"] == 2
    blocked = json.loads(async_documents.document(failed(AsyncCondition.NO_CONCURRENCY, 0, None)))
    assert list(blocked) == ["version", "timestamp", "requestContext", "requestPayload"]
    assert blocked["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert blocked["requestContext"]["approximateInvokeCount"] == 0


def test_a_qualifier_stays() -> None:
    one = replace(EVENT, function_arn=Arn.parse(f"{ARN}:live"))
    assert b'"functionArn":"arn:aws:lambda:us-east-1:111111111111:function:f:live"' in async_documents.document(one)


def test_an_answer_that_is_no_json_becomes_a_string_and_an_empty_one_null() -> None:
    for payload, shown in ((b"", None), (b"not json", "not json"), (b'"\xff"', '"\ufffd"')):
        one = replace(EVENT, response=replace(TAKEN, payload=payload))
        assert json.loads(async_documents.document(one))["responsePayload"] == shown


def test_a_dead_letter_is_the_event_verbatim_with_three_attributes() -> None:
    one = failed(AsyncCondition.RETRIES, 3, FAILED)
    notice = async_documents.notice(one, Recipient.DEAD_LETTER)
    assert async_documents.body(one, Recipient.DEAD_LETTER) == b'{"raise_error": 1}'
    assert notice.attributes == (
        Attribute("RequestID", "String", "r"),
        Attribute("ErrorCode", "Number", "200"),
        Attribute("ErrorMessage", "String", "Test exception (this is intentional)"),
    )
    assert async_documents.notice(one, Recipient.ON_FAILURE).attributes == ()
    assert async_documents.notice(one, Recipient.ON_FAILURE).folder == "aws/lambda/async/f"


def test_the_error_message_is_the_first_kilobyte_and_what_an_attribute_can_hold() -> None:
    payload = json.dumps({"errorMessage": "\x00" + "ä" * 2000}).encode()
    one = failed(AsyncCondition.RETRIES, 1, replace(FAILED, payload=payload))
    message = async_documents.notice(one, Recipient.DEAD_LETTER).attributes[2].value
    assert message.startswith("?ä")
    assert 1022 <= len(message.encode()) <= 1024


def test_what_never_ran_has_a_code_and_a_message_of_its_own() -> None:
    for condition, response, expected in (
        (AsyncCondition.NO_CONCURRENCY, None, ("429", "Rate Exceeded.")),
        (AsyncCondition.AGE, None, ("500", "The function could not be invoked.")),
        (AsyncCondition.RETRIES, replace(FAILED, payload=b"oops"), ("200", "Unhandled")),
        (AsyncCondition.RETRIES, replace(FAILED, payload=b"{}"), ("200", "Unhandled")),
    ):
        notice = async_documents.notice(failed(condition, 0, response), Recipient.DEAD_LETTER)
        assert tuple(one.value for one in notice.attributes[1:]) == expected
