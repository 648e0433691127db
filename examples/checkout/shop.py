#!/usr/bin/env python3
"""What a checkout calls: a shop's stock, its card payments, its couriers and its mail, in one small server without dependencies.

    python3 shop.py [--port 9000] [--delay 0.3]

Each resource is named by the order that it belongs to, so that it can be undone whatever the caller got to know of it:

    PUT /reservations/<order>   {"sku": ...}      reserve stock        DELETE: give it back
    PUT /charges/<order>        {"amount": ...}   charge the card      DELETE: pay it back (402 for more than 1000)
    PUT /couriers/<order>       {"to": ...}       book a courier       DELETE: send him home (422 for "nowhere")
    PUT /receipts/<order>       {"email": ...}    send the receipt
    GET /effects                                  what was really done, once for each Idempotency-Key

A request with an Idempotency-Key that has been seen is answered as before, and does nothing. One with a lower Order-Fence than another of
its order had comes late, and is refused: what it asks for may have been undone since.
"""
import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()
resources = {}  # path -> content
answers = {}  # Idempotency-Key -> (status, answer)
effects = {}  # Idempotency-Key -> how often something was done for it
fences = {}  # order -> the highest Order-Fence


def refusal(path, content):
    """Why something can't be done, as a status and a text; or None."""
    if path.startswith("/charges/") and content.get("amount", 0) > 1000:
        return 402, "the bank says no"
    if path.startswith("/couriers/") and content.get("to") == "nowhere":
        return 422, "no courier goes there"
    return None


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    delay = 0.0

    def do_PUT(self):
        length = int(self.headers.get("content-length", 0))
        content = json.loads(self.rfile.read(length) or b"{}")
        refused = refusal(self.path, content)
        if refused is not None:
            self.answer(refused[0], {"error": refused[1]})
            return
        self.once(lambda: resources.__setitem__(self.path, content), {"id": self.path.rsplit("/", 1)[1], **content})

    def do_DELETE(self):
        self.once(lambda: resources.pop(self.path, None), {})

    def do_GET(self):
        with lock:
            found = {"resources": dict(resources), "effects": dict(effects)} if self.path == "/effects" else None
        self.answer(200 if found else 404, found or {})

    def once(self, effect, answer):
        """Does it, unless it was done for this key. The work comes first, and then the answer takes its time."""
        key = self.headers.get("idempotency-key", "")
        order = self.path.rsplit("/", 1)[1]
        fence = int(self.headers.get("order-fence", 0))
        with lock:
            is_late = fence < fences.get(order, 0)
            fences[order] = max(fence, fences.get(order, 0))
            if not is_late and key not in answers:
                effect()
                effects[key] = effects.get(key, 0) + 1
                answers[key] = answer
        if is_late:
            self.answer(409, {"error": "this comes late"})
            return
        if self.command == "PUT":
            time.sleep(self.delay)
        self.answer(200, answers[key])

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # the caller has gone

    def log_message(self, format, *args):
        print(self.command, self.path, args[1], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--delay", type=float, default=0.3)
    options = parser.parse_args()
    Shop.delay = options.delay
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Shop)
    print(f"The shop listens at http://127.0.0.1:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
