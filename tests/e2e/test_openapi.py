"""openapi.json and asyncapi.yaml: valid, served, and the same as what the daemons do. (That every exchange of
every other test is as described is conftest.py's and harness/description.py's doing.)"""

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess

import jsonschema
import pytest
import requests
from harness import daemon as daemon_module
from harness import description, metaschemas
from harness.booking import BOOKING
from harness.consul import ROOT
from harness.http import ok_json, problem
from harness.wait import wait_until

PROGRAMS = ["soirees", "playlists"]
DOCUMENTS = {"soirees": BOOKING, "playlists": {"nom": "Une", "tracks": ["a"]}}
CHANGES = {"soirees": {"lieu": "Lyon"}, "playlists": {"nom": "Autre"}}
# Answered with 503 in the last moment of a stop alone (tests/unit/test_http_drain.c): no database is asked.
STOP_ALONE = {(path, method, 503) for path in ("/openapi.json", "/docs", "/metrics")
              for method in ("GET", "HEAD")}


@pytest.fixture(params=PROGRAMS)
def program(request):
    return request.param


@pytest.fixture
def daemon(request, program):
    return request.getfixturevalue(program)


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def operations(program):
    return description.openapi(program).operations.values()


# ---- the files

def test_an_openapi_json_is_valid_openapi(program):
    assert metaschemas.openapi_errors(json.loads(read(program, "openapi.json"))) == []


def test_asyncapi_yaml_is_valid_asyncapi():
    assert metaschemas.asyncapi_errors(description.asyncapi_document()) == []


def schemas_in(value):
    """Every JSON schema in a description."""
    if isinstance(value, dict):
        if isinstance(value.get("schema"), dict):
            yield value["schema"]
        for item in value.values():
            yield from schemas_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from schemas_in(item)


def test_its_schemas_are_json_schemas(program):
    document = description.openapi(program).document
    found = list(schemas_in(document)) + list(document["components"]["schemas"].values())
    assert len(found) > 20
    for schema in found:
        jsonschema.Draft202012Validator.check_schema(schema)
    for message in description.messages().values():
        for checker in (message.payload, message.headers, message.properties):
            checker.check_schema(checker.schema)


def test_nothing_in_it_is_unused(program):
    text = read(program, "openapi.json")
    for kind, components in json.loads(text)["components"].items():
        for name in components:
            if kind == "securitySchemes":
                assert '{"%s": [' % name in text
            elif name not in ("UnknownPath", "MethodNotAllowed"):
                assert '"#/components/%s/%s"' % (kind, name) in text, (kind, name)


def test_its_version_is_the_programs(program):
    printed = daemon_module.run(program, "--version").stdout.split()
    assert printed == [program, json.loads(read(program, "openapi.json"))["info"]["version"]]
    assert description.asyncapi_document()["info"]["version"] == printed[1]


# ---- the examples

def media_examples(media):
    return [example["value"] for example in media.get("examples", {}).values()] + (
        [media["example"]] if "example" in media else [])


def test_every_example_of_an_answer_is_as_its_schema_says(program):
    seen = 0
    for operation in operations(program):
        for status, response in operation.described["responses"].items():
            for media in response.get("content", {}).values():
                for example in media_examples(media):
                    assert description.errors(description.validator(media["schema"]), example) == [], status
                    if status >= "400":
                        assert (example["status"], example["error"]) == (int(status), example["detail"])
                    seen += 1
    assert seen > 50


def test_every_example_of_a_request_is_accepted(daemon, program):
    base, seen = "/api/" + program, 0
    made = ok_json(daemon.post(base, DOCUMENTS[program]), 201)
    for operation in operations(program):
        for content_type, media in operation.described.get("requestBody", {}).get("content", {}).items():
            for example in media_examples(media):
                reply = daemon.request(
                    operation.method, operation.path.replace("{id}", made["id"]),
                    data=json.dumps(example).encode(), headers={"Content-Type": content_type})
                shown = ok_json(reply, 201 if operation.method == "POST" else 200)
                assert {name: shown[name] for name in example} == example
                seen += 1
        for parameter in operation.parameters:
            if "example" in parameter and operation.method == "POST":
                headers = {parameter["name"]: parameter["example"]}
                ok_json(daemon.post(operation.path, DOCUMENTS[program], headers=headers), 201)
                seen += 1
    assert seen >= 6


def test_every_example_of_a_message_is_as_its_schema_says():
    for message in description.messages().values():
        assert message.described["examples"]
        for example in message.described["examples"]:
            assert description.errors(message.headers, example.get("headers", {})) == []
            if message.is_json:
                assert description.errors(message.payload, example["payload"]) == []


# ---- the judge itself

def exchange(daemon, method="GET", path="/health", **options):
    return requests.request(method, daemon.url + path, timeout=30, **options)


@pytest.mark.parametrize("twist, finding", [
    (lambda reply: reply.headers.update({"X-New": "1"}), "X-New is not described"),
    (lambda reply: reply.headers.pop("X-Request-Id"), "x-request-id is missing"),
    (lambda reply: reply.headers.update({"Cache-Control": "public"}), "Cache-Control: "),
    (lambda reply: reply.headers.update({"Content-Type": "text/plain"}), "content type"),
    (lambda reply: setattr(reply, "status_code", 201), "not described"),
    (lambda reply: setattr(reply.request, "method", "POST"), "not described"),
    (lambda reply: setattr(reply.request, "url", reply.request.url + "x"), "not described"),
    (lambda reply: setattr(reply, "_content", b"[]"), "is not of type"),
    (lambda reply: setattr(reply, "_content", b"{"), "no JSON"),
    (lambda reply: setattr(reply, "_content", reply.content.replace(b'"status"', b'"x":1,"status"')), "'x'"),
    (lambda reply: setattr(reply, "_content", reply.content.replace(b'"healthy"', b'"fine"')), "/status: ")])
def test_an_answer_that_is_not_as_described_is_found(daemon, program, twist, finding):
    reply = exchange(daemon)
    assert description.openapi(program).errors(reply) == []
    twist(reply)
    assert finding in " ".join(description.openapi(program).errors(reply))


@pytest.mark.parametrize("body, finding", [
    (b'{"clientId":5}', "/clientId: "), (b"{}", "is a required property"), (b"[]", "is not of type")])
def test_a_request_that_should_not_have_been_accepted_is_found(soirees, body, finding):
    reply = exchange(soirees, "POST", "/api/soirees", json=BOOKING)
    assert description.openapi("soirees").errors(reply) == []
    reply.request.body = body
    assert finding in " ".join(description.openapi("soirees").errors(reply))


def test_what_is_found_is_reported_once(soirees):
    reply = exchange(soirees)
    reply.headers["X-New"] = "1"
    description.judge("soirees", reply)
    found = description.take_findings()
    assert len(found) == 1 and "GET " + soirees.url + "/health -> 200" in found[0] and "X-New" in found[0]
    assert description.take_findings() == []


# ---- description and route table

def test_the_paths_and_methods_are_those_of_the_daemon(daemon, program):
    rows = re.findall(r'^    \{"([A-Z]+)", "(/[^"]*)", \w+, \w+\},$', read(program, "routes.c"), re.MULTILINE)
    table = {(path, method) for method, path in rows}
    table |= {(path, "HEAD") for path, method in table if method == "GET"}
    table |= {(path, "OPTIONS") for path, _ in table}
    described = {(operation.path, operation.method) for operation in operations(program)}
    assert described == table
    for path in {path for path, _ in described}:
        allowed = daemon.request("OPTIONS", path.replace("{id}", "x")).headers["Allow"]
        assert {(path, method) for method in allowed.split(", ")} == {
            row for row in described if row[0] == path}


class Provoker:
    """Has a daemon give every answer that is described, and notes which it gave."""

    def __init__(self, daemon, program):
        self.daemon, self.base, self.document = daemon, "/api/" + program, DOCUMENTS[program]
        self.change, self.program, self.seen = CHANGES[program], program, set()

    def item(self):
        return self.base + "/" + ok_json(self.daemon.post(self.base, self.document), 201)["id"]

    def send(self, operation, path=None, suffix="", **options):
        """One request; the operation's body where none is given."""
        if operation.body.checkers and "data" not in options:
            options.setdefault("json", self.document if operation.method == "POST" else self.change)
        path = path or operation.path.replace("{id}", "unknown")
        reply = self.daemon.request(operation.method, path + suffix, **options)
        self.seen.add((operation.path, operation.method, reply.status_code))
        return reply

    def each(self, operation):
        """What does not need a broken database."""
        has_id = "{id}" in operation.path
        self.send(operation, self.item() if has_id else None)
        self.send(operation, self.item() if has_id else None, headers={"X-Big": "x" * 25000})
        self.send(operation, suffix="?a=1&a=2")
        self.send(operation, data=b" " * 65537, headers={"Content-Type": "application/json"})
        if has_id:
            self.send(operation)
            self.send(operation, self.item(), headers={"If-Match": '"7"', "If-None-Match": '"1"'})
            self.send(operation, self.item(), json={"playlistId": "p"},
                      headers={"Playlist-Request": "unknown"})
        if operation.body.checkers:
            self.send(operation, data=b"{}", headers={"Content-Type": "text/plain"})
        if operation.path in ("/openapi.json", "/docs"):
            self.send(operation, headers={"If-None-Match": self.daemon.get(operation.path).headers["ETag"]})

    def gone(self, operation):
        headers = {"Idempotency-Key": "gone"}
        made = ok_json(self.send(operation, headers=headers), 201)
        self.daemon.delete(self.base + "/" + made["id"])
        self.send(operation, headers=headers)

    def without_rights(self, guarded, operations_):
        """Every operation of a daemon that wants tokens, without one and with one that may read."""
        open_one, self.daemon = self.daemon, guarded
        for operation in operations_:
            roles = [role for way in operation.described["security"] for role in way.get("jeton", [])]
            asks, writes = self.send(operation).status_code == 401, operation.method not in ("GET", "HEAD")
            assert roles == ([] if not asks else ["write"] if writes else ["read"]), operation.described
            self.send(operation, headers={"Authorization": "Bearer lire"})
        self.daemon = open_one

    def without_tables(self, operations_):
        """Every operation on a database whose table is missing: it is no fault of the client's."""
        connection = sqlite3.connect(self.daemon.database, timeout=30)
        connection.execute("ALTER TABLE %s RENAME TO elsewhere" % self.program)
        connection.close()
        for operation in operations_:
            self.send(operation)

    def refuses(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.daemon.port)) == errno.ECONNREFUSED

    def while_stopping(self, operations_):
        """The health of a daemon that is stopping, over connections it has already."""
        sessions = []
        for operation in operations_:
            self.daemon.session = requests.Session()
            self.daemon.session.trust_env = False
            self.send(operation)
            sessions.append((operation, self.daemon.session))
        with socket.create_connection(("127.0.0.1", self.daemon.port), 30) as unfinished:
            unfinished.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n" % self.base.encode())
            assert unfinished.recv(1000).startswith(b"HTTP/1.1 100 ")
            self.daemon.begin_stop()
            wait_until(self.refuses, what="no more connections")
            for operation, self.daemon.session in sessions:
                self.send(operation)
            unfinished.sendall(b"{}")
            assert unfinished.recv(1000).startswith(b"HTTP/1.1 422 ")
        self.daemon.end_stop()


def test_every_described_answer_can_be_had_and_every_answer_is_described(daemons, program, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("lecteur read sha256:%s\n" % hashlib.sha256(b"lire").hexdigest())
    provoker = Provoker(daemons.start(program, RABBITMQ_PORT=1), program)
    described = {(operation.path, operation.method, status)
                 for operation in operations(program) for status in operation.responses}
    for operation in operations(program):
        provoker.each(operation)
        if operation.method == "POST":
            provoker.gone(operation)
    guarded = daemons.start(program, RABBITMQ_PORT=1, API_TOKENS_FILE=tokens, METRICS_OPEN="no")
    provoker.without_rights(guarded, operations(program))
    provoker.without_tables(operations(program))
    provoker.while_stopping([operation for operation in operations(program)
                             if operation.path in ("/health", "/ready") and operation.method != "OPTIONS"])
    at_stop = {row for row in described if row[1] == "OPTIONS" and row[2] == 503} | STOP_ALONE
    assert described - provoker.seen - at_stop == set()
    assert provoker.seen - described == set()


# ---- served

def test_the_description_is_served_as_it_is(daemon, program):
    reply = daemon.get("/openapi.json")
    assert ok_json(reply) == json.loads(read(program, "openapi.json"))
    assert reply.text == read(program, "openapi.json")
    assert reply.headers["Cache-Control"] == "no-cache"


def test_the_page_is_served_as_it_is(daemon):
    reply = daemon.get("/docs")
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert reply.text == read("common", "docs.html")


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_both_are_sent_once_to_who_keeps_them(daemon, path):
    reply = daemon.get(path)
    etag = reply.headers["ETag"]
    for value in (etag, etag[2:], "*", '"1", ' + etag):
        known = daemon.get(path, headers={"If-None-Match": value})
        assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", etag)
    assert daemon.get(path, headers={"If-None-Match": '"1"'}).content == reply.content
    head = daemon.request("HEAD", path)
    assert (head.status_code, head.headers["ETag"], head.content) == (200, etag, b"")
    problem(daemon.request("POST", path, json={}), 405)


def test_the_page_runs_its_own_script_and_nothing_else(daemon):
    reply = daemon.get("/docs")
    policy = reply.headers["Content-Security-Policy"]
    for element in ("script", "style"):
        contents = re.findall("<%s>(.*?)</%s>" % (element, element), reply.text, re.DOTALL)
        assert len(contents) == 1
        digest = base64.b64encode(hashlib.sha256(contents[0].encode()).digest()).decode()
        assert "%s-src 'sha256-%s';" % (element, digest) in policy  # to be changed in common/document.c
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "*" not in policy
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(",
                         reply.text)


def test_a_browser_shows_every_operation(daemon, program, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here")
    result = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
         "--enable-logging=stderr", "--user-data-dir=%s" % tmp_path, "--dump-dom", daemon.url + "/docs"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    for operation in operations(program):
        assert 'id="%s"' % operation.described["operationId"] in result.stdout, result.stderr[-2000:]
    assert "CONSOLE" not in result.stderr, result.stderr[-2000:]
