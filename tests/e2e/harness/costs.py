"""What a process spends on one piece of work, in system calls and instructions: counts, not times, so that
they are the same on a busy machine. A budget file holds what it may be."""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess

import pytest

from .daemon import binary
from .wait import wait_until

CALLGRIND = "valgrind --tool=callgrind --quiet --callgrind-out-file=%s --instr-atstart=yes"
ROOM = 1.15  # of a recorded count, before it is too much
SLACK = 0.15  # calls apiece: what is rarer varies, and is judged in the sum alone

# Their number is the scheduler's: who waits for whom, and for how long.
UNSTEADY = {"futex", "sched_yield", "restart_syscall", "rt_sigreturn"}


def system():
    """What the libraries' share of the counts depends on."""
    release = platform.freedesktop_os_release()
    return "%s %s %s" % (release["ID"], release.get("VERSION_ID", ""), platform.machine())


def missing(tool="strace"):
    """Why nothing can be counted here, or None."""
    if not shutil.which(tool):
        return "%s is not installed: run scripts/bootstrap --tests" % tool
    if tool == "strace" and subprocess.run(["strace", "-c", "true"], capture_output=True).returncode:
        return "strace is not allowed here"
    with open(binary("soirees"), "rb") as program:
        text = program.read()
    if b"__asan_init" in text or b"__tsan_init" in text or b"relay.publish.before" in text:
        return "not a Release build: its costs are not those of the product"
    return None


# ---- counting

class Calls:
    """Counts the system calls of a process, all its threads included, from `with` to the block's end:

        with Calls(daemon.pid) as calls:
            work()
        calls.counts  # {"sendmsg": 2000, …}
    """

    def __init__(self, pid):
        self.pid, self.counts = pid, {}
        self._strace = None

    def _traced(self):
        for task in os.listdir("/proc/%d/task" % self.pid):
            with open("/proc/%d/task/%s/status" % (self.pid, task)) as status:
                if "TracerPid:\t0\n" in status.read():
                    return False
        return True

    def __enter__(self):
        self._strace = subprocess.Popen(["strace", "-f", "-c", "-U", "name,calls", "-p", str(self.pid)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_until(self._traced, 30, "strace is attached to %d" % self.pid)
        return self

    def __exit__(self, *error):
        self._strace.send_signal(signal.SIGINT)
        table = self._strace.communicate(timeout=60)[1]
        for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE):
            if name != "total":
                self.counts[name] = int(count)
        assert self.counts or error[0], "strace has counted nothing: " + table[-1000:]


class Instructions:
    """The same for the instructions of a process that was started behind `CALLGRIND % file`: `count`."""

    def __init__(self, pid, out_file):
        self.pid, self.out_file, self.count = pid, str(out_file), 0

    def _command(self, what):
        subprocess.run(["vgdb", "--pid=%d" % self.pid, what], check=True, capture_output=True, timeout=60)

    def __enter__(self):
        self._command("zero")
        return self

    def __exit__(self, *error):
        before = set(self._dumps())
        self._command("dump")
        (made,) = set(self._dumps()) - before
        with open(made) as dump:
            found = re.search(r"^(?:summary|totals): (\d+)", dump.read(), re.MULTILINE)
        self.count = int(found.group(1))

    def _dumps(self):
        folder, name = os.path.split(self.out_file)
        return [os.path.join(folder, other) for other in os.listdir(folder) if other.startswith(name + ".")]


# ---- the load

class Connections:
    """So many kept connections, which send together and are answered together."""

    def __init__(self, port, count):
        self.sockets = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(count)]
        for one in self.sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        for one in self.sockets:
            one.close()

    @staticmethod
    def _receive(one):
        text = b""
        while True:
            part = one.recv(65536)
            assert part, "the connection was closed: %r" % text
            text += part
            head, end, body = text.partition(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            if end and len(body) >= int(length.group(1) if length else 0):
                return int(head.split()[1]), body

    def run(self, requests, status):
        """Sends the requests (bytes), as many at a time as there are connections; returns the bodies."""
        bodies = []
        for first in range(0, len(requests), len(self.sockets)):
            turn = requests[first:first + len(self.sockets)]
            for one, request in zip(self.sockets, turn):
                one.sendall(request)
            for one, _ in zip(self.sockets, turn):
                answered, body = self._receive(one)
                assert answered == status, body
                bodies.append(body)
        return bodies


def request(method, path, document=None):
    """The bytes of a request."""
    body = b"" if document is None else json.dumps(document).encode()
    head = "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (method, path)
    if body:
        head += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head.encode() + b"\r\n" + body


# ---- judging

def apiece(counts, times):
    """{"sendmsg": 1.0, …, "all": …} a piece of work; what is rare or unsteady is left out of the names, and
    the unsteady of the sum too."""
    found = {name: count / times for name, count in counts.items() if name not in UNSTEADY}
    shown = {name: round(each, 2) for name, each in found.items() if each >= SLACK}
    return {**dict(sorted(shown.items())), "all": round(sum(found.values()), 2)}


class Budget:
    """A file of budgets: {"system": where they hold, what: {name: count apiece}}. COSTS_RECORD=1 in the
    environment writes down what is measured (where it is more than what is there), instead of judging it."""

    def __init__(self, path):
        self.path = str(path)
        with open(self.path) as file:
            self.rows = json.load(file)
        if self.rows["system"] != system():
            pytest.skip("the budget is that of %s, with its libraries" % self.rows["system"])

    def judge(self, what, costs):
        """Fails with what has grown over its budget."""
        if os.environ.get("COSTS_RECORD"):
            self.rows[what] = {name: max(each, self.rows.get(what, {}).get(name, 0))
                               for name, each in costs.items()}
            with open(self.path, "w") as file:
                json.dump(self.rows, file, indent=4, sort_keys=True)
                file.write("\n")
            return
        budget = self.rows.get(what, {})
        grown = ["%s: %s, budget %s" % (name, each, budget.get(name, "none")) for name, each in costs.items()
                 if each > budget.get(name, 0) * ROOM + SLACK]
        print("%s: %s" % (what, json.dumps(costs)))
        assert not grown, "%s costs more than its budget (%s):\n  %s\nall: %s" % (
            what, os.path.basename(self.path), "\n  ".join(grown), json.dumps(costs))
