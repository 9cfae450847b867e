"""The lean way for hot answers: their bodies reach the adapter as they came, instead of botocore's parsed dicts.

botocore takes 15 ms for 1,000 Kinesis records of 1 KB and 138 ms for 1,000 DynamoDB records; decoding the same bytes
into typed structs and building the Lambda event takes 0.9 and 4 ms. Errors still go the ordinary way.
"""

from typing import Any

from aiobotocore.parsers import AioJSONParser, AioResponseParserFactory
from botocore.parsers import ResponseParserError

BODY = "RawBody"
"""Key of a hot answer's bytes."""

_HOT_SHAPES = frozenset(
    {"GetRecordsOutput", "ReceiveMessageResult", "DeleteMessageBatchResult", "ChangeMessageVisibilityBatchResult"}
)


class _RawJSONParser(AioJSONParser):
    """AWS JSON, except that hot answers stay bytes."""

    def _do_parse(self, response: dict[str, Any], shape: Any) -> Any:  # noqa: ANN401 - botocore's own types
        if shape is not None and shape.name in _HOT_SHAPES:
            return {BODY: response["body"]}
        return super()._do_parse(response, shape)  # type: ignore[misc]


class _Parser:
    """One of botocore's parsers, whose stumbling over an answer of another shape has one name."""

    def __init__(self, parser: Any) -> None:  # noqa: ANN401
        self._parser = parser

    async def parse(self, response: dict[str, Any], shape: Any) -> dict[str, Any]:  # noqa: ANN401
        """The answer as botocore's clients want it. Raises: ResponseParserError."""
        try:
            parsed = await self._parser.parse(response, shape)
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            raise ResponseParserError(f"status {response.get('status_code')}, {type(error).__name__}") from error
        if not isinstance(parsed, dict):
            raise ResponseParserError(f"status {response.get('status_code')}, no object")
        return parsed


class RawParserFactory(AioResponseParserFactory):
    """Registered as the session's `response_parser_factory`, botocore's public seam."""

    def create_parser(self, protocol_name: str) -> Any:  # noqa: ANN401
        """The parser of a protocol."""
        if protocol_name == "json":
            return _Parser(_RawJSONParser(**self._defaults))  # type: ignore[attr-defined]
        return _Parser(super().create_parser(protocol_name))
