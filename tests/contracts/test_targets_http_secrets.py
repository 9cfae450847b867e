"""Tokens and certificates of functions behind HTTP: used, read again when they change, and shown nowhere."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from esm.errors import OperatorNeeded, RequestRefused, Unavailable
from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Ending, Misconfigured, Unreachable
from esm.targets import lost
from esm.targets.connecting import check_connection
from esm.watched import FILE_BYTES_MAX, Watched
from tests.fakes.rie_server import RieServer, answering, rie_server
from tests.fakes.url_functions import ARN, ROLE, invocation, made, target_for

OK = Answer("request-1", b"1")
PROTOCOLS = pytest.mark.parametrize("protocol", ["rie", "web-adapter", "http"])


def problem(ending: Ending) -> str:
    assert isinstance(ending, Misconfigured)
    return ending.text


def authorization(server: RieServer) -> str:
    return server.calls[-1].headers["authorization"]


@PROTOCOLS
async def test_a_token_is_sent_and_read_again_when_its_file_changes(protocol: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-hunter2\n")
    async with (
        rie_server(answering(200, b"1")) as server,
        target_for(server.url, protocol, bearer_token_file=str(file)) as target,
    ):
        await target.facts()
        assert await target.invoke(invocation()) == OK
        assert authorization(server) == "Bearer first-hunter2"
        file.write_text("second-one")
        assert await target.invoke(invocation()) == OK
        assert authorization(server) == "Bearer second-one"
        file.unlink()
        text = problem(await target.invoke(invocation()))
        assert text == f"The file {file} cannot be read: No such file or directory. Mount it where esm may read it."
        with pytest.raises(OperatorNeeded, match="cannot be read"):
            await target.facts()
        file.write_text("third")
        assert await target.invoke(invocation()) == OK
        assert (authorization(server), len(server.calls)) == ("Bearer third", 3)


async def test_a_token_that_is_swapped_as_kubernetes_does_is_read_again(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "token").write_text(f"token-{number}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    async with (
        rie_server(answering(200, b"1")) as server,
        target_for(server.url, "http", bearer_token_file=str(tmp_path / "token")) as target,
    ):
        await target.invoke(invocation())
        (tmp_path / "new").symlink_to("..2")
        (tmp_path / "new").replace(tmp_path / "..data")
        await target.invoke(invocation())
        assert [call.headers["authorization"] for call in server.calls] == ["Bearer token-1", "Bearer token-2"]


async def test_headers_from_files_win_over_fixed_ones(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" hunter2\t\n")
    async with (
        rie_server(answering(200, b"1")) as server,
        target_for(
            server.url, "http", headers=(("x-key", "fixed"), ("X-Other", "o")), header_files=(("X-Key", str(file)),)
        ) as target,
    ):
        assert await target.invoke(invocation()) == OK
        assert (server.calls[0].headers["x-key"], server.calls[0].headers["x-other"]) == ("hunter2", "o")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hunter2\r\nX-Evil: 1", "line break"),
        (b"hunter2\xff", "is not text in UTF-8"),
        (b"hunter2" * 10_000, "is longer than 16384 bytes"),
        (b"hunter2" * FILE_BYTES_MAX, "is larger than 1048576 bytes"),
    ],
)
async def test_a_file_that_is_no_token_is_named_and_not_shown(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    async with (
        rie_server(answering(200, b"1")) as server,
        target_for(server.url, "http", bearer_token_file=str(file)) as target,
    ):
        text = problem(await target.invoke(invocation()))
        assert str(file) in text
        assert why in text
        assert "hunter2" not in text
        assert server.connections == 0


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    async with target_for("http://127.0.0.1:1", "http", bearer_token_file=str(tmp_path)) as target:
        assert "is not a file" in problem(await target.invoke(invocation()))


def test_a_file_is_read_only_when_it_has_changed_also_where_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("a")
    reads = []

    def make() -> str:
        reads.append(file.read_text())
        if reads[-1] == "bad":
            raise OperatorNeeded("bad")
        return reads[-1]

    watched = Watched([str(file)], make)
    assert [watched.value() for _ in range(5)] == ["a"] * 5
    file.write_text("bad")
    for _ in range(5):
        with pytest.raises(OperatorNeeded, match="bad"):
            watched.value()
    file.write_text("good")
    assert watched.value() == "good"
    assert reads == ["a", "bad", "good"]


class Authority:
    """An authority, a server and clients that it vouches for, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def server(self, *names: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(*names).configure_cert(context)
        if clients is not None:
            clients.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self, name: str, cert: str = "client.pem", key: str = "client.key") -> dict[str, str]:
        issued = self.ca.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(str(self._folder / cert))
        issued.private_key_pem.write_to_path(str(self._folder / key))
        return {"client_cert_file": str(self._folder / cert), "client_key_file": str(self._folder / key)}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@PROTOCOLS
async def test_a_server_is_known_by_its_authority_and_its_name(protocol: str, authority: Authority) -> None:
    async with rie_server(answering(200, b"1"), tls=authority.server("localhost")) as server:
        named = f"https://localhost:{server.port}"
        async with target_for(named, protocol, ca_file=authority.ca_file) as target:
            assert await target.invoke(invocation()) == OK
            assert server.calls[0].headers["host"] == f"localhost:{server.port}"
        async with target_for(named, protocol) as target:
            assert "is not trusted" in problem(await target.invoke(invocation()))
        async with target_for(server.url, protocol, ca_file=authority.ca_file) as target:
            text = problem(await target.invoke(invocation()))
            assert "The certificate of 127.0.0.1 is not trusted" in text
            assert "mismatch" in text


async def test_a_connection_is_asked_for_without_an_invocation(authority: Authority) -> None:
    async with rie_server(answering(200, b"1"), tls=authority.server("localhost")) as server:
        named = UrlFunction("billing", ARN, ROLE, f"https://localhost:{server.port}/?key=s3cret", "http", 3)
        await check_connection(replace(named, ca_file=authority.ca_file))
        with pytest.raises(OperatorNeeded, match=r"certificate of localhost is not trusted.*CaFile"):
            await check_connection(named)
    assert server.calls == []
    with pytest.raises(Unavailable, match=r"localhost:.*Connection refused.*start the function 'billing'") as caught:
        await check_connection(named)
    assert "s3cret" not in str(caught.value)


async def test_a_server_without_tls_is_told_from_one_that_is_away() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await check_connection(UrlFunction("billing", ARN, ROLE, f"http://{place}", "rie", 3))
        with pytest.raises(Unavailable, match=r"\(TLS: "):
            await check_connection(UrlFunction("billing", ARN, ROLE, f"https://{place}", "rie", 3))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_may_be_the_name_of_a_certificate(host: str, authority: Authority) -> None:
    async with rie_server(answering(200, b"1"), host, tls=authority.server(host)) as server:
        url = f"https://{f'[{host}]' if ':' in host else host}:{server.port}"
        async with target_for(url, "http", ca_file=authority.ca_file) as target:
            assert await target.invoke(invocation()) == OK


async def test_a_changed_authority_is_trusted_from_the_next_invocation_on(authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    trustme.CA().cert_pem.write_to_path(str(trusted))
    async with (
        rie_server(answering(200, b"1"), tls=authority.server("127.0.0.1")) as server,
        target_for(server.url, "http", ca_file=str(trusted)) as target,
    ):
        assert "is not trusted" in problem(await target.invoke(invocation()))
        authority.ca.cert_pem.write_to_path(str(trusted))
        assert await target.invoke(invocation()) == OK


@contextmanager
def blocking_server(tls: ssl.SSLContext) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says why it refuses TLS, and reads on until the client has gone, as most do.

    One that drops the connection at once may take its own alert with it, and looks like a function that died.
    """
    came: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(secured: ssl.SSLSocket) -> None:
        try:
            secured.do_handshake()
        except ssl.SSLError:
            with socket.socket(fileno=secured.detach()) as plain:
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(65536):
                    pass
        else:
            came.append(secured.recv(65536))
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with suppress(OSError), tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secured:
                answer(secured)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", came
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_asks_for_a_certificate_gets_it_and_one_that_refuses_it_ran_nothing(
    authority: Authority, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    tls = authority.server("127.0.0.1", clients=authority.ca)
    tls.minimum_version = tls.maximum_version = version
    (tmp_path / "strange").mkdir()
    strangers = Authority(tmp_path / "strange").client("stranger@test")
    with blocking_server(tls) as (url, came):
        async with target_for(url, "http", ca_file=authority.ca_file, **authority.client("esm@test")) as target:
            assert await target.invoke(invocation()) == OK
        for files in ({}, strangers):
            async with target_for(url, "http", ca_file=authority.ca_file, **files) as target:
                for _ in range(5):
                    assert "refuses TLS with us" in problem(await target.invoke(invocation()))
        assert len(came) == 1


async def test_rotated_client_certificates_are_used_and_halves_of_two_are_refused(authority: Authority) -> None:
    files = authority.client("first@test")
    async with (
        rie_server(answering(200, b"1"), tls=authority.server("127.0.0.1", clients=authority.ca)) as server,
        target_for(server.url, "http", ca_file=authority.ca_file, **files) as target,
    ):
        assert await target.invoke(invocation()) == OK
        authority.client("second@test", key="other.key")
        text = problem(await target.invoke(invocation()))
        assert files["client_cert_file"] in text
        assert files["client_key_file"] in text
        assert "KEY_VALUES_MISMATCH" in text
        with pytest.raises(OperatorNeeded, match="belong together"):
            await target.facts()
        authority.client("second@test")
        assert await target.invoke(invocation()) == OK
        peers = [call.writer.get_extra_info("peercert")["subjectAltName"][0][1] for call in server.calls]
        assert peers == ["first@test", "second@test"]


async def test_certificate_and_key_may_be_one_file(authority: Authority, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    issued = authority.ca.issue_cert("esm@test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    async with (
        rie_server(answering(200, b"1"), tls=authority.server("127.0.0.1", clients=authority.ca)) as server,
        target_for(server.url, "http", ca_file=authority.ca_file, client_cert_file=str(both)) as target,
    ):
        assert await target.invoke(invocation()) == OK


@pytest.mark.parametrize("content", [b"", b"hunter2", b"-----BEGIN CERTIFICATE-----\nhunter2\n"])
async def test_a_file_without_certificates_is_named(content: bytes, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "broken.pem"
    file.write_bytes(content)
    for members in ({"ca_file": str(file)}, {**authority.client("esm@test"), "client_cert_file": str(file)}):
        async with target_for("https://127.0.0.1:1", "http", **members) as target:
            text = problem(await target.invoke(invocation()))
            assert str(file) in text
            assert "hunter2" not in text


def test_a_key_with_a_password_is_refused_without_asking_for_it(authority: Authority) -> None:
    files = authority.client("esm@test")
    key = load_pem_private_key(Path(files["client_key_file"]).read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    Path(files["client_key_file"]).write_bytes(locked)
    target = made("https://127.0.0.1:1", "http", **files)
    with pytest.raises(OperatorNeeded, match="the key has no password"):
        target._ssl()


def test_files_that_a_url_cannot_use_are_refused(authority: Authority) -> None:
    files = authority.client("esm@test")
    with pytest.raises(RequestRefused, match="its Url is not https"):
        made("http://billing:8080", "http", ca_file=authority.ca_file)
    with pytest.raises(RequestRefused, match="without ClientCertFile"):
        made("https://billing:8080", "http", client_key_file=files["client_key_file"])


def test_what_failed_is_said_without_the_words_of_a_library() -> None:
    slow = aiohttp.ConnectionTimeoutError("Connection timeout to host http://billing/?code=hunter2")
    odd = aiohttp.InvalidURL("http://billing/?code=hunter2")
    assert lost.ending("r", "billing", slow, was_sent=False) == Unreachable(
        "r", "The function cannot be reached: it takes no connection."
    )
    broken = aiohttp.ClientOSError(32, "Can not write request body for http://billing/?code=hunter2")
    for error in (odd, broken, aiohttp.ServerDisconnectedError("hunter2"), ssl.SSLError("hunter2")):
        assert "hunter2" not in repr(lost.ending("r", "billing", error, was_sent=False))
