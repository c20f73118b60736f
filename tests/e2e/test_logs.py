"""What the daemons print: the specification's lines for people, one object a line for machines."""

import collections
import json
import os
import pty
import re
import select
import subprocess

import pytest
from harness.booking import booking
from harness.broker import DEAD_QUEUE
from harness.daemon import command, environment
from harness.http import TIMESTAMP, ok_json
from harness.wait import free_port, wait_until




def in_order(log, expected):
    """Every expected line is there, one after the other; others may stand between them."""
    position = 0
    lines = log.splitlines()
    for text in expected:
        found = next((n for n in range(position, len(lines)) if lines[n] == text), None)
        assert found is not None, "%r is missing after line %d of:\n%s" % (text, position, log)
        position = found + 1


def test_the_worker_prints_the_lines_of_the_specification(make_stack, vhost):
    stack = make_stack(playlists={"LAGMASTER_RETRY_DELAY_MS": 1000}).start()
    stack.lagmaster.control(fail_first=1)
    made = stack.book()
    _found, playlist = stack.linked(made["id"])
    wait_until(lambda: stack.playlists.log_has("✅ Message traité avec succès"), what="the last line")
    stack.playlists.stop()
    log = stack.playlists.log()
    timestamp = re.search(r"^   Timestamp: (.*)$", log, re.MULTILINE).group(1)
    assert TIMESTAMP.match(timestamp)
    error = re.search(r"^❌ Erreur API \(tentative 1\): (.+)$", log, re.MULTILINE)
    assert error, log
    key = playlist["id"]
    in_order(log, [
        "🚀 Démarrage du worker de génération de playlists...",
        "✅ Worker connecté et en écoute sur la queue: playlist_generation_queue",
        "⏳ En attente de messages...",
        "📩 Message reçu pour soirée " + made["id"],
        "   Style: disco",
        "   Client: client123",
        "   Timestamp: " + timestamp,
        "🎵 Appel API externe (tentative 1/3) pour style: disco",
        error.group(0),
        "⏳ Retry dans 1s...",
        "🎵 Appel API externe (tentative 2/3) pour style: disco",
        "✅ Playlist générée avec succès: Metaverse Collapse Disco",
        "✅ Playlist %s créée et sauvegardée" % key,
        "   Titre: Metaverse Collapse Disco",
        "   Tracks: 3",
        "🔄 Mise à jour de la soirée %s avec playlist %s" % (made["id"], key),
        "✅ Soirée %s mise à jour avec succès" % made["id"],
        "✅ Message traité avec succès",
        "⚠️ Arrêt du worker..."])
    place = log.index("📡 Connexion à RabbitMQ: amqp://admin:***@127.0.0.1:%d" % vhost.broker.port)
    assert log.index("🚀") < place < log.index("✅ Worker connecté")
    assert "admin123" not in log


def test_blank_lines_set_off_the_waiting_and_the_message(stack):
    stack.linked(stack.book()["id"])
    log = stack.playlists.log()
    assert "⏳ En attente de messages...\n\n" in log
    assert re.search(r"\n\n📩 Message reçu pour soirée \S+\n   Style: disco\n   Client: client123\n"
                     r"   Timestamp: \S+\n\n", log)


def test_the_worker_says_when_it_falls_back(stack):
    stack.lagmaster.control(mode="error500")
    made = stack.book()
    stack.linked(made["id"])
    wait_until(lambda: stack.playlists.log_has("✅ Message traité avec succès"), what="the last line")
    log = stack.playlists.log()
    assert re.findall(r"^❌ Erreur API \(tentative (\d)\): .+$", log, re.MULTILINE) == ["1", "2", "3"]
    assert len(re.findall(r"^⏳ Retry dans .+s\.\.\.$", log, re.MULTILINE)) == 2
    in_order(log, ["⚠️ Génération de playlist par défaut après échec des tentatives",
                   "   Titre: Disco Mix - Default"])


def test_the_worker_says_when_a_link_fails(make_stack):
    stack = make_stack(playlists={"SOIREES_URL": "http://127.0.0.1:%d" % free_port()}).start()
    made = stack.book()
    wait_until(lambda: re.search(r"^❌ Erreur mise à jour soirée %s: .+$" % made["id"], stack.playlists.log(),
                                 re.MULTILINE),
               60, "the error")


@pytest.mark.threads
def test_a_message_and_its_lines_stay_in_one_piece(make_stack):
    stack = make_stack(playlists={"PLAYLIST_WORKERS": 40}).start()
    stack.consuming(workers=40)
    made = {}
    for number in range(80):
        style = "style-%d" % number
        made[stack.book(styleMusical=style, clientId="client-%d" % number)["id"]] = number
    for key in made:
        stack.linked(key, timeout=120)
    lines = stack.playlists.log().splitlines()
    blocks = 0
    for n, line in enumerate(lines):
        received = re.match(r"^📩 Message reçu pour soirée (\S+)$", line)
        if received:
            number = made[received.group(1)]
            assert lines[n + 1:n + 3] == ["   Style: style-%d" % number, "   Client: client-%d" % number]
            assert TIMESTAMP.match(lines[n + 3].replace("   Timestamp: ", ""))
            blocks += 1
        created = re.match(r"^✅ Playlist (\S+) créée et sauvegardée$", line)
        if created:
            assert re.match(r"^   Titre: \S.*$", lines[n + 1]) and lines[n + 2] == "   Tracks: 3"
    assert blocks == 80


def test_soirees_prints_the_lines_of_the_specification(make_stack, consul):
    stack = make_stack(consul=consul).start()
    made = stack.book()
    wait_until(lambda: stack.soirees.log_has("📨 Message publié pour soirée " + made["id"]), what="published")
    wait_until(lambda: stack.soirees.log_has("enregistré dans Consul"), what="registered")
    stack.soirees.stop()
    lines = stack.soirees.log().splitlines()
    for line in ("Service Soirées démarré sur le port %d" % stack.soirees.port, "✅ Connecté à RabbitMQ",
                 "📨 Message publié pour soirée " + made["id"],
                 "✅ Service service-soirees enregistré dans Consul",
                 "✅ Service service-soirees désenregistré de Consul"):
        assert any(found.endswith(line) for found in lines), (line, lines)


def test_soirees_says_when_rabbitmq_cannot_be_reached(daemons):
    soirees = daemons.start("soirees", RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=free_port())
    wait_until(lambda: re.search(r"❌ Erreur connexion RabbitMQ: .+", soirees.log()), what="the error")


def objects(daemon):
    """Every line of the log, decoded."""
    return [json.loads(line) for line in daemon.log().splitlines()]


@pytest.fixture
def json_stack(make_stack):
    return make_stack(soirees={"LOG_FORMAT": "json"}, playlists={"LOG_FORMAT": "json"}).start()


def test_json_is_one_object_a_line_with_the_named_fields(json_stack):
    json_stack.lagmaster.control(fail_first=1)
    made = json_stack.book(clientId="x\ny\"é", styleMusical="ro\tck")
    _found, playlist = json_stack.linked(made["id"])
    json_stack.vhost.publish(b"hopeless \xff\n")
    json_stack.vhost.take(DEAD_QUEUE)
    json_stack.playlists.stop()
    json_stack.soirees.stop()
    for daemon, service in ((json_stack.soirees, "service-soirees"), (json_stack.playlists,
                                                                      "service-playlists")):
        lines = objects(daemon)
        assert lines
        for line in lines:
            assert TIMESTAMP.match(line["time"]), line
            assert line["level"] in ("debug", "info", "warn", "error")
            assert line["service"] == service
            for name in ("event", "message"):
                assert isinstance(line[name], str) and line[name], line
        assert any(line.get("soireeId") == made["id"] for line in lines)
    lines = objects(json_stack.playlists)
    pair = (made["id"], playlist["id"])
    assert pair in [(line.get("soireeId"), line.get("playlistId")) for line in lines]
    assert {line["attempt"] for line in lines if "attempt" in line} >= {1, 2}
    assert all(isinstance(line["durationMs"], (int, float)) for line in lines if "durationMs" in line)
    assert any("durationMs" in line for line in lines)
    assert any(line["level"] == "error" for line in lines), "the dead letter"
    assert "\x1b" not in json_stack.playlists.log()


def test_every_line_of_one_booking_is_found_by_its_ids(make_stack):
    """By soireeId or requestId, through both daemons; and no line about it is without them."""
    debug = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
    stack = make_stack(soirees=debug, playlists=debug).start()
    stack.lagmaster.control(fail_first=1)
    reply = stack.soirees.post("/api/soirees", booking(), headers={"X-Request-Id": "ticket-7"})
    made = ok_json(reply, 201)
    _found, playlist = stack.linked(made["id"])
    stack.book()
    stack.drained()
    stack.playlists.stop()
    stack.soirees.stop()
    lines = objects(stack.soirees) + objects(stack.playlists)
    stored = [line for line in lines if line["event"] == "soiree.stored"
              and line["httpRequestId"] == "ticket-7"]
    assert [line["soireeId"] for line in stored] == [made["id"]]
    request_id = stored[0]["requestId"]
    ids = {made["id"], request_id, "ticket-7"}
    found = [line for line in lines if {line.get("soireeId"), line.get("requestId")} & ids]
    assert {line["event"] for line in found} >= {
        "http.request", "soiree.stored", "message.confirmed", "message.received", "lagmaster.call",
        "lagmaster.failed", "lagmaster.wait", "lagmaster.generated", "playlist.saved", "link.started",
        "link.delivered", "message.done"}
    assert [line["method"] for line in found if line["event"] == "http.request"
            and line["requestId"] in ids] == ["POST", "PATCH"]
    for line in lines:  # what names it in any way (our own questions aside) is found
        asked = line["event"] == "http.request" and line["method"] == "GET"
        if not asked and any(key in json.dumps(line) for key in ids | {playlist["id"]}):
            assert line in found, line


def test_the_request_that_booked_is_found_by_the_id_of_the_booking(daemons):
    """At the usual level, too; and who asks how the service is, every few seconds, makes no lines."""
    soirees = daemons.start("soirees", LOG_FORMAT="json", RABBITMQ_PORT=free_port())
    for path in ("/ready", "/health"):
        assert soirees.get(path).status_code == 200
    made = ok_json(soirees.post("/api/soirees", booking(), headers={"X-Request-Id": "ticket-8"}), 201)
    soirees.stop()
    asked = [line for line in objects(soirees) if line["event"] == "http.request"]
    assert [(line["requestId"], line["location"]) for line in asked] == [("ticket-8", "/api/soirees/" + made["id"])]


def test_a_failure_that_lasts_gives_a_handful_of_lines(make_stack):
    """The API fails and soirees is away: ten lines of a kind, however many messages; the others are there for
    LOG_LEVEL=debug, and each message still has its own lines."""
    count = 40
    stack = make_stack(soirees={"LOG_FORMAT": "json"}, playlists={
        "LOG_FORMAT": "json", "PLAYLIST_WORKERS": 10, "SOIREES_URL": "http://127.0.0.1:%d" % free_port(),
        "LAGMASTER_RETRY_DELAY_MS": 1}).start()
    stack.lagmaster.control(mode="error500")
    for _ in range(count):
        stack.book()
    wait_until(lambda: stack.playlists.log().count('"message.done"') == count, 120, "all are done")
    stack.drained()
    stack.playlists.stop()
    seen = collections.Counter(line["event"] for line in objects(stack.playlists))
    assert seen["lagmaster.failed"] == seen["lagmaster.wait"] == seen["lagmaster.fallback"] == 10
    assert seen["link.pending"] == 10
    assert seen["lagmaster.call"] == count + 10
    assert seen["message.received"] == seen["playlist.saved"] == seen["message.done"] == count


def test_a_file_gets_no_colour(stack):
    stack.lagmaster.control(mode="error500")
    stack.linked(stack.book()["id"])
    stack.playlists.stop()
    stack.soirees.stop()
    assert "\x1b[" not in stack.playlists.log() + stack.soirees.log()


def on_terminal(program, settings, until):
    """What the program prints on a terminal, up to the given text."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command(program), env=environment(settings), stdin=subprocess.DEVNULL,
                               stdout=follower,
                               stderr=follower)
    os.close(follower)
    text = b""

    def arrived():
        nonlocal text
        if select.select([leader], [], [], 0)[0]:
            text += os.read(leader, 4096)
        return until.encode() in text
    try:
        wait_until(arrived, 60, until)
    finally:
        process.terminate()
        process.wait(30)
        os.close(leader)
    return text.decode()


@pytest.mark.parametrize("no_colour", ["1", "", None])
def test_no_color_is_honoured_on_a_terminal(built, tmp_path, no_colour):
    settings = {"SERVICE_PORT": free_port(), "SERVICE_BIND": "127.0.0.1",
                "DATABASE_PATH": str(tmp_path / "x.db"),
                "CONSUL_HOST": "", "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port(),
                "NO_COLOR": no_colour,
                "TERM": "xterm"}
    text = on_terminal("soirees", settings, "❌ Erreur connexion RabbitMQ")
    assert ("\x1b[31m❌ Erreur" in text) is (not no_colour)
    assert ("\x1b" in text) is (not no_colour)


def test_texts_from_outside_bring_no_escape_sequences(stack):
    stack.lagmaster.control(mode="control_chars")
    stack.linked(stack.book(clientId="\x1b[31mrouge", styleMusical="a\x1b[2Jb\r\n❌ faux")["id"])
    stack.vhost.publish(json.dumps({"soireeId": "s\x1b[31m\r\nx", "style": "d\x07"}).encode())
    wait_until(lambda: len(stack.lagmaster.calls()) == 2, 60, "the second call")
    stack.drained()
    stack.playlists.stop()
    log = stack.playlists.log()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", log)
    assert not re.search(r"^❌ faux", log, re.MULTILINE)


@pytest.mark.parametrize("level, seen", [("error", False), ("info", True)])
def test_the_level_is_a_threshold(vhost, daemons, level, seen):
    soirees = daemons.start("soirees", vhost.settings(), LOG_LEVEL=level)
    wait_until(lambda: vhost.queue() is not None, 60, "connected")
    soirees.stop()
    assert soirees.log_has("✅ Connecté à RabbitMQ") is seen
