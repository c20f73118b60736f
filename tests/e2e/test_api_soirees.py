"""The REST API of soirées: what a client may send, and what it gets back."""

import pytest
from harness.booking import BOOKING, book, booking, soiree
from harness.http import STRONG_ETAG, TIMESTAMP, UUID_V7, ok_json, pointers, problem

NOT_FOUND = "Soirée non trouvée"
PATH = "/api/soirees"
SHORT = "{:.12}".format  # of a parameter, in the name of a test
DEFAULTS = {"budget": 0, "styleMusical": "disco", "statut": "confirmée", "playlistId": None}


def post_text(soirees, text, content_type="application/json"):
    body = text if isinstance(text, bytes) else text.encode()
    return soirees.post(PATH, data=body, headers={"Content-Type": content_type})


def count(soirees, client):
    return len(ok_json(soirees.get(PATH, params={"clientId": client, "limit": 1000})))


# ---- create and read

def test_a_booking_is_answered_with_201_location_and_the_whole_soiree(soirees):
    reply = soirees.post(PATH, BOOKING)
    made = ok_json(reply, 201)
    assert reply.headers["Location"] == PATH + "/" + made["id"]
    assert UUID_V7.match(made["id"])
    assert TIMESTAMP.match(made["createdAt"])
    assert made == {**BOOKING, "statut": "confirmée", "playlistId": None, "id": made["id"],
                    "createdAt": made["createdAt"]}
    assert ok_json(soirees.get(reply.headers["Location"])) == made


def test_what_is_left_out_takes_its_default(soirees):
    made = book(soirees, budget=None, styleMusical=None)
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS


def test_null_takes_the_default_where_a_field_is_optional(soirees):
    made = ok_json(soirees.post(PATH, {**BOOKING, **dict.fromkeys(DEFAULTS)}), 201)
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS


def test_fields_that_are_ours_or_unknown_are_ignored(soirees):
    extra = {"id": "mine", "createdAt": "1999", "updatedAt": 7, "origine": [], "couleur": "rouge",
             "clientid": 5}
    made = ok_json(soirees.post(PATH, {**BOOKING, **extra}), 201)
    assert made["id"] != "mine" and TIMESTAMP.match(made["createdAt"])
    assert set(made) == set(BOOKING) | {"id", "statut", "playlistId", "createdAt"}


@pytest.mark.parametrize("text", [
    "é", "ﬁançailles", "日本語のパーティー", "🕺💃🏽", "a\u0301", "\u202emirror", "\"quotes\" and \\ and /",
    "tab\tnl\ncr\r", "\x01\x1f\x7f\x80", "</script><!--", "\ufeffbom", "\ufffd\uffff\U0010ffff", "%00%2F",
    "'; DROP TABLE soirees; --"])
def test_every_unicode_text_comes_back_as_it_was(soirees, text):
    made = book(soirees, lieu=text)
    assert made["lieu"] == text
    assert soiree(soirees, made["id"])["lieu"] == text


def test_escaped_and_raw_characters_are_the_same(soirees):
    text = r'{"clientId":"\u0063","date":"2025-12-25","lieu":"\u00e9\ud83d\udd7a\/","nombreInvites":1}'
    made = ok_json(post_text(soirees, text), 201)
    assert (made["clientId"], made["lieu"]) == ("c", "é🕺/")


@pytest.mark.parametrize("changes", [
    {"clientId": "é" * 128}, {"clientId": "🕺" * 128}, {"clientId": " "},
    {"date": "2024-02-29"}, {"date": "1999-12-31"}, {"date": "2000-02-29"}, {"date": "9999-12-31"},
    {"lieu": "x"}, {"lieu": "é" * 200},
    {"nombreInvites": 1}, {"nombreInvites": 100000}, {"nombreInvites": 50.0}, {"nombreInvites": 5e1},
    {"budget": 0}, {"budget": 1e9}, {"budget": 1000.5}, {"budget": 0.1}, {"budget": 123456789.25},
    {"styleMusical": "s" * 64}, {"styleMusical": "🎷" * 64}, {"statut": "annulée"}, {"statut": "é" * 32},
    {"playlistId": "x"}, {"playlistId": "p" * 64}], ids=lambda c: "%s=%.12s" % next(iter(c.items())))
def test_values_up_to_the_bounds_are_taken(soirees, changes):
    made = book(soirees, **changes)
    assert {name: made[name] for name in changes} == changes


INVALID = [
    ("clientId", ["", "x" * 129, "é" * 129, 5, True, [], {}]),
    ("date", ["", "demain", "2025-02-29", "1900-02-29", "2025-13-01", "2025-00-10", "2025-04-31",
              "2025-12-00", "25-12-2025", "2025-12-25T00:00:00Z", "2025-1-1", " 2025-12-25", "2025-12-25\n",
              "２０２５-12-25", 20251225]),
    ("lieu", ["", "x" * 201, 1, ["Paris"]]),
    ("nombreInvites", [0, -1, 100001, 50.5, "50", True, [50], 1e300]),
    ("budget", [-1, -0.01, 1000000000.01, "1000", False, {}]),
    ("styleMusical", ["", "x" * 65, 3, ["disco"]]),
    ("statut", ["", "x" * 33, False]),
    ("playlistId", ["", "x" * 65, 7, ["x"]])]


@pytest.mark.parametrize("field, value", [(field, value) for field, values in INVALID for value in values],
                         ids=lambda v: "%.20s" % v)
def test_an_invalid_value_is_a_422_that_points_at_it(soirees, field, value):
    assert pointers(soirees.post(PATH, {**BOOKING, field: value})) == ["/" + field]


@pytest.mark.parametrize("field", ["clientId", "date", "lieu", "nombreInvites"])
def test_a_required_field_may_not_be_missing_or_null(soirees, field):
    assert pointers(soirees.post(PATH, booking(**{field: None}))) == ["/" + field]
    assert pointers(soirees.post(PATH, {**BOOKING, field: None})) == ["/" + field]


def test_all_errors_of_a_body_come_at_once(soirees):
    wrong = {"clientId": 5, "date": "2025-02-29", "nombreInvites": 0, "budget": -1, "statut": ""}
    reply = soirees.post(PATH, wrong)
    assert pointers(reply) == ["/budget", "/clientId", "/date", "/lieu", "/nombreInvites", "/statut"]


def test_a_refused_booking_is_not_stored(soirees):
    problem(soirees.post(PATH, {**BOOKING, "clientId": "refused", "lieu": ""}), 422)
    assert count(soirees, "refused") == 0


# ---- malformed bodies

DEEP = '{"clientId":"c","date":"2025-12-25","lieu":"p","nombreInvites":1,"x":%s}'


@pytest.mark.parametrize("text", [
    "", " ", "{", '{"clientId":"x"', "{'clientId':'x'}", '{"clientId":"x",}', '{"a":01}', '{"a":1.}',
    '{"a":.5}', '{"a":+1}', '{"a":NaN}', '{"a":Infinity}', '{"a":0x10}', '{"a":tru}', '{"a":"x" "b":1}',
    '{"a":1} {"b":2}', '{"a":1}x', '{"a":1}\x00', "// c\n{}", '{"a":"\x01"}', '{"a":"\n"}', '{"a":"\\x"}',
    '{"a":"\\u12"}', '{"a":"\\u0000"}', '{"a":"\\ud800"}', '{"a":"\\udc00\\ud800"}', '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}', '{"x":{"a":1,"a":1}}', "\ufeff{}", b'{"a":"\xff"}', b'{"a":"\xc0\xaf"}',
    b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xe2\x82"}',
    b"\xff\xfe{\x00}\x00", "[" * 17 + "]" * 17, "[" * 20000, DEEP % ("[" * 16 + "]" * 16)],
    ids=lambda text: "%.24r" % text)
def test_malformed_json_is_a_400(soirees, text):
    problem(post_text(soirees, text), 400)


def test_sixteen_levels_are_not_too_deep(soirees):
    assert post_text(soirees, DEEP % ("[" * 15 + "]" * 15)).status_code == 201


@pytest.mark.parametrize("text", ["[]", "null", "true", "5", '"x"', '[{"clientId":"x"}]'])
def test_json_that_is_no_object_is_a_422(soirees, text):
    problem(post_text(soirees, text), 422)


def test_an_empty_object_names_every_required_field(soirees):
    assert pointers(post_text(soirees, "{}")) == ["/clientId", "/date", "/lieu", "/nombreInvites"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "text/json",
                                          "application/jsonx", "application/merge-patch+json",
                                          "multipart/form-data"])
def test_another_content_type_is_a_415(soirees, content_type):
    problem(post_text(soirees, "{}", content_type), 415)


@pytest.mark.parametrize("coding, status", [("gzip", 415), ("br", 415), ("identity", 422), ("gzip, identity", 415)])
def test_a_compressed_body_is_a_415(soirees, coding, status):
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    problem(soirees.post(PATH, data=b"{}", headers=headers), status)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8",
                                          "Application/JSON;charset=UTF-8"])
def test_json_may_name_its_charset(soirees, content_type):
    assert pointers(post_text(soirees, "{}", content_type))


def padded(size):
    body = b'{"clientId":"c","date":"2025-12-25","lieu":"p","nombreInvites":1}'
    return body + b" " * (size - len(body))


def test_a_body_may_have_64_kib_and_no_more(soirees):
    assert post_text(soirees, padded(65536)).status_code == 201
    problem(post_text(soirees, padded(65537)), 413)


def test_a_chunked_body_has_the_same_bound(soirees):
    def chunks(size):
        body = padded(size)
        return (body[start:start + 8192] for start in range(0, size, 8192))
    headers = {"Content-Type": "application/json"}
    assert soirees.post(PATH, data=chunks(65536), headers=headers).status_code == 201
    problem(soirees.post(PATH, data=chunks(65537), headers=headers), 413)


# ---- routes and methods

@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/api/soirees/x/y", "/api/soireesx", "/API/soirees",
                                  "/api/playlists", "/favicon.ico"])
def test_an_unknown_path_is_a_404(soirees, path):
    problem(soirees.get(path), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("key", ["nope", "1764671400000", "0190b0a0-0000-7000-8000-000000000000", "x" * 500,
                                 "%C3%A9", "%00", "a%2Fb", "%FF"], ids=SHORT)
def test_an_unknown_id_is_a_404_whatever_it_looks_like(soirees, method, key):
    body = {"json": {"lieu": "x"}} if method in ("PUT", "PATCH") else {}
    found = problem(soirees.request(method, PATH + "/" + key, **body), 404)
    if key in ("nope", "1764671400000"):
        assert found["error"] == NOT_FOUND


@pytest.mark.parametrize("method, path, allowed", [
    ("DELETE", PATH, {"GET", "POST"}), ("PUT", PATH, {"GET", "POST"}), ("PATCH", PATH, {"GET", "POST"}),
    ("POST", PATH + "/x", {"GET", "PUT", "PATCH", "DELETE"}), ("POST", "/health", {"GET"}),
    ("PROPFIND", PATH, {"GET", "POST"}), ("TRACE", PATH, {"GET"})])
def test_another_method_is_a_405_that_says_which_are_allowed(soirees, method, path, allowed):
    reply = soirees.request(method, path)
    problem(reply, 405)
    listed = {name.strip() for name in reply.headers["Allow"].split(",")}
    assert allowed | {"HEAD", "OPTIONS"} <= listed
    assert method not in listed


def test_head_answers_as_get_does_without_a_body(soirees):
    made = book(soirees)
    for path in (PATH + "/" + made["id"], PATH + "?limit=1", "/health", PATH + "/nope"):
        got, head = soirees.get(path), soirees.request("HEAD", path)
        assert head.status_code == got.status_code
        assert head.content == b""
        for name in ("Content-Type", "Content-Length", "ETag"):
            if path != "/health" or name != "Content-Length":  # health counts
                assert head.headers.get(name) == got.headers.get(name), (path, name)


def test_health_names_the_service_and_its_parts(soirees):
    health = ok_json(soirees.get("/health"))
    assert health["status"] == "healthy"
    assert health["service"] == "service-soirees"
    assert isinstance(health["components"], dict) and health["components"]


# ---- change

@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_keeps_the_other_fields(soirees, method):
    made = book(soirees)
    changed = ok_json(soirees.request(method, PATH + "/" + made["id"], json={"lieu": "Lyon", "budget": 5.5}))
    assert TIMESTAMP.match(changed["updatedAt"])
    assert changed == {**made, "lieu": "Lyon", "budget": 5.5, "updatedAt": changed["updatedAt"]}
    assert soiree(soirees, made["id"]) == changed


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_that_changes_nothing_leaves_no_trace(soirees, method):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    etag = soirees.get(path).headers["ETag"]
    for body in ({}, {"lieu": "Paris"}, made, {**BOOKING, "unknown": 1}):
        assert ok_json(soirees.request(method, path, json=body)) == made
    assert soirees.get(path).headers["ETag"] == etag


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_null_in_a_change_is_the_default_or_a_422(soirees, method):
    made = book(soirees, statut="option")
    path = PATH + "/" + made["id"]
    changed = ok_json(soirees.request(method, path, json={"budget": None, "statut": None}))
    assert (changed["budget"], changed["statut"]) == (0, "confirmée")
    refused = soirees.request(method, path, json={"clientId": None, "date": None})
    assert pointers(refused) == ["/clientId", "/date"]
    assert soiree(soirees, made["id"]) == changed


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("field, value", [("nombreInvites", 50.5), ("date", "2025-02-29"), ("lieu", ""),
                                          ("clientId", "x" * 129), ("budget", "1"), ("playlistId", 5)],
                         ids=lambda v: "%.12s" % v)
def test_a_change_is_validated_as_a_booking_is(soirees, method, field, value):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    refused = soirees.request(method, path, json={field: value, "statut": ""})
    assert pointers(refused) == sorted(["/" + field, "/statut"])
    assert soiree(soirees, made["id"]) == made


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_change_of_fields_that_are_ours_is_ignored(soirees, method):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    ours = {"id": "x", "createdAt": "x", "updatedAt": "x"}
    assert ok_json(soirees.request(method, path, json=ours)) == made


def test_patch_takes_a_merge_patch_and_put_does_not(soirees):
    made = book(soirees)
    path, headers = PATH + "/" + made["id"], {"Content-Type": "application/merge-patch+json"}
    assert ok_json(soirees.patch(path, data=b'{"lieu":"Nice"}', headers=headers))["lieu"] == "Nice"
    problem(soirees.put(path, data=b'{"lieu":"Nice"}', headers=headers), 415)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_malformed_changes_are_refused(soirees, method):
    path = PATH + "/" + book(soirees)["id"]
    headers = {"Content-Type": "application/json"}
    problem(soirees.request(method, path, data=b"{", headers=headers), 400)
    problem(soirees.request(method, path, data=b"[]", headers=headers), 422)
    problem(soirees.request(method, path, data=b" " * 65537, headers=headers), 413)
    problem(soirees.request(method, path, data=b"{}", headers={"Content-Type": "text/plain"}), 415)


def test_put_creates_nothing(soirees):
    problem(soirees.put(PATH + "/brand-new", BOOKING), 404)
    problem(soirees.get(PATH + "/brand-new"), 404)


def test_a_deleted_soiree_is_gone(soirees):
    path = PATH + "/" + book(soirees, clientId="deleted")["id"]
    reply = soirees.delete(path)
    assert (reply.status_code, reply.content) == (204, b"")
    assert problem(soirees.get(path), 404)["error"] == NOT_FOUND
    problem(soirees.delete(path), 404)
    problem(soirees.put(path, {"lieu": "x"}), 404)
    assert count(soirees, "deleted") == 0


# ---- conditional requests

def test_an_item_has_a_strong_etag_that_changes_with_it(soirees):
    created = soirees.post(PATH, BOOKING)
    path, etag = created.headers["Location"], created.headers["ETag"]
    assert STRONG_ETAG.match(etag)
    assert soirees.get(path).headers["ETag"] == etag
    changed = soirees.patch(path, {"lieu": "Lyon"})
    assert STRONG_ETAG.match(changed.headers["ETag"]) and changed.headers["ETag"] != etag
    assert soirees.get(path).headers["ETag"] == changed.headers["ETag"]
    back = soirees.patch(path, {"lieu": "Paris"})
    assert back.headers["ETag"] not in (etag, changed.headers["ETag"])


def test_what_the_client_has_already_is_a_304(soirees):
    path = PATH + "/" + book(soirees)["id"]
    etag = soirees.get(path).headers["ETag"]
    for value in (etag, "*", '"other", %s' % etag, "W/" + etag):
        reply = soirees.get(path, headers={"If-None-Match": value})
        assert (reply.status_code, reply.content) == (304, b""), value
        assert reply.headers["ETag"] == etag
    for value in ('"other"', '"a","b"'):
        ok_json(soirees.get(path, headers={"If-None-Match": value}))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_of_a_stale_version_is_a_412(soirees, method):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    old = soirees.get(path).headers["ETag"]
    new = soirees.patch(path, {"lieu": "Lyon"}).headers["ETag"]
    body = {} if method == "DELETE" else {"json": {"lieu": "Nice"}}
    for value in (old, '"other"', "W/" + new):
        problem(soirees.request(method, path, headers={"If-Match": value}, **body), 412)
    assert soiree(soirees, made["id"])["lieu"] == "Lyon"
    reply = soirees.request(method, path, headers={"If-Match": '"other", ' + new}, **body)
    assert reply.status_code == (204 if method == "DELETE" else 200)


def test_a_list_of_tags_counts_to_its_end(soirees):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    tags = ", ".join('"%d"' % version for version in range(1000, 0, -1))
    assert soirees.get(path, headers={"If-None-Match": tags}).status_code == 304
    problem(soirees.patch(path, {"lieu": "Nice"}, headers={"If-None-Match": tags}), 412)
    assert ok_json(soirees.patch(path, {"lieu": "Nice"}, headers={"If-Match": tags}))["lieu"] == "Nice"


def test_if_match_any_is_for_whatever_exists(soirees):
    path = PATH + "/" + book(soirees)["id"]
    assert soirees.patch(path, {"lieu": "Nice"}, headers={"If-Match": "*"}).status_code == 200
    assert soirees.delete(path, headers={"If-Match": "*"}).status_code == 204


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_may_exclude_versions(soirees, method):
    made = book(soirees)
    path = PATH + "/" + made["id"]
    etag = soirees.get(path).headers["ETag"]
    body = {} if method == "DELETE" else {"json": {"lieu": "Nice"}}
    for value in (etag, "*", "W/" + etag, '"other", ' + etag):
        problem(soirees.request(method, path, headers={"If-None-Match": value}, **body), 412)
    assert soiree(soirees, made["id"]) == made
    reply = soirees.request(method, path, headers={"If-None-Match": '"other"'}, **body)
    assert reply.status_code == (204 if method == "DELETE" else 200)


# ---- headers

@pytest.mark.parametrize("value", ["abc", "0190b0a0-0000-7000-8000-000000000000", "A.b_c:1-2", "x" * 128],
                         ids=SHORT)
def test_a_well_formed_request_id_comes_back(soirees, value):
    for reply in (soirees.get(PATH, headers={"X-Request-Id": value}),
                  soirees.get("/nope", headers={"X-Request-Id": value}),
                  soirees.post(PATH, {}, headers={"X-Request-Id": value})):
        assert reply.headers["X-Request-Id"] == value


@pytest.mark.parametrize("value", [None, "a b", "x" * 1000, "<script>", "é".encode()],
                         ids=lambda v: "%.12r" % (v,))
def test_another_request_id_is_replaced_by_ours(soirees, value):
    headers = {"X-Request-Id": value}
    first, second = (soirees.get(PATH, headers=headers).headers["X-Request-Id"] for _ in range(2))
    assert first and second and first != second
    assert value is None or first != value


def test_any_origin_may_ask_by_default(soirees):
    reply = soirees.get(PATH, headers={"Origin": "https://example.org"})
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in reply.headers
    exposed = {name.strip().lower() for name in reply.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"etag", "link", "location", "retry-after", "x-request-id"} <= exposed


def preflight(soirees, path, origin="https://example.org"):
    return soirees.request("OPTIONS", path, headers={
        "Origin": origin, "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "content-type,idempotency-key"})


def test_a_preflight_is_answered_with_all_that_is_allowed(soirees):
    for path, methods in ((PATH, {"GET", "POST"}), (PATH + "/x", {"GET", "PUT", "PATCH", "DELETE"})):
        reply = preflight(soirees, path)
        assert reply.status_code in (200, 204)
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert methods <= {m.strip() for m in reply.headers["Access-Control-Allow-Methods"].split(",")}
        allowed = {name.strip().lower() for name in reply.headers["Access-Control-Allow-Headers"].split(",")}
        assert {"authorization", "content-type", "idempotency-key", "if-match", "if-none-match",
                "x-request-id", "traceparent", "playlist-request"} <= allowed


def test_one_origin_may_be_named(daemons):
    named = "https://dj.example.org"
    soirees = daemons.start("soirees", RABBITMQ_PORT=1, CORS_ORIGIN=named)
    for reply in (soirees.get(PATH, headers={"Origin": named}), preflight(soirees, PATH, named)):
        assert reply.headers["Access-Control-Allow-Origin"] == named
        assert "origin" in reply.headers["Vary"].lower()
        assert "Access-Control-Allow-Credentials" not in reply.headers
    for reply in (soirees.get(PATH, headers={"Origin": "https://example.org"}), preflight(soirees, PATH)):
        assert reply.headers.get("Access-Control-Allow-Origin", named) == named


def test_options_says_what_a_path_can(soirees):
    reply = soirees.request("OPTIONS", PATH)
    assert reply.status_code in (200, 204)
    assert {"GET", "POST", "HEAD", "OPTIONS"} <= {m.strip() for m in reply.headers["Allow"].split(",")}


# ---- durability of what was answered

def test_what_was_answered_with_201_survives_kill_9(daemons):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    made = [book(soirees, lieu="Lieu %d" % n) for n in range(20)]
    changed = ok_json(soirees.patch(PATH + "/" + made[0]["id"], {"lieu": "ailleurs"}))
    soirees.kill()
    soirees.start()
    assert ok_json(soirees.get(PATH)) == made[:0:-1] + [changed]
