"""What scripts/verify reads: the two REST APIs, the broker's depths, the daemons' SQLite files, and the
temporary database in which all of it is joined."""

import http.client
import json
import os
import re
import sqlite3
import ssl
import sys
import time
import urllib.parse

import postgres
from settings import SettingsError

QUEUE, DEAD_QUEUE = "playlist_generation_queue", "playlist_generation_queue.dead"
PAGE = 1000
UNREACHABLE_S = 60  # what we read from may be restarted meanwhile
FRESH_S = 0.5


class Unreadable(Exception):
    """The verification cannot go on; the text is for people."""


_waited_for = set()


def waiting(reason):
    """Say once that something is waited for."""
    if reason not in _waited_for:
        print("verify: waiting up to %d s: %s" % (UNREACHABLE_S, reason), file=sys.stderr, flush=True)
        _waited_for.add(reason)


class Service:
    """GETs from one service over one connection, patient while it restarts."""

    def __init__(self, url, token):
        try:
            self.url = urllib.parse.urlsplit(url)
            self.port = self.url.port
        except ValueError:
            self.url = urllib.parse.urlsplit("")
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise Unreadable("%s is not an http:// or https:// URL" % url)
        self.headers = {"Authorization": "Bearer " + token} if token else {}
        self.connection = None

    def _connect(self):
        if self.url.scheme == "https":
            return http.client.HTTPSConnection(self.url.hostname, self.port, timeout=30,
                                               context=ssl.create_default_context())
        return http.client.HTTPConnection(self.url.hostname, self.port, timeout=30)

    def _try(self, path):
        self.connection = self.connection or self._connect()
        self.connection.request("GET", self.url.path.rstrip("/") + path, headers=self.headers)
        reply = self.connection.getresponse()
        return reply.status, reply.headers, reply.read()

    def get(self, path):
        """(status 200 or 404, headers, decoded body)."""
        deadline = time.monotonic() + UNREACHABLE_S
        while True:
            try:
                status, headers, body = self._try(path)
                if status in (200, 404):
                    return status, headers, json.loads(body)
                problem, passes = "status %d" % status, status >= 500 or status == 429
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem, passes = str(error) or repr(error), True
                self.connection = None
            if not passes or time.monotonic() > deadline:
                raise Unreadable("%s%s: %s" % (self.url.geturl(), path, problem))
            waiting("%s: %s" % (self.url.geturl(), problem))
            time.sleep(0.5)

    def item(self, path, item_id):
        """(headers, item); (None, None) when there is none."""
        status, headers, item = self.get("%s/%s" % (path, urllib.parse.quote(item_id, safe="")))
        return (headers, item) if status == 200 else (None, None)

    def pages(self, path, **query):
        """Lists of items, newest first; what is written meanwhile disturbs no page."""
        path += "?" + urllib.parse.urlencode({"limit": PAGE, **query})
        while path:
            status, headers, items = self.get(path)
            if status != 200 or not isinstance(items, list):
                raise Unreadable("%s%s: no list" % (self.url.geturl(), path))
            yield items
            match = re.fullmatch(r'<(/[^>]*)>; rel="next"', headers.get("Link") or "")
            path = match.group(1) if match else None


class Broker:
    """How deep the queues are, as the broker says when they are looked at."""

    def __init__(self):
        import rabbitmq  # needs pika, which a machine without a broker may not have
        self.rabbitmq, self.connection = rabbitmq, None
        self.known, self.known_at = None, 0

    def _look(self):
        deadline = time.monotonic() + UNREACHABLE_S
        while True:
            try:
                if self.connection is None:
                    self.connection, _parameters = self.rabbitmq.connect("verify")
                return [self.rabbitmq.depth(self.connection, queue) or 0 for queue in (QUEUE, DEAD_QUEUE)]
            except SettingsError as error:
                raise Unreadable(str(error))
            except (self.rabbitmq.Unreachable, self.rabbitmq.pika.exceptions.AMQPError) as error:
                self.connection = None
                reason = self.rabbitmq.reason_of(error)
                if time.monotonic() > deadline or re.search(r"ACCESS_REFUSED|NOT_ALLOWED", reason):
                    raise Unreadable(reason)
                waiting(reason)
            time.sleep(0.5)

    def depths(self):
        """(messages ready, dead letters), not older than a moment."""
        if time.monotonic() - self.known_at > FRESH_S:
            self.known, self.known_at = self._look(), time.monotonic()
        return self.known


class NoBroker:
    def depths(self):
        return [0, 0]


class Database:
    """A daemon's SQLite file, read-only. No transaction stays open: its WAL could not be cut."""

    def __init__(self, path):
        self.path = path
        try:
            self.connection = sqlite3.connect("file:%s?mode=ro" % urllib.parse.quote(os.path.abspath(path)),
                                              uri=True, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise Unreadable("%s: %s" % (path, error))
        self.rows("SELECT 1 FROM sqlite_master")

    def rows(self, sql, *values):
        try:
            return self.connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise Unreadable("%s: %s" % (self.path, error))

    def count(self, table):
        return self.rows("SELECT count(*) FROM " + table)[0][0]


class PostgresDatabase:
    """The same, of a service's schema in PostgreSQL; values come as texts."""

    def __init__(self, url, schema):
        self.url, self.schema = url, schema
        self.rows("SELECT 1")

    def rows(self, sql, *values):
        for number in range(1, len(values) + 1):
            sql = sql.replace("?", "$%d" % number, 1)
        sql = sql.replace("_ms", "_at")  # times are of a type of their own there
        try:
            return postgres.rows(self.url, "SET search_path TO %s; %s" % (self.schema, sql), *values)
        except postgres.PostgresError as error:
            raise Unreadable("%s: %s" % (self.schema, error))

    def count(self, table):
        return int(self.rows("SELECT count(*) FROM " + table)[0][0])


SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32768;
PRAGMA temp_store = FILE;
CREATE TABLE soirees (id TEXT PRIMARY KEY, playlist_id TEXT, style TEXT, changed TEXT) WITHOUT ROWID;
CREATE TABLE playlists (id TEXT PRIMARY KEY, soiree_id TEXT, style TEXT, made INTEGER) WITHOUT ROWID;
CREATE TABLE acknowledged (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE deleted (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE own (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE suspects (id TEXT PRIMARY KEY, lost INTEGER, why TEXT) WITHOUT ROWID;
"""


class Ledger:
    """The temporary database, about 300 bytes on the disk for a booking."""

    def __init__(self, folder):
        self.db = sqlite3.connect(os.path.join(folder, "ledger.db"), isolation_level=None)
        self.db.executescript(SCHEMA)

    def _add(self, table, rows):
        self.db.execute("BEGIN")
        marks = ", ".join("?" * len(rows[0]))
        self.db.executemany("INSERT OR IGNORE INTO %s VALUES (%s)" % (table, marks), rows)
        self.db.execute("COMMIT")

    def load(self, soirees, playlists):
        """A playlist is made before it is linked: read in this order, a linked one is among those read."""
        for items in soirees.pages("/api/soirees"):
            if items:
                self._add("soirees", [(s["id"], s["playlistId"], s["styleMusical"],
                                       s.get("updatedAt") or s["createdAt"]) for s in items])
        for items in playlists.pages("/api/playlists"):
            if items:
                self._add("playlists", [(p["id"], p["soireeId"], (p["stylesMusicaux"] or [None])[0],
                                         p["origine"] != "manuelle") for p in items])
        self.db.execute("CREATE INDEX playlists_soiree ON playlists (soiree_id) WHERE made")

    def load_ids(self, table, path):
        try:
            with open(path, encoding="utf-8") as file:
                self.db.execute("BEGIN")
                self.db.executemany("INSERT OR IGNORE INTO %s VALUES (?)" % table,
                                    ((line.strip(),) for line in file if line.strip()))
                self.db.execute("COMMIT")
        except (OSError, ValueError) as error:
            raise Unreadable("%s: %s" % (path, getattr(error, "strerror", None) or error))

    def count(self, tables_and_condition):
        return self.db.execute("SELECT count(*) FROM " + tables_and_condition).fetchone()[0]

    def rows(self, sql, *values):
        """Row by row: there may be a million."""
        return self.db.execute(sql, values)
