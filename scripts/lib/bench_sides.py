"""The two systems that scripts/bench compares, behind the same few calls: ours, and the opponent in
tests/bench/peer-node. Both with SQLite on the same disk, durable, and the same RabbitMQ."""

import os
import re
import shutil
import sqlite3
import subprocess
import time

import pika

from bench_machine import ROOT, BenchError, Client, tree_cpu_s
from harness.daemon import Daemon
from harness.process import Child
from harness.wait import Timeout, free_port, wait_until
from promise import read_database

PEER_SOURCE = os.path.join(ROOT, "tests", "bench", "peer-node")
PEER_FOLDER = os.path.join(ROOT, "build", "bench", "peer-node")
NODE_LEAST = 20
EXAMPLE = {"clientId": "client123", "date": "2025-12-25", "lieu": "Paris", "nombreInvites": 50,
           "budget": 1000, "styleMusical": "disco"}

# Ids as a UUIDv7 would be: in the order of creation.
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
UUID_OF = ("printf('%%08x-%%04x-7%%03x-%s%%03x-%%012x',"
           " 1700000000 + i / 65536, i %% 65536, i %% 4096, i %% 4093, i * 7919)")
SOIREE_ID, PLAYLIST_ID = UUID_OF % 8, UUID_OF % 9


def persistent(message_id):
    """The properties of a message as both sides publish it."""
    return pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=message_id)


UNSENT = "SELECT count(*) FROM (SELECT 1 FROM %s IS NULL LIMIT %d) AS rows"

# ---- the opponent's programs

def peer_missing():
    """Why the opponent cannot run here, None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node and npm are not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    if not major or int(major.group(1)) < NODE_LEAST:
        return "Node.js is %s, the opponent needs %d" % (version or "broken", NODE_LEAST)
    return None


def install_peer(log_path):
    """Copies its sources to the build folder, and installs its packages there once."""
    os.makedirs(PEER_FOLDER, exist_ok=True)
    manifest = os.path.join(PEER_SOURCE, "package.json")
    installed = os.path.join(PEER_FOLDER, "installed.json")
    for name in os.listdir(PEER_SOURCE):
        shutil.copy(os.path.join(PEER_SOURCE, name), PEER_FOLDER)
    with open(manifest) as file:
        wanted = file.read()
    if os.path.exists(installed) and open(installed).read() == wanted:
        return
    with open(log_path, "ab") as log:
        result = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=PEER_FOLDER,
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    native = os.path.join(PEER_FOLDER, "node_modules/better-sqlite3/build/Release/better_sqlite3.node")
    if result.returncode != 0 or not os.path.exists(native):
        raise BenchError("npm install failed, see %s" % log_path)
    with open(installed, "w") as file:
        file.write(wanted)


class PeerProgram:
    """One of its programs, with what harness.daemon.Daemon offers of the same."""

    def __init__(self, script, folder, settings):
        self.port, self.database = free_port(), os.path.join(folder, "peer-%s.db" % script.split(".")[0])
        if script == "worker.js":
            self.database = os.path.join(folder, "peer-playlists.db")
        env = {"PATH": os.environ["PATH"], "NODE_ENV": "production", "SERVICE_PORT": str(self.port),
               "DB_FILE": self.database, **{name: str(value) for name, value in settings.items()}}
        self.child = Child("peer-" + script, ["node", os.path.join(PEER_FOLDER, script)], env,
                           os.path.join(folder, "peer-%s.log" % script), cwd=folder)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def pid(self):
        return self.child.pid

    def launch(self):
        self.child.start()
        return self

    def stop(self):
        if self.child.running:
            self.child.terminate()

    def kill(self):
        self.child.kill()


class OurProgram(Daemon):
    def stop(self, timeout=30, number=15):
        if self.running:
            super().stop(timeout, number)


# ---- the two systems

class Side:
    """One system in one folder: soirees, and a worker."""

    def __init__(self, broker, folder):
        self.broker, self.folder = broker, folder
        self.soirees = self.worker = None
        os.makedirs(folder, exist_ok=True)

    def start(self):
        """soirees, answering and connected to the broker."""
        self.soirees.launch()
        try:
            wait_until(self._ready, 30, "soirees is connected to RabbitMQ", interval=0.02)
        except Timeout as error:
            raise BenchError("%s\n%s" % (error, self.soirees.child.log()[-2000:]))
        return self

    def _health(self):
        client = Client(self.soirees.port)
        try:
            return client.send("GET", "/health")[1]
        finally:
            client.connection.close()

    def stop(self):
        """Cleanly."""
        for program in (self.worker, self.soirees):
            if program:
                program.stop()

    def kill(self):
        """kill -9 for whatever runs."""
        for program in (self.worker, self.soirees):
            if program:
                program.kill()

    def forget_queue(self):
        if self.vhost.queue():
            self.vhost.delete_queue()

    def book(self, count):
        """So many bookings, one after the other, until the broker has all their messages."""
        client = Client(self.soirees.port)
        for _ in range(count):
            client.post("/api/soirees", EXAMPLE)
        self.wait_until_published()

    def wait_until_published(self, timeout=600):
        """The outbox is empty; the seconds it took."""
        began = time.monotonic()
        wait_until(lambda: self.unsent(at_most=1) == 0, timeout, "the outbox is empty", interval=0.02)
        return time.monotonic() - began

    def rows(self):
        """Bookings on the disk."""
        return read_database(self.soirees.database, "SELECT count(*) FROM soirees")[0][0]

    def database_cost(self):
        """(CPU seconds, bytes of log) so far of a database server; a database inside the process is free."""
        return 0, 0

    def linked(self):
        return read_database(self.soirees.database,
                     "SELECT count(*) FROM soirees WHERE %s IS NOT NULL" % self.playlist_column)[0][0]

    def fill(self, count):
        """A database of so many bookings that have their playlists: its program makes it, SQL fills it."""
        self.start().stop()
        connection = sqlite3.connect(self.soirees.database, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        if count:
            connection.execute(NUMBERS % count + self.fill_sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        os.sync()

    def write_ids(self, path, most=10000):
        """A file of ids, spread over the whole table."""
        ids = read_database(self.soirees.database, "SELECT id FROM soirees")
        with open(path, "w") as file:
            file.writelines(soiree_id + "\n" for (soiree_id,) in ids[::max(1, len(ids) // most)])
        return path

    def used_bytes(self, program):
        """What the rows of a program's database take, its write-ahead log counted once it is written back."""
        used, = read_database(program.database, "SELECT (page_count - freelist_count) * page_size"
                              " FROM pragma_page_count, pragma_freelist_count, pragma_page_size")
        return used[0]

    def disk_bytes(self):
        return sum(os.path.getsize(self.soirees.database + end) for end in ("", "-wal")
                   if os.path.exists(self.soirees.database + end))


class Ours(Side):
    playlist_column = "playlist_id"
    fill_sql = """
        INSERT INTO soirees (version, id, client_id, date, lieu, nombre_invites, budget, style, statut,
                             playlist_id, request_id, created_ms, updated_ms)
        SELECT 2, %s, 'client123', '2025-12-25', 'Paris', 50, 1000, 'disco', 'confirmée', %s, NULL,
               1700000000000 + i, 1700000001000 + i FROM n""" % (SOIREE_ID, PLAYLIST_ID)

    def __init__(self, broker, folder, log_format="pretty"):
        super().__init__(broker, folder)
        self.vhost = broker.bench_vhost
        self.soirees = OurProgram("soirees", folder, {**self.vhost.settings(), "LOG_FORMAT": log_format})

    def _ready(self):
        return self._health()["components"]["rabbitmq"]["state"] == "connected"

    def unsent(self, at_most=1_000_000_000):
        """Unsent rows of the outbox, counted no further than `at_most`: counting takes CPU from what is measured."""
        return read_database(self.soirees.database, UNSENT % ("outbox WHERE again_ms", at_most))[0][0]

    def left_over(self):
        """Rows of work that is not done: (outbox, links)."""
        return (read_database(self.soirees.database, "SELECT count(*) FROM outbox")[0][0],
                read_database(self.worker.database, "SELECT count(*) FROM links")[0][0])

    def start_worker(self, api_url, workers=1, **settings):
        self.worker = OurProgram("playlists", self.folder, {
            **self.vhost.settings(), "PLAYLIST_WORKERS": workers, "LAGMASTER_URL": api_url,
            "SOIREES_URL": self.soirees.url, **settings})
        self.worker.launch()


class OursOverPostgres(Ours):
    """A database of its own on bench.postgres."""

    def __init__(self, broker, folder, postgres):
        super().__init__(broker, folder)
        self.postgres = postgres
        self.url = postgres.create(os.path.basename(folder))
        self.soirees.settings["DATABASE_URL"] = self.url
        self._sql = None

    def _ready(self):
        components = self._health()["components"]
        return components["rabbitmq"]["state"] == "connected" and components["database"]["state"] == "ok"

    def ask(self, sql):
        """One number, asked for on a connection that is kept: it is asked for often."""
        if not self._sql:
            self._sql = subprocess.Popen(["psql", "-XAtq", self.url], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, bufsize=1)
        self._sql.stdin.write(sql + ";\n")
        answer = self._sql.stdout.readline()
        if not answer:
            raise BenchError("psql has ended at: " + sql)
        return int(answer)

    def kill(self):
        super().kill()
        if self._sql:
            self._sql.communicate()
            self._sql = None

    def unsent(self, at_most=1_000_000_000):
        return self.ask(UNSENT % ("soirees.outbox WHERE again_at", at_most))

    def rows(self):
        return self.ask("SELECT count(*) FROM soirees.soirees")

    def linked(self):
        return self.ask("SELECT count(*) FROM soirees.soirees WHERE playlist_id IS NOT NULL")

    def left_over(self):
        return (self.ask("SELECT count(*) FROM soirees.outbox"),
                self.ask("SELECT count(*) FROM playlists.links"))

    def database_cost(self):
        return (tree_cpu_s(self.postgres.child.pid),
                self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"))

    def start_worker(self, api_url, workers=1):
        super().start_worker(api_url, workers, DATABASE_URL=self.url)


class Peer(Side):
    playlist_column = "playlistId"
    fill_sql = """
        INSERT INTO soirees
        SELECT %s, 'client123', '2025-12-25', 'Paris', 50, %s, 1000, 'confirmée', 'disco',
               '2025-12-02T10:30:00.000Z', '2025-12-02T10:30:01.000Z' FROM n""" % (SOIREE_ID, PLAYLIST_ID)

    def __init__(self, broker, folder, **worker_settings):
        super().__init__(broker, folder)
        self.vhost, self.worker_settings = broker.root(), worker_settings
        self.settings = {**self.vhost.settings(), "BATCH": 1}
        self.soirees = PeerProgram("soirees.js", folder, self.settings)

    def _ready(self):
        return self._health()["broker"]

    def unsent(self, at_most=0):
        return 0  # it answers after the confirm

    def start_worker(self, api_url, workers=1):
        self.worker = PeerProgram("worker.js", self.folder, {
            **self.settings, "EXTERNAL_API_URL": api_url, "SOIREES_URL": self.soirees.url,
            "PREFETCH": workers, **self.worker_settings})
        self.worker.launch()
