"""Signature Version 4, verified: who signed a request, on its raw path and exactly the headers that it names.

Law: host and every `x-amz-` header must be signed, so that nothing that means something can be added on the way. The
hash is always the body's: a body declared as unsigned or signed in chunks is refused, as Lambda does. A request is
taken within 5 minutes of its time; within them the same one may come again, as on AWS.
Source: AWS's description of Signature Version 4; the property test compares with botocore's signer.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from esm.errors import RequestRefused
from esm.model.clocks import UnixTime

WINDOW_S = 300
"""How far a request's time may be from ours. Source: Lambda's `Signature expired ... - 5 min.`."""

ALGORITHM = "AWS4-HMAC-SHA256"
_FORM = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM}\s+Credential=(?P<key>[^/,\s]{{1,128}})/(?P<date>\d{{8}})/(?P<region>[a-z0-9-]{{1,64}})/(?P<service>[a-z0-9-]"
    r"{1,64})/aws4_request\s*,\s*SignedHeaders=(?P<headers>[a-z0-9;_.-]{1,4096})\s*,\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_TIME = re.compile(r"\d{8}T\d{6}Z")
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it came."""

    method: str
    path: str
    """Raw: neither decoded nor normalised, without the query."""
    query: str
    """Raw."""
    headers: Sequence[tuple[str, str]]
    """Names in any case, in the order sent."""
    body: bytes = field(repr=False)


def signer(sent: Sent, secret_of: Callable[[str], str | None], region: str, now: UnixTime) -> str:
    """The access key whose secret signed the request. Raises: RequestRefused, with AWS's texts."""
    given = [value for name, value in sent.headers if name.lower() == "authorization"]
    if not given:
        raise _refused("Missing Authentication Token", "MissingAuthenticationTokenException")
    match = _AUTHORIZATION.fullmatch(given[0].strip()) if len(given) == 1 else None
    if match is None:
        text = (
            f"Authorization header requires '{ALGORITHM}', 'Credential', 'SignedHeaders' and 'Signature': sign with"
            " Signature Version 4."
        )
        raise _refused(text, "IncompleteSignatureException", 400)
    headers = _signed_headers(sent.headers, match["headers"].split(";"))
    stamp = _stamp(headers, match["date"], now)
    _check_scope(match, region)
    _check_payload(headers, sent.body)
    secret = secret_of(match["key"])
    if secret is None or "x-amz-security-token" in headers:
        text = "The security token included in the request is invalid."
        raise _refused(text, "UnrecognizedClientException")
    expected = _signature(secret, match, stamp, _canonical(sent, headers, match["headers"]))
    if not hmac.compare_digest(expected, match["signature"]):
        raise _refused(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
            " Access Key and signing method. Consult the service documentation for details."
        )
    return match["key"]


def _signed_headers(given: Sequence[tuple[str, str]], signed: Sequence[str]) -> dict[str, str]:
    """The headers that count: by name in small letters, their values as signatures have them."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    unsigned = sorted(name for name in values if name.startswith("x-amz-") and name not in signed)
    if unsigned:
        raise _refused(f"There were headers present in the request which were not signed: {', '.join(unsigned)}")
    if "host" not in signed:
        raise _refused("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    missing = [name for name in signed if name not in values]
    if missing or list(signed) != sorted(set(signed)):
        raise _refused(f"SignedHeaders names headers that are not there, or not in order: {', '.join(signed)}")
    return {name: ",".join(values[name]) for name in signed}


def _stamp(headers: dict[str, str], date: str, now: UnixTime) -> str:
    stamp = headers.get("x-amz-date", "")
    if not _TIME.fullmatch(stamp):
        text = "Authorization header requires existence of a signed 'X-Amz-Date' header, such as 20260131T120000Z."
        raise _refused(text, "IncompleteSignatureException", 400)
    if stamp[:8] != date:
        raise _refused(f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {stamp}")
    try:
        at = datetime.strptime(stamp, _FORM).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise _refused(f"Date must be a time: {stamp}") from error
    if at < now - WINDOW_S:
        raise _refused(
            f"Signature expired: {stamp} is now earlier than {_shown(now - WINDOW_S)} ({_shown(now)} - 5 min.)"
        )
    if at > now + WINDOW_S:
        raise _refused(
            f"Signature not yet current: {stamp} is still later than {_shown(now + WINDOW_S)} ({_shown(now)} + 5 min.)"
        )
    return stamp


def _check_scope(match: re.Match[str], region: str) -> None:
    if match["service"] != "lambda":
        raise _refused(f"Credential should be scoped to correct service: 'lambda', not {match['service']!r}.")
    if match["region"] != region:
        raise _refused(
            f"Credential should be scoped to a valid region: {region!r}, which is esm's, not {match['region']!r}."
        )


def _check_payload(headers: dict[str, str], body: bytes) -> None:
    declared = headers.get("x-amz-content-sha256")
    if declared is not None and not hmac.compare_digest(declared.encode(), hashlib.sha256(body).hexdigest().encode()):
        raise _refused(
            "The value of x-amz-content-sha256 is not the SHA-256 of the body: Lambda takes neither UNSIGNED-PAYLOAD"
            " nor a payload that is signed in chunks. Sign the whole body."
        )


def _canonical(sent: Sent, headers: dict[str, str], signed: str) -> str:
    lines = "".join([f"{name}:{value}\n" for name, value in headers.items()])
    body = hashlib.sha256(sent.body).hexdigest()
    return "\n".join([sent.method, quote(sent.path, safe="/~"), canonical_query(sent.query), lines, signed, body])


def canonical_query(query: str) -> str:
    """A raw query as signatures have it: every name and value encoded in one way, sorted."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encoded = [(quote(unquote(k), safe=_UNRESERVED), quote(unquote(v), safe=_UNRESERVED)) for k, _, v in pairs]
    return "&".join([f"{name}={value}" for name, value in sorted(encoded)])


def _signature(secret: str, match: re.Match[str], stamp: str, canonical: str) -> str:
    scope = f"{match['date']}/{match['region']}/{match['service']}/aws4_request"
    text = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (match["date"], match["region"], match["service"], "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_FORM)


def _refused(text: str, exception: str = "InvalidSignatureException", status: int = 403) -> RequestRefused:
    return RequestRefused(text, exception, status)
