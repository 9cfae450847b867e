"""An example handler for a queue: it names the messages that it could not take, so that those alone come again."""

import json


def handler(event, context):
    """Take a batch of SQS messages."""
    failures = []
    for record in event["Records"]:
        try:
            order = json.loads(record["body"])
            print(f"order {order.get('id')} taken, {context.get_remaining_time_in_millis()} ms left")
        except ValueError:
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
