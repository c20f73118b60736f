"""Requests made from openapi.json itself: valid ones must be accepted, ones with exactly one broken rule
refused with the described status and the JSON pointer of what was broken. (That the answers are as described is
seen by harness/description.py.)

A failure shows its seed: PROPERTY_SEED=… repeats it. PROPERTY_REQUESTS: how many for each service.
"""

import json
import os
import random
import string
import urllib.parse

import pytest
from harness import description
from harness.http import ok_json, problem

REQUESTS = int(os.environ.get("PROPERTY_REQUESTS", "3000"))  # for each service
SEED = int(os.environ.get("PROPERTY_SEED", random.SystemRandom().randrange(1 << 32)))
LETTERS = string.ascii_letters + string.digits + " éÀß漢字🕺\u0301\u202e\ufeff\"\\/<>&'%\x01\n\x7f"
DATES = ["0000-02-29", "1999-12-31", "2000-02-29", "2024-02-29", "2025-12-25", "9999-12-31"]
NO_DATES = ["2025-02-29", "1900-02-29", "2025-13-01", "2025-00-10", "2025-04-31", "2025-12-00", "9999-99-99"]
MALFORMED = [b"", b"{", b'{"a":1,}', b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":"\\ud800"}',
             b'{"a":"\\u0000"}', b"{}x", b"[" * 17 + b"]" * 17, b'{"a":01}', b'{"a":1e999}', b"{'a':1}",
             b"nul"]
OTHER_TYPES = ["text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonx",
               "application/json; charset=latin1", "multipart/form-data", ""]
LIST_CHARACTERS = 1000  # in all texts of a list together, so that a document stays below 64 KiB


class Broken:
    """A value that breaks one keyword of its schema, and where: "" for itself, "/3" for an item."""

    def __init__(self, keyword, value, pointer=""):
        self.keyword, self.value, self.pointer = keyword, value, pointer


def types(schema):
    found = schema.get("type", [])
    return found if isinstance(found, list) else [found]


class Maker:
    """Makes values for the schemas of the descriptions, from one source of chance."""

    def __init__(self, chance):
        self.chance = chance

    def text(self, length):
        return "".join(self.chance.choice(LETTERS) for _ in range(length))

    def length(self, least, most):
        return self.chance.choice([least, most, self.chance.randint(least, min(most, least + 20))])

    def number(self, schema):
        least, most = schema["minimum"], schema["maximum"]
        number = self.chance.choice([least, most, self.chance.randint(least, most)])
        if types(schema)[0] == "integer":
            return self.chance.choice([number, float(number)])
        return self.chance.choice([number, min(most, number + self.chance.random())])

    def valid(self, schema):
        """A value that the schema allows, at its bounds often."""
        kind = self.chance.choice(types(schema))
        if kind == "null":
            return None
        if kind in ("integer", "number"):
            return self.number(schema)
        if kind == "array":
            count = self.length(0, schema["maxItems"])
            most = min(schema["items"]["maxLength"], LIST_CHARACTERS // max(count, 1))
            return [self.text(self.length(0, most)) for _ in range(count)]
        assert kind == "string", schema
        if schema.get("format") == "date":
            parts = self.chance.randint(0, 9999), self.chance.randint(1, 12), self.chance.randint(1, 28)
            return self.chance.choice(["%04d-%02d-%02d" % parts, self.chance.choice(DATES)])
        if "pattern" in schema:
            return self.of_pattern(schema["pattern"])
        return self.text(self.length(schema.get("minLength", 0), schema["maxLength"]))

    def of_pattern(self, pattern):
        if pattern.startswith("^p["):
            return "p%x" % self.chance.randint(1, 1 << self.chance.randint(1, 60) - 1)
        assert pattern == "^[ -~]{1,128}$", pattern
        text = "".join(self.chance.choice(string.printable[:94]) for _ in range(self.length(1, 120)))
        return text + "-%d" % self.chance.randrange(1 << 20)

    def other_types(self, schema):
        """Values of the types that the schema does not have."""
        allowed, found = types(schema), []
        for kind, value in (("string", self.text(5)), ("number", 5.5), ("boolean", True), ("array", [["x"]]),
                            ("object", {"x": 1}), ("null", None)):
            if kind not in allowed and not (kind == "array" and "array" in allowed):
                found.append(Broken("type", value))
        return [broken for broken in found
                if not (isinstance(broken.value, float) and {"number", "integer"} & set(allowed))]

    def broken(self, schema):
        """For each keyword of the schema values that break it, and nothing else."""
        found = self.other_types(schema)
        if "integer" in types(schema):
            found.append(Broken("type", schema["minimum"] + 0.5))
        if "minimum" in schema:
            found += [Broken("minimum", schema["minimum"] - step) for step in (1, 1000, 1e12)]
            found += [Broken("maximum", schema["maximum"] + step) for step in (1, 1000, 1e300)]
        if schema.get("format") == "date":
            found += [Broken("format", day) for day in NO_DATES]
            found += [Broken("pattern", text) for text in ("", "demain", "2025-1-1", "2025-12-25 ",
                                                           "25/12/2025", "２０２５-12-25")]
        elif "minLength" in schema:
            found.append(Broken("minLength", ""))
        if "maxLength" in schema:
            found += [Broken("maxLength", self.text(schema["maxLength"] + more)) for more in (1, 50)]
        if "maxItems" in schema:
            found += [Broken("maxItems", ["x"] * (schema["maxItems"] + more)) for more in (1, 7)]
            for item in self.broken(schema["items"]):
                before = self.chance.randint(0, 5)
                value = ["x"] * before + [item.value] + ["y"]
                found.append(Broken("items/" + item.keyword, value, "/%d" % before))
        return found

    def document(self, schema, without=()):
        """A valid object: the required fields, some of the others, and something unknown now and then."""
        names = [name for name in schema["properties"] if name not in without and (
            name in schema.get("required", []) or self.chance.random() < 0.5)]
        self.chance.shuffle(names)
        document = {name: self.valid(schema["properties"][name]) for name in names}
        if self.chance.random() < 0.2:
            document["inconnu-" + self.text(3)] = self.chance.choice([1, None, [], {"a": "b"}, "x"])
        return document


class Requests:
    """Sends requests of one service's description, and checks what must become of each."""

    def __init__(self, daemon, program, chance):
        self.daemon, self.base, self.chance, self.maker = daemon, "/api/" + program, chance, Maker(chance)
        self.api, self.count, self.rules = description.openapi(program), 0, set()
        self.ids = []

    def send(self, operation, path, expected, pointers=None, rule="valid", **options):
        reply = self.daemon.request(operation.method, path, **options)
        self.count += 1
        self.rules.add((operation.path, operation.method, rule))
        shown = "%s %s, %s, %.300s" % (operation.method, path, rule, options)
        assert reply.status_code == expected, "%s: %d %.500s" % (shown, reply.status_code, reply.text)
        if expected >= 400 and operation.method != "HEAD":
            found = [error["pointer"] for error in problem(reply, expected).get("errors", [])]
            assert found == (pointers or []), "%s: %s" % (shown, found)
        return reply

    # ---- parts of a request

    def path(self, operation):
        """The path of an existing item, or of the collection."""
        if "{id}" not in operation.path:
            return operation.path
        if len(self.ids) < 3:
            self.create()
        return operation.path.replace("{id}", self.chance.choice(self.ids))

    def create(self):
        operation = self.api.operations[self.base, "POST"]
        document = self.maker.document(self.schema(operation))
        self.ids.append(ok_json(self.send_body(operation, self.base, document, 201), 201)["id"])

    def schema(self, operation):
        return operation.described["requestBody"]["content"]["application/json"]["schema"]

    def content_type(self, operation):
        return self.chance.choice(list(operation.body.checkers))

    def send_body(self, operation, path, document, expected, pointers=None, rule="valid", headers=None):
        body = json.dumps(document, ensure_ascii=self.chance.random() < 0.5).encode()
        return self.send(operation, path, expected, pointers, rule, data=body,
                         headers={"Content-Type": self.content_type(operation), **(headers or {})})

    def parameters(self, operation, place):
        """Those that have a rule that can be broken."""
        return [p for p in operation.parameters if p["in"] == place and len(p["schema"]) > 1]

    def query(self, operation):
        return {p["name"]: self.as_text(self.maker.valid(p["schema"]))
                for p in self.parameters(operation, "query") if self.chance.random() < 0.4}

    @staticmethod
    def as_text(value):
        return str(int(value)) if isinstance(value, (int, float)) else value

    @staticmethod
    def target(path, query):
        return path + ("?" + urllib.parse.urlencode(query) if query else "")

    # ---- valid ones

    def valid(self, operation):
        """One valid request of the operation."""
        path, status = self.path(operation), min(operation.responses)
        headers = {p["name"]: self.maker.valid(p["schema"]) for p in self.parameters(operation, "header")
                   if self.chance.random() < 0.3}
        if operation.body.checkers:
            document = self.maker.document(self.schema(operation))
            reply = self.send_body(operation, path, document, status, headers=headers)
            if operation.method == "POST":
                self.ids.append(reply.json()["id"])
        else:
            self.send(operation, self.target(path, self.query(operation)), status, headers=headers)
        if operation.method == "DELETE":
            self.ids.remove(path.rsplit("/", 1)[1])

    # ---- broken ones: each way, as (rule, function that sends it)

    def ways(self, operation):
        """Every way to break one rule of the operation."""
        if operation.body.checkers:
            yield from self.body_ways(operation)
        for parameter in self.parameters(operation, "query"):
            yield from self.query_ways(operation, parameter)
        for parameter in self.parameters(operation, "header"):
            yield from self.header_ways(operation, parameter)
        yield "parameter twice", lambda: self.send(operation, self.path(operation) + "?a=1&b=2&a=3", 422,
                                                   rule="parameter twice")
        yield "bad escape", lambda: self.send(operation, self.path(operation) + "?a=%C3", 422,
                                              rule="bad escape")
        if "{id}" in operation.path and operation.method != "OPTIONS":
            yield "id", lambda: self.unknown_id(operation)

    def unknown_id(self, operation):
        text = "x" + self.maker.text(self.chance.randint(1, 80))
        path = operation.path.replace("{id}", urllib.parse.quote(text, safe=""))
        if operation.body.checkers:
            self.send_body(operation, path, self.maker.document(self.schema(operation)), 404, rule="id")
        else:
            self.send(operation, path, 404, rule="id")

    def body_ways(self, operation):
        schema = self.schema(operation)
        for name, property_ in schema["properties"].items():
            for broken in self.maker.broken(property_):
                rule = "%s/%s" % (name, broken.keyword)
                yield rule, lambda n=name, b=broken, r=rule: self.send_body(
                    operation, self.path(operation), {**self.maker.document(schema), n: b.value}, 422,
                    ["/" + n + b.pointer], r)
        for name in schema.get("required", []):
            yield name + "/required", lambda n=name: self.send_body(
                operation, self.path(operation), self.maker.document(schema, without=[n]), 422, ["/" + n],
                n + "/required")
        for value in ([], None, 5, "x", True, [{}]):
            yield "type", lambda v=value: self.send_body(
                operation, self.path(operation), v, 422, [""], "type")
        for text in MALFORMED:
            yield "malformed", lambda t=text: self.send(
                operation, self.path(operation), 400, rule="malformed", data=t,
                headers={"Content-Type": self.content_type(operation)})
        for other in OTHER_TYPES:
            yield "content type", lambda o=other: self.send(
                operation, self.path(operation), 415, rule="content type", data=b"{}",
                headers={"Content-Type": o})
        yield "too large", lambda: self.send(
            operation, self.path(operation), 413, rule="too large",
            headers={"Content-Type": "application/json"}, data=b" " * self.chance.randint(65537, 70000))

    def query_ways(self, operation, parameter):
        name, schema = parameter["name"], parameter["schema"]
        values = [broken.value for broken in self.maker.broken(schema)
                  if isinstance(broken.value, str) and broken.keyword != "type"]
        if "integer" in types(schema):
            values += ["", "x", "1.5", "1e2", "+1", " 1", "0x1"]
            values += [str(schema["minimum"] - 1), str(schema["maximum"] + 1)]
        if "pattern" in schema:
            values += ["", "p", "x1", "pg", "p0", "P1", "p" + "1" * 17]
        for value in values:
            yield name, lambda v=value: self.send(
                operation, self.target(operation.path, {**self.query(operation), name: v}), 422, ["/" + name],
                name)

    def header_ways(self, operation, parameter):
        assert parameter["schema"].get("pattern") == "^[ -~]{1,128}$", parameter
        for value in ("", "x" * 129, "é".encode(), b"a\tb"):
            yield parameter["name"], lambda v=value: self.send_body(
                operation, self.path(operation), self.maker.document(self.schema(operation)), 422,
                rule=parameter["name"], headers={parameter["name"]: v})


@pytest.mark.parametrize("program", ["soirees", "playlists"])
def test_valid_requests_are_accepted_and_broken_ones_refused_where_they_are_broken(request, program):
    print("PROPERTY_SEED=%d" % SEED)
    chance = random.Random(SEED)
    requests = Requests(request.getfixturevalue(program), program, chance)
    operations = list(requests.api.operations.values())
    wanted = {(o.path, o.method, rule) for o in operations for rule, _send in requests.ways(o)}
    assert len(wanted) > 100
    while requests.count < REQUESTS:
        for operation in operations:
            for _ in range(5):
                requests.valid(operation)
            ways = list(requests.ways(operation))
            if wanted <= requests.rules:  # after a first round that leaves none out, by chance
                ways = chance.sample(ways, min(5, len(ways)))
            for _rule, send in ways:
                send()
    assert wanted <= requests.rules
    print("%d requests, %d rules broken" % (requests.count, len(wanted)))
