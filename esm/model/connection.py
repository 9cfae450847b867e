"""A way into an AWS account: where, and as whom."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of `connections:`. Members are the configuration's; None: as the daemon itself has it."""

    name: str
    region: str | None = None
    """Where an ARN names none, and the region of the STS that gives the role."""
    endpoint_url: str | None = None
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    """Never shown."""
    session_name: str | None = None
    profile: str | None = None

    @property
    def has_identity(self) -> bool:
        """Whether it says as whom, and not only where."""
        return self.role_arn is not None or self.profile is not None


@dataclass(frozen=True, slots=True)
class Way:
    """As whom, and where, an AWS API is called: a connection's identity, and a role that is assumed by it."""

    connection: Connection | None = None
    """None: the daemon's own identity and endpoints."""
    role_arn: str | None = None
    """Assumed by the identity of the connection, or of the daemon: after the connection's role, if it has one."""

    @property
    def shown(self) -> str:
        """For status and texts: `daemon`, `connection NAME`, `role ARN`, `role ARN through connection NAME`."""
        through = None if self.connection is None else f"connection {self.connection.name}"
        if self.role_arn is None:
            return through or "daemon"
        return f"role {self.role_arn}" if through is None else f"role {self.role_arn} through {through}"


DAEMON = Way()
"""The daemon's own identity."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways that one mapping goes."""

    source: Way = DAEMON
    """Polls."""
    destination: Way = DAEMON
    """Brings notices to `DestinationConfig.OnFailure`."""
    target: Way = DAEMON
    """Invokes a function in AWS Lambda."""
    asynchronous: Way = DAEMON
    """Brings the results of the function's asynchronous events to their destinations."""

    @property
    def all(self) -> frozenset[Way]:
        """Each of them."""
        return frozenset({self.source, self.destination, self.target, self.asynchronous})


DAEMONS = Ways()
"""The daemon's own identity for everything."""
