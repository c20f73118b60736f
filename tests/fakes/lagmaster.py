#!/usr/bin/env python3
"""An imitation of lagmaster-pro, the external playlist API, that can be told how to misbehave.

    lagmaster.py [--port 0] [--bind 127.0.0.1] [--latency-ms N]

Prints `listening on http://ADDRESS:PORT` once it accepts connections; SIGTERM and SIGINT end it, exit code 0.

    GET  /generate_playlist?style=X   {"style", "title", "tracks"}, as the real one answers
    PUT  /control                     replaces the settings below; what is absent goes back to its default
    GET  /control                     the settings in force
    DELETE /control                   the settings of the command line again, the recorded calls forgotten
    POST /control/release             every call in progress gets a good answer now
    GET  /control/calls[?limit=N]     {"count", "calls": [...]}: since the reset, at most the last 200,000
    GET  /control/waiting             {"waiting": N}: calls in progress
    GET  /health                      {"status": "healthy"}

A call: {"style", "path", "headers", "at", "mode", "ended", "duration_ms"}; `ended` is "waiting", "answered",
"cut" (by us, on purpose), "client gone" (it left before the answer) or "stopped" (with this server).

Settings: `latency_ms` before anything is answered, `mode` (see MODES), `fail_first` (the first N calls get a
500), and `by_style`, the same keys for one style, which win over the general ones.

In Python: `with LagMaster() as api: ... api.url ... api.control(mode="hang") ... api.calls()`.
"""

import argparse
import asyncio
import collections
import http
import json
import resource
import signal
import socket
import struct
import sys
import threading
import time
import urllib.parse
import zlib

MODES = {
    "ok": "a good answer",
    "error500": "500 with a JSON body",
    "error404": "404 with a JSON body",
    "notjson": "200 with an HTML page",
    "wrongtypes": "200, JSON, every member of a wrong type",
    "emptytracks": "200, no tracks",
    "truncated": "the connection ends in the middle of the announced body",
    "huge": "200 and a well-formed body of more than 2 MiB",
    "hang": "no answer at all",
    "drip": "headers at once, then a byte ten times a second, without an end",
    "redirect": "302 to a place that would answer well",
    "control_chars": "200, line feeds, escape sequences and quotes in the texts",
    "long_titles": "200, more and longer texts than anyone needs, in several bytes a character",
    "reset": "the connection is reset (RST) instead of an answer",
}
DEFAULTS = {"latency_ms": 0, "mode": "ok", "fail_first": 0}
MAX_CALLS = 200_000
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
DRIP_S = 0.1

PREFIXES = ["Metaverse Collapse", "Quantum Karaoke", "Buffering Forever", "Turbo Raclette", "Rubber Duck",
            "Existential Conga", "Blockchain Bossa", "Soggy Croissant", "Airplane Mode", "Infinite Encore"]
ADJECTIVES = ["Electric", "Disco", "Techno", "Galactic", "Melancholic", "Caffeinated", "Velvet", "Reluctant"]
NOUNS = ["Pickles", "Lemonade", "Taco", "Accordion", "Spreadsheet", "Baguette", "Penguin", "Moustache"]


def playlist(style):
    """What lagmaster-pro would say about this style: always the same for the same style."""
    if style == "disco":
        picks, prefix = [(0, 0), (1, 1), (2, 2)], PREFIXES[0]
    else:
        seed = zlib.crc32(style.encode())
        prefix = PREFIXES[seed % len(PREFIXES)]
        picks = [((seed >> 4) + n, (seed >> 12) + 3 * n) for n in range(3)]
    names = [f"{ADJECTIVES[a % len(ADJECTIVES)]} {NOUNS[b % len(NOUNS)]}" for a, b in picks]
    return {"style": style, "title": f"{prefix} {style[:1].upper()}{style[1:]}",
            "tracks": [f"Track {n} - {name}" for n, name in enumerate(names)]}


def encode(value):
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def body_of(mode, style):
    """The body of an answer with status 200."""
    good = playlist(style)
    if mode == "notjson":
        return b"<!doctype html><title>Oops</title><h1>lagmaster-pro is dancing, come back later</h1>"
    if mode == "wrongtypes":
        return encode({"style": 42, "title": ["not", "a", "title"], "tracks": "Track 0, Track 1"})
    if mode == "emptytracks":
        return encode({**good, "tracks": []})
    if mode == "huge":
        return encode({**good, "tracks": ["Track %06d - " % n + "la " * 70 for n in range(10_000)]})
    if mode == "control_chars":
        return encode({**good, "title": f"\x1b[31m{good['title']}\x1b[0m\r\n✅ \"faux\" \\ \x07\x7f",
                       "tracks": ["Track 0\tTab", "Track 1\nNewline", "Track 2 \x01\x1f </script>"]})
    if mode == "long_titles":
        return encode({**good, "title": "é🕺" * 500, "tracks": ["ü" * 400] * 600})
    return encode(good)


def check_settings(given, inner=False):
    """Raises ValueError with a line for whoever made the typing mistake."""
    if not isinstance(given, dict):
        raise ValueError("the settings are a JSON object")
    for key, value in given.items():
        if key == "mode":
            if value not in MODES:
                raise ValueError(f"unknown mode {value!r}; known: {', '.join(MODES)}")
        elif key in ("latency_ms", "fail_first"):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{key} is a number of at least 0")
        elif key == "by_style" and not inner:
            if not isinstance(value, dict):
                raise ValueError("by_style is an object: style -> settings")
            for settings in value.values():
                check_settings(settings, inner=True)
        else:
            raise ValueError(f"unknown setting {key!r}")


class State:
    """Settings and records; touched by the event loop alone."""

    def __init__(self, latency_ms):
        self.start = {**DEFAULTS, "latency_ms": latency_ms}
        self.reset()
        self.waiting = 0
        self.release = asyncio.Event()

    def reset(self):
        self.calls = collections.deque(maxlen=MAX_CALLS)
        self.count = 0
        self.configure(self.start)

    def configure(self, given):
        check_settings(given)
        by_style = given.get("by_style", {})
        self.settings = {**DEFAULTS, **given, "by_style": by_style}
        self.failures_left = {None: self.settings["fail_first"]}
        for style, own in by_style.items():
            if "fail_first" in own:
                self.failures_left[style] = own["fail_first"]

    def plan(self, style):
        """(latency in seconds, mode) of the next call with this style."""
        own = self.settings["by_style"].get(style, {})
        merged = {**self.settings, **own}
        counter = style if style in self.failures_left else None
        if self.failures_left[counter] > 0:
            self.failures_left[counter] -= 1
            return merged["latency_ms"] / 1000, "error500"
        return merged["latency_ms"] / 1000, merged["mode"]

    def release_all(self):
        self.release.set()
        self.release = asyncio.Event()


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: one request at a time, kept alive; a client that leaves is noticed at once."""

    def __init__(self, server):
        self.server = server
        self.state = server.state
        self.buffer = b""
        self.task = None

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc):
        self.server.connections.discard(self)
        if self.task:
            self.task.cancel()

    def data_received(self, data):
        self.buffer += data
        if self.task is None:
            self.next_request()
        elif len(self.buffer) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
            self.transport.abort()

    def next_request(self):
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self.buffer) > MAX_HEAD_BYTES:
                self.transport.abort()
            return
        try:
            lines = head.decode("latin-1").split("\r\n")
            method, target, _version = lines[0].split(" ")
            fields = [line.split(":", 1) for line in lines[1:]]
            headers = {name.strip().lower(): value.strip() for name, value in fields}
            length = int(headers.get("content-length", "0"))
        except ValueError:
            self.answer(400, encode({"error": "not an HTTP request"}), close=True)
            return
        if length > MAX_BODY_BYTES:
            self.answer(413, encode({"error": "body too large"}), close=True)
            return
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.close_after = headers.get("connection", "").lower() == "close"
        self.task = asyncio.ensure_future(self.handle(method, target, headers, rest[:length]))
        self.task.add_done_callback(self.request_done)

    def request_done(self, task):
        self.task = None
        if not task.cancelled() and task.exception():
            print(f"lagmaster: {task.exception()!r}", file=sys.stderr, flush=True)
            self.transport.abort()
        elif not self.transport.is_closing():
            if self.close_after:
                self.transport.close()
            elif self.buffer:
                self.next_request()

    def answer(self, status, body, headers=(), close=False, announced=None):
        reason = http.HTTPStatus(status).phrase
        lines = [f"HTTP/1.1 {status} {reason}", "Content-Type: application/json; charset=utf-8",
                 f"Content-Length: {len(body) if announced is None else announced}", *headers]
        if close:
            lines.append("Connection: close")
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if close:
            self.transport.close()

    async def handle(self, method, target, headers, body):
        path, _, query = target.partition("?")
        if path == "/generate_playlist":
            if method != "GET":
                self.answer(405, encode({"error": "only GET"}), ["Allow: GET"])
            else:
                await self.generate(target, query, headers)
        elif path == "/generate_playlist/elsewhere":
            # where the redirect leads: recorded, so that a client which follows it is found out
            self.record(target, query, headers, "elsewhere")["ended"] = "answered"
            self.answer(200, body_of("ok", "disco"))
        elif path == "/health":
            self.answer(200, encode({"status": "healthy"}))
        else:
            self.control(method, path, query, body)

    def control(self, method, path, query, body):
        state = self.state
        if (method, path) == ("PUT", "/control"):
            try:
                state.configure(json.loads(body))
            except ValueError as error:
                self.answer(400, encode({"error": str(error)}))
                return
            self.answer(200, encode(state.settings))
        elif (method, path) == ("GET", "/control"):
            self.answer(200, encode(state.settings))
        elif (method, path) == ("DELETE", "/control"):
            state.reset()
            self.answer(200, encode(state.settings))
        elif (method, path) == ("POST", "/control/release"):
            state.release_all()
            self.answer(200, encode({"waiting": state.waiting}))
        elif (method, path) == ("GET", "/control/waiting"):
            self.answer(200, encode({"waiting": state.waiting}))
        elif (method, path) == ("GET", "/control/calls"):
            limit = int(urllib.parse.parse_qs(query).get("limit", [MAX_CALLS])[0])
            calls = list(state.calls)[max(0, len(state.calls) - limit):]
            self.answer(200, encode({"count": state.count, "calls": calls}))
        else:
            self.answer(404, encode({"error": f"no {method} {path} here"}))

    def record(self, target, query, headers, mode):
        style = urllib.parse.parse_qs(query, keep_blank_values=True).get("style", [""])[-1] or "disco"
        call = {"style": style, "path": target, "headers": headers, "at": time.time(), "mode": mode,
                "ended": "waiting"}
        self.state.calls.append(call)
        self.state.count += 1
        return call

    async def generate(self, target, query, headers):
        call = self.record(target, query, headers, None)
        latency_s, mode = self.state.plan(call["style"])
        call["mode"] = mode
        self.state.waiting += 1
        try:
            call["ended"] = await self.act(mode, latency_s, call["style"])
        except asyncio.CancelledError:
            call["ended"] = "stopped" if self.server.stopping else "client gone"
            raise
        finally:
            self.state.waiting -= 1
            call["duration_ms"] = round((time.time() - call["at"]) * 1000)

    async def released(self, timeout_s):
        """Waits; True when a release came first."""
        try:
            await asyncio.wait_for(self.state.release.wait(), timeout_s)
            return True
        except asyncio.TimeoutError:
            return False

    async def act(self, mode, latency_s, style):
        """Waits as told, then answers; says how the call ended."""
        if latency_s > 0 and await self.released(latency_s):
            mode = "ok"
        if mode == "hang":
            await self.released(None)
            mode = "ok"
        if mode == "drip":
            await self.drip(style)
            return "answered"
        return self.finish(mode, style)

    def finish(self, mode, style):
        body = body_of(mode, style)
        if mode == "error500":
            self.answer(500, encode({"error": "lagmaster-pro spilled its drink on the server"}))
        elif mode == "error404":
            self.answer(404, encode({"error": "this style left the building"}))
        elif mode == "redirect":
            self.answer(302, b"", ["Location: /generate_playlist/elsewhere"])
        elif mode == "truncated":
            self.answer(200, body[:len(body) // 2], close=True, announced=len(body))
            return "cut"
        elif mode == "reset":
            # with a linger time of 0, close() sends RST
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return "cut"
        else:
            self.answer(200, body)
        return "answered"

    async def drip(self, style):
        """Spaces, which JSON allows, in chunks of one byte; a release ends the body well."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                             b"Transfer-Encoding: chunked\r\n\r\n")
        while not await self.released(DRIP_S):
            self.transport.write(b"1\r\n \r\n")
        body = body_of("ok", style)
        self.transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


class Server:
    def __init__(self, bind, port, latency_ms):
        self.bind, self.port, self.latency_ms = bind, port, latency_ms
        self.connections = set()
        self.stopping = False

    async def run(self, on_ready):
        """Serves until `stop` is set; `on_ready(port, stop)` is called once connections are accepted."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self.state = State(self.latency_ms)
        listener = await loop.create_server(lambda: Connection(self), self.bind, self.port, backlog=4096)
        on_ready(listener.sockets[0].getsockname()[1], stop)
        await stop.wait()
        self.stopping = True
        listener.close()
        for connection in list(self.connections):
            connection.transport.abort()
        # one more round, for the cancelled calls to note how they ended
        await asyncio.sleep(0)


class LagMaster:
    """The same server in a thread of this process, for tests; start/stop or a `with` block."""

    def __init__(self, bind="127.0.0.1", port=0, latency_ms=0):
        self.server = Server(bind, port, latency_ms)
        self.bind = bind
        self.ready = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self._run, name="lagmaster", daemon=True)

    def _run(self):
        try:
            asyncio.run(self.server.run(self._on_ready))
        except OSError as error:
            self.failure = error
            self.ready.set()

    def _on_ready(self, port, stop):
        self.port, self._stop, self._loop = port, stop, asyncio.get_running_loop()
        self.ready.set()

    def start(self):
        raise_descriptor_limit()
        self.thread.start()
        self.ready.wait()
        if self.failure:
            raise self.failure
        return self

    def stop(self):
        if self.thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self.thread.join(10)

    __enter__ = start

    def __exit__(self, *_exc):
        self.stop()

    @property
    def url(self):
        """For LAGMASTER_URL."""
        return f"http://{self.bind}:{self.port}/generate_playlist"

    def _do(self, action):
        """Runs action() in the event loop's thread and gives its result, or its exception, here."""
        async def run():
            return action()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def control(self, **settings):
        """As PUT /control."""
        self._do(lambda: self.server.state.configure(settings))

    def reset(self):
        self._do(self.server.state.reset)

    def release(self):
        self._do(self.server.state.release_all)

    def calls(self, style=None):
        """The recorded calls, oldest first, as copies."""
        def copies():
            return [dict(call) for call in self.server.state.calls if style in (None, call["style"])]
        return self._do(copies)

    @property
    def count(self):
        return self.server.state.count

    @property
    def waiting(self):
        return self.server.state.waiting


def raise_descriptor_limit():
    """A thousand calls at once need more than the usual 1,024 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main():
    parser = argparse.ArgumentParser(description="An imitation of lagmaster-pro, the external playlist API.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free one")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--latency-ms", type=int, default=0, help="before each answer (default: %(default)s)")
    args = parser.parse_args()
    raise_descriptor_limit()

    def on_ready(port, stop):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(f"listening on http://{args.bind}:{port}", flush=True)

    try:
        asyncio.run(Server(args.bind, args.port, args.latency_ms).run(on_ready))
    except OSError as error:
        print(f"lagmaster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
