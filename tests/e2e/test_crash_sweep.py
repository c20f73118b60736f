"""kill -9 at every step: a daemon dies at each failpoint in turn while bookings are made; the promise is kept.

The failpoints are found in the sources, so that a new one is swept as soon as it is written."""

import glob
import os
import re
import subprocess

import pika
import pytest
from harness.broker import DEAD_QUEUE
from harness.consul import ROOT
from harness.wait import wait_until
from promise import Load, calls_by_style, check_kept, read_database, saved_styles, wait_until_drained
from sabotage import await_death, has_failpoints, launch_doomed, release_build, start_again  # noqa: F401

WORKERS = 2
PASSES = {1: 2, 3: 1}  # at the nth pass, that many crashes one after the other
# every commit is another step of the work: the schema, the begin, the save, the link's end, …
COMMIT_PASSES = {1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 8: 1}
DEATH_S = 90


def failpoints():
    """(program, name) of all failpoints; what is in common/ is in both programs."""
    found = set()
    for path in glob.glob(ROOT + "/common/*.c") + glob.glob(ROOT + "/soirees/*.c") + glob.glob(ROOT + "/playlists/*.c"):
        with open(path, encoding="utf-8") as source:
            for arguments in re.findall(r"\bFAILPOINT\((.*?)\);", source.read(), re.DOTALL):
                folder = os.path.basename(os.path.dirname(path))
                programs = ("soirees", "playlists") if folder == "common" else (folder,)
                found |= {(program, name) for program in programs for name in re.findall(r'"([^"]+)"', arguments)}
    return sorted(found)


def is_for_dead_letters(name):
    return name.startswith("dead.")


def is_for_failed_attempts(name):
    return name.startswith("attempt.")


def is_for_every_booking(name):
    return not is_for_dead_letters(name) and not is_for_failed_attempts(name)


def sweep(wanted):
    """Parameters (program, failpoint, number of crashes)."""
    return [pytest.param(program, "%s:%d" % (name, nth), crashes, id="%s-%s-%d" % (program, name, nth))
            for program, name in failpoints() if wanted(name)
            for nth, crashes in (COMMIT_PASSES if name.startswith("db.commit") else PASSES).items()]


@pytest.fixture
def doomed(built):
    """launch_doomed, where there are failpoints."""
    if not has_failpoints("soirees"):
        pytest.skip("this build has no failpoints (they come with cmake -DFAILPOINTS=ON)")
    return launch_doomed


def test_the_sources_have_failpoints_in_all_steps():
    """The sweep is no better than the list: the steps of both daemons are in it."""
    names = {name for _program, name in failpoints()}
    steps = {name.partition(".")[0] for name in names}
    assert steps >= {"db", "relay", "soirees", "worker", "delivery", "generator", "attempt", "linker", "dead"}
    assert {"delivery.saved", "delivery.begun"} <= names, "a failpoint with two names has both"


def has_tables(playlists):
    """Not when it died while it made them."""
    if playlists.database.startswith("postgresql:"):
        return read_database(playlists.database, "SELECT to_regclass('playlists') IS NOT NULL") == [(1,)]
    return read_database(playlists.database, "PRAGMA user_version") != [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("program, failpoint, crashes", sweep(is_for_every_booking))
def test_a_crash_at_any_step_breaks_no_promise(program, failpoint, crashes, make_stack, doomed):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": WORKERS})
    victim = stack.soirees if program == "soirees" else stack.playlists
    other = stack.playlists if program == "soirees" else stack.soirees
    other.start()
    load = Load(stack.soirees.url, pause_s=0.02).start()
    saved = {}
    for _ in range(crashes):
        doomed(victim, failpoint)
        await_death(victim, DEATH_S)
        if program == "playlists" and has_tables(victim):
            calls = calls_by_style(stack.lagmaster)
            saved.update({style: calls[style] for style in saved_styles(victim) if style not in saved})
    start_again(victim)
    load.finish(at_least=load.count + 4)
    check_kept(stack, load.acknowledged.values())

    calls = calls_by_style(stack.lagmaster)
    assert set(calls) == set(load.acknowledged)
    assert {style: calls[style] for style in saved} == saved, "the API was asked again for what was stored"
    # the API always answers well, so one attempt each; only what a crash interrupted is asked for again
    if program == "soirees":
        assert max(calls.values()) == 1
    else:
        assert max(calls.values()) <= 1 + crashes
        assert sum(calls.values()) <= load.count + crashes * WORKERS


def test_a_crash_after_a_publish_has_published(make_stack, doomed):
    """What is gathered in the process goes with it: the failpoint is to be behind the socket."""
    stack = make_stack()
    load = Load(stack.soirees.url, pause_s=0.02).start()
    doomed(stack.soirees, "relay.publish.after")
    await_death(stack.soirees, DEATH_S)
    wait_until(lambda: stack.vhost.depth()[0] >= 1, 10, "the message is in the queue")
    start_again(stack.soirees)
    stack.playlists.start()
    load.finish(at_least=load.count + 1)
    check_kept(stack, load.acknowledged.values())


@pytest.mark.slow
@pytest.mark.parametrize("program, failpoint, crashes", sweep(
    lambda name: is_for_failed_attempts(name) or name.startswith("generator.")))
def test_a_crash_amid_failing_attempts_gives_no_new_ones(program, failpoint, crashes, make_stack, doomed):
    """An attempt that failed has failed: after a crash the request has those left that it had before."""
    attempts = 3
    stack = make_stack(playlists={"PLAYLIST_WORKERS": WORKERS, "LAGMASTER_MAX_ATTEMPTS": attempts,
                                  "LAGMASTER_RETRY_DELAY_MS": 20})
    stack.soirees.start()
    stack.lagmaster.control(mode="error500")
    made = [stack.book(styleMusical="style-%d" % number) for number in range(4)]
    for _ in range(crashes):
        doomed(stack.playlists, failpoint)
        await_death(stack.playlists, DEATH_S)
    start_again(stack.playlists)
    playlists = check_kept(stack, made)
    assert {p["origine"] for p in playlists} == {"defaut"}
    calls = calls_by_style(stack.lagmaster)
    assert min(calls.values()) == attempts and max(calls.values()) <= attempts + crashes
    assert sum(calls.values()) <= 4 * attempts + crashes * WORKERS


@pytest.mark.slow
@pytest.mark.parametrize("program, failpoint, crashes", sweep(is_for_dead_letters))
def test_a_crash_amid_a_dead_letter_loses_no_copy(program, failpoint, crashes, make_stack, doomed):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": WORKERS})
    stack.soirees.start()
    stack.vhost.declare()
    hopeless = {"m-%d" % number: b"hopeless %d" % number for number in range(6)}
    for message_id, body in hopeless.items():
        stack.vhost.publish(body, pika.BasicProperties(message_id=message_id, delivery_mode=2))
    for _ in range(crashes):
        doomed(stack.playlists, failpoint)
        await_death(stack.playlists, DEATH_S)
    start_again(stack.playlists)
    made = stack.book()
    stack.linked(made["id"])
    wait_until_drained(stack)
    copies = stack.vhost.take(DEAD_QUEUE, count=stack.vhost.depth(DEAD_QUEUE)[0])
    assert {copy.properties.message_id: copy.body for copy in copies} == hopeless
    assert len(copies) <= len(hopeless) + crashes * WORKERS
    check_kept(stack, [made])


@pytest.mark.slow
@pytest.mark.parametrize("program, failpoint, crashes", [
    pytest.param(program, name + ":1", 1, id="%s-%s" % (program, name))
    for program, name in failpoints() if name.startswith("linker.")])
def test_a_crash_while_links_cannot_be_delivered_loses_none(program, failpoint, crashes, make_stack, doomed):
    """The other way through the linker: the PATCH finds nobody, and is tried again later."""
    stack = make_stack(playlists={"PLAYLIST_WORKERS": WORKERS})
    stack.soirees.start()
    made = [stack.book(styleMusical="style-%d" % number) for number in range(4)]
    wait_until(lambda: stack.vhost.depth()[0] == 4, 60, "the messages are in the queue")
    stack.soirees.stop()
    doomed(stack.playlists, failpoint)
    await_death(stack.playlists, DEATH_S)
    saved = saved_styles(stack.playlists)
    calls = calls_by_style(stack.lagmaster)
    start_again(stack.playlists)
    wait_until(lambda: len(saved_styles(stack.playlists)) == 4, 60, "all playlists are made")
    stack.soirees.start()
    check_kept(stack, made)
    after = calls_by_style(stack.lagmaster)
    assert {style: after[style] for style in saved} == {style: calls[style] for style in saved}


def test_a_release_build_has_no_failpoints(release_build):
    for program in ("soirees", "playlists"):
        with open(os.path.join(release_build, program), "rb") as file:
            content = file.read()
        assert b"FAILPOINT" not in content and b"failpoint_pass" not in content
        for owner, name in failpoints():
            assert owner != program or name.encode() + b"\0" not in content, name


def test_cmake_refuses_a_release_build_with_failpoints(tmp_path):
    result = subprocess.run(["cmake", "-S", ROOT, "-B", str(tmp_path / "build"), "-DCMAKE_BUILD_TYPE=Release",
                             "-DFAILPOINTS=ON"], capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "failpoints have no place in a Release build" in result.stderr
