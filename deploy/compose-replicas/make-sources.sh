#!/bin/sh
# Run by LocalStack once it is up: a queue with its dead-letter queue, a stream of four shards, and where its failures go.
set -eu

awslocal sqs create-queue --queue-name orders-dead
awslocal sqs create-queue --queue-name orders --attributes '{
  "VisibilityTimeout": "30",
  "RedrivePolicy": "{\"deadLetterTargetArn\": \"arn:aws:sqs:us-east-1:000000000000:orders-dead\", \"maxReceiveCount\": \"5\"}"
}'
awslocal sqs create-queue --queue-name clicks-failed
awslocal kinesis create-stream --stream-name clicks --shard-count 4
awslocal kinesis wait stream-exists --stream-name clicks
