"""From the outbox to the queue: a row is done when the broker has its message, and not before."""

import json
import os
import sqlite3
import time
import uuid

import pytest
from harness.broker import QUEUE, USER, quote
from harness.wait import holds_for, wait_until
from promise import Load, calls_by_style, check_kept, read_database
from sabotage import ConfirmProxy, memory_alarm, peak_rss_kib, release_build, without_sanitizers  # noqa: F401

pytestmark = pytest.mark.slow
UNSENT = "SELECT count(*) FROM outbox WHERE again_ms IS NULL"


def unsent(soirees):
    return read_database(soirees.database, UNSENT)[0][0]


def peek(vhost, count):
    """The message ids of what is in the queue; it stays there."""
    connection = vhost.connect()
    channel = connection.channel()
    try:
        return [channel.basic_get(QUEUE)[1].message_id for _ in range(count)]
    finally:
        connection.close()


# ---- confirms

def test_a_message_whose_confirm_is_lost_is_sent_twice_and_counts_once(make_stack):
    """The broker has it; the connection ends before anybody is told."""
    stack = make_stack()
    cut = []

    def judge(message_id):
        cut.append(message_id)
        return "cut" if len(cut) == 1 else "ack"
    with ConfirmProxy(stack.vhost.broker.port, judge) as proxy:
        stack.soirees.settings["RABBITMQ_PORT"] = proxy.port
        stack.soirees.start()
        made = stack.book()
        wait_until(lambda: stack.vhost.depth()[0] == 2, 60, "the message is there twice")
        wait_until(lambda: unsent(stack.soirees) == 0, 60, "confirmed")
        assert peek(stack.vhost, 2) == proxy.published == [cut[0]] * 2
        stack.playlists.start()
        check_kept(stack, [made])
    assert stack.lagmaster.count == 1


def test_a_window_of_lost_confirms_is_sent_again(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 4})
    asked = []

    def judge(message_id):
        asked.append(message_id)
        return "cut" if len(asked) in (3, 10, 30) else "ack"
    with ConfirmProxy(stack.vhost.broker.port, judge) as proxy:
        stack.soirees.settings["RABBITMQ_PORT"] = proxy.port
        stack.soirees.start()
        made = [stack.book(styleMusical="style-%d" % n) for n in range(60)]
        wait_until(lambda: unsent(stack.soirees) == 0, 90, "all are confirmed")
        assert proxy.cuts == 3
        assert len(set(proxy.published)) == 60 < len(proxy.published)
        assert 60 <= stack.vhost.depth()[0] <= len(proxy.published), "some were cut off on their way there"
        stack.playlists.start()
        check_kept(stack, made)
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_a_confirm_that_never_comes_is_not_waited_for_for_ever(make_stack):
    """After a minute without any, the connection counts as broken and what is unconfirmed is sent again."""
    stack = make_stack()
    asked = []

    def judge(message_id):
        asked.append(message_id)
        return "lose" if len(asked) == 1 else "ack"
    with ConfirmProxy(stack.vhost.broker.port, judge) as proxy:
        stack.soirees.settings["RABBITMQ_PORT"] = proxy.port
        stack.soirees.start()
        made = stack.book()
        wait_until(lambda: asked, 60, "the message is sent")
        wait_until(lambda: unsent(stack.soirees) == 0, 120, "it is sent again, and confirmed", interval=0.5)
        assert proxy.connections == 2 and proxy.published == [asked[0]] * 2
        assert "❌ Erreur connexion RabbitMQ: aucune confirmation" in stack.soirees.log()
        stack.playlists.start()
        check_kept(stack, [made])
    assert stack.lagmaster.count == 1


def test_a_message_that_the_broker_refuses_holds_up_none_behind_it(make_stack):
    stack = make_stack()
    forgiven = []
    with ConfirmProxy(stack.vhost.broker.port,
                      lambda message_id: "nack" if message_id == (poison or message_id) and not forgiven
                      else "ack") as proxy:
        stack.soirees.settings["RABBITMQ_PORT"] = proxy.port
        poison = None
        stack.soirees.start()
        wait_until(lambda: stack.vhost.connections(), 60, "connected")
        made = [stack.book()]
        poison = read_database(stack.soirees.database, "SELECT message_id FROM outbox")[0][0]
        wait_until(lambda: poison in proxy.published, 60, "it is published")
        made += [stack.book() for _ in range(30)]
        wait_until(lambda: unsent(stack.soirees) <= 1 and len(set(proxy.published)) == 31, 60, "the others are sent")
        first = time.monotonic()
        wait_until(lambda: proxy.published.count(poison) >= 6, 60, "it is tried again and again")
        assert time.monotonic() - first < 60 and proxy.published.count(poison) < 30, "with a pause in between"
        forgiven.append(True)
        wait_until(lambda: unsent(stack.soirees) == 0, 90, "in the end it is taken")
        others = [message_id for message_id in proxy.published if message_id != poison]
        assert len(others) == len(set(others)) == 30
        stack.playlists.start()
        check_kept(stack, made)
    assert stack.lagmaster.count == 31


def test_a_queue_that_takes_no_more_delays_and_loses_nothing(make_stack, broker):
    """reject-publish: the broker's own refusals."""
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 2})
    stack.vhost.declare()
    broker.api("PUT", "/policies/%s/short" % quote(stack.vhost.name), {
        "pattern": ".*", "apply-to": "queues", "definition": {"max-length": 2, "overflow": "reject-publish"}})
    wait_until(lambda: stack.vhost.queue().get("policy") == "short", 60, "the policy")
    stack.soirees.start()
    made = [stack.book(styleMusical="style-%d" % n) for n in range(20)]
    wait_until(lambda: unsent(stack.soirees) == 18, 60, "two are taken")
    holds_for(lambda: unsent(stack.soirees) == 18, 3, "the others are kept")
    stack.playlists.start()
    check_kept(stack, made)
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_more_refusals_than_the_relay_remembers_are_all_sent_in_the_end(make_stack, broker):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 20})
    stack.vhost.declare()
    policy = "/policies/%s/short" % quote(stack.vhost.name)
    broker.api("PUT", policy, {"pattern": ".*", "apply-to": "queues",
                               "definition": {"max-length": 2, "overflow": "reject-publish"}})
    wait_until(lambda: stack.vhost.queue().get("policy") == "short", 60, "the policy")
    stack.soirees.start()
    load = Load(stack.soirees.url, threads=4, most=1200).start().join()
    wait_until(lambda: unsent(stack.soirees) == 1198, 60, "two are taken")
    holds_for(lambda: unsent(stack.soirees) == 1198, 5, "the others are refused, all of them")
    broker.api("DELETE", policy)
    wait_until(lambda: unsent(stack.soirees) == 0, 120, "all are sent")
    stack.playlists.start()
    check_kept(stack, load.acknowledged.values())
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_a_start_during_an_alarm_waits_for_its_end(own_broker, make_stack):
    """A message to send, another one to send again, and a broker that reads nothing from publishers."""
    own_broker.start()
    stack = make_stack(vhost=own_broker.root(), soirees={"REQUEST_AGAIN_AFTER_S": 1})
    stack.soirees.start()
    made = [stack.book()]
    wait_until(lambda: unsent(stack.soirees) == 0, 30, "sent")
    stack.playlists.start()
    wait_until(lambda: stack.soiree(made[0]["id"])["playlistId"], 60, "linked")
    stack.playlists.stop()
    made.append(stack.book())
    wait_until(lambda: unsent(stack.soirees) == 0, 30, "sent, and soon to be sent again")
    stack.vhost.take()
    with memory_alarm(own_broker):
        made.append(stack.book())
        stack.soirees.stop()
        stack.soirees.start()
        wait_until(lambda: stack.soirees.health()["components"]["rabbitmq"]["state"] == "blocked", 30, "blocked")
        holds_for(lambda: "❌ Erreur connexion" not in stack.soirees.log(), 13, "one connection, which waits")
    stack.playlists.start()
    check_kept(stack, made)


# ---- returns

def allow(vhost, configure):
    vhost.broker.api("PUT", "/permissions/%s/%s" % (quote(vhost.name), USER),
                     {"configure": configure, "write": ".*", "read": ".*"})


def test_what_is_returned_is_kept_until_there_is_a_queue(make_stack):
    """The queue was deleted, and soirees may not declare another one: nothing counts as sent."""
    stack = make_stack()
    stack.soirees.start()
    wait_until(lambda: stack.vhost.queue() is not None, 60, "the queue")
    stack.vhost.delete_queue()
    allow(stack.vhost, "^$")
    made = [stack.book(styleMusical="style-%d" % n) for n in range(10)]
    wait_until(lambda: "⚠️ Message non routé" in stack.soirees.log(), 60, "a return is reported")
    holds_for(lambda: unsent(stack.soirees) == 10, 5, "none counts as sent")
    assert stack.soirees.health()["status"] == "healthy"
    allow(stack.vhost, ".*")
    wait_until(lambda: unsent(stack.soirees) == 0, 90, "all are sent")
    assert stack.vhost.depth()[0] == 10
    stack.playlists.start()
    check_kept(stack, made)
    assert stack.lagmaster.count == 10


# ---- a long outbox

def fill_outbox(soirees, number):
    """Bookings whose messages wait to be sent, written the way a broker's long absence leaves them."""
    connection = sqlite3.connect(soirees.database)
    body = json.dumps({"soireeId": "x" * 36, "clientId": "client123", "style": "disco",
                       "timestamp": "2025-12-02T10:30:00.000Z"})
    for _ in range(number):
        soiree, request = str(uuid.uuid4()), str(uuid.uuid4())
        row = connection.execute(
            "INSERT INTO soirees (version, id, client_id, date, lieu, nombre_invites, budget, style, statut,"
            " request_id, created_ms, updated_ms) VALUES (1, ?, 'c', '2025-12-25', 'Paris', 50, 0, 'disco',"
            " 'confirmée', ?, 1, 0)", (soiree, request))
        connection.execute("INSERT INTO outbox (soiree_seq, message_id, body, traceparent) VALUES (?, ?, ?, ?)",
                           (row.lastrowid, request, body, "00-%s-%s-01" % ("a" * 32, "b" * 16)))
    connection.commit()
    connection.close()


def drain(soirees, number):
    """Start with that many unsent messages; the peak of the memory when all are sent, in KiB."""
    soirees.start()
    soirees.stop()  # the schema is there
    fill_outbox(soirees, number)
    before = soirees.child.process.pid
    soirees.start()
    assert soirees.pid != before
    wait_until(lambda: unsent(soirees) == 0, 120 + number / 500, "%d messages are sent" % number, interval=0.2)
    peak = peak_rss_kib(soirees.pid)
    soirees.stop()
    return peak


@pytest.mark.sqlite
def test_a_long_backlog_drains_in_constant_memory(vhost, daemons, without_sanitizers):  # noqa: F811
    """By hand: BACKLOG=1000000."""
    number = int(os.environ.get("BACKLOG", "20000"))
    few, many = (daemons.new("soirees", vhost.settings()) for _ in range(2))
    small_peak = drain(few, 5_000)
    large_peak = drain(many, number)
    assert vhost.depth()[0] == 5_000 + number
    told = "%d KiB for 5,000, %d KiB for %d" % (small_peak, large_peak, number)
    print(told)
    assert large_peak - small_peak < 3 * 1024, told


# ---- what nobody answers is sent again

def test_a_purged_queue_heals(make_stack):
    """One request at a time, as soon as the one before it is in a worker's hands."""
    stack = make_stack(soirees={"REQUEST_AGAIN_AFTER_S": 3}, playlists={"PLAYLIST_WORKERS": 4})
    stack.soirees.start()
    made = [stack.book(styleMusical="style-%d" % n) for n in range(300)]
    wait_until(lambda: stack.vhost.depth()[0] == 300, 60, "the messages")
    requests = read_database(stack.soirees.database, "SELECT message_id FROM outbox ORDER BY seq")
    stack.vhost.broker.api("DELETE", "/queues/%s/%s/contents" % (quote(stack.vhost.name), QUEUE))
    holds_for(lambda: stack.vhost.depth()[0] == 0, 6, "nothing is sent while nobody listens")
    stack.playlists.start()
    check_kept(stack, made)
    known = read_database(stack.playlists.database, "SELECT message_id FROM requests")
    assert sorted(known) == sorted(requests), "the same requests as before"
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_nothing_is_sent_again_while_messages_wait_in_the_queue(make_stack):
    stack = make_stack(soirees={"REQUEST_AGAIN_AFTER_S": 2}).start()
    stack.lagmaster.control(mode="hang")
    made = [stack.book(styleMusical="style-%d" % n) for n in range(3)]
    wait_until(lambda: stack.lagmaster.waiting == 1 and stack.vhost.depth()[0] == 2, 60, "one is being made")
    holds_for(lambda: stack.vhost.depth()[0] == 2, 9, "two wait, and no third")
    stack.lagmaster.control()
    stack.lagmaster.release()
    check_kept(stack, made)
    assert set(calls_by_style(stack.lagmaster).values()) == {1}


def test_the_pause_before_it_is_sent_again_doubles(vhost, daemons):
    soirees = daemons.start("soirees", vhost.settings(), REQUEST_AGAIN_AFTER_S=2)
    connection = vhost.connect()
    channel = connection.channel()
    channel.queue_declare(QUEUE, passive=True)
    got = []

    def take(_channel, _method, properties, body):
        got.append((time.monotonic(), properties.message_id, body))
    channel.basic_consume(QUEUE, take, auto_ack=True)
    assert soirees.post("/api/soirees", {"clientId": "c", "date": "2025-12-25", "lieu": "Paris",
                                         "nombreInvites": 5}).status_code == 201

    def fourth():
        connection.process_data_events(0.1)
        return len(got) >= 4
    wait_until(fourth, 120, "sent once, and three times again")
    connection.close()
    assert len({(message_id, body) for _at, message_id, body in got}) == 1
    pauses = [later[0] - earlier[0] for earlier, later in zip(got, got[1:])]
    for pause, least in zip(pauses, (2, 4, 8)):
        assert least - 0.2 < pause < least + 10, pauses
