"""scripts/verify: it finds each way in which the promise can be broken, and nothing else."""

import json
import os
import sqlite3
import subprocess
import sys
import uuid

import pytest
from harness import postgres
from harness.booking import message, request_properties
from harness.broker import DEAD_QUEUE
from harness.consul import ROOT
from harness.http import ok_json
from harness.wait import free_port, wait_until

SCRIPT = os.path.join(ROOT, "scripts", "verify")


def run(stack, *arguments, timeout=180, **settings):
    """Run the script to its end; (exit status, standard output, standard error)."""
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **stack.vhost.settings(), **settings}
    command = [SCRIPT, "--soirees", stack.soirees.url, "--playlists", stack.playlists.url, *arguments]
    result = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=timeout)
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stdout, result.stderr


def database_option(daemon):
    url = daemon.settings.get("DATABASE_URL")
    return ("--%s-database-url" % daemon.program, url) if url else ("--%s-db" % daemon.program, daemon.database)


def verify(stack, *arguments, databases=True, **settings):
    """(what is broken: kind -> ids, the counts)."""
    if databases:
        arguments += database_option(stack.soirees) + database_option(stack.playlists)
    status, out, error = run(stack, "--json", *arguments, **settings)
    assert status in (0, 1), error
    account = json.loads(out)
    broken = {kind: [item["id"] for item in found["first"]] for kind, found in account["broken"].items()
              if found["count"]}
    assert account["kept"] == (not broken) == (status == 0)
    return broken, account["counts"]


def tamper(daemon, *statements):
    """Do to a database what no daemon of ours may ever do."""
    if daemon.settings.get("DATABASE_URL"):
        for statement in statements:
            text, values = statement if isinstance(statement, tuple) else (statement, ())
            for value in values:
                text = text.replace("?", "'%s'" % value, 1)
            postgres.query(daemon.database, text.replace("_ms", "_at"))
        return
    connection = sqlite3.connect(daemon.database, timeout=20)
    for statement in statements:
        connection.execute(*statement if isinstance(statement, tuple) else (statement,))
    connection.commit()
    connection.close()


def booked(stack, number=1, **changes):
    """Soirées with their playlists, and all quiet."""
    made = [stack.book(**changes)["id"] for _ in range(number)]
    for key in made:
        wait_until(lambda: stack.soiree(key)["playlistId"], 60, "the playlist")
    stack.drained()
    return made if number > 1 else made[0]


def ids_file(tmp_path, name, *ids):
    path = tmp_path / name
    path.write_text("".join(key + "\n" for key in ids))
    return str(path)


BOTH = pytest.mark.parametrize("databases", [True, False], ids=["databases", "rest alone"])


# ---- a kept promise

@BOTH
def test_whatever_clients_may_do_is_accounted_for(stack, tmp_path, databases):
    plain, restyled, chosen, deleted = booked(stack, 4)
    stack.soirees.patch("/api/soirees/" + restyled, {"styleMusical": "funk"})
    wait_until(lambda: stack.soiree(restyled)["playlistId"], 60, "its second playlist")
    stack.soirees.patch("/api/soirees/" + chosen, {"playlistId": "mine"})
    stack.soirees.delete("/api/soirees/" + deleted)
    ok_json(stack.playlists.post("/api/playlists", {"nom": "À la main", "soireeId": plain}), 201)
    own = stack.book(playlistId="mine too")["id"]
    everyone = ids_file(tmp_path, "acknowledged", plain, restyled, chosen, deleted, own)
    broken, counts = verify(stack, "--wait", "20", "--styles", "--acknowledged", everyone, "--deleted",
                            ids_file(tmp_path, "deleted", deleted), "--own",
                            ids_file(tmp_path, "own", "mine", "mine too"), databases=databases)
    assert broken == {}
    assert counts["bookings answered with 201"] == 5 and counts["deleted since"] == 1
    assert counts["soirées"] == 4 and counts["linked to the playlist made for them"] == 2
    assert counts["with a playlist that a client chose"] == 2 and counts["waiting for one"] == 0
    assert counts["playlists"] == 6 and counts["made by hand"] == 1
    assert counts["of these superseded by a later choice"] == 2  # the restyled one's first, the chosen one's
    assert counts["of these of deleted soirées"] == 1


def test_the_table_is_for_people(stack):
    booked(stack, 3)
    status, out, _error = run(stack)
    lines = dict(line.rsplit(None, 1) for line in out.split("\n\n")[0].splitlines())
    assert status == 0 and out.endswith("the promise is kept\n")
    assert lines["soirées"] == "3" and lines["  linked to the playlist made for them"] == "3"
    assert lines["messages in the queue"] == lines["dead letters"] == "0"


@BOTH
def test_what_is_under_way_breaks_nothing_until_the_wait_is_over(stack, databases):
    stack.lagmaster.control(mode="hang")
    waiting = [stack.book()["id"] for _ in range(3)]
    wait_until(lambda: stack.vhost.depth()[0] == 2 and stack.lagmaster.waiting == 1, 60, "one is being made")
    broken, counts = verify(stack, databases=databases)
    assert broken == {} and counts["waiting for one"] == 3 and counts["messages in the queue"] == 2
    broken, _counts = verify(stack, "--wait", "2", databases=databases)
    assert set(broken) == {"unfinished", "left over"} and sorted(broken["unfinished"]) == sorted(waiting)
    stack.lagmaster.control()
    stack.lagmaster.release()
    assert verify(stack, "--wait", "60", databases=databases)[0] == {}


def test_a_playlist_deleted_by_a_client_is_no_loss(stack):
    made = booked(stack)
    stack.playlists.delete("/api/playlists/" + stack.soiree(made)["playlistId"])
    broken, counts = verify(stack)
    assert broken == {} and counts["linked to one made for them, deleted since"] == 1
    assert verify(stack, databases=False)[0] == {"dangling": [made]}


# ---- a broken promise

@BOTH
def test_a_booking_that_is_gone_is_missing(stack, tmp_path, databases):
    kept, gone = booked(stack, 2)
    stack.soirees.delete("/api/soirees/" + gone)
    acknowledged = ids_file(tmp_path, "acknowledged", kept, gone)
    assert verify(stack, "--acknowledged", acknowledged, databases=databases)[0] == {"missing": [gone]}


@BOTH
def test_a_request_that_is_gone_is_lost(stack, databases):
    stack.playlists.stop()
    lost = stack.book()["id"]
    wait_until(lambda: stack.vhost.depth()[0] == 1, what="its message")
    stack.vhost.take()
    tamper(stack.soirees, "DELETE FROM outbox")
    stack.playlists.start()
    grace = [] if databases else ["--grace", "0"]
    assert verify(stack, *grace, databases=databases)[0] == {"lost": [lost]}
    if not databases:
        assert verify(stack, databases=False)[0] == {}, "within the grace it may be in a worker's hands"


def test_a_link_that_is_gone_is_lost(stack):
    """The playlist is made, soirees still waits for it, and nobody tries to link it."""
    stack.lagmaster.control(mode="hang")
    lost = stack.book()["id"]
    wait_until(lambda: stack.lagmaster.waiting == 1, 60, "the call")
    stack.soirees.stop()
    stack.lagmaster.release()
    wait_until(lambda: stack.playlists_of(lost), 60, "the playlist")
    stack.drained()
    tamper(stack.playlists, "DELETE FROM links")
    stack.soirees.start()
    assert verify(stack)[0] == {"lost": [lost]}


@BOTH
def test_two_playlists_for_one_request_are_doubled(stack, databases):
    made, _other = booked(stack, 2)
    tamper(stack.playlists, (
        "INSERT INTO playlists (version, id, nom, description, styles, tracks, soiree_id, origine, created_ms,"
        " updated_ms) SELECT version, ?, nom, description, styles, tracks, soiree_id, origine, created_ms,"
        " updated_ms FROM playlists WHERE soiree_id = ?", (str(uuid.uuid4()), made)))
    assert verify(stack, databases=databases)[0] == {"doubled": [made]}


@BOTH
def test_a_link_to_a_playlist_that_was_never_stored_is_dangling(stack, databases):
    made = booked(stack)
    tamper(stack.playlists, "DELETE FROM playlists", "DELETE FROM requests")
    assert verify(stack, databases=databases)[0] == {"dangling": [made]}


def test_somebody_elses_playlist_is_misplaced_unless_a_client_chose_it(stack, tmp_path):
    made, other = booked(stack, 2)
    theirs = stack.soiree(other)["playlistId"]
    tamper(stack.soirees, ("UPDATE soirees SET playlist_id = ? WHERE id = ?", (theirs, made)))
    broken, counts = verify(stack)
    assert broken == {} and counts["of these one made for another soirée"] == 1
    assert verify(stack, "--own", ids_file(tmp_path, "own", "x"))[0] == {"misplaced": [made]}
    assert verify(stack, "--own", ids_file(tmp_path, "own", theirs))[0] == {}


def test_a_playlist_of_an_earlier_style_is_outdated(stack):
    made = booked(stack)
    tamper(stack.soirees, "UPDATE soirees SET style = 'funk'")
    assert verify(stack)[0] == {}
    assert verify(stack, "--styles")[0] == {"outdated": [made]}


def test_dead_letters_are_minded_unless_told_otherwise(stack):
    booked(stack)
    stack.vhost.publish(b"hopeless")
    wait_until(lambda: stack.vhost.depth(DEAD_QUEUE)[0] == 1, what="the dead letter")
    assert verify(stack)[0] == {"dead letters": [DEAD_QUEUE]}
    broken, counts = verify(stack, "--ignore-dead-letters")
    assert broken == {} and counts["dead letters"] == 1


def test_the_first_50_ids_are_printed_and_the_rest_is_counted(stack):
    stack.playlists.stop()
    lost = [stack.book()["id"] for _ in range(55)]
    wait_until(lambda: stack.vhost.depth()[0] == 55, what="the messages")
    stack.vhost.take(count=55)
    tamper(stack.soirees, "DELETE FROM outbox")
    stack.playlists.start()
    status, out, _error = run(stack, *database_option(stack.soirees))
    assert status == 1 and out.endswith("the promise is BROKEN\n")
    assert "the first 50, and 5 more" in out
    assert sum(key in out for key in lost) == 50


# ---- what it cannot do

def fill(stack, number):
    """That many bookings with their playlists, but for every 1,000th, whose playlist and request are gone."""
    soirees, playlists = (sqlite3.connect(daemon.database, timeout=20)
                          for daemon in (stack.soirees, stack.playlists))
    for count in range(number):
        soiree, made = str(uuid.uuid4()), str(uuid.uuid4())
        lost = count % 1000 == 7
        soirees.execute(
            "INSERT INTO soirees (version, id, client_id, date, lieu, nombre_invites, budget, style, statut,"
            " playlist_id, created_ms, updated_ms) VALUES (2, ?, 'c', '2025-12-25', 'Paris', 50, 0, 'disco',"
            " 'confirmée', ?, 1, 2)", (soiree, None if lost else made))
        if not lost:
            playlists.execute(
                "INSERT INTO playlists (version, id, nom, description, styles, tracks, soiree_id, origine,"
                " created_ms, updated_ms) VALUES (1, ?, 'n', '', '[\"disco\"]', '[]', ?, 'lagmaster-pro', 1, 0)",
                (made, soiree))
            playlists.execute("INSERT INTO requests (soiree_id, message_id, starts, playlist_id)"
                              " VALUES (?, ?, 0, ?)", (soiree, soiree, made))
    for connection in (soirees, playlists):
        connection.commit()
        connection.close()


def measured(tmp_path):
    """The script, which notes its peak of memory in the file "peak", in KiB."""
    wrapper = tmp_path / "measured"
    wrapper.write_text("#!/usr/bin/python3\nimport resource, subprocess, sys\n"
                       "status = subprocess.call([%r] + sys.argv[1:])\n"
                       "with open(%r, 'w') as peak:\n"
                       "    peak.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))\n"
                       "sys.exit(status)\n" % (SCRIPT, str(tmp_path / "peak")))
    wrapper.chmod(0o755)
    return str(wrapper)


@pytest.mark.slow
def test_many_bookings_are_read_in_little_memory(stack, tmp_path, monkeypatch):
    """By hand: VERIFY_BOOKINGS=1000000."""
    number = int(os.environ.get("VERIFY_BOOKINGS", "20000"))
    fill(stack, number)
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", measured(tmp_path))
    broken, counts = verify(stack, timeout=3600)
    assert counts["soirées"] == number and counts["playlists"] == number - number // 1000
    assert counts["linked to the playlist made for them"] == counts["playlists"]
    assert len(broken.pop("lost")) == min(number // 1000, 50) and broken == {}
    peak_mib = int((tmp_path / "peak").read_text()) / 1024
    print("at most %.0f MiB" % peak_mib)
    assert peak_mib < 100


def test_messages_of_other_producers_need_no_soiree(stack):
    stack.vhost.publish(message("nobody"), request_properties("m-1"))
    wait_until(lambda: stack.playlists_of("nobody"), 60, "its playlist")
    stack.drained()
    broken, counts = verify(stack, "--wait", "20")
    assert broken == {} and counts["of these of deleted soirées"] == 1


def test_what_cannot_be_read_is_exit_status_2(stack, tmp_path):
    none = str(tmp_path / "none")
    for arguments, settings in ((["--soirees", "nowhere"], {}), (["--soirees-db", none], {}),
                                (["--acknowledged", none], {}), ([], {"RABBITMQ_PORT": "x"}),
                                ([], {"REQUEST_AGAIN_AFTER_S": "x"}), ([], {"RABBITMQ_PASS": "wrong"}),
                                (["--wait", "x"], {})):
        status, out, error = run(stack, *arguments, **settings)
        assert status == 2 and out == "" and error
    assert run(stack, "--no-broker", RABBITMQ_PORT=str(free_port()))[0] == 0
