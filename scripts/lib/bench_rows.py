"""The rows of scripts/bench: what is done, what is measured of it, and what it must reach.

A row has forms (ours, the opponent's, sizes, …), which take turns round after round. measure(bench, form)
gives a dictionary of figures; the checks judge the figures' medians, m(form, figure)."""

import dataclasses
import os
import select
import socket
import statistics
import time

from bench_machine import BenchError, Client, cpu_s, memory, wrk
from bench_sides import EXAMPLE, Ours, OursOverPostgres, Peer
from harness.wait import wait_until

POST_CONNECTIONS = 64
DRAIN_BOOKINGS = 2000
CAPACITY_BOOKINGS, CAPACITY_WORKERS = 10_000, 100
SIZES = {"empty": 0, "10,000": 10_000, "1,000,000": 1_000_000}
KILL_AFTER_S = 1
STEP_S = 0.01


@dataclasses.dataclass
class Check:
    """value(m) against the target; m(form, figure) is a median, LookupError where it was not measured."""
    what: str
    value: object
    least: float = None
    most: float = None
    unit: str = ""


@dataclasses.dataclass
class Row:
    name: str
    title: str
    forms: list
    figures: dict  # figure -> (what, decimals)
    measure: object
    checks: list


PG = "ours, PostgreSQL"
TLS = "ours, API over TLS"


def ratio(figure, other="peer"):
    return lambda m: m("ours", figure) / m(other, figure)


def over_sqlite(figure):
    return lambda m: m(PG, figure) / m("ours", figure)


def plain(form, figure):
    return lambda m: m(form, figure)


# ---- POST

def _load(side, connections, seconds):
    """POSTs; returns wrk's account with the CPU of soirees until the outbox is empty, and what was in it."""
    before = side.database_cost()
    pid, began, cpu = side.soirees.pid, time.monotonic(), cpu_s(side.soirees.pid)
    account = wrk(side.soirees.url + "/api/soirees", connections, seconds, EXAMPLE)
    account["backlog"] = side.unsent()
    side.wait_until_published()
    account["confirmed_per_s"] = account["answered"] / (time.monotonic() - began)
    account["cpu_us"] = (cpu_s(pid) - cpu) * 1e6 / max(1, account["answered"])
    account.update(_database_cost(side, before, max(1, account["answered"])))
    return account


def _database_cost(side, before, count):
    cpu, log = (now - then for now, then in zip(side.database_cost(), before))
    return {"database_us": cpu * 1e6 / count, "log_bytes": log / count}


def _killed(side):
    """kill -9 in the middle of the load; how many were answered."""
    def kill():
        time.sleep(KILL_AFTER_S)
        side.kill()
    return wrk(side.soirees.url + "/api/soirees", POST_CONNECTIONS, KILL_AFTER_S + 1, EXAMPLE,
               during=kill)["answered"]


def measure_post64(bench, form):
    side = bench.side(form).start()
    warm = wrk(side.soirees.url + "/api/soirees", POST_CONNECTIONS, bench.warm_s, EXAMPLE)["answered"]
    side.wait_until_published()
    bench.quiet()
    run = _load(side, POST_CONNECTIONS, bench.seconds)
    rss, anonymous = memory(side.soirees.pid)
    answered = warm + run["answered"] + _killed(side)
    rows = side.rows()
    if rows > answered + 3 * POST_CONNECTIONS:
        raise BenchError("%s: %d rows, but %d were answered" % (form, rows, answered))
    return {"per_s": run["per_s"], "confirmed": run["confirmed_per_s"], "backlog": run["backlog"],
            "cpu_us": run["cpu_us"], "p50_ms": run["p50"] / 1e3, "p99_ms": run["p99"] / 1e3,
            "refused": run["refused"], "rss": rss, "anonymous": anonymous,
            "database_us": run["database_us"], "log_bytes": run["log_bytes"],
            "acknowledged": answered, "rows": rows, "lost": max(0, answered - rows)}


def measure_post1(bench, form):
    side = bench.side(form).start()
    wrk(side.soirees.url + "/api/soirees", 1, bench.warm_s, EXAMPLE)
    side.wait_until_published()
    bench.quiet()
    run = _load(side, 1, bench.seconds)
    return {"p50_us": run["p50"], "p99_us": run["p99"], "per_s": run["per_s"], "cpu_us": run["cpu_us"]}


# ---- GET

def _read(bench, side, path, ids=None, connections=64):
    url = side.soirees.url + path
    wrk(url, connections, bench.warm_s, ids=ids)
    bench.quiet()
    cpu = cpu_s(side.soirees.pid)
    run = wrk(url, connections, bench.seconds, ids=ids)
    cpu = cpu_s(side.soirees.pid) - cpu
    if run["refused"] or not run["answered"]:
        raise BenchError("GET %s: %d refused of %d" % (path, run["refused"], run["answered"]))
    return {"per_s": run["per_s"], "cpu_us": cpu * 1e6 / run["answered"], "p50_us": run["p50"],
            "p99_us": run["p99"]}


def measure_get64(bench, form):
    side = bench.filled(form, 10_000)
    side.start()
    return _read(bench, side, "/api/soirees", side.write_ids(os.path.join(side.folder, "ids")))


def measure_list(bench, form):
    side = bench.filled(form, 100)
    side.start()
    return _read(bench, side, "/api/soirees")


# ---- the worker

def _links(side, count, timeout, look=lambda: None):
    """Follows the links until there are so many: [(time, links)], from the first that are seen. look() is
    called all the time."""
    began, seen = time.monotonic(), []
    while not seen or seen[-1][1] < count:
        linked = side.linked()
        if linked:
            seen.append((time.monotonic(), linked, cpu_s(side.worker.pid), cpu_s(side.soirees.pid)))
        if time.monotonic() > began + timeout:
            raise BenchError("%d of %d linked after %d s" % (linked, count, timeout))
        look()
        time.sleep(STEP_S)
    return seen[0], seen[-1]


def measure_drain(bench, form):
    api = bench.api(0)
    if form == "floor":
        figures = bench.floor(api, DRAIN_BOOKINGS)
        return {"per_s": DRAIN_BOOKINGS / figures["seconds"],
                "worker_us": figures["cpu_s"] * 1e6 / DRAIN_BOOKINGS, "soirees_us": 0, "left_over": 0}
    side = bench.side(form).start()
    side.book(DRAIN_BOOKINGS)
    bench.quiet()
    before = side.database_cost()
    side.start_worker(api.url, 16 if form == "peer x16" else 1)
    first, last = _links(side, DRAIN_BOOKINGS, 300)
    database = _database_cost(side, before, DRAIN_BOOKINGS)
    links = last[1] - first[1]
    time.sleep(1)  # what empties itself has a moment for it
    return {"per_s": links / (last[0] - first[0]), "worker_us": (last[2] - first[2]) * 1e6 / links,
            "soirees_us": (last[3] - first[3]) * 1e6 / links,
            "left_over": sum(side.left_over()) if form.startswith("ours") else 0, **database}


def measure_workers(workers, latency_s):
    def measure(bench, form):
        cycles = bench.cycles
        api, side = bench.api(latency_s * 1000), bench.side("ours").start()
        front, trust = api, {}
        if form == TLS:
            front = bench.tls_front(api)
            trust["LAGMASTER_CA_FILE"] = front.ca
        side.book(workers * cycles)
        bench.quiet()
        side.start_worker(front.url, workers, **trust)
        fds, began = [], time.monotonic()

        def look():
            """Twice while an answer is waited for."""
            if time.monotonic() - began > len(fds) * latency_s / 2:
                fds.append(len(os.listdir("/proc/%d/fd" % side.worker.pid)))
        _first, last = _links(side, workers * cycles, cycles * latency_s * 5 + 60, look)
        stats = Client(api.port).send("GET", "/stats")[1]
        took = last[0] - stats["first_us"] / 1e6
        rss, anonymous = memory(side.worker.pid)
        return {"per_s": workers * cycles / took, "share": 100 * cycles * latency_s / took, "rss": rss,
                "anonymous": anonymous, "fds": max(fds), "broker_rss": memory(bench.broker.node.pid)[0],
                "worker_us": last[2] * 1e6 / (workers * cycles),
                "calls": stats["calls"]}
    return measure


# ---- what a place must have room for

def _folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(path, name)) for path, _folders, names in os.walk(folder)
               for name in names)


def measure_capacity(bench, form):
    """So many bookings while no worker runs, then their playlists."""
    side, node = bench.side(form).start(), bench.broker
    empty, folder = side.used_bytes(side.soirees), os.path.join(node.folder, "mnesia")
    broker_disk, broker_rss = _folder_bytes(folder), memory(node.node.pid)[0]
    side.book(CAPACITY_BOOKINGS)
    figures = {"open": (side.used_bytes(side.soirees) - empty) / CAPACITY_BOOKINGS,
               "message": (_folder_bytes(folder) - broker_disk) / CAPACITY_BOOKINGS, "broker_rss": broker_rss,
               "broker_full_rss": memory(node.node.pid)[0]}
    side.start_worker(bench.api(0).url, CAPACITY_WORKERS)
    _links(side, CAPACITY_BOOKINGS, 300)
    wait_until(lambda: sum(side.left_over()) == 0, 60, "nothing is left over")
    figures["booking"] = (side.used_bytes(side.soirees) - empty) / CAPACITY_BOOKINGS
    figures["playlist"] = side.used_bytes(side.worker) / CAPACITY_BOOKINGS
    for name, program in (("soirees", side.soirees), ("worker", side.worker)):
        figures[name + "_wal"] = os.path.getsize(program.database + "-wal") / 2**20
    return figures


# ---- the process

def measure_memory(bench, form):
    api, side = bench.api(0), bench.side(form).start()
    side.start_worker(api.url)
    time.sleep(3)
    figures = {}

    def look(when):
        for program in ("soirees", "worker"):
            figures["%s_%s_rss" % (program, when)], figures["%s_%s_anonymous" % (program, when)] = \
                memory(getattr(side, program).pid)
    look("idle")
    wrk(side.soirees.url + "/api/soirees", POST_CONNECTIONS, bench.seconds, EXAMPLE)
    wrk(side.soirees.url + "/api/soirees?limit=100", POST_CONNECTIONS, bench.warm_s)
    side.wait_until_published()
    look("after")
    return figures


def _until_healthy(port, began):
    """Milliseconds since `began` until /health answers 200."""
    while time.monotonic() < began + 60:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as peer:
                peer.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if peer.recv(4096).startswith(b"HTTP/1.1 200 "):
                    return (time.monotonic() - began) * 1e3
        except OSError:
            pass
        time.sleep(0.0005)
    raise BenchError("no 200 on /health")


def measure_start(bench, form):
    if form == "ours, 1,000,000":
        side = bench.filled("ours", 1_000_000)
    else:
        side = bench.side(form)
    bench.quiet()
    began = time.monotonic()
    side.soirees.launch()
    return {"ms": _until_healthy(side.soirees.port, began)}


def _confirm_ours(bench):
    """Reads the daemon's log through a pipe: a confirm is known when its line arrives."""
    side = bench.side("ours", log_format="json")
    os.mkfifo(side.soirees.child.log_path)
    log = os.open(side.soirees.child.log_path, os.O_RDONLY | os.O_NONBLOCK)
    text = b""
    try:
        side.start()
        client, times = Client(side.soirees.port), []
        bench.quiet()
        for _ in range(bench.singles):
            began = time.monotonic()
            soiree_id = client.post("/api/soirees", EXAMPLE)["id"]
            answered = time.monotonic()
            confirmed = b'"event":"message.confirmed"'
            while not (confirmed in text and soiree_id.encode() in text):
                if not select.select([log], [], [], 10)[0]:
                    raise BenchError("no confirm within 10 s")
                text += os.read(log, 65536)
            now = time.monotonic()
            times.append((now - began, now - answered))
            text = b""
            time.sleep(0.02)
        return times
    finally:
        os.close(log)
        side.kill()


def measure_confirm(bench, form):
    """From the request on, which is more than from the commit on."""
    if form == "ours":
        times = _confirm_ours(bench)
    else:
        side, times = bench.side(form).start(), []
        client = Client(side.soirees.port)
        bench.quiet()
        for _ in range(bench.singles):
            began = time.monotonic()
            client.post("/api/soirees", EXAMPLE)
            times.append((time.monotonic() - began, 0.0))
            time.sleep(0.02)
    whole = sorted(time[0] for time in times)
    return {"p50_ms": statistics.median(whole) * 1e3, "p99_ms": whole[len(whole) * 99 // 100] * 1e3,
            "after_ms": statistics.median(time[1] for time in times) * 1e3}


# ---- growth

def _page_at(side, share):
    """The path of the page that so much of the list is before."""
    client, path, left = Client(side.soirees.port), "/api/soirees?limit=1000", side.rows() * share
    while left > 1000:
        client.connection.request("GET", path)
        reply = client.connection.getresponse()
        reply.read()
        path, left = reply.headers["Link"].partition(">")[0][1:], left - 1000
    return path.replace("limit=1000", "limit=100")


def measure_growth(bench, form):
    count = SIZES[form]
    side = bench.filled("ours", count) if count else bench.side("ours")
    per_booking = side.disk_bytes() / count if count else 0
    side.start()
    wrk(side.soirees.url + "/api/soirees", POST_CONNECTIONS, bench.warm_s, EXAMPLE)
    side.wait_until_published()
    bench.quiet()
    posts = _load(side, POST_CONNECTIONS, bench.seconds)
    gets = _read(bench, side, "/api/soirees", side.write_ids(os.path.join(side.folder, "ids")))
    pages = [_read(bench, side, _page_at(side, share), connections=8) for share in (0, 0.5, 0.99)]
    rss, anonymous = memory(side.soirees.pid)
    if not bench.bytes_per_booking.get(form):
        bench.bytes_per_booking[form] = per_booking
    return {"post_per_s": posts["per_s"], "post_p99_ms": posts["p99"] / 1e3, "post_us": posts["cpu_us"],
            "get_per_s": gets["per_s"], "get_us": gets["cpu_us"], "page_first": pages[0]["p50_us"],
            "page_middle": pages[1]["p50_us"], "page_last": pages[2]["p50_us"], "rss": rss,
            "anonymous": anonymous, "bytes": bench.bytes_per_booking[form]}


def spread(figure, forms=tuple(SIZES)):
    """The largest over the smallest among the forms."""
    return lambda m: max(m(form, figure) for form in forms) / min(m(form, figure) for form in forms)


def depth(m):
    return max(m(form, page) / m(form, "page_first")
               for form in SIZES for page in ("page_middle", "page_last"))


MEMORY = [("soirees", "soirées"), ("worker", "playlists")]

ROWS = [
    Row("post64", "POST /api/soirees, 64 connections, relay and broker running", ["ours", "peer"],
        {"per_s": ("answered/s", 0), "confirmed": ("confirmed/s until all are", 0),
         "backlog": ("backlog at the end", 0), "cpu_us": ("CPU µs a booking", 1), "p50_ms": ("p50 ms", 2),
         "p99_ms": ("p99 ms", 2), "rss": ("RSS MB", 1),
         "acknowledged": ("acknowledged", 0), "rows": ("rows after kill -9", 0), "lost": ("lost", 0)},
        measure_post64,
        [Check("throughput", ratio("per_s"), least=3, unit="×"),
         Check("confirmed by the broker", ratio("confirmed"), least=1.5, unit="×"),
         Check("CPU a booking", ratio("cpu_us"), most=1 / 3, unit="×"),
         Check("p99", ratio("p99_ms"), most=0.25, unit="×"),
         Check("acknowledged and lost", plain("ours", "lost"), most=0)]),
    Row("post64-pg", "the same over SQLite and over PostgreSQL", ["ours", PG],
        {"per_s": ("answered/s", 0), "confirmed": ("confirmed/s until all are", 0),
         "cpu_us": ("CPU µs a booking", 1), "database_us": ("CPU µs of the server, each", 1),
         "log_bytes": ("bytes of the server's log, each", 0), "p50_ms": ("p50 ms", 2),
         "p99_ms": ("p99 ms", 2),
         "acknowledged": ("acknowledged", 0), "rows": ("rows after kill -9", 0), "lost": ("lost", 0)},
        measure_post64,
        [Check("throughput over SQLite's", over_sqlite("per_s"), least=0.3, unit="×"),
         Check("acknowledged and lost", plain(PG, "lost"), most=0)]),
    Row("post1", "POST /api/soirees, 1 connection", ["ours", "peer"],
        {"p50_us": ("p50 µs", 0), "p99_us": ("p99 µs", 0), "per_s": ("answered/s", 0),
         "cpu_us": ("CPU µs a booking", 1)},
        measure_post1, [Check("p50", ratio("p50_us"), most=0.5, unit="×")]),
    Row("get64", "GET /api/soirees/{id}, 64 connections, 10,000 rows", ["ours", "peer"],
        {"per_s": ("answered/s", 0), "cpu_us": ("CPU µs a request", 2), "p99_us": ("p99 µs", 0)},
        measure_get64,
        [Check("throughput", ratio("per_s"), least=2.5, unit="×"),
         Check("CPU a request", ratio("cpu_us"), most=0.2, unit="×")]),
    Row("list100", "GET /api/soirees, a table of exactly 100, 64 connections", ["ours", "peer"],
        {"per_s": ("answered/s", 0), "cpu_us": ("CPU µs a request", 1), "p99_us": ("p99 µs", 0)},
        measure_list,
        [Check("throughput", ratio("per_s"), least=3, unit="×")]),
    Row("drain", "2,000 queued bookings until linked, 1 worker, API latency 0",
        ["ours", "peer", "peer x16", "floor"],
        {"per_s": ("playlists/s", 0), "worker_us": ("CPU µs of the worker, each", 0),
         "soirees_us": ("CPU µs of soirees, each", 0), "left_over": ("rows left in outbox and links", 0)},
        measure_drain,
        [Check("against prefetch 1 (as ours)", ratio("per_s"), least=2.5, unit="×"),
         Check("against its best (prefetch 16)", ratio("per_s", "peer x16"), least=2.5, unit="×"),
         Check("the floor over ours", lambda m: 1 / ratio("per_s", "floor")(m), most=1.4, unit="×"),
         Check("rows left over", plain("ours", "left_over"), most=0)]),
    Row("drain-pg", "the same over SQLite and over PostgreSQL", ["ours", PG],
        {"per_s": ("playlists/s", 0), "worker_us": ("CPU µs of the worker, each", 0),
         "soirees_us": ("CPU µs of soirees, each", 0), "database_us": ("CPU µs of the server, each", 1),
         "log_bytes": ("bytes of the server's log, each", 0),
         "left_over": ("rows left in outbox and links", 0)},
        measure_drain,
        [Check("throughput over SQLite's", over_sqlite("per_s"), least=0.3, unit="×"),
         Check("rows left over", plain(PG, "left_over"), most=0)]),
    Row("workers200", "200 workers, API latency 2 s", ["ours"],
        {"per_s": ("playlists/s, of 100", 1), "share": ("% of the ideal", 1), "rss": ("RSS MB", 1),
         "worker_us": ("CPU µs a playlist", 0), "fds": ("descriptors, at most", 0),
         "broker_rss": ("RabbitMQ's RSS MB", 0)},
        measure_workers(200, 2), [Check("of the ideal", plain("ours", "share"), least=95, unit=" %")]),
    Row("workers1000", "1,000 workers, API latency 5 s", ["ours", TLS],
        {"per_s": ("playlists/s, of 200", 1), "share": ("% of the ideal", 1), "rss": ("RSS MB", 1),
         "anonymous": ("anonymous MB", 1), "worker_us": ("CPU µs a playlist", 0),
         "fds": ("descriptors, at most", 0), "broker_rss": ("RabbitMQ's RSS MB", 0)},
        measure_workers(1000, 5),
        [Check("of the ideal", plain("ours", "share"), least=95, unit=" %"),
         Check("RSS", plain("ours", "rss"), most=64, unit=" MB")]),
    Row("capacity", "10,000 bookings, first without a worker, then with 100", ["ours"],
        {"open": ("bytes in soirees.db, each, waiting", 0), "booking": ("the same, finished", 0),
         "playlist": ("bytes in playlists.db, each", 0), "soirees_wal": ("WAL of soirees, MiB", 1),
         "worker_wal": ("WAL of playlists, MiB", 1), "message": ("RabbitMQ: bytes on disk, each", 0),
         "broker_rss": ("RabbitMQ's RSS MB, empty", 0), "broker_full_rss": ("with all of them waiting", 0)},
        measure_capacity, []),
    Row("memory", "memory, MB", ["ours", "peer"],
        {"%s_%s_%s" % (program, when, kind): ("%s %s, %s" % (name, when, kind), 1)
         for program, name in MEMORY for when in ("idle", "after") for kind in ("anonymous", "rss")},
        measure_memory,
        [Check("%s %s, %s" % (name, when, kind), plain("ours", "%s_%s_%s" % (program, when, kind)), most=most,
               unit=" MB")
         for program, name in MEMORY
         for when, kind, most in (("idle", "anonymous", 5), ("idle", "rss", 14), ("after", "anonymous", 20),
                                  ("after", "rss", 30))]),
    Row("start", "start to the first 200 on /health", ["ours", "peer", "ours, 1,000,000"],
        {"ms": ("ms", 1)}, measure_start,
        [Check("empty", plain("ours", "ms"), most=50, unit=" ms"),
         Check("1,000,000 bookings", plain("ours, 1,000,000", "ms"), most=200, unit=" ms")]),
    Row("confirm", "a booking to its confirm, idle system", ["ours", "peer"],
        {"p50_ms": ("p50 ms from the request", 2), "p99_ms": ("p99 ms", 2),
         "after_ms": ("p50 ms from the 201", 2)},
        measure_confirm, [Check("p50", plain("ours", "p50_ms"), most=5, unit=" ms")]),
    Row("growth", "the same with more bookings in the table (ours)", list(SIZES),
        {"post_per_s": ("POST answered/s", 0), "post_p99_ms": ("POST p99 ms", 2),
         "post_us": ("POST CPU µs", 1),
         "get_per_s": ("GET by id answered/s", 0), "get_us": ("GET by id CPU µs", 2),
         "page_first": ("first page of 100, p50 µs", 0), "page_middle": ("middle page", 0),
         "page_last": ("last page", 0),
         "rss": ("RSS MB", 1), "anonymous": ("anonymous MB", 1), "bytes": ("bytes on disk a booking", 0)},
        measure_growth,
        [Check("POST, most over least", spread("post_per_s"), most=1.3, unit="×"),
         Check("GET by id, most over least", spread("get_per_s"), most=1.3, unit="×"),
         Check("a deep page over the first", depth, most=1.3, unit="×"),
         Check("anonymous memory, 10,000 and more", spread("anonymous", ("10,000", "1,000,000")), most=1.3,
               unit="×")]),
]
SIDES = {"ours": Ours, PG: OursOverPostgres, "peer": Peer, "peer x16": Peer}
