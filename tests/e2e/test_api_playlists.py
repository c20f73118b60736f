"""The REST API of playlists."""

import pytest
from harness.http import STRONG_ETAG, TIMESTAMP, UUID_V7, all_pages, next_path, ok_json, pointers, problem

NOT_FOUND = "Playlist non trouvée"
PATH = "/api/playlists"
PLAYLIST = {"nom": "Soirée mousse", "stylesMusicaux": ["disco", "funk"], "description": "À la main",
            "tracks": ["Un", "Deux"], "soireeId": "1764671400000"}


def make(playlists, **changes):
    return ok_json(playlists.post(PATH, {**PLAYLIST, **changes}), 201)


def test_a_playlist_made_by_hand_is_answered_whole(playlists):
    reply = playlists.post(PATH, PLAYLIST)
    made = ok_json(reply, 201)
    assert reply.headers["Location"] == PATH + "/" + made["id"]
    assert UUID_V7.match(made["id"]) and TIMESTAMP.match(made["createdAt"])
    assert made == {**PLAYLIST, "origine": "manuelle", "id": made["id"], "createdAt": made["createdAt"]}
    assert ok_json(playlists.get(reply.headers["Location"])) == made


def test_what_is_left_out_takes_its_default(playlists):
    for body in ({"nom": "x"}, {"nom": "x", "stylesMusicaux": None, "description": None, "tracks": None,
                                "soireeId": None}):
        made = ok_json(playlists.post(PATH, body), 201)
        assert {name: made[name] for name in PLAYLIST} == {
            "nom": "x", "stylesMusicaux": [], "description": "", "tracks": [], "soireeId": None}
        assert made["origine"] == "manuelle"


def test_fields_that_are_ours_or_unknown_are_ignored(playlists):
    made = make(playlists, id="mine", origine="lagmaster-pro", createdAt=1, updatedAt=2, autre={})
    assert made["id"] != "mine" and made["origine"] == "manuelle"
    assert set(made) == set(PLAYLIST) | {"id", "origine", "createdAt"}


@pytest.mark.parametrize("changes", [
    {"nom": "é" * 200}, {"stylesMusicaux": []}, {"stylesMusicaux": ["🎷" * 64] * 20},
    {"description": "é" * 2000}, {"description": ""}, {"tracks": []}, {"tracks": ["t"] * 500},
    {"tracks": ["🎵" * 300] * 2}, {"soireeId": "s" * 64},
    {"tracks": ["Track\t0", "\"\\", "\u0001", "🕺"]}], ids=lambda c: "%s=%.12s" % next(iter(c.items())))
def test_values_up_to_the_bounds_are_taken_and_come_back(playlists, changes):
    made = make(playlists, **changes)
    assert {name: made[name] for name in changes} == changes
    assert ok_json(playlists.get(PATH + "/" + made["id"])) == made


@pytest.mark.parametrize("field, value, pointer", [
    ("nom", None, "/nom"), ("nom", "", "/nom"), ("nom", "x" * 201, "/nom"), ("nom", 5, "/nom"),
    ("nom", [], "/nom"),
    ("stylesMusicaux", "disco", "/stylesMusicaux"), ("stylesMusicaux", {}, "/stylesMusicaux"),
    ("stylesMusicaux", ["x"] * 21, "/stylesMusicaux"),
    ("stylesMusicaux", ["x", "y" * 65], "/stylesMusicaux/1"),
    ("stylesMusicaux", ["x", 5], "/stylesMusicaux/1"), ("stylesMusicaux", [None], "/stylesMusicaux/0"),
    ("description", "x" * 2001, "/description"), ("description", 5, "/description"),
    ("tracks", "Track", "/tracks"), ("tracks", ["t"] * 501, "/tracks"),
    ("tracks", ["t", "u", "v" * 301], "/tracks/2"), ("tracks", [["t"]], "/tracks/0"),
    ("soireeId", 5, "/soireeId"), ("soireeId", ["x"], "/soireeId")], ids=lambda v: "%.16s" % v)
def test_an_invalid_value_is_a_422_that_points_at_it(playlists, field, value, pointer):
    assert pointers(playlists.post(PATH, {**PLAYLIST, field: value})) == [pointer]


def test_all_errors_of_a_body_come_at_once(playlists):
    reply = playlists.post(PATH, {"stylesMusicaux": 1, "description": 2, "tracks": ["ok", 3], "soireeId": 4})
    assert pointers(reply) == ["/description", "/nom", "/soireeId", "/stylesMusicaux", "/tracks/1"]


@pytest.mark.parametrize("text, status", [
    (b"{", 400), (b"", 400), (b'{"nom":"a","nom":"b"}', 400), (b'{"nom":"\xff"}', 400),
    (b'{"nom":"\\u0000"}', 400), (b"[]", 422), (b'"x"', 422), (b"{}", 422),
    (b'{"nom":"x"}' + b" " * 65536, 413)], ids=lambda v: "%.20r" % (v,))
def test_bad_bodies_are_refused(playlists, text, status):
    problem(playlists.post(PATH, data=text, headers={"Content-Type": "application/json"}), status)


def test_another_content_type_is_a_415(playlists):
    problem(playlists.post(PATH, data=b"{}", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("key", ["nope", "9876543210", "x" * 500, "%C3%A9", "a%2Fb"], ids="{:.12}".format)
def test_an_unknown_id_is_a_404_whatever_it_looks_like(playlists, method, key):
    body = {"json": {"nom": "x"}} if method in ("PUT", "PATCH") else {}
    found = problem(playlists.request(method, PATH + "/" + key, **body), 404)
    if key in ("nope", "9876543210"):
        assert found["error"] == NOT_FOUND


@pytest.mark.parametrize("method, path, allowed", [
    ("DELETE", PATH, {"GET", "POST"}), ("POST", PATH + "/x", {"GET", "PUT", "PATCH", "DELETE"})])
def test_another_method_is_a_405_that_says_which_are_allowed(playlists, method, path, allowed):
    reply = playlists.request(method, path)
    problem(reply, 405)
    assert allowed <= {name.strip() for name in reply.headers["Allow"].split(",")}


@pytest.mark.parametrize("path", ["/", "/api/soirees", "/api/playlists/x/y"])
def test_an_unknown_path_is_a_404(playlists, path):
    problem(playlists.get(path), 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_keeps_the_other_fields(playlists, method):
    made = make(playlists)
    path = PATH + "/" + made["id"]
    changed = ok_json(playlists.request(method, path, json={"tracks": ["Trois"], "origine": "defaut"}))
    assert TIMESTAMP.match(changed["updatedAt"])
    assert changed == {**made, "tracks": ["Trois"], "updatedAt": changed["updatedAt"]}
    assert ok_json(playlists.get(path)) == changed


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_that_changes_nothing_leaves_no_trace(playlists, method):
    made = make(playlists)
    path = PATH + "/" + made["id"]
    etag = playlists.get(path).headers["ETag"]
    for body in ({}, PLAYLIST, made):
        assert ok_json(playlists.request(method, path, json=body)) == made
    assert playlists.get(path).headers["ETag"] == etag


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_null_in_a_change_is_the_default_or_a_422(playlists, method):
    made = make(playlists)
    path = PATH + "/" + made["id"]
    assert pointers(playlists.request(method, path, json={"nom": None})) == ["/nom"]
    nothing = {"stylesMusicaux": None, "description": None, "tracks": None, "soireeId": None}
    changed = ok_json(playlists.request(method, path, json=nothing))
    assert {name: changed[name] for name in PLAYLIST} == {
        "nom": PLAYLIST["nom"], "stylesMusicaux": [], "description": "", "tracks": [], "soireeId": None}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_is_validated_as_a_new_one_is(playlists, method):
    made = make(playlists)
    path = PATH + "/" + made["id"]
    assert pointers(playlists.request(method, path, json={"nom": "", "tracks": [1]})) == ["/nom", "/tracks/0"]
    problem(playlists.request(method, path, data=b"{", headers={"Content-Type": "application/json"}), 400)
    assert ok_json(playlists.get(path)) == made


def test_patch_takes_a_merge_patch_and_put_does_not(playlists):
    path, headers = PATH + "/" + make(playlists)["id"], {"Content-Type": "application/merge-patch+json"}
    assert ok_json(playlists.patch(path, data=b'{"nom":"Autre"}', headers=headers))["nom"] == "Autre"
    problem(playlists.put(path, data=b'{"nom":"x"}', headers=headers), 415)


def test_put_creates_nothing(playlists):
    problem(playlists.put(PATH + "/brand-new", PLAYLIST), 404)
    problem(playlists.get(PATH + "/brand-new"), 404)


def test_a_deleted_playlist_is_gone(playlists):
    path = PATH + "/" + make(playlists, soireeId="deleted")["id"]
    reply = playlists.delete(path)
    assert (reply.status_code, reply.content) == (204, b"")
    problem(playlists.get(path), 404)
    problem(playlists.delete(path), 404)
    assert ok_json(playlists.get(PATH, params={"soireeId": "deleted"})) == []


def test_an_item_has_a_strong_etag_for_conditional_requests(playlists):
    created = playlists.post(PATH, PLAYLIST)
    path, etag = created.headers["Location"], created.headers["ETag"]
    assert STRONG_ETAG.match(etag)
    assert playlists.get(path, headers={"If-None-Match": etag}).status_code == 304
    changed = playlists.patch(path, {"nom": "Autre"}, headers={"If-Match": etag})
    assert changed.status_code == 200 and changed.headers["ETag"] != etag
    for method in ("PUT", "PATCH", "DELETE"):
        body = {} if method == "DELETE" else {"json": {"nom": "Encore"}}
        problem(playlists.request(method, path, headers={"If-Match": etag}, **body), 412)
    assert ok_json(playlists.get(path, headers={"If-None-Match": etag}))["nom"] == "Autre"
    assert playlists.delete(path, headers={"If-Match": changed.headers["ETag"]}).status_code == 204


def test_a_list_is_a_bare_array_newest_first_in_pages(daemons):
    playlists = daemons.start("playlists", RABBITMQ_PORT=1)
    assert ok_json(playlists.get(PATH)) == []
    made = [make(playlists, nom="P%d" % n, soireeId="s%d" % (n % 2)) for n in range(101)]
    reply = playlists.get(PATH)
    assert ok_json(reply) == made[:0:-1]
    assert ok_json(playlists.get(next_path(reply))) == made[:1]
    items, pages = all_pages(playlists, PATH + "?soireeId=s1&limit=20")
    assert (items, pages) == (made[1::2][::-1], 3)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "limit=1&limit=1"])
def test_a_bad_limit_or_cursor_is_a_422(playlists, query):
    problem(playlists.get(PATH + "?" + query), 422)


def test_head_options_request_id_and_cors(playlists):
    path = PATH + "/" + make(playlists)["id"]
    got, head = playlists.get(path), playlists.request("HEAD", path, headers={"X-Request-Id": "abc"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("ETag", "Content-Length"):
        assert head.headers[name] == got.headers[name]
    assert head.headers["X-Request-Id"] == "abc"
    assert head.headers["Access-Control-Allow-Origin"] == "*"
    options = playlists.request("OPTIONS", path, headers={"Origin": "https://a.example",
                                                          "Access-Control-Request-Method": "PUT"})
    assert options.status_code in (200, 204)
    allowed = {name.strip() for name in options.headers["Access-Control-Allow-Methods"].split(",")}
    assert {"GET", "PUT", "PATCH", "DELETE"} <= allowed


def test_health_names_the_service_and_its_parts(playlists):
    health = ok_json(playlists.get("/health"))
    assert (health["status"], health["service"]) == ("healthy", "service-playlists")
    assert isinstance(health["components"], dict) and health["components"]


def test_what_was_answered_with_201_survives_kill_9(daemons):
    playlists = daemons.start("playlists", RABBITMQ_PORT=1)
    made = [make(playlists) for _ in range(10)]
    playlists.kill()
    playlists.start()
    assert ok_json(playlists.get(PATH)) == made[::-1]
