"""Mappings as people have them for CloudFormation and from `list-event-source-mappings`, pasted and run as they are."""

import json

from tests.end_to_end.world import ACCOUNT, REGION, Queue, World, client, wait_for

COUNTING = """
import json, os

def handler(event, context):
    state = {"n": event["state"].get("n", 0) + len(event["Records"])}
    if event["isFinalInvokeForWindow"]:
        with open(os.environ["LEDGER"], "a") as file:
            print(json.dumps(state), file=file)
    return {"state": state}
"""

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders"


def test_a_filter_from_cloudformation_deletes_what_it_does_not_match(world: World, ministack: str) -> None:
    queue = Queue(ministack, "pasted-filter", visibility_s=30)
    properties = {
        "BatchSize": "10",
        "Enabled": "true",
        "EventSourceArn": queue.arn,
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps({"body": {"id": [{"prefix": "yes"}]}})}]},
        "FunctionName": FUNCTION,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "Tags": [{"Key": "team", "Value": "blue"}],
    }
    resource = {"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[resource])
    world.start(ESM_METRICS_TAGS="team")
    queue.send(*[f"{word}{number}" for number in range(10) for word in ("yes", "no")])
    wait_for(lambda: queue.count() == 0, "the queue is empty")
    assert sorted(world.taken()) == [f"yes{number}" for number in range(10)]
    assert world.metric("esm_filtered_out_events_total", tag_team="blue") == 10
    assert world.metric("esm_deleted_events_total") == 10


def test_a_listed_stream_mapping_bisects_and_leaves_its_poison_in_a_bucket(world: World, ministack: str) -> None:
    kinesis, s3 = client("kinesis", ministack), client("s3", ministack)
    kinesis.create_stream(StreamName="pasted", ShardCount=1)
    wait_for(
        lambda: (
            kinesis.describe_stream_summary(StreamName="pasted")["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
        ),
        "the stream is there",
    )
    s3.create_bucket(Bucket="pasted-failures")
    listed = {
        "UUID": "14e0db71-1111-4111-8111-0123456789ab", "StartingPosition": "TRIM_HORIZON", "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 1, "ParallelizationFactor": 1,
        "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/pasted", "FunctionArn": FUNCTION,
        "LastModified": "2026-01-31T12:00:00+00:00", "LastProcessingResult": "OK", "State": "Enabled",
        "StateTransitionReason": "User action", "MaximumRecordAgeInSeconds": -1, "BisectBatchOnFunctionError": True,
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::pasted-failures"}},
        "FunctionResponseTypes": [], "MaximumRetryAttempts": 0, "TumblingWindowInSeconds": 0,
    }  # fmt: skip
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[listed])
    for identity in ("a", "b", "poison-1", "c"):
        data = json.dumps({"id": identity, "key": "k"}).encode()
        kinesis.put_record(StreamName="pasted", PartitionKey="k", Data=data)
    world.start()
    (found,) = wait_for(lambda: s3.list_objects_v2(Bucket="pasted-failures").get("Contents"), "an object")
    wait_for(lambda: set(world.taken()) == {"a", "b", "c"}, "the others are taken")
    assert found["Key"].startswith("aws/lambda/14e0db71-1111-4111-8111-0123456789ab/shardId-000000000000/")
    document = json.loads(s3.get_object(Bucket="pasted-failures", Key=found["Key"])["Body"].read())
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["KinesisBatchInfo"]["batchSize"] == 1
    assert len(json.loads(document["payload"])["Records"]) == 1


def test_a_tumbling_window_counts_each_record_once(world: World, ministack: str) -> None:
    kinesis = client("kinesis", ministack)
    kinesis.create_stream(StreamName="counted", ShardCount=1)
    (world.folder / "code" / "app.py").write_text(COUNTING)
    properties = {
        "EventSourceArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/counted", "FunctionName": "orders",
        "StartingPosition": "TRIM_HORIZON", "TumblingWindowInSeconds": 2, "ParallelizationFactor": 4,
        "MaximumRetryAttempts": 3,
    }  # fmt: skip
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[properties])
    world.start()
    for _ in range(5):
        kinesis.put_record(StreamName="counted", PartitionKey="k", Data=b"{}")

    def counted() -> bool:
        kinesis.put_record(StreamName="counted", PartitionKey="later", Data=b"{}")  # closes the windows before it
        return sum(line["n"] for line in world.ledger()) >= 5

    wait_for(counted, "the windows of the first records are closed")
    assert world.metric("esm_windows_closed_total", outcome="complete") >= 1
    assert "ParallelizationFactor" in world.log()
