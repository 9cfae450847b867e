"""What stands behind the API: which stored mappings run, and how the deleted ones go."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from esm import forgetting
from esm.backing import Backing
from esm.catalogue import Catalogue
from esm.config import Configuration
from esm.daemon import load_configuration
from esm.errors import RequestRefused
from esm.model.desired import DesiredMapping
from esm.model.lease import Lease
from esm.model.mapping import State
from esm.model.position import TrimHorizon
from esm.model.stored import Key
from esm.model.view import MappingView
from esm.rules import stored
from esm.rules.kinds import OLDEST
from esm.runtime.surroundings import SystemClock
from esm.settings import load_settings
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry
from tests.rules.test_desired import QUEUE, view, wanted

FILE = """
region: us-east-1
account_id: "111111111111"
functions:
  f: {{Url: "http://f:8080", Protocol: http, Timeout: 3}}
  audit: {{Arn: "arn:aws:lambda:us-east-1:222222222222:function:audit"}}
mappings: {mappings}
"""


def configured(folder: Path, mappings: str = "[]") -> Configuration:
    (folder / "esm.yaml").write_text(FILE.format(mappings=mappings))
    return load_configuration(load_settings({"ESM_CONFIG": str(folder / "esm.yaml")}, {}), {})


class Heard(Telemetry):
    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.warnings: list[dict[str, object]] = []

    def warned(self, text: str, **fields: object) -> None:
        self.warnings.append({"text": text, **fields})


def backing(configuration: Configuration, views: list[MappingView] | None = None) -> tuple[Backing, Heard]:
    heard = Heard()
    made = Backing(configuration, SystemClock(), heard, "me")
    if views:
        made._views = lambda: views
    return made, heard


def test_a_stored_mapping_runs_while_the_configuration_has_its_function(tmp_path: Path) -> None:
    made, heard = backing(configured(tmp_path))
    made.follow([wanted("u"), wanted("v", function="gone")])
    assert made.plans().keys() == {"u"}
    assert made.plans().keys() == {"u"}
    assert [one["mapping"] for one in heard.warnings] == ["v"]
    assert "Function does not exist" in str(made.problem("v"))
    assert made.problem("u") is None
    made.configured(configured(tmp_path, f"[{{FunctionName: f, EventSourceArn: '{QUEUE}q'}}]"))
    assert made.plans() == {}
    assert "already exists" in str(made.problem("u"))


def test_a_function_that_the_configuration_does_not_name_does_not_exist(tmp_path: Path) -> None:
    made, _ = backing(configured(tmp_path))
    for name in ("f", "f:$LATEST", "111111111111:function:f", "audit", "audit:7",
                 "arn:aws:lambda:us-east-1:222222222222:function:audit:7"):  # fmt: skip
        assert made.resolved(name)[0].name in ("f", "audit")
    own, other = "arn:aws:lambda:us-east-1:111111111111:function:", "arn:aws:lambda:us-east-1:222222222222:function:"
    for name, shown in (("no", f"{own}no"), ("f:1", f"{own}f:1"), (f"{other}other", f"{other}other")):
        with pytest.raises(RequestRefused, match=f"Function not found: {shown}") as refused:
            made.resolved(name)
        assert refused.value.status == 404


def lease(owner: str) -> bytes:
    return stored.encode_lease(Lease("u", "shard", "stream", owner, 1, 1, (TrimHorizon(),)), OLDEST)


@pytest.mark.parametrize(
    ("owner", "views", "is_gone"),
    [
        ("", [], True), ("me", [], True), ("me/run", [], True), ("other/run", [], False),
        ("", [view(State.DELETING)], False),
    ],
)  # fmt: skip
async def test_a_deleted_mapping_goes_once_nobody_works_on_it(
    owner: str, views: list[MappingView], is_gone: bool, tmp_path: Path  # noqa: FBT001
) -> None:  # fmt: skip
    store = MemoryStore()
    catalogue = Catalogue(store)
    made, _ = backing(configured(tmp_path), views)
    item = await catalogue.put_mapping(wanted_new())
    await store.put(Key("lease", "u", "shard"), lease(owner), None)
    made.follow([item])
    await made.finish_deletions(catalogue)
    assert (await catalogue.mapping("u") is None, await store.get(Key("lease", "u", "shard")) is None) == (
        is_gone, is_gone
    )  # fmt: skip


def wanted_new() -> DesiredMapping:
    return replace(wanted("u"), state=State.DELETING, version=None)


async def test_what_the_api_still_wants_is_not_forgotten_whether_it_runs_or_not(tmp_path: Path) -> None:
    catalogue = Catalogue(MemoryStore())
    await catalogue.put_mapping(replace(wanted_new(), state=State.ENABLED))
    await catalogue._store.put(Key("lease", "u", "shard"), lease(""), None)
    settings = load_settings({"ESM_CONFIG": str(tmp_path / "esm.yaml")}, {})
    with pytest.raises(RequestRefused, match="made through the API"):
        await forgetting.forget(catalogue, "u", settings, is_dry=True)
