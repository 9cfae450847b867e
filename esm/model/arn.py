"""Amazon Resource Names, taken apart."""

from dataclasses import dataclass
from enum import Enum

_PARTS = 6


class SourceKind(Enum):
    """What a mapping reads."""

    SQS = "sqs"
    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"

    @property
    def is_stream(self) -> bool:
        """Whether records have positions (Kinesis, DynamoDB) rather than receipts (SQS)."""
        return self is not SourceKind.SQS


@dataclass(frozen=True, slots=True)
class Arn:
    """`arn:partition:service:region:account:resource`."""

    partition: str
    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Take an ARN apart. Raises: ValueError, naming the text."""
        parts = text.split(":", _PARTS - 1)
        if len(parts) != _PARTS or parts[0] != "arn" or not parts[1] or not parts[2] or not parts[5]:
            msg = f"{text!r} is not an ARN (arn:partition:service:region:account:resource)"
            raise ValueError(msg)
        return cls(*parts[1:])

    def __str__(self) -> str:
        """The ARN as AWS writes it."""
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def name(self) -> str:
        """The queue, stream, table, topic, bucket or function name, without qualifier."""
        match self.service:
            case "kinesis":
                return self.resource.removeprefix("stream/").split("/", 1)[0]
            case "dynamodb":
                return self.resource.removeprefix("table/").split("/", 1)[0]
            case "lambda":
                return self.resource.removeprefix("function:").split(":", 1)[0]
            case _:
                return self.resource

    @property
    def qualifier(self) -> str | None:
        """A function's version or alias; None where the ARN names none."""
        if self.service != "lambda":
            return None
        _, _, qualifier = self.resource.removeprefix("function:").partition(":")
        return qualifier or None

    @property
    def unqualified(self) -> "Arn":
        """A function's ARN without its version or alias; any other ARN as it is."""
        if self.qualifier is None:
            return self
        return Arn(self.partition, self.service, self.region, self.account, f"function:{self.name}")
