"""Whatever breaks: nothing acknowledged is lost, nothing happens twice, nothing needs a restart.

Broker, peers, API, disk, clock, stops and kills. What befalls the way from the outbox to the queue is in
test_relay.py; a delivery held for over ten minutes is in the clock's part."""

import http.server
import json
import socket
import threading
import time

import pytest
from harness.booking import BOOKING, playlists_of
from harness.broker import DEAD_QUEUE
from harness.http import ok_json, problem
from harness.imitations import Recorder
from harness.wait import free_port, holds_for, wait_until
from lagmaster import encode, playlist
from promise import (RECOVERY_S, Load, calls_by_style, check_kept, everything, read_database, wait_for_links,
                     wait_until_drained)
from sabotage import (Clock, Lock, ReplyLoser, SmallDisk, await_death, has_failpoints, launch_doomed,
                      memory_alarm, never_accepts, never_answers, release_build, set_ack_timeout, start_again,
                      without_sanitizers)  # noqa: F401

pytestmark = pytest.mark.slow
MIB = 1 << 20


def waiting(lagmaster, number=1):
    wait_until(lambda: lagmaster.waiting == number, 60, "%d call(s) of the API in progress" % number)


def components(daemon):
    """The state of each part, by /health."""
    return {name: part["state"] for name, part in daemon.health()["components"].items()}


# ---- the broker

def test_a_thousand_bookings_in_flight_survive_a_killed_broker(own_broker, make_stack):
    own_broker.start()
    stack = make_stack(vhost=own_broker.root(), playlists={"PLAYLIST_WORKERS": 16}).start()
    stack.lagmaster.control(latency_ms=30)
    load = Load(stack.soirees.url, threads=4, most=1000).start()
    for killed_at in (350, 700):
        load.reached(killed_at)
        wait_until(lambda: stack.lagmaster.count > killed_at // 4, 60, "the worker is amid its work")
        own_broker.kill()
        own_broker.start()
    load.join()
    assert load.repeated == 0, "a booking does not depend on the broker"
    check_kept(stack, load.acknowledged.values())
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


@pytest.mark.threads
def test_connections_closed_again_and_again_under_load_lose_nothing(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 4}).start()
    stack.lagmaster.control(latency_ms=50)
    load = Load(stack.soirees.url, threads=2, most=200, pause_s=0.02).start()
    for _ in range(5):
        wait_until(lambda: stack.vhost.connections() and stack.vhost.close_connections() >= 2, 90,
                   "both are connected", interval=0.5)
    load.join()
    check_kept(stack, load.acknowledged.values())
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_a_queue_deleted_amid_the_stream_heals(make_stack):
    """Its messages are gone, the requests are still open: they are sent again."""
    stack = make_stack(soirees={"REQUEST_AGAIN_AFTER_S": 3}, playlists={"PLAYLIST_WORKERS": 2}).start()
    stack.lagmaster.control(latency_ms=100)
    load = Load(stack.soirees.url, most=40).start().join()
    wait_until(lambda: stack.vhost.depth()[0] > 10 and stack.lagmaster.count > 5, 60, "amid the stream")
    stack.vhost.delete_queue()
    check_kept(stack, load.acknowledged.values())
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_a_memory_alarm_delays_the_messages_and_nothing_else(own_broker, make_stack):
    own_broker.start()
    stack = make_stack(vhost=own_broker.root()).start()
    made = [stack.book()]
    stack.linked(made[0]["id"])
    stack.playlists.stop()
    stack.vhost.publish(b"hopeless")  # its copy makes the worker a publisher, too
    with memory_alarm(own_broker):
        stack.playlists.start()
        made += [stack.book() for _ in range(20)]
        wait_until(lambda: components(stack.soirees)["rabbitmq"] == "blocked", 60, "soirees says so")
        wait_until(lambda: components(stack.playlists)["worker"] == "blocked", 60, "playlists says so")
        made += [stack.book() for _ in range(20)]
        assert stack.soirees.health()["status"] == stack.playlists.health()["status"] == "healthy"
        holds_for(lambda: stack.vhost.depth()[0] <= 21, 3, "what came after the alarm waits in the outbox")
    wait_for_links(stack, made)
    assert components(stack.soirees)["rabbitmq"] == "connected"
    assert components(stack.playlists)["worker"] == "consuming"
    assert {copy.body for copy in stack.vhost.take(DEAD_QUEUE)} == {b"hopeless"}
    check_kept(stack, made)
    assert stack.lagmaster.count == len(made)


def test_a_channel_closed_for_a_late_ack_comes_back(own_broker, make_stack):
    """consumer_timeout, 30 minutes unless told otherwise: the broker closes the channel with 406."""
    own_broker.start()
    set_ack_timeout(own_broker, 2000)
    stack = make_stack(vhost=own_broker.root(), playlists={"PLAYLIST_WORKERS": 2}).start()
    stack.lagmaster.control(mode="hang")
    made = [stack.book()]
    waiting(stack.lagmaster)
    wait_until(lambda: "fermé par RabbitMQ (406" in stack.playlists.log(), 60, "the channel is closed")
    set_ack_timeout(own_broker, 1_800_000)
    wait_until(lambda: len(stack.vhost.consumers()) == 2, 60, "two consumers again")
    assert stack.lagmaster.count == 1, "what is delivered again waits for the call in progress"
    stack.lagmaster.control()
    stack.lagmaster.release()
    stack.linked(made[0]["id"])
    made.append(stack.book())
    check_kept(stack, made)
    assert stack.lagmaster.count == 2


# ---- Consul, and the soirées service at its addresses

def test_consul_killed_and_restarted_empty_stops_no_link(make_stack, consul):
    """The last list is good until there is a better one; afterwards both are registered again."""
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    made = [stack.book()]
    stack.linked(made[0]["id"], timeout=90)
    consul.kill()
    for _ in range(3):
        made.append(stack.book())
        stack.linked(made[-1]["id"])
    consul.start()
    assert consul.passing("service-soirees") == []
    made.append(stack.book())
    stack.linked(made[-1]["id"])
    for daemon in (stack.soirees, stack.playlists):
        wait_until(lambda: [entry["Service"]["Port"] for entry in consul.passing("service-" + daemon.program)]
                   == [daemon.port], 90, daemon.program + " passes again")
    made.append(stack.book())
    check_kept(stack, made)
    assert stack.lagmaster.count == len(made)


def test_soirees_down_for_half_a_minute_holds_up_no_playlist(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 2}).start()
    stack.lagmaster.control(mode="hang")
    made = [stack.book() for _ in range(20)]
    wait_until(lambda: stack.vhost.depth()[0] == 18, 60, "two are being made, the rest waits")
    stack.soirees.stop()
    down_at = time.monotonic()
    stack.lagmaster.control()
    stack.lagmaster.release()
    wait_until(lambda: len(everything(stack.playlists)) == 20, 60, "all playlists are made")
    stack.drained()
    links = "SELECT count(*), min(attempts) > 0 FROM links"
    wait_until(lambda: read_database(stack.playlists.database, links) == [(20, 1)], 60, "20 pending links, tried")
    holds_for(lambda: components(stack.playlists)["worker"] == "consuming",
              max(0, 30 - (time.monotonic() - down_at)), "the worker goes on", interval=1)
    stack.soirees.start()
    check_kept(stack, made)
    assert stack.lagmaster.count == 20


@pytest.mark.parametrize("nowhere", [never_answers, never_accepts])
def test_an_address_that_leads_nowhere_delays_no_more_than_a_moment(make_stack, consul, nowhere):
    stack = make_stack(consul=consul, soirees={"CONSUL_HOST": ""},
                       playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    with nowhere() as port:
        consul.register("service-soirees", "nowhere", port)
        consul.register("service-soirees", "alive", stack.soirees.port)
        wait_until(lambda: len(consul.passing("service-soirees")) == 2, what="both are passing")
        stack.linked(stack.book()["id"], timeout=90)  # from here on both addresses are known
        made = []
        for _ in range(8):  # each begins with either address, by chance
            made.append(stack.book()["id"])
            stack.linked(made[-1], timeout=30)
        log = stack.playlists.log()
        for key in made:
            assert "Erreur mise à jour soirée " + key not in log, "it was delivered at the first try"


def test_a_lost_reply_to_the_link_changes_nothing(make_stack):
    """The PATCH was applied; it is sent again, and is told that all is well."""
    stack = make_stack()
    lost = []

    def lose(method, _status):
        lost.append(method)
        return len(lost) <= 2
    with ReplyLoser(stack.soirees.port, lose) as loser:
        stack.playlists.settings["SOIREES_URL"] = loser.url
        stack.start()
        made = stack.book()
        stack.linked(made["id"])
        applied = stack.soiree(made["id"])
        wait_until(lambda: len(loser.replies) == 3, 60, "the link is tried until the reply comes back")
        holds_for(lambda: len(loser.replies) == 3, 3, "and no more after that")
        assert loser.replies == [("PATCH", 200, True), ("PATCH", 200, True), ("PATCH", 200, False)]
        assert stack.soiree(made["id"]) == applied, "it was set once"
        check_kept(stack, [made])
    assert stack.lagmaster.count == 1


# ---- what the API says

GOOD = playlist("disco")
BAD_ANSWERS = {
    "another status of success": (201, encode(GOOD)),
    "no content": (204, b""),
    "no body": (200, b""),
    "a list": (200, encode([GOOD])),
    "bytes that are no UTF-8": (200, b'{"style":"a","title":"caf\xe9","tracks":["t"]}'),
    "a NUL": (200, b'{"style":"a","title":"a\\u0000b","tracks":["t"]}'),
    "half a surrogate pair": (200, b'{"style":"a","title":"\\ud83d","tracks":["t"]}'),
    "a byte order mark": (200, b"\xef\xbb\xbf" + encode(GOOD)),
    "a title twice": (200, b'{"style":"a","title":"b","title":"c","tracks":["t"]}'),
    "something behind the JSON": (200, encode(GOOD) + b" x"),
    "nesting without end": (200, b"[" * 100_000),
    "an empty title": (200, encode({**GOOD, "title": ""})),
    "an empty style": (200, encode({**GOOD, "style": ""})),
    "an empty track": (200, encode({**GOOD, "tracks": ["t", ""]})),
    "a track that is no text": (200, encode({**GOOD, "tracks": ["t", 5]})),
    "null": (200, encode({**GOOD, "title": None})),
    "a raw line feed in a text": (200, b'{"style":"a","title":"a\nb","tracks":["t"]}'),
    "a byte over 1 MiB": (200, encode(GOOD).ljust(MIB + 1)),
}
GOOD_ANSWERS = {
    "1 MiB": encode(GOOD).ljust(MIB),
    "members nobody knows": encode({**GOOD, "mood": {"is": ["good"]}}),
    "one track": encode({**GOOD, "tracks": ["t"]}),
}
# a limit counts characters, and what is cut is cut between two of them
TITLES = {"é" * 150: "é" * 150, "🕺" * 200: "🕺" * 200, "a" + "🕺" * 200: "a" + "🕺" * 199, "漢" * 300: "漢" * 200}


def test_only_a_playlist_counts_as_one(vhost, daemons, make_stack):
    answers = {**BAD_ANSWERS, **{name: (200, body) for name, body in GOOD_ANSWERS.items()},
               **{"title %d" % n: (200, encode({**GOOD, "title": title})) for n, title in enumerate(TITLES)}}
    names = {"style-%d" % n: name for n, name in enumerate(answers)}

    def answer(request):
        return (*answers[names[request.path.rpartition("style=")[2]]], "application/json")
    with Recorder(answer) as api:
        stack = make_stack(playlists={"LAGMASTER_URL": api.url + "/generate_playlist", "PLAYLIST_WORKERS": 4,
                                      "LAGMASTER_MAX_ATTEMPTS": 2}).start()
        made = {style: stack.book(styleMusical=style) for style in names}
        wait_for_links(stack, made.values())
        found = {style: playlists_of(stack.playlists, made[style]["id"])[0] for style in names}
        calls = [request.path.rpartition("style=")[2] for request in api.requests()]
        origins = {names[style]: made_one["origine"] for style, made_one in found.items()}
        assert origins == {name: "defaut" if name in BAD_ANSWERS else "lagmaster-pro" for name in answers}
        for style, name in names.items():
            assert calls.count(style) == (2 if name in BAD_ANSWERS else 1), name
        titles = {name: found[style]["nom"] for style, name in names.items()}
        assert [titles["title %d" % n] for n in range(len(TITLES))] == list(TITLES.values())
        check_kept(stack, made.values())


class Firehose(http.server.ThreadingHTTPServer):
    """Answers every GET with that many bytes of a JSON text, None: without an end; counts who hung up."""

    def __init__(self, size):
        hose = self
        self.size, self.cut = size, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                if size:
                    self.send_header("Content-Length", str(size))
                else:
                    self.send_header("Connection", "close")
                self.end_headers()
                block, sent = b'"' + b"a" * 65535, 0
                try:
                    while size is None or sent < size:
                        sent += self.connection.send(block)
                except OSError:
                    hose.cut += 1
                self.close_connection = True

            def log_message(self, *_args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


@pytest.mark.parametrize("size", [10 * MIB, None], ids=["10 MiB", "endless"])
def test_an_answer_that_is_too_long_is_not_read_to_its_end(make_stack, size):
    with Firehose(size) as hose:
        stack = make_stack(playlists={"LAGMASTER_URL": "http://127.0.0.1:%d/" % hose.server_port,
                                      "LAGMASTER_TIMEOUT_MS": 120_000}).start()
        made = stack.book()
        _found, playlist_made = stack.linked(made["id"], timeout=60)
        assert playlist_made["origine"] == "defaut"
        wait_until(lambda: hose.cut == 3, what="each attempt was cut short")
        hose.shutdown()
        check_kept(stack, [made])


# ---- the disk

@pytest.mark.sqlite
def test_a_full_disk_is_a_503_of_soirees_that_passes(make_stack, tmp_path):
    with SmallDisk(tmp_path / "disk", 160) as disk:
        stack = make_stack(soirees={"DATABASE_PATH": disk.path + "/soirees.db"}, playlists={"PLAYLIST_WORKERS": 3})
        stack.soirees.database = disk.path + "/soirees.db"
        stack.start()
        stack.lagmaster.control(mode="hang")
        made = [stack.book() for _ in range(3)]
        waiting(stack.lagmaster, 3)

        disk.fill(leave_bytes=40 * MIB)  # below the reserve: nothing new, while there is room for what must be
        for reply in (stack.soirees.post("/api/soirees", BOOKING),
                      stack.soirees.patch("/api/soirees/" + made[0]["id"], {"lieu": "Lyon"})):
            problem(reply, 503)
            assert int(reply.headers["Retry-After"]) > 0
        reply = stack.soirees.get("/health")
        assert (reply.status_code, reply.json()["components"]["database"]["state"]) == (503, "failing")

        disk.fill()
        problem(stack.soirees.post("/api/soirees", BOOKING), 503)
        stack.lagmaster.control()
        stack.lagmaster.release()
        wait_until(lambda: len(everything(stack.playlists)) == 3, 60, "the playlists are made")
        holds_for(lambda: len(ok_json(stack.soirees.get("/api/soirees"))) == 3, 5, "reading goes on")
        assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)

        disk.make_room()
        made.append(wait_until(lambda: ok_json(stack.soirees.post("/api/soirees", BOOKING), 201), 60, "a booking"))
        wait_until(lambda: stack.soirees.get("/health").status_code == 200, 60, "healthy again")
        check_kept(stack, made)
        assert stack.lagmaster.count == 4


@pytest.mark.sqlite
def test_a_full_disk_of_playlists_holds_the_messages(make_stack, tmp_path):
    with SmallDisk(tmp_path / "disk", 160) as disk:
        stack = make_stack(playlists={"DATABASE_PATH": disk.path + "/playlists.db", "PLAYLIST_WORKERS": 2})
        stack.playlists.database = disk.path + "/playlists.db"
        stack.start()
        made = [stack.book()]
        stack.linked(made[0]["id"])
        disk.fill(leave_bytes=40 * MIB)
        made.append(stack.book())  # is asked for, and cannot be stored
        wait_until(lambda: stack.lagmaster.count == 2, 60, "the API is asked")
        disk.fill()
        made += [stack.book() for _ in range(3)]
        wait_until(lambda: stack.playlists.get("/health").status_code == 503, 60, "playlists says so")
        assert components(stack.playlists)["database"] == "failing"
        held = "❌ Base indisponible pour soirée %s"
        wait_until(lambda: held % made[1]["id"] in stack.playlists.log(), 60, "a message is held")
        reply = stack.playlists.post("/api/playlists", {"nom": "À la main"})
        problem(reply, 503)
        assert int(reply.headers["Retry-After"]) > 0
        holds_for(lambda: stack.lagmaster.count == 2, 5, "the API is not asked again and again")
        assert len(everything(stack.playlists)) == 1
        assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)
        assert components(stack.playlists)["worker"] == "consuming"

        disk.make_room()
        check_kept(stack, made)
        assert stack.lagmaster.count == len(made)


# ---- stops and kills

@pytest.mark.threads
def test_stops_under_load_lose_nothing_and_leave_no_dead_letter(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 4, "SHUTDOWN_GRACE_MS": 300},
                       soirees={"SHUTDOWN_GRACE_MS": 1000}).start()
    stack.lagmaster.control(latency_ms=150)
    load = Load(stack.soirees.url, threads=2, pause_s=0.02).start()
    rounds = 4
    for _ in range(rounds):
        for daemon in (stack.playlists, stack.soirees):
            load.reached(load.count + 5)
            daemon.stop()  # a clean exit, with nothing found by a sanitizer
            daemon.start()
    load.finish()
    made = check_kept(stack, load.acknowledged.values())
    assert {p["origine"] for p in made} == {"lagmaster-pro"}
    calls = calls_by_style(stack.lagmaster)
    assert max(calls.values()) <= 1 + rounds
    assert sum(calls.values()) <= load.count + 4 * rounds, "only what was in progress is asked for again"


def test_everything_killed_every_few_seconds_under_load(own_broker, make_stack):
    own_broker.start()
    stack = make_stack(vhost=own_broker.root(), playlists={"PLAYLIST_WORKERS": 4}).start()
    stack.lagmaster.control(latency_ms=100)
    load = Load(stack.soirees.url, threads=3, pause_s=0.02).start()
    rounds = 4
    for number in range(rounds):
        load.reached(load.count + 40)
        wait_until(lambda: stack.lagmaster.count > 10 * number, 60, "the worker is at work")
        for daemon in (stack.soirees, stack.playlists):
            daemon.kill()
        own_broker.kill()
        for daemon in (stack.soirees, stack.playlists):
            daemon.start()
        own_broker.start()
    load.finish(at_least=load.count + 10)
    check_kept(stack, load.acknowledged.values())
    calls = calls_by_style(stack.lagmaster)
    assert max(calls.values()) <= 1 + rounds
    assert sum(calls.values()) <= load.count + 4 * rounds, "only what was in progress is asked for again"


def test_stops_are_not_held_against_a_request(make_stack):
    """However often a slow call is cut short by a clean stop, in the end the API is listened to."""
    stack = make_stack(playlists={"SHUTDOWN_GRACE_MS": 0}).start()
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    for number in range(7):
        wait_until(lambda: stack.lagmaster.count == number + 1 and stack.lagmaster.waiting == 1, 60, "the call")
        stack.playlists.stop()
        stack.playlists.start()
    waiting(stack.lagmaster)
    stack.lagmaster.release()
    assert stack.linked(made["id"])[1]["origine"] == "lagmaster-pro"
    check_kept(stack, [made])


def test_a_request_that_killed_five_times_gets_the_default_playlist(make_stack):
    if not has_failpoints("playlists"):
        pytest.skip("this build has no failpoints (they come with cmake -DFAILPOINTS=ON)")
    stack = make_stack()
    stack.soirees.start()
    made = [stack.book()]
    for _ in range(5):
        launch_doomed(stack.playlists, "generator.call.before")
        await_death(stack.playlists, 90)
    stack.playlists.start()  # with the same failpoint
    assert stack.linked(made[0]["id"])[1]["origine"] == "defaut"
    assert stack.lagmaster.count == 0
    stack.drained()
    stack.playlists.stop()
    start_again(stack.playlists)
    made.append(stack.book())
    assert stack.linked(made[1]["id"])[1]["origine"] == "lagmaster-pro"
    check_kept(stack, made)


# ---- a change of mind

class Gate(Recorder):
    """Stands in for the API: each style's call is answered when open(style) says so."""

    def __init__(self):
        self._open = {}
        super().__init__(self._reply)

    def _event(self, style):
        return self._open.setdefault(style, threading.Event())

    def _reply(self, request):
        style = request.path.rpartition("style=")[2]
        self._event(style).wait(120)
        return 200, encode(playlist(style)), "application/json"

    def open(self, style):
        self._event(style).set()

    def asked(self, style):
        return any(request.path.endswith("style=" + style) for request in self.requests())


@pytest.mark.parametrize("arrival", ["first second third", "third second first", "second third first",
                                     "third first second"])
def test_the_last_style_wins_whatever_arrives_first(make_stack, arrival):
    with Gate() as api:
        stack = make_stack(playlists={"LAGMASTER_URL": api.url + "/", "PLAYLIST_WORKERS": 3}).start()
        made = stack.book(styleMusical="first")
        wait_until(lambda: api.asked("first"), 60, "the first call")
        for style in ("second", "third"):  # the style is changed twice during one slow call
            ok_json(stack.soirees.patch("/api/soirees/" + made["id"], {"styleMusical": style}))
            wait_until(lambda: api.asked(style), 60, "the call for the " + style)
        found = {}
        for number, style in enumerate(arrival.split()):
            api.open(style)
            wait_until(lambda: len(stack.playlists_of(made["id"])) == number + 1, 60, "the playlist of the " + style)
            found = {p["stylesMusicaux"][0]: p["id"] for p in stack.playlists_of(made["id"])}
            wait_until(lambda: read_database(stack.playlists.database, "SELECT * FROM links") == [], 60,
                       "its link has ended")
            assert stack.soiree(made["id"])["playlistId"] == found.get("third")
        wait_until_drained(stack)
        assert set(found) == {"first", "second", "third"} and len(api.requests()) == 3
        stack.playlists.stop()
        assert (stack.vhost.depth(), stack.vhost.depth(DEAD_QUEUE)) == ((0, 0), (0, 0))


# ---- the clock

HOUR = 3600


@pytest.fixture
def clock(tmp_path, built, without_sanitizers):  # noqa: F811
    return Clock(tmp_path)


@pytest.fixture
def clock_of_all(tmp_path, built, without_sanitizers):  # noqa: F811
    """What counts from the start of the machine jumps too: time passes faster."""
    return Clock(tmp_path, steady=False)


def clock_of(daemon):
    """What a daemon takes for the time, as the difference from the real one, in seconds."""
    made = ok_json(daemon.post("/api/playlists", {"nom": "L'heure"}), 201)
    assert daemon.delete("/api/playlists/" + made["id"]).status_code == 204
    shown = time.strptime(made["createdAt"][:19], "%Y-%m-%dT%H:%M:%S")
    return time.mktime(shown) - time.timezone - time.time()


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_jumps_stops_nothing_and_reorders_nothing(make_stack, clock, jump):
    stack = make_stack(soirees=clock.settings, playlists={**clock.settings, "PLAYLIST_WORKERS": 2}).start()
    made = [stack.book()]
    stack.linked(made[0]["id"])
    stack.lagmaster.control(mode="hang")
    made.append(stack.book())
    waiting(stack.lagmaster)
    clock.jump_to(jump)  # during a call
    assert abs(clock_of(stack.playlists) - jump) < 60
    made.append(stack.book())
    waiting(stack.lagmaster, 2)
    stack.lagmaster.control()
    stack.lagmaster.release()
    wait_for_links(stack, made)
    clock.jump_to(0)
    made += [stack.book() for _ in range(3)]
    wait_for_links(stack, made)
    assert [s["id"] for s in everything(stack.soirees)] == [s["id"] for s in reversed(made)]
    assert components(stack.soirees)["rabbitmq"] == "connected"
    check_kept(stack, made)
    assert stack.lagmaster.count == len(made)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_pending_link_outlives_a_jump_of_the_clock(make_stack, clock, jump):
    stack = make_stack(playlists=clock.settings).start()
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    stack.soirees.stop()
    stack.lagmaster.release()
    wait_until(lambda: read_database(stack.playlists.database, "SELECT attempts > 1 FROM links") == [(1,)], 60,
               "a pending link, tried twice")
    clock.jump_to(jump)
    stack.soirees.start()
    check_kept(stack, [made], timeout=60)
    assert stack.lagmaster.count == 1


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_an_open_request_is_sent_again_though_the_clock_jumped(make_stack, clock, jump, running):
    stack = make_stack(soirees={**clock.settings, "REQUEST_AGAIN_AFTER_S": 5})
    stack.soirees.start()
    made = stack.book()
    wait_until(lambda: read_database(stack.soirees.database, "SELECT count(again_ms) FROM outbox") == [(1,)], 60,
               "its message is confirmed")
    stack.vhost.take()  # somebody purges the queue
    if not running:
        stack.soirees.stop()
    clock.jump_to(jump)
    if not running:
        stack.soirees.start()
    stack.playlists.start()
    check_kept(stack, [made], timeout=60)
    assert stack.lagmaster.count == 1


@pytest.mark.sqlite
def test_a_message_held_for_over_ten_minutes_goes_back_and_is_not_lost(make_stack, clock_of_all):
    """Its channel is closed, so that the broker delivers it again; what was made of it so far is used."""
    stack = make_stack(playlists={**clock_of_all.settings, "RABBITMQ_HEARTBEAT": 3600}).start()
    stack.lagmaster.control(mode="hang")
    made = [stack.book()]
    waiting(stack.lagmaster)
    with Lock(stack.playlists.database):
        stack.lagmaster.control()
        stack.lagmaster.release()
        wait_until(lambda: "❌ Base indisponible pour soirée " + made[0]["id"] in stack.playlists.log(), 60, "held")
        clock_of_all.jump_to(11 * 60)
        wait_until(lambda: stack.vhost.counters().get("redeliver", 0) >= 1, 60, "it is delivered again", interval=0.5)
        assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)
    wait_until(lambda: stack.soiree(made[0]["id"])["playlistId"], 90, "its playlist")
    made.append(stack.book())
    check_kept(stack, made)
    assert stack.lagmaster.count == 2
