"""Takes orders from a queue. Names those that it could not take: they alone come again."""

import json
import os
from pathlib import Path


def handler(event, context):
    taken, failed = [], []
    for message in event["Records"]:
        try:
            taken.append(take(json.loads(message["body"])))
        except (ValueError, KeyError, TypeError) as error:
            print(f"message {message['messageId']} refused: {error!r}")
            failed.append({"itemIdentifier": message["messageId"]})
    note(taken)
    return {"batchItemFailures": failed}


def take(order):
    if order["poison"]:
        raise ValueError("poison")
    return order["id"]


def note(ids):
    # The demo compares what it wrote with what the handlers noted here: nothing may be missing.
    with Path(os.environ["LEDGER_DIR"], f"orders-{os.getpid()}.log").open("a") as ledger:
        ledger.write("".join(f"{one}\n" for one in ids))
