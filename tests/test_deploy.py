"""What is shipped: the wheel, the image and compose name only what exists, and what they say can be run runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import anyio
import pytest
import yaml
from prometheus_client import CollectorRegistry

from esm.api.operations import application, serving
from esm.settings import Settings
from tests.manifests import SETTINGS
from tests.servers import ROOT

COMPOSE = [ROOT / "deploy" / "compose.yaml", ROOT / "deploy" / "compose-replicas.yaml"]
REPLICAS = COMPOSE[1]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, in order, with their continued lines joined."""
    text = re.sub(r"\\\n", "", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def services(compose: Path) -> dict[str, dict]:
    return yaml.safe_load(compose.read_text())["services"]


def workers(compose: Path) -> list[dict]:
    return [service for service in services(compose).values() if "build" in service]


def test_what_the_image_copies_exists_and_reaches_the_build():
    sources = [word for rest in arguments("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(sources) <= sent


def test_the_image_runs_without_root_and_sets_only_known_settings():
    users = arguments("USER")
    names = {name for rest in arguments("ENV") for name in re.findall(r"\b(ESM_\w+)=", rest)}

    assert users
    assert not users[-1].startswith(("0", "root"))
    assert names
    assert names <= SETTINGS


def test_the_image_keeps_its_state_where_it_may_write():
    environ = dict(word.split("=", 1) for rest in arguments("ENV") for word in rest.split())
    settings = Settings.model_validate(
        {name.removeprefix("ESM_").lower(): value for name, value in environ.items() if name.startswith("ESM_")}
    )

    assert settings.state.startswith("sqlite:////var/lib/esm/")
    assert settings.metrics_host_port[0] == "0.0.0.0"
    assert arguments("VOLUME") == ["/var/lib/esm"]


@pytest.mark.parametrize("status", [200, 500])
async def test_the_images_health_check_asks_the_daemon(status):
    command = json.loads(arguments("HEALTHCHECK")[0].split("CMD", 1)[1])
    app = application(CollectorRegistry(), tuple, lambda: True)
    async with serving(app, "127.0.0.1", 0) as port:
        address = f"0.0.0.0:{port}" if status == 200 else "0.0.0.0:1"
        answer = await anyio.run_process(
            [sys.executable, *command[1:]], check=False, env={"ESM_METRICS_ADDRESS": address, "http_proxy": "http://x"}
        )

    assert command[0] == "python"
    assert (answer.returncode == 0) == (status == 200)


@pytest.mark.skipif(shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="no hadolint here")
def test_the_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")

    answer = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert answer.stdout == ""
    assert answer.returncode == 0


@pytest.mark.parametrize("compose", COMPOSE, ids=lambda path: path.stem)
def test_compose_pins_what_it_pulls_and_builds_what_is_ours(compose):
    for service in services(compose).values():
        if "build" in service:
            assert (compose.parent / service["build"] / "Dockerfile").is_file()
        else:
            assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?", service["image"])


@pytest.mark.parametrize("compose", COMPOSE, ids=lambda path: path.stem)
def test_compose_mounts_only_what_exists(compose):
    declared = yaml.safe_load(compose.read_text()).get("volumes", ())
    sources = [volume.split(":")[0] for service in services(compose).values() for volume in service["volumes"]]

    assert [one for one in sources if one[0] == "." and not (compose.parent / one).exists()] == []
    assert [one for one in sources if one[0] != "." and one not in declared] == []


@pytest.mark.parametrize("compose", COMPOSE, ids=lambda path: path.stem)
def test_compose_sets_only_known_settings_and_gives_the_daemon_time_to_drain(compose):
    for worker in workers(compose):
        names = {name for name in worker["environment"] if name.startswith("ESM_")}
        assert names <= SETTINGS
        assert int(worker["stop_grace_period"].removesuffix("s")) > float(worker["environment"]["ESM_SHUTDOWN_GRACE_S"])


def test_the_workers_of_compose_differ_in_name_and_port_alone_and_share_a_table():
    first, second = workers(REPLICAS)
    own = {"hostname", "ports"}

    assert {name: value for name, value in first.items() if name not in own} == {
        name: value for name, value in second.items() if name not in own
    }
    assert [first[name] != second[name] for name in own] == [True, True]
    assert first["environment"]["ESM_STATE"].startswith("dynamodb://")
    assert "ESM_WORKER_ID" not in first["environment"]


@pytest.mark.parametrize("name", ["compose", "compose-replicas"])
def test_the_configuration_that_compose_mounts_is_valid(name):
    answer = subprocess.run(
        [sys.executable, "-m", "esm", "validate", "--offline", "-c", f"deploy/{name}/esm.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip

    assert answer.returncode == 0, answer.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built by the project's own backend from a copy of the tree, and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("esm", "config"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(folder)], cwd=source, check=True, capture_output=True
    )
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as file:
        file.extractall(unpacked)
    return unpacked


def test_the_wheel_has_every_module(wheel):
    written = {path.relative_to(ROOT) for path in (ROOT / "esm").rglob("*.py")}

    shipped = {path.relative_to(wheel) for path in (wheel / "esm").rglob("*.py")}

    assert {path for path in written - shipped if "config/demo" not in str(path)} == set()


def test_the_wheel_has_the_demos_configuration_and_finds_it(wheel, tmp_path):
    ask = "from esm.demo.course import configuration; print(configuration())"

    found = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, env={"PYTHONPATH": str(wheel)}, check=True,
        capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip

    assert Path(found) == wheel / "esm" / "demo" / "config" / "demo.yaml"
    shipped = {path.relative_to(wheel / "esm/demo/config") for path in (wheel / "esm/demo/config").rglob("*.*")}
    written = {path.relative_to(ROOT / "config") for path in (ROOT / "config" / "demo").rglob("*.py")}
    assert {path for path in shipped if path.suffix == ".py"} == written


def test_the_constraints_pin_every_requirement_and_nothing_but_versions():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]

    pinned = {name(line) for line in lines}

    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)] == []
    assert {name(requirement) for requirement in wanted} <= pinned


def name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()
