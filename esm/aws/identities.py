"""As whom AWS is called: the daemon or a profile of the SDK's files, and the roles that are assumed from there."""

import re
from dataclasses import dataclass, field, replace

from esm.errors import OperatorNeeded
from esm.model.arn import Arn
from esm.model.connection import Way

SESSION_NAME_MAX = 64
_NOT_IN_A_NAME = re.compile(r"[^\w+=,.@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Assumed:
    """A role, and how STS is asked for it."""

    role_arn: str
    session_name: str
    external_id: str | None = field(repr=False)
    region: str
    """Of STS."""
    endpoint_url: str | None
    """Of STS; None: as the SDK finds it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Equal identities share their credentials; others share nothing."""

    profile: str | None = None
    """None: what the SDK finds for the process."""
    region: str | None = None
    """Where the SDK asks for the profile's credentials; None: in the daemon's."""
    roles: tuple[Assumed, ...] = ()
    """Assumed one after the other."""

    @property
    def parent(self) -> "Identity":
        """Who assumes the last role."""
        return replace(self, roles=self.roles[:-1])

    @property
    def shown(self) -> str:
        """For texts."""
        if self.roles:
            return self.roles[-1].role_arn
        return "the daemon" if self.profile is None else f"the profile {self.profile!r}"

    @property
    def errands(self) -> "frozenset[tuple[Identity, str | None]]":
        """Who asks STS for its roles, and at which endpoint."""
        return frozenset(
            (replace(self, roles=self.roles[:count]), role.endpoint_url) for count, role in enumerate(self.roles)
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """Where STS is asked."""

    region: str
    endpoint_url: str | None
    regions_by_partition: dict[str, str]
    """A region of each partition that the SDK knows."""
    partition: str | None
    """Of `region`; None: no partition of AWS has it, as with an emulator."""

    def region_of(self, role_arn: str) -> str:
        """A region of the role's partition. Raises: OperatorNeeded."""
        try:
            role = Arn.parse(role_arn)
        except ValueError as error:
            raise OperatorNeeded(f"RoleArn: {error}") from error
        if self.partition in (None, role.partition):
            return self.region
        if role.partition not in self.regions_by_partition:
            raise OperatorNeeded(f"the role {role_arn} is in the partition {role.partition!r}, which AWS does not have")
        return self.regions_by_partition[role.partition]


def identity_of(way: Way, worker: str, desk: Desk) -> Identity:
    """Who goes this way: the connection's role first, then the way's own. Raises: OperatorNeeded.

    A connection's ExternalId is for its own role; where it has none, for the one that is assumed through it.
    """
    connection = way.connection
    own = connection.role_arn if connection is not None else None
    external_id = connection.external_id if connection is not None else None
    name = session_name(worker if connection is None else connection.session_name or worker)
    asked = [(own, external_id)] if own is not None else []
    if way.role_arn is not None:
        asked.append((way.role_arn, None if asked else external_id))
    roles = tuple(Assumed(role, name, secret, desk.region_of(role), desk.endpoint_url) for role, secret in asked)
    profile = None if connection is None else connection.profile
    return Identity(profile, None if profile is None else desk.region, roles)


def session_name(text: str) -> str:
    """What STS takes for a RoleSessionName: 2 to 64 of `A-Za-z0-9_+=,.@-`; other characters become `-`."""
    return _NOT_IN_A_NAME.sub("-", text)[:SESSION_NAME_MAX].ljust(2, "-")
