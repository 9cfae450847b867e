"""Region, account and endpoints of a configuration: what ARNs without their own belong to, and who is called where."""

import re
from dataclasses import dataclass
from typing import Protocol

from esm.config.document import Document
from esm.config.files import Files
from esm.config.names import only
from esm.config.urls import url_problem
from esm.model.arn import Arn

SERVICES = ("sqs", "kinesis", "dynamodb", "dynamodbstreams", "lambda", "sns", "s3", "sts")
"""Services whose endpoint can be named."""

REGION = re.compile(r"[a-z0-9-]+")
ACCOUNT = re.compile(r"[0-9]{12}")
_PARTITIONS = {
    "cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b",
    "eu-isoe-": "aws-iso-e", "us-isof-": "aws-iso-f",
}  # fmt: skip
"""By the beginning of a region's name; every other region belongs to `aws`."""


class Surrounding(Protocol):
    """What the process settings give where the file is silent."""

    @property
    def region(self) -> str | None:
        """Region."""
        ...

    @property
    def account_id(self) -> str | None:
        """Twelve digits."""
        ...

    @property
    def endpoint_url(self) -> str | None:
        """Endpoint of every service."""
        ...

    @property
    def state_connection(self) -> str | None:
        """The connection of the state's table."""
        ...

    @property
    def blobs_connection(self) -> str | None:
        """The connection of the bucket for large values; None: that of the table."""
        ...


@dataclass(frozen=True, slots=True)
class Where:
    """What functions without an ARN of their own belong to."""

    partition: str
    region: str
    account_id: str

    def function_arn(self, key: str) -> Arn:
        """The ARN of a hosted or Url function."""
        return Arn(self.partition, "lambda", self.region, self.account_id, f"function:{key}")

    def role(self, key: str) -> str:
        """The role of one that names none."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{key}"


def partition_of(region: str) -> str:
    """The partition that a region belongs to."""
    return next((name for start, name in _PARTITIONS.items() if region.startswith(start)), "aws")


def where(files: Files, settings: Surrounding) -> Where:
    """Region and account; what is wrong or missing is noted as a problem."""
    document, region = files.sole("region")
    region = settings.region if region is None else document.text("region", region)
    if not isinstance(region, str) or not REGION.fullmatch(region):
        document.problem("region", region, "is needed, such as us-east-1 (or set ESM_REGION)")
        region = "us-east-1"
    document, account_id = files.sole("account_id")
    account_id = settings.account_id if account_id is None else document.text("account_id", account_id)
    if isinstance(account_id, int):
        written = document.written.get("account_id", account_id)
        document.problem("account_id", written, "was read as a number: put its twelve digits in quotes")
    elif not isinstance(account_id, str) or not ACCOUNT.fullmatch(account_id):
        document.problem("account_id", account_id, "is needed: twelve digits in quotes (or set ESM_ACCOUNT_ID)")
    return Where(partition_of(region), region, str(account_id))


def endpoint_url(files: Files, settings: Surrounding) -> str | None:
    """The endpoint of every service."""
    document, url = files.sole("endpoint_url")
    return url_at(document, "endpoint_url", url) or settings.endpoint_url


def endpoints(files: Files) -> dict[str, str]:
    """The endpoints of single services."""
    found = {}
    for entry in files.entries("endpoints", "must be a table: a service, then its URL"):
        only(entry.document, {entry.name: None}, SERVICES, "endpoints")
        url = url_at(entry.document, entry.path, entry.value)
        if url is not None:
            found[entry.name] = url
    return found


def url_at(document: Document, path: str, value: object) -> str | None:
    """A URL; None where there is none: an empty one, such as an unset `${ENDPOINT:-}` leaves, is none."""
    if value is None or value == "":
        return None
    problem = url_problem(value) if isinstance(value, str) else "must be a URL: http://host:port"
    if not isinstance(value, str) or problem is not None:
        document.problem(path, value, str(problem))
        return None
    return value
