"""Lists and documents come compressed to who asks for it, and are the same then."""

import gzip
import socket

import pytest
from harness.booking import book
from harness.http import ok_json

MIN_BYTES = 1024
TRACKS = ["Track %d - disco Vibes" % number for number in range(100)]


@pytest.fixture(scope="module", params=["soirees", "playlists"])
def filled(request, shared_daemons):
    """(a daemon with a list of several hundred KiB or so, the path of that list)."""
    daemon = shared_daemons.start(request.param, RABBITMQ_PORT=1)
    for number in range(150):
        if request.param == "soirees":
            book(daemon, lieu="Lieu %d" % number, clientId="é" * 128, statut="s%d" % (number % 2))
        else:
            document = {"nom": "Nom %d" % number, "tracks": TRACKS, "soireeId": "s%d" % (number % 2)}
            ok_json(daemon.post("/api/playlists", document), 201)
    return daemon, "/api/" + request.param


def get(daemon, path, encoding, method="GET", **headers):
    return daemon.request(method, path, headers={"Accept-Encoding": encoding, **headers})


def raw_body(daemon, path, encoding):
    """The body as it is sent."""
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                           b"Accept-Encoding: %s\r\n\r\n" % (path.encode(), encoding.encode()))
        received = b""
        while True:
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received.split(b"\r\n\r\n", 1)[1]


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip;q=0.5", "*", "GZIP ;q=0.001"])
@pytest.mark.parametrize("query", ["?limit=1000", "?limit=20", ""])
def test_a_list_comes_compressed_to_who_takes_it(filled, query, encoding):
    daemon, path = filled
    plain, packed = get(daemon, path + query, "identity"), get(daemon, path + query, encoding)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Content-Type"] == plain.headers["Content-Type"]
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 3
    assert packed.content == plain.content
    assert packed.headers.get("Link") == plain.headers.get("Link")
    for reply in (plain, packed):
        assert reply.headers["Vary"] == "Accept-Encoding"
        assert "ETag" not in reply.headers  # a strong one would have to differ


@pytest.mark.parametrize("encoding", ["", "identity", "gzip;q=0", "*;q=0", "gzip;q=0, *", "br, deflate",
                                      "gzip;q=0.5, identity"])
def test_who_does_not_take_it_gets_the_plain_form(filled, encoding):
    daemon, path = filled
    reply = get(daemon, path, encoding)
    assert "Content-Encoding" not in reply.headers
    assert reply.headers["Vary"] == "Accept-Encoding"
    assert int(reply.headers["Content-Length"]) == len(reply.content)


def test_it_is_one_gzip_member(filled):
    daemon, path = filled
    packed = raw_body(daemon, path + "?limit=1000", "gzip")
    assert packed[:3] == b"\x1f\x8b\x08"
    assert gzip.decompress(packed) == raw_body(daemon, path + "?limit=1000", "identity")


def test_a_short_list_is_left_alone(filled):
    daemon, path = filled
    reply = get(daemon, path + "?cursor=p1", "gzip")
    assert (ok_json(reply), "Content-Encoding" in reply.headers) == ([], False)
    assert reply.headers["Vary"] == "Accept-Encoding"


def test_the_bound_is_1_kib(soirees):
    def reply_of(length):
        made = book(soirees, clientId="x" * 128, lieu="y" * length, styleMusical="s" * 64, statut="t" * 32,
                    playlistId="p" * 64)
        reply = get(soirees, "/api/soirees?limit=2", "gzip")
        soirees.delete("/api/soirees/" + made["id"])
        return len(reply.content), reply.headers.get("Content-Encoding")
    made = book(soirees, clientId="é" * 64, lieu="z" * 100)
    short, encoding = reply_of(1)
    assert short < MIN_BYTES and encoding is None
    assert reply_of(MIN_BYTES - short) == (MIN_BYTES - 1, None)
    assert reply_of(MIN_BYTES - short + 1) == (MIN_BYTES, "gzip")
    soirees.delete("/api/soirees/" + made["id"])


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_head_says_what_get_would(filled, encoding):
    daemon, path = filled
    for target in (path + "?limit=1000", path + "?limit=1", "/openapi.json", "/docs"):
        got, head = get(daemon, target, encoding), get(daemon, target, encoding, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Length", "Content-Encoding", "Content-Type", "Vary", "ETag", "Link"):
            assert head.headers.get(name) == got.headers.get(name), (target, name)


def test_what_is_no_list_is_left_alone(filled):
    daemon, path = filled
    item = ok_json(get(daemon, path + "?limit=1", "gzip"))[0]
    reply = get(daemon, path + "/" + item["id"], "gzip")
    assert "Content-Encoding" not in reply.headers and "Vary" not in reply.headers
    for other in ("/health", path + "?limit=0", "/nope"):
        assert "Content-Encoding" not in get(daemon, other, "gzip").headers


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_both_forms_of_a_document_share_a_weak_etag(filled, path):
    daemon, _path = filled
    plain, packed = get(daemon, path, "identity"), get(daemon, path, "gzip")
    assert (plain.headers.get("Content-Encoding"), packed.headers["Content-Encoding"]) == (None, "gzip")
    assert packed.content == plain.content
    assert packed.headers["ETag"] == plain.headers["ETag"] and plain.headers["ETag"].startswith("W/")
    for encoding in ("gzip", "identity"):
        known = get(daemon, path, encoding, **{"If-None-Match": plain.headers["ETag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["Vary"] == "Accept-Encoding"


def test_a_list_with_cors_varies_by_both(daemons):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1, CORS_ORIGIN="https://dj.example.org")
    reply = get(soirees, "/api/soirees", "gzip", Origin="https://dj.example.org")
    assert {name.strip() for name in reply.headers["Vary"].split(",")} == {"Accept-Encoding", "Origin"}
