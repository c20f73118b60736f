"""Command line, settings, start and stop."""

import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

import pytest
import requests
from harness.booking import book, message
from harness.consul import ROOT
from harness.daemon import binary, environment, run
from harness.wait import free_port, wait_until

SHARED = """SERVICE_PORT SERVICE_BIND SERVICE_NAME SERVICE_ADDRESS DATABASE_PATH RABBITMQ_HOST RABBITMQ_PORT
    RABBITMQ_USER RABBITMQ_PASS RABBITMQ_VHOST RABBITMQ_URL RABBITMQ_CA_FILE RABBITMQ_CERT_FILE
    RABBITMQ_KEY_FILE RABBITMQ_HEARTBEAT RABBITMQ_QUEUE_TYPE CONSUL_HOST CONSUL_PORT CONSUL_TOKEN
    CONSUL_SCHEME CONSUL_CA_FILE CORS_ORIGIN API_TOKENS_FILE METRICS_OPEN TRUSTED_PROXIES SHUTDOWN_GRACE_MS
    SHUTDOWN_DELAY_MS HTTP_THREADS LOG_FORMAT LOG_LEVEL CORE_DUMPS
    CONFIG_FILE""".split()
OWN = {"soirees": ["REQUEST_AGAIN_AFTER_S"],
       "playlists": """SOIREES_URL SOIREES_CA_FILE SOIREES_TOKEN LAGMASTER_URL LAGMASTER_CA_FILE
                       LAGMASTER_TIMEOUT_MS LAGMASTER_MAX_ATTEMPTS
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
    for option in ("--help", "--version", "--check-config", "--print-config", "--healthcheck", "--check",
                   "--backup"):
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
       "SHUTDOWN_DELAY_MS": "-1",
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


@pytest.mark.parametrize("other", [{"SERVICE_PORT": "abc"}, {"LAGMASTER_MAX_ATTEMPTS": "x"}], ids=str)
def test_what_spans_settings_is_named_beside_the_rest(other):
    result = run("playlists", "--check-config", LAGMASTER_TIMEOUT_MS=600000, **other)
    assert result.returncode == 2
    assert "at most 25 minutes" in result.stderr and list(other)[0] + ": '" in result.stderr


def test_a_bad_number_causes_no_other_complaint():
    result = run("soirees", "--check-config", SHUTDOWN_GRACE_MS="10s", SHUTDOWN_DELAY_MS=5000)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and "SHUTDOWN_GRACE_MS" in result.stderr


@BOTH
def test_the_delay_of_a_stop_is_less_than_its_grace(program):
    assert run(program, "--check-config", SHUTDOWN_DELAY_MS=0, SHUTDOWN_GRACE_MS=0).returncode == 0
    assert run(program, "--check-config", SHUTDOWN_DELAY_MS=9999).returncode == 0
    result = run(program, "--check-config", SHUTDOWN_DELAY_MS=10000)
    assert result.returncode == 2 and "SHUTDOWN_DELAY_MS: must be less than SHUTDOWN_GRACE_MS" in result.stderr


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


@pytest.mark.parametrize("line", ['="a\\"b\\\\c\\x"', "='a\\b' \"c\"d ", "= a\\ b\\\\ \t", "=a\\\n b", "=\"a\\\nb\" ", "=x # y\r",
                                  "=\n;CORS_ORIGIN=x\\\n#y\nCORS_ORIGIN\t=\tit's\\", "='", "=a\nexport B=c"])
def test_a_line_means_the_same_to_daemons_and_scripts(line, tmp_path):
    file = tmp_path / "settings.env"
    file.write_bytes(b"CORS_ORIGIN" + line.encode())
    script = subprocess.run([sys.executable, "-c", "import settings; print(settings.setting('CORS_ORIGIN', '*'))"],
                            env={"PYTHONPATH": os.path.join(ROOT, "scripts", "lib"), "CONFIG_FILE": str(file),
                                 "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=60)
    daemon = run("soirees", "--print-config", CONFIG_FILE=str(file))
    if line in ("='", "=a\nexport B=c"):
        assert daemon.returncode == 2 and "CONFIG_FILE" in daemon.stderr and "SettingsError" in script.stderr
    else:
        assert "\nCORS_ORIGIN=%s" % script.stdout in daemon.stdout, script.stderr


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
def test_threads_have_names_that_top_shows(program, daemons, vhost):
    daemon = daemons.start(program, vhost.settings())
    tasks = "/proc/%d/task" % daemon.pid

    def names():
        return {open("%s/%s/comm" % (tasks, task)).read().strip() for task in os.listdir(tasks)}
    assert open("/proc/%d/comm" % daemon.pid).read().strip() == program
    wait_until(lambda: {"db-writer", "amqp", "http-listener", "http-client"} <= names(), 30, "the names")


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
@pytest.mark.parametrize("where", ["folder", "file-as-folder", "not-sqlite", "newer", "the other's"])
def test_a_database_that_cannot_be_opened_is_one_clear_line(program, where, tmp_path, daemons):
    path = tmp_path / "x.db"
    if where == "folder":
        path.mkdir()
    elif where == "file-as-folder":
        (tmp_path / "file").write_text("x")
        path = tmp_path / "file" / "x.db"
    elif where == "not-sqlite":
        path.write_bytes(b"this is no database, whatever its name says" * 100)
    elif where == "the other's":
        other = {"soirees": "playlists", "playlists": "soirees"}[program]
        daemons.start(other, DATABASE_PATH=str(path), RABBITMQ_PORT=free_port()).stop()
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



# ---- secrets

def shown_settings(program, **settings):
    """What --print-config says, as a dict."""
    result = run(program, "--print-config", **settings)
    assert (result.returncode, result.stderr) == (0, "")
    assert "s3cret" not in result.stdout
    return dict(text.split("=", 1) for text in result.stdout.splitlines())


@BOTH
def test_print_config_shows_what_counts_and_no_secret(program, tmp_path):
    secret = tmp_path / "pass"
    secret.write_text("s3cret-in-a-file\n")
    file = tmp_path / "settings.env"
    file.write_text("SERVICE_NAME=du-fichier\nLOG_LEVEL=warn\nCONSUL_TOKEN=s3cret\n")
    shown = shown_settings(program, CONFIG_FILE=file, LOG_LEVEL="error", CONSUL_HOST="",
                           RABBITMQ_PASS_FILE=secret, RABBITMQ_URL="amqps://u:s3cret@broker/",
                           DATABASE_PATH=tmp_path / "x.db")
    assert set(shown) >= set(SHARED + OWN[program]) - {"CONFIG_FILE"}
    assert shown["SERVICE_NAME"] == "du-fichier" and shown["LOG_LEVEL"] == "error"
    assert shown["CONSUL_HOST"] == "" and shown["SERVICE_PORT"] == DEFAULTS[program][0]
    assert [shown[name] for name in ("RABBITMQ_PASS", "RABBITMQ_URL", "CONSUL_TOKEN", "DATABASE_URL")] == [
        "***", "***", "***", ""]
    assert not (tmp_path / "x.db").exists()


@BOTH
def test_every_secret_may_be_a_file(program, tmp_path):
    """All that --help shows as such: the file counts, and what it holds is not shown."""
    shown = run(program, "--help").stdout
    names = set(re.findall(r"^ +or (\w+)_FILE, a file that holds it$", shown, re.MULTILINE)) - set(
        re.findall(r"^  (\w+) +not in this version", shown, re.MULTILINE))
    urls = {"RABBITMQ_URL": "amqp://u:s3cret@broker/\n", "DATABASE_URL": "postgresql://u:s3cret@host/base\n"}
    assert names >= {"RABBITMQ_PASS", "RABBITMQ_URL", "CONSUL_TOKEN"}
    assert ("SOIREES_TOKEN" in names) is (program == "playlists")
    secret = tmp_path / "secret"
    for name in names:
        secret.write_text(urls.get(name, "s3cret\n"))
        assert shown_settings(program, **{name + "_FILE": secret})[name] == "***"
        refused = run(program, "--check-config", **{name + "_FILE": tmp_path / "nope"})
        assert refused.returncode == 2 and name + "_FILE" in refused.stderr


def test_print_config_hides_the_user_and_the_query_of_a_url():
    shown = shown_settings("playlists", LAGMASTER_URL="https://moi:s3cret@api.example/x?a=b@c",
                           SOIREES_URL="http://s3cret@soirees/", SOIREES_TOKEN="s3cret")
    assert shown["LAGMASTER_URL"] == "https://***@api.example/x?***"
    assert shown["SOIREES_URL"] == "http://***@soirees/"
    assert shown["SOIREES_TOKEN"] == "***"


@BOTH
def test_print_config_of_bad_settings_names_them(program):
    result = run(program, "--print-config", SERVICE_PORT="0")
    assert result.returncode == 2 and "SERVICE_PORT" in result.stderr and not result.stdout


@BOTH
def test_no_secret_is_in_the_log_or_the_arguments(program, daemons):
    daemon = daemons.start(program, offline(program), LOG_LEVEL="debug", LOG_FORMAT="json")
    wait_until(lambda: daemon.log_has("RabbitMQ"), what="a failed login")
    with open("/proc/%d/cmdline" % daemon.pid, "rb") as file:
        assert b"s3cret" not in file.read()
    daemon.stop()
    assert "s3cret" not in daemon.log()


def test_what_an_address_holds_is_in_no_line(worker, vhost):
    """Neither the user of a URL nor the token, whatever fails on the way to it."""
    playlists = worker("http://moi:s3cret@127.0.0.1:%d" % free_port(), SOIREES_TOKEN="s3cret",
                       LAGMASTER_URL="http://moi:s3cret@127.0.0.1:%d/x" % free_port(), LAGMASTER_MAX_ATTEMPTS=1,
                       LOG_LEVEL="debug", LOG_FORMAT="json")
    vhost.publish(message("s-1"))
    wait_until(lambda: playlists.log_has('"link.pending"') and playlists.log_has('"lagmaster.failed"'), 60,
               "both failures")
    assert "s3cret" not in playlists.log()


@BOTH
@pytest.mark.parametrize("name", ["RABBITMQ_CA_FILE", "CONSUL_CA_FILE"])
def test_a_file_that_cannot_be_read_is_named(program, name, tmp_path):
    for path in (tmp_path / "nope.pem", tmp_path):
        result = run(program, "--check-config", **{name: path})
        assert result.returncode == 2 and "%s: %s" % (name, path) in result.stderr


@BOTH
@pytest.mark.parametrize("name", ["RABBITMQ_CERT_FILE", "RABBITMQ_KEY_FILE"])
def test_a_certificate_needs_its_key(program, name, tmp_path):
    file = tmp_path / "x.pem"
    file.write_text("x")
    result = run(program, "--check-config", **{name: file})
    assert result.returncode == 2 and "RABBITMQ_CERT_FILE, RABBITMQ_KEY_FILE" in result.stderr


def core_limit(daemon):
    with open("/proc/%d/limits" % daemon.pid) as file:
        return re.search(r"Max core file size +(\S+)", file.read()).group(1)


@pytest.fixture
def core_files_allowed():
    """The limit that the daemons inherit, as high as it goes."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield "unlimited" if before[1] == resource.RLIM_INFINITY else str(before[1])
    resource.setrlimit(resource.RLIMIT_CORE, before)


@BOTH
def test_a_crash_leaves_no_core_file_unless_it_is_asked_for(program, daemons, core_files_allowed):
    """Memory holds passwords."""
    sanitizer = {"ASAN_OPTIONS": environment({})["ASAN_OPTIONS"] + ":disable_coredump=0"}
    closed = daemons.start(program, offline(program), CORE_DUMPS="no", **sanitizer)
    opened = daemons.start(program, offline(program), CORE_DUMPS="yes", **sanitizer)
    assert (core_limit(closed), core_limit(opened)) == ("0", core_files_allowed)


@pytest.fixture
def as_user(monkeypatch):
    """A command line in front of another, and a folder, for a user who is not the superuser; the daemons are
    that user's, too."""
    wrapper, folder = [], tempfile.mkdtemp()
    if os.geteuid() == 0:
        wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        os.chown(folder, 65534, 65534)
        monkeypatch.setenv("DAEMON_WRAPPER", " ".join(wrapper))
        if subprocess.run([*wrapper, "test", "-x", binary("soirees")], check=False).returncode:
            pytest.skip("nobody may not run %s" % binary("soirees"))
    yield wrapper, folder
    shutil.rmtree(folder)


@BOTH
def test_another_process_of_the_same_user_reads_no_secret(program, daemons, as_user):
    wrapper, folder = as_user
    sanitizer = {"ASAN_OPTIONS": environment({})["ASAN_OPTIONS"] + ":detect_leaks=0"}  # LeakSanitizer is one
    for dumps, expected in (("no", False), ("yes", True)):
        path = os.path.join(folder, dumps + ".db")
        daemon = daemons.start(program, offline(program), CORE_DUMPS=dumps, DATABASE_PATH=path, **sanitizer)
        for name in ("environ", "maps"):
            reader = subprocess.run([*wrapper, "head", "-c", "0", "/proc/%d/%s" % (daemon.pid, name)],
                                    capture_output=True, check=False)
            assert (reader.returncode == 0) is expected, reader.stderr
        daemon.stop()
