"""In the place of the Node.js version: its messages, its worker, its queue, its clients."""

import json
import time

import pika
import pytest
from harness.booking import BOOKING, book, playlists_of, soiree
from harness.broker import DEAD_QUEUE, QUEUE
from harness.http import ok_json
from harness.wait import wait_until


def node_message(soiree_id, style="disco"):
    """As the Node.js version publishes it."""
    return {"soireeId": soiree_id, "clientId": "client123", "style": style,
            "timestamp": "2025-12-02T10:30:00.000Z"}


def test_a_message_without_any_property_is_handled(stack):
    made = stack.book(playlistId="en-attendant")
    stack.vhost.publish(node_message(made["id"]), pika.BasicProperties())
    wait_until(lambda: stack.playlists_of(made["id"]), 60, "its playlist")
    playlist = stack.playlists_of(made["id"])[0]
    # without a request of its own it links as the original's worker does: whatever was there
    wait_until(lambda: stack.soiree(made["id"])["playlistId"] == playlist["id"], 60, "the link")
    stack.drained()


def test_the_original_worker_can_take_our_messages(vhost, daemons):
    """It reads the four names of the body, acks, and links by PUT."""
    soirees = daemons.start("soirees", vhost.settings())
    made = book(soirees)
    connection = vhost.connect()
    channel = connection.channel()
    wait_until(lambda: vhost.depth()[0] == 1, what="the message")
    channel.queue_declare(QUEUE, durable=True)  # as it does at its start
    method, _properties, body = channel.basic_get(QUEUE)
    received = json.loads(body)
    assert received == {**node_message(made["id"]), "timestamp": received["timestamp"]}
    channel.basic_ack(method.delivery_tag)
    connection.close()
    linked = ok_json(soirees.put("/api/soirees/" + received["soireeId"], {"playlistId": "1764671400123"}))
    assert linked == {**made, "playlistId": "1764671400123", "updatedAt": linked["updatedAt"]}


def test_put_with_a_playlist_links_and_keeps_the_rest(stack):
    made = stack.book(playlistId="p0")
    linked = ok_json(stack.soirees.put("/api/soirees/" + made["id"], {"playlistId": "x"}))
    assert linked == {**made, "playlistId": "x", "updatedAt": linked["updatedAt"]}


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "quorum"}, {"x-dead-letter-exchange": ""},
                                       {"x-max-length": 1000, "x-message-ttl": 3600000}],
                         ids=["plain", "quorum", "dead-letter", "bounded"])
def test_a_queue_that_somebody_declared_before_is_used_as_it_is(make_stack, vhost, arguments):
    vhost.declare(QUEUE, **arguments)
    wait_until(vhost.queue, what="the queue")
    stack = make_stack().start()
    stack.linked(stack.book()["id"])
    record = vhost.queue()
    assert {k: v for k, v in record["arguments"].items() if k != "x-queue-type"} == \
           {k: v for k, v in arguments.items() if k != "x-queue-type"}
    assert record["type"] == arguments.get("x-queue-type", "classic")
    stack.vhost.publish(b"hopeless")
    assert stack.vhost.take(DEAD_QUEUE)[0].body == b"hopeless"


def test_a_dead_letter_queue_that_somebody_declared_is_used_as_it_is(make_stack, vhost):
    vhost.declare(DEAD_QUEUE, **{"x-max-length": 10})
    stack = make_stack().start()
    stack.vhost.publish(b"hopeless")
    assert stack.vhost.take(DEAD_QUEUE)[0].body == b"hopeless"


def test_a_quorum_queue_is_declared_where_it_is_asked_for(make_stack, vhost):
    stack = make_stack(soirees={"RABBITMQ_QUEUE_TYPE": "quorum"},
                       playlists={"RABBITMQ_QUEUE_TYPE": "quorum"}).start()
    stack.linked(stack.book()["id"])
    for queue in (QUEUE, DEAD_QUEUE):
        assert wait_until(lambda: vhost.queue(queue), what="the queue")["type"] == "quorum"


def test_messages_that_wait_in_the_queue_already_are_handled(make_stack, vhost):
    vhost.declare()
    for number in range(3):
        vhost.publish(node_message("176467140000%d" % number))
    stack = make_stack().start()
    for number in range(3):
        key = "176467140000%d" % number
        playlist = wait_until(lambda: stack.playlists_of(key), 60, "its playlist")[0]
        assert playlist["soireeId"] == key
    stack.drained()


def test_lists_are_bare_arrays_and_errors_have_error(stack):
    for daemon, path, text in ((stack.soirees, "/api/soirees", "Soirée non trouvée"),
                               (stack.playlists, "/api/playlists", "Playlist non trouvée")):
        assert ok_json(daemon.get(path)) == []
        assert daemon.get(path + "/1764671400000").json()["error"] == text


def test_the_two_curl_commands_of_the_specification(stack):
    headers = {"Content-Type": "application/json", "User-Agent": "curl/7.88.1"}
    body = json.dumps(BOOKING).encode()
    made = ok_json(stack.soirees.post("/api/soirees", data=body, headers=headers), 201)
    stack.linked(made["id"])
    listed = ok_json(stack.playlists.get("/api/playlists"))
    assert [(p["nom"], p["soireeId"]) for p in listed] == [("Metaverse Collapse Disco", made["id"])]


def test_another_service_name_is_what_health_and_messages_say(vhost, daemons):
    soirees = daemons.start("soirees", vhost.settings(), SERVICE_NAME="mes-soirees")
    assert soirees.health()["service"] == "mes-soirees"
    book(soirees)
    assert vhost.take()[0].properties.app_id == "mes-soirees"


def test_rabbitmq_may_be_named_by_url(vhost, daemons, lagmaster):
    dead = "amqp://nobody:x@127.0.0.1:1/"
    alive = "amqp://admin:admin123@127.0.0.1:%d/%s" % (vhost.broker.port, vhost.name)
    settings = {"RABBITMQ_URL": dead + "," + alive, "RABBITMQ_HOST": "unused.invalid"}
    soirees = daemons.start("soirees", settings)
    playlists = daemons.start("playlists", settings, LAGMASTER_URL=lagmaster.url, SOIREES_URL=soirees.url)
    made = book(soirees)
    wait_until(lambda: soiree(soirees, made["id"])["playlistId"], 60, "linked")
    assert len(playlists_of(playlists, made["id"])) == 1


@pytest.mark.threads
@pytest.mark.slow
def test_two_hundred_bookings_at_once_get_two_hundred_playlists(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 50}).start()
    stack.lagmaster.control(latency_ms=100)
    made = [stack.book(lieu="Lieu %d" % n)["id"] for n in range(200)]
    begin = time.monotonic()
    for key in made:
        stack.linked(key, timeout=120)
    assert stack.lagmaster.count == 200, "one call a booking (%.1f s)" % (time.monotonic() - begin)
    stack.drained()
