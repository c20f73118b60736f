"""Many clients at once, and one that comes back after a crash or a day: pages, versions, keys."""

import concurrent.futures
import sqlite3
import threading

import pytest
import requests
from harness import description
from harness.booking import BOOKING, book
from harness.http import all_pages, next_path, ok_json, problem
from harness.wait import wait_until
from sabotage import Clock, release_build, without_sanitizers  # noqa: F401

PATH = "/api/soirees"
DAY_S = 24 * 3600


def own_session(daemon):
    """request(method, path, ...) for one thread: sessions are not made for several."""
    session = requests.Session()
    session.trust_env = False

    def request(method, path, **options):
        reply = session.request(method, daemon.url + path, timeout=60, **options)
        description.judge(daemon.program, reply)
        return reply
    return request


# ---- pages


@pytest.mark.threads
@pytest.mark.parametrize("query", ["", "clientId=kept&", "statut=stable&", "dateFrom=2026-01-01&"])
def test_who_pages_while_others_write_sees_all_that_stays_and_nothing_twice(daemons, query):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    kept, passing = [], []
    for n in range(120):
        kept.append(book(soirees, clientId="kept", statut="stable", date="2026-02-01")["id"])
        passing.append(book(soirees, clientId="kept", statut="stable", date="2026-02-01")["id"])
    stop, written = threading.Event(), []

    def write(part):
        request, mine = own_session(soirees), passing[part::3]
        while not stop.is_set():
            reply = request("POST", PATH, json={**BOOKING, "clientId": "kept", "statut": "stable",
                                                "date": "2026-02-01"})
            mine.append(reply.json()["id"])
            assert request("DELETE", PATH + "/" + mine.pop(0)).status_code == 204
            assert request("PATCH", PATH + "/" + kept[len(written) % len(kept)],
                           json={"lieu": "Lieu %d" % len(written)}).status_code == 200
            written.append(1)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, part) for part in range(3)]
        try:
            for _walk in range(3):
                before = len(written)
                path, ids = "%s?%slimit=7" % (PATH, query), []
                while path:
                    reply = soirees.get(path)
                    ids += [item["id"] for item in ok_json(reply)]
                    path = next_path(reply)
                assert len(set(ids)) == len(ids)
                assert [one for one in ids if one in set(kept)] == kept[::-1]
                wait_until(lambda: len(written) > before or any(w.done() for w in writers), 60, "writers at work")
        finally:
            stop.set()
        for writer in writers:
            writer.result()


# ---- versions


@pytest.mark.threads
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("service", ["soirees", "playlists"])
def test_of_fifty_writers_of_one_version_exactly_one_wins_each_round(request, service, method):
    daemon = request.getfixturevalue(service)
    path, document, field = ((PATH, BOOKING, "lieu") if service == "soirees"
                             else ("/api/playlists", {"nom": "x"}, "nom"))
    path += "/" + ok_json(daemon.post(path, document), 201)["id"]
    sessions = [own_session(daemon) for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        for turn in range(10):
            etag, start = daemon.get(path).headers["ETag"], threading.Barrier(50)

            def change(n):
                start.wait(60)
                return sessions[n](method, path, json={field: "%d/%d" % (turn, n)}, headers={"If-Match": etag})
            replies = list(pool.map(change, range(50)))
            winners = [n for n, reply in enumerate(replies) if reply.status_code == 200]
            assert len(winners) == 1
            assert {reply.status_code for reply in replies} == {200, 412}
            now = daemon.get(path)
            assert now.json()[field] == "%d/%d" % (turn, winners[0])
            assert now.headers["ETag"] == replies[winners[0]].headers["ETag"] != etag


@pytest.mark.threads
def test_no_update_is_lost_among_those_who_look_at_versions(soirees):
    path = PATH + "/" + book(soirees, nombreInvites=1)["id"]

    def add(_n):
        request = own_session(soirees)
        for _ in range(5):
            while True:
                seen = request("GET", path)
                reply = request("PATCH", path, json={"nombreInvites": seen.json()["nombreInvites"] + 1},
                                headers={"If-Match": seen.headers["ETag"]})
                if reply.status_code == 200:
                    break
                assert reply.status_code == 412
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert ok_json(soirees.get(path))["nombreInvites"] == 41


# ---- keys


@pytest.mark.slow
@pytest.mark.parametrize("service", ["soirees", "playlists"])
def test_a_key_makes_one_item_though_the_daemon_is_killed_again_and_again(daemons, service):
    settings = {"RABBITMQ_PORT": 1} if service == "soirees" else {"RABBITMQ_PORT": 1, "LAGMASTER_URL": "http://x/"}
    daemon = daemons.start(service, settings)
    path, document = (PATH, BOOKING) if service == "soirees" else ("/api/playlists", {"nom": "x"})
    made, done = {}, threading.Event()

    def repeat(n):
        key, request, count = "key-%d" % (n % 5), own_session(daemon), 0
        while not done.is_set() or count == 0:
            try:
                reply = request("POST", path, json=document, headers={"Idempotency-Key": key})
            except requests.RequestException:
                continue
            if reply.status_code == 503:
                continue
            assert reply.status_code == 201, reply.text
            made.setdefault(key, set()).add(reply.json()["id"])
            count += 1
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        clients = [pool.submit(repeat, n) for n in range(10)]
        for _ in range(5):
            daemon.kill()
            daemon.start()
        done.set()
        for client in clients:
            client.result()
    assert sorted(made) == ["key-%d" % n for n in range(5)]
    assert all(len(ids) == 1 for ids in made.values()), made
    items, _pages = all_pages(daemon, path)
    assert {item["id"] for item in items} == set.union(*made.values())


@pytest.mark.sqlite
@pytest.mark.slow
def test_a_key_is_kept_for_a_day_and_then_cleaned(daemons, tmp_path, without_sanitizers):  # noqa: F811
    clock = Clock(tmp_path)
    soirees = daemons.start("soirees", RABBITMQ_PORT=1, **clock.settings)

    def post(key, **changes):
        return soirees.post(PATH, {**BOOKING, **changes}, headers={"Idempotency-Key": key})

    def keys():
        with sqlite3.connect("file:%s?mode=ro" % soirees.database, uri=True) as database:
            return {key for (key,) in database.execute("SELECT key FROM idempotency")}
    first = ok_json(post("a"), 201)
    for n in range(20):
        ok_json(post("old-%d" % n), 201)
    clock.jump_to(DAY_S - 60)
    assert ok_json(post("a"), 201) == first
    problem(post("a", lieu="Lyon"), 422)
    clock.jump_to(DAY_S + 60)
    second = ok_json(post("a", lieu="Lyon"), 201)
    assert second["id"] != first["id"]
    assert ok_json(post("a", lieu="Lyon"), 201) == second
    for n in range(2):
        ok_json(post("new-%d" % n), 201)
    assert keys() == {"a", "new-0", "new-1"}
