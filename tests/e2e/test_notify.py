"""What a service manager is told: ready, alive, stopping. The test is the manager."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import time

import pytest
import requests
from harness.booking import book, booking, message
from harness.wait import free_port, wait_until
from sabotage import has_failpoints

WATCHDOG_S = 4  # a thread may be late by half of it
BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])


class Manager:
    """Collects the lines that come in on the socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.name = address.replace("\0", "@")
        self.lines = []

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self.socket.recv(4096).decode().splitlines()
        return self.lines

    def fed(self):
        return self.read().count("WATCHDOG=1")

    def settings(self):
        return {"NOTIFY_SOCKET": self.name, "WATCHDOG_USEC": WATCHDOG_S * 1000000}

    def starves(self, seconds=WATCHDOG_S):
        """Wait until nothing has come for that long."""
        state = {"count": self.fed(), "since": time.monotonic()}

        def quiet():
            count = self.fed()
            if count != state["count"]:
                state.update(count=count, since=time.monotonic())
            return time.monotonic() - state["since"] > seconds
        wait_until(quiet, 60, "the watchdog to starve")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    made = Manager(str(tmp_path / "notify") if request.param == "path" else "\0soirees-%d" % free_port())
    yield made
    made.socket.close()


@pytest.fixture
def manager_at_path(tmp_path):
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def offline(program):
    settings = {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port()}
    if program == "playlists":
        settings["LAGMASTER_URL"] = "http://127.0.0.1:%d/" % free_port()
    return settings


@BOTH
def test_ready_then_alive_then_stopping(program, manager, daemons):
    daemon = daemons.new(program, offline(program), **manager.settings())
    daemon.launch()
    wait_until(manager.fed, 60, "a feeding")
    began = time.monotonic()
    wait_until(lambda: manager.fed() >= 4, 60, "three more")
    assert time.monotonic() - began < 1.5 * WATCHDOG_S  # twice as often as it must, at least
    assert manager.lines[0] == "READY=1"
    assert daemon.get("/health").status_code == 200  # ready was no promise
    before = len(manager.read())
    daemon.stop()
    assert "STOPPING=1" in manager.read()[before:]
    extension = [re.fullmatch(r"EXTEND_TIMEOUT_USEC=(\d+)", line) for line in manager.lines]
    assert [int(found.group(1)) for found in extension if found] == [13000000]  # grace 10 s, and ours


def test_a_reload_is_told_with_its_time_and_its_end(manager_at_path, daemons):
    """As Type=notify-reload asks for (systemd.service(5)); a refused one ends, too."""
    daemon = daemons.start("soirees", offline("soirees"), **manager_at_path.settings())
    config = os.path.join(daemon.folder, "settings.env")
    daemon.stop()
    daemon.settings["CONFIG_FILE"] = config
    for text in ("", "LOG_LEVEL=debug\n", "LOG_LEVEL=loud\n"):
        with open(config, "w") as file:
            file.write(text)
        if not daemon.running:
            daemon.start()
        wait_until(lambda: manager_at_path.read()[-1] == "WATCHDOG=1", what="it waits")
        before, began_us = len(manager_at_path.read()), time.monotonic_ns() // 1000
        daemon.child.send_signal(signal.SIGHUP)
        wait_until(lambda before=before: "READY=1" in manager_at_path.read()[before:], what="its end")
        ended_us = time.monotonic_ns() // 1000
        lines = [line for line in manager_at_path.read()[before:] if line != "WATCHDOG=1"]
        assert [re.sub(r"\d+$", "", line) for line in lines] == ["RELOADING=", "MONOTONIC_USEC=", "READY="]
        assert began_us <= int(lines[1].split("=")[1]) <= ended_us


def test_no_feeding_where_another_process_is_watched(manager_at_path, daemons):
    daemon = daemons.new("soirees", offline("soirees"), **manager_at_path.settings(), WATCHDOG_PID=1)
    daemon.start()
    daemon.stop()
    assert manager_at_path.read()[0] == "READY=1"
    assert manager_at_path.fed() == 0


def test_a_socket_that_is_gone_stops_nothing(daemons, tmp_path):
    daemon = daemons.start("soirees", offline("soirees"), NOTIFY_SOCKET=str(tmp_path / "gone"))
    assert daemon.get("/health").status_code == 200
    daemon.stop()
    assert daemon.log().count("NOTIFY_SOCKET") == 2  # ready, stopping


@pytest.mark.slow
def test_the_watchdog_starves_while_the_writer_is_stuck(manager_at_path, daemons):
    """Somebody holds the database's lock: the main loop turns, the writer does not."""
    daemon = daemons.start("soirees", offline("soirees"), **manager_at_path.settings())
    with contextlib.closing(sqlite3.connect(daemon.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reply = daemon.post("/api/soirees", booking())  # the busy timeout is longer than half the watchdog
        assert reply.status_code == 503
        other.execute("ROLLBACK")
    log = daemon.log()
    assert "db-writer ne répond plus" in log
    count = manager_at_path.fed()
    book(daemon)
    wait_until(lambda: manager_at_path.fed() > count + 1, 30, "feeding again")
    assert "répondent de nouveau" in daemon.log()


@pytest.mark.slow
def test_a_process_that_stood_still_is_not_taken_for_a_stuck_thread(manager_at_path, daemons):
    daemon = daemons.start("soirees", offline("soirees"), **manager_at_path.settings())
    wait_until(lambda: manager_at_path.fed() >= 2, 60, "two feedings")
    os.kill(daemon.pid, signal.SIGSTOP)
    manager_at_path.starves(WATCHDOG_S)
    os.kill(daemon.pid, signal.SIGCONT)
    count = manager_at_path.fed()
    wait_until(lambda: manager_at_path.fed() > count + 2, 60, "feeding again")
    assert "ne répond plus" not in daemon.log()


def assert_stuck(daemon, thread):
    """Its name is in the log once, as soon as it was late by half the interval (and a check came)."""
    found = re.findall(r"(\S+) ne répond plus depuis (\d+) s", daemon.log())
    assert [name for name, _seconds in found] == [thread]
    assert WATCHDOG_S // 2 <= int(found[0][1]) < WATCHDOG_S


@pytest.fixture
def failpoints(built):
    if not has_failpoints("soirees"):
        pytest.skip("this build has no failpoints (they come with cmake -DFAILPOINTS=ON)")


@pytest.mark.slow
@pytest.mark.parametrize("failpoint, thread", [("db.commit.before:2", "db-writer"),  # 1 is the schema's
                                               ("relay.publish.before", "amqp"),
                                               ("soirees.answer.before", "db-writer"),
                                               ("soirees.submit.before", "http")])
def test_a_stuck_thread_of_soirees_starves_the_watchdog(failpoint, thread, failpoints, manager_at_path, vhost,
                                                        daemons):
    daemon = daemons.start("soirees", vhost.settings(), **manager_at_path.settings(), FAILPOINT=failpoint,
                           FAILPOINT_HANGS=1, HTTP_THREADS=4)
    with contextlib.suppress(requests.RequestException):
        daemon.post("/api/soirees", booking(), timeout=1)
    manager_at_path.starves()
    assert_stuck(daemon, thread)
    assert daemon.get("/health").status_code == 200  # the other threads know nothing of it
    daemon.kill()


@pytest.mark.slow
@pytest.mark.parametrize("failpoint, thread", [("worker.received", "amqp"),
                                               ("generator.call.before", "http-client"),
                                               # it had nothing to wait for: the link was with the writer
                                               ("linker.send.before:2", "http-client")])
def test_a_stuck_thread_of_playlists_starves_the_watchdog(failpoint, thread, failpoints, manager_at_path,
                                                          vhost, worker):
    daemon = worker(**manager_at_path.settings(), FAILPOINT=failpoint, FAILPOINT_HANGS=1)
    vhost.publish(message("s1"))
    manager_at_path.starves()
    assert_stuck(daemon, thread)
    assert daemon.get("/health").status_code == 200
    daemon.kill()


@pytest.mark.slow
def test_a_stuck_thread_is_named_after_a_minute_where_nobody_watches(failpoints, daemons):
    daemon = daemons.start("soirees", offline("soirees"), FAILPOINT="soirees.answer.before",
                           FAILPOINT_HANGS=1)
    with contextlib.suppress(requests.RequestException):
        daemon.post("/api/soirees", booking(), timeout=1)
    began = time.monotonic()
    wait_until(lambda: daemon.log_has("❌ Le fil d'exécution db-writer ne répond plus depuis 6"), 90, "it")
    assert time.monotonic() - began > 50
    daemon.kill()
