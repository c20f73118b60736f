"""Command line, settings, start and stop."""

import os
import re
import signal
import socket
import sqlite3
import time

import pytest
import requests
from harness.booking import book
from harness.daemon import run
from harness.wait import free_port, wait_until

SHARED = """SERVICE_PORT SERVICE_BIND SERVICE_NAME SERVICE_ADDRESS DATABASE_PATH RABBITMQ_HOST RABBITMQ_PORT
    RABBITMQ_USER RABBITMQ_PASS RABBITMQ_VHOST RABBITMQ_URL RABBITMQ_CA_FILE RABBITMQ_CERT_FILE
    RABBITMQ_KEY_FILE RABBITMQ_HEARTBEAT RABBITMQ_QUEUE_TYPE CONSUL_HOST CONSUL_PORT CONSUL_TOKEN
    CONSUL_SCHEME CONSUL_CA_FILE CORS_ORIGIN SHUTDOWN_GRACE_MS HTTP_THREADS LOG_FORMAT LOG_LEVEL
    CONFIG_FILE""".split()
OWN = {"soirees": ["REQUEST_AGAIN_AFTER_S"],
       "playlists": """SOIREES_URL SOIREES_TOKEN LAGMASTER_URL LAGMASTER_TIMEOUT_MS LAGMASTER_MAX_ATTEMPTS
                       LAGMASTER_RETRY_DELAY_MS PLAYLIST_WORKERS""".split()}
DEFAULTS = {"soirees": ["3003", "service-soirees", "./data/soirees.db", "900"],
            "playlists": ["3002", "service-playlists", "./data/playlists.db", "90000", "10000",
                          "https://lagmaster-pro.fly.dev/generate_playlist", "http://localhost:3003"]}
BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])
pytestmark = pytest.mark.usefixtures("built")


def offline(program):
    """Settings with nobody at the other ends."""
    settings = {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": free_port(), "RABBITMQ_PASS": "s3cret-pass",
                "CONSUL_HOST": "127.0.0.1", "CONSUL_PORT": free_port(), "CONSUL_TOKEN": "s3cret-consul"}
    if program == "playlists":
        settings.update(SOIREES_URL="http://127.0.0.1:%d" % free_port(), SOIREES_TOKEN="s3cret-token",
                        LAGMASTER_URL="http://127.0.0.1:%d/x" % free_port())
    return settings


# ---- command line

@BOTH
def test_help_names_every_setting_and_its_default(program):
    result = run(program, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for name in SHARED + OWN[program] + DEFAULTS[program]:
        assert re.search(r"(?<![\w-])%s(?![\w])" % re.escape(name), result.stdout), name
    for option in ("--help", "--version", "--check-config", "--healthcheck"):
        assert option in result.stdout


@BOTH
def test_version_is_one_line(program):
    result = run(program, "--version")
    assert result.returncode == 0
    assert re.match(r"^%s \d+\.\d+\.\d+\S*\n$" % program, result.stdout)


@BOTH
@pytest.mark.parametrize("arguments", [["--nonsense"], ["start"], ["-h", "x"]], ids=" ".join)
def test_unknown_arguments_are_refused(program, arguments, tmp_path):
    result = run(program, *arguments, DATABASE_PATH=str(tmp_path / "x.db"))
    assert result.returncode == 2
    assert result.stderr.count("\n") <= 3 and "--help" in result.stderr
    assert not os.listdir(tmp_path)


@BOTH
def test_check_config_of_good_settings_touches_nothing(program, tmp_path):
    result = run(program, "--check-config", DATABASE_PATH=str(tmp_path / "sub" / "x.db"))
    assert (result.returncode, result.stderr) == (0, "")
    assert not os.listdir(tmp_path)


BAD = {"SERVICE_PORT": "99999", "RABBITMQ_PORT": "abc", "RABBITMQ_HEARTBEAT": "-1", "CONSUL_PORT": "0",
       "CONSUL_SCHEME": "ftp", "LOG_FORMAT": "xml", "LOG_LEVEL": "loud", "SHUTDOWN_GRACE_MS": "10s",
       "HTTP_THREADS": "0", "RABBITMQ_QUEUE_TYPE": "stream", "RABBITMQ_URL": "http://u:s3cret-url@x/"}
BAD_OWN = {"soirees": {"REQUEST_AGAIN_AFTER_S": "bientôt"},
           "playlists": {"LAGMASTER_URL": "lagmaster", "LAGMASTER_TIMEOUT_MS": "0",
                         "LAGMASTER_MAX_ATTEMPTS": "0", "LAGMASTER_RETRY_DELAY_MS": "-5",
                         "PLAYLIST_WORKERS": "1001", "SOIREES_URL": "soirees:3003"}}


@BOTH
@pytest.mark.parametrize("arguments", [[], ["--check-config"]], ids=["start", "check"])
def test_all_bad_settings_are_named_at_once(program, arguments, tmp_path):
    bad = {**BAD, **BAD_OWN[program]}
    result = run(program, *arguments, DATABASE_PATH=str(tmp_path / "x.db"), **bad)
    assert result.returncode == 2
    for name in bad:
        assert re.search(r"\b%s\b" % name, result.stderr), name
    assert "s3cret" not in result.stdout + result.stderr
    assert not os.listdir(tmp_path)


def test_attempts_and_pauses_together_stay_under_25_minutes(tmp_path):
    result = run("playlists", "--check-config", LAGMASTER_TIMEOUT_MS=600000, LAGMASTER_MAX_ATTEMPTS=3)
    assert result.returncode == 2
    assert "LAGMASTER_" in result.stderr


@BOTH
def test_healthcheck_tells_whether_the_daemon_is_healthy(program, daemons):
    daemon = daemons.new(program, offline(program))
    settings = {name: daemon.settings[name] for name in ("SERVICE_PORT", "SERVICE_BIND")}
    assert run(program, "--healthcheck", **settings).returncode != 0
    daemon.start()
    assert run(program, "--healthcheck", **settings).returncode == 0
    assert run(program, "--healthcheck", SERVICE_PORT=daemon.port).returncode == 0
    daemon.stop()
    assert run(program, "--healthcheck", **settings).returncode != 0


# ---- where settings come from

@BOTH
def test_settings_may_come_from_a_file_and_the_environment_wins(program, daemons, tmp_path):
    daemon = daemons.new(program, offline(program))
    file = tmp_path / "settings.env"
    file.write_text("# a comment\n\nSERVICE_NAME=from-file\nSERVICE_PORT=1\nSERVICE_BIND=127.0.0.1\n")
    daemon.settings.pop("SERVICE_BIND")
    daemon.settings["CONFIG_FILE"] = file
    daemon.start()
    assert daemon.health()["service"] == "from-file"


@BOTH
def test_a_config_file_that_cannot_be_read_is_a_bad_setting(program, tmp_path):
    result = run(program, "--check-config", CONFIG_FILE=str(tmp_path / "nope"))
    assert result.returncode == 2 and "CONFIG_FILE" in result.stderr


def test_a_secret_may_come_from_a_file_of_its_own(vhost, daemons, tmp_path):
    secret = tmp_path / "pass"
    secret.write_text("admin123\n")
    settings = {**vhost.settings(), "RABBITMQ_PASS": None, "RABBITMQ_PASS_FILE": secret}
    book(daemons.start("soirees", settings))
    assert vhost.take()


@BOTH
def test_a_secret_file_that_cannot_be_read_is_a_bad_setting(program, tmp_path):
    result = run(program, "--check-config", RABBITMQ_PASS_FILE=str(tmp_path / "nope"))
    assert result.returncode == 2 and "RABBITMQ_PASS_FILE" in result.stderr


@BOTH
@pytest.mark.parametrize("log_format", ["pretty", "json"])
def test_secrets_are_in_no_output(program, log_format, daemons):
    settings = offline(program)
    daemon = daemons.start(program, settings, LOG_FORMAT=log_format, LOG_LEVEL="debug")
    wait_until(lambda: "RabbitMQ" in daemon.log() or "abbit" in daemon.log(), what="a word on RabbitMQ")
    health = daemon.get("/health").text
    daemon.stop()
    checked = run(program, "--check-config", **settings)
    for text in (daemon.log(), health, checked.stdout, checked.stderr):
        assert "s3cret" not in text


@BOTH
def test_a_secret_in_a_url_is_in_no_output(program, daemons):
    url = "amqp://moi:s3cret-url@127.0.0.1:%d/" % free_port()
    daemon = daemons.start(program, offline(program), RABBITMQ_URL=url)
    wait_until(lambda: "abbit" in daemon.log(), what="a word on RabbitMQ")
    daemon.stop()
    assert "s3cret" not in daemon.log()


@BOTH
def test_an_empty_value_is_the_default(program, tmp_path):
    assert run(program, "--check-config", RABBITMQ_PORT="", LOG_FORMAT="", SERVICE_NAME="").returncode == 0


# ---- start and stop

@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly(program, number, daemons):
    daemon = daemons.start(program, offline(program))
    begin = time.monotonic()
    daemon.stop(number=number)
    assert time.monotonic() - begin < 15
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", daemon.port)) != 0


@pytest.mark.threads
@BOTH
def test_a_signal_right_after_the_start_ends_it_cleanly(program, daemons):
    for _ in range(3):
        daemon = daemons.new(program, offline(program))
        daemon.launch()
        wait_until(lambda: os.path.exists(daemon.database), what="it has begun")
        daemon.stop()


@BOTH
def test_it_starts_with_nobody_around_and_is_healthy(program, daemons):
    daemon = daemons.start(program, offline(program))
    reply = daemon.get("/health")
    assert reply.status_code == 200 and reply.json()["status"] == "healthy"
    path = "/api/soirees" if program == "soirees" else "/api/playlists"
    assert daemon.get(path).json() == []


@pytest.mark.threads
@pytest.mark.slow
def test_both_connect_to_rabbitmq_and_consul_when_they_come(own_broker, consul, lagmaster, daemons):
    consul.kill()
    shared = {**own_broker.root().settings(), **consul.settings()}
    soirees = daemons.start("soirees", shared)
    playlists = daemons.start("playlists", shared, LAGMASTER_URL=lagmaster.url)
    made = book(soirees)
    own_broker.start()
    consul.start()
    wait_until(lambda: soirees.get("/api/soirees/" + made["id"]).json()["playlistId"], 120, "the playlist")
    for name, daemon in (("service-soirees", soirees), ("service-playlists", playlists)):
        wait_until(lambda: [i["Service"]["Port"] for i in consul.passing(name)] == [daemon.port], 60,
                   name + " passes")
    for daemon in (soirees, playlists):
        health = daemon.health()
        assert health["status"] == "healthy", health


@BOTH
def test_a_busy_port_is_one_clear_line(program, tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = run(program, **{**offline(program), "SERVICE_PORT": port, "SERVICE_BIND": "127.0.0.1",
                                 "DATABASE_PATH": str(tmp_path / "x.db")})
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and str(port) in lines[0], result.stderr


@BOTH
@pytest.mark.parametrize("where", ["folder", "file-as-folder", "not-sqlite", "newer"])
def test_a_database_that_cannot_be_opened_is_one_clear_line(program, where, tmp_path):
    path = tmp_path / "x.db"
    if where == "folder":
        path.mkdir()
    elif where == "file-as-folder":
        (tmp_path / "file").write_text("x")
        path = tmp_path / "file" / "x.db"
    elif where == "not-sqlite":
        path.write_bytes(b"this is no database, whatever its name says" * 100)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 9999")
        connection.execute("CREATE TABLE x(y)")
        connection.commit()
        connection.close()
    result = run(program, **{**offline(program), "SERVICE_PORT": free_port(), "DATABASE_PATH": str(path)})
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and str(path) in lines[0], result.stderr


@BOTH
def test_a_second_process_on_the_same_database_is_refused(program, daemons):
    daemon = daemons.start(program, offline(program))
    result = run(program, **{**offline(program), "SERVICE_PORT": free_port(),
                             "DATABASE_PATH": daemon.database})
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and daemon.database in lines[0], result.stderr
    assert daemon.get("/health").status_code == 200


@BOTH
def test_the_folder_of_the_database_is_made_and_the_data_stays(program, daemons, tmp_path):
    daemon = daemons.start(program, offline(program), DATABASE_PATH=str(tmp_path / "a" / "b" / "x.db"))
    if program == "soirees":
        path, document = "/api/soirees", {"clientId": "c", "date": "2025-12-25", "lieu": "P",
                                          "nombreInvites": 1}
    else:
        path, document = "/api/playlists", {"nom": "Une"}
    made = daemon.post(path, document).json()
    daemon.restart()
    assert daemon.get(path).json() == [made]


@BOTH
def test_a_stop_ends_idle_connections_of_clients(program, daemons):
    daemon = daemons.start(program, offline(program))
    daemon.get("/health")
    idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(5)]
    begin = time.monotonic()
    daemon.stop()
    assert time.monotonic() - begin < 15
    for connection in idle:
        connection.close()


def test_an_ipv6_address_can_be_bound(daemons):
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    daemon = daemons.new("soirees", offline("soirees"), SERVICE_BIND="::1")
    daemon.launch()
    wait_until(lambda: requests.get("http://[::1]:%d/health" % daemon.port, timeout=5).ok,
               what="answers on ::1")
    assert run("soirees", "--healthcheck", SERVICE_PORT=daemon.port, SERVICE_BIND="::1").returncode == 0

