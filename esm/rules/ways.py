"""As whom a mapping polls, notifies and invokes.

The role is the mapping's `RoleArn`; else the connection's own identity, where it has one; else the function's `Role`,
where it was configured; else there is none and the daemon is itself. A mapping's role is assumed by the identity of
the connection (role chaining): the connection says how to get into the account, the role what may be done there. A
connection holds for what names it, and for nothing else: the source's is not the destination's.
"""

from collections.abc import Mapping as Table

from esm.model.connection import Connection, Way, Ways
from esm.model.function import Function, LambdaFunction
from esm.model.mapping import Mapping


def ways(mapping: Mapping, function: Function, connections: Table[str, Connection]) -> Ways:
    """Every way of a mapping. The names of its connections are keys of `connections`: the configuration has checked.

    The function's own role never polls where a connection brings an identity: who names an account wants that one.
    """
    target = Way(_named(function.connection, connections)) if isinstance(function, LambdaFunction) else Way()
    return Ways(
        source=_way(mapping.connection, mapping.role_arn, function, connections),
        destination=_way(mapping.on_failure_connection, mapping.role_arn, function, connections),
        target=target,
        asynchronous=asynchronous_way(function, connections),
    )


def asynchronous_way(function: Function, connections: Table[str, Connection]) -> Way:
    """The way to the destinations of a function's asynchronous events, whoever sent them."""
    return _way(function.connection, None, function, connections)


def _way(name: str | None, role_arn: str | None, function: Function, connections: Table[str, Connection]) -> Way:
    connection = _named(name, connections)
    if role_arn is None and not (connection is not None and connection.has_identity):
        role_arn = _role(function)
    return Way(connection, role_arn)


def _named(name: str | None, connections: Table[str, Connection]) -> Connection | None:
    return None if name is None else connections[name]


def _role(function: Function) -> str | None:
    if isinstance(function, LambdaFunction) or not function.has_role:
        return None
    return function.role
