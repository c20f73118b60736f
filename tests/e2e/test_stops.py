"""Stops and crashes in the middle of the work, and a database that somebody else holds for a while."""

import socket
import time

import pytest
from harness.booking import BOOKING, made_for, message, request_properties, waiting
from harness.broker import DEAD_QUEUE
from harness.http import ok_json
from harness.imitations import FakeSoirees
from harness.wait import holds_for, wait_until
from promise import read_database
from sabotage import Lock


@pytest.mark.threads
def test_a_stop_during_a_call_leaves_the_message_for_the_next_process(stack):
    stack.playlists.restart(SHUTDOWN_GRACE_MS=1000)
    stack.consuming()
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    begin = time.monotonic()
    stack.playlists.stop()
    assert time.monotonic() - begin < 1 + 2 + 3  # the grace, the rest of the stop, and a slow machine
    wait_until(lambda: stack.vhost.depth() == (1, 0), what="the message is back")
    assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)
    stack.playlists.start()
    waiting(stack.lagmaster)
    wait_until(lambda: stack.vhost.counters().get("redeliver") == 1, what="a redelivery", interval=0.5)
    stack.lagmaster.release()
    stack.linked(made["id"])
    assert stack.lagmaster.count == 2
    stack.drained()


@pytest.mark.threads
def test_a_stop_lets_a_call_end_within_the_grace(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    assert stack.playlists.get("/health").status_code == 200  # and the connection is kept
    stack.playlists.begin_stop()
    wait_until(lambda: stack.vhost.depth()[1] == 0, what="it no longer consumes")
    assert stack.playlists.running
    health = stack.playlists.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    stack.lagmaster.release()
    stack.playlists.end_stop()
    assert stack.vhost.depth() == (0, 0)
    stack.playlists.start()
    stack.linked(made["id"])
    assert stack.lagmaster.count == 1


@pytest.mark.threads
@pytest.mark.slow
def test_a_stop_serves_on_until_load_balancers_have_noticed(consul, make_stack):
    """It is red and deregistered, consumes nothing any more, and answers as ever, on new connections, too."""
    settings = {"SHUTDOWN_DELAY_MS": 5000, "SHUTDOWN_GRACE_MS": 15000}
    stack = make_stack(consul=consul, soirees=settings, playlists=settings).start()
    names = ("service-soirees", "service-playlists")
    wait_until(lambda: all(consul.services(name) for name in names), what="both are registered")
    for daemon in (stack.soirees, stack.playlists):
        daemon.begin_stop()
    began = time.monotonic()
    wait_until(lambda: not any(consul.services(name) for name in names), what="both are deregistered")
    wait_until(lambda: stack.vhost.depth()[1] == 0, what="the worker no longer consumes")
    made = {}
    for daemon, path, document in ((stack.soirees, "/api/soirees", BOOKING),
                                   (stack.playlists, "/api/playlists", {"nom": "Mix"})):
        for asked in ("/health", "/ready"):
            reply = daemon.get(asked)
            assert (reply.status_code, reply.headers["Connection"]) == (503, "close")
        reply = daemon.post(path, document)
        assert (reply.status_code, reply.headers["Connection"]) == (201, "close")
        made[daemon] = "%s/%s" % (path, reply.json()["id"])
    for daemon, path in made.items():
        daemon.end_stop()
        assert 5 <= time.monotonic() - began < 15 + 2 + 3
        daemon.start()
        assert daemon.get(path).status_code == 200


def test_the_time_that_a_stop_serves_on_is_a_part_of_its_grace(make_stack):
    settings = {"SHUTDOWN_DELAY_MS": 1500, "SHUTDOWN_GRACE_MS": 2000}
    stack = make_stack(playlists=settings, soirees=settings).start()
    stack.lagmaster.control(mode="hang")
    stack.book()
    waiting(stack.lagmaster)
    for daemon in (stack.playlists, stack.soirees):
        with socket.create_connection(("127.0.0.1", daemon.port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{")
            began = time.monotonic()
            daemon.stop()
        assert 1.5 <= time.monotonic() - began < 2 + 2 + 3  # the grace, the rest of it, and a slow machine


def test_kill_9_during_a_call_ends_with_one_playlist(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    stack.playlists.kill()
    stack.lagmaster.control()
    stack.playlists.start()
    stack.linked(made["id"])
    assert stack.lagmaster.count == 2
    stack.drained()


def test_kill_9_between_playlist_and_link_ends_with_one_of_each(vhost, worker, lagmaster):
    """The playlist is stored, the PATCH never answered: the next process calls no API again, and links."""
    def slow(request):
        time.sleep(8)
        return 200
    with FakeSoirees(slow, 200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        wait_until(fake.links, 60, "the PATCH")
        playlists.kill()
        made = [p.json()["playlistId"] for p in fake.links()]
        wait_until(lambda: vhost.depth() == (1, 0), what="the message is back")
        playlists.start()
        wait_until(lambda: len(fake.links()) >= 2, 60, "the PATCH again")
        assert made_for(playlists, "s-1")["id"] == made[0]
        assert {p.json()["playlistId"] for p in fake.links()} == set(made)
        assert lagmaster.count == 1
        wait_until(vhost.drained, 60, "acked")
        playlists.stop()
        assert vhost.depth() == (0, 0)


@pytest.mark.threads
@pytest.mark.slow
def test_kill_9_at_any_moment_ends_with_one_playlist_each(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 4}).start()
    stack.lagmaster.control(latency_ms=30)
    made = []
    for round_number in range(6):
        made += [stack.book(lieu="%d.%d" % (round_number, n))["id"] for n in range(10)]
        # somewhere in the middle of the work, elsewhere each time
        wait_until(lambda: stack.lagmaster.count >= 7 * round_number + 3, 60, "some calls")
        stack.playlists.kill()
        if round_number % 2:
            stack.soirees.kill()
            stack.soirees.start()
        stack.playlists.start()
    for key in made:
        stack.linked(key, timeout=120)
    stack.drained()


def test_a_client_that_dawdles_does_not_make_a_clean_stop_a_crash(make_stack):
    """The worker's wait for its call and the wait for clients share one grace: what comes after gets its turn."""
    stack = make_stack(playlists={"SHUTDOWN_GRACE_MS": 3000}).start()
    stack.lagmaster.control(mode="hang")
    stack.book()
    waiting(stack.lagmaster)
    with socket.create_connection(("127.0.0.1", stack.playlists.port)) as client:
        client.sendall(b"POST /api/playlists HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: 4000\r\n\r\n{")
        stack.playlists.stop()
    assert read_database(stack.playlists.database, "SELECT starts FROM requests") == [(0,)]


# ---- a database that somebody else holds for a while

@pytest.mark.sqlite
@pytest.mark.threads
@pytest.mark.slow
def test_a_locked_playlists_database_holds_the_message_until_it_is_free(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    with Lock(stack.playlists.database):
        stack.lagmaster.release()
        wait_until(lambda: stack.lagmaster.waiting == 0, what="the API answered")
        holds_for(lambda: stack.soiree(made["id"])["playlistId"] is None, 9, "nothing can be stored")
        assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)
    stack.linked(made["id"], timeout=90)
    stack.drained()
    assert stack.lagmaster.count == 1
    assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)


@pytest.mark.sqlite
@pytest.mark.slow
def test_a_locked_soirees_database_is_a_503_that_passes(stack):
    first = stack.book()
    stack.linked(first["id"])
    with Lock(stack.soirees.database):
        reply = stack.soirees.post("/api/soirees", BOOKING, timeout=60)
        assert reply.status_code == 503, reply.text
        assert int(reply.headers["Retry-After"]) > 0
        assert ok_json(stack.soirees.get("/api/soirees"))[0]["id"] == first["id"]
    made = wait_until(lambda: stack.soirees.post("/api/soirees", BOOKING), 60, "free again").json()
    stack.linked(made["id"])
    assert len(ok_json(stack.soirees.get("/api/soirees"))) == 2


@pytest.mark.sqlite
def test_the_link_is_tried_again_while_the_soirees_database_is_locked(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    with Lock(stack.soirees.database):
        stack.lagmaster.release()
        made_for(stack.playlists, made["id"])
    stack.linked(made["id"], timeout=90)
