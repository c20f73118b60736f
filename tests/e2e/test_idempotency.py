"""Idempotency-Key: a POST that a client repeats does not happen twice."""

import concurrent.futures

import pytest
import requests
from harness import description
from harness.booking import BOOKING, booking
from harness.http import ok_json, problem


class Resource:
    """One of the two collections, with a document for it and a change that every item takes."""

    def __init__(self, daemon, path, document, change):
        self.daemon, self.path, self.document, self.change = daemon, path, document, change

    def post(self, key, document=None):
        return self.daemon.post(self.path, document or self.document, headers={"Idempotency-Key": key})

    def count(self):
        return len(ok_json(self.daemon.get(self.path, params={"limit": 1000})))


@pytest.fixture(params=["soirees", "playlists"])
def resource(request):
    daemon = request.getfixturevalue(request.param)
    if request.param == "soirees":
        return Resource(daemon, "/api/soirees", BOOKING, {"lieu": "Lyon"})
    return Resource(daemon, "/api/playlists", {"nom": "Une", "tracks": ["a", "b"]}, {"nom": "Autre"})


@pytest.fixture
def key(request):
    return request.node.name


def test_the_same_key_and_document_give_the_same_item(resource, key):
    first = resource.post(key)
    made, before = ok_json(first, 201), resource.count()
    again = resource.post(key)
    assert ok_json(again, 201) == made
    assert again.headers["Location"] == first.headers["Location"]
    assert resource.count() == before


def test_the_document_counts_not_its_bytes(resource, key):
    made = ok_json(resource.post(key), 201)
    reordered = dict(reversed(list(resource.document.items())))
    assert ok_json(resource.post(key, reordered), 201)["id"] == made["id"]


def test_a_repeat_shows_the_item_as_it_is_now(resource, key):
    made = ok_json(resource.post(key), 201)
    changed = ok_json(resource.daemon.patch(resource.path + "/" + made["id"], resource.change))
    assert ok_json(resource.post(key), 201) == changed


def test_a_repeat_after_a_delete_is_a_410(resource, key):
    made = ok_json(resource.post(key), 201)
    assert resource.daemon.delete(resource.path + "/" + made["id"]).status_code == 204
    problem(resource.post(key), 410)


def test_the_same_key_with_another_document_is_a_422(resource, key):
    before = resource.count()
    ok_json(resource.post(key), 201)
    problem(resource.post(key, {**resource.document, **resource.change}), 422)
    assert resource.count() == before + 1


def test_a_refusal_is_not_remembered(resource, key):
    problem(resource.post(key, {"x": 1}), 422)
    ok_json(resource.post(key), 201)


def test_other_keys_and_no_key_make_other_items(resource, key):
    ids = {ok_json(resource.post(key + suffix), 201)["id"] for suffix in "abc"}
    ids |= {ok_json(resource.daemon.post(resource.path, resource.document), 201)["id"] for _ in range(2)}
    assert len(ids) == 5


@pytest.mark.threads
def test_concurrent_posts_with_one_key_make_one_item(resource, key):
    before = resource.count()

    def post(_n):
        # without the daemon's session: sessions are not made for several threads
        reply = requests.post(resource.daemon.url + resource.path, json=resource.document,
                              headers={"Idempotency-Key": key}, timeout=30)
        description.judge(resource.daemon.program, reply)
        return reply
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(post, range(32)))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert resource.count() == before + 1


@pytest.mark.parametrize("length", [1, 128])
def test_a_key_may_have_up_to_128_characters(resource, key, length):
    text = (key * 10)[-length:] if length > 1 else key[0]
    ok_json(resource.post(text), 201)


@pytest.mark.parametrize("bad", ["", "x" * 129, "tab\tinside", "é".encode()], ids=lambda v: "%.10r" % (v,))
def test_a_malformed_key_is_refused(resource, bad):
    before = resource.count()
    assert resource.post(bad).status_code in (400, 422)
    assert resource.count() == before


def test_a_key_belongs_to_one_service_and_path(soirees, playlists, key):
    made = ok_json(soirees.post("/api/soirees", booking(), headers={"Idempotency-Key": key}), 201)
    other = ok_json(playlists.post("/api/playlists", {"nom": "x"}, headers={"Idempotency-Key": key}), 201)
    assert made["id"] != other["id"]


def test_a_key_is_remembered_after_kill_9(daemons):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    made = ok_json(soirees.post("/api/soirees", BOOKING, headers={"Idempotency-Key": "k"}), 201)
    soirees.kill()
    soirees.start()
    assert ok_json(soirees.post("/api/soirees", BOOKING, headers={"Idempotency-Key": "k"}), 201) == made
    assert ok_json(soirees.get("/api/soirees")) == [made]
