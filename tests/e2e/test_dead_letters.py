"""scripts/dead-letters: what the worker gave up can be seen, moved back and dropped; nothing gets lost."""

import json
import os
import subprocess

import pika
import pytest
from harness.booking import made_for, message, request_properties
from harness.broker import DEAD_QUEUE, PASSWORD, QUEUE, USER
from harness.consul import ROOT
from harness.imitations import FakeSoirees
from harness.wait import free_port, wait_until

SCRIPT = os.path.join(ROOT, "scripts", "dead-letters")


def dead_letters(settings, *arguments, status=0):
    """Run the script to its end; its standard output, and its errors where it fails."""
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings}
    result = subprocess.run([SCRIPT, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=120)
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr if status else result.stdout


def put(vhost, body, origin=QUEUE, **properties):
    """A dead letter as the worker writes it."""
    headers = {"x-error": "soireeId absent", "x-failed-at": "2025-12-02T10:30:00.000Z",
               "traceparent": "00-%s-%s-01" % ("a" * 32, "b" * 16)}
    if origin:
        headers["x-original-queue"] = origin
    properties = {"delivery_mode": 2, "headers": headers, **properties}
    vhost.publish(body, pika.BasicProperties(**properties), DEAD_QUEUE)


@pytest.fixture
def letters(vhost):
    """A virtual host with both queues."""
    vhost.declare(QUEUE)
    vhost.declare(DEAD_QUEUE)
    return vhost


def bodies(vhost, queue):
    """What is in a queue, in order; it is taken."""
    ready = vhost.depth(queue)[0]
    return [taken.body for taken in vhost.take(queue, ready, judged=False)] if ready else []


def ids(vhost):
    return [letter["id"] for letter in json.loads(dead_letters(vhost.settings(), "list", "--json"))]


# ---- list

def test_what_the_worker_gave_up_is_listed_with_its_reason(vhost, worker):
    worker()
    vhost.publish(b'{"style":5}', request_properties("m-1"))
    wait_until(lambda: vhost.depth(DEAD_QUEUE)[0] == 1, what="the dead letter")
    line = dead_letters(vhost.settings(), "list")
    letter = json.loads(dead_letters(vhost.settings(), "list", "--json"))[0]
    assert letter["id"] == letter["messageId"] == "m-1" and letter["originalQueue"] == QUEUE
    assert letter["body"] == '{"style":5}' and letter["type"] == "soiree.reservee"
    assert letter["error"] and letter["failedAt"]
    assert line.split("  ") == ["1", "m-1", letter["failedAt"], QUEUE, letter["error"], '{"style":5}\n']


def test_looking_changes_nothing(letters):
    written = [b"letter %d" % number for number in range(20)]
    for number, body in enumerate(written):
        put(letters, body, message_id="m-%d" % number)
    for _ in range(2):
        assert ids(letters) == ["m-%d" % number for number in range(20)]
    assert bodies(letters, DEAD_QUEUE) == written


def test_no_dead_letters_is_no_error(vhost):
    assert dead_letters(vhost.settings(), "list") == ""
    assert json.loads(dead_letters(vhost.settings(), "list", "--json")) == []
    assert dead_letters(vhost.settings(), "replay", "--all") == "0 moved back\n"


def test_a_strange_letter_does_nothing_to_the_terminal(letters):
    put(letters, b"\x1b[31m\r\n\xff" + b"x" * 5000, message_id="\x1b]0;m 1\x07", headers=None)
    line = dead_letters(letters.settings(), "list")
    assert line.count("\n") == 1 and line[:-1].isprintable() and len(line) < 250
    letter = json.loads(dead_letters(letters.settings(), "list", "--json"))[0]
    assert letter["id"].startswith("~") and letter["bodyBase64"] and letter["error"] is None


# ---- replay

def test_a_replayed_message_is_as_it_was(letters):
    put(letters, b"body", message_id="m-1", type="soiree.reservee", app_id="service-soirees", priority=3,
        content_type="application/json", correlation_id="c-1", timestamp=1764671400)
    assert dead_letters(letters.settings(), "replay", "--id", "m-1") == "m-1 -> %s\n1 moved back\n" % QUEUE
    assert letters.depth(DEAD_QUEUE)[0] == 0
    moved = letters.take(judged=False)[0]
    assert moved.body == b"body" and list(moved.headers) == ["traceparent"]
    expected = {"message_id": "m-1", "type": "soiree.reservee", "app_id": "service-soirees", "priority": 3,
                "content_type": "application/json", "correlation_id": "c-1", "timestamp": 1764671400,
                "delivery_mode": 2}
    assert {name: getattr(moved.properties, name) for name in expected} == expected


def test_only_the_selected_ones_move_and_the_others_keep_their_order(letters):
    for number in range(6):
        put(letters, b"letter %d" % number, message_id="m-%d" % number)
    dead_letters(letters.settings(), "replay", "--id", "m-4", "m-1", "--id", "m-2")
    assert bodies(letters, QUEUE) == [b"letter 1", b"letter 2", b"letter 4"]
    assert bodies(letters, DEAD_QUEUE) == [b"letter 0", b"letter 3", b"letter 5"]


def test_a_message_without_an_id_is_named_by_what_the_list_shows(letters):
    for number in range(3):
        put(letters, b"letter %d" % number)
    shown = ids(letters)
    assert len(set(shown)) == 3 and shown == ids(letters)
    dead_letters(letters.settings(), "replay", "--id", shown[1])
    assert bodies(letters, QUEUE) == [b"letter 1"]
    assert ids(letters) == [shown[0], shown[2]]


def test_a_mended_message_gets_its_playlist(vhost, worker):
    with FakeSoirees(200) as fake:
        playlists = worker(fake.url)
        put(vhost, json.dumps(message("s-1")).encode(), message_id="m-1", type="soiree.reservee")
        dead_letters(vhost.settings(), "replay", "--all")
        made_for(playlists, "s-1")
        wait_until(lambda: [r.headers["Playlist-Request"] for r in fake.links()] == ["m-1"], what="its link")


def test_a_hopeless_message_comes_back_once(vhost, worker):
    """--all means those that are there at the start: the tool does not chase its own tail."""
    worker()
    for number in range(5):
        vhost.publish(b"hopeless", request_properties("m-%d" % number))
    wait_until(lambda: vhost.depth(DEAD_QUEUE)[0] == 5, what="the dead letters")
    assert dead_letters(vhost.settings(), "replay", "--all").endswith("\n5 moved back\n")
    wait_until(lambda: vhost.depth(DEAD_QUEUE)[0] == 5 and vhost.drained(), what="all are back")
    assert sorted(ids(vhost)) == ["m-%d" % number for number in range(5)]


def test_without_its_queue_a_letter_stays(letters):
    put(letters, b"first", message_id="m-1", origin="gone")
    put(letters, b"second", message_id="m-2")
    put(letters, b"third", message_id="m-3", origin=None)
    said = dead_letters(letters.settings(), "replay", "--all", status=1)
    assert "m-1 stays: there is no queue gone" in said and "m-3 stays" in said
    assert bodies(letters, QUEUE) == [b"second"]
    dead_letters(letters.settings(), "replay", "--all", "--to", QUEUE)
    assert bodies(letters, QUEUE) == [b"first", b"third"]


def test_a_letter_that_is_cut_stays(letters):
    put(letters, b"the first part", message_id="m-1", headers={"x-original-queue": QUEUE, "x-body-size": "2000000"})
    assert "m-1 stays: its body was over 1 MiB" in dead_letters(letters.settings(), "replay", "--all", status=1)
    assert bodies(letters, DEAD_QUEUE) == [b"the first part"]


def test_a_copy_that_the_broker_refuses_leaves_the_letter(letters):
    letters.declare("full", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    put(letters, b"body", message_id="m-1", origin="full")
    assert "m-1 stays: the broker refused it" in dead_letters(letters.settings(), "replay", "--all", status=1)
    assert bodies(letters, DEAD_QUEUE) == [b"body"]


def test_what_a_policy_of_the_broker_buried_goes_back_too(letters):
    letters.declare("work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_QUEUE,
                               "x-message-ttl": 1})
    letters.publish(b"too late", pika.BasicProperties(message_id="m-1", headers={"mine": "kept"}), "work")
    wait_until(lambda: letters.depth(DEAD_QUEUE)[0] == 1, what="it is dead")
    assert json.loads(dead_letters(letters.settings(), "list", "--json"))[0]["originalQueue"] == "work"
    dead_letters(letters.settings(), "replay", "--id", "m-1", "--to", QUEUE)
    assert letters.take(judged=False)[0].headers == {"mine": "kept"}


def test_killed_amid_a_replay_loses_nothing(letters):
    connection = letters.connect()
    channel = connection.channel()
    for number in range(2000):
        channel.basic_publish("", DEAD_QUEUE, b"%d" % number, pika.BasicProperties(
            delivery_mode=2, message_id="m-%d" % number, headers={"x-original-queue": QUEUE}))
    connection.close()
    wait_until(lambda: letters.depth(DEAD_QUEUE)[0] == 2000, what="the dead letters")
    running = subprocess.Popen([SCRIPT, "replay", "--all"], stdout=subprocess.DEVNULL,
                               env={"PATH": os.environ["PATH"], **letters.settings()})
    wait_until(lambda: letters.depth()[0] > 300, what="amid the replay", interval=0.01)
    running.kill()
    assert running.wait(30) < 0
    wait_until(lambda: letters.depth()[0] + letters.depth(DEAD_QUEUE)[0] >= 2000,
               what="all are back or moved")
    moved, left = bodies(letters, QUEUE), bodies(letters, DEAD_QUEUE)
    assert left and set(moved) | set(left) == {b"%d" % number for number in range(2000)}
    assert len(moved) + len(left) <= 2001, "at most the one in hand is in both"


# ---- drop

def test_the_selected_ones_are_dropped(letters):
    for number in range(4):
        put(letters, b"letter %d" % number, message_id="m-%d" % number)
    assert dead_letters(letters.settings(), "drop", "--id", "m-1") == "m-1 dropped\n1 dropped\n"
    assert ids(letters) == ["m-0", "m-2", "m-3"]
    dead_letters(letters.settings(), "drop", "--all")
    assert ids(letters) == [] and letters.depth() == (0, 0)


# ---- wrong usage, wrong settings, no broker

@pytest.mark.parametrize("command", ["replay", "drop"])
def test_an_unknown_id_is_said_and_nothing_is_touched(letters, command):
    put(letters, b"body", message_id="m-1")
    said = dead_letters(letters.settings(), command, "--id", "m-9", status=1)
    assert "no dead letter has the ID m-9" in said
    assert ids(letters) == ["m-1"] and letters.depth() == (0, 0)


@pytest.mark.parametrize("arguments", [[], ["replay"], ["drop"], ["replay", "--id"],
                                       ["drop", "--all", "--id", "x"], ["--queue", "", "list"],
                                       ["replay", "--all", "--to", "x" * 256],
                                       ["replay", "--all", "--to", DEAD_QUEUE]], ids=" ".join)
def test_nothing_is_done_without_a_clear_word(letters, arguments):
    put(letters, b"body", message_id="m-1")
    assert "usage:" in dead_letters(letters.settings(), *arguments, status=2)
    assert ids(letters) == ["m-1"]


def test_help_needs_no_broker():
    for arguments in ("--help",), ("replay", "--help"):
        assert "usage:" in dead_letters({}, *arguments)


def test_the_settings_are_the_daemons(letters, tmp_path):
    put(letters, b"body", message_id="m-1")
    secret, config = tmp_path / "secret", tmp_path / "config"
    port = letters.settings()["RABBITMQ_PORT"]
    secret.write_text(PASSWORD + "\n")
    config.write_text("RABBITMQ_HOST=127.0.0.1\nRABBITMQ_PORT = %s\n# RABBITMQ_VHOST=/\nRABBITMQ_VHOST='%s'\n"
                      % (port, letters.name))
    url = "amqp://%s:%s@127.0.0.1:%s/%s" % (USER, PASSWORD, port, letters.name)
    for settings in ({"CONFIG_FILE": str(config)}, {"RABBITMQ_URL": url, "RABBITMQ_HOST": "nowhere"},
                     {"RABBITMQ_URL": "amqp://127.0.0.1:%d, %s" % (free_port(), url)},
                     {"CONFIG_FILE": str(config), "RABBITMQ_USER": USER, "RABBITMQ_PASS_FILE": str(secret)}):
        assert "m-1" in dead_letters(settings, "list")


def test_errors_are_one_line_without_secrets(letters, tmp_path):
    settings = letters.settings()
    for change, status, said in (
            ({"RABBITMQ_PASS": "secret-tardif"}, 1, "no RabbitMQ"),
            ({"RABBITMQ_VHOST": "none"}, 1, "no RabbitMQ"),
            ({"RABBITMQ_PORT": str(free_port())}, 1, "no RabbitMQ"),
            ({"RABBITMQ_PORT": "x"}, 2, "RABBITMQ_PORT"),
            ({"RABBITMQ_URL": "http://a:secret-tardif@b"}, 2, "RABBITMQ_URL"),
            ({"RABBITMQ_PASS": "", "RABBITMQ_PASS_FILE": str(tmp_path / "none")}, 2, "RABBITMQ_PASS_FILE")):
        error = dead_letters({**settings, **change}, "list", status=status)
        assert said in error and error.count("\n") == 1 and "secret-tardif" not in error, error
