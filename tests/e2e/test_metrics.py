"""GET /metrics and GET /ready: what the daemons count, as Prometheus reads it, and whether it is true."""

import os
import re
import sqlite3

import pytest
from harness import metrics
from harness.booking import book, booking, made_for, message
from harness.consul import ROOT
from harness.metrics import scrape, value
from harness.wait import free_port, wait_until


def outbox(daemon):
    """(unsent, open) rows, as stored."""
    connection = sqlite3.connect("file:%s?mode=ro" % daemon.database, uri=True, timeout=30)
    try:
        return tuple(connection.execute("SELECT count(*) FROM outbox WHERE again_ms IS %s NULL" % word)
                     .fetchone()[0] for word in ("", "NOT"))
    finally:
        connection.close()


def outbox_shown(daemon):
    samples = scrape(daemon)
    return tuple(value(samples, "soirees_outbox_rows", state=state) for state in ("unsent", "open"))


def passes_promtool(daemon):
    status, printed = metrics.promtool("check", "metrics", text=daemon.get("/metrics").text)
    assert (status, printed) == (0, "")


# ---- what one booking leaves

@pytest.mark.threads
def test_a_booking_is_counted_at_every_step(stack):
    made = stack.book()
    stack.linked(made["id"])
    stack.drained()
    wait_until(lambda: value(scrape(stack.playlists), "playlists_links_pending") == 0, 60, "no pending link")
    soirees, playlists = scrape(stack.soirees), scrape(stack.playlists)
    for samples, name, labels in (
            (soirees, "http_requests_total", {"route": "/api/soirees", "method": "POST", "status": "201"}),
            (soirees, "http_requests_total",
             {"route": "/api/soirees/{id}", "method": "PATCH", "status": "200"}),
            (soirees, "http_request_duration_seconds_count", {"route": "/api/soirees", "method": "POST"}),
            (soirees, "soirees_publishes_total", {"outcome": "confirmed"}),
            (soirees, "soirees_commit_to_confirm_seconds_count", {}),
            (soirees, "amqp_state", {"state": "connected"}),
            (soirees, "amqp_connections_total", {"event": "made"}),
            (playlists, "amqp_state", {"state": "consuming"}),
            (playlists, "playlists_deliveries_total", {"outcome": "acked"}),
            (playlists, "playlists_delivery_duration_seconds_count", {}),
            (playlists, "playlists_lagmaster_attempt_duration_seconds_count", {"outcome": "ok"}),
            (playlists, "playlists_created_total", {"origine": "lagmaster-pro"}),
            (playlists, "playlists_link_tries_total", {"outcome": "delivered"}),
            (playlists, "playlists_workers", {})):
        assert value(samples, name, **labels) == 1, (name, labels)
    assert outbox_shown(stack.soirees) == (0, 0)
    assert value(soirees, "soirees_outbox_oldest_unsent_seconds") == 0
    assert value(playlists, "playlists_workers_busy") == 0
    for samples in (soirees, playlists):
        commits = value(samples, "database_commits_total", outcome="ok")
        assert value(samples, "database_commit_jobs_sum") >= commits > 0


def test_failures_of_the_api_and_dead_letters_are_counted_by_outcome(worker, lagmaster, vhost):
    playlists = worker(LAGMASTER_MAX_ATTEMPTS=1)
    lagmaster.control(mode="error500")
    vhost.publish(message("s1"))
    made_for(playlists, "s1")
    vhost.publish(b"not json")

    def counted():
        samples = scrape(playlists)
        return value(samples, "playlists_deliveries_total", outcome="dead") == 1 and samples
    samples = wait_until(counted, 60, "the dead letter is counted")
    assert value(samples, "playlists_lagmaster_attempt_duration_seconds_count", outcome="status") == 1
    assert value(samples, "playlists_created_total", origine="defaut") == 1
    wait_until(lambda: value(scrape(playlists), "playlists_link_tries_total", outcome="pending") >= 1, 60,
               "a link that nobody takes")
    samples = scrape(playlists)
    assert value(samples, "playlists_links_pending") == 1
    assert value(samples, "playlists_links_oldest_pending_seconds") > 0
    playlists.restart()
    assert value(scrape(playlists), "playlists_links_pending") == 1  # counted anew
    playlists.delete("/api/playlists/" + made_for(playlists, "s1")["id"])
    assert value(scrape(playlists), "playlists_links_pending") == 0


# ---- true whatever happens

@pytest.mark.sqlite
def test_the_outbox_is_counted_as_it_is_stored(soirees):
    def agrees():
        assert outbox_shown(soirees) == outbox(soirees)
    before = outbox(soirees)
    kept = [book(soirees)["id"] for _ in range(5)]
    book(soirees, playlistId="mine")
    agrees()
    assert outbox(soirees)[0] == before[0] + 5
    soirees.patch("/api/soirees/" + kept[0], {"styleMusical": "techno"})
    soirees.patch("/api/soirees/" + kept[1], {"playlistId": "mine"})
    soirees.patch("/api/soirees/" + kept[1], {"playlistId": None})
    soirees.patch("/api/soirees/" + kept[2], {"playlistId": "mine"})
    soirees.delete("/api/soirees/" + kept[3])
    soirees.delete("/api/soirees/" + kept[3])
    agrees()
    assert outbox(soirees)[0] == before[0] + 3
    assert value(scrape(soirees), "soirees_outbox_oldest_unsent_seconds") > 0


@pytest.mark.sqlite
def test_the_outbox_is_counted_as_it_is_stored_when_messages_are_confirmed(vhost, daemons):
    soirees = daemons.start("soirees", vhost.settings())
    made = [book(soirees)["id"] for _ in range(4)]
    wait_until(lambda: outbox(soirees) == (0, 4), 60, "all are confirmed")
    assert outbox_shown(soirees) == (0, 4)
    soirees.patch("/api/soirees/" + made[0], {"playlistId": "mine"})
    soirees.delete("/api/soirees/" + made[1])
    assert outbox_shown(soirees) == outbox(soirees) == (0, 2)
    soirees.restart()
    assert outbox_shown(soirees) == (0, 2)


def test_what_clients_send_makes_no_new_series(soirees):
    for number in range(30):
        soirees.get("/api/nothing-%d" % number)
        soirees.get("/api/soirees/%d" % number)
        soirees.request("X%d" % number, "/api/soirees")
    routes = {dict(key)["route"] for key in scrape(soirees)["http_requests_total"]}
    assert routes <= {"/api/soirees", "/api/soirees/{id}", "/health", "/ready", "/metrics", "/openapi.json",
                      "/docs", "other"}
    samples = scrape(soirees)
    assert value(samples, "http_requests_total", route="other", method="GET", status="404") == 30
    assert value(samples, "http_requests_total", route="/api/soirees/{id}", method="GET", status="404") == 30
    assert value(samples, "http_requests_total", route="/api/soirees", method="other", status="405") == 30


def test_the_process_is_shown_under_the_standard_names(soirees):
    before, after = scrape(soirees), scrape(soirees)
    pid = soirees.pid
    with open("/proc/%d/statm" % pid) as file:
        pages = int(file.read().split()[1])
    assert value(after, "process_resident_memory_bytes") == pytest.approx(pages * 4096, rel=0.2)
    assert value(after, "process_cpu_seconds_total") > value(before, "process_cpu_seconds_total") > 0
    assert value(after, "process_open_fds") > 5
    assert value(after, "process_start_time_seconds") == value(before, "process_start_time_seconds") > 1e9
    assert list(after["soirees_build_info"].values()) == [1]


def test_an_unreachable_broker_is_seen(daemons):
    playlists = daemons.start("playlists", RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=free_port(),
                              CONSUL_HOST="127.0.0.1", CONSUL_PORT=free_port())

    def failing():
        samples = scrape(playlists)
        return (value(samples, "amqp_connections_total", event="failed") > 0
                and value(samples, "consul_failures_total", call="watch") > 0
                and value(samples, "consul_state", state="unreachable") == 1)
    wait_until(failing, 60, "the failures are counted")
    assert value(scrape(playlists), "amqp_state", state="disconnected") == 1


# ---- as Prometheus reads it

@pytest.mark.skipif(metrics.missing() is not None, reason=str(metrics.missing()))
def test_promtool_has_nothing_against_either(stack):
    stack.linked(stack.book()["id"])
    stack.soirees.get("/nope")
    passes_promtool(stack.soirees)
    passes_promtool(stack.playlists)


def test_the_readme_names_every_metric_and_no_other(soirees, playlists):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        table = file.read().partition("#### Metrics")[2].partition("####")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
             for name in re.findall(r"`([a-z_]+)`", row)}
    shown = {name for daemon in (soirees, playlists)
             for name in re.findall(r"^# TYPE (\w+) ", daemon.get("/metrics").text, re.MULTILINE)}
    assert {name for name in shown if not name.startswith("process_")} == named


def test_they_come_compressed_to_who_takes_that(soirees):
    reply = soirees.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["Content-Encoding"] == "gzip" and metrics.read(reply.text)["process_open_fds"]


# ---- /ready

def test_ready_is_green_without_neighbours_and_says_since_when(soirees, playlists):
    for daemon, broker in ((soirees, "rabbitmq"), (playlists, "worker")):
        reply = daemon.get("/ready")
        assert (reply.status_code, reply.json()["status"]) == (200, "ready")
        parts = reply.json()["components"]
        assert parts[broker]["state"] == "disconnected"
        assert parts == daemon.get("/health").json()["components"] == daemon.get("/ready").json()["components"]


def test_since_is_when_a_state_began(own_broker, daemons):
    own_broker.start()
    soirees = daemons.start("soirees", own_broker.root().settings())

    def state():
        part = soirees.get("/ready").json()["components"]["rabbitmq"]
        return part["state"], part["since"]
    wait_until(lambda: state()[0] == "connected", 60, "connected")
    connected = state()
    assert state() == connected
    own_broker.kill()
    wait_until(lambda: state()[0] == "disconnected", 60, "disconnected")
    assert state()[1] > connected[1]


@pytest.mark.sqlite
def test_a_locked_database_makes_it_red_until_it_is_free(daemons):
    """Somebody else holds the lock: no booking is stored."""
    soirees = daemons.start("soirees", RABBITMQ_PORT=free_port())
    holder = sqlite3.connect(soirees.database, timeout=30, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    reply = soirees.post("/api/soirees", booking())
    assert reply.status_code == 503
    red = wait_until(lambda: soirees.get("/ready").status_code == 503 and soirees.get("/ready").json(), 60,
                     "red")
    assert red["status"] == "unready" and red["components"]["database"]["state"] == "failing"
    assert value(scrape(soirees), "database_writable") == 0
    holder.execute("ROLLBACK")
    wait_until(lambda: soirees.get("/ready").status_code == 200, 60, "green again")
    green = soirees.get("/ready").json()["components"]["database"]
    assert green["since"] > red["components"]["database"]["since"]
    holder.close()
    log = soirees.log()
    assert log.count("❌ Base de données indisponible : SQLite: database is locked") == 1
    assert log.count("✅ Base de données disponible") == 1
    assert log.index("indisponible") < log.index("✅ Base de données disponible")
