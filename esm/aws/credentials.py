"""Credentials that a client's signer asks for before each request: found by the SDK's chain, or of an assumed role.

Law: nothing is looked for before it is needed, nothing expires in the middle, and a failure to get credentials is the
daemon's own error. It is remembered for some seconds: all pollers of an identity ask, but STS is asked once.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import botocore.exceptions as boto
from aiobotocore.credentials import AioDeferredRefreshableCredentials, create_credential_resolver

from esm.aws import failures
from esm.aws.failures import CredentialsMissing, taking_apart
from esm.aws.identities import Assumed
from esm.errors import EsmError, OperatorNeeded, Unavailable

ASK_AGAIN_S, ASK_AGAIN_SOON_S = 5.0, 1.0
"""How long a refusal, and a failure that passes, stand for an answer."""

REFRESH_BEFORE_S = 15 * 60
"""From here on one request in turn asks for new credentials, while the others use the old ones."""

REFRESH_AT_LAST_S = 2 * 60
"""From here on every request waits for them. The SDK has 10 minutes: too early to stop for an STS that is down."""

Ask = Callable[[], Awaitable[dict[str, Any]]]
T = TypeVar("T")

_NO_FILE = (FileNotFoundError, PermissionError, IsADirectoryError)
_WRONG = (boto.BotoCoreError, ValueError, LookupError, TypeError, RuntimeError)


class Remembered(Generic[T]):
    """A question whose failure holds for a while. Callable; raises what the question raises."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._failure: EsmError | None = None
        self._until = 0.0

    async def __call__(self) -> T:
        """The answer. Raises: OperatorNeeded, Unavailable."""
        if self._failure is not None and self._clock() < self._until:
            raise type(self._failure)(str(self._failure))
        try:
            answer = await self._ask()
        except (OperatorNeeded, Unavailable) as failure:
            self._failure = failure
            wait_s = ASK_AGAIN_SOON_S if isinstance(failure, Unavailable) else ASK_AGAIN_S
            self._until = self._clock() + wait_s
            raise
        self._failure = None
        return answer


@contextmanager
def _speaking_of(whose: str) -> Iterator[None]:
    """Around the SDK's own search: its errors become the daemon's."""
    try:
        yield
    except boto.ClientError as error:
        told = failures.translated(error, str(error.operation_name))
        kind = Unavailable if isinstance(told, Unavailable) else CredentialsMissing
        raise kind(f"{whose} has no credentials: {told}") from None
    except _NO_FILE as error:
        raise CredentialsMissing(f"{whose} has no credentials: {error}") from None
    except failures.NETWORK as error:
        raise Unavailable(f"{whose} has no credentials: {error}"[: failures.TEXT_MAX]) from None
    except _WRONG as error:
        raise CredentialsMissing(f"{whose} has no credentials: {type(error).__name__}: {error}") from None


class Doubted:
    """Credentials that a service no longer takes are forgotten, but not again and again."""

    def __init__(self, forget: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._forget = forget
        self._clock = clock
        self._not_before = -math.inf

    def after_call(self, parsed: object, **_: object) -> None:
        """An SDK's `after-call`: looks at an answer of a client that uses the credentials."""
        error = parsed.get("Error") if isinstance(parsed, dict) else None
        code = error.get("Code") if isinstance(error, dict) else None
        if code in failures.STALE and self._clock() >= self._not_before:
            self._not_before = self._clock() + ASK_AGAIN_S
            self._forget()


class FoundCredentials:
    """What the SDK's chain finds for a session: environment, files, web identity, pod identity, instance."""

    method = "esm-found"

    def __init__(self, session: Any, region: str, whose: str) -> None:  # noqa: ANN401 - aiobotocore has no types
        """`region`: where the SDK asks STS; `whose`: for texts."""
        self._session = session
        self._region = region
        self._whose = whose
        self._found: Any = None
        self._finding = asyncio.Lock()
        self._find = Remembered(self._look)
        self._frozen = Remembered(self._ask)
        self.doubted = Doubted(self._forget)

    async def get_frozen_credentials(self) -> Any:  # noqa: ANN401
        """Key, secret and token for one request. Raises: CredentialsMissing, Unavailable."""
        return await self._frozen()

    async def get_account_id(self) -> str | None:
        """The account, where the SDK knows it."""
        account_id: str | None = (await self._frozen()).account_id
        return account_id

    def get_deferred_property(self, _: str) -> Callable[[], Awaitable[str | None]]:
        """The account's: what else the SDK may defer, it asks for by `get_frozen_credentials`."""
        return self.get_account_id

    async def load_credentials(self) -> "FoundCredentials":
        """Itself: a session's `credential_provider`."""
        return self

    def _forget(self) -> None:
        self._found = None

    async def _ask(self) -> Any:  # noqa: ANN401
        chosen = await self._chosen()
        with _speaking_of(self._whose):
            return await chosen.get_frozen_credentials()

    async def _chosen(self) -> Any:  # noqa: ANN401
        if self._found is None:
            async with self._finding:
                if self._found is None:
                    self._found = await self._find()
        return self._found

    async def _look(self) -> Any:  # noqa: ANN401
        with _speaking_of(self._whose):
            found = await create_credential_resolver(self._session, region_name=self._region).load_credentials()
        if found is None:
            raise CredentialsMissing(
                f"{self._whose} has no credentials. Give the daemon credentials (AWS_ACCESS_KEY_ID, a role)."
            )
        return found


class RoleCredentials(AioDeferredRefreshableCredentials):
    """Of an assumed role; asked for at the first request, and again well before they expire."""

    _advisory_refresh_timeout = REFRESH_BEFORE_S
    _mandatory_refresh_timeout = REFRESH_AT_LAST_S

    def __init__(self, role: Assumed, whose: str, ask: Ask) -> None:
        """`ask` calls AssumeRole as `whose`, the identity that assumes it."""
        super().__init__(Remembered(lambda: _assumed(role, whose, ask)), "assume-role")
        self.doubted = Doubted(self._forget)

    async def load_credentials(self) -> "RoleCredentials":
        """Itself: a session's `credential_provider`."""
        return self

    def _forget(self) -> None:
        self._frozen_credentials = None


async def _assumed(role: Assumed, whose: str, ask: Ask) -> dict[str, Any]:
    """New credentials as the SDK keeps them. Raises: CredentialsMissing, Unavailable."""
    try:
        answer = await ask()
        with taking_apart("AssumeRole", "STS"):
            given = answer["Credentials"]
            expires_at: datetime = given["Expiration"]
            credentials = {
                "access_key": given["AccessKeyId"], "secret_key": given["SecretAccessKey"],
                "token": given["SessionToken"], "expiry_time": expires_at.isoformat(),
                "account_id": role.role_arn.split(":")[4],
            }  # fmt: skip
    except Unavailable as error:
        raise Unavailable(f"the role {role.role_arn} was not assumed by {whose}: {error}") from None
    except EsmError as error:
        raise CredentialsMissing(f"the role {role.role_arn} cannot be assumed by {whose}: {error}") from None
    if expires_at <= datetime.now(UTC):
        raise CredentialsMissing(
            f"the role {role.role_arn} was assumed until {expires_at.isoformat()}, which has passed: set the clocks"
        )
    return credentials
