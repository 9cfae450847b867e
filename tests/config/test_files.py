"""A configuration in several files: folders, patterns, and what may stand in which."""

from pathlib import Path

import pytest

from esm import config
from esm.errors import ConfigurationRefused
from esm.model.function import HostedFunction
from tests.config.written import BASE, QUEUE, load, refusal, written

BASICS = {"region": "us-east-1", "account_id": "000000000000"}
F = {"Url": "http://127.0.0.1:1", "Protocol": "rie", "Timeout": 3}


def mapping(name: str = "f", queue: str = QUEUE) -> dict[str, str]:
    return {"FunctionName": name, "EventSourceArn": queue}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Settings in one file, functions in another, mappings in two."""
    written(tmp_path, BASICS, "conf/basics.yml")
    written(tmp_path, {"functions": {"f": F}}, "conf/functions.yaml")
    written(tmp_path, {"mappings": [mapping()]}, "conf/one.yaml")
    written(tmp_path, {"functions": {"g": F}, "mappings": [mapping("g", QUEUE + "2")]}, "conf/two.yaml")
    return tmp_path / "conf"


def test_a_folder_is_read_as_one_configuration(folder: Path) -> None:
    found = load(folder)
    assert sorted(found.functions) == ["f", "g"]
    assert [one.function for one in found.mappings] == ["f", "g"]
    assert [path.name for path in found.files] == ["basics.yml", "functions.yaml", "one.yaml", "two.yaml"]


def test_a_pattern_names_the_files_that_it_finds(folder: Path) -> None:
    written(folder, "- no table", "other.txt")
    assert len(load(folder / "*.y*ml").mappings) == 2
    (folder / "other.txt").unlink()
    assert len(load(folder.parent / "c*" / "*").files) == 4


def test_hidden_names_other_endings_and_folders_are_passed_over(folder: Path) -> None:
    written(folder, "region: [", ".hidden.yaml")
    written(folder, "region: [", "notes.txt")
    (folder / "deeper.yaml").mkdir()
    assert len(load(folder).mappings) == 2


def test_a_configmaps_folder_of_links_is_read(tmp_path: Path) -> None:
    written(tmp_path, {**BASE, "mappings": [mapping()]}, "..2026/esm.yaml")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "esm.yaml").symlink_to("..data/esm.yaml")
    found = load(tmp_path)
    assert [path.name for path in found.files] == ["esm.yaml"]
    before = config.digest(found)
    written(tmp_path, {**BASE, "mappings": []}, "..2027/esm.yaml")
    (tmp_path / "new").symlink_to("..2027")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert config.digest(found) != before


def test_a_file_that_comes_goes_or_changes_changes_the_digest(folder: Path) -> None:
    found = load(folder)
    digests = {config.digest(found)}
    written(folder, {"mappings": []}, "three.yaml")
    digests.add(config.digest(found))
    (folder / "three.yaml").rename(folder / "four.yaml")
    digests.add(config.digest(found))
    (folder / "four.yaml").unlink()
    assert config.digest(found) in digests
    (folder / "one.yaml").unlink()
    digests.add(config.digest(found))
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ({"region": "eu-west-1"}, "region: stands in "), ({"functions": {"f": F}}, "functions.f: stands in "),
        ({"endpoints": {"sqs": "http://h:1"}}, "endpoints.sqs: stands in "),
        ({"defaults": {"BatchSize": 5}}, "defaults.BatchSize: stands in "),
        ({"defaults": {"sqs": {"BatchSize": 5}}}, "defaults.sqs.BatchSize: stands in "),
        ({"connections": {"c": {}}}, "connections.c: stands in "),
    ],
)  # fmt: skip
def test_a_key_that_two_files_define_is_refused_naming_both(
    folder: Path, text: dict[str, object], problem: str
) -> None:
    first = {"endpoints": {"sqs": "http://h:1"}, "defaults": {"BatchSize": 5, "sqs": {"BatchSize": 5}},
             "connections": {"c": {}}}  # fmt: skip
    written(folder, first, "functions0.yaml")
    written(folder, text, "late.yaml")
    (found,) = refusal(folder)
    assert found.startswith(str(folder / "late.yaml"))
    assert problem in found
    names = ("basics.yml", "functions.yaml", "functions0.yaml")
    assert any(f"stands in {folder / name}, too: keep one" in found for name in names)


def test_every_problem_of_every_file_comes_in_one_go_with_its_own_place(folder: Path) -> None:
    written(folder, {"mappings": [mapping(), {**mapping(queue=QUEUE + "3"), "BatchSize": 0}]}, "three.yaml")
    written(folder, {"functions": {"bad": {}}, "mappings": [mapping("bad", QUEUE + "4")]}, "four.yaml")
    first, second, third = refusal(folder)
    assert first.startswith(f"{folder / 'four.yaml'}:2: functions.bad: needs exactly one of")
    assert second.startswith(f"{folder / 'three.yaml'}:6: mappings[1].BatchSize = 0")
    assert third.startswith(f"{folder / 'three.yaml'}:2: mappings[0]: An event source mapping with SQS arn")


def test_files_that_are_no_yaml_are_all_named(folder: Path) -> None:
    written(folder, "region: [", "a.yaml")
    written(folder, "- x", "b.yaml")
    first, second = refusal(folder)
    assert "a.yaml" in first
    assert "must be a table" in second


def test_paths_within_a_file_are_relative_to_it(tmp_path: Path) -> None:
    written(tmp_path, BASICS, "conf/a.yaml")
    (tmp_path / "conf" / "code").mkdir()
    (tmp_path / "conf" / "timeout").write_text("300")
    text = "functions: {h: {Runtime: python3.11, Handler: a.b, CodeUri: code, Timeout: '${file:timeout}'}}"
    written(tmp_path, text.replace("'", ""), "conf/b.yaml")
    (text,) = refusal(tmp_path / "conf")
    assert "within { } and [ ] a ${...} must stand in quotes" in text
    lines = (
        "functions:\n  h:\n    Runtime: python3.11\n    Handler: a.b\n    CodeUri: code\n    Timeout: ${file:timeout}\n"
    )
    written(tmp_path, lines, "conf/b.yaml")
    function = load(tmp_path / "conf").functions["h"]
    assert isinstance(function, HostedFunction)
    assert (function.code, function.timeout_s) == (str(tmp_path / "conf" / "code"), 300)


def test_what_was_substituted_in_one_file_is_not_shown_by_another(folder: Path) -> None:
    secret = "12345678-1234-1234-1234-123456789012"
    text = f"mappings:\n- {{FunctionName: f, EventSourceArn: '{QUEUE}7', UUID: '${{SECRET}}'}}\n"
    written(folder, text, "a.yaml")
    written(folder, {"mappings": [mapping(queue=QUEUE + "7")]}, "b.yaml")
    (found,) = refusal(folder, SECRET=secret)
    assert "already exists" in found
    assert secret not in found


def test_a_change_of_source_is_named_in_the_file_where_it_stands(folder: Path) -> None:
    uuid = "12345678-1234-1234-1234-123456789012"
    written(folder, {"mappings": [{**mapping(queue=QUEUE + "5"), "UUID": uuid}]}, "own.yaml")
    before = load(folder)
    written(folder, {"mappings": [{**mapping(queue=QUEUE + "6"), "UUID": uuid}]}, "own.yaml")
    with pytest.raises(
        ConfigurationRefused, match=r"own.yaml: mappings\[0\]: EventSourceArn of mapping .* cannot change"
    ):
        config.check_successor(before, load(folder))


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number}.yaml").write_text("")
    assert "names more than 1000 files" in refusal(tmp_path)[0]
