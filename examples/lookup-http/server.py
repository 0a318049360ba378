"""A stand-in for the service, to try the example and to test it: python server.py 8099."""

import json
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

CAMPAIGNS = {
    "7": {"name": "Spring Sale", "owner": "retail-team", "budget": 1200},
    "8": {"name": "Früh buchen", "owner": "travel-team", "budget": 300},
    "9": {"name": "half an answer"},
}


class Service(BaseHTTPRequestHandler):
    """Answers ``/campaign?id=7``; ``busy`` and ``slow`` are ids to try the trouble with."""

    protocol_version = "HTTP/1.1"  # connections stay open
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        """Answer."""
        (key,) = parse_qs(urlsplit(self.path).query).get("id", [""])
        self.asked[key] += 1
        if key == "slow":
            time.sleep(0.5)
        campaign = CAMPAIGNS.get(key)
        status = 503 if key.startswith(("busy", "slow")) else 200 if campaign else 404
        body = json.dumps(campaign).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
