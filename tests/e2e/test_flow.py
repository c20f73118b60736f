"""From a booking to its playlist: each step of the specification, on real parts."""

import json
import sqlite3
import time

import pika
import pytest
from harness.booking import BOOKING, book, playlists_of, soiree
from harness.broker import DEAD_QUEUE, QUEUE
from harness.http import TIMESTAMP, UUID_V7, ok_json
from harness.imitations import FakeSoirees
from harness.wait import Timeout, free_port, holds_for, wait_until

LAGMASTER_DISCO = {"nom": "Metaverse Collapse Disco", "stylesMusicaux": ["disco"], "origine": "lagmaster-pro",
                   "tracks": ["Track 0 - Electric Pickles", "Track 1 - Disco Lemonade",
                              "Track 2 - Techno Taco"]}


def pick(document, names):
    return {name: document[name] for name in names}


def message(soiree_id, style="disco", **changes):
    return {"soireeId": soiree_id, "clientId": "client123", "style": style,
            "timestamp": "2025-12-02T10:30:00.000Z", **changes}


def request_properties(message_id):
    """As the soirees service sets them."""
    return pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=message_id,
                                type="soiree.reservee", app_id="service-soirees")


def waiting(lagmaster, number=1):
    wait_until(lambda: lagmaster.waiting == number, 60, "%d call(s) of the API in progress" % number)


@pytest.fixture
def worker(vhost, lagmaster, daemons):
    """worker(soirees_url, **settings): a playlists daemon at work, alone."""
    def start(soirees_url=None, **settings):
        daemon = daemons.start("playlists", {
            **vhost.settings(), "LAGMASTER_URL": lagmaster.url, "LAGMASTER_RETRY_DELAY_MS": 50,
            "SOIREES_URL": soirees_url or "http://127.0.0.1:%d" % free_port(), **settings})
        wait_until(lambda: vhost.depth()[1] > 0, 60, "a consumer")
        return daemon
    return start


def made_for(playlists, soiree_id, timeout=60):
    """Wait for a playlist of this soirée; the only one."""
    found = wait_until(lambda: playlists_of(playlists, soiree_id), timeout, "a playlist for " + soiree_id)
    assert len(found) == 1
    return found[0]


# ---- the booking

@pytest.mark.slow
def test_a_booking_is_answered_at_once_without_rabbitmq_and_its_message_follows(own_broker, daemons):
    soirees = daemons.start("soirees", own_broker.root().settings())
    begin = time.monotonic()
    made = book(soirees)
    assert time.monotonic() - begin < 3
    assert soiree(soirees, made["id"]) == made
    own_broker.start()
    assert own_broker.root().take(timeout=90)[0].json()["soireeId"] == made["id"]


@pytest.mark.slow
def test_booking_and_message_are_stored_together(own_broker, daemons):
    """kill -9 right after the answer loses neither."""
    soirees = daemons.start("soirees", own_broker.root().settings())
    made = [book(soirees)["id"] for _ in range(3)]
    soirees.kill()
    own_broker.start()
    soirees.start()
    assert [soiree(soirees, key)["playlistId"] for key in made] == [None] * 3
    assert [m.json()["soireeId"] for m in own_broker.root().take(count=3, timeout=90)] == made


def test_a_booking_gets_its_playlist_from_lagmaster(stack):
    made = stack.book()
    found, playlist = stack.linked(made["id"])
    assert found == {**made, "playlistId": playlist["id"], "updatedAt": found["updatedAt"]}
    assert TIMESTAMP.match(found["updatedAt"]) and TIMESTAMP.match(playlist["createdAt"])
    assert UUID_V7.match(playlist["id"])
    assert playlist == {**LAGMASTER_DISCO, "id": playlist["id"], "soireeId": made["id"],
                        "description": "Playlist générée automatiquement pour la soirée " + made["id"],
                        "createdAt": playlist["createdAt"]}
    assert [call["style"] for call in stack.lagmaster.calls()] == ["disco"]
    stack.drained()


def test_the_style_is_percent_encoded_for_the_api(stack):
    style = "r&b é/?=+%#🎷 \"x\""
    made = stack.book(styleMusical=style)
    _found, playlist = stack.linked(made["id"])
    assert playlist["stylesMusicaux"] == [style]
    call = stack.lagmaster.calls()[0]
    assert call["style"] == style
    assert call["path"].startswith("/generate_playlist?style=r%26b%20%C3%A9")
    assert call["path"].isascii()


def test_an_api_url_with_a_query_keeps_it(stack, make_stack):
    stack.playlists.restart(LAGMASTER_URL=stack.lagmaster.url + "?key=k")
    stack.linked(stack.book()["id"])
    assert stack.lagmaster.calls()[0]["path"] == "/generate_playlist?key=k&style=disco"


def test_a_redirect_of_the_api_is_an_error_not_followed(stack):
    stack.lagmaster.control(mode="redirect")
    _found, playlist = stack.linked(stack.book()["id"])
    assert playlist["origine"] == "defaut"
    assert [call["mode"] for call in stack.lagmaster.calls()] == ["redirect"] * 3


@pytest.mark.parametrize("style, title", [
    ("disco", "Disco Mix - Default"), ("électro", "Électro Mix - Default"), ("Jazz", "Jazz Mix - Default"),
    ("80s", "80s Mix - Default")])
def test_after_three_failures_comes_the_default_playlist(stack, style, title):
    stack.lagmaster.control(mode="error500")
    made = stack.book(styleMusical=style)
    _found, playlist = stack.linked(made["id"])
    assert pick(playlist, ("nom", "stylesMusicaux", "tracks", "origine", "description")) == {
        "nom": title, "stylesMusicaux": [style], "origine": "defaut",
        "tracks": ["Track 1 - %s Vibes" % style, "Track 2 - %s Energy" % style,
                   "Track 3 - %s Dreams" % style],
        "description": "Playlist générée automatiquement pour la soirée " + made["id"]}
    assert [call["mode"] for call in stack.lagmaster.calls()] == ["error500"] * 3


def test_two_failures_are_forgiven(stack):
    stack.lagmaster.control(fail_first=2)
    _found, playlist = stack.linked(stack.book()["id"])
    assert playlist["origine"] == "lagmaster-pro"
    assert len(stack.lagmaster.calls()) == 3


@pytest.mark.parametrize("mode", ["error404", "notjson", "wrongtypes", "emptytracks", "truncated", "huge",
                                  "reset"])
def test_what_is_no_playlist_counts_as_a_failure(stack, mode):
    stack.lagmaster.control(mode=mode)
    _found, playlist = stack.linked(stack.book()["id"])
    assert playlist["origine"] == "defaut"
    assert len(stack.lagmaster.calls()) == 3


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_an_api_that_does_not_come_to_an_end_times_out(stack, mode):
    stack.playlists.restart(LAGMASTER_TIMEOUT_MS=700, LAGMASTER_MAX_ATTEMPTS=2)
    stack.lagmaster.control(mode=mode)
    _found, playlist = stack.linked(stack.book()["id"])
    assert playlist["origine"] == "defaut"
    calls = stack.lagmaster.calls()
    assert len(calls) == 2
    wait_until(lambda: [c["ended"] for c in stack.lagmaster.calls()] == ["client gone"] * 2,
               what="both calls were left")


def test_the_attempts_are_as_far_apart_as_told(stack):
    stack.playlists.restart(LAGMASTER_RETRY_DELAY_MS=1500, LAGMASTER_MAX_ATTEMPTS=3)
    stack.lagmaster.control(mode="error500")
    stack.linked(stack.book()["id"])
    at = [call["at"] for call in stack.lagmaster.calls()]
    assert len(at) == 3
    for first, second in zip(at, at[1:]):
        assert 1.4 < second - first < 15


def test_texts_of_the_api_are_kept_or_cut_at_a_character(stack):
    stack.lagmaster.control(mode="control_chars")
    _found, first = stack.linked(stack.book()["id"])
    assert first["origine"] == "lagmaster-pro" and first["tracks"][0] == "Track 0\tTab"
    stack.lagmaster.control(mode="long_titles")
    _found, second = stack.linked(stack.book()["id"])
    assert second["nom"] == ("é🕺" * 500)[:200]
    assert second["tracks"] == ["ü" * 300] * 500


# ---- concurrency and heartbeats

def test_one_worker_takes_one_message_at_a_time(stack):
    stack.lagmaster.control(mode="hang")
    made = [stack.book()["id"] for _ in range(3)]
    waiting(stack.lagmaster)
    wait_until(lambda: stack.vhost.depth() == (2, 1), what="two messages stay in the queue")
    holds_for(lambda: stack.lagmaster.waiting == 1, 1, "one call at a time")
    consumers = wait_until(stack.vhost.consumers, what="the consumer in the management API")
    assert [c["prefetch_count"] for c in consumers] == [1]
    assert consumers[0]["ack_required"] is True
    stack.lagmaster.control()
    stack.lagmaster.release()
    for key in made:
        stack.linked(key)
    stack.drained()


def test_several_workers_call_at_the_same_time_each_with_prefetch_1(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 3}).start()
    stack.consuming(workers=3)
    stack.lagmaster.control(mode="hang")
    made = [stack.book()["id"] for _ in range(5)]
    waiting(stack.lagmaster, 3)
    wait_until(lambda: stack.vhost.depth() == (2, 3), what="two messages stay in the queue")
    holds_for(lambda: stack.lagmaster.waiting == 3, 1, "three calls at a time")
    consumers = wait_until(lambda: len(stack.vhost.consumers()) == 3 and stack.vhost.consumers(),
                           what="three consumers")
    assert [c["prefetch_count"] for c in consumers] == [1, 1, 1]
    assert len({c["channel_details"]["name"] for c in consumers}) == 3
    assert len({c["channel_details"]["connection_name"] for c in consumers}) == 1
    stack.lagmaster.control()
    stack.lagmaster.release()
    for key in made:
        stack.linked(key)


def consumer_connections(vhost):
    return sorted({c["channel_details"]["connection_name"] for c in vhost.consumers()})


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 200])
def test_heartbeats_go_on_while_the_api_takes_its_time(make_stack, workers):
    stack = make_stack(soirees={"RABBITMQ_HEARTBEAT": 2},
                       playlists={"RABBITMQ_HEARTBEAT": 2, "PLAYLIST_WORKERS": workers}).start()
    stack.consuming(workers=workers)
    wait_until(lambda: len(stack.vhost.consumers()) == workers, 60, "all consumers in the management API")
    before = consumer_connections(stack.vhost)
    stack.lagmaster.control(latency_ms=12000)
    made = [stack.book(lieu="Lieu %d" % n)["id"] for n in range(workers)]
    waiting(stack.lagmaster, workers)
    for key in made:
        stack.linked(key, timeout=120)
    assert consumer_connections(stack.vhost) == before and len(before) == 1
    assert len(stack.lagmaster.calls()) == workers

    def counted():
        stats = stack.vhost.queue()["message_stats"]
        return stats.get("deliver", 0) == workers and stats.get("ack", 0) == workers and stats
    stats = wait_until(counted, 30, "one delivery and one ack a message", interval=0.5)
    assert stats.get("redeliver", 0) == 0


# ---- the link

def test_the_link_goes_to_the_address_from_consul(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    consul.register("service-soirees", "by-hand", stack.soirees.port)
    stack.linked(stack.book()["id"])


def test_a_dead_address_from_consul_is_passed_over(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    for name, port in (("dead", free_port()), ("alive", stack.soirees.port)):
        consul.register("service-soirees", name, port)
    for _ in range(6):
        stack.linked(stack.book()["id"])


@pytest.mark.slow
def test_soirees_is_found_by_its_own_registration(make_stack, consul):
    stack = make_stack(consul=consul, playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    stack.linked(stack.book()["id"], timeout=60)
    assert [i["Service"]["Port"] for i in consul.passing("service-soirees")] == [stack.soirees.port]


@pytest.mark.slow
def test_soirees_url_is_used_when_consul_has_had_nobody_for_30_s(make_stack, consul):
    stack = make_stack(consul=consul, soirees={"CONSUL_HOST": ""}).start()
    made = stack.book()
    with pytest.raises(Timeout):
        stack.linked(made["id"], timeout=15)
    stack.linked(made["id"], timeout=90)


def test_soirees_url_is_used_without_consul(stack):
    stack.linked(stack.book()["id"])


def test_the_link_names_its_request_and_carries_the_token(vhost, worker):
    with FakeSoirees(200) as fake:
        worker(fake.url, SOIREES_TOKEN="jeton-secret")
        vhost.publish(message("s-1"), request_properties("0190b0a0-0000-7000-8000-000000000001"))
        wait_until(fake.links, 60, "the PATCH")
        patch = fake.links()[0]
        assert (patch.method, patch.path) == ("PATCH", "/api/soirees/s-1")
        assert patch.headers["Playlist-Request"] == "0190b0a0-0000-7000-8000-000000000001"
        assert patch.headers["Authorization"] == "Bearer jeton-secret"
        assert patch.headers["Content-Type"].split(";")[0].split("/")[0] == "application"
        assert list(patch.json()) == ["playlistId"]
        wait_until(lambda: vhost.depth()[0] == 0 and vhost.drained(), what="acked")
        assert len(fake.links()) == 1


@pytest.mark.parametrize("properties", [None, pika.BasicProperties(message_id="m-1"),
                                        pika.BasicProperties(message_id="m-1", type="autre.chose")],
                         ids=["bare", "id-only", "other-type"])
def test_messages_of_other_producers_name_no_request(vhost, worker, properties):
    with FakeSoirees(200) as fake:
        worker(fake.url)
        vhost.publish(message("s-1"), properties)
        wait_until(fake.links, 60, "the PATCH")
        assert fake.links()[0].headers["Playlist-Request"] is None


def test_the_id_is_percent_encoded_in_the_link(vhost, worker):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("é/../x?y#z %"))
        wait_until(fake.links, 60, "the PATCH")
        assert fake.links()[0].path == "/api/soirees/%C3%A9%2F..%2Fx%3Fy%23z%20%25"
        assert made_for(playlists, "é/../x?y#z %")["soireeId"] == "é/../x?y#z %"


@pytest.mark.parametrize("answer", [200, 204, 409, 404], ids=str)
def test_these_answers_end_the_link(vhost, worker, answer):
    with FakeSoirees(answer) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made_for(playlists, "s-1")
        wait_until(fake.links, 60, "the PATCH")
        holds_for(lambda: len(fake.links()) == 1, 4, "one PATCH alone")
        playlists.stop()
        assert vhost.depth() == (0, 0)


@pytest.mark.parametrize("answer", [405, (404, b"<html>nothing here</html>", "text/html")],
                         ids=["405", "404-html"])
def test_a_service_without_patch_gets_one_put(vhost, worker, answer):
    """The Node.js version links by PUT."""
    with FakeSoirees(answer, 200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        wait_until(lambda: len(fake.links()) == 2, 60, "PATCH, then PUT")
        put = fake.links()[1]
        assert (put.method, put.path, put.json()) == ("PUT", "/api/soirees/s-1", {"playlistId": made["id"]})
        holds_for(lambda: len(fake.links()) == 2, 4, "one PUT alone")


@pytest.mark.parametrize("answer", [500, 503, 429, 401, 403, 422, 400, (302, b"", "text/html")], ids=str)
def test_other_answers_are_tried_again(vhost, worker, answer):
    with FakeSoirees(answer, answer, 200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        wait_until(lambda: len(fake.links()) == 3, 90, "the third try")
        assert {p.json()["playlistId"] for p in fake.links()} == {made["id"]}
        holds_for(lambda: len(fake.links()) == 3, 2, "no fourth")


@pytest.mark.slow
def test_a_link_waits_for_soirees_and_the_message_does_not(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    stack.soirees.stop()
    stack.lagmaster.release()
    playlist = made_for(stack.playlists, made["id"])
    stack.drained()
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0)
    stack.playlists.start()  # the pending link is stored
    stack.soirees.start()
    found, linked = stack.linked(made["id"], timeout=90)
    assert linked == playlist
    assert len(stack.lagmaster.calls()) == 1


def test_a_link_to_nowhere_holds_up_nobody(vhost, worker):
    """prefetch 1 and no soirees service: the next message is handled all the same."""
    playlists = worker()
    for number in range(3):
        vhost.publish(message("s-%d" % number), request_properties("m-%d" % number))
    for number in range(3):
        made_for(playlists, "s-%d" % number, timeout=90)


# ---- messages that can never succeed, and those that can

@pytest.mark.parametrize("body", [
    b"", b"not json", b"{", b"[]", b"null", b"5", b'"x"', b"{}", b'{"soireeId":null}', b'{"soireeId":""}',
    b'{"soireeId":5}', b'{"soireeId":["x"]}', b'{"soireeId":"x","style":5}',
    b'{"soireeId":"x","style":["a"]}', b'{"soireeId":"x","clientId":{}}',
    b'{"soireeId":"x","timestamp":[]}', b'{"soireeId":"\xff"}', b'{"soireeId":"a","soireeId":"b"}',
    b'{"soireeId":"a\\u0000"}', json.dumps(message("x" * 129)).encode(),
    json.dumps(message("x", "y" * 65)).encode(),
    json.dumps(message("x", clientId="y" * 66000)).encode()], ids=lambda b: "%.30r" % b)
def test_a_hopeless_message_is_copied_to_the_dead_letters(stack, body):
    stack.vhost.publish(body, pika.BasicProperties(message_id="m-1", content_type="application/json"))
    dead = stack.vhost.take(DEAD_QUEUE)[0]
    assert dead.body == body
    assert dead.properties.message_id == "m-1"
    assert dead.properties.delivery_mode == 2
    assert dead.headers["x-original-queue"] == QUEUE
    assert isinstance(dead.headers["x-error"], str) and dead.headers["x-error"]
    assert TIMESTAMP.match(dead.headers["x-failed-at"])
    record = stack.vhost.queue(DEAD_QUEUE)
    assert record["durable"] is True and record["arguments"] == {}
    stack.linked(stack.book()["id"])  # and the worker goes on
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0)
    assert stack.vhost.depth(DEAD_QUEUE) == (0, 0)
    assert len(stack.lagmaster.calls()) == 1


def test_a_hopeless_message_without_properties_is_copied_too(stack):
    stack.vhost.publish(b"not json")
    dead = stack.vhost.take(DEAD_QUEUE)[0]
    assert (dead.body, dead.headers["x-original-queue"]) == (b"not json", QUEUE)


@pytest.mark.parametrize("body, style", [
    ({"soireeId": "s-1"}, "disco"), (message("s-1", None), "disco"), (message("s-1", ""), "disco"),
    (message("s-1", "funk", clientId=123), "funk"),
    (message("s-1", "funk", clientId=None, timestamp=None), "funk"),
    (message("s-1", "funk", timestamp=1764671400000, extra={"a": [1]}), "funk"),
    (message("s" * 128), "disco"), (message("é" * 128, "🎷" * 64), "🎷" * 64)], ids=lambda v: "%.40s" % v)
def test_unusual_messages_are_accepted(worker, vhost, lagmaster, body, style):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(body)
        assert made_for(playlists, body["soireeId"])["stylesMusicaux"] == [style]
        assert [call["style"] for call in lagmaster.calls()] == [style]
    assert vhost.depth(DEAD_QUEUE) == (0, 0)


# ---- once, whatever is delivered

def test_a_second_delivery_makes_no_second_playlist(vhost, worker, lagmaster):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        for _ in range(3):
            vhost.publish(message("s-1"), request_properties("m-1"))
        vhost.publish(message("s-2"), request_properties("m-2"))
        made_for(playlists, "s-2")  # one worker: everything before is done
        assert playlists_of(playlists, "s-1") == [made]
        assert len(lagmaster.calls()) == 2
        playlists.stop()
        assert vhost.depth() == (0, 0)


def test_a_message_without_an_id_twice_makes_one_playlist(vhost, worker, lagmaster):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        for _ in range(2):
            vhost.publish(message("s-1"))
        vhost.publish(message("s-2"))
        made_for(playlists, "s-2")
        made_for(playlists, "s-1")
        assert len(lagmaster.calls()) == 2


def test_another_request_of_the_same_soiree_makes_another_playlist(vhost, worker):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1", "disco"), request_properties("m-1"))
        vhost.publish(message("s-1", "rock"), request_properties("m-2"))
        wait_until(lambda: len(playlists_of(playlists, "s-1")) == 2, 60, "two playlists")
        assert [p["stylesMusicaux"] for p in playlists_of(playlists, "s-1")] == [["rock"], ["disco"]]


@pytest.mark.parametrize("message_id", ["m-1", None])
def test_a_second_delivery_waits_for_the_first(vhost, worker, lagmaster, message_id):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url, PLAYLIST_WORKERS=2)
        lagmaster.control(mode="hang")
        for _ in range(2):
            vhost.publish(message("s-1"), request_properties(message_id))
        waiting(lagmaster)
        wait_until(lambda: vhost.depth() == (0, 2), what="both are delivered")
        holds_for(lambda: lagmaster.count == 1, 1.5, "one call")
        lagmaster.release()
        made_for(playlists, "s-1")
        wait_until(vhost.drained, 60, "both are acked")
        assert len(playlists_of(playlists, "s-1")) == 1
        assert lagmaster.count == 1
        playlists.stop()
        assert vhost.depth() == (0, 0)


def test_a_playlist_made_by_hand_does_not_stand_for_a_generated_one(vhost, worker):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        ok_json(playlists.post("/api/playlists", {"nom": "À la main", "soireeId": "s-1"}), 201)
        vhost.publish(message("s-1"))
        wait_until(lambda: len(playlists_of(playlists, "s-1")) == 2, 60, "a generated one beside it")
        assert [p["origine"] for p in playlists_of(playlists, "s-1")] == ["lagmaster-pro", "manuelle"]


def test_a_deleted_playlist_is_not_made_again_by_a_redelivery(vhost, worker, lagmaster):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        assert playlists.delete("/api/playlists/" + made["id"]).status_code == 204
        vhost.publish(message("s-1"), request_properties("m-1"))
        vhost.publish(message("s-2"), request_properties("m-2"))
        made_for(playlists, "s-2")
        assert playlists_of(playlists, "s-1") == []
        assert lagmaster.count == 2


def test_deleting_a_playlist_cancels_its_pending_link(vhost, worker):
    with FakeSoirees(503) as fake:
        playlists = worker(fake.url)
        vhost.publish(message("s-1"), request_properties("m-1"))
        made = made_for(playlists, "s-1")
        wait_until(fake.links, 60, "the first try")
        assert playlists.delete("/api/playlists/" + made["id"]).status_code == 204
        tried = len(fake.links())
        # one try may have been on its way
        holds_for(lambda: len(fake.links()) <= tried + 1, 6, "the link is given up")


# ---- stops and crashes

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
    wait_until(lambda: stack.vhost.queue()["message_stats"].get("redeliver") == 1, what="a redelivery",
               interval=0.5)
    stack.lagmaster.release()
    stack.linked(made["id"])
    assert stack.lagmaster.count == 2
    stack.drained()


def test_a_stop_lets_a_call_end_within_the_grace(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    stack.playlists.begin_stop()
    wait_until(lambda: stack.vhost.depth()[1] == 0, what="it no longer consumes")
    assert stack.playlists.running
    stack.lagmaster.release()
    stack.playlists.end_stop()
    assert stack.vhost.depth() == (0, 0)
    stack.playlists.start()
    stack.linked(made["id"])
    assert stack.lagmaster.count == 1


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


# ---- a database that somebody else holds for a while

class Lock:
    """Holds the write lock of an SQLite file, as a backup or a person with the command line does."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path, timeout=20, isolation_level=None)

    def __enter__(self):
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_exc):
        self.connection.execute("ROLLBACK")
        self.connection.close()


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


def test_the_link_is_tried_again_while_the_soirees_database_is_locked(stack):
    stack.lagmaster.control(mode="hang")
    made = stack.book()
    waiting(stack.lagmaster)
    with Lock(stack.soirees.database):
        stack.lagmaster.release()
        made_for(stack.playlists, made["id"])
    stack.linked(made["id"], timeout=90)
