#!/bin/sh
# Run by LocalStack once it is up: a queue whose failing messages end in a dead-letter queue after five receipts.
set -eu

awslocal sqs create-queue --queue-name orders-dead
awslocal sqs create-queue --queue-name orders --attributes '{
  "VisibilityTimeout": "30",
  "RedrivePolicy": "{\"deadLetterTargetArn\": \"arn:aws:sqs:us-east-1:000000000000:orders-dead\", \"maxReceiveCount\": \"5\"}"
}'
