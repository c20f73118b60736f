"""What scripts/bench measures with: wrk, the kernel's accounts of CPU and memory, the machine's quiet."""

import http.client
import json
import os
import random
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
WRK_SCRIPT = os.path.join(ROOT, "tests", "bench", "wrk.lua")
TICKS = os.sysconf("SC_CLK_TCK")
QUIET_SHARE = 0.10  # of one core, for everything that is not ours
LOOK_S = 0.5


class BenchError(Exception):
    """The measurement cannot go on; the text is for people."""


# ---- one process

def cpu_s(pid):
    """CPU time of a process, its ended threads included, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def _stat(pid):
    """The fields of /proc/PID/stat from the state on, proc(5)'s third."""
    with open("/proc/%d/stat" % pid) as file:
        return file.read().rpartition(") ")[2].split()


def tree_cpu_s(pid):
    """CPU time of a server process and its children, those that have ended and were waited for, too."""
    ticks = sum(int(ticks) for ticks in _stat(pid)[11:15])
    for name in os.listdir("/proc"):
        try:
            fields = _stat(int(name)) if name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory(pid):
    """(resident, anonymous) in MB."""
    sizes = {}
    with open("/proc/%d/smaps_rollup" % pid) as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.endswith(" kB\n"):
                sizes[name] = int(rest.split()[0]) / 1024
    return sizes["Rss"], sizes["Anonymous"]


# ---- load

def wrk(url, connections, seconds, body=None, ids=None, during=None):
    """Loads the URL; returns wrk's account (times in µs), `answered` without what was refused.

    during(): called while wrk works."""
    env = {"PATH": os.environ["PATH"], "BENCH_SEED": str(random.randrange(1 << 30))}
    if body is not None:
        env["BENCH_BODY"] = json.dumps(body)
    if ids is not None:
        env["BENCH_IDS"] = ids
    argv = ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--timeout", "20s", "-s", WRK_SCRIPT, url]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if during:
            during()
        output = process.communicate(timeout=seconds + 60)[0]
    finally:
        process.kill()
        process.wait()
    try:
        account = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError("wrk: " + output.strip()[-500:])
    account["answered"] -= account["refused"]
    account["per_s"] = account["answered"] / (account["us"] / 1e6)
    return account


class Client:
    """One kept connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, method, path, document=None):
        """(status, decoded body)."""
        body = None if document is None else json.dumps(document)
        self.connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = self.connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None

    def post(self, path, document):
        status, item = self.send("POST", path, document)
        if status != 201:
            raise BenchError("POST %s: %d %s" % (path, status, item))
        return item


# ---- the machine

def _ours():
    """CPU seconds of this process and all it started, ended ones included."""
    parents, times = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)] = int(fields[1])
            times[int(name)] = (sum(map(int, fields[11:15]))) / TICKS
    total, me = 0.0, os.getpid()
    for pid in times:
        above = pid
        while above not in (0, me):
            above = parents.get(above, 0)
        total += times[pid] if above == me else 0
    return total


def _busy():
    """CPU seconds that anybody used, or that another guest took."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


class Others:
    """How much of a core everybody else used since this was made."""

    def __init__(self):
        self.began, (self.busy, self.steal), self.ours = time.monotonic(), _busy(), _ours()

    def share(self):
        elapsed = time.monotonic() - self.began
        (busy, steal), ours = _busy(), _ours()
        return max(0.0, (busy - self.busy - (ours - self.ours) + steal - self.steal) / elapsed)


def wait_for_quiet(most_s):
    """Writes out what is dirty, then waits until the others are quiet; their share of a core at the end."""
    os.sync()
    deadline = time.monotonic() + most_s
    while True:
        others = Others()
        time.sleep(LOOK_S)
        share = others.share()
        if share < QUIET_SHARE or time.monotonic() > deadline:
            return share


def describe():
    """The machine in a line."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) // 1024
    return "%d x %s, %d MB, Linux %s" % (os.cpu_count(), models[0] if models else "?", total,
                                         os.uname().release)
