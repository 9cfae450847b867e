"""The JSON schema for editors: it takes what validation takes, and knows every name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from esm import cli
from esm.config.members import BEHIND_URL, HOSTED, IN_LAMBDA, PULLING
from esm.config.schema import of_shape, schema
from esm.errors import ConfigurationRefused
from esm.rules import shapes
from esm.rules.parameters import PARAMETERS
from esm.rules.shapes import Flag, Items, Members, Moment, Names, Shape, Text, Whole, Words
from tests.config.test_pasting import LISTED, RESOURCE
from tests.config.written import load, with_mapping, written
from tests.test_substitution import PLACES, WHOLE, anything, around, changed

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted([*ROOT.glob("config/*.yaml"), ROOT / "deploy" / "compose" / "esm.yaml"])
VALIDATOR = Draft202012Validator(schema())


def problems(document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)]


def as_json(text: str) -> Any:
    """A file as an editor sees it: dates and other values of YAML's own are texts."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["schema"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == schema()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_follows_the_schema(path: Path) -> None:
    assert problems(as_json(path.read_text())) == []


def test_a_file_with_every_member_follows_the_schema() -> None:
    assert problems(WHOLE) == []


@pytest.mark.parametrize("item", [RESOURCE, *map(yaml.safe_dump, LISTED.values())])
def test_what_may_be_pasted_follows_the_schema(item: str) -> None:
    assert problems(as_json(with_mapping(item))) == []


def test_every_name_is_in_the_schema_and_an_unknown_one_is_not() -> None:
    of = schema()["properties"]
    mapping = of["mappings"]["items"]["anyOf"][0]
    kinds = of["functions"]["additionalProperties"]["oneOf"]
    assert mapping["properties"].keys() >= PARAMETERS.keys() | {"UUID", "KmsKeyArn", "LastModified"}
    members = [set(kind["properties"]) for kind in kinds]
    assert members == [set(HOSTED), set(BEHIND_URL), set(PULLING), set(IN_LAMBDA)]
    for place in PLACES:
        at: Any = WHOLE
        for name in place:
            at = at[name]
        is_free = set(place) & {"Tags", "Variables", "Headers", "HeadersFrom", "Pattern"}
        is_named = place in (("functions",), ("connections",))
        if isinstance(at, dict) and not is_free and not is_named:
            document = changed((*place, "Unkonwn"), 5)
            assert problems(document), place


@st.composite
def near(draw: st.DrawFn, shape: Shape) -> Any:  # noqa: PLR0911 - one case a shape
    """A value of a shape, or one that is almost one."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.none() | st.booleans() | st.integers() | st.text(max_size=2) | st.just([]) | st.just({}))
    match shape:
        case Whole(least, most):
            return draw(st.integers(least - 1, most + 1))
        case Flag():
            return draw(st.booleans())
        case Text(_, most, choices):
            size = min(most or 3, 300)
            return draw(st.sampled_from(choices) if choices else st.sampled_from(["", "a" * size, "a" * (size + 1)]))
        case Names(choices, most):
            return draw(st.lists(st.sampled_from(choices), max_size=most + 1))
        case Items(item):
            return draw(st.lists(near(item), max_size=2))
        case Members(members):
            return {name: draw(near(one)) for name, one in members.items() if draw(st.booleans())}
        case Words():
            return draw(st.dictionaries(st.sampled_from("ab"), st.none() | st.just("x") | st.just(5)))
        case Moment():
            return draw(st.integers() | st.text())
    return None


@settings(deadline=None)
@given(st.sampled_from(sorted(PARAMETERS)).flatmap(lambda name: st.tuples(st.just(name), near(PARAMETERS[name].shape))))
@example(("Tags", {"a": 5}))
def test_the_schema_of_a_parameter_takes_a_value_if_and_only_if_its_range_does(pair: tuple[str, Any]) -> None:
    name, value = pair
    shape = PARAMETERS[name].shape
    found = [one for one in shapes.findings(shape, value, name) if "have length greater" not in str(one.error)]
    assert Draft202012Validator(of_shape(shape)).is_valid(value) == (found == [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(place=st.sampled_from(PLACES), value=anything)
def test_what_is_taken_follows_the_schema(tmp_path: Path, place: Any, value: Any) -> None:
    document = around(place, changed(place, value))
    text = yaml.safe_dump(document)
    try:
        load(written(tmp_path, text), PRESENT="x")
    except ConfigurationRefused:
        return
    assert problems(as_json(text)) == [], text
