"""All blobs keep the same promises: one body, every implementation. Then what a bucket and a folder promise besides."""

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, RequestRefused, Unavailable, ValueTooLarge
from esm.model.stored import BLOB_BYTES_MAX, Blob
from esm.ports import Blobs
from esm.stores import open_blobs
from tests.end_to_end.world import client
from tests.fakes.aws_server import Ask, Said, aws_server

CONTENT = bytes(range(256)) * 5000
BLOB = Blob.of("window/mapping-1/shard:1!0", CONTENT)
TABLE = "dynamodb://table"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(params=["memory", "folder", "ministack"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    match request.param:
        case "memory":
            made = await open_blobs("memory://", None)
        case "folder":
            made = await open_blobs(f"sqlite://{tmp_path}/state.db", None)
        case _:
            url, bucket = request.getfixturevalue(request.param), f"blobs-{uuid.uuid4().hex}"
            client("s3", url).create_bucket(Bucket=bucket)
            sessions = Sessions("us-east-1", url, {}, lambda *_: None)
            made = await open_blobs(TABLE, f"s3://{bucket}/some/prefix/", sessions)
    assert made is not None
    yield made
    await made.aclose()


async def test_what_was_put_is_what_comes_back(blobs: Blobs) -> None:
    await blobs.put(BLOB, CONTENT)
    assert await blobs.get(BLOB) == CONTENT


async def test_nothing_is_a_blob_too(blobs: Blobs) -> None:
    nothing = Blob.of("owner", b"")
    await blobs.put(nothing, b"")
    assert await blobs.get(nothing) == b""


async def test_a_blob_that_is_not_there_is_an_answer(blobs: Blobs, tmp_path: Path) -> None:
    assert await blobs.get(BLOB) is None
    assert not await blobs.fetch(BLOB, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    await blobs.delete(BLOB)


async def test_the_same_may_be_put_and_deleted_again(blobs: Blobs) -> None:
    for _ in range(2):
        await blobs.put(BLOB, CONTENT)
    assert await blobs.get(BLOB) == CONTENT
    for _ in range(2):
        await blobs.delete(BLOB)
        assert await blobs.get(BLOB) is None
    await blobs.put(BLOB, CONTENT)
    assert await blobs.get(BLOB) == CONTENT


async def test_the_same_bytes_of_two_owners_are_two_blobs(blobs: Blobs) -> None:
    other = Blob.of("window/mapping-1/shard:1!1", CONTENT)
    assert other.sha256 == BLOB.sha256
    await blobs.put(BLOB, CONTENT)
    await blobs.put(other, CONTENT)
    await blobs.delete(BLOB)
    assert await blobs.get(BLOB) is None
    assert await blobs.get(other) == CONTENT


async def test_a_file_comes_back_as_a_file(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(9 * 1024 * 1024 + 1)
    blob = Blob.of("code/f", content)
    (tmp_path / "given").write_bytes(content)
    await blobs.put(blob, tmp_path / "given")
    assert await blobs.fetch(blob, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    assert (tmp_path / "fetched").stat().st_mode & 0o777 == 0o600
    assert [path async for path in anyio.Path(tmp_path).glob("*.part-*")] == []
    assert await blobs.get(blob) == content


async def test_more_than_250_mb_is_refused(blobs: Blobs) -> None:
    with pytest.raises(ValueTooLarge, match="has 262144001 bytes"):
        await blobs.put(Blob("owner", "0" * 64, BLOB_BYTES_MAX + 1), b"")


async def test_a_file_that_cannot_be_written_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put(BLOB, CONTENT)
    with pytest.raises(OperatorNeeded, match="cannot be written"):
        await blobs.fetch(BLOB, tmp_path / "no" / "folder")


async def test_a_folder_is_its_owners_alone_and_notices_changed_bytes(tmp_path: Path) -> None:
    made = await open_blobs(f"sqlite://{tmp_path}/state.db", None)
    assert made is not None
    await made.put(BLOB, CONTENT)
    folder = tmp_path / "state.db.blobs"
    (path,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(OperatorNeeded, match="not what was put there"):
        await made.get(BLOB)
    with pytest.raises(OperatorNeeded, match="not what was put there"):
        await made.fetch(BLOB, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


async def test_what_a_crash_has_left_in_a_folder_goes_after_an_hour(tmp_path: Path) -> None:
    made = await open_blobs(f"sqlite://{tmp_path}/state.db", None)
    assert made is not None
    folder = tmp_path / "state.db.blobs"
    folder.mkdir()
    for name, at in (("a.part-1", 1), ("b.part-2", None)):
        (folder / name).touch()
        if at is not None:
            os.utime(folder / name, (at, at))
    await made.put(BLOB, CONTENT)
    assert not (folder / "a.part-1").exists()
    assert (folder / "b.part-2").exists()


@pytest.mark.parametrize(
    ("state", "bucket", "text"),
    [
        ("memory://", "s3://bucket", "is for a state in a table alone"),
        ("sqlite:///tmp/state.db", "s3://bucket", "is for a state in a table alone"),
        (TABLE, "gs://bucket", "'gs://bucket' is not known"),
    ],
)
async def test_a_bucket_that_makes_no_sense_is_refused(state: str, bucket: str, text: str) -> None:
    with pytest.raises(RequestRefused, match=text):
        await open_blobs(state, bucket)


async def test_a_table_without_a_bucket_has_no_blobs() -> None:
    assert await open_blobs(TABLE, None) is None


async def test_a_bucket_that_is_not_there_is_refused_with_what_to_do(ministack: str) -> None:
    sessions = Sessions("us-east-1", ministack, {}, lambda *_: None)
    with pytest.raises(
        OperatorNeeded, match=r"bucket nowhere-at-all cannot be used \(.*\): make it in us-east-1, allow"
    ):
        await open_blobs(TABLE, "s3://nowhere-at-all", sessions)


async def test_a_put_whose_answer_was_lost_is_made_again_with_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(CONTENT)
    sizes: list[str] = []

    async def answer(ask: Ask) -> Said:
        if ask.headers.get("Content-Length", "0") != "0":
            sizes.append(ask.headers.get("X-Amz-Decoded-Content-Length", ask.headers["Content-Length"]))
        return Said(b"", 500 if len(sizes) == 1 else 200)

    async with aws_server(Other=answer) as (_, sessions):
        made = await open_blobs(TABLE, "s3://bucket", sessions)
        assert made is not None
        await made.put(BLOB, tmp_path / "given")

    assert sizes == [str(len(CONTENT))] * 2


async def test_a_bucket_that_refuses_is_unavailable_and_one_that_lies_is_noticed() -> None:
    answers = [
        Said(b""),
        Said(b"<Error><Code>AccessDenied</Code><Message>not you</Message></Error>", 403),
        Said(b"other"),
    ]

    async def answer(_: Ask) -> Said:
        return answers.pop(0)

    async with aws_server(Other=answer) as (_, sessions):
        made = await open_blobs(TABLE, "s3://bucket", sessions)
        assert made is not None
        with pytest.raises(Unavailable, match=r"The bucket bucket: .*not you"):
            await made.get(BLOB)
        with pytest.raises(OperatorNeeded, match="not what was put there"):
            await made.get(BLOB)


async def test_an_answer_that_breaks_off_is_unavailable() -> None:
    async def answer(_: Ask) -> Said:
        return Said(b"ab", 200, {"Content-Length": "4"})

    async with aws_server(Other=answer) as (_, sessions):
        made = await open_blobs(TABLE, "s3://bucket", sessions)
        assert made is not None
        with pytest.raises(Unavailable, match="broke off"):
            await made.get(BLOB)
