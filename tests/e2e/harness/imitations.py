"""Small recording servers that stand in for a peer that cannot be made to answer as a test needs."""

import http.server
import json
import threading


class Request:
    """One request as it came."""

    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "%s %s %r" % (self.method, self.path, self.body)


class Recorder:
    """An HTTP server in a thread: records each request and gives the answer that answer(request) returns,
    (status, body, content type). Use in a `with` block."""

    def __init__(self, answer, port=0):
        self.answer, self.seen, self._lock = answer, [], threading.Lock()
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self.command, self.path, self.headers, self.rfile.read(length).decode())
                with recorder._lock:
                    recorder.seen.append(request)
                status, body, content_type = recorder.answer(request)
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    if status != 204:
                        self.send_header("Content-Type", content_type)
                        self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    if status != 204:
                        self.wfile.write(payload)
                except OSError:
                    self.close_connection = True  # the client did not wait

            do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = "http://127.0.0.1:%d" % self.port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    def requests(self, method=None, prefix=""):
        """What was recorded so far, oldest first."""
        with self._lock:
            return [r for r in self.seen if method in (None, r.method) and r.path.startswith(prefix)]


class FakeSoirees(Recorder):
    """Stands in for the soirées service: each PATCH or PUT gets the next of `answers`, the last one for good.

    An answer is a status, (status, body, content type), or a function of the request that returns either."""

    def __init__(self, *answers):
        self._answers, self._next = list(answers), 0
        super().__init__(self._answer)

    def _answer(self, request):
        if request.method not in ("PATCH", "PUT"):
            return 200, {"status": "healthy"}, "application/json"
        with self._lock:
            answer = self._answers[min(self._next, len(self._answers) - 1)]
            self._next += 1
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, tuple):
            return answer
        if answer == 200:
            return 200, {"id": "x", **request.json()}, "application/json; charset=utf-8"
        problem = {"status": answer, "title": "t", "detail": "d", "error": "d"}
        return answer, problem, "application/problem+json"

    def links(self):
        """The PATCHes and PUTs so far."""
        return [r for r in self.requests() if r.method in ("PATCH", "PUT")]
