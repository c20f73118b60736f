"""No hidden time bombs: long waits keep their connection, many bookings leave nothing behind.

By hand: SOAK_BOOKINGS=100000 SOAK_API_S=90 and a Release build in SOIREES_BIN_DIR."""

import concurrent.futures
import os

import pytest
import requests
from harness.booking import BOOKING, waiting
from harness.daemon import binary
from harness.wait import wait_until
from promise import Load, everything, read_database, wait_until_drained

BOOKINGS = int(os.environ.get("SOAK_BOOKINGS", "3000"))
API_S = float(os.environ.get("SOAK_API_S", "20"))
CLIENTS = 8
MIB = 1 << 20
WAL_SETTLED_BYTES = 17 * MIB  # a longer one is cut when there is nothing to do
FDS_SLACK = 4  # connections between the two daemons, and to the API, that happen to be open
pytestmark = pytest.mark.slow


# ---- long waits

def consumer_connections(vhost):
    return sorted({consumer["channel_details"]["connection_name"] for consumer in vhost.consumers()})


def test_200_slow_calls_keep_one_connection_and_one_delivery_each(make_stack):
    """A heartbeat of 2 s would end the connection of a worker that waits for its calls."""
    stack = make_stack(soirees={"RABBITMQ_HEARTBEAT": 2},
                       playlists={"RABBITMQ_HEARTBEAT": 2, "PLAYLIST_WORKERS": 200,
                                  "LAGMASTER_TIMEOUT_MS": int(API_S * 1000) + 60_000}).start()
    stack.consuming(workers=200)
    wait_until(lambda: len(stack.vhost.consumers()) == 200, 60, "all consumers in the management API")
    before = consumer_connections(stack.vhost)
    assert len(before) == 1
    stack.lagmaster.control(latency_ms=API_S * 1000)
    load = Load(stack.soirees.url, threads=4, most=200).start().join()
    waiting(stack.lagmaster, 200)
    wait_until(lambda: all(s["playlistId"] for s in everything(stack.soirees)), API_S + 60, "all are linked")
    assert load.count == 200 and stack.lagmaster.count == 200
    assert consumer_connections(stack.vhost) == before
    wait_until(lambda: stack.vhost.counters().get("ack") == 200, 30, "all are acked", interval=0.5)
    counters = stack.vhost.counters()
    assert counters["deliver"] == 200 and counters.get("redeliver", 0) == 0


# ---- many bookings

class Footprint:
    """What a daemon takes: descriptors, threads, WAL, resident memory."""

    def __init__(self, daemon):
        proc = "/proc/%d/" % daemon.pid
        with open(proc + "status") as file:
            status = dict(line.split(":", 1) for line in file)
        self.name = daemon.name
        self.rss = int(status["VmRSS"].split()[0]) * 1024
        self.threads = int(status["Threads"])
        self.fds = len(os.listdir(proc + "fd"))
        wal = daemon.database + "-wal"
        self.wal = os.path.getsize(wal) if os.path.exists(wal) else 0

    def __str__(self):
        return "%s: %.1f MiB, %d fds, %d threads, WAL %.1f MiB" % (
            self.name, self.rss / MIB, self.fds, self.threads, self.wal / MIB)


def sanitized():
    """AddressSanitizer keeps freed memory for a while: its figures say nothing."""
    with open(binary("soirees"), "rb") as file:
        return b"__asan_init" in file.read()


def book_many(stack, number):
    """That many bookings by eight clients, all with their playlists in the end."""
    def client(share):
        with requests.Session() as session:
            for _ in range(share):
                reply = session.post(stack.soirees.url + "/api/soirees", json=BOOKING, timeout=60)
                assert reply.status_code == 201, reply.text
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, [number // CLIENTS] * CLIENTS))
    wait_until_drained(stack, timeout=60 + number / 20)


def settled(stack):
    """The footprints when the last clients' descriptors are closed and a WAL that grew is cut."""
    def small():
        return all(Footprint(daemon).wal <= WAL_SETTLED_BYTES for daemon in (stack.soirees, stack.playlists))
    wait_until(small, 60, "the WALs are cut")
    return [Footprint(daemon) for daemon in (stack.soirees, stack.playlists)]


def test_many_bookings_leave_the_daemons_as_they_were_after_the_first(make_stack):
    first = min(BOOKINGS // 3, 10_000)
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 20}).start()
    book_many(stack, first)
    early = settled(stack)
    book_many(stack, BOOKINGS - first)
    for daemon, before in zip((stack.soirees, stack.playlists), early):  # idle connections live for 30 s
        wait_until(lambda: Footprint(daemon).fds <= before.fds + FDS_SLACK, 60, "as few descriptors as before")
    late = settled(stack)
    print(*early, *late, sep="\n")
    assert read_database(stack.playlists.database, "SELECT count(*) FROM playlists")[0][0] >= BOOKINGS - CLIENTS * 2
    for before, after in zip(early, late):
        told = "%s; then %s" % (before, after)
        assert after.threads <= before.threads, told
        assert after.wal <= max(before.wal, WAL_SETTLED_BYTES), told
        assert sanitized() or after.rss <= before.rss * 1.1 + 2 * MIB, told
