"""W3C trace context: one trace from the request through the outbox, the queue, the API and the PATCH."""

import json
import re
import sqlite3

import pika
import pytest
import requests
from harness.booking import BOOKING
from harness.broker import QUEUE
from harness.http import ok_json
from harness.imitations import FakeSoirees, Recorder
from harness.wait import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-(00|01)$")
GIVEN = "00-%s-%s-01" % (TRACE, PARENT)
LOUD = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}


def outbox(soirees):
    """The traceparents that wait in the outbox."""
    connection = sqlite3.connect(soirees.database, timeout=30)
    try:
        return [row[0] for row in connection.execute("SELECT traceparent FROM outbox")]
    finally:
        connection.close()


def queued(vhost):
    """The header of the one message in the queue, which stays there."""
    connection = vhost.connect()
    try:
        channel = connection.channel()

        def get():
            got = channel.basic_get(QUEUE)
            return got if got[0] else None
        method, properties, _body = wait_until(get, what="a message")
        channel.basic_nack(method.delivery_tag, requeue=True)
        return properties.headers["traceparent"]
    finally:
        connection.close()


def relay_to(soirees):
    """A recorder in front of soirees."""
    def forward(request):
        reply = requests.request(request.method, soirees.url + request.path, data=request.body.encode(),
                                 headers=dict(request.headers), timeout=30)
        return reply.status_code, reply.content, reply.headers.get("Content-Type", "")
    return Recorder(forward)


def events(daemon, trace):
    """The events in a daemon's log that name the trace."""
    entries = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    return {entry["event"] for entry in entries if entry.get("traceId") == trace}


@pytest.mark.parametrize("given, trace, flags", [
    (None, None, "01"),
    (GIVEN, TRACE, "01"),
    ("00-%s-%s-00" % (TRACE, PARENT), TRACE, "00"),
    ("00-%s-%s-03" % (TRACE, PARENT), TRACE, "01"),
    ("42-%s-%s-01-later" % (TRACE, PARENT), TRACE, "01"),
    ("00-%s-%s-01" % (TRACE.upper(), PARENT), None, "01"),
    ("00-%s-%s-01" % ("0" * 32, PARENT), None, "01"),
    ("nonsense", None, "01")], ids=lambda value: "%.12s" % value)
def test_one_trace_goes_through_all_five_hops(given, trace, flags, make_stack, vhost, lagmaster):
    stack = make_stack(soirees=LOUD, playlists=LOUD)
    soirees, playlists = stack.soirees.start(), stack.playlists
    headers = {"traceparent": given} if given else {}
    made = ok_json(soirees.post("/api/soirees", BOOKING, headers=headers), 201)
    with relay_to(soirees) as between:
        hops = [*outbox(soirees), queued(vhost)]
        playlists.settings["SOIREES_URL"] = between.url
        playlists.start()
        stack.linked(made["id"])
        hops += [call["headers"]["traceparent"] for call in lagmaster.calls()]
        hops += [request.headers["traceparent"] for request in between.requests("PATCH")]
    assert len(hops) == 4, hops  # and the request itself
    found = [TRACEPARENT.match(hop).groups() for hop in hops]
    assert {(hop[0], hop[2]) for hop in found} == {(trace or found[0][0], flags)}
    assert PARENT not in {hop[1] for hop in found}, "a parent of our own"
    assert found[0][1] != found[2][1], "and each service its own"
    if trace is None:
        assert found[0][0] not in (TRACE, "0" * 32)
    one = found[0][0]
    wait_until(lambda: events(soirees, one) >= {"message.confirmed", "http.request"}, what="soirees' log")
    wait_until(lambda: events(playlists, one) >= {
        "message.received", "lagmaster.call", "lagmaster.generated", "playlist.saved", "link.started",
        "link.delivered", "message.done"}, what="the log of playlists")


def test_a_link_that_is_tried_again_keeps_its_trace(vhost, worker):
    with FakeSoirees(503, 200) as soirees:
        worker(soirees.url)
        vhost.publish({"soireeId": "s", "style": "disco"},
                      pika.BasicProperties(headers={"traceparent": GIVEN}))
        wait_until(lambda: len(soirees.links()) == 2, 60, "the second try")
        assert [link.headers["traceparent"].split("-")[1] for link in soirees.links()] == [TRACE, TRACE]


def test_another_style_is_another_trace(make_stack, vhost):
    """A request belongs to the call that made it."""
    soirees = make_stack().soirees.start()
    made = ok_json(soirees.post("/api/soirees", BOOKING, headers={"traceparent": GIVEN}), 201)
    assert vhost.take()[0].headers["traceparent"].split("-")[1] == TRACE
    other = "1" * 32
    ok_json(soirees.patch("/api/soirees/" + made["id"], {"styleMusical": "rock"},
                          headers={"traceparent": "00-%s-%s-01" % (other, PARENT)}))
    assert vhost.take()[0].headers["traceparent"].split("-")[1] == other
