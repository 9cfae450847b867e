"""Whatever a zip says, nothing leaves its folder, and what is refused leaves nothing behind."""

import os
import stat
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.errors import OperatorNeeded
from esm.host import packages
from esm.host.packages import Packages, unpack

REGULAR, LINK, FIFO = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644


def packed(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def tree(root: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()  # noqa: PTH115
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_a_zip_becomes_a_folder_with_modes_and_links(tmp_path):
    source = packed(
        tmp_path / "code.zip",
        ("app.py", b"1", REGULAR), ("bin/run", b"#!", stat.S_IFREG | 0o700), ("bin/link", b"../app.py", LINK),
        ("empty/", b"", stat.S_IFDIR | 0o755), ("plain", b"2", 0),
    )  # fmt: skip
    made = Packages(tmp_path / "packages").code(source)
    assert tree(made) == {"app.py": b"1", "bin/run": b"#!", "bin/link": "../app.py", "plain": b"2"}
    assert stat.S_IMODE((made / "bin/run").stat().st_mode) == 0o744
    assert stat.S_IMODE((made / "plain").stat().st_mode) == 0o644
    assert (made / "empty").is_dir()
    assert Packages(tmp_path / "packages").code(source) == made
    assert Packages(tmp_path / "packages").code(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("../up", b"1", REGULAR)], "outside the package"),
        ([("a/../../up", b"1", REGULAR)], "outside the package"),
        ([("/etc/up", b"1", REGULAR)], "outside the package"),
        ([("..\\up", b"1", REGULAR)], "outside the package"),
        ([("", b"1", REGULAR)], "outside the package"),
        ([("x" * 2000, b"1", REGULAR)], "outside the package"),
        ([("link", b"/etc/passwd", LINK)], "a link that leads outside"),
        ([("a/link", b"../../up", LINK)], "a link that leads outside"),
        ([("link", b"a/../../up", LINK)], "a link that leads outside"),
        ([("link", b"", LINK)], "a link that leads outside"),
        ([("pipe", b"", FIFO)], "neither file, folder nor link"),
        ([("a", b"1", REGULAR), ("a/b", b"2", REGULAR)], "which is no folder"),
        ([("a/b", b"2", REGULAR), ("a", b"1", REGULAR)], "twice, as a file and as a folder"),
    ],
)
def test_what_would_leave_the_folder_is_refused_and_leaves_nothing(tmp_path, entries, said):
    source = packed(tmp_path / "code.zip", *entries)
    with pytest.raises(OperatorNeeded, match=said):
        Packages(tmp_path / "packages").code(source)
    assert list((tmp_path / "packages").iterdir()) == []
    assert not (tmp_path / "up").exists()


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "root").mkdir()
    source = packed(tmp_path / "code.zip", ("d", b"real", LINK), ("real/x", b"1", REGULAR), ("d/y", b"2", REGULAR))
    with suppress(OperatorNeeded, OSError):
        unpack(source, tmp_path / "root")
    assert not (tmp_path / "root/real/y").exists()


@pytest.mark.parametrize("size", [packages.UNPACKED_BYTES_MAX + 1])
def test_a_bomb_is_stopped_at_the_limit(tmp_path, size):
    source = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("zeros", "w") as file,
    ):
        for _ in range(size // 1_000_000 + 1):
            file.write(bytes(1_000_000))
    assert source.stat().st_size < 3_000_000
    with pytest.raises(OperatorNeeded, match="holds more than 262144000 bytes unpacked"):
        Packages(tmp_path / "packages").code(source)
    assert list((tmp_path / "packages").iterdir()) == []


def test_an_entry_that_lies_about_its_size_gains_nothing(tmp_path):
    source = packed(tmp_path / "code.zip", ("app.py", b"x" * 5000, REGULAR))
    data = bytearray(source.read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)
    source.write_bytes(data)
    root = tmp_path / "root"
    root.mkdir()
    with suppress(OperatorNeeded):
        assert unpack(source, root, 4000) <= 4000
    assert not (root / "app.py").exists() or (root / "app.py").stat().st_size <= 4000


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"no zip at all" * 100])
def test_what_is_no_zip_is_refused(tmp_path, data):
    (tmp_path / "code.zip").write_bytes(data)
    with pytest.raises(OperatorNeeded, match="cannot be unzipped"):
        Packages(tmp_path / "packages").code(tmp_path / "code.zip")


def test_what_is_not_there_is_named(tmp_path):
    for ask in (
        lambda: Packages(tmp_path / "p").code(tmp_path / "gone.zip"),
        lambda: unpack(tmp_path / "gone.zip", tmp_path),
    ):
        with pytest.raises(OperatorNeeded, match=r"gone.zip"):
            ask()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_zip_is_refused_or_unpacked_and_nothing_else(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("zip")
    source = packed(tmp_path / "code.zip", ("a/app.py", b"12345" * 50, REGULAR), ("l", b"a", LINK))
    content = bytearray(source.read_bytes())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = byte
    source.write_bytes(content)
    (tmp_path / "root").mkdir()
    with suppress(OperatorNeeded, OSError):
        unpack(source, tmp_path / "root", 100_000)
    assert {path.name for path in tmp_path.iterdir()} == {"code.zip", "root"}


def test_layers_lie_above_one_another_in_their_order(tmp_path):
    first = packed(tmp_path / "first.zip", ("lib/a", b"1", REGULAR), ("lib/b", b"1", REGULAR))
    second = tmp_path / "second"
    (second / "lib").mkdir(parents=True)
    (second / "lib" / "b").write_bytes(b"2")
    code = tmp_path / "code"
    code.mkdir()
    made = Packages(tmp_path / "packages")
    merged = made.layers([first, second], code)
    assert merged is not None
    assert tree(merged) == {"lib/a": b"1", "lib/b": b"2"}
    assert made.layers([first, second], code) == merged
    (second / "lib" / "b").write_bytes(b"33")
    assert tree(made.layers([first, second], code))["lib/b"] == b"33"
    assert made.layers([], code) is None
    with pytest.raises(OperatorNeeded, match="Cannot reference more than 5 layers"):
        made.layers([first] * 6, code)


def test_what_a_daemon_uses_is_not_removed_by_another_and_what_nobody_uses_is(tmp_path):
    source = packed(tmp_path / "code.zip", ("app.py", b"1", REGULAR))
    first, second = Packages(tmp_path / "packages"), Packages(tmp_path / "packages")
    made = first.code(source)
    second.clear()
    assert made.is_dir()
    assert second.code(source) == made
    first.close()
    Packages(tmp_path / "packages").clear()
    assert made.is_dir()
    second.close()
    Packages(tmp_path / "packages").clear()
    assert not made.exists()
    assert first.code(source) == made
    assert (made / "app.py").read_bytes() == b"1"
    first.close()


def test_code_and_layers_together_stay_below_the_limit(tmp_path):
    layer, code = packed(tmp_path / "layer.zip", ("a", b"1", REGULAR)), tmp_path / "code"
    code.mkdir()
    with (code / "big").open("wb") as file:
        file.truncate(packages.UNPACKED_BYTES_MAX)
    with pytest.raises(OperatorNeeded, match="code and layers hold 262144001 bytes"):
        Packages(tmp_path / "packages").layers([layer], code)
