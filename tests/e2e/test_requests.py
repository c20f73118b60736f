"""Requests for a playlist: which changes of a soirée ask for one, and whose answer counts."""

import time
from datetime import datetime, timezone

import pytest
from harness.booking import book, soiree
from harness.broker import QUEUE
from harness.http import UUID, ok_json, problem
from harness.wait import holds_for, wait_until

PATH = "/api/soirees/"


@pytest.fixture
def soirees(vhost, daemons):
    """A soirees daemon with a broker and no worker: the tests take the messages."""
    return daemons.start("soirees", vhost.settings())


def etag(soirees, soiree_id):
    return soirees.get(PATH + soiree_id).headers["ETag"]


def link(soirees, soiree_id, playlist_id, request=None):
    """PATCH a playlist in, as the worker does when it names its request."""
    headers = {"Playlist-Request": request} if request else {}
    return soirees.patch(PATH + soiree_id, {"playlistId": playlist_id}, headers=headers)


def no_message(vhost, seconds=1.5):
    """Nothing arrives for a while; a booking that is made afterwards is what comes next."""
    holds_for(lambda: vhost.depth()[0] == 0, seconds, "no message in the queue")


def test_a_booking_asks_for_one_playlist(soirees, vhost):
    made = book(soirees, styleMusical="funk")
    message = vhost.take()[0]
    assert (message.json()["soireeId"], message.json()["style"]) == (made["id"], "funk")
    no_message(vhost)


def test_a_booking_with_a_playlist_asks_for_none(soirees, vhost):
    book(soirees, playlistId="la-mienne")
    other = book(soirees)
    assert vhost.take()[0].json()["soireeId"] == other["id"]
    no_message(vhost)


def test_another_style_asks_again_and_takes_the_playlist_away(soirees, vhost):
    made = book(soirees, styleMusical="disco")
    first = vhost.take()[0]
    ok_json(link(soirees, made["id"], "p1", first.properties.message_id))
    changed = ok_json(soirees.patch(PATH + made["id"], {"styleMusical": "rock"}))
    assert (changed["styleMusical"], changed["playlistId"]) == ("rock", None)
    second = vhost.take()[0]
    assert (second.json()["soireeId"], second.json()["style"]) == (made["id"], "rock")
    assert second.properties.message_id != first.properties.message_id


def test_the_same_style_asks_for_nothing(soirees, vhost):
    made = book(soirees, styleMusical="disco")
    vhost.take()
    before = etag(soirees, made["id"])
    ok_json(soirees.put(PATH + made["id"], {"styleMusical": "disco"}))
    assert etag(soirees, made["id"]) == before
    ok_json(soirees.put(PATH + made["id"], {"styleMusical": "disco", "lieu": "Lyon"}))
    no_message(vhost)


def test_removing_the_playlist_asks_again(soirees, vhost):
    made = book(soirees, playlistId="p0")
    assert ok_json(link(soirees, made["id"], None))["playlistId"] is None
    assert vhost.take()[0].json()["soireeId"] == made["id"]
    ok_json(link(soirees, made["id"], None))
    no_message(vhost)


def test_a_playlist_and_another_style_in_one_change_keep_the_playlist(soirees, vhost):
    """The client's own choice wins over the request that the style would make."""
    made = book(soirees)
    vhost.take()
    changed = ok_json(soirees.patch(PATH + made["id"], {"styleMusical": "rock", "playlistId": "choisie"}))
    assert (changed["styleMusical"], changed["playlistId"]) == ("rock", "choisie")


def test_the_worker_answers_the_current_request_once(soirees, vhost):
    made = book(soirees)
    request = vhost.take()[0].properties.message_id
    assert UUID.match(request)
    linked = ok_json(link(soirees, made["id"], "p1", request))
    assert linked["playlistId"] == "p1" and linked["updatedAt"]
    version = etag(soirees, made["id"])
    assert ok_json(link(soirees, made["id"], "p1", request)) == linked
    assert etag(soirees, made["id"]) == version
    problem(link(soirees, made["id"], "p2", request), 409)
    assert soiree(soirees, made["id"]) == linked


def test_an_older_request_is_refused(soirees, vhost):
    made = book(soirees)
    older = vhost.take()[0].properties.message_id
    ok_json(soirees.patch(PATH + made["id"], {"styleMusical": "rock"}))
    newer = vhost.take()[0].properties.message_id
    problem(link(soirees, made["id"], "older", older), 409)
    assert soiree(soirees, made["id"])["playlistId"] is None
    assert ok_json(link(soirees, made["id"], "newer", newer))["playlistId"] == "newer"
    problem(link(soirees, made["id"], "older", older), 409)


def test_a_request_of_another_soiree_or_of_nobody_is_refused(soirees, vhost):
    first, second = book(soirees), book(soirees)
    requests = {m.json()["soireeId"]: m.properties.message_id for m in vhost.take(count=2)}
    problem(link(soirees, first["id"], "p", requests[second["id"]]), 409)
    problem(link(soirees, first["id"], "p", "0190b0a0-0000-7000-8000-000000000000"), 409)
    problem(link(soirees, first["id"], "p", "nonsense"), 409)
    problem(link(soirees, "nope", "p", requests[first["id"]]), 404)


def test_a_client_choice_cancels_the_request(soirees, vhost):
    made = book(soirees)
    request = vhost.take()[0].properties.message_id
    assert ok_json(link(soirees, made["id"], "choisie"))["playlistId"] == "choisie"
    problem(link(soirees, made["id"], "generee", request), 409)
    assert soiree(soirees, made["id"])["playlistId"] == "choisie"


def test_a_client_may_replace_what_the_worker_linked(soirees, vhost):
    made = book(soirees)
    request = vhost.take()[0].properties.message_id
    ok_json(link(soirees, made["id"], "p1", request))
    assert ok_json(soirees.put(PATH + made["id"], {"playlistId": "p2"}))["playlistId"] == "p2"
    problem(link(soirees, made["id"], "p1", request), 409)


@pytest.fixture
def cut_off(own_broker, daemons):
    """A soirees daemon whose broker is not running yet: what it has to send stays with it."""
    return daemons.start("soirees", own_broker.root().settings()), own_broker


@pytest.mark.slow
def test_what_was_not_sent_yet_is_dropped_when_it_is_no_longer_wanted(cut_off):
    soirees, broker = cut_off
    kept, deleted, chosen, restyled = (book(soirees, lieu="Lieu %d" % n,
                                            styleMusical="disco") for n in range(4))
    assert soirees.delete(PATH + deleted["id"]).status_code == 204
    ok_json(soirees.put(PATH + chosen["id"], {"playlistId": "la-mienne"}))
    for style in ("rock", "funk"):
        ok_json(soirees.patch(PATH + restyled["id"], {"styleMusical": style}))
    last = book(soirees, lieu="dernier")
    broker.start()
    root = broker.root()
    messages = root.take(count=3, timeout=90)
    assert [(m.json()["soireeId"], m.json()["style"]) for m in messages] == [
        (kept["id"], "disco"), (restyled["id"], "funk"), (last["id"], "disco")]
    holds_for(lambda: root.depth()[0] == 0, 2, "nothing else comes")


@pytest.mark.slow
def test_messages_leave_in_the_order_of_the_bookings(cut_off):
    soirees, broker = cut_off
    made = [book(soirees)["id"] for _ in range(50)]
    broker.start()
    assert [m.json()["soireeId"] for m in broker.root().take(count=50, timeout=90)] == made


@pytest.mark.slow
def test_a_request_that_stays_open_is_sent_again(vhost, daemons):
    soirees = daemons.start("soirees", vhost.settings(), REQUEST_AGAIN_AFTER_S=3)
    made = book(soirees)
    lost = vhost.take()[0]  # an operator purges the queue
    holds_for(lambda: vhost.depth()[0] == 0, 6, "nothing is sent again while nobody consumes")
    connection = vhost.connect()
    channel = connection.channel()
    got = []
    channel.basic_consume(QUEUE, lambda _c, method, properties, _b: got.append((time.monotonic(),
                                                                                properties.message_id)),
                          auto_ack=True)

    def again():
        connection.process_data_events(0.1)
        return len(got) >= 2
    wait_until(again, 60, "the request is sent again, twice")
    assert {message_id for _at, message_id in got} == {lost.properties.message_id}
    assert got[1][0] - got[0][0] > 3
    ok_json(link(soirees, made["id"], "p", lost.properties.message_id))
    seen = len(got)
    holds_for(lambda: again() is not None and len(got) == seen, 8, "nothing after the answer")
    connection.close()


def test_the_message_carries_what_consumers_rely_on(soirees, vhost):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = soirees.post("/api/soirees", {"clientId": "é🕺", "date": "2025-12-25", "lieu": "Paris",
                                          "nombreInvites": 1,
                                          "styleMusical": "électro \"8\""}, headers={"traceparent": parent})
    made = ok_json(reply, 201)
    message = vhost.take()[0]
    body = message.json()
    assert set(body) == {"soireeId", "clientId", "style", "timestamp"}
    assert (body["soireeId"], body["clientId"], body["style"]) == (made["id"], "é🕺", "électro \"8\"")
    at = datetime.strptime(body["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert len(body["timestamp"]) == 24 and abs((datetime.now(timezone.utc) - at).total_seconds()) < 60
    properties = message.properties
    assert properties.delivery_mode == 2
    assert properties.content_type == "application/json"
    assert properties.type == "soiree.reservee"
    assert properties.app_id == "service-soirees"
    assert UUID.match(properties.message_id)
    version, trace, span, _flags = message.headers["traceparent"].split("-")
    assert (version, trace) == ("00",
                                parent.split("-")[1]) and len(span) == 16 and span != parent.split("-")[2]


def test_the_queue_is_durable_and_has_no_arguments(soirees, vhost):
    book(soirees)
    vhost.take()
    record = wait_until(vhost.queue, what="the queue")
    assert (record["durable"], record["auto_delete"], record["exclusive"], record["arguments"]) == (True,
                                                                                                    False,
                                                                                                    False, {})
