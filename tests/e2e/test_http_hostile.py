"""Clients that want the daemons down, or that write HTTP in unusual ways: nobody else notices."""

import contextlib
import json
import resource
import socket
import time

import pytest
from harness.booking import BOOKING, book
from harness.http import ok_json, problem
from harness.wait import wait_until

PATH = "/api/soirees"


@contextlib.contextmanager
def descriptors(count):
    """This process may have that many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip("only %d descriptors are allowed" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(daemon, text=b"", room=None):
    """A connection on which the text was sent; the kernel takes about `room` bytes that are not read."""
    client = socket.socket()
    if room:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(60)
    client.connect(("127.0.0.1", daemon.port))
    client.sendall(text)
    return client


def read_all(client):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            piece = client.recv(65536)
            if not piece:
                break
            data += piece
    return data


# ---- many connections


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"GET /api/soirees HTTP/1.1\r\nHost: x\r\n", b"POST /api/soirees HTTP/1.1\r\n"
                                   b"Host: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"],
                         ids=["silent", "half a head", "half a body"])
def test_5000_idle_connections_stop_nobody(daemons, start):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    with descriptors(6000), contextlib.ExitStack() as open_ones:
        for _ in range(5000):
            open_ones.enter_context(connect(soirees, start))
        began = time.monotonic()
        for n in range(20):
            soirees.session.close()  # each on a connection of its own
            made = book(soirees, lieu="Lieu %d" % n)
            soirees.session.close()
            assert ok_json(soirees.get(PATH + "?limit=1")) == [made]
        assert time.monotonic() - began < 20
        assert soirees.health()["status"] == "healthy"


def test_answers_that_nobody_takes_do_not_fill_the_memory(daemons):
    playlists = daemons.start("playlists", RABBITMQ_PORT=1, LAGMASTER_URL="http://127.0.0.1:1/")
    tracks = ["x" * 290 for _ in range(200)]
    for n in range(100):
        ok_json(playlists.post("/api/playlists", {"nom": "n%d" % n, "tracks": tracks}), 201)
    first = playlists.get("/api/playlists?limit=1000")
    assert 4 << 20 <= len(first.content) < 5 << 20 and len(ok_json(first)) < 100
    assert 'rel="next"' in first.headers["Link"]
    with contextlib.ExitStack() as open_ones:
        for _ in range(60):
            open_ones.enter_context(connect(
                playlists, b"GET /api/playlists?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n", room=4096))
        refused = []

        def is_refused():
            reply = playlists.get("/api/playlists?limit=1")
            refused[:] = [reply]
            return reply.status_code == 503
        wait_until(is_refused, 60, "a refusal")
        problem(refused[0], 503)
        assert refused[0].headers["Retry-After"]
        assert playlists.health()["status"] == "healthy"
        ok_json(playlists.post("/api/playlists", {"nom": "still"}), 201)
    wait_until(lambda: playlists.get("/api/playlists?limit=1").status_code == 200, 60, "lists again")


# ---- HTTP as it may be written


def test_several_lines_of_a_header_count_as_one_list(soirees):
    made = book(soirees)
    etag = soirees.get(PATH + "/" + made["id"]).headers["ETag"]
    head = "GET %s/%s HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"no\"\r\nIf-None-Match: %s\r\nConnection: close\r\n\r\n"
    with connect(soirees, (head % (PATH, made["id"], etag)).encode()) as client:
        assert read_all(client).startswith(b"HTTP/1.1 304 ")
    head = ("GET /openapi.json HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\nAccept-Encoding: gzip;q=0.5\r\n"
            "Connection: close\r\n\r\n")
    with connect(soirees, head.encode()) as client:
        assert b"\r\nContent-Encoding: gzip\r\n" in read_all(client)
    body = b'{"lieu":"Nice"}'
    head = ("PATCH %s/%s HTTP/1.1\r\nHost: x\r\nIf-Match: \"no\"\r\nX: y\r\nIf-Match: %s\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n")
    with connect(soirees, (head % (PATH, made["id"], etag, len(body))).encode() + body) as client:
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_white_space_behind_a_value_is_no_part_of_it(soirees):
    made = book(soirees)
    etag = soirees.get(PATH + "/" + made["id"]).headers["ETag"]
    head = ("GET %s/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: mine \t \r\n"
            "If-None-Match: %s  \r\n\r\n" % (PATH, made["id"], etag))
    with connect(soirees, head.encode()) as client:
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 304 ") and b"\r\nX-Request-Id: mine\r\n" in answer
    locations = set()
    for end in ("", " ", "\t "):
        head = ("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                "Idempotency-Key: white-space%s\r\nContent-Length: %d\r\n\r\n" % (PATH, end, len(BODY)))
        with connect(soirees, head.encode() + BODY) as client:
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 201 ")
        locations.add([line for line in answer.split(b"\r\n") if line.startswith(b"Location: ")][0])
    assert len(locations) == 1


CHUNKED = (b"POST /api/soirees HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
           b"Connection: close\r\n\r\n")
BODY = json.dumps(BOOKING).encode()


@pytest.mark.parametrize("body", [
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), b"%X;name=value\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    b"00%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(BODY), BODY),
    b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"],
    ids=["one", "extension", "trailer", "bytes"])
def test_chunked_bodies_are_put_together(soirees, body):
    with connect(soirees, CHUNKED + body) as client:
        assert read_all(client).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("body", [b"-1\r\n{\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"\r\n{}\r\n0\r\n\r\n",
                                  b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n",
                                  b"2\r\n{}XX0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n"])
def test_chunks_that_are_none_are_refused_and_end_the_connection(soirees, body):
    behind = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    before = len(ok_json(soirees.get(PATH + "?limit=1000")))
    with connect(soirees, CHUNKED.replace(b"Connection: close\r\n", b"") + body + behind) as client:
        answer = read_all(client)
    assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"413", b"422"), answer
    assert b"healthy" not in answer
    assert len(ok_json(soirees.get(PATH + "?limit=1000"))) == before


# ---- texts


def scalars():
    """Every Unicode scalar value but U+0000, which JSON texts may not hold here, 200 at a time."""
    values = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    return ["".join(values[start:start + 200]) for start in range(0, len(values), 200)]


@pytest.mark.slow
@pytest.mark.parametrize("ascii_only", [False, True], ids=["raw", "escaped"])
def test_every_unicode_scalar_value_comes_back_byte_for_byte(playlists, ascii_only):
    texts, back = scalars(), []
    for start in range(0, len(texts), 20):
        document = {"nom": "x", "tracks": texts[start:start + 20]}
        reply = playlists.post("/api/playlists", data=json.dumps(document, ensure_ascii=ascii_only).encode(),
                               headers={"Content-Type": "application/json"})
        made = ok_json(reply, 201)
        stored = playlists.get(reply.headers["Location"]).content
        assert json.loads(stored) == made
        back += made["tracks"]
    assert back == texts


# ---- who asked


@pytest.mark.parametrize("service", ["soirees", "playlists"])
def test_the_request_id_is_in_the_logs(daemons, service):
    others = {"LAGMASTER_URL": "http://127.0.0.1:1/"} if service == "playlists" else {}
    path = "/api/" + service
    daemon = daemons.start(service, RABBITMQ_PORT=1, LOG_FORMAT="json", **others)
    daemon.post(path, {}, headers={"X-Request-Id": "who-asked-1"})
    own = daemon.get(path).headers["X-Request-Id"]
    daemon.get("/health", headers={"X-Request-Id": "health-1"})
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log().splitlines() if line.startswith("{")]
    asked = [(line["requestId"], line["method"], line["path"], line["status"]) for line in lines
             if line["event"] == "http.request"]
    assert ("who-asked-1", "POST", path, 422) in asked and (own, "GET", path, 200) in asked
    assert not daemon.log_has("health-1")
    pretty = daemons.start(service, RABBITMQ_PORT=1, LOG_LEVEL="debug", **others)
    pretty.get(path, headers={"X-Request-Id": "who-asked-2"})
    pretty.stop()
    assert pretty.log_has("who-asked-2")
