"""Who signed: what botocore's signer signs is taken, and nothing that was altered since."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from esm.api.signatures import Sent, signer
from esm.errors import RequestRefused
from esm.model.clocks import UnixTime

SECRETS = {"AKID": "a-secret-of-some-length", "OTHER": "another-secret-of-some-length"}
HOST = "127.0.0.1:3001"
PATH = "/2015-03-31/functions/f/invocations"


def signed(
    method: str = "POST", path: str = PATH, query: str = "", body: bytes = b"{}",
    headers: dict[str, str] | None = None, *, key: str = "AKID", secret: str | None = None, service: str = "lambda",
    region: str = "us-east-1", token: str | None = None,
) -> Sent:  # fmt: skip
    """A request as botocore signs and sends it."""
    url = f"http://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers=headers or {}, data=body)
    credentials = Credentials(key, secret or SECRETS.get(key, "x" * 20), token)
    auth.SigV4Auth(credentials, service, region).add_auth(request)
    found = [(name, value) for name, value in request.headers.items()]
    return Sent(method, path, query, [("Host", HOST), ("User-Agent", "x"), *found], body)


def at_of(sent: Sent) -> float:
    """When it says that it was signed."""
    stamp = next(value for name, value in sent.headers if name == "X-Amz-Date")
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def who(sent: Sent, now: float | None = None, late_s: int = 0) -> str:
    return signer(sent, SECRETS.get, "us-east-1", UnixTime((at_of(sent) if now is None else now) + late_s))


def refusal(sent: Sent, now: float | None = None, late_s: int = 0) -> tuple[str, str]:
    with pytest.raises(RequestRefused) as refused:
        who(sent, now, late_s)
    return refused.value.exception, str(refused.value)


SEGMENTS = st.lists(st.text(min_size=1, max_size=12).filter(lambda text: text.strip(".")), min_size=1, max_size=3)
PAIRS = st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=8)), max_size=4)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]), SEGMENTS.filter(lambda found: "\ud800" not in "".join(found)),
    PAIRS, st.binary(max_size=50), st.dictionaries(st.sampled_from(["X-Amz-Invocation-Type", "X-Amz-Log"]), VALUES),
    st.integers(-300, 300),
)  # fmt: skip
def test_what_botocore_signs_is_taken_whatever_it_is(
    method: str, segments: list[str], pairs: list[tuple[str, str]], body: bytes, headers: dict[str, str], late_s: int
) -> None:
    path = "/" + "/".join(quote(one.encode(errors="replace"), safe="") for one in segments)
    encoded = [(quote(k.encode(errors="replace"), safe="-_.~"), quote(v.encode(errors="replace"), safe="-_.~"))
               for k, v in pairs]  # fmt: skip
    query = "&".join(f"{name}={value}" for name, value in encoded)
    assert who(signed(method, path, query, body, headers), late_s=late_s) == "AKID"


WRONG = "InvalidSignatureException"


def test_whatever_is_altered_is_refused() -> None:
    sent = signed(query="Qualifier=1", headers={"X-Amz-Invocation-Type": "Event"})
    assert who(sent) == "AKID"
    text = "The request signature we calculated does not match the signature you provided."
    for other in (
        replace(sent, body=b"{ }"), replace(sent, method="PUT"), replace(sent, path=PATH + "/"),
        replace(sent, path=PATH.replace("/f/", "/./f/")), replace(sent, query="Qualifier=2"), replace(sent, query=""),
        replace(sent, headers=[(n, "DryRun" if n == "X-Amz-Invocation-Type" else v) for n, v in sent.headers]),
        replace(sent, headers=[(n, "evil:1" if n == "Host" else v) for n, v in sent.headers]),
        replace(sent, headers=[*sent.headers, ("x-amz-invocation-type", "DryRun")]),
        signed(secret="not-the-secret-of-that-key"),
    ):  # fmt: skip
        exception, found = refusal(other)
        assert exception == WRONG
        assert found.startswith(text)


def test_a_header_that_means_something_cannot_be_added() -> None:
    sent = signed()
    exception, text = refusal(replace(sent, headers=[*sent.headers, ("X-Amz-Invocation-Type", "Event")]))
    assert (exception, "not signed: x-amz-invocation-type" in text) == (WRONG, True)


def test_an_old_and_a_future_signature_are_refused() -> None:
    sent = signed()
    at = at_of(sent)
    assert refusal(sent, late_s=301) == (
        WRONG,
        f"Signature expired: {shown(at)} is now earlier than {shown(at + 1)} ({shown(at + 301)} - 5 min.)",
    )
    assert refusal(sent, late_s=-301) == (
        WRONG,
        f"Signature not yet current: {shown(at)} is still later than {shown(at - 1)} ({shown(at - 301)} + 5 min.)",
    )


def test_who_is_not_known_is_refused() -> None:
    sent = signed()
    assert refusal(replace(sent, headers=[pair for pair in sent.headers if pair[0] != "Authorization"])) == (
        "MissingAuthenticationTokenException", "Missing Authentication Token"
    )  # fmt: skip
    unknown = ("UnrecognizedClientException", "The security token included in the request is invalid.")
    assert refusal(signed(key="NOBODY")) == unknown
    assert refusal(signed(token="a-session")) == unknown
    assert refusal(signed(service="s3"))[1].startswith("Credential should be scoped to correct service: 'lambda'")
    assert refusal(signed(region="eu-west-1"))[1].startswith("Credential should be scoped to a valid region")
    assert who(signed(key="OTHER")) == "OTHER"


@pytest.mark.parametrize("declared", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "0" * 64])
def test_a_body_that_is_not_signed_as_a_whole_is_refused(declared: str) -> None:
    exception, text = refusal(signed(headers={"X-Amz-Content-SHA256": declared}))
    assert (exception, "Sign the whole body" in text) == (WRONG, True)


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer x", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=AKID/20260131/us-east-1/lambda/aws4_request",
        "AWS4-HMAC-SHA256 Credential=AKID/x/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=AKID/20260131/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0",
    ],
)  # fmt: skip
def test_an_authorization_that_is_none_is_refused(value: str) -> None:
    sent = signed()
    headers = [(name, value if name == "Authorization" else given) for name, given in sent.headers]
    assert refusal(replace(sent, headers=headers))[0] == "IncompleteSignatureException"


def test_what_is_signed_is_complete_and_in_order() -> None:
    sent = signed()
    at = at_of(sent)
    stamp = shown(at)

    def with_headers(old: str, new: str) -> Sent:
        return replace(sent, headers=[(n, v.replace(old, new)) for n, v in sent.headers])

    assert "'Host' must be" in refusal(with_headers("host;", ""))[1]
    assert "not signed: x-amz-date" in refusal(with_headers(";x-amz-date", ""))[1]
    assert "not there" in refusal(with_headers("host;", "host;nothing;"))[1]
    assert "not in order" in refusal(with_headers("host;x-amz-date", "x-amz-date;host"))[1]
    undated = [pair for pair in with_headers(";x-amz-date", "").headers if pair[0] != "X-Amz-Date"]
    assert refusal(replace(sent, headers=undated), at)[0] == "IncompleteSignatureException"
    assert "does not match YYYYMMDD" in refusal(with_headers(f"{stamp[:8]}T", "20200130T"), at)[1]
    assert "must be a time" in refusal(with_headers(stamp, f"{stamp[:8]}T999999Z"), at)[1]
