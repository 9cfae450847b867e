"""A notice's message attributes, as SQS and SNS take them. Source: wire-shapes.md 3.6."""

from esm.model.notice import AnyNotice


def of(notice: AnyNotice) -> dict[str, dict[str, dict[str, str]]]:
    """The parameter of the call, where there are any."""
    if not notice.attributes:
        return {}
    found = {one.name: {"DataType": one.type, "StringValue": one.value} for one in notice.attributes}
    return {"MessageAttributes": found}
