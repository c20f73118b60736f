"""--check and --backup, and databases of every schema that there ever was."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest
from harness.booking import booking
from harness.consul import ROOT
from harness.daemon import command, environment, run
from harness.wait import free_port, wait_until

BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])
PATHS = {"soirees": "/api/soirees", "playlists": "/api/playlists"}
BODIES = {"soirees": booking(), "playlists": {"nom": "Une liste", "tracks": ["a", "b"]}}
LOAD_THREADS = 4
pytestmark = [pytest.mark.usefixtures("built"), pytest.mark.sqlite]


def offline(program):
    settings = {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port()}
    if program == "playlists":
        settings.update(LAGMASTER_URL="http://127.0.0.1:%d/" % free_port(),
                        SOIREES_URL="http://127.0.0.1:%d" % free_port())
    return settings


def check(program, path):
    return run(program, "--check", DATABASE_PATH=str(path))


def backup(program, path, to, **options):
    return run(program, "--backup", str(to), DATABASE_PATH=str(path), **options)


def create(daemon):
    reply = daemon.post(PATHS[daemon.program], BODIES[daemon.program])
    assert reply.status_code == 201, reply.text
    return reply.json()["id"]


def assert_sound(program, path):
    result = check(program, path)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert result.stdout == "%s: OK\n" % path


def one_line(result):
    """The reason that a failed program gave."""
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def change(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def stopped(daemons):
    """stopped(program): the file of a database with some rows, whose daemon has ended."""
    def make(program, rows=20):
        daemon = daemons.start(program, offline(program))
        for _ in range(rows):
            create(daemon)
        daemon.stop()
        return pathlib.Path(daemon.database)
    return make


# ---- --check

@BOTH
def test_a_sound_database_is_ok_while_the_daemon_runs_and_after(program, daemons):
    daemon = daemons.start(program, offline(program))
    create(daemon)
    assert_sound(program, daemon.database)
    create(daemon)  # and the daemon goes on
    daemon.stop()
    assert_sound(program, daemon.database)
    daemon.start()
    assert len(daemon.get(PATHS[program]).json()) == 2


@BOTH
def test_a_database_whose_daemon_was_killed_is_ok(program, daemons):
    daemon = daemons.start(program, offline(program))
    created = create(daemon)
    daemon.kill()
    assert_sound(program, daemon.database)
    daemon.start()
    assert daemon.get("%s/%s" % (PATHS[program], created)).status_code == 200


@BOTH
def test_damage_is_found(program, stopped):
    path = stopped(program, 200)
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096:page * 4096 + 2000] = b"\xaa" * 2000
    path.write_bytes(content)
    result = check(program, path)
    assert result.returncode == 1
    assert "something is wrong" in result.stderr
    assert 2 < len(result.stderr.splitlines()) <= 102


@BOTH
@pytest.mark.parametrize("what, expected", [
    ("DROP INDEX idempotency_age", "its tables are not those of schema version"),
    ("ALTER TABLE idempotency ADD COLUMN more TEXT", "its tables are not those of schema version"),
    ("PRAGMA user_version = 0", "its tables are not those of schema version 0"),
    ("PRAGMA user_version = 99", "its schema (version 99) is newer than this program"),
])
def test_another_schema_than_its_versions_is_found(program, what, expected, stopped):
    path = stopped(program)
    change(path, what)
    result = check(program, path)
    assert result.returncode == 1
    assert expected in result.stderr


@pytest.mark.parametrize("program, what, expected", [
    ("soirees", "INSERT INTO outbox (soiree_seq, message_id, body, traceparent) VALUES (999, 'm', '{}', '')",
     "outbox: row "),
    ("soirees", "UPDATE outbox SET message_id = 'x' WHERE seq = 1", "its open request is not the current"),
    ("soirees", "UPDATE soirees SET playlist_id = 'p' WHERE seq = 1", "it has a playlist, and a request"),
    ("soirees", "UPDATE outbox SET body = '{' WHERE seq = 1", "its message is not JSON"),
    ("playlists", "UPDATE playlists SET tracks = '{}' WHERE seq = 1", "styles or tracks are no JSON array"),
    ("playlists", "UPDATE playlists SET styles = '[' WHERE seq = 1", "styles or tracks are no JSON array"),
    ("playlists", "INSERT INTO links VALUES (1, 'p', 's', '', '', 0, 0)", "its playlist p is not there"),
])
def test_rows_that_cannot_be_are_found(program, what, expected, stopped):
    path = stopped(program)
    change(path, what)
    result = check(program, path)
    assert result.returncode == 1
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 2  # the one, and no other


@BOTH
def test_an_empty_file_is_no_sound_database(program, tmp_path):
    """What a copy that was cut off at its beginning looks like; SQLite takes it for a new database."""
    path = tmp_path / "empty.db"
    path.touch()
    result = check(program, path)
    assert result.returncode == 1 and "it is empty" in result.stderr


@BOTH
@pytest.mark.parametrize("option", ["--check", "--backup"])
def test_what_is_no_database_is_one_clear_line(program, option, tmp_path):
    arguments = [option] + (["%s/copy" % tmp_path] if option == "--backup" else [])
    (tmp_path / "text").write_text("this is no database" * 100)
    for name in ("missing", "text"):
        path = tmp_path / name
        assert str(path) in one_line(run(program, *arguments, DATABASE_PATH=str(path)))
    assert [file.name for file in tmp_path.iterdir()] == ["text"]  # nothing was made


# ---- --backup

class Load:
    """Clients that create things until stop(); `acknowledged` grows, never shrinks."""

    def __init__(self, daemon):
        self.daemon, self.acknowledged, self.ending = daemon, [], threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(LOAD_THREADS)
        self.clients = [self.pool.submit(self._create) for _ in range(LOAD_THREADS)]

    def _create(self):
        while not self.ending.is_set():
            self.acknowledged.append(create(self.daemon))

    def stop(self):
        self.ending.set()
        for client in self.clients:
            client.result(60)
        self.pool.shutdown()


@BOTH
def test_a_backup_under_load_holds_all_that_was_acknowledged_before(program, daemons, tmp_path):
    daemon = daemons.start(program, offline(program))
    load = Load(daemon)
    saved = {}
    try:
        for number in range(3):
            wait_until(lambda: len(load.acknowledged) > 100 * (number + 1), 60, "some load")
            copy, before = tmp_path / ("copy%d.db" % number), list(load.acknowledged)
            result = backup(program, daemon.database, copy)
            assert (result.returncode, result.stderr) == (0, "")
            assert copy.stat().st_mode & 0o777 == 0o600
            saved[copy] = before
    finally:
        load.stop()
    for copy, before in saved.items():
        assert_sound(program, copy)
        restored = daemons.start(program, offline(program), DATABASE_PATH=str(copy))
        for item in before:
            assert restored.get("%s/%s" % (PATHS[program], item)).status_code == 200
        assert create(restored) not in load.acknowledged
        restored.stop()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == sorted(
        name for copy in saved for name in (copy.name, copy.name + ".lock"))


def test_a_restored_daemon_sends_what_was_not_sent(daemons, make_stack, tmp_path):
    """A booking whose message was still in the outbox finds its playlist from the backup."""
    lonely = daemons.start("soirees", offline("soirees"))
    created = create(lonely)
    assert backup("soirees", lonely.database, tmp_path / "copy.db").returncode == 0
    lonely.kill()
    stack = make_stack(soirees={"DATABASE_PATH": str(tmp_path / "copy.db")}).start()
    wait_until(lambda: stack.soirees.get("/api/soirees/" + created).json()["playlistId"], 60, "its playlist")


@BOTH
def test_a_backup_of_a_stopped_daemon(program, stopped, tmp_path):
    path = stopped(program)
    assert backup(program, path, tmp_path / "copy.db").returncode == 0
    assert_sound(program, tmp_path / "copy.db")


def test_a_backup_waits_for_no_lock(daemons, tmp_path):
    daemon = daemons.start("soirees", offline("soirees"))
    create(daemon)
    with contextlib.closing(sqlite3.connect(daemon.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert backup("soirees", daemon.database, tmp_path / "copy.db").returncode == 0
        other.execute("ROLLBACK")
    create(daemon)
    assert_sound("soirees", tmp_path / "copy.db")


def test_a_backup_replaces_the_one_before(stopped, tmp_path):
    path, copy = stopped("soirees"), tmp_path / "file:copy.db"  # a name that SQLite could take for a URI
    copy.write_bytes(b"the backup of yesterday")
    assert run("soirees", "--backup", copy.name, DATABASE_PATH=str(path), cwd=tmp_path).returncode == 0
    assert_sound("soirees", copy)
    assert [file.name for file in tmp_path.glob("*copy*")] == [copy.name]


@pytest.mark.parametrize("end", ["killed", "refused"])
def test_a_backup_that_does_not_end_well_leaves_the_one_before(end, stopped, tmp_path):
    """The file may not grow as far as it must: the kernel kills the program, or refuses the write."""
    path, folder = stopped("soirees", 300), tmp_path / "backups"
    folder.mkdir()
    copy = folder / "copy.db"
    copy.write_bytes(b"the backup of yesterday")
    result = subprocess.run(
        command("soirees", "--backup", str(copy)), env=environment({"DATABASE_PATH": path}),
        capture_output=True, text=True, timeout=60, check=False,
        restore_signals=end == "killed",  # Python ignores SIGXFSZ, and what it starts does too
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40960, 40960)))
    assert result.returncode != 0
    assert copy.read_bytes() == b"the backup of yesterday"
    if end == "refused":
        one_line(result)
        assert [file.name for file in folder.iterdir()] == ["copy.db"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_interrupted_leaves_nothing_behind(number, stopped, tmp_path):
    path, folder = stopped("soirees"), tmp_path / "backups"
    folder.mkdir()
    change(path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
           " INSERT INTO idempotency SELECT 'key-' || i, hex(zeroblob(60)), 'x', i FROM n")
    with subprocess.Popen(command("soirees", "--backup", str(folder / "copy.db")), stderr=subprocess.PIPE,
                          env=environment({"DATABASE_PATH": path}), text=True) as process:
        wait_until(lambda: any(file.stat().st_size for file in folder.iterdir()), 60, "a beginning", 0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(str(folder / "copy.db")) and errors.endswith(": interrupted\n")
    assert not list(folder.iterdir())


@BOTH
def test_a_backup_is_never_put_over_a_database_in_use(program, daemons, tmp_path):
    daemon = daemons.start(program, offline(program))
    other = daemons.start(program, offline(program))
    create(daemon)
    created = create(other)
    os.link(daemon.database, tmp_path / "link.db")
    for target, reason in ((daemon.database, "is the database itself"), (tmp_path / "link.db", "itself"),
                           (other.database, "is a database in use"), (tmp_path, "is no regular file"),
                           (tmp_path / "no" / "copy.db", "No such file")):
        assert reason in one_line(backup(program, daemon.database, target))
    assert other.get("%s/%s" % (PATHS[program], created)).status_code == 200
    os.unlink(tmp_path / "link.db")


@BOTH
def test_a_backup_is_never_put_over_a_part_of_a_database(program, daemons, tmp_path):
    """Its log holds what was answered, its lock keeps a second process away."""
    daemon = daemons.start(program, offline(program))
    created = create(daemon)
    os.link(daemon.database, tmp_path / "stopped.db")
    for target in (*(daemon.database + ending for ending in ("-wal", "-shm", ".lock", "-journal")),
                   tmp_path / "stopped.db-wal"):
        before = os.path.exists(target) and os.stat(target).st_ino
        assert "is a part of a database" in one_line(backup(program, daemon.database, target))
        assert (os.path.exists(target) and os.stat(target).st_ino) == before
    os.unlink(tmp_path / "stopped.db")
    assert backup(program, daemon.database, tmp_path / "copy.db-wal").returncode == 0  # of no database
    daemon.restart()
    assert daemon.get("%s/%s" % (PATHS[program], created)).status_code == 200


# ---- schemas

ROWS = {  # what each version's database may hold; later versions hold the earlier one's too
    ("soirees", 1): [
        "INSERT INTO soirees VALUES (1, 'old-1', 3, 'client', '2025-12-25', 'Paris', 50, 1000.5, 'disco',"
        " 'confirmée', NULL, 'request-1', 1764671400000, 0)",
        "INSERT INTO soirees VALUES (2, 'old-2', 1, 'client', '2025-12-26', 'Lyon', 5, 0, 'techno',"
        " 'confirmée', 'p-2', NULL, 1764671400001, 1764671400002)",
        "INSERT INTO outbox VALUES (7, 1, 'request-1', '{\"soireeId\":\"old-1\"}', '', NULL, 0)",
        "INSERT INTO idempotency VALUES ('key', '{}', 'old-2', 1764671400001)",
    ],
    ("playlists", 1): [
        "INSERT INTO playlists VALUES (1, 'old-1', 1, 'Disco Mix', 'd', '[\"disco\"]', '[\"a\"]', 's-1',"
        " 'lagmaster-pro', 1764671400000, 0)",
        "INSERT INTO playlists VALUES (2, 'old-2', 2, 'À moi', '', '[]', '[]', NULL, 'manuelle',"
        " 1764671400001, 1764671400002)",
        "INSERT INTO requests (soiree_id, message_id, starts, playlist_id) VALUES ('s-1', 'm-1', 0, 'old-1')",
        "INSERT INTO links VALUES (1, 'old-1', 's-1', 'm-1', '', 2, 0)",
        "INSERT INTO idempotency VALUES ('key', '{}', 'old-2', 1764671400001)",
    ],
    ("playlists", 2): ["INSERT INTO requests (soiree_id, message_id, starts, playlist_id, attempts)"
                       " VALUES ('s-2', 'm-2', 1, NULL, 2)"],
}
SEEN = {
    "soirees": {"old-1": {"lieu": "Paris", "budget": 1000.5, "playlistId": None, "nombreInvites": 50,
                          "createdAt": "2025-12-02T10:30:00.000Z"},
                "old-2": {"lieu": "Lyon", "playlistId": "p-2", "updatedAt": "2025-12-02T10:30:00.002Z"}},
    "playlists": {"old-1": {"nom": "Disco Mix", "tracks": ["a"], "soireeId": "s-1",
                            "origine": "lagmaster-pro"},
                  "old-2": {"nom": "À moi", "stylesMusicaux": [], "origine": "manuelle"}},
}


def migrations(program):
    return sorted(pathlib.Path(ROOT, program, "schema").glob("*.sql"))


VERSIONS = [(program, version) for program in PATHS for version in range(1, len(migrations(program)) + 1)]


def make_database(path, program, version):
    """A database as the program of that schema left it behind."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for file in migrations(program)[:version]:
            connection.executescript(file.read_text(encoding="utf-8"))
        for number in range(1, version + 1):
            for row in ROWS.get((program, number), []):
                connection.execute(row)
        connection.execute("PRAGMA user_version = %d" % version)
        connection.commit()


def test_every_schema_has_its_file():
    for program in PATHS:
        assert [int(file.name[:4]) for file in migrations(program)] == list(
            range(1, len(migrations(program)) + 1))


@pytest.mark.parametrize("program, version", VERSIONS)
def test_a_database_of_any_schema_comes_to_the_newest_with_its_rows(program, version, daemons, tmp_path):
    path = tmp_path / "old.db"
    make_database(path, program, version)
    assert_sound(program, path)  # of its version
    daemon = daemons.start(program, offline(program), DATABASE_PATH=str(path))
    for item, fields in SEEN[program].items():
        found = daemon.get("%s/%s" % (PATHS[program], item)).json()
        assert {name: found.get(name) for name in fields} == fields
    created = create(daemon)
    daemon.stop()
    assert_sound(program, path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(migrations(program)),)
        table = "outbox WHERE message_id = 'request-1'" if program == "soirees" else "links WHERE seq = 1"
        assert connection.execute("SELECT count(*) FROM " + table).fetchone() == (1,)
    daemon.start()  # nothing left to change
    assert daemon.get("%s/%s" % (PATHS[program], created)).status_code == 200


# What each migration stumbles over. A new migration needs a line of its own here.
IN_THE_WAY = {
    ("soirees", 2): "CREATE INDEX soirees_date ON soirees (date)",
    ("playlists", 2): "ALTER TABLE requests ADD COLUMN attempts TEXT",
}


@pytest.mark.parametrize("program, version", [one for one in VERSIONS if one[1] > 1])
def test_a_migration_that_fails_changes_nothing(program, version, tmp_path):
    """Something is in the way of the last migration: all of it is taken back, and said."""
    path = tmp_path / "old.db"
    make_database(path, program, version - 1)
    change(path, IN_THE_WAY[program, version])
    before = check(program, path).stderr
    result = run(program, DATABASE_PATH=str(path), SERVICE_PORT=free_port(), **offline(program))
    assert str(path) in one_line(result)
    assert check(program, path).stderr == before


@BOTH
def test_a_newer_schema_is_refused_with_a_clear_line(program, stopped, tmp_path):
    path = stopped(program)
    newer = len(migrations(program)) + 1
    change(path, "PRAGMA user_version = %d" % newer)
    content = path.read_bytes()
    line = one_line(run(program, DATABASE_PATH=str(path), SERVICE_PORT=free_port(), **offline(program)))
    assert "its schema (version %d) is newer than this program (%d)" % (newer, newer - 1) in line
    assert path.read_bytes() == content
    shutil.copy(path, tmp_path / "again.db")
    assert backup(program, path, tmp_path / "copy.db").returncode == 0  # it can be saved all the same


def test_the_outbox_never_uses_a_number_again_after_a_restore(daemons, tmp_path):
    daemon = daemons.start("soirees", offline("soirees"))
    created = create(daemon)
    assert daemon.delete("/api/soirees/" + created).status_code == 204
    assert backup("soirees", daemon.database, tmp_path / "copy.db").returncode == 0
    restored = daemons.start("soirees", offline("soirees"), DATABASE_PATH=str(tmp_path / "copy.db"))
    create(restored)
    restored.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        (seq, body), = connection.execute("SELECT seq, body FROM outbox").fetchall()
    assert seq == 2
    assert json.loads(body)["soireeId"] != created
