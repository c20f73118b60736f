"""What every answer of both services has in common, checked in one place."""

import re

TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
UUID_V7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
STRONG_ETAG = re.compile(r'^"[\x21\x23-\x7e]+"$')


def problem(reply, status):
    """Assert that the answer is a problem (RFC 9457) with this status; returns its body."""
    assert reply.status_code == status, "%d %s" % (reply.status_code, reply.text)
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
    body = reply.json()
    assert body["status"] == status
    assert isinstance(body["type"], str) and body["type"]
    for name in ("title", "detail", "instance"):
        assert isinstance(body[name], str) and body[name], name
    assert body["error"] == body["detail"]
    assert reply.headers["X-Request-Id"]
    return body


def pointers(reply):
    """Assert a 422 that lists its errors; returns their JSON pointers, sorted."""
    body = problem(reply, 422)
    assert body["errors"], body
    for error in body["errors"]:
        assert set(error) >= {"pointer", "detail"} and error["detail"], error
    return sorted(error["pointer"] for error in body["errors"])


def ok_json(reply, status=200):
    """Assert a JSON answer with this status; returns its body."""
    assert reply.status_code == status, "%d %s" % (reply.status_code, reply.text)
    assert reply.headers["Content-Type"].lower().replace(" ", "") == "application/json;charset=utf-8"
    return reply.json()


def next_path(reply):
    """The target of Link: <...>; rel="next", None on the last page."""
    link = reply.headers.get("Link")
    if link is None:
        return None
    match = re.match(r'^<(/[^>]*)>; rel="next"$', link)
    assert match, link
    return match.group(1)


def all_pages(daemon, path):
    """Follow the pages from path to the end; returns (items, number of pages)."""
    items, pages = [], 0
    while path:
        reply = daemon.get(path)
        items += ok_json(reply)
        pages += 1
        assert pages < 1000, "paging does not end"
        path = next_path(reply)
    return items, pages
