"""`EventInvokeConfig` and `DeadLetterConfig` of a function: what becomes of its asynchronous events.

Source: lambda.md 5; wire-shapes.md 4.9, whose texts are Lambda's.
"""

from typing import Any

from esm.config.entry import FunctionEntry
from esm.config.members import DEAD_LETTER_CONFIG, EVENT_INVOKE_CONFIG
from esm.model.arn import Arn
from esm.model.function import ASYNC_AGE_MAX_S_DEFAULT, ASYNC_RETRIES_DEFAULT, AsyncRules
from esm.rules.arns import destination_problem
from esm.rules.shapes import Members

_CONFIG = "EventInvokeConfig"
_PLACE = f"{_CONFIG}.DestinationConfig"


def async_rules(entry: FunctionEntry, arn: Arn) -> AsyncRules:
    """The rules, with Lambda's defaults; what is wrong is noted as a problem."""
    config = entry.table(_CONFIG, Members(EVENT_INVOKE_CONFIG))
    if isinstance(entry.members.get(_CONFIG), dict) and not any(value not in (None, {}) for value in config.values()):
        entry.say(_CONFIG, None, "You must specify at least one of error handling or destination setting.")
    retries = entry.number(f"{_CONFIG}.MaximumRetryAttempts", EVENT_INVOKE_CONFIG["MaximumRetryAttempts"], config)
    age_s = entry.number(f"{_CONFIG}.MaximumEventAgeInSeconds", EVENT_INVOKE_CONFIG["MaximumEventAgeInSeconds"], config)
    shape = EVENT_INVOKE_CONFIG["DestinationConfig"]
    assert isinstance(shape, Members)
    destinations = entry.table(_PLACE, shape, config)
    return AsyncRules(
        retries_max=ASYNC_RETRIES_DEFAULT if retries is None else retries,
        age_max_s=ASYNC_AGE_MAX_S_DEFAULT if age_s is None else age_s,
        on_success=_destination(entry, arn, destinations, "OnSuccess", shape),
        on_failure=_destination(entry, arn, destinations, "OnFailure", shape),
        dead_letter=_dead_letter(entry),
    )


def _destination(
    entry: FunctionEntry, arn: Arn, destinations: dict[str, Any], name: str, shape: Members
) -> Arn | None:  # fmt: skip
    path = f"{_PLACE}.{name}"
    text = entry.text(f"{path}.Destination", entry.table(path, shape.of[name], destinations))
    if text is None:
        return None
    problem = _problem(text, arn, name)
    if problem is not None:
        entry.say(f"{path}.Destination", text, problem)
        return None
    return Arn.parse(text)


def _problem(text: str, function: Arn, name: str) -> str | None:
    try:
        arn = Arn.parse(text)
    except ValueError:
        arn = None
    if arn is not None and arn.unqualified == function:
        return "You can't specify the function as a destination for itself."
    if arn is not None and arn.service == "s3" and name == "OnSuccess":
        return (
            "The provided destination config DestinationConfig("
            f"onSuccess=OnSuccess(destination={text}), onFailure=null) is invalid."
        )
    return destination_problem(text, ("sqs", "sns") if name == "OnSuccess" else ("sqs", "sns", "s3"))


def _dead_letter(entry: FunctionEntry) -> Arn | None:
    place = "DeadLetterConfig.TargetArn"
    text = entry.text(place, entry.table("DeadLetterConfig", Members(DEAD_LETTER_CONFIG)))
    problem = None if text is None else destination_problem(text, ("sqs", "sns"))
    if problem is not None:
        entry.say(place, text, problem)
    return None if text is None or problem is not None else Arn.parse(text)
