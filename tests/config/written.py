"""Configurations as people write them, and what becomes of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from esm import config
from esm.config import Configuration
from esm.errors import ConfigurationRefused
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping
from esm.settings import load_settings

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
FIFO = QUEUE + ".fifo"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
ROLE = "arn:aws:iam::000000000000:role/r"
NOW = UnixTime(1_800_000_000)
BASE: dict[str, Any] = {
    "region": "us-east-1", "account_id": "000000000000",
    "functions": {"f": {"Url": "http://127.0.0.1:1", "Protocol": "rie", "Timeout": 3}},
}  # fmt: skip


def written(folder: Path, text: str | dict[str, Any], name: str = "esm.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


def load(path: Path, **environ: str) -> Configuration:
    return config.load(path, environ, load_settings({}, {}), NOW)


def refusal(path: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as caught:
        load(path, **environ)
    return [str(problem) for problem in caught.value.problems]


def mapped(folder: Path, item: str | dict[str, Any], **environ: str) -> tuple[Mapping, tuple[str, ...]]:
    """The mapping that an element of `mappings:` becomes, and the warnings."""
    found = load(written(folder, with_mapping(item)), **environ)
    return found.mappings[0], found.warnings


def unmapped(folder: Path, item: str | dict[str, Any], **environ: str) -> list[str]:
    """The problems of an element of `mappings:`, without the file's name."""
    path = written(folder, with_mapping(item))
    return [text.removeprefix(str(path)) for text in refusal(path, **environ)]


def with_mapping(item: str | dict[str, Any]) -> str:
    head = yaml.safe_dump({**BASE, "connections": {"other": {"Region": "eu-west-1"}}}, sort_keys=False)
    text = item if isinstance(item, str) else yaml.safe_dump(item, sort_keys=False)
    return head + "mappings:\n- " + text.strip().replace("\n", "\n  ") + "\n"
