"""What a request costs the service, counted: no times, so that a busy machine does not matter. When one of
these fails, something on the way of every request has grown: docs/performance.md says where to look."""

import json
import os

import pytest

from harness import costs
from harness.booking import BOOKING, waiting
from harness.metrics import scrape, value
from harness.wait import wait_until
from promise import read_database

HERE = os.path.dirname(os.path.abspath(__file__))
TOGETHER = 64
BOOKINGS, READS = 2048, 4096
ALONE = 200
FEW = 640  # under callgrind
PLAYLISTS = 200
# What a playlist costs however fast the API answers; how often a thread polls depends on that.
STEADY = ("fcntl", "fdatasync", "pread64", "pwrite64", "sendmsg", "sendto", "statfs", "write")

pytestmark = pytest.mark.slow


@pytest.fixture
def budget():
    return costs.Budget(os.path.join(HERE, "budget.json"))


@pytest.fixture
def soirees_at_work(built, vhost, daemons, monkeypatch):
    """at_work(tool): a soirees daemon that publishes, to be counted by strace or callgrind."""
    def at_work(tool="strace", wrapper=""):
        reason = costs.missing(tool)
        if reason:
            pytest.skip(reason)
        monkeypatch.setenv("DAEMON_WRAPPER", wrapper)
        daemon = daemons.start("soirees", {**vhost.settings(), "HTTP_THREADS": 2})
        wait_until(lambda: daemon.health()["components"]["rabbitmq"]["state"] == "connected", 60, "RabbitMQ")
        return daemon
    return at_work


def published(daemon):
    wait_until(lambda: 'soirees_outbox_rows{state="unsent"} 0\n' in daemon.get("/metrics").text, 60,
               "the broker has confirmed all messages")


def load(daemon, connections, requests, status):
    """Sends the requests; returns the answers' bodies."""
    peers = costs.Connections(daemon.port, connections)
    try:
        return peers.run(requests, status)
    finally:
        peers.close()


def book(daemon, connections, count):
    """Bookings, until their messages are confirmed; returns the answers."""
    answers = load(daemon, connections, [costs.request("POST", "/api/soirees", BOOKING)] * count, 201)
    published(daemon)
    return answers


def count_calls(daemon, work, times):
    with costs.Calls(daemon.pid) as calls:
        work()
    return costs.apiece(calls.counts, times)


# On one connection how much of a commit several bookings share depends on the machine's speed, and whether a
# connection is suspended before its answer is there: that budget is what a slow and busy one needs.
@pytest.mark.parametrize("connections, count", [(TOGETHER, BOOKINGS), (1, ALONE)])
def test_a_booking_makes_no_more_system_calls_than_its_budget(soirees_at_work, budget, connections, count):
    daemon = soirees_at_work()
    book(daemon, connections, connections * 4)
    budget.judge("POST, connections: %d" % connections,
                 count_calls(daemon, lambda: book(daemon, connections, count), count))


def test_reading_a_booking_makes_no_more_system_calls_than_its_budget(soirees_at_work, budget):
    daemon = soirees_at_work()
    ids = [json.loads(answer)["id"] for answer in book(daemon, TOGETHER, 4 * TOGETHER)]
    requests = [costs.request("GET", "/api/soirees/" + ids[n % len(ids)]) for n in range(READS)]
    budget.judge("GET, connections: %d" % TOGETHER,
                 count_calls(daemon, lambda: load(daemon, TOGETHER, requests, 200), READS))


def test_requests_take_no_more_instructions_than_their_budget(soirees_at_work, budget, tmp_path):
    out = tmp_path / "callgrind"
    daemon = soirees_at_work("valgrind", costs.CALLGRIND % out)
    ids = [json.loads(answer)["id"] for answer in book(daemon, TOGETHER, 4 * TOGETHER)]
    with costs.Instructions(daemon.pid, out) as posts:
        book(daemon, TOGETHER, FEW)
    requests = [costs.request("GET", "/api/soirees/" + ids[n % len(ids)]) for n in range(FEW)]
    with costs.Instructions(daemon.pid, out) as gets:
        load(daemon, TOGETHER, requests, 200)
    budget.judge("POST, instructions", {"all": posts.count // FEW})
    budget.judge("GET, instructions", {"all": gets.count // FEW})


def transactions(daemon):
    return value(scrape(daemon), "database_commits_total", outcome="ok")


def test_a_playlist_costs_both_services_no_more_than_its_budget(built, make_stack, budget):
    """One worker, one message after the other, from the queue to the ack."""
    reason = costs.missing()
    if reason:
        pytest.skip(reason)
    stack = make_stack()
    stack.soirees.start()
    for _ in range(PLAYLISTS):
        stack.book()
    published(stack.soirees)
    stack.lagmaster.control(mode="hang")
    stack.playlists.start()
    waiting(stack.lagmaster)
    daemons = {"in playlists": stack.playlists, "in soirees": stack.soirees}
    before = {where: transactions(daemon) for where, daemon in daemons.items()}
    with costs.Calls(stack.playlists.pid) as worker, costs.Calls(stack.soirees.pid) as patches:
        stack.lagmaster.control(mode="ok")
        stack.lagmaster.release()
        stack.drained()
        wait_until(lambda: read_database(stack.playlists.database, "SELECT * FROM links") == [], 60,
                   "the last link's end is written")
    for (where, daemon), calls in zip(daemons.items(), (worker, patches)):
        each = costs.apiece({name: calls.counts.get(name, 0) for name in STEADY}, PLAYLISTS)
        each["transactions"] = round((transactions(daemon) - before[where]) / PLAYLISTS, 2)
        budget.judge("a playlist, " + where, each)
