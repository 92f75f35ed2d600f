# SPDX-License-Identifier: Apache-2.0
"""A stand-in for deployfsd: HTTP with JSON on a Unix socket, answers as a test tells it."""

import http.server
import json
import os
import socketserver
import threading
import urllib.parse

TIMEOUT_S = 20

BREAK = object()  # a reply: close the connection without an answer


class Request:
    def __init__(self, method, path, query, body, key=None):
        self.key = key  # the header Idempotency-Key
        self.method = method
        self.path = path
        self.query = query
        self.body = body


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        url = urllib.parse.urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        request = Request(
            self.command,
            urllib.parse.unquote(url.path),
            dict(urllib.parse.parse_qsl(url.query)),
            json.loads(body) if body else None,
            self.headers.get("Idempotency-Key"),
        )
        reply = self.server.api.reply_to(request)
        if reply is BREAK:
            self.close_connection = True
            return
        status, value = reply
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except BrokenPipeError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format, *args):
        pass

    def address_string(self):
        return "unix"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # a client that was killed by a test


class MockApi:
    """
    api.on("GET", "/v1/status", (200, {...}))     one answer for ever
    api.on("GET", "/v1/jobs/7", first, second)    in turn, the last one for ever
    An answer is (status, value or bytes), BREAK, or a function of the request that
    gives one; it may block on an event.
    """

    def __init__(self, socket_path):
        self.socket_path = socket_path
        self.requests = []
        self._replies = {}
        self._seen = threading.Condition()
        self._server = _Server(socket_path, _Handler)
        self._server.api = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def on(self, method, path, *replies):
        with self._seen:
            self._replies[method, path] = list(replies)

    def reply_to(self, request):
        with self._seen:
            self.requests.append(request)
            self._seen.notify_all()
            replies = self._replies.get((request.method, request.path))
            if not replies:
                return 404, {
                    "schema": 1,
                    "error": {"code": "not-found", "message": f"no {request.path}"},
                }
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply(request) if callable(reply) else reply

    def sent(self, method, path=None):
        with self._seen:
            return [
                request
                for request in self.requests
                if request.method == method and path in (None, request.path)
            ]

    def wait_for(self, method, path):
        """Until the request is there; its answer may not be."""
        with self._seen:
            there = self._seen.wait_for(
                lambda: any(
                    request.method == method and request.path == path
                    for request in self.requests
                ),
                TIMEOUT_S,
            )
        assert there, f"{method} {path} never came"

    def hang_up(self):
        """No new connection is taken from here on; what is under way goes on."""
        os.unlink(self.socket_path)

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
