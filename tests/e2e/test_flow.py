"""From a booking to its playlist: each step of the specification, on real parts."""

import time

import pytest
from harness.booking import book, soiree, waiting
from harness.http import TIMESTAMP, UUID_V7
from harness.wait import holds_for, wait_until

LAGMASTER_DISCO = {"nom": "Metaverse Collapse Disco", "stylesMusicaux": ["disco"], "origine": "lagmaster-pro",
                   "tracks": ["Track 0 - Electric Pickles", "Track 1 - Disco Lemonade",
                              "Track 2 - Techno Taco"]}


def pick(document, names):
    return {name: document[name] for name in names}


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


@pytest.mark.threads
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


@pytest.mark.threads
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


@pytest.mark.threads
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
        counters = stack.vhost.counters()
        return counters.get("deliver") == workers and counters.get("ack") == workers and counters
    counters = wait_until(counted, 30, "one delivery and one ack a message", interval=0.5)
    assert counters.get("redeliver", 0) == 0
