"""Takes clicks from a Kinesis stream, all of a batch or none: esm halves a batch that fails."""

import base64
import json
import os
from pathlib import Path


def handler(event, context):
    note([take(json.loads(base64.b64decode(record["kinesis"]["data"]))) for record in event["Records"]])


def take(click):
    if click["poison"]:
        raise ValueError("poison")
    return click["id"]


def note(ids):
    # The demo compares what it wrote with what the handlers noted here: nothing may be missing.
    with Path(os.environ["LEDGER_DIR"], f"clicks-{os.getpid()}.log").open("a") as ledger:
        ledger.write("".join(f"{one}\n" for one in ids))
