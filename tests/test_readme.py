"""The README tells the truth: its commands are run, its tables are those of the program."""

import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from esm import cli, config
from esm.api import credentials, offered
from esm.aws import clients, lease_table
from esm.config.members import BEHIND_URL, HOSTED, IN_LAMBDA, PULLING
from esm.crew.telling import CrewTelemetry
from esm.destinations import s3 as to_s3
from esm.destinations import sns as to_sns
from esm.destinations import sqs as to_sqs
from esm.host.metrics import HostMetrics
from esm.model.clocks import UnixTime
from esm.rules import parameters
from esm.settings import load_settings, settings_table
from esm.sources import dynamodb, kinesis, sqs
from esm.stores import dynamodb as table
from esm.stores import s3 as bucket
from esm.targets import aws_lambda
from esm.telemetry import Telemetry
from tests import servers
from tests.end_to_end.test_terraform import STACK

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

IAM: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a mapping of an SQS queue", sqs.IAM_ACTIONS),
    ("a mapping of a Kinesis stream", kinesis.IAM_ACTIONS),
    ("a mapping of a DynamoDB stream", dynamodb.IAM_ACTIONS),
    ("a function in AWS Lambda", aws_lambda.IAM_ACTIONS),
    ("an SQS destination", to_sqs.IAM_ACTIONS),
    ("an SNS destination", to_sns.IAM_ACTIONS),
    ("who assumes a role; the role itself has the actions above", clients.IAM_ACTIONS),
    ("an S3 destination", to_s3.IAM_ACTIONS),
    ("the state in DynamoDB", table.IAM_ACTIONS),
    ("making its table at the first start", table.IAM_ACTIONS_TO_CREATE),
    ("`ESM_BLOBS`", bucket.IAM_ACTIONS),
    ("a lease table of the Kinesis Client Library; an import needs the first two", lease_table.IAM_ACTIONS),
)


TOUR = ("## Five-minute tour", "## Configuration")
OPERATING = ("### Operating mappings", "### Replicas")
KCL = ("## Coming from the Kinesis Client Library", "## Lambda's API")
API = ("## Lambda's API", "What each operation")


def iam_table() -> str:
    rows = ["| for | `Action` |", "|---|---|"]
    for name, actions in IAM:
        rows.append(f"| {name} | {', '.join(f'`{action}`' for action in actions)} |")
    return "\n".join(rows)


def between(start: str, end: str) -> str:
    assert start in README, f"the README lacks {start}"
    text = README.split(start, 1)[1]
    return text.split("-->\n", 1)[1].split(end, 1)[0].strip() if start.startswith("<!--") else text.split(end, 1)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_table_of_settings_is_the_programs() -> None:
    assert between("<!-- settings:", "<!-- end of settings -->") == settings_table()


def test_the_policies_name_the_calls_that_the_adapters_make() -> None:
    assert between("<!-- iam:", "<!-- end of iam -->") == iam_table()


def test_the_table_of_parameters_is_that_of_validation() -> None:
    assert between("<!-- parameters:", "<!-- end of parameters -->") == parameters.table()


def test_the_table_of_operations_is_the_programs() -> None:
    assert between("<!-- operations:", "<!-- end of operations -->") == offered.table()


def test_every_member_of_a_function_stands_in_the_readme_under_its_kind() -> None:
    rows = [line.strip("| ").split(" | ") for line in between("### Functions", "## What works").splitlines()]
    said = {name: row[1:4] for row in rows if len(row) == 5 for name in re.findall(r"`([A-Za-z]+)`", row[0])}
    assert said.keys() == HOSTED.keys() | BEHIND_URL.keys() | IN_LAMBDA.keys()
    for name, cells in said.items():
        kinds = [name in kind for kind in (HOSTED, BEHIND_URL, IN_LAMBDA)]
        assert [cell in {"yes", "needed"} for cell in cells] == kinds, name


def test_every_member_of_a_function_that_pulls_stands_in_the_readme() -> None:
    section = between("### Functions", "## What works")
    own, shared = (
        {name for cell in re.findall(r"^\| (`[^|]*) \|", table.split("\n\n", 1)[0], re.MULTILINE)
         for name in re.findall(r"`([A-Za-z]+)`", cell)}
        for table in (section.split("| with `Listen` |", 1)[1], section.split("| everything else |", 1)[1])
    )  # fmt: skip
    assert own | shared == PULLING.keys()
    assert not own & shared


def test_the_configuration_of_the_readme_makes_sense(tmp_path: Path) -> None:
    (text,) = blocks(between("## Configuration", "### Functions"), "yaml")
    (tmp_path / "functions" / "orders").mkdir(parents=True)
    (tmp_path / "esm.yaml").write_text(text)
    found = config.load(tmp_path / "esm.yaml", {}, load_settings({}, {}), UnixTime(1_800_000_000))
    queue, stream = found.mappings
    assert (queue.batch_size, queue.reports_item_failures, queue.retries_max) == (5, True, None)
    assert (stream.retries_max, found.warnings) == (5, ())


@pytest.mark.parametrize("text", blocks(README.split("### Functions", 1)[1], "yaml"))
def test_every_other_configuration_of_the_readme_makes_sense(text: str, tmp_path: Path) -> None:
    environ = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", text), "something")
    (tmp_path / "esm.yaml").write_text('region: us-east-1\naccount_id: "000000000000"\n' + text)
    found = config.load(tmp_path / "esm.yaml", environ, load_settings({}, {}), UnixTime(1_800_000_000))
    assert found.mappings
    assert not found.warnings


def test_the_credentials_of_the_readme_are_taken(tmp_path: Path) -> None:
    (text,) = blocks(between("### Who may call the API", "### Secrets"), "yml")
    (tmp_path / "keys.yaml").write_text(text)
    (caller,) = credentials.read(tmp_path / "keys.yaml").values()
    assert caller.may("lambda:CreateEventSourceMapping")
    assert not caller.may("lambda:InvokeFunction")
    assert caller.may_on("billing-eu")


def test_what_terraform_is_told_is_what_is_tried_with_terraform() -> None:
    (text,) = blocks(between(*API), "hcl")
    text = text.replace("us-east-1:123456789012:orders", "").replace("http://127.0.0.1:3001", "{api}")
    text = text.replace('"us-east-1"', '"{region}"').replace('"arn:aws:sqs:"', '"{queue}"')
    tried = STACK.replace("var.size", "5").replace("{{", "{").replace("}}", "}")
    lines = [" ".join(line.split()) for line in tried.splitlines()]
    assert [line for line in text.splitlines() if " ".join(line.split()) not in lines] == []


def test_the_policies_of_the_readme_are_json() -> None:
    for text in blocks(README, "json"):
        assert json.loads(text)["Version"] == "2012-10-17"


def test_the_policy_of_the_state_allows_what_table_and_bucket_need_and_no_more() -> None:
    (text,) = blocks(between("### State in DynamoDB", "## Security"), "json")
    allowed = {statement["Sid"]: tuple(statement["Action"]) for statement in json.loads(text)["Statement"]}
    assert allowed == {
        "State": table.IAM_ACTIONS, "StateOnFirstUse": table.IAM_ACTIONS_TO_CREATE, "Blobs": bucket.IAM_ACTIONS
    }  # fmt: skip


def test_what_makes_the_table_is_what_the_program_says() -> None:
    assert table.create_command("esm") in between("### State in DynamoDB", "## Security")


def test_the_cost_of_the_state_is_what_the_formula_gives() -> None:
    text = between("### State in DynamoDB", "## Security")
    minutes, workers, shards = 30 * 24 * 60, 3, 20
    dollars = []
    for interval_s in (1, 5):
        writes = minutes * (workers * 24 + shards * 60 // interval_s + workers * 12 * 4)
        reads = minutes * workers * 60
        dollars.append(round((writes * 0.625 + reads * 0.125) / 1e6))
    assert f"a million ${dollars[0]}." in text
    assert f"is ${dollars[1]}, and" in text.replace("\n", " ")


def exported() -> set[str]:
    """The name of every metric of the program, as a scrape shows it."""
    registry = CollectorRegistry()
    Telemetry(registry)
    HostMetrics(registry)
    of_the_supervisor = CrewTelemetry([], dict).collected()
    families = {(family.name, family.type) for family in [*registry.collect(), *of_the_supervisor]}
    sources = [(ROOT / "esm" / name).read_text() for name in ("telemetry.py", "exposition.py", "host/metrics.py")]
    named = {name for source in sources for name in re.findall(r'"(esm_[a-z_]+)"', source)}
    counters = {name for name, kind in families if kind == "counter"}
    return {f"{name}_total" if name in counters else name for name in named | {name for name, _ in families}}


def test_every_metric_of_the_program_stands_in_the_readme_and_no_other() -> None:
    metrics = between("### Metrics", "### Running it")
    assert set(re.findall(r"`(esm_[a-z_]+)(?:\{[a-z,]+\})?`", metrics)) == exported()
    assert set(re.findall(r"\besm_[a-z]+_[a-z_]+", README)) <= exported()


def test_every_alert_has_its_line_in_the_readme() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    lines = re.findall(r"^\| `(Esm\w+)` \| .{20,}", between("### Alerts", "### Running it"), re.MULTILINE)
    assert lines == [rule["alert"] for rule in rules]


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", README, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_every_file_that_is_linked_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_heading_that_is_linked_exists() -> None:
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    headings = [re.sub(r"[^a-z0-9 -]", "", line.lower()) for line in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]
    assert {heading.replace(" ", "-") for heading in headings} >= set(re.findall(r"\]\(#([^)]+)\)", text))


def test_every_command_that_is_named_in_passing_exists() -> None:
    named = re.findall(r"`esm ([a-z]+(?:-[a-z]+)*)([^`]*)`", README)
    assert named
    helps: dict[str, str] = {}
    for command, rest in named:
        if command not in helps:
            helps[command] = esm(command, "--help")
        for option in re.findall(r"(?<!\S)-{1,2}[a-z]+(?:-[a-z]+)*", rest):
            assert option in helps[command], (command, option)


def test_every_command_of_the_program_is_named() -> None:
    commands = re.findall(r"^    ([a-z-]+)(?: |$)", esm("--help"), re.MULTILINE)
    assert {"run", "rewind", "import-kcl"} <= set(commands)
    for command in commands:
        assert re.search(rf"\besm {command}\b(?!-)", README), command


def esm(*arguments: str) -> str:
    """What a command prints that ends at once, such as a help: without a process, since there are many."""
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        cli.main(arguments)
    return printed.getvalue()


def test_what_else_is_typed_is_a_make_target_or_needs_what_it_says_or_works_as_written(tmp_path: Path) -> None:
    rest = README
    for section in (TOUR, OPERATING, API):
        rest = rest.replace(between(*section), "")
    lines = [line for block in blocks(rest, "sh") for line in block.splitlines()]
    missing = re.compile("# needs (Docker|a cluster)")
    typed = [line for line in lines if not line.startswith("make ") and not missing.search(line)]
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(typed)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "".join(blocks(rest, "text"))), done.stderr


def test_what_is_shown_on_a_console_needs_aws_or_is_run_with_a_lease_table() -> None:
    rest = README.replace(between(*KCL), "")
    assert all(line.startswith("$ aws ") for block in blocks(rest, "console") for line in block.splitlines())
    shown = [line for block in blocks(between(*KCL), "console") for line in block.splitlines() if line.startswith("$")]
    assert all(re.match(r"\$ esm (im|ex)port-kcl --table clicks-app --mapping clicks", line) for line in shown)


def typed_in_a_shell(typed: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What `sh` blocks print, with ports of their own."""
    emulator, metrics, api = (str(servers.free_port()) for _ in range(3))
    script = "\n".join(["set -m", *typed])
    script = script.replace("4566", emulator).replace("9464", metrics).replace("127.0.0.1:3001", f"127.0.0.1:{api}")
    script = script.replace(". .venv/bin/activate", f'export PATH="{Path(sys.executable).parent}:$PATH"')
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "ESM_METRICS_ADDRESS": f"127.0.0.1:{metrics}",
        "ESM_API_ADDRESS": f"127.0.0.1:{api}",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=170, check=False,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.timeout(180)
def test_the_tour_works_as_written(tmp_path: Path) -> None:
    *tour, stop = blocks(between(*TOUR), "sh")
    done = typed_in_a_shell([*tour, "echo '---'", *blocks(between(*API), "sh"), "echo '---'", stop], tmp_path)
    output = done.stdout + done.stderr
    for text in (
        "tour/esm.yaml: 1 functions, 1 mappings, OK",
        "AWS.SimpleQueueService.NonExistentQueue",
        'line="took order 1 received 1 time(s)"',
        "error_type=batchItemFailures",
        "sqs:orders  Enabled  OK",
        "esm_deleted_events_total{",
        "exit status 0",
    ):
        assert text in output, (text, output)
        assert text in README, text
    shown = "".join(blocks(between(*API), "text")).replace("/your/folder/tour", str(tmp_path / "tour"))
    shown = re.sub(r"python3\.\d+", f"python3.{sys.version_info.minor}", shown)
    assert settled(done.stdout.split("---\n")[1]) == settled(shown), output


@pytest.mark.timeout(180)
def test_operators_commands_print_what_is_shown(tmp_path: Path) -> None:
    variables = re.findall(r"^(?:\. |export ).*$", between(*TOUR), re.MULTILINE)
    done = typed_in_a_shell([*variables, *blocks(between(*OPERATING), "sh")], tmp_path)
    assert settled(done.stdout) == settled("".join(blocks(between(*OPERATING), "text"))), done.stderr


def settled(text: str) -> list[str]:
    """Lines, without what differs at every run: instants, ages, and the width of columns that depends on them."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "INSTANT", text)
    text = re.sub(r"\b[\d.]+ (?:s|min)\b", "AGE", text)
    text = re.sub(r"request [0-9a-f-]{36}", "request ID", text)
    return [" ".join(line.split()) for line in text.splitlines()]
