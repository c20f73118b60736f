"""What befalls a broker: afterwards all that was booked has its one playlist, and new bookings get theirs."""

import pytest
from harness.booking import playlists_of, soiree
from harness.broker import QUEUE
from harness.wait import wait_until

RECOVERY_S = 120  # a reconnect may wait its backoff of up to 30 s, on both sides
pytestmark = pytest.mark.slow


@pytest.fixture
def fragile(own_broker, make_stack):
    """A stack on a broker that can be killed."""
    own_broker.start()
    return make_stack(vhost=own_broker.root(), playlists={"PLAYLIST_WORKERS": 4}).start()


def all_linked(stack, made):
    for key in made:
        stack.linked(key, timeout=RECOVERY_S)


def test_a_killed_broker_is_found_again(fragile, own_broker):
    made = [fragile.book()["id"]]
    all_linked(fragile, made)
    own_broker.kill()
    made.append(fragile.book()["id"])  # stored, whatever the broker does
    own_broker.start()
    fragile.consuming()
    made.append(fragile.book()["id"])
    all_linked(fragile, made)
    assert fragile.lagmaster.count == 3


def test_a_broker_that_dies_amid_the_stream_loses_nothing(fragile, own_broker):
    fragile.lagmaster.control(latency_ms=20)
    made = []
    for round_number in range(2):
        made += [fragile.book(lieu="avant")["id"] for _ in range(40)]
        wait_until(lambda: fragile.lagmaster.count > 80 * round_number + 10, 60,
                   "the worker is amid its work")
        own_broker.kill()
        made += [fragile.book(lieu="pendant")["id"] for _ in range(40)]
        own_broker.start()
    all_linked(fragile, made)
    wait_until(lambda: fragile.vhost.drained(), 60, "the queue is drained")


@pytest.mark.threads
def test_bookings_made_while_the_broker_is_down_all_arrive_once(fragile, own_broker):
    own_broker.stop()
    made = [fragile.book(lieu="Lieu %d" % n)["id"] for n in range(60)]
    assert all(fragile.soiree(key)["playlistId"] is None for key in made)
    own_broker.start()
    all_linked(fragile, made)
    assert fragile.lagmaster.count == 60


@pytest.mark.threads
def test_connections_closed_by_an_administrator_come_back(stack):
    made = [stack.book()["id"]]
    all_linked(stack, made)
    for _ in range(3):
        wait_until(lambda: len(stack.vhost.connections()) >= 2, 60, "both are connected")
        stack.vhost.close_connections()
        made.append(stack.book()["id"])
    all_linked(stack, made)
    stack.drained()


@pytest.mark.threads
def test_a_call_in_progress_survives_its_connection(stack):
    """What the first delivery asked for serves the redelivery: one call, one playlist, and no stale ack."""
    stack.lagmaster.control(mode="hang")
    made = stack.book()["id"]
    wait_until(lambda: stack.lagmaster.waiting == 1, 60, "the call")
    wait_until(lambda: len(stack.vhost.connections()) >= 2, 60, "both are in the management API")
    stack.vhost.close_connections()
    stack.consuming()
    wait_until(lambda: stack.vhost.depth() == (0, 1), 60, "the message is delivered again")
    stack.lagmaster.control()
    stack.lagmaster.release()
    all_linked(stack, [made])
    assert stack.lagmaster.count == 1
    stack.drained()
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0)


@pytest.mark.threads
def test_a_deleted_queue_is_declared_again(stack):
    all_linked(stack, [stack.book()["id"]])
    wait_until(lambda: stack.vhost.queue() is not None, what="the queue is known to the management API")
    stack.vhost.delete_queue(QUEUE)
    all_linked(stack, [stack.book()["id"]])
    record = wait_until(stack.vhost.queue, 30, "the queue")
    assert record["durable"] is True and record["arguments"] == {}


def test_a_queue_deleted_with_messages_in_it_does_not_stop_what_follows(vhost, make_stack):
    stack = make_stack()
    stack.soirees.start()
    lost = stack.book()["id"]
    wait_until(lambda: vhost.depth()[0] == 1, 60, "the message")
    wait_until(lambda: vhost.queue() is not None, what="the queue is known to the management API")
    vhost.delete_queue(QUEUE)
    kept = stack.book()["id"]
    wait_until(lambda: vhost.depth()[0] == 1, 60, "a new queue with the new message")
    stack.playlists.start()
    all_linked(stack, [kept])
    assert soiree(stack.soirees, lost)["playlistId"] is None
    assert playlists_of(stack.playlists, lost) == []


def test_a_refused_login_is_tried_again_until_it_is_let_in(own_broker, daemons):
    own_broker.start()
    settings = {**own_broker.root().settings(), "RABBITMQ_USER": "plus-tard",
                "RABBITMQ_PASS": "secret-tardif"}
    soirees = daemons.start("soirees", settings)
    wait_until(lambda: "❌ Erreur connexion RabbitMQ" in soirees.log(), what="the refusal")
    assert soirees.health()["status"] == "healthy"
    own_broker.api("PUT", "/users/plus-tard", {"password": "secret-tardif", "tags": ""})
    own_broker.api("PUT", "/permissions/%2F/plus-tard", {"configure": ".*", "write": ".*", "read": ".*"})
    wait_until(lambda: own_broker.root().connections(), RECOVERY_S, "it is let in")
    soirees.stop()
    assert "secret-tardif" not in soirees.log()
