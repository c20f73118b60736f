"""What the worker makes of a message: the hopeless, the unusual, and the one that comes twice."""

import json

import pika
import pytest
from harness.booking import made_for, message, playlists_of, request_properties, waiting
from harness.broker import DEAD_QUEUE, QUEUE
from harness.http import TIMESTAMP, ok_json
from harness.imitations import FakeSoirees
from harness.wait import holds_for, wait_until

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


def test_a_hopeless_message_of_any_size_is_copied_as_far_as_it_goes(vhost, worker):
    worker()
    vhost.publish(b"x" * (3 << 20), pika.BasicProperties(message_id="m-1", correlation_id="c-1", delivery_mode=2))
    dead = vhost.take(DEAD_QUEUE)[0]
    assert dead.body == b"x" * (1 << 20) and dead.headers["x-body-size"] == str(3 << 20)
    assert (dead.properties.message_id, dead.properties.correlation_id) == ("m-1", "c-1")


@pytest.mark.threads
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


@pytest.mark.threads
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


def test_restarts_do_not_wear_a_message_out_on_a_quorum_queue(vhost, worker, lagmaster):
    """Each delivery that ends with its connection counts, and the queue drops what is over its limit."""
    vhost.declare(QUEUE, **{"x-queue-type": "quorum", "x-delivery-limit": 5})
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url, SHUTDOWN_GRACE_MS=0)
        lagmaster.control(mode="hang")
        vhost.publish(message("s-1"), request_properties("m-1"))
        for begun in range(1, 9):
            wait_until(lambda: lagmaster.count == begun, 60, "call %d" % begun)
            playlists.restart()
        lagmaster.control(mode="ok")
        lagmaster.release()
        made_for(playlists, "s-1")
        wait_until(vhost.drained, 60, "it is acked")
        assert playlists.log_has("remis en fin de queue")
        assert len(playlists_of(playlists, "s-1")) == 1
