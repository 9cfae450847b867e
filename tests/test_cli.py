"""The command itself: how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLOSED_PIPE = 141


def ended(folder: Path, arguments: str, *, with_errors: bool) -> tuple[int, str]:
    """Exit status, and the errors that are shown, of a command whose output nobody reads."""
    (folder / "esm.yaml").write_text("region: us-east-1\naccount_id: '000000000000'\n")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "esm", *arguments.split()],
            stdout=writer, stderr=writer if with_errors else subprocess.PIPE, text=True, cwd=folder, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("arguments", ["schema", "validate --offline -c esm.yaml"])
def test_a_command_whose_reader_has_gone_ends_quietly(arguments: str, tmp_path: Path) -> None:
    assert ended(tmp_path, arguments, with_errors=False) == (CLOSED_PIPE, "")


def test_a_command_whose_errors_nobody_reads_ends_the_same_way(tmp_path: Path) -> None:
    assert ended(tmp_path, "validate -c missing.yaml", with_errors=True) == (CLOSED_PIPE, "")


def test_what_nobody_reads_does_not_change_how_a_command_that_says_nothing_ends(tmp_path: Path) -> None:
    status, errors = ended(tmp_path, "validate -c missing.yaml", with_errors=False)
    assert status == 2
    assert "missing.yaml" in errors
