"""Takes the changes of a DynamoDB table, all of a batch or none: esm halves a batch that fails."""

import os
from pathlib import Path


def handler(event, context):
    note([take(record["dynamodb"]["NewImage"]) for record in event["Records"] if record["eventName"] != "REMOVE"])


def take(item):
    if item["poison"]["BOOL"]:
        raise ValueError("poison")
    return item["id"]["S"]


def note(ids):
    # The demo compares what it wrote with what the handlers noted here: nothing may be missing.
    with Path(os.environ["LEDGER_DIR"], f"audit-{os.getpid()}.log").open("a") as ledger:
        ledger.write("".join(f"{one}\n" for one in ids))
