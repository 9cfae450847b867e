"""Terraform with the AWS provider before a running daemon: apply, a plan without differences, update, destroy."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.test_api import caller, state
from tests.end_to_end.world import REGION, Queue, World, wait_for

STACK = """
terraform {{
  required_providers {{
    aws = {{ source = "hashicorp/aws" }}
  }}
}}
provider "aws" {{
  region                      = "{region}"
  access_key                  = "a"
  secret_key                  = "b"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  endpoints {{
    lambda = "{api}"
  }}
}}
variable "size" {{
  default = 5
}}
data "aws_lambda_function" "orders" {{
  function_name = "orders"
}}
resource "aws_lambda_event_source_mapping" "orders" {{
  event_source_arn = "{queue}"
  function_name    = data.aws_lambda_function.orders.arn
  batch_size       = var.size
  tags             = {{ team = "shop" }}
  filter_criteria {{
    filter {{
      pattern = jsonencode({{ body = {{ id = ["a"] }} }})
    }}
  }}
}}
"""

PLUGINS = ("/opt/*", "/usr/share/terraform/*", "/usr/local/share/terraform/*")
"""Where distributions put providers for machines that download none."""


def plugins() -> Path:
    """The folder that holds the AWS provider."""
    folders = [folder for pattern in PLUGINS for folder in Path("/").glob(pattern.lstrip("/"))]
    for folder in (*folders, Path.home() / ".terraform.d" / "plugins"):
        if (folder / "registry.terraform.io" / "hashicorp" / "aws").is_dir():
            return folder
    return pytest.skip("there is no AWS provider for Terraform here")


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    return subprocess.run(
        ["terraform", *arguments, "-no-color"], cwd=folder, env=environ, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_terraform_applies_finds_no_differences_updates_and_destroys(world: World, ministack: str) -> None:
    if os.environ.get("TERRAFORM") != "1":
        pytest.skip("takes minutes of CPU: make terraform runs it")
    if shutil.which("terraform") is None:
        pytest.skip("there is no Terraform here")
    provider = plugins()
    queue = Queue(ministack, "terraformed")
    world.configure(endpoint_url=ministack, functions={"orders": world.function()})
    world.start()
    folder = world.folder / "stack"
    folder.mkdir()
    (folder / "main.tf").write_text(STACK.format(region=REGION, api=world.api_url, queue=queue.arn))
    done = terraform(folder, "init", f"-plugin-dir={provider}")
    assert done.returncode == 0, done.stderr
    done = terraform(folder, "apply", "-auto-approve")
    assert done.returncode == 0, done.stdout + done.stderr
    api = caller(world)
    (made,) = api.list_event_source_mappings(EventSourceArn=queue.arn)["EventSourceMappings"]
    uuid = made["UUID"]
    assert made["BatchSize"] == 5
    queue.send("a", "b")
    wait_for(lambda: world.taken() == ["a"], "it runs")
    assert terraform(folder, "plan", "-detailed-exitcode").returncode == 0
    done = terraform(folder, "apply", "-auto-approve", "-var", "size=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert api.get_event_source_mapping(UUID=uuid)["BatchSize"] == 7
    done = terraform(folder, "destroy", "-auto-approve")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: state(api, uuid) == "gone", "it is gone")
    assert world.stop() == 0
