"""scripts/migrate-to-postgres: a service goes on in PostgreSQL where it stopped with SQLite."""

import contextlib
import os
import sqlite3
import subprocess

import pytest

from harness import postgres
from harness.booking import book, booking, made_for, message
from harness.consul import ROOT
from harness.wait import free_port, wait_until
from promise import everything, read_database
from test_postgres import connected, offline

pytestmark = pytest.mark.skipif(bool(postgres.missing()), reason=str(postgres.missing()))

COMMAND = os.path.join(ROOT, "scripts", "migrate-to-postgres")


def migrate(service, path, url):
    return subprocess.run([COMMAND, service, str(path)], env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
                          capture_output=True, text=True, timeout=120)


def refused(result):
    assert (result.returncode, result.stdout) == (2, "")
    assert postgres.PASSWORD not in result.stderr and postgres.quote(postgres.PASSWORD) not in result.stderr
    return result.stderr


@pytest.fixture
def url():
    return postgres.new_database()


@pytest.fixture
def sqlite(daemons, tmp_path):
    """sqlite(program, **settings): a daemon over a SQLite file, whatever the tests run over."""
    def make(program, **settings):
        path = str(tmp_path / (program + "-before.db"))
        daemon = daemons.new(program, {**offline(program), "DATABASE_PATH": path, **settings})
        daemon.database = path
        return daemon.launch()
    return make


def answering(daemon):
    wait_until(lambda: daemon.get("/health").status_code == 200, 60, "it answers")
    return daemon


def test_bookings_keys_and_unsent_messages_move(sqlite, daemons, url, vhost):
    old = answering(sqlite("soirees"))
    odd = book(old, lieu="tab\tback\\slash\nline \u0001 é😀 \\N", budget=123456789.12345678, date="0000-02-29")
    changed = book(old, playlistId="mine")
    assert old.patch("/api/soirees/" + changed["id"], {"nombreInvites": 7}).status_code == 200
    keyed = old.post("/api/soirees", booking(), headers={"Idempotency-Key": "once"}).json()
    deleted = book(old)
    assert old.delete("/api/soirees/" + deleted["id"]).status_code == 204
    before = everything(old)
    old.stop()
    result = migrate("soirees", old.database, url)
    assert result.returncode == 0, result.stderr
    assert "soirees.soirees: 3 rows" in result.stdout and "soirees.outbox: 2 rows" in result.stdout
    new = connected(daemons.start("soirees", {**vhost.settings(), "DATABASE_URL": url}))
    assert everything(new) == before
    assert {m.json()["soireeId"] for m in vhost.take(count=2)} == {odd["id"], keyed["id"]}
    again = new.post("/api/soirees", booking(), headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json()) == (201, keyed)
    assert book(new)["id"] not in {s["id"] for s in before}
    assert new.get("/api/soirees/" + changed["id"]).headers["ETag"] == '"2"'


def test_playlists_pending_links_and_requests_move(sqlite, daemons, url, vhost, lagmaster):
    settings = {**vhost.settings(), "LAGMASTER_URL": lagmaster.url,
                "SOIREES_URL": "http://127.0.0.1:%d" % free_port()}
    old = answering(sqlite("playlists", **settings))
    wait_until(lambda: vhost.depth()[1] > 0, 60, "a consumer")
    vhost.publish(message("some-soiree", style='é "quoted" \\ style'))
    made = made_for(old, "some-soiree")
    wait_until(vhost.drained, 60, "it is acknowledged")
    before = everything(old)
    old.stop()
    assert migrate("playlists", old.database, url).returncode == 0
    assert postgres.query(url, "SELECT playlist_id FROM playlists.links") == [(made["id"],)]
    calls = len(lagmaster.calls())
    new = connected(daemons.start("playlists", {**settings, "DATABASE_URL": url}))
    assert everything(new) == before
    vhost.publish(message("some-soiree", style='é "quoted" \\ style'))
    wait_until(lambda: vhost.depth()[1] > 0 and vhost.drained(), 60, "it is acknowledged")
    assert everything(new) == before and len(lagmaster.calls()) == calls


def test_what_is_not_empty_or_in_use_is_refused(sqlite, url, tmp_path):
    old = answering(sqlite("soirees"))
    book(old)
    assert "stop it first" in refused(migrate("soirees", old.database, url))
    old.stop()
    assert "no such file" in refused(migrate("soirees", tmp_path / "none.db", url))
    assert "not a database of the playlists service" in refused(migrate("playlists", old.database, url))
    assert migrate("soirees", old.database, url).returncode == 0
    assert "soirees.soirees is not empty" in refused(migrate("soirees", old.database, url))
    assert postgres.query(url, "SELECT count(*) FROM soirees.soirees") == [(1,)]


@pytest.mark.parametrize("change, reason", [
    ("date = '2025-13-45'", "date/time field value out of range"),
    ("created_ms = 9223372036854775807", "no such time"),
    ("lieu = CAST(x'ff61' AS TEXT)", "decode"),
    ("lieu = 'a' || char(0) || 'b'", "the character NUL"),
])
def test_a_row_that_cannot_be_moved_leaves_nothing_behind(change, reason, sqlite, url):
    old = answering(sqlite("soirees"))
    book(old)
    old.stop()
    with contextlib.closing(sqlite3.connect(old.database)) as db:
        db.execute("UPDATE soirees SET " + change)
        db.commit()
    assert reason in refused(migrate("soirees", old.database, url))
    assert postgres.query(url, "SELECT to_regnamespace('soirees') IS NULL") == [(1,)]


def test_a_file_may_have_any_name(sqlite, url, tmp_path):
    old = answering(sqlite("soirees"))
    book(old)
    old.stop()
    named = tmp_path / "a b?c#%41.db"
    os.rename(old.database, named)
    assert migrate("soirees", named, url).returncode == 0
    assert postgres.query(url, "SELECT count(*) FROM soirees.soirees") == [(1,)]


def test_a_server_that_is_not_there_is_a_clear_line(sqlite, daemons):
    old = answering(sqlite("soirees"))
    old.stop()
    nowhere = "postgresql://soirees:%s@127.0.0.1:%d/x" % (postgres.quote(postgres.PASSWORD), free_port())
    assert "Connection refused" in refused(migrate("soirees", old.database, nowhere))
    assert len(read_database(old.database, "SELECT * FROM soirees")) == 0
