"""An example of a web server as a function: it takes batches by POST and names the messages that it could not take.

In a container it is started with HOST=0.0.0.0.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handle(record):
    order = json.loads(record["body"])
    if order.get("broken"):
        raise ValueError("this order cannot be worked on")
    print(f"took order {order['id']}", flush=True)


class Events(BaseHTTPRequestHandler):
    """Answers every POST, whatever its path."""

    def do_POST(self):
        """Take a batch of SQS messages."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        failed = []
        for record in event["Records"]:
            try:
                handle(record)
            except ValueError:
                failed.append({"itemIdentifier": record["messageId"]})
        answer = json.dumps({"batchItemFailures": failed}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")))
    ThreadingHTTPServer(address, Events).serve_forever()
