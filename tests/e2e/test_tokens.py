"""API tokens: off by default; on, who may read, who may write, and what stays open."""

import hashlib
import json
import os
import re
import signal
import subprocess

import pytest
from harness.booking import BOOKING, booking
from harness.consul import ROOT
from harness.daemon import run
from harness.http import ok_json, problem
from harness.wait import wait_until

READER, WRITER, OTHER = "lit-" + "a" * 60, "ecrit-" + "b" * 60, "autre-" + "c" * 60
COLLECTIONS = {"soirees": ("/api/soirees", BOOKING), "playlists": ("/api/playlists", {"nom": "Une"})}
BOTH = pytest.mark.parametrize("program", sorted(COLLECTIONS))
pytestmark = pytest.mark.usefixtures("built")


def line(name, role, token):
    return "%s %s sha256:%s\n" % (name, role, hashlib.sha256(token.encode()).hexdigest())


def bearer(token, **more):
    return {"Authorization": "Bearer " + token, **more}


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# les clients\n" + line("tableau", "read", READER) + line("caisse", "write", WRITER))
    return file


@pytest.fixture
def start(daemons, tokens):
    def start_daemon(program, **settings):
        return daemons.start(program, API_TOKENS_FILE=tokens, RABBITMQ_PORT=1, **settings)
    return start_daemon


def refused(reply, status, error=None):
    problem(reply, status)
    challenge = reply.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="soirees"')
    assert ("error=" in challenge) == bool(error) and (error or "") in challenge


# ---- who may do what

@BOTH
def test_without_a_file_of_tokens_the_api_is_open(program, daemons):
    daemon = daemons.start(program, RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=1)
    path, document = COLLECTIONS[program]
    for headers in ({}, bearer("nobody knows this")):
        ok_json(daemon.post(path, document, headers=headers), 201)
        ok_json(daemon.get(path, headers=headers))


@BOTH
def test_nobody_comes_in_without_a_token(program, start):
    daemon = start(program)
    path, document = COLLECTIONS[program]
    calls = [("GET", path), ("HEAD", path), ("POST", path), ("GET", path + "/x"), ("PUT", path + "/x"),
             ("PATCH", path + "/x"), ("DELETE", path + "/x")]
    for method, target in calls:
        body = document if method in ("POST", "PUT", "PATCH") else None
        for headers in ({}, bearer("x"), bearer(READER + "x"), {"Authorization": "Basic YTpi"}):
            reply = daemon.request(method, target, json=body, headers=headers)
            assert reply.status_code == 401, (method, target, headers)
            if method != "HEAD":
                refused(reply, 401, "invalid_token" if headers else None)
    assert ok_json(daemon.get(path, headers=bearer(READER))) == []


@BOTH
def test_a_reader_reads_and_a_writer_does_everything(program, start):
    daemon = start(program)
    path, document = COLLECTIONS[program]
    made = ok_json(daemon.post(path, document, headers=bearer(WRITER)), 201)
    item = path + "/" + made["id"]
    for token in (READER, WRITER):
        assert ok_json(daemon.get(path, headers=bearer(token))) == [made]
        assert ok_json(daemon.get(item, headers=bearer(token))) == made
        assert daemon.request("HEAD", item, headers=bearer(token)).status_code == 200
    for method, target in (("POST", path), ("PUT", item), ("PATCH", item), ("DELETE", item)):
        reply = daemon.request(method, target, json=document, headers=bearer(READER))
        refused(reply, 403, "insufficient_scope")
    assert ok_json(daemon.get(path, headers=bearer(READER))) == [made]
    ok_json(daemon.patch(item, document, headers=bearer(WRITER)))
    assert daemon.delete(item, headers=bearer(WRITER)).status_code == 204


@BOTH
def test_what_watches_the_service_needs_no_token(program, start):
    daemon = start(program)
    path, _document = COLLECTIONS[program]
    for target in ("/health", "/ready", "/metrics", "/openapi.json", "/docs"):
        assert daemon.get(target).status_code == 200, target
        assert daemon.get(target, headers=bearer("nonsense")).status_code == 200, target
    preflight = daemon.request("OPTIONS", path, headers={"Origin": "https://a.example",
                                                         "Access-Control-Request-Method": "POST",
                                                         "Access-Control-Request-Headers": "authorization"})
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    problem(daemon.get("/nowhere"), 404)
    assert run(program, "--healthcheck", SERVICE_PORT=daemon.port).returncode == 0


@BOTH
def test_metrics_may_be_closed(program, start):
    daemon = start(program, METRICS_OPEN="no")
    refused(daemon.get("/metrics"), 401)
    assert daemon.get("/metrics", headers=bearer(READER)).status_code == 200
    assert daemon.get("/ready").status_code == 200


def test_who_has_no_token_learns_nothing_from_the_rest_of_the_request(start):
    soirees = start("soirees")
    refused(soirees.get("/api/soirees", params={"limit": "abc"}), 401)
    refused(soirees.post("/api/soirees", {"x": 1}), 401)
    refused(soirees.request("POST", "/api/soirees", data="{", headers={"Content-Type": "text/plain"}), 401)
    refused(soirees.patch("/api/soirees/x", {"lieu": "Lyon"}, headers={"If-Match": '"1"'}), 401)
    assert soirees.request("POST", "/api/soirees", data=b"x" * 70000).status_code == 401


def test_a_header_that_comes_twice_is_refused(start):
    """A proxy in front may have looked at the other one."""
    soirees = start("soirees")
    reply = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*",
                            "-H", "Authorization: Bearer " + WRITER, "-H", "authorization: Bearer " + WRITER,
                            soirees.url + "/api/soirees"], capture_output=True, text=True, timeout=30)
    assert reply.stdout == "401"


def test_one_clients_idempotency_keys_are_not_anothers(start, tokens):
    tokens.write_text(tokens.read_text() + line("autre", "write", OTHER) + line("caisse", "write", "nouveau"))
    soirees = start("soirees")

    def post(token, key="k" * 128, **changes):
        headers = bearer(token, **{"Idempotency-Key": key})
        return soirees.post("/api/soirees", booking(**changes), headers=headers)
    first, other = ok_json(post(WRITER), 201), ok_json(post(OTHER, lieu="Lyon"), 201)
    assert first["id"] != other["id"]
    assert ok_json(post(WRITER), 201) == first
    assert ok_json(post("nouveau"), 201) == first, "the same client with another token"
    assert ok_json(post(OTHER, lieu="Lyon"), 201) == other
    problem(post(OTHER), 422)
    problem(post(WRITER, "k" * 129), 422)


# ---- the worker

def linked(soirees, soiree_id):
    """Wait until the soirée has a playlist."""
    def has_playlist():
        return ok_json(soirees.get("/api/soirees/" + soiree_id, headers=bearer(READER)))["playlistId"]
    wait_until(has_playlist, 60, "the link")


def test_the_worker_links_with_its_own_token(make_stack, tokens, tmp_path):
    secret = tmp_path / "worker-token"
    secret.write_text(OTHER + "\n")
    tokens.write_text(tokens.read_text() + line("worker", "write", OTHER))
    stack = make_stack(soirees={"API_TOKENS_FILE": tokens}, playlists={"SOIREES_TOKEN_FILE": secret}).start()
    made = ok_json(stack.soirees.post("/api/soirees", BOOKING, headers=bearer(WRITER)), 201)
    linked(stack.soirees, made["id"])


def test_a_worker_without_a_token_keeps_the_link_and_says_why(make_stack, tokens):
    stack = make_stack(soirees={"API_TOKENS_FILE": tokens}).start()
    made = ok_json(stack.soirees.post("/api/soirees", BOOKING, headers=bearer(WRITER)), 201)
    wait_until(lambda: stack.playlists.log_has("refusée: statut 401"), 60, "the refusal in the log")
    stack.playlists.restart(SOIREES_TOKEN=WRITER)
    linked(stack.soirees, made["id"])


# ---- the file

@BOTH
@pytest.mark.parametrize("arguments", [[], ["--check-config"]], ids=["start", "check"])
def test_a_bad_file_is_named_with_its_lines(program, arguments, tokens, tmp_path):
    tokens.write_text(line("a", "read", READER) + "b write " + WRITER + "\n\nc admin sha256:00\n")
    result = run(program, *arguments, API_TOKENS_FILE=tokens, DATABASE_PATH=tmp_path / "x.db",
                 LOG_LEVEL="loud")
    assert result.returncode == 2
    assert "API_TOKENS_FILE: %s:2: " % tokens in result.stderr
    assert "API_TOKENS_FILE: %s:4: " % tokens in result.stderr
    assert "LOG_LEVEL" in result.stderr and WRITER not in result.stderr
    assert ":1:" not in result.stderr and not (tmp_path / "x.db").exists()


@BOTH
def test_a_file_that_is_missing_or_empty_opens_nothing(program, tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("# nobody yet\n")
    for path in (tmp_path / "missing", empty, tmp_path):
        result = run(program, "--check-config", API_TOKENS_FILE=path)
        assert result.returncode == 2 and str(path) in result.stderr


def test_the_readme_s_way_of_making_a_token_works(start, tokens, tmp_path):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        commands = re.search(r"\n( {4}token=.*\n {4}printf .*\n {4}printf .*\n)", file.read()).group(1)
    made = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch("[0-9a-f]{64}\n", made.stdout)
    soirees = start("soirees")
    ok_json(soirees.post("/api/soirees", BOOKING, headers=bearer(made.stdout.strip())), 201)


def test_verify_brings_a_token(make_stack, tokens, tmp_path):
    stack = make_stack(soirees={"API_TOKENS_FILE": tokens},
                       playlists={"API_TOKENS_FILE": tokens, "SOIREES_TOKEN": WRITER})
    stack.soirees.start()
    stack.playlists.start()
    stack.consuming()
    made = ok_json(stack.soirees.post("/api/soirees", BOOKING, headers=bearer(WRITER)), 201)
    linked(stack.soirees, made["id"])
    secret = tmp_path / "reader"
    secret.write_text(READER + "\n")

    def verify(*arguments):
        return subprocess.run(
            [os.path.join(ROOT, "scripts", "verify"), "--soirees", stack.soirees.url, "--playlists",
             stack.playlists.url, *arguments], env={"PATH": os.environ["PATH"], **stack.vhost.settings()},
            capture_output=True, text=True, timeout=120)
    wait_until(lambda: verify("--token-file", secret).returncode == 0, 60, "all accounted for")
    without = verify()
    assert without.returncode == 2 and "401" in without.stderr, without


@pytest.mark.threads
def test_the_file_is_read_again_on_sighup(start, tokens):
    soirees = start("soirees")
    ok_json(soirees.get("/api/soirees", headers=bearer(READER)))
    tokens.write_text(line("autre", "read", OTHER))
    refused(soirees.get("/api/soirees", headers=bearer(OTHER)), 401, "invalid_token")
    soirees.child.send_signal(signal.SIGHUP)
    wait_until(lambda: soirees.get("/api/soirees", headers=bearer(OTHER)).ok, what="the new token")
    refused(soirees.get("/api/soirees", headers=bearer(READER)), 401, "invalid_token")
    tokens.write_text("nonsense\n")
    soirees.child.send_signal(signal.SIGHUP)
    wait_until(lambda: soirees.log_has("%s:1: " % tokens), what="the refusal in the log")
    ok_json(soirees.get("/api/soirees", headers=bearer(OTHER)))


@BOTH
def test_sighup_ends_nothing(program, daemons):
    daemon = daemons.start(program, RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=1)
    daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log_has("SIGHUP"), what="a line in the log")
    assert daemon.get("/health").status_code == 200


# ---- the log

def client_of(daemon, request_id):
    """The address and the token that the log has for one request."""
    def found():
        entries = [json.loads(text) for text in daemon.log().splitlines() if text.startswith("{")]
        return next((e for e in entries if e.get("requestId") == request_id), None)
    entry = wait_until(found, what="the request in the log")
    return entry.get("client"), entry.get("token")


def test_the_log_names_the_token_and_never_shows_it(start):
    soirees = start("soirees", LOG_FORMAT="json", LOG_LEVEL="debug")
    for token, request_id, status in ((READER, "r1", 200), (OTHER, "r2", 401)):
        reply = soirees.get("/api/soirees", headers=bearer(token, **{"X-Request-Id": request_id}))
        assert reply.status_code == status
    assert client_of(soirees, "r1") == ("127.0.0.1", "tableau")
    assert client_of(soirees, "r2") == ("127.0.0.1", None)
    for token in (READER, WRITER, OTHER):
        assert token not in soirees.log()
        assert hashlib.sha256(token.encode()).hexdigest() not in soirees.log()


@pytest.mark.parametrize("trusted, expected", [(None, "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"),
                                               ("127.0.0.0/8, ::1", "198.51.100.7")])
def test_a_trusted_proxy_says_who_the_client_is(trusted, expected, daemons):
    soirees = daemons.start("soirees", RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=1, TRUSTED_PROXIES=trusted,
                            LOG_FORMAT="json", LOG_LEVEL="debug")
    ok_json(soirees.get("/api/soirees", headers={"X-Request-Id": "r1",
                                                 "X-Forwarded-For": "203.0.113.66, 198.51.100.7"}))
    assert client_of(soirees, "r1")[0] == expected
    # a proxy that adds a line of its own behind the client's
    subprocess.run(["curl", "-s", "-o", "/dev/null", "--noproxy", "*", "-H", "X-Request-Id: r2", "-H",
                    "X-Forwarded-For: 203.0.113.66", "-H", "x-forwarded-for: 198.51.100.7",
                    soirees.url + "/api/soirees"], check=True, timeout=30)
    assert client_of(soirees, "r2")[0] == expected


def test_a_bad_list_of_proxies_is_named():
    result = run("soirees", "--check-config", TRUSTED_PROXIES="10.0.0.0/8, proxy.example")
    assert result.returncode == 2 and "TRUSTED_PROXIES: 'proxy.example'" in result.stderr
