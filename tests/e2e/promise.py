"""The promise, and how it is checked: every booking that was acknowledged ends with exactly one linked playlist.

Load books and keeps book; check_kept() looks at everything once the dust has settled."""

import collections
import itertools
import sqlite3
import threading
import time

import requests
from harness import description, postgres
from harness.booking import booking
from harness.broker import DEAD_QUEUE
from harness.http import all_pages
from harness.wait import wait_until

RECOVERY_S = 180  # a reconnect may wait its backoff of up to 30 s, on both sides, and the machine may be busy
PATIENCE_S = 120  # for one booking to be acknowledged


class Load:
    """Books from several threads until told to stop. A booking that got no answer, or a 503, is repeated with the
    same Idempotency-Key until it is acknowledged, as a careful client does."""

    def __init__(self, url, threads=1, most=None, pause_s=0.0, name="style"):
        self.url, self.most, self.pause_s, self.name = url, most, pause_s, name
        self.acknowledged = {}  # style -> soirée: each booking has a style of its own
        self.repeated = 0
        self._numbers, self._stop, self._failure = itertools.count(1), threading.Event(), None
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def _run(self):
        session = requests.Session()
        session.trust_env = False
        try:
            while not self._stop.is_set():
                with self._lock:
                    number = next(self._numbers)
                if self.most is not None and number > self.most:
                    return
                self._book(session, number)
                time.sleep(self.pause_s)
        except Exception as error:  # handed on by check()
            self._failure = error
        finally:
            session.close()

    def _book(self, session, number):
        style = "%s-%d" % (self.name, number)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                reply = session.post(self.url + "/api/soirees", timeout=30, headers={"Idempotency-Key": style},
                                     json=booking(styleMusical=style, lieu="Lieu %d" % number))
                description.judge("soirees", reply)
                if reply.status_code == 201:
                    with self._lock:
                        self.acknowledged[style] = reply.json()
                    return
                assert reply.status_code == 503, "%d %s" % (reply.status_code, reply.text)
            except requests.RequestException:
                pass  # the service is being killed, or not back yet
            assert time.monotonic() < deadline, "%s was not acknowledged within %d s" % (style, PATIENCE_S)
            with self._lock:
                self.repeated += 1
            time.sleep(0.05)

    @property
    def count(self):
        return len(self.acknowledged)

    def check(self):
        if self._failure:
            raise self._failure

    def reached(self, number, timeout=PATIENCE_S):
        """Wait until that many bookings are acknowledged."""
        def enough():
            if self._failure:
                raise RuntimeError(repr(self._failure))
            return self.count >= number
        wait_until(enough, timeout, "%d bookings acknowledged" % number)
        return self

    def finish(self, at_least=0):
        """Book on until that many are acknowledged, then end."""
        self.reached(at_least)
        if self.most is None:
            self._stop.set()
        return self.join()

    def join(self):
        for thread in self._threads:
            thread.join(PATIENCE_S + 60)
            assert not thread.is_alive(), "a booking hangs"
        self.check()
        return self


def read_database(path, query):
    """Rows of an SQLite file, which is not touched, or of a database at a URL."""
    if str(path).startswith("postgresql:"):
        return postgres.query(path, query.replace("_ms", "_at"))  # its times are of a type of their own
    connection = sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=20)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def everything(daemon):
    """All items of a service, by the API."""
    path = {"soirees": "/api/soirees", "playlists": "/api/playlists"}[daemon.program]
    return all_pages(daemon, path + "?limit=1000")[0]


def calls_by_style(lagmaster):
    return collections.Counter(call["style"] for call in lagmaster.calls())


def saved_styles(playlists):
    """The styles whose playlist is stored, read from the file: the daemon may be dead."""
    rows = read_database(playlists.database, "SELECT styles FROM playlists")
    return {styles.strip('[]"') for (styles,) in rows}


def wait_for_links(stack, soirees, timeout=RECOVERY_S):
    """Wait until each of these soirées has a playlist."""
    wanted = {made["id"] for made in soirees}

    def all_linked():
        open_ones = wanted - {s["id"] for s in everything(stack.soirees) if s["playlistId"]}
        assert not open_ones, "%d of %d soirées have no playlist: %s …" % (len(open_ones), len(wanted),
                                                                         sorted(open_ones)[:3])
        return True
    wait_until(all_linked, timeout, "every soirée has a playlist", interval=0.3)


def wait_until_drained(stack, timeout=RECOVERY_S):
    """Wait until the queue, the outbox and the pending links are empty."""
    wait_until(stack.vhost.drained, timeout, "the queue is drained", interval=0.3)
    for daemon, table in ((stack.soirees, "outbox"), (stack.playlists, "links")):
        wait_until(lambda: read_database(daemon.database, "SELECT count(*) FROM " + table) == [(0,)], timeout,
                   "%s: %s is empty" % (daemon.name, table), interval=0.3)


def check_one_playlist_each(stack, soirees):
    """Each soirée has exactly one generated playlist and is linked to it; there are no other soirées."""
    linked = {s["id"]: s["playlistId"] for s in everything(stack.soirees)}
    assert set(linked) == {made["id"] for made in soirees}, "bookings lost, or made twice"
    playlists = everything(stack.playlists)
    per_soiree = collections.Counter(p["soireeId"] for p in playlists)
    assert per_soiree == collections.Counter(list(linked)), "not one playlist each"
    assert {p["soireeId"]: p["id"] for p in playlists} == linked
    return playlists


def check_tables(stack):
    """After both have stopped: nothing is left to be done, and every request has its playlist."""
    assert read_database(stack.soirees.database, "SELECT * FROM outbox") == []
    assert read_database(stack.playlists.database, "SELECT * FROM links") == []
    assert read_database(stack.playlists.database, "SELECT * FROM requests WHERE playlist_id IS NULL") == []
    for daemon in (stack.soirees, stack.playlists):
        if not daemon.database.startswith("postgresql:"):
            assert read_database(daemon.database, "PRAGMA integrity_check") == [("ok",)]


def check_kept(stack, soirees, timeout=RECOVERY_S):
    """The whole promise for these soirées, which are all there are; stops both daemons. Returns the playlists."""
    soirees = list(soirees)
    wait_for_links(stack, soirees, timeout)
    wait_until_drained(stack, timeout)
    playlists = check_one_playlist_each(stack, soirees)
    stack.soirees.stop()
    stack.playlists.stop()
    assert stack.vhost.depth() == (0, 0)
    assert stack.vhost.depth(DEAD_QUEUE) == (0, 0), "dead letters"
    check_tables(stack)
    return playlists
