"""The descriptions (openapi.json, asyncapi.yaml) as judges of what the tests see: every exchange of a harness'
daemon client, every message taken from a queue. What they find is collected; conftest.py fails the test."""

import datetime
import functools
import json
import os
import re
import threading
import urllib.parse
import uuid

import jsonschema
import yaml

from .consul import ROOT

# Not ours: framing, and what a connection says about itself.
PLAIN_HEADERS = {"date", "content-length", "content-type", "connection", "keep-alive", "transfer-encoding"}
SHOWN = 600  # characters of a body in a finding

_findings = []
_lock = threading.Lock()
_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("date")
def _is_date(value):
    if not isinstance(value, str):
        return True
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return False
    year = int(value[:4])
    try:  # Python has no year 0; 400 years later the calendar is the same
        datetime.date(year or 400, int(value[5:7]), int(value[8:]))
    except ValueError:
        return False
    return True


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(value):
    return not isinstance(value, str) or bool(datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ"))


@_formats.checks("uuid", raises=ValueError)
def _is_uuid(value):
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


def report(text):
    """Note something that is not as it is described."""
    with _lock:
        _findings.append(text)


def take_findings():
    """What was found since the last call."""
    with _lock:
        found = _findings[:]
        _findings.clear()
    return found


def inlined(value, root):
    """The value with all its (local, acyclic) references replaced by what they point at."""
    if isinstance(value, list):
        return [inlined(item, root) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        target = root
        for part in value["$ref"][2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        merged = {name: item for name, item in value.items() if name != "$ref"}
        return {**inlined(target, root), **inlined(merged, root)}
    return {name: inlined(item, root) for name, item in value.items()}


def validator(schema):
    return jsonschema.Draft202012Validator(schema, format_checker=_formats)


def errors(checker, value):
    """What is wrong with a value, one line each; at most five."""
    found = []
    for error in checker.iter_errors(value):
        pointer = "".join("/%s" % part for part in error.absolute_path)
        found.append("%s: %.300s" % (pointer or "(all of it)", error.message))
        if len(found) == 5:
            break
    return found


def from_text(schema, text):
    """A parameter's or header's text as the value that its schema is about."""
    if schema.get("type") == "integer" and re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return text


class Content:
    """The bodies of one request or response, by media type."""

    def __init__(self, content):
        self.checkers = {name: validator(media.get("schema", {})) for name, media in (content or {}).items()}

    def errors(self, media_type, body):
        checker = self.checkers.get(media_type)
        if checker is None:
            return ["content type %r is not described" % media_type]
        if not media_type.endswith("json"):
            return []
        try:
            return errors(checker, json.loads(body))
        except ValueError as error:
            return ["no JSON: %s" % error]


class Response:
    """One described answer."""

    def __init__(self, described):
        self.content = Content(described.get("content"))
        self.headers = {name.lower(): header for name, header in described.get("headers", {}).items()}
        self.checkers = {name: validator(header["schema"]) for name, header in self.headers.items()}

    def header_errors(self, headers):
        found = []
        for name, header in self.headers.items():
            if header.get("required") and name not in headers:
                found.append("header %s is missing" % name)
        for name, text in headers.items():
            if name.lower() in PLAIN_HEADERS:
                continue
            checker = self.checkers.get(name.lower())
            if checker is None:
                found.append("header %s is not described" % name)
            else:
                found += ["header %s: %s" % (name, error)
                          for error in errors(checker, from_text(checker.schema, text))]
        return found

    def errors(self, method, status, headers, body):
        found = self.header_errors(headers)
        media_type = headers.get("Content-Type", "").split(";")[0].strip()
        if method == "HEAD" or not self.content.checkers:
            found += ["a body where none is described"] if body else []
        else:
            found += self.content.errors(media_type, body)
        if media_type == "application/problem+json" and body and json.loads(body).get("status") != status:
            found.append("the problem's status is not the answer's")
        return found


class Operation:
    """One method of one path."""

    def __init__(self, path, method, item):
        described = item[method.lower()]
        self.path, self.method, self.described = path, method, described
        self.parameters = item.get("parameters", []) + described.get("parameters", [])
        self.checkers = [(p["in"], p["name"], validator(p["schema"])) for p in self.parameters]
        self.body = Content(described.get("requestBody", {}).get("content"))
        self.responses = {int(status): Response(response)
                          for status, response in described["responses"].items()}

    def request_errors(self, query, headers, body):
        """What a request that was accepted has against the description."""
        found = []
        given = {"query": query, "header": headers}
        for place, name, checker in self.checkers:
            text = given.get(place, {}).get(name)
            if text is not None:
                found += ["%s %s: %s" % (place, name, error)
                          for error in errors(checker, from_text(checker.schema, text))]
        if self.body.checkers and isinstance(body, (bytes, str)):
            found += self.body.errors(headers.get("Content-Type", "").split(";")[0].strip().lower(), body)
        return ["accepted request: " + text for text in found]


class OpenApi:
    """One openapi.json."""

    def __init__(self, document):
        self.document = inlined(document, document)
        self.operations = {}
        for path, item in self.document["paths"].items():
            for method in item:
                if method != "parameters":
                    self.operations[path, method.upper()] = Operation(path, method.upper(), item)
        common = self.document["components"]["responses"]
        self.unknown_path = Response(common["UnknownPath"])
        self.other_method = Response(common["MethodNotAllowed"])

    def path_of(self, path):
        """The described path that a request's belongs to, None when there is none."""
        path = path[:-1] if len(path) > 1 and path.endswith("/") else path
        for described in self.document["paths"]:
            if re.fullmatch(re.sub(r"\\\{[^/]*\\\}", "[^/]+", re.escape(described)), path):
                return described
        return None

    def expected(self, method, path, status):
        """(the operation or None, what is described for this answer or None)."""
        described = self.path_of(path)
        if described is None:
            return None, self.unknown_path if status == 404 else None
        operation = self.operations.get((described, method))
        if operation is None:
            return None, self.other_method if status == 405 else None
        return operation, operation.responses.get(status)

    def errors(self, reply):
        """What is wrong with an exchange (a requests.Response)."""
        request = reply.request
        target = urllib.parse.urlsplit(request.url)
        operation, response = self.expected(request.method, target.path, reply.status_code)
        if response is None:
            return ["this answer is not described"]
        found = response.errors(request.method, reply.status_code, reply.headers, reply.content)
        if operation and reply.ok:
            query = dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True))
            headers = requests_headers(request.headers)
            found += operation.request_errors(query, headers, request.body)
        return found


class requests_headers(dict):
    """Header values as text, found without case."""

    def __init__(self, headers):
        super().__init__((name.lower(), value.decode("latin-1") if isinstance(value, bytes) else value)
                         for name, value in headers.items())

    def get(self, name, default=None):
        return super().get(name.lower(), default)


def openapi_path(program):
    return os.path.join(ROOT, program, "openapi.json")


@functools.lru_cache(maxsize=None)
def openapi(program):
    with open(openapi_path(program), encoding="utf-8") as file:
        return OpenApi(json.load(file))


def judge(program, reply):
    """Report what is wrong with an exchange of a daemon."""
    found = openapi(program).errors(reply)
    if found:
        report("%s %s -> %d is not as %s/openapi.json says:\n    %s\n    body: %.*s" % (
            reply.request.method, reply.request.url, reply.status_code, program, "\n    ".join(found), SHOWN,
            reply.text))


# ---- messages

class Message:
    """One described message."""

    def __init__(self, described):
        self.described = described
        self.payload = validator(described["payload"])
        self.headers = validator(described.get("headers", {}))
        self.properties = validator(described.get("x-amqp-properties", {}))
        self.is_json = described.get("contentType") == "application/json"

    def errors(self, properties, body):
        """properties is pika's BasicProperties."""
        given = {name: value for name, value in vars(properties).items() if value is not None}
        found = ["property %s" % error for error in errors(self.properties, given)]
        found += ["header %s" % error for error in errors(self.headers, given.get("headers", {}))]
        if self.is_json:
            try:
                found += errors(self.payload, json.loads(body))
            except ValueError as error:
                found.append("no JSON: %s" % error)
        return found


def asyncapi_document():
    with open(os.path.join(ROOT, "asyncapi.yaml"), encoding="utf-8") as file:
        return yaml.safe_load(file)


@functools.lru_cache(maxsize=None)
def messages():
    """The described messages by their name in components."""
    document = asyncapi_document()
    described = inlined(document, document)["components"]["messages"]
    return {name: Message(message) for name, message in described.items()}


def judge_message(name, properties, body):
    """Report what is wrong with a message that our daemons have published."""
    found = messages()[name].errors(properties, body)
    if found:
        report("a message is not as asyncapi.yaml says of %s:\n    %s\n    body: %.*r" % (
            name, "\n    ".join(found), SHOWN, body))
