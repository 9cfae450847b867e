"""A way into an AWS account: where, and as whom. An entry of `connections:`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connection:
    """Members are the configuration's; None: as the daemon itself has it."""

    name: str
    region: str | None = None
    endpoint_url: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    session_name: str | None = None
    profile: str | None = None
