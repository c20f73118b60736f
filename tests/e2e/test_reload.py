"""SIGHUP: settings are read anew; what is live counts at once, the rest is named, a mistake changes nothing."""

import hashlib
import itertools
import json
import os
import random
import re
import signal
import time

import pytest
from harness import broker
from harness.booking import BOOKING, message, request_properties, waiting
from harness.consul import ROOT
from harness.daemon import run
from harness.http import ok_json
from harness.metrics import scrape, value
from harness.wait import free_port, holds_for, wait_until
from lagmaster import LagMaster

BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])
LIVE = {"soirees": {"LOG_LEVEL", "LOG_FORMAT", "SHUTDOWN_GRACE_MS", "SHUTDOWN_DELAY_MS", "REQUEST_AGAIN_AFTER_S"},
        "playlists": {"LOG_LEVEL", "LOG_FORMAT", "SHUTDOWN_GRACE_MS", "SHUTDOWN_DELAY_MS", "LAGMASTER_URL", "LAGMASTER_TIMEOUT_MS",
                      "LAGMASTER_MAX_ATTEMPTS", "LAGMASTER_RETRY_DELAY_MS", "PLAYLIST_WORKERS",
                      "SOIREES_TOKEN"}}
DONE = re.compile(r"SIGHUP : réglages (relus|refusés)")
pytestmark = pytest.mark.usefixtures("built")


class Settings:
    """A daemon's CONFIG_FILE; `lines` that no environment has."""

    def __init__(self, path, **values):
        self.path, self.values, self.daemon = path, {}, None
        self.write(**values)

    def write(self, **values):
        """Change these (None: take it out), and leave the daemon alone."""
        self.values.update({name: str(value) for name, value in values.items()})
        for name in [name for name, value in values.items() if value is None]:
            self.values.pop(name)
        text = "".join("%s=%s\n" % item for item in self.values.items())
        draft = self.path.with_suffix(".new")
        draft.write_text("# réglages\n" + text)
        draft.replace(self.path)  # an earlier signal may still be at work

    def reload(self, **values):
        """Change these, send SIGHUP, wait for the answer, and return what the log says since."""
        self.write(**values)
        before = len(self.daemon.log())
        self.daemon.child.send_signal(signal.SIGHUP)

        def answer():
            log = self.daemon.log()[before:]
            return DONE.search(log) and log.endswith("\n") and log
        return wait_until(answer, what="the answer to SIGHUP")


def offline(program):
    settings = {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port()}
    if program == "playlists":
        settings["LAGMASTER_URL"] = "http://127.0.0.1:%d/" % free_port()
    return settings


@pytest.fixture
def start(daemons, tmp_path):
    """start(program, file={...}, NAME=…): a daemon alone, and its Settings."""
    numbers = itertools.count(1)

    def start_daemon(program, file=None, **environment):
        settings = Settings(tmp_path / ("settings%d.env" % next(numbers)), **(file or {}))
        settings.daemon = daemons.new(program, {**offline(program), **environment},
                                      CONFIG_FILE=settings.path)
        for name in file or {}:
            settings.daemon.settings.pop(name, None)
        settings.daemon.start()
        return settings
    return start_daemon


@pytest.fixture
def at_work(make_stack, tmp_path):
    """at_work(NAME=…): the stack, with these settings of playlists in a file, and that file's Settings."""
    def start_stack(soirees=None, environment=None, **file):
        settings = Settings(tmp_path / "playlists.env", **file)
        stack = make_stack(soirees=soirees, playlists={"CONFIG_FILE": settings.path, **(environment or {})})
        settings.daemon = stack.playlists
        for name in ("LAGMASTER_URL", "LAGMASTER_RETRY_DELAY_MS"):
            if name not in file:
                settings.write(**{name: stack.playlists.settings[name]})
            stack.playlists.settings.pop(name)
        stack.soirees.launch()
        stack.playlists.start()
        wait_until(lambda: stack.soirees.get("/health").status_code, 60, "soirees answers")
        stack.consuming()
        return stack, settings
    return start_stack


def events(log):
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


# ---- which settings, and how they are marked

def marked_in_help(program):
    """The settings that --help marks as live."""
    blocks = re.split(r"^  (?=[A-Z][A-Z_]+ )", run(program, "--help").stdout, flags=re.MULTILINE)[1:]
    return {block.split()[0] for block in blocks if "live: read again on SIGHUP" in block}


@BOTH
def test_help_and_the_readme_mark_what_is_live(program):
    assert marked_in_help(program) == LIVE[program]
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        table = re.search(r"^## Settings\n.*?\n## ", file.read(), re.MULTILINE | re.DOTALL).group(0)
    known = {text.split("=")[0] for text in run(program, "--print-config").stdout.splitlines()}
    shown = {}
    for names in re.findall(r"^\| (`[A-Z].*?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([A-Z_]+)`", names):
            shown[name] = names.endswith(" ↻")
    assert {name for name in known if shown[name]} == LIVE[program]


# ---- the log

def test_the_level_of_the_log_changes(start):
    settings = start("soirees", {"LOG_LEVEL": "info"})
    soirees = settings.daemon

    def lines_of_a_request():
        before = len(soirees.log())
        ok_json(soirees.get("/api/soirees"))
        return soirees.log()[before:]
    assert "/api/soirees" not in lines_of_a_request()
    log = settings.reload(LOG_LEVEL="debug")
    assert "🔄 SIGHUP : réglages relus. Pris en compte : LOG_LEVEL (info → debug)\n" in log
    wait_until(lambda: "/api/soirees" in lines_of_a_request(), what="a line of a request")
    assert "LOG_LEVEL (debug → error)" in settings.reload(LOG_LEVEL="error")  # said before it falls silent
    holds_for(lambda: not lines_of_a_request(), 0.5, "no line of a request")
    assert "LOG_LEVEL (error → info)" in settings.reload(LOG_LEVEL=None)


def test_the_format_of_the_log_changes(start):
    settings = start("playlists", {"LOG_FORMAT": "pretty"})
    assert "LOG_FORMAT (pretty → json)" in settings.reload(LOG_FORMAT="json")
    log = settings.reload(LOG_FORMAT="pretty", LOG_LEVEL="warn")
    found = next(e for e in events(log) if e["event"] == "service.reloaded")
    assert found["taken"] == "LOG_FORMAT (json → pretty), LOG_LEVEL (info → warn)"
    assert "needsRestart" not in found and found["level"] == "info"
    log = settings.reload(LOG_LEVEL=None)
    assert not events(log) and "LOG_LEVEL (warn → info)" in log


@BOTH
def test_a_signal_that_changes_nothing_says_so(program, start):
    settings = start(program)
    assert settings.reload() == "🔄 SIGHUP : réglages relus, rien n'a changé\n"
    settings.path.write_text("# another comment\n\n")
    assert "rien n'a changé" in settings.reload()
    assert settings.daemon.get("/health").status_code == 200


@BOTH
def test_without_a_file_the_signal_is_fine_too(program, daemons):
    daemon = daemons.start(program, offline(program))
    daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log_has("réglages relus, rien n'a changé"), what="the answer")


# ---- what is refused, what needs a restart, what wins

@BOTH
def test_a_mistake_changes_nothing_and_every_one_is_named(program, start, tmp_path):
    settings = start(program, {"LOG_LEVEL": "info", "LOG_FORMAT": "json"})
    daemon = settings.daemon
    log = settings.reload(LOG_LEVEL="error", LOG_FORMAT="xml", RABBITMQ_HEARTBEAT=0,
                          CONSUL_TOKEN_FILE=tmp_path / "nope")
    wanted = ["RABBITMQ_HEARTBEAT: '0'", "LOG_FORMAT: 'xml'", "CONSUL_TOKEN_FILE: %s" % (tmp_path / "nope")]

    def named():
        found = [e for e in events(daemon.log()) if e["event"] == "setting.refused"]
        return len(found) == 3 and found
    found = wait_until(named, what="three problems")
    for text in wanted:
        assert any(e["reason"].startswith(text) and e["level"] == "error" for e in found), text
    refusal = next(e for e in events(log) if e["event"] == "service.reload_refused")
    assert refusal["problems"] == 3 and "rien ne change" in refusal["message"]
    ok_json(daemon.get("/api/" + program))  # the level that would hide it was not taken
    wait_until(lambda: any(e["event"] == "http.request" for e in events(daemon.log())), what="a line of it")
    assert daemon.get("/health").status_code == 200
    log = settings.reload(LOG_FORMAT="json", RABBITMQ_HEARTBEAT=None, CONSUL_TOKEN_FILE=None)
    assert "LOG_LEVEL (info → error)" in log


def test_checks_that_span_settings_count_too(start):
    settings = start("playlists", {"LAGMASTER_MAX_ATTEMPTS": "3"})
    log = settings.reload(LAGMASTER_MAX_ATTEMPTS=100)
    wait_until(lambda: settings.daemon.log_has("at most 25 minutes"), what="the reason")
    assert "refusés" in log
    log = settings.reload(LAGMASTER_TIMEOUT_MS=1000, LAGMASTER_RETRY_DELAY_MS=1000)
    assert "LAGMASTER_MAX_ATTEMPTS (3 → 100)" in log


def test_a_file_that_is_gone_or_unreadable_changes_nothing(start):
    settings = start("soirees", {"LOG_LEVEL": "info"})
    settings.path.unlink()
    settings.path.mkdir()
    before = len(settings.daemon.log())
    settings.daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: "CONFIG_FILE: %s" % settings.path in settings.daemon.log()[before:], what="the reason")
    settings.path.rmdir()
    assert "rien n'a changé" in settings.reload()


def test_a_mistake_that_stays_does_not_fill_the_log(start):
    """The same one is named ten times, another one at once."""
    settings = start("soirees")
    settings.write(LOG_LEVEL="loud")
    for _ in range(30):
        settings.daemon.child.send_signal(signal.SIGHUP)
        wait_until(lambda: not int(pending_signals(settings.daemon), 16), what="the signal is taken")
    wait_until(lambda: settings.daemon.log().count("réglages refusés") >= 10, what="ten refusals")
    assert settings.daemon.log().count("réglages refusés") <= 12
    assert "'lauter'" in settings.reload(LOG_LEVEL="lauter")


def pending_signals(daemon):
    """The signals that wait for the process."""
    with open("/proc/%d/status" % daemon.pid) as file:
        return re.search(r"^ShdPnd:\t(.*)$", file.read(), re.MULTILINE).group(1)


@BOTH
def test_what_needs_a_restart_is_named_until_it_is_as_it_was(program, start):
    settings = start(program, {"HTTP_THREADS": "2", "LOG_LEVEL": "info"}, RABBITMQ_HEARTBEAT=20)
    log = settings.reload(HTTP_THREADS=3, LOG_LEVEL="warn", CONSUL_TOKEN="s3cret", RABBITMQ_HEARTBEAT=5)
    assert ("réglages relus. Pris en compte : LOG_LEVEL (info → warn)."
            " Redémarrage nécessaire : CONSUL_TOKEN, HTTP_THREADS (2 → 3)\n") in log
    assert "RABBITMQ_HEARTBEAT" not in log  # the environment wins
    log = settings.reload(LOG_LEVEL="info")
    assert "Pris en compte : LOG_LEVEL (warn → info)" in log and "HTTP_THREADS (2 → 3)" in log
    log = settings.reload()
    assert "rien n'est pris en compte. Redémarrage nécessaire : " in log and "HTTP_THREADS (2 → 3)" in log
    log = settings.reload(HTTP_THREADS=2, CONSUL_TOKEN=None)
    assert "rien n'a changé" in log
    assert "s3cret" not in settings.daemon.log()


def test_the_environment_wins_over_a_live_setting_too(start):
    settings = start("soirees", LOG_LEVEL="info")
    assert "rien n'a changé" in settings.reload(LOG_LEVEL="debug")


def test_the_time_to_stop_is_what_the_file_says_by_then(at_work):
    stack, settings = at_work(SHUTDOWN_GRACE_MS=60000)
    assert "SHUTDOWN_GRACE_MS (60000 → 500)" in settings.reload(SHUTDOWN_GRACE_MS=500)
    stack.lagmaster.control(mode="hang")
    stack.book()
    waiting(stack.lagmaster)
    begin = time.monotonic()
    stack.playlists.stop()
    assert time.monotonic() - begin < 20


# ---- tokens and secrets

def token_line(name, role, token):
    return "%s %s sha256:%s\n" % (name, role, hashlib.sha256(token.encode()).hexdigest())


def bearer(token):
    return {"Authorization": "Bearer " + token}


def test_a_mistake_elsewhere_keeps_the_old_tokens(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("un", "write", "premier"))
    settings = start("soirees", {"API_TOKENS_FILE": tokens})
    soirees = settings.daemon
    tokens.write_text(token_line("un", "write", "premier") + token_line("deux", "read", "second"))
    assert "refusés" in settings.reload(LOG_LEVEL="loud")
    assert soirees.get("/api/soirees", headers=bearer("second")).status_code == 401
    assert "Pris en compte : API_TOKENS_FILE (jetons : 1 → 2)\n" in settings.reload(LOG_LEVEL=None)
    ok_json(soirees.get("/api/soirees", headers=bearer("second")))
    assert "rien n'a changé" in settings.reload()


def test_another_file_of_tokens_is_read_and_needs_a_restart(start, tmp_path):
    """Whether the API is open is not decided by a slip in a file."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(token_line("un", "write", "premier"))
    second.write_text("nonsense\n")
    settings = start("soirees", {"API_TOKENS_FILE": first})
    assert "refusés" in settings.reload(API_TOKENS_FILE=second)
    second.write_text(token_line("deux", "write", "second"))
    assert "Redémarrage nécessaire : API_TOKENS_FILE" in settings.reload()
    assert "Redémarrage nécessaire : API_TOKENS_FILE" in settings.reload(API_TOKENS_FILE=None)
    assert settings.daemon.get("/api/soirees").status_code == 401
    assert settings.daemon.get("/api/soirees", headers=bearer("second")).status_code == 401
    ok_json(settings.daemon.get("/api/soirees", headers=bearer("premier")))


@pytest.mark.threads
def test_the_worker_s_token_rotates(at_work, tmp_path):
    """The file of its token changes while soirees knows both, then the old one only is taken away."""
    tokens, secret = tmp_path / "tokens", tmp_path / "secret"
    old, new, client = "s3cret-ancien", "s3cret-nouveau", "s3cret-client"
    tokens.write_text(token_line("caisse", "write", client) + token_line("worker", "write", old))
    secret.write_text(old + "\n")
    stack, settings = at_work(soirees={"API_TOKENS_FILE": tokens}, SOIREES_TOKEN_FILE=secret,
                              LOG_LEVEL="debug", LOG_FORMAT="json")

    def book_and_link():
        made = ok_json(stack.soirees.post("/api/soirees", BOOKING, headers=bearer(client)), 201)
        return made["id"]

    def linked(key):
        found = ok_json(stack.soirees.get("/api/soirees/" + key, headers=bearer(client)))
        return found["playlistId"]
    first = book_and_link()
    wait_until(lambda: linked(first), 60, "the first link")
    tokens.write_text(token_line("caisse", "write", client) + token_line("worker", "write", new))
    stack.soirees.child.send_signal(signal.SIGHUP)
    wait_until(lambda: stack.soirees.log_has("API_TOKENS_FILE (jetons : 2 → 2)"), what="the new tokens")
    second = book_and_link()
    wait_until(lambda: stack.playlists.log_has("statut 401"), 60, "the old token is refused")
    secret.write_text(new + "\n")
    log = settings.reload()
    assert next(e for e in events(log) if e["event"] == "service.reloaded")["taken"] == "SOIREES_TOKEN"
    wait_until(lambda: linked(second), 60, "the second link")
    third = book_and_link()
    wait_until(lambda: linked(third), 60, "the third link")
    assert "s3cret" not in stack.playlists.log() + stack.soirees.log()


# ---- lagmaster-pro

@pytest.mark.threads
def test_another_address_of_the_api_gets_the_next_call(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=2)
    stack.lagmaster.control(mode="hang")
    under_way = stack.book()
    waiting(stack.lagmaster)
    with LagMaster() as other:
        log = settings.reload(LAGMASTER_URL=other.url.replace("http://", "http://moi:s3cret@"))
        assert "→ http://***@127.0.0.1:%d/generate_playlist)" % other.port in log
        stack.linked(stack.book()["id"])
        assert (stack.lagmaster.count, other.count) == (1, 1)
        stack.lagmaster.release()  # what was under way ends as it began
        stack.linked(under_way["id"])
        assert (stack.lagmaster.count, other.count) == (1, 1)
        settings.reload(LAGMASTER_URL=stack.lagmaster.url)
        stack.lagmaster.control()
        stack.linked(stack.book()["id"])
        assert (stack.lagmaster.count, other.count) == (2, 1)
    assert "s3cret" not in stack.playlists.log()


def test_a_failed_attempt_is_repeated_at_the_new_address(at_work):
    stack, settings = at_work(LAGMASTER_RETRY_DELAY_MS=3000)
    stack.lagmaster.control(mode="error500")
    made = stack.book()
    wait_until(lambda: stack.playlists.log_has("⏳ Retry dans 3s..."), 60, "the wait")
    with LagMaster() as other:
        settings.reload(LAGMASTER_URL=other.url)
        _found, playlist = stack.linked(made["id"])
        assert playlist["origine"] == "lagmaster-pro"
        assert (stack.lagmaster.count, other.count) == (1, 1)


def test_the_number_of_attempts_and_the_wait_change(at_work):
    stack, settings = at_work(LAGMASTER_MAX_ATTEMPTS=3, LAGMASTER_RETRY_DELAY_MS=10)
    stack.lagmaster.control(mode="error500")
    stack.linked(stack.book()["id"])
    assert stack.lagmaster.count == 3
    settings.reload(LAGMASTER_MAX_ATTEMPTS=5, LAGMASTER_RETRY_DELAY_MS=20)
    stack.linked(stack.book()["id"])
    assert stack.lagmaster.count == 8
    assert stack.playlists.log_has("(tentative 5/5)") and stack.playlists.log_has("⏳ Retry dans 0.02s...")
    settings.reload(LAGMASTER_MAX_ATTEMPTS=1)
    _found, playlist = stack.linked(stack.book()["id"])
    assert stack.lagmaster.count == 9 and playlist["origine"] == "defaut"


def test_fewer_attempts_than_have_failed_end_in_the_default_playlist(at_work):
    stack, settings = at_work(LAGMASTER_MAX_ATTEMPTS=3, LAGMASTER_RETRY_DELAY_MS=2000)
    stack.lagmaster.control(mode="error500")
    made = stack.book()
    wait_until(lambda: stack.playlists.log_has("⏳ Retry dans 2s..."), 60, "the wait")
    settings.reload(LAGMASTER_MAX_ATTEMPTS=1)
    _found, playlist = stack.linked(made["id"])
    assert playlist["origine"] == "defaut" and stack.lagmaster.count == 1


def test_the_time_of_an_attempt_changes(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=2, LAGMASTER_MAX_ATTEMPTS=1)
    stack.lagmaster.control(mode="hang")
    long = stack.book()
    waiting(stack.lagmaster)
    settings.reload(LAGMASTER_TIMEOUT_MS=200)
    _found, playlist = stack.linked(stack.book()["id"])
    assert playlist["origine"] == "defaut"
    assert stack.soiree(long["id"])["playlistId"] is None  # its call has 90 s still
    stack.lagmaster.release()
    _found, playlist = stack.linked(long["id"])
    assert playlist["origine"] == "lagmaster-pro"


# ---- requests that stay open

@pytest.mark.slow
def test_sending_again_is_turned_on_and_off(vhost, daemons, tmp_path):
    settings = Settings(tmp_path / "soirees.env", REQUEST_AGAIN_AFTER_S=0)
    settings.daemon = soirees = daemons.start("soirees", vhost.settings(), CONFIG_FILE=settings.path)
    connection = vhost.connect()
    channel = connection.channel()
    seen = []

    def on_message(_channel, method, properties, _body):
        seen.append(properties.message_id)
        channel.basic_ack(method.delivery_tag)

    def pump(condition, timeout=60, what=""):
        def turn():
            connection.process_data_events(0.05)
            return condition()
        return wait_until(turn, timeout, what)
    wait_until(lambda: vhost.queue(), 60, "the queue")
    channel.basic_consume("playlist_generation_queue", on_message)
    ok_json(soirees.post("/api/soirees", BOOKING), 201)
    pump(lambda: len(seen) == 1, what="the request")
    pump(lambda: value(scrape(soirees), "soirees_outbox_rows", state="unsent") == 0, what="its confirm is noted")
    settings.reload(REQUEST_AGAIN_AFTER_S=1)
    ok_json(soirees.post("/api/soirees", BOOKING), 201)
    pump(lambda: len(seen) >= 4, what="the second request, again and again")
    assert seen[1:] == [seen[1]] * (len(seen) - 1) and seen[0] != seen[1]
    settings.reload(REQUEST_AGAIN_AFTER_S=0)
    pump(lambda: value(scrape(soirees), "soirees_outbox_rows", state="unsent") == 0, what="all is confirmed")
    count = len(seen) + 1  # one may have been on its way
    begin = time.monotonic()
    pump(lambda: time.monotonic() - begin > 10, what="ten quiet seconds")
    assert len(seen) <= count
    assert value(scrape(soirees), "soirees_outbox_rows", state="open") == 1
    connection.close()


# ---- workers

def consumers(stack, number, timeout=60):
    """Wait until the queue has exactly that many, and each of them prefetch 1."""
    wait_until(lambda: stack.vhost.depth()[1] == number, timeout, "%d consumers" % number)
    wait_until(lambda: [c["prefetch_count"] for c in stack.vhost.consumers()] == [1] * number, timeout,
               "%d consumers with prefetch 1" % number, interval=0.2)


def channels(stack, number, timeout=60):
    """Wait until that many channels are open for workers (the dead letters' and another one come on top)."""
    def are_open():
        return [c["channels"] for c in stack.vhost.connections()
                if c["client_properties"]["connection_name"] == "service-playlists"] == [number + 2]
    wait_until(are_open, timeout, "%d channels" % number, interval=0.2)


def publish_many(vhost, numbers, style="disco"):
    connection = vhost.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    for number in numbers:
        body = json.dumps(message("s-%d" % number, style)).encode()
        vhost.broker.published.add(body)
        channel.basic_publish("", "playlist_generation_queue", body,
                              request_properties("m-%d" % number))
    connection.close()


def made_once(stack, count, timeout=180):
    """Wait until each of the soirées s-0… has its playlist, and check that there are no others."""
    def all_made():
        found, cursor = [], "/api/playlists?limit=1000"
        while cursor:
            reply = stack.playlists.get(cursor)
            found += [playlist["soireeId"] for playlist in reply.json()]
            cursor = reply.links.get("next", {}).get("url")
        assert len(found) == len(set(found)), "made twice"
        return len(found) == count
    wait_until(all_made, timeout, "%d playlists" % count, interval=0.5)
    stack.drained(timeout)
    assert stack.vhost.counters().get("redeliver", 0) == 0
    assert stack.lagmaster.count == count


@pytest.mark.threads
@pytest.mark.slow
def test_workers_come_and_go_under_load(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=2)
    stack.lagmaster.control(latency_ms=1000)
    consumers(stack, 2)
    publish_many(stack.vhost, range(600))
    wait_until(lambda: stack.lagmaster.count >= 4, 60, "it is at work")
    assert "PLAYLIST_WORKERS (2 → 20)" in settings.reload(PLAYLIST_WORKERS=20)
    waiting(stack.lagmaster, 20)
    consumers(stack, 20)
    connection = stack.vhost.connections()
    settings.reload(PLAYLIST_WORKERS=3)
    wait_until(lambda: stack.lagmaster.waiting <= 3, 60, "three at work")
    consumers(stack, 3)
    assert stack.vhost.queue()["messages"] > 0, "this was not under load"
    channels(stack, 3)
    assert value(scrape(stack.playlists), "playlists_workers") == 3
    settings.reload(PLAYLIST_WORKERS=100)
    made_once(stack, 600)
    assert [c["name"] for c in stack.vhost.connections()] == [c["name"] for c in connection]
    assert value(scrape(stack.playlists), "amqp_connections_total", event="lost") == 0


def test_superfluous_workers_finish_what_they_have(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=20)
    stack.lagmaster.control(mode="hang")
    publish_many(stack.vhost, range(30))
    waiting(stack.lagmaster, 20)
    settings.reload(PLAYLIST_WORKERS=1)
    wait_until(lambda: stack.vhost.depth() == (10, 1), what="one consumer")
    assert stack.lagmaster.waiting == 20
    stack.lagmaster.control()
    stack.lagmaster.release()
    made_once(stack, 30)
    channels(stack, 1)


def test_few_workers_are_not_held_up_by_those_that_finish(at_work):
    """What they are given begins at once, however many calls of former workers hang."""
    stack, settings = at_work(PLAYLIST_WORKERS=1)
    settings.reload(PLAYLIST_WORKERS=20)
    consumers(stack, 20)
    stack.lagmaster.control(mode="hang", by_style={"slow": {"latency_ms": 4000, "mode": "ok"},
                                                   "ok": {"mode": "ok"}})
    publish_many(stack.vhost, [0], "slow")  # for the consumer that has waited the longest: it will stay
    waiting(stack.lagmaster, 1)
    publish_many(stack.vhost, range(1, 20))
    waiting(stack.lagmaster, 20)
    settings.reload(PLAYLIST_WORKERS=1)
    wait_until(lambda: stack.vhost.depth()[1] == 1, what="one consumer")
    publish_many(stack.vhost, range(20, 25), "ok")
    waiting(stack.lagmaster, 19)
    wait_until(lambda: stack.lagmaster.count == 25, 60, "the calls of the later ones")
    assert stack.lagmaster.waiting == 19
    stack.lagmaster.release()
    made_once(stack, 25)
    channels(stack, 1)


@pytest.mark.slow
def test_from_one_to_a_thousand_and_back(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=1)
    settings.reload(PLAYLIST_WORKERS=1000)
    wait_until(lambda: stack.vhost.depth()[1] == 1000, 120, "a thousand consumers")
    stack.lagmaster.control(mode="hang")
    publish_many(stack.vhost, range(1000))
    wait_until(lambda: stack.lagmaster.waiting == 1000, 120, "a thousand calls")
    settings.reload(PLAYLIST_WORKERS=1)
    wait_until(lambda: stack.vhost.depth()[1] == 1, 120, "one consumer")
    stack.lagmaster.control()
    stack.lagmaster.release()
    made_once(stack, 1000)
    channels(stack, 1)
    assert value(scrape(stack.playlists), "amqp_connections_total", event="lost") == 0


def test_a_change_while_disconnected_counts_with_the_next_connection(own_broker, make_stack, tmp_path):
    own_broker.start()
    settings = Settings(tmp_path / "own.env", PLAYLIST_WORKERS=2)
    stack = make_stack(vhost=own_broker.root(), playlists={"CONFIG_FILE": settings.path}).start()
    settings.daemon = stack.playlists
    for first, second in ((2, 6), (6, 3)):
        consumers(stack, first)
        own_broker.stop()
        wait_until(lambda: stack.playlists.health()["components"]["worker"]["state"] == "disconnected",
                   what="the loss is known")
        settings.reload(PLAYLIST_WORKERS=second)
        own_broker.start()
        consumers(stack, second, 120)
    stack.linked(stack.book()["id"])


@pytest.mark.slow
def test_a_broker_that_opens_few_channels_gets_fewer_workers(tmp_path, make_stack):
    node = broker.Broker(tmp_path / "broker", config="channel_max = 10\n")
    if broker.missing():
        pytest.skip(broker.missing())
    try:
        settings = Settings(tmp_path / "own.env", PLAYLIST_WORKERS=20)
        stack = make_stack(vhost=node.start().root(), playlists={"CONFIG_FILE": settings.path}).start()
        settings.daemon = stack.playlists
        consumers(stack, 8)  # two channels are for other things
        assert stack.playlists.log_has("⚠️ RabbitMQ n'ouvre que 10 canaux : 8 workers au lieu de 20")
        for number, possible in ((3, 3), (8, 8), (1000, 8), (1, 1)):
            settings.reload(PLAYLIST_WORKERS=number)
            consumers(stack, possible)
        assert stack.playlists.log().count("8 workers au lieu de 1000") == 1
        stack.linked(stack.book()["id"])
        assert value(scrape(stack.playlists), "amqp_connections_total", event="lost") == 0
    finally:
        stack.playlists.stop()
        stack.soirees.stop()
        node.close()


def test_a_stop_amid_a_change_is_clean(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=10, SHUTDOWN_GRACE_MS=300)
    stack.lagmaster.control(mode="hang")
    publish_many(stack.vhost, range(20))
    waiting(stack.lagmaster, 10)
    settings.reload(PLAYLIST_WORKERS=2)
    settings.write(PLAYLIST_WORKERS=30)
    stack.playlists.child.send_signal(signal.SIGHUP)
    stack.playlists.begin_stop()
    stack.playlists.child.send_signal(signal.SIGHUP)  # during the stop: nothing of it
    stack.playlists.end_stop()
    wait_until(lambda: stack.vhost.depth() == (20, 0), what="all is back in the queue")
    stack.lagmaster.control()
    stack.playlists.start()
    wait_until(stack.vhost.drained, 60, "all is done")


@pytest.mark.parametrize("workers", [3, 8])
def test_a_dead_letter_on_a_superfluous_channel_is_settled_first(at_work, workers):
    stack, settings = at_work(PLAYLIST_WORKERS=workers)
    for number in range(40):
        stack.vhost.publish(b"hopeless %d" % number)
        settings.write(PLAYLIST_WORKERS=1 + number % workers)
        stack.playlists.child.send_signal(signal.SIGHUP)
    settings.reload(PLAYLIST_WORKERS=1)
    dead = stack.vhost.take("playlist_generation_queue.dead", 40)
    assert len({letter.body for letter in dead}) == 40
    stack.drained()
    assert stack.vhost.depth("playlist_generation_queue.dead") == (0, 0)
    channels(stack, 1)


@pytest.mark.threads
@pytest.mark.slow
def test_a_storm_of_signals_under_load_loses_and_doubles_nothing(at_work):
    stack, settings = at_work(PLAYLIST_WORKERS=10)
    stack.lagmaster.control(latency_ms=300)
    chance = random.Random(2026)
    urls = [stack.lagmaster.url, stack.lagmaster.url + "?v=2"]
    for number in range(200):
        if number % 2 == 0:
            publish_many(stack.vhost, range(number * 3 // 2, number * 3 // 2 + 3))
        settings.write(PLAYLIST_WORKERS=chance.randint(1, 40), LAGMASTER_URL=chance.choice(urls),
                       LAGMASTER_TIMEOUT_MS=chance.randint(60000, 90000),
                       LOG_LEVEL=chance.choice(["debug", "info", "warn"]),
                       LOG_FORMAT=chance.choice(["pretty", "json"]),
                       SOIREES_TOKEN="s3cret-%d" % number,
                       LAGMASTER_MAX_ATTEMPTS="nonsense" if number % 20 == 7 else 3)
        stack.playlists.child.send_signal(signal.SIGHUP)
        time.sleep(chance.uniform(0, 0.04))  # no condition: the storm's own rhythm
    settings.reload(PLAYLIST_WORKERS=40, LAGMASTER_MAX_ATTEMPTS=3, LOG_LEVEL="info", LOG_FORMAT="pretty")
    assert len(DONE.findall(stack.playlists.log())) > 20
    made_once(stack, 300)
    settings.reload(PLAYLIST_WORKERS=7)
    consumers(stack, 7)
    channels(stack, 7)
    assert value(scrape(stack.playlists), "amqp_connections_total", event="lost") == 0
    assert "s3cret" not in stack.playlists.log()
