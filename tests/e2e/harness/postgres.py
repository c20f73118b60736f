"""A PostgreSQL of our own: own port, own folder, the user `postgres` where we are root (it refuses to be root).

As a program it gives a command such a server: python3 -m harness.postgres COMMAND..., which finds its URL in
STORE_URL, without a database's name.
"""

import atexit
import csv
import glob
import io
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

from .process import Child
from .wait import free_port, wait_until

USER, PASSWORD = "soirees", "geh/eim@wort"
CONFIG = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 32MB
unix_socket_directories = '{folder}'
fsync = {fsync}
autovacuum_naptime = 10s
log_line_prefix = '%m [%p] %a '
lc_messages = 'C'
"""
TRUST = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


def folder_of_programs():
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    return os.path.dirname(max(found, key=lambda path: int(path.split("/")[4]))) if found else None


def missing():
    """Why there can be no PostgreSQL here, or None."""
    if not folder_of_programs():
        return "PostgreSQL is not installed: run scripts/bootstrap --tests"
    return None


def quote(text):
    return urllib.parse.quote(text, safe="")


class Postgres:
    """One server. start() after kill() or stop() finds its data again. `config` is added to postgresql.conf."""

    def __init__(self, config="", fsync=False, access=TRUST):
        self.programs = folder_of_programs()
        self.folder = tempfile.mkdtemp(prefix="soirees-postgres-")
        self.data = os.path.join(self.folder, "data")
        self.port = free_port()
        self._as_user = []
        self.env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": self.folder, "PGHOST": self.folder,
                    "PGPORT": str(self.port), "PGUSER": "postgres"}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            # a change of user clears what a parent's death sends: it is asked for again
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                             "--pdeathsig", "KILL", "--"]
        self._run("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N")
        self.write("postgresql.conf", CONFIG.format(folder=self.folder, fsync="on" if fsync else "off") + config)
        self.write("pg_hba.conf", access)
        self.child = Child("postgres", self._as_user + [self._program("postgres"), "-D", self.data, "-p",
                                                        str(self.port)],
                           self.env, os.path.join(self.folder, "postgres.log"))

    def _program(self, name):
        return os.path.join(self.programs, name)

    def _run(self, name, *arguments, text=None):
        result = subprocess.run(self._as_user + [self._program(name), *arguments], env=self.env, input=text,
                                capture_output=True, text=True, timeout=120, cwd="/")
        assert result.returncode == 0, "%s: %s%s" % (name, result.stdout, result.stderr)
        return result.stdout

    def write(self, name, text):
        """A file of the data folder; one of secrets is for the server alone."""
        path = os.path.join(self.data, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o600)
        if self._as_user:
            shutil.chown(path, "postgres", "postgres")

    def start(self):
        self.child.start()

        def ready():
            assert self.child.running, "PostgreSQL ended: " + self.child.log()[-2000:]
            return self._run("psql", "-XAtc", "SELECT 1", "postgres") == "1\n"
        wait_until(ready, 60, "PostgreSQL answers", interval=0.1)
        if not self.sql("postgres", "SELECT 1 FROM pg_roles WHERE rolname = '%s'" % USER):
            self.sql("postgres", "CREATE ROLE %s LOGIN CREATEDB PASSWORD '%s'" % (USER, PASSWORD))
        return self

    def stop(self, mode="fast"):
        if self.child.running:
            self._run("pg_ctl", "stop", "-D", self.data, "-m", mode)
            self.child.wait(60)

    def kill(self):
        """SIGKILL to all of it; what it wrote stays in the operating system's care."""
        self.child.kill()

    def close(self):
        self.child.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, database):
        """A new, empty database of our user; its URL."""
        self.sql("postgres", 'CREATE DATABASE "%s" OWNER %s' % (database, USER))
        return self.url(database)

    def url(self, database="", host=None, user=USER, password=PASSWORD, **options):
        return "postgresql://%s:%s@%s/%s%s" % (
            user, quote(password), host or "127.0.0.1:%d" % self.port, database,
            "?" + urllib.parse.urlencode(options) if options else "")

    def sql(self, database, text):
        """Run SQL as the superuser; the rows as tuples, with numbers for what looks like one and for booleans."""
        return rows(self._run("psql", "-X", "--csv", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", database, text=text))


def rows(text):
    def value(field):
        return {"t": 1, "f": 0}.get(field, int(field) if field.lstrip("-").isdigit() else field)
    return [tuple(value(field) for field in row) for row in csv.reader(io.StringIO(text))]


def query(url, text):
    """Run SQL at a URL (which may hold ?options=-csearch_path…), as its user."""
    result = subprocess.run([os.path.join(folder_of_programs(), "psql"), "-X", "--csv", "-t", "-v",
                             "ON_ERROR_STOP=1", "-f", "-", url], input=text, capture_output=True, text=True,
                            timeout=60)
    assert result.returncode == 0, result.stderr
    return rows(result.stdout)


_shared = []
_numbers = itertools.count(1)


def shared():
    """The server that all tests of this process share."""
    if not _shared:
        _shared.append(Postgres().start())
        atexit.register(_shared[0].close)
    return _shared[0]


def chosen():
    """Whether the tests are to run over PostgreSQL (STORE=postgres)."""
    return os.environ.get("STORE") == "postgres"


def new_database():
    """A new, empty database of the shared server; its URL."""
    return shared().create("test_%d" % next(_numbers))


def main():
    server = Postgres().start()
    try:
        env = {**os.environ, "STORE_URL": server.url()}
        return subprocess.run(sys.argv[1:], env=env).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
