"""Tools to break things with: processes that die at a failpoint, proxies that lose or twist what they carry, black
holes, a disk that fills up, a clock that jumps, and builds without sanitizers for what these do not go with."""

import contextlib
import glob
import http.client
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import threading

import pika
import pytest
from harness.consul import ROOT
from harness.daemon import binary
from harness.wait import unwatch, wait_until

# ---- builds


def _binary_has(program, text):
    with open(binary(program), "rb") as file:
        return text in file.read()


def has_failpoints(program):
    return _binary_has(program, b"FAILPOINT")


def has_sanitizer(program):
    return _binary_has(program, b"__asan_init") or _binary_has(program, b"__tsan_init")


@pytest.fixture(scope="session")
def release_build(tmp_path_factory):
    """The folder of the programs as users build them."""
    folder = str(tmp_path_factory.mktemp("release"))
    for command in (["cmake", "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"],
                    ["cmake", "--build", folder, "--target", "soirees", "playlists"]):
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    return os.path.join(folder, "bin")


@pytest.fixture
def without_sanitizers(release_build, monkeypatch):
    """The test's daemons are those of a release build: for memory figures, and for what AddressSanitizer does not
    go with."""
    monkeypatch.setenv("SOIREES_BIN_DIR", release_build)
    monkeypatch.delenv("DAEMON_WRAPPER", raising=False)


# ---- processes


def launch_doomed(daemon, failpoint):
    """Start a daemon that will die at a failpoint ("name" or "name:3"); returns at once."""
    daemon.settings["FAILPOINT"] = failpoint
    daemon.launch()
    unwatch(daemon._check_alive)


def await_death(daemon, timeout):
    """Wait until it has died of the failpoint."""
    wait_until(lambda: not daemon.running, timeout, "%s dies at %s" % (daemon.name, daemon.settings["FAILPOINT"]))
    daemon.meant_to_run = False
    daemon.check_reports()
    assert daemon.child.process.returncode == -signal.SIGKILL


def start_again(daemon):
    """Start it without the failpoint."""
    daemon.settings.pop("FAILPOINT", None)
    return daemon.start()


def peak_rss_kib(pid):
    """The most memory that was ever resident."""
    with open("/proc/%d/status" % pid) as status:
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1])


# ---- a broker in trouble


def _rabbitmqctl(broker, *arguments):
    subprocess.run(["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments], env=broker._env(), check=True,
                   capture_output=True, timeout=120)


def _set_memory_limit(broker, share):
    """Of the machine's memory; the alarm comes, or goes, at once."""
    _rabbitmqctl(broker, "set_vm_memory_high_watermark", str(share))
    wait_until(lambda: broker.api("GET", "/nodes")[0].get("mem_alarm") == (share < 0.01), 60, "the alarm")


@contextlib.contextmanager
def memory_alarm(broker):
    """RabbitMQ reads nothing from connections that publish."""
    _set_memory_limit(broker, 0.000001)
    yield
    _set_memory_limit(broker, 0.8)


def set_ack_timeout(broker, timeout_ms):
    """consumer_timeout, for channels from now on; the broker looks for them often."""
    _rabbitmqctl(broker, "eval", "application:set_env(rabbit, consumer_timeout, %d),"
                 " application:set_env(rabbit, channel_tick_interval, 500)." % timeout_ms)


# ---- proxies


class Cut(Exception):
    """Raised by a proxy's filter: both ends of the connection are closed at once."""


class Proxy:
    """A TCP proxy in threads. filters(connection) gives a pair of functions, client to server and back, each of
    which gets the bytes that came and returns those that go on."""

    def __init__(self, target_port, filters=None):
        self.target_port = target_port
        self.filters = filters or (lambda _connection: (bytes, bytes))
        self.connections, self.cuts = 0, 0
        self._lock, self._open = threading.Lock(), set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d" % self.port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self.connections += 1
                pair = (client, server)
                self._open.add(pair)
                forth, back = self.filters(self.connections)
            for source, target, carry in ((client, server, forth), (server, client, back)):
                threading.Thread(target=self._pump, args=(pair, source, target, carry), daemon=True).start()

    def _pump(self, pair, source, target, carry):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                out = carry(data)
                if out:
                    target.sendall(out)
        except Cut:
            with self._lock:
                self.cuts += 1
        except OSError:
            pass
        self._close(pair)

    def _close(self, pair):
        with self._lock:
            self._open.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            self._close(pair)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()


class ConfirmProxy(Proxy):
    """Between a publisher and its broker. judge(message_id) is asked about each message that the broker has
    confirmed: "ack" passes the confirm on, "nack" makes it a refusal, "cut" loses it with the connection, "lose"
    loses it alone."""

    def __init__(self, broker_port, judge):
        self.judge, self.published = judge, []  # message ids in the order they came by
        super().__init__(broker_port, self._connection)

    def _connection(self, _number):
        state = {"tags": {}, "next": {}, "publishing": set()}

        def forth(data, frames=FrameReader()):
            for _raw, frame in frames.read(data):
                self._sent(state, frame)
            return data

        def back(data, frames=FrameReader()):
            return b"".join(self._answered(state, raw, frame) for raw, frame in frames.read(data))
        return forth, back

    def _sent(self, state, frame):
        channel = getattr(frame, "channel_number", None)
        if isinstance(frame, pika.frame.Method):
            if isinstance(frame.method, pika.spec.Confirm.Select):
                state["next"][channel] = 1
            elif isinstance(frame.method, pika.spec.Basic.Publish):
                state["publishing"].add(channel)
        elif isinstance(frame, pika.frame.Header) and channel in state["publishing"]:
            state["publishing"].discard(channel)
            self.published.append(frame.properties.message_id)
            if channel in state["next"]:
                state["tags"][channel, state["next"][channel]] = frame.properties.message_id
                state["next"][channel] += 1

    def _answered(self, state, raw, frame):
        if not isinstance(frame, pika.frame.Method) or not isinstance(frame.method, pika.spec.Basic.Ack):
            return raw
        channel, tag = frame.channel_number, frame.method.delivery_tag
        meant = sorted(number for on, number in state["tags"]
                       if on == channel and (number <= tag if frame.method.multiple else number == tag))
        out = b""
        for number in meant:
            verdict = self.judge(state["tags"].pop((channel, number)))
            if verdict == "cut":
                raise Cut
            if verdict == "lose":
                continue
            method = pika.spec.Basic.Ack(number) if verdict == "ack" else pika.spec.Basic.Nack(number, False, False)
            out += pika.frame.Method(channel, method).marshal()
        return out


class FrameReader:
    """Takes bytes as they come, gives (bytes, decoded) for each whole AMQP frame."""

    def __init__(self):
        self._rest = b""

    def read(self, data):
        self._rest += data
        while True:
            consumed, frame = pika.frame.decode_frame(self._rest)
            if frame is None:
                return
            raw, self._rest = self._rest[:consumed], self._rest[consumed:]
            yield raw, frame


class ReplyLoser:
    """An HTTP proxy that carries each request to the service and, when lose(method, status) says so, closes the
    connection instead of bringing the reply back."""

    def __init__(self, target_port, lose):
        self.replies, lock = [], threading.Lock()  # (method, status, lost)
        loser = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def carry(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                onward = http.client.HTTPConnection("127.0.0.1", target_port, timeout=30)
                try:
                    onward.request(self.command, self.path, body or None, dict(self.headers))
                    reply = onward.getresponse()
                    content = reply.read()
                except OSError:
                    self.close_connection = True
                    return
                finally:
                    onward.close()
                with lock:
                    lost = lose(self.command, reply.status)
                    loser.replies.append((self.command, reply.status, lost))
                if lost:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in ("connection", "content-length", "transfer-encoding", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = carry

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = "http://127.0.0.1:%d" % self.port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.server.shutdown()
        self.server.server_close()


# ---- addresses that lead nowhere


@contextlib.contextmanager
def never_answers():
    """A port where connections are made and nothing ever comes back."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def never_accepts():
    """A port where not even a connection is made: its backlog is full, the kernel drops every SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        with socket.socket() as probe:
            probe.settimeout(0.5)
            with pytest.raises(TimeoutError):
                probe.connect(address)
        yield address[1]


# ---- a disk that fills up


class SmallDisk:
    """A tmpfs of its own, with room to take away and give back."""

    def __init__(self, path, mib):
        self.path, self.mib = str(path), mib
        self._filler = os.path.join(self.path, "filler")

    def __enter__(self):
        os.makedirs(self.path)
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % self.mib, "tmpfs", self.path],
                                capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip("cannot mount a small tmpfs here (root alone may): " + result.stderr.strip())
        return self

    def __exit__(self, *_exc):
        subprocess.run(["umount", "-l", self.path], check=True)

    @property
    def free_bytes(self):
        fs = os.statvfs(self.path)
        return fs.f_bavail * fs.f_frsize

    def fill(self, leave_bytes=0):
        """Take all the room but this much."""
        with open(self._filler, "ab") as filler:
            while self.free_bytes > leave_bytes:
                filler.write(bytes(min(1 << 20, self.free_bytes - leave_bytes)))
                filler.flush()

    def make_room(self):
        os.unlink(self._filler)


# ---- a database that somebody else holds


class Lock:
    """Holds the write lock of an SQLite file, as a backup or a person with the command line does."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path, timeout=20, isolation_level=None)

    def __enter__(self):
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_exc):
        self.connection.execute("ROLLBACK")
        self.connection.close()


# ---- a clock that jumps


class Clock:
    """The wall clock of our daemons alone, by libfaketime; what counts from the start of the machine goes on."""

    LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")

    def __init__(self, folder, steady=True):
        libraries = [path for pattern in self.LIBRARIES for path in glob.glob(pattern)]
        if not libraries:
            pytest.skip("libfaketime is not installed (Debian's package libfaketime)")
        for program in ("soirees", "playlists"):
            if has_sanitizer(program):
                pytest.skip("libfaketime does not go with a sanitizer's build")
        self.path = os.path.join(str(folder), "faketime")
        self.settings = {"LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": self.path, "FAKETIME_NO_CACHE": 1,
                         "DONT_FAKE_MONOTONIC": 1 if steady else None}
        self.jump_to(0)

    def jump_to(self, offset_s):
        """From now on the clock is that far from the real one."""
        with open(self.path + ".new", "w") as file:
            file.write("%+d\n" % offset_s)
        os.rename(self.path + ".new", self.path)
