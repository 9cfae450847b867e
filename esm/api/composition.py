"""Every operation that is offered, with what answers it."""

from esm.api import functions, invoking, unasked
from esm.api.behind import Behind
from esm.api.calls import Handler
from esm.api.mappings import MappingOperations
from esm.api.tags import TagOperations


def handlers(behind: Behind) -> dict[str, Handler]:
    """By operation; the keys are those of `offered.OFFERED`."""
    return {
        **MappingOperations(behind).handlers(),
        **TagOperations(behind).handlers(),
        **functions.handlers(behind),
        **invoking.handlers(behind),
        **unasked.handlers(lambda call: functions.found(behind, call)),
    }
