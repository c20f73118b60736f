"""PostgreSQL instead of SQLite: several instances on one database, a server that goes and comes back, the ways to
reach one."""

import os
import re
import threading

import pytest
import requests

from harness import postgres, tls
from harness.booking import book, booking, made_for, message, playlists_of, request_properties
from harness.broker import QUEUE
from harness.consul import ROOT
from harness.daemon import run
from harness.wait import free_port, holds_for, wait_until
from promise import Load, check_one_playlist_each, wait_for_links, wait_until_drained
from sabotage import ConfirmProxy

pytestmark = pytest.mark.skipif(bool(postgres.missing()), reason=str(postgres.missing()))

SOON_S = 60


def offline(program):
    """Settings of a daemon with no broker and no API in reach."""
    settings = {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port()}
    return {**settings, "LAGMASTER_URL": "http://127.0.0.1:%d/" % free_port()} if program == "playlists" else settings


def database(daemon):
    """The database's part of /health."""
    return daemon.get("/health").json()["components"]["database"]


def connected(daemon):
    wait_until(lambda: database(daemon)["state"] == "ok", SOON_S, "%s has its database" % daemon.name, interval=0.2)
    return daemon


@pytest.fixture
def url():
    """An empty database of the server that the tests share."""
    return postgres.new_database()


@pytest.fixture
def own_server():
    """own_server(config="...", access="..."): a server of the test's own, durable, not started yet."""
    made = []

    def make(**options):
        made.append(postgres.Postgres(fsync=True, **options))
        return made[-1]
    yield make
    for server in made:
        server.close()


class Pair:
    """Two instances of each daemon on one database, as a Stack's tests want them."""

    def __init__(self, make_stack, url, **playlists):
        shared = {"DATABASE_URL": url}
        self.first = make_stack(soirees=shared, playlists={**shared, "PLAYLIST_WORKERS": 3, **playlists})
        self.second = make_stack(soirees=shared, vhost=self.first.vhost, playlists={
            **shared, "PLAYLIST_WORKERS": 3, "SOIREES_URL": self.first.soirees.url, **playlists})
        self.all = [self.first.soirees, self.second.soirees, self.first.playlists, self.second.playlists]

    def start(self):
        for daemon in self.all:  # all at once: one of them makes the tables
            daemon.launch()
        for daemon in self.all:
            connected(daemon)
        return self


# ---- several instances

def test_two_instances_of_each_on_one_database_lose_and_double_nothing_when_one_is_killed(make_stack, url):
    pair = Pair(make_stack, url).start()
    loads = [Load(pair.first.soirees.url, threads=2, name="first").start(),
             Load(pair.second.soirees.url, threads=2, name="second").start()]
    for load in loads:
        load.reached(30)
    pair.second.soirees.kill()
    pair.second.playlists.kill()
    loads[0].reached(80)
    pair.second.soirees.launch()
    pair.second.playlists.launch()
    for load in loads:
        load.finish(100)
    booked = [soiree for load in loads for soiree in load.acknowledged.values()]
    wait_for_links(pair.first, booked)
    wait_until_drained(pair.first)
    check_one_playlist_each(pair.first, booked)


def test_what_a_killed_instance_wrote_and_held_is_published_by_the_other_one(make_stack, url, daemons, vhost):
    settings = {**vhost.settings(), "DATABASE_URL": url}
    away = daemons.start("soirees", {**settings, "RABBITMQ_PORT": free_port()})
    connected(away)
    wanted = {book(away)["id"] for _ in range(20)}
    away.kill()
    # as if it had taken them just before its end: their leases are over in a few seconds
    postgres.query(url, "UPDATE soirees.outbox SET owner = '0190a0b0-0000-7000-8000-000000000000',"
                        " leased_until = now() + interval '4 seconds'")
    other = connected(daemons.start("soirees", settings))
    assert {message.json()["soireeId"] for message in vhost.take(count=20)} == wanted
    assert other.running


def test_a_lease_of_a_clock_that_was_put_back_is_over(daemons, url, vhost):
    """The database has moved to a server whose clock is behind: what a dead instance held is not held for hours."""
    settings = {**vhost.settings(), "DATABASE_URL": url}
    away = daemons.start("soirees", {**settings, "RABBITMQ_PORT": free_port()})
    connected(away)
    wanted = {book(away)["id"] for _ in range(3)}
    away.kill()
    postgres.query(url, "UPDATE soirees.outbox SET owner = '0190a0b0-0000-7000-8000-000000000000',"
                        " leased_until = now() + interval '2 hours'")
    connected(daemons.start("soirees", settings))
    assert {message.json()["soireeId"] for message in vhost.take(count=3)} == wanted


@pytest.mark.slow
def test_what_an_instance_holds_is_its_own_until_it_stops(daemons, url, vhost):
    """The broker's confirms do not come: for longer than a lease lasts nobody else sends its messages."""
    settings = {**vhost.settings(), "DATABASE_URL": url}
    with ConfirmProxy(vhost.broker.port, lambda message_id: "lose") as proxy:
        holder = connected(daemons.start("soirees", {**settings, "RABBITMQ_PORT": proxy.port}))
        for _ in range(5):
            book(holder)
        wait_until(lambda: len(proxy.published) == 5, SOON_S, "they are sent")
        connected(daemons.start("soirees", settings))
        holds_for(lambda: vhost.depth()[0] == 5, 36, "nobody sends them again", interval=1)
        holder.stop()
        wait_until(lambda: vhost.depth()[0] == 10, 20, "the other one sends them, well before a lease ends")
    assert len({message.properties.message_id for message in vhost.take(count=10)}) == 5


def test_no_message_is_published_by_two_relays(daemons, url, vhost):
    both = [connected(daemons.start("soirees", {**vhost.settings(), "DATABASE_URL": url, "LOG_FORMAT": "json"}))
            for _ in range(2)]
    loads = [Load(daemon.url, threads=3, most=150, name=daemon.name).start() for daemon in both]
    for load in loads:
        load.join()
    wanted = {soiree["id"] for load in loads for soiree in load.acknowledged.values()}
    assert len(wanted) == 300
    wait_until(lambda: postgres.query(url, "SELECT count(*) FROM soirees.outbox WHERE again_at IS NULL") == [(0,)],
               SOON_S, "every message is confirmed")
    assert vhost.depth(QUEUE)[0] == 300
    taken = vhost.take(count=300)
    assert {message.json()["soireeId"] for message in taken} == wanted
    assert len({message.properties.message_id for message in taken}) == 300


def test_a_message_without_an_id_is_satisfied_by_what_another_instance_saved_meanwhile(worker, url, vhost, lagmaster):
    lagmaster.control(by_style={"slow": {"mode": "hang"}})
    first = worker(DATABASE_URL=url)
    vhost.publish(message("s-1", style="slow"))
    wait_until(lambda: lagmaster.count == 1, SOON_S, "the first one waits for the API")
    second = worker(DATABASE_URL=url)
    vhost.publish(message("s-1", style="fast"), request_properties("0190a0b0-0000-7000-8000-000000000001"))
    made = made_for(second, "s-1")
    lagmaster.control(mode="ok")
    lagmaster.release()
    wait_until(vhost.drained, SOON_S, "both messages are acknowledged")
    assert [playlist["id"] for playlist in playlists_of(first, "s-1")] == [made["id"]]


def test_a_key_raced_at_two_instances_makes_one_booking(daemons, url):
    both = [connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": url})) for _ in range(2)]
    for number in range(15):
        replies, barrier = [], threading.Barrier(6)

        def post(daemon):
            barrier.wait(30)
            replies.append(requests.post(daemon.url + "/api/soirees", json=booking(), timeout=30,
                                         headers={"Idempotency-Key": "race-%d" % number}))
        threads = [threading.Thread(target=post, args=(both[i % 2],)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [reply.status_code for reply in replies] == [201] * 6
        assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(both[0].get("/api/soirees").json()) == 15
    assert postgres.query(url, "SELECT count(*) FROM soirees.outbox") == [(15,)]


def test_changes_of_one_booking_at_two_instances_all_count(daemons, url):
    """Versions would be lost where two transactions read the same one."""
    both = [connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": url})) for _ in range(2)]
    made = book(both[0])

    def change(daemon, first):
        for number in range(first, first + 40, 2):
            reply = requests.patch("%s/api/soirees/%s" % (daemon.url, made["id"]), timeout=30,
                                   json={"nombreInvites": 1000 + number})
            assert reply.status_code == 200, reply.text
    threads = [threading.Thread(target=change, args=(both[i], i)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert both[0].get("/api/soirees/" + made["id"]).headers["ETag"] == '"41"'


def test_a_row_that_somebody_holds_fails_its_own_write_alone(daemons, url):
    """An operator's open transaction, say: no write waits for it for ever, and those behind it go on."""
    daemon = connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": url}))
    held, free = book(daemon), book(daemon)
    holder = threading.Thread(target=postgres.query, args=(url, (
        "BEGIN; SELECT 1 FROM soirees.soirees WHERE id = '%s' FOR UPDATE; SELECT pg_sleep(8); ROLLBACK;" % held["id"])))
    holder.start()
    wait_until(lambda: postgres.query(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(8)%'"
                                           " AND wait_event = 'PgSleep'"), SOON_S, "the row is held")
    replies = {}

    def change(soiree):
        replies[soiree["id"]] = requests.patch("%s/api/soirees/%s" % (daemon.url, soiree["id"]), timeout=30,
                                               json={"nombreInvites": 77}).status_code
    threads = [threading.Thread(target=change, args=(soiree,)) for soiree in (held, free)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert replies == {held["id"]: 503, free["id"]: 200}
    holder.join(60)
    change(held)
    assert replies[held["id"]] == 200


# ---- a server that goes and comes back

@pytest.mark.slow
def test_bookings_acknowledged_before_the_server_crashed_are_there_and_the_daemons_come_back(make_stack, own_server):
    server = own_server().start()
    shared = {"DATABASE_URL": server.create("bookings")}
    stack = make_stack(soirees=shared, playlists={**shared, "PLAYLIST_WORKERS": 3}).start()
    connected(stack.soirees), connected(stack.playlists)
    load = Load(stack.soirees.url, threads=3).start()
    for count in (40, 80):
        load.reached(count)
        server.stop("immediate")
        wait_until(lambda: database(stack.soirees)["state"] == "failing", SOON_S, "the loss shows")
        server.start()
    load.finish(120)
    wait_for_links(stack, load.acknowledged.values())
    wait_until_drained(stack)
    check_one_playlist_each(stack, load.acknowledged.values())
    assert stack.soirees.log_has("✅ Base de données disponible")


@pytest.mark.parametrize("program", ["soirees", "playlists"])
def test_the_readme_says_which_metrics_are_one_engine_s_own(program, daemons, url):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    daemon = connected(daemons.start(program, offline(program), DATABASE_URL=url))
    shown = set(re.findall(r"^# TYPE (database_\w+) ", daemon.get("/metrics").text, re.MULTILINE))
    rows = re.findall(r"^\| (`database_[^|]*)\|[^|]*\|(.*)\|$", text.partition("#### Metrics")[2], re.MULTILINE)
    shared = {name for names, means in rows if "SQLite's" not in means for name in re.findall(r"database_\w+", names)}
    own = re.search(r"^\| `/metrics` \|.*\|$", text, re.MULTILINE).group()
    assert len(shared) < len([name for names, _means in rows for name in re.findall(r"database_\w+", names)])
    assert shown == shared | set(re.findall(r"database_\w+", own))


@pytest.mark.parametrize("program", ["soirees", "playlists"])
def test_without_its_server_a_daemon_runs_and_says_503(program, daemons, own_server):
    server = own_server()
    daemon = daemons.new(program, {**offline(program), "DATABASE_URL": server.url("later")}).launch()
    wait_until(lambda: daemon.get("/health").status_code == 503, SOON_S, "it answers")
    wait_until(lambda: "Connection refused" in database(daemon)["detail"], SOON_S, "the reason")
    path = "/api/" + program
    for reply in (daemon.get(path), daemon.get(path + "/x"), daemon.delete(path + "/x")):
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) > 0
    server.start()
    server.create("later")
    assert connected(daemon).get(path).json() == []
    assert daemon.get("/health").status_code == 200


def test_a_frozen_server_fails_writes_in_time_and_is_used_again(daemons, own_server):
    """It neither answers nor closes: only a deadline of our own helps."""
    server = own_server().start()
    daemon = connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": server.create("frozen")}))
    book(daemon)
    pids = [pid for (pid,) in server.sql("postgres", "SELECT pid FROM pg_stat_activity"
                                                     " WHERE application_name = 'soirees'")]
    assert pids
    for pid in pids:
        os.kill(pid, 19)
    try:
        reply = daemon.post("/api/soirees", booking(), timeout=60)
        assert reply.status_code == 503
        connected(daemon)  # over new connections
        book(daemon)
    finally:
        for pid in pids:
            os.kill(pid, 18)


def test_a_server_that_is_only_read_from_is_left_for_the_one_that_can_write(daemons, own_server):
    """As after a failover: the old primary takes no writes any more."""
    old, new = own_server().start(), own_server().start()
    old.create("moved"), new.create("moved")
    daemon = connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": old.url(
        "moved", host="127.0.0.1:%d,127.0.0.1:%d" % (old.port, new.port))}))
    first = book(daemon)
    old.sql("postgres", "ALTER DATABASE moved SET default_transaction_read_only = on")
    old.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'moved'")
    wait_until(lambda: daemon.get("/api/soirees/" + first["id"]).status_code == 404, SOON_S, "the other server's")
    connected(daemon)
    assert book(daemon)["id"] != first["id"]
    assert new.sql("moved", "SELECT count(*) FROM soirees.soirees") == [(1,)]


# ---- the ways to reach one

def test_a_wrong_password_is_a_clear_reason_that_does_not_show_it(daemons, url):
    wrong = url.replace(postgres.quote(postgres.PASSWORD), "tiefgeheim")
    daemon = daemons.new("soirees", {**offline("soirees"), "DATABASE_URL": wrong}).launch()
    wait_until(lambda: "password authentication failed" in database(daemon).get("detail", ""), SOON_S, "the reason")
    assert daemon.post("/api/soirees", booking()).status_code == 503
    for text in (daemon.log(), daemon.get("/health").text, daemon.post("/api/soirees", booking()).text):
        assert "tiefgeheim" not in text and postgres.PASSWORD not in text
    shown = run("soirees", "--print-config", DATABASE_URL=wrong).stdout
    assert "DATABASE_URL=***" in shown and "tiefgeheim" not in shown


@pytest.mark.parametrize("value, reason", [
    ("mysql://soirees:tiefgeheim@db/x", "postgresql://"),
    ("postgresql://soirees:tief@geheim@db/x", "percent-encoded"),
    ("postgresql://soirees:tief/geheim@db/x", "percent-encoded"),
    ("postgresql://soirees:tiefgeheim%zz@db/x", "percent"),
    ("postgresql://soirees:tiefgeheim@db/x?sslmodus=1", "query parameter"),
    ("postgresql://soirees:tiefgeheim@db/x?sslmode=verify", "sslmode is none of disable"),
    ("postgresql://soirees:tiefgeheim@db,db2:x5432/x", "a port is a number"),
])
def test_a_url_that_libpq_would_not_take_is_refused_without_being_shown(value, reason):
    result = run("soirees", "--check-config", DATABASE_URL=value)
    assert result.returncode == 2
    assert result.stderr.startswith("DATABASE_URL: ") and reason in result.stderr
    assert "geheim" not in result.stderr


def test_the_url_may_come_from_a_file(daemons, url, tmp_path):
    (tmp_path / "url").write_text(url + "\n")
    daemon = daemons.new("soirees", {**offline("soirees"), "DATABASE_PATH": "unused"})
    daemon.settings["DATABASE_URL_FILE"] = tmp_path / "url"
    daemon.launch()
    wait_until(lambda: daemon.get("/health").status_code == 200, SOON_S, "it is connected")
    book(daemon)
    assert postgres.query(url, "SELECT count(*) FROM soirees.soirees") == [(1,)]


def test_a_dead_first_host_is_passed_over(daemons, url):
    port = postgres.shared().port
    hosts = "127.0.0.1:%d,127.0.0.1:%d" % (free_port(), port)
    several = url.replace("127.0.0.1:%d" % port, hosts) + "?target_session_attrs=read-write"
    book(connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": several})))


def test_verify_full_trusts_its_own_ca_alone(daemons, own_server, tmp_path):
    if tls.missing():
        pytest.skip(tls.missing())
    right, wrong = tls.Authority(tmp_path / "right"), tls.Authority(tmp_path / "wrong")
    certificate = right.issue("DNS:localhost", "IP:127.0.0.1")
    server = own_server(config="ssl = on\n", access=postgres.TRUST.replace("host all all", "hostssl all all"))
    for name, path in (("server.crt", certificate.cert), ("server.key", certificate.key)):
        with open(path) as file:
            server.write(name, file.read())
    server.start()
    server.create("secured")

    def daemon(authority, **more):
        value = server.url("secured", sslmode="verify-full", sslrootcert=authority.cert, **more)
        return daemons.new("soirees", {**offline("soirees"), "DATABASE_URL": value}).launch()
    refused = daemon(wrong)
    wait_until(lambda: "certificate verify failed" in database(refused).get("detail", ""), SOON_S, "the reason")
    trusting = daemon(right)
    wait_until(lambda: trusting.get("/health").status_code == 200, SOON_S, "it is connected")
    book(trusting)
    assert server.sql("postgres", "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                                  " WHERE application_name = 'soirees'") == [(1,)]
    assert database(refused)["state"] == "failing"


def test_what_a_database_sets_for_its_sessions_changes_nothing(daemons, url, vhost):
    name = url.rsplit("/", 1)[1]
    for setting in ("extra_float_digits TO -5", "default_transaction_isolation TO serializable",
                    "statement_timeout TO 1", "search_path TO nowhere", "TimeZone TO 'Asia/Tokyo'",
                    "DateStyle TO 'SQL, DMY'", "synchronous_commit TO off", "IntervalStyle TO sql_standard"):
        postgres.query(url, 'ALTER DATABASE "%s" SET %s' % (name, setting))
    both = [connected(daemons.start("soirees", {**vhost.settings(), "DATABASE_URL": url})) for _ in range(2)]
    reply = both[0].post("/api/soirees", booking(budget=0.1 + 0.2, date="2025-03-04"))
    assert reply.status_code == 201
    loads = [Load(daemon.url, threads=3, most=100, name=daemon.name).start() for daemon in both]
    for load in loads:
        load.join()
    for daemon in both:
        assert daemon.get(reply.headers["Location"]).json() == reply.json()
    wait_until(lambda: postgres.query(url, "SELECT count(*) FROM soirees.outbox WHERE again_at IS NULL") == [(0,)],
               SOON_S, "every message is confirmed")
    assert vhost.depth(QUEUE)[0] == 201


# ---- the schema

def test_a_newer_schema_is_one_clear_line_and_exit_status_1(daemons, url):
    connected(daemons.start("soirees", {**offline("soirees"), "DATABASE_URL": url})).stop()
    postgres.query(url, "INSERT INTO soirees.migrations (version, name) VALUES (99, 'later')")
    result = run("soirees", DATABASE_URL=url, SERVICE_PORT=free_port(), CONSUL_HOST="", **offline("soirees"))
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if "newer than this program" in line]
    assert len(lines) == 1 and "version 99" in lines[0]


def test_both_services_may_share_a_database_that_is_made_ready_for_them(daemons, own_server):
    """An administrator who gives no right to create schemas has created them."""
    server = own_server().start()
    server.sql("postgres", "CREATE DATABASE tight")
    for schema in ("soirees", "playlists"):
        server.sql("tight", "CREATE SCHEMA %s AUTHORIZATION %s" % (schema, postgres.USER))
    for program in ("soirees", "playlists"):
        connected(daemons.start(program, {**offline(program), "DATABASE_URL": server.url("tight")}))
    assert server.sql("tight", "SELECT count(*) FROM pg_tables WHERE schemaname IN ('soirees', 'playlists')"
                      ) == [(9,)]


@pytest.mark.parametrize("arguments", [["--check"], ["--backup", "copy.db"]])
def test_check_and_backup_say_what_does_it_for_postgresql(arguments):
    result = run("soirees", *arguments, DATABASE_URL="postgresql://localhost/x")
    assert result.returncode == 1
    assert "pg_dump" in result.stderr and "pg_amcheck" in result.stderr
