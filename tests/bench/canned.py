"""A queue that never ends, as a process on the other core: ten messages of 1 KB at every receive."""

import asyncio
import json
import sys
import uuid

from aiohttp import web

BODY = json.dumps({"payload": "x" * 1000})


def received() -> bytes:
    messages = [
        {
            "MessageId": str(uuid.uuid4()), "ReceiptHandle": uuid.uuid4().hex * 8, "Body": BODY, "MD5OfBody": "0" * 32,
            "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1764088050123", "SenderId": "A",
                           "ApproximateFirstReceiveTimestamp": "1764088050124"},
        }
        for _ in range(10)
    ]  # fmt: skip
    return json.dumps({"Messages": messages}).encode()


def main(port: int) -> None:
    answers = {
        "GetQueueUrl": json.dumps({"QueueUrl": f"http://127.0.0.1:{port}/000000000000/q"}).encode(),
        "GetQueueAttributes": b'{"Attributes":{"VisibilityTimeout":"30","MaximumMessageSize":"262144"}}',
        "ReceiveMessage": received(),
        "DeleteMessageBatch": json.dumps({"Successful": [{"Id": str(n)} for n in range(10)], "Failed": []}).encode(),
    }

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        operation = request.headers["X-Amz-Target"].rsplit(".", 1)[1]
        return web.Response(body=answers[operation], content_type="application/x-amz-json-1.0")

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.sleep(3600)

    asyncio.run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
