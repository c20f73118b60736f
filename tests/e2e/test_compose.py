"""The services in containers, as docker-compose.yml brings them up, seen from outside.

Each class has a stack of its own, torn down with everything that it made; one at a time, for the name
rabbitmq-server is fixed. Skipped where no Docker engine answers.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time

import pytest
import requests
import yaml
from harness import tls

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = "soirees-compose-test"
SERVICES = ("rabbitmq", "consul", "service-soirees", "service-playlists")
LOGIN = ("admin", "admin123")
QUEUE = "playlist_generation_queue"
UP_TIMEOUT_S = 900  # the first build fetches packages
EXAMPLE = ('{"clientId":"client123","date":"2025-12-25","lieu":"Paris","nombreInvites":50,"budget":1000,'
           '"styleMusical":"disco"}')

pytestmark = pytest.mark.slow


def docker(*args, check=True, timeout_s=120):
    """Output of a docker command, stderr first."""
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        pytest.fail(f"docker {' '.join(args)}: {done.stdout}{done.stderr}")
    return done.stderr + done.stdout


def why_not(command):
    """Why this command cannot be tried here; None where it can."""
    if not shutil.which("docker"):
        return "no docker here"
    if subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode:
        return "no Docker engine answers"
    if not shutil.which(command[0]):
        return f"no {command[0]} here"
    if subprocess.run([*command, "version"], capture_output=True, timeout=60, check=False).returncode:
        return f"no {' '.join(command)} here"
    return None


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def curl(*args):
    done = subprocess.run(["curl", "-sS", "--fail", "--max-time", "20", *args],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_missing(text, expected):
    """The first of the expected lines that does not come after the ones before it; None when all do."""
    lines = iter(text.splitlines())
    return next((line for line in expected if line not in lines), None)


class Stack:
    """What docker-compose.yml describes, under a project name and on ports of its own."""

    def __init__(self, command, *options):
        self.command = [*command, *options, "-p", PROJECT]
        names = ("SOIREES_PORT", "PLAYLISTS_PORT", "RABBITMQ_PORT", "RABBITMQ_UI_PORT", "CONSUL_PORT",
                 "PROMETHEUS_PORT", "SOIREES_TLS_PORT", "PLAYLISTS_TLS_PORT", "PLAIN_PORT")
        ports = dict(zip(names, free_ports(len(names))))
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
        for name in ("LAGMASTER_URL", "TRUSTED_PROXIES", "TLS_METRICS"):
            self.env.pop(name, None)
        self.env.update({name: str(port) for name, port in ports.items()})
        # where the real API is out of reach, the default playlist is not to take half a minute
        self.env.update(LAGMASTER_TIMEOUT_MS="5000", LAGMASTER_RETRY_DELAY_MS="1000", LOG_FORMAT="pretty",
                        LOG_LEVEL="info", PLAYLIST_WORKERS="1", UI_BIND="127.0.0.1",
                        RABBITMQ_USER=LOGIN[0], RABBITMQ_PASS=LOGIN[1])
        self.soirees = f"http://localhost:{ports['SOIREES_PORT']}"
        self.playlists = f"http://localhost:{ports['PLAYLISTS_PORT']}"
        self.rabbitmq_ui = f"http://127.0.0.1:{ports['RABBITMQ_UI_PORT']}"
        self.consul = f"http://127.0.0.1:{ports['CONSUL_PORT']}"
        self.prometheus = f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}"
        self.soirees_tls = f"https://localhost:{ports['SOIREES_TLS_PORT']}"
        self.playlists_tls = f"https://localhost:{ports['PLAYLISTS_TLS_PORT']}"
        self.plain = f"http://localhost:{ports['PLAIN_PORT']}"

    def compose(self, *args, check=True):
        done = subprocess.run([*self.command, *args], cwd=ROOT, env=self.env, text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=UP_TIMEOUT_S)
        if check and done.returncode:
            output = done.stdout[-6000:]
            pytest.fail(f"{' '.join(args)} failed ({done.returncode}):\n{output}\n{self.logs()}")
        return done.stdout

    def up(self, *more_services):
        """Up, and healthy."""
        self.compose("up", "--build", "-d")
        for service in SERVICES + more_services:
            self.wait_until(lambda name=service: self.health(name) == "healthy", f"{service} is healthy", 120)

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)

    def logs(self):
        return self.compose("logs", "--no-color", "--tail", "60", check=False)[-12000:]

    def container(self, service):
        found = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}",
                       "--filter", f"label=com.docker.compose.service={service}").split()
        return found[0] if found else pytest.fail(f"no container of {service}\n{self.logs()}")

    def inspect(self, service):
        return json.loads(docker("inspect", self.container(service)))[0]

    def health(self, service):
        return self.inspect(service)["State"].get("Health", {}).get("Status")

    def wait_until(self, condition, what, timeout_s=60):
        """The condition's first true value."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                value = condition()
            except requests.RequestException:
                value = None
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s} s: {what}\n{self.logs()}")
            time.sleep(0.2)

    def book(self):
        """The specification's first curl command; the soirée."""
        return json.loads(curl("-X", "POST", f"{self.soirees}/api/soirees",
                               "-H", "Content-Type: application/json", "-d", EXAMPLE))

    def linked_playlist(self, soiree):
        """The specification's second curl command, once the soirée is linked; the playlist it is linked to."""
        def linked():
            return requests.get(f"{self.soirees}/api/soirees/{soiree['id']}", timeout=10).json()["playlistId"]
        playlist_id = self.wait_until(linked, "the soirée has its playlist")
        playlists = json.loads(curl(f"{self.playlists}/api/playlists"))
        assert isinstance(playlists, list)
        return next(one for one in playlists if one["id"] == playlist_id)


@pytest.fixture(scope="module", autouse=True)
def engine():
    reason = why_not(["docker", "compose"])
    if reason:
        pytest.skip(reason)
    # tests that run in parallel, or another checkout's: one after the other
    lock = open(os.path.join(tempfile.gettempdir(), PROJECT + ".lock"), "w", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    for image in set(docker("images", "-q", "--filter", f"reference={PROJECT}*").split()):
        docker("rmi", "--force", image, check=False)
    lock.close()


@contextlib.contextmanager
def stack_of(command, *options):
    """A stack, not up yet, and taken down whatever happens."""
    reason = why_not(command)
    if reason:
        pytest.skip(reason)
    stack = Stack(command, *options)
    stack.down()  # what an interrupted run left
    if docker("ps", "-aq", "--filter", "name=^/?rabbitmq-server$").strip():
        pytest.fail("there can be only one container named rabbitmq-server, and it exists: remove it first")
    try:
        yield stack
    finally:
        stack.down()


class TestComposeV2:
    """`docker compose up --build`."""

    @pytest.fixture(scope="class")
    def events(self):
        """What Docker tells about our containers' starts and health, from before the first one on."""
        listener = subprocess.Popen(
            ["docker", "events", "--filter", "type=container", "--filter", "event=start", "--filter",
             "event=health_status", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format",
             '{{index .Actor.Attributes "com.docker.compose.service"}} {{.Action}}'],
            stdout=subprocess.PIPE, text=True)
        yield listener
        if listener.poll() is None:
            listener.kill()
            listener.communicate()

    @pytest.fixture(scope="class")
    def stack(self, events):
        with stack_of(["docker", "compose"]) as stack:
            stack.up()
            yield stack

    @pytest.fixture(scope="class")
    def booked(self, stack):
        """The example soirée and its playlist."""
        soiree = stack.book()
        return soiree, stack.linked_playlist(soiree)

    def test_everything_gets_healthy_in_order(self, stack, events):
        events.terminate()
        seen = events.communicate()[0].splitlines()
        for earlier, later in (("rabbitmq", "service-soirees"), ("consul", "service-soirees"),
                               ("rabbitmq", "service-playlists"), ("consul", "service-playlists"),
                               ("service-soirees", "service-playlists")):
            assert seen.index(f"{earlier} health_status: healthy") < seen.index(f"{later} start"), seen
        assert stack.inspect("rabbitmq")["Name"] == "/rabbitmq-server"

    def test_the_two_curl_commands_work_from_outside(self, booked):
        soiree, playlist = booked
        assert soiree["clientId"] == "client123" and soiree["styleMusical"] == "disco"
        assert soiree["playlistId"] is None
        assert playlist["soireeId"] == soiree["id"] and playlist["tracks"]

    def test_the_rabbitmq_ui_shows_the_queue_and_its_consumer(self, stack, booked):
        def queue():
            answer = requests.get(f"{stack.rabbitmq_ui}/api/queues/%2F/{QUEUE}", auth=LOGIN, timeout=10)
            return answer.json() if answer.ok and answer.json().get("consumers") else None
        # its figures are some seconds old
        found = stack.wait_until(queue, "the management API shows the queue and its consumer", 30)
        assert found["durable"] is True and found["consumers"] == 1
        assert not [name for name in found["arguments"] if name != "x-queue-type"]
        assert "RabbitMQ" in requests.get(stack.rabbitmq_ui, timeout=10).text

    def test_the_consul_ui_shows_both_services_passing(self, stack):
        for service, port in (("service-soirees", 3003), ("service-playlists", 3002)):
            url = f"{stack.consul}/v1/health/service/{service}?passing"
            found = stack.wait_until(lambda url=url: requests.get(url, timeout=10).json(),
                                     f"{service} is passing")
            networks = stack.inspect(service)["NetworkSettings"]["Networks"].values()
            assert found[0]["Service"]["Address"] in [network["IPAddress"] for network in networks]
            assert found[0]["Service"]["Port"] == port
        assert requests.get(f"{stack.consul}/ui/", timeout=10).ok

    def test_both_uis_listen_on_the_loopback_interface_alone(self, stack):
        for service, port in (("rabbitmq", "15672/tcp"), ("consul", "8500/tcp")):
            bindings = stack.inspect(service)["NetworkSettings"]["Ports"][port]
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]

    def test_docker_logs_show_the_lines_of_the_specification(self, stack, booked):
        soiree, playlist = booked
        expected = [
            "🚀 Démarrage du worker de génération de playlists...",
            "📡 Connexion à RabbitMQ: amqp://admin:***@rabbitmq:5672",
            f"✅ Worker connecté et en écoute sur la queue: {QUEUE}",
            "⏳ En attente de messages...",
            f"📩 Message reçu pour soirée {soiree['id']}",
            "   Style: disco",
            "   Client: client123",
            "🎵 Appel API externe (tentative 1/3) pour style: disco",
            f"✅ Playlist {playlist['id']} créée et sauvegardée",
            f"🔄 Mise à jour de la soirée {soiree['id']} avec playlist {playlist['id']}",
            f"✅ Soirée {soiree['id']} mise à jour avec succès",
            "✅ Message traité avec succès",
        ]
        container = stack.container("service-playlists")
        stack.wait_until(lambda: expected[-1] in docker("logs", container), "the message has been handled")
        logs = docker("logs", container)
        assert first_missing(logs, expected) is None, logs

    @pytest.mark.parametrize("service", ["service-soirees", "service-playlists"])
    def test_the_image_has_no_root_and_no_tools(self, stack, service):
        container = stack.container(service)
        assert docker("exec", container, "id", "-u").strip() == "10001"
        # sh is there, and shows that the search finds something
        names = "sh gcc cc c99 clang cpp as ld make cmake ninja curl wget python3 git"
        found = docker("exec", container, "sh", "-c", f"for name in {names}; do command -v $name; done; true")
        assert [path.rsplit("/", 1)[-1] for path in found.split()] == ["sh"]
        assert docker("exec", container, "stat", "-c", "%u %a", "/data").strip() == "10001 750"
        refused = docker("exec", container, "sh", "-c", "touch /usr/local/bin/x 2>/dev/null || echo refused")
        assert refused.strip() == "refused"

    def test_a_backup_is_made_and_copied_as_the_readme_says(self, stack, booked, tmp_path):
        soiree, _playlist = booked
        stack.compose("exec", "-T", "service-soirees", "soirees", "--backup", "/data/backup.db")
        stack.compose("cp", "service-soirees:/data/backup.db", str(tmp_path / "backup.db"))
        connection = sqlite3.connect(tmp_path / "backup.db")
        assert soiree["id"] in [row[0] for row in connection.execute("SELECT id FROM soirees")]
        connection.close()
        checked = stack.compose("run", "--rm", "--no-deps", "-T", "-e", "DATABASE_PATH=/data/backup.db",
                                "service-soirees", "soirees", "--check")
        assert "/data/backup.db: OK" in checked

    def test_data_survives_down_and_up(self, stack, booked):
        soiree, playlist = booked
        before = stack.container("service-soirees")
        stack.compose("down")
        stack.up()
        assert stack.container("service-soirees") != before
        kept = requests.get(f"{stack.soirees}/api/soirees/{soiree['id']}", timeout=10).json()
        assert kept["playlistId"] == playlist["id"] and kept["createdAt"] == soiree["createdAt"]
        answer = requests.get(f"{stack.playlists}/api/playlists/{playlist['id']}", timeout=10)
        assert answer.json() == playlist

    @pytest.mark.parametrize("service", ["service-playlists", "service-soirees"])
    def test_a_stop_is_clean_and_leaves_consul(self, stack, service):
        url = f"{stack.consul}/v1/health/service/{service}"
        stack.wait_until(lambda: requests.get(url, timeout=10).json(), f"{service} is registered")
        began = time.monotonic()
        stack.compose("stop", service)
        took_s = time.monotonic() - began
        state = stack.inspect(service)["State"]
        assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False), stack.logs()
        assert took_s < 15
        assert requests.get(url, timeout=10).json() == []


# Images of docker-compose.yml that not every machine can fetch, made of Debian's packages: entry point, user
# and paths are the published ones'. (Dockerfile, programs of this machine that it copies)
STAND_INS = {
    "haproxy": ("""\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
""", ()),
    "prometheus": ("""\
FROM debian:bookworm-slim
COPY prometheus promtool /bin/
RUN install -d -o nobody -g nogroup /prometheus
USER nobody
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
""", ("prometheus", "promtool")),
}


@contextlib.contextmanager
def image_of(service, folder):
    """The image that docker-compose.yml names is here: it was, could be fetched, or for this while a stand-in
    has its name."""
    with open(ROOT / "docker-compose.yml", encoding="utf-8") as file:
        name = yaml.safe_load(file)["services"][service]["image"]
    if docker("images", "-q", name).strip() or "rror" not in docker("pull", "-q", name, check=False):
        yield
        return
    dockerfile, programs = STAND_INS[service]
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"no {name} to be had, and no {program} here to stand in for it")
        shutil.copy(shutil.which(program), folder)
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    docker("build", "-q", "-t", name, str(folder), timeout_s=UP_TIMEOUT_S)
    try:
        yield
    finally:
        docker("rmi", "--force", name, check=False)


class TestProfiles:
    """`docker compose --env-file offline.env` with the profiles `offline`, `tls` and `monitoring`: with the
    imitation of the external API, HAProxy in front, Prometheus beside."""

    @pytest.fixture(scope="class")
    def authority(self, tmp_path_factory):
        if tls.missing():
            pytest.skip(tls.missing())
        return tls.Authority(tmp_path_factory.mktemp("ca"))

    @pytest.fixture(scope="class")
    def stack(self, authority, tmp_path_factory):
        profiles = [word for name in ("offline", "tls", "monitoring") for word in ("--profile", name)]
        with image_of("prometheus", tmp_path_factory.mktemp("prometheus")), \
                image_of("haproxy", tmp_path_factory.mktemp("haproxy")), \
                stack_of(["docker", "compose"], "--env-file", "offline.env", *profiles) as stack:
            stack.env.update(TLS_CERT=authority.issue("DNS:localhost").both, LOG_FORMAT="json",
                             TRUSTED_PROXIES="172.16.0.0/12,192.168.0.0/16")
            stack.up("lagmaster", "haproxy", "prometheus")
            yield stack

    @pytest.fixture(scope="class")
    def booked(self, stack, authority):
        """A soirée booked by HTTPS, by somebody who says to be somebody else; and its playlist."""
        soiree = json.loads(curl(
            "--cacert", authority.cert, f"{stack.soirees_tls}/api/soirees", "-d", EXAMPLE,
            "-H", "Content-Type: application/json", "-H", "X-Forwarded-For: 198.51.100.7"))
        return soiree, stack.linked_playlist(soiree)

    def test_the_imitation_makes_the_playlist_at_the_first_attempt(self, stack, booked):
        _soiree, playlist = booked
        assert playlist["nom"] == "Metaverse Collapse Disco" and playlist["origine"] == "lagmaster-pro"
        assert playlist["tracks"][0] == "Track 0 - Electric Pickles" and len(playlist["tracks"]) == 3
        logs = docker("logs", stack.container("service-playlists"))
        assert "Playlist générée avec succès: Metaverse Collapse Disco" in logs
        assert "tentative 2/3" not in logs

    def test_soirees_lists_and_playlists_come_by_https(self, stack, booked, authority):
        soiree, playlist = booked
        trusting = ("--cacert", authority.cert)
        path = f"/api/playlists/{playlist['id']}"
        assert json.loads(curl(*trusting, f"{stack.soirees_tls}/api/soirees"))[0]["id"] == soiree["id"]
        assert json.loads(curl(*trusting, stack.playlists_tls + path)) == playlist
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{stack.soirees_tls}/health", timeout=20)

    def test_the_log_names_the_client_as_haproxy_saw_it(self, stack, booked):
        network, = stack.inspect("haproxy")["NetworkSettings"]["Networks"].values()
        logs = docker("logs", stack.container("service-soirees"))
        line, = [json.loads(line) for line in logs.splitlines()
                 if '"http.request"' in line and '"POST"' in line]
        assert line["client"] == network["Gateway"] != network["IPAddress"], line
        assert "198.51.100.7" not in logs

    def test_plain_http_leads_to_https_and_takes_nothing(self, stack, booked, authority):
        soiree, playlist = booked
        following = ("-L", "--cacert", authority.cert)
        for path, found in ((f"/api/soirees/{soiree['id']}", {**soiree, "playlistId": playlist["id"]}),
                            (f"/api/playlists/{playlist['id']}?a=b%20c", playlist)):
            reply = requests.get(stack.plain + path, allow_redirects=False, timeout=20)
            assert reply.status_code == 308 and reply.headers["Location"].endswith(path)
            answer = json.loads(curl(*following, stack.plain + path))
            assert found.items() <= answer.items()
        refused = requests.post(f"{stack.plain}/api/soirees", json=json.loads(EXAMPLE), timeout=20)
        assert refused.status_code == 403
        assert len(requests.get(f"{stack.soirees}/api/soirees", timeout=20).json()) == 1

    def test_prometheus_sees_everything_and_has_the_alerts(self, stack, booked):
        def api(path, **params):
            return requests.get(f"{stack.prometheus}/api/v1/{path}", params=params, timeout=20).json()["data"]

        def all_up():
            targets = api("targets")["activeTargets"]
            assert {target["labels"]["job"] for target in targets} == {
                "soirees", "playlists", "rabbitmq", "rabbitmq-queues"}
            return all(target["health"] == "up" for target in targets)
        stack.wait_until(all_up, "all targets are up")
        with open(ROOT / "ops" / "alerts.yml", encoding="utf-8") as file:
            written = {rule["alert"] for group in yaml.safe_load(file)["groups"] for rule in group["rules"]}

        def evaluated():
            rules = [rule for group in api("rules")["groups"] for rule in group["rules"]]
            return all(rule["health"] == "ok" for rule in rules) and {rule["name"] for rule in rules}
        assert stack.wait_until(evaluated, "all rules are evaluated") == written
        confirmed = 'soirees_publishes_total{job="soirees",outcome="confirmed"} == 1'
        stack.wait_until(lambda: api("query", query=confirmed)["result"], "the booking is counted")
        # NoConsumer waits to be one while the worker starts
        stack.wait_until(lambda: not api("alerts")["alerts"], "nothing is wrong")

    def test_metrics_are_not_for_the_outside_unless_wanted(self, stack, booked, authority):
        def status(base, path):
            reply = curl("--cacert", authority.cert, "--no-fail", "--path-as-is", "-o", "/dev/null", "-w",
                         "%{http_code}", base + path)
            return int(reply)
        outside = (stack.soirees_tls, stack.playlists_tls)
        for base in outside:
            for path in ("/metrics", "/metrics?x", "/%6Detrics", "/%6d%65trics", "/./metrics", "//metrics"):
                assert status(base, path) == 404, path
            assert status(base, "/health") == 200
        assert status(stack.soirees, "/metrics") == status(stack.soirees, "/%6Detrics") == 200
        stack.env["TLS_METRICS"] = "yes"
        stack.compose("up", "-d", "--no-deps", "haproxy")
        stack.wait_until(lambda: stack.health("haproxy") == "healthy", "HAProxy is healthy again")
        for base in outside:
            stack.wait_until(lambda base=base: status(base, "/metrics") == 200, "/metrics by HTTPS")


class TestCompose129:
    """`docker-compose up --build`, version 1.29, as Debian 12 has it."""

    @pytest.fixture(scope="class")
    def stack(self):
        with stack_of(["docker-compose"], "--env-file", "offline.env", "--profile", "offline") as stack:
            stack.up("lagmaster")
            yield stack

    def test_the_two_curl_commands_work_from_outside(self, stack):
        assert stack.linked_playlist(stack.book())["nom"] == "Metaverse Collapse Disco"
        stack.compose("--profile", "tls", "--profile", "monitoring", "config", "-q")
        for service in ("service-soirees", "service-playlists"):
            url = f"{stack.consul}/v1/health/service/{service}?passing"
            stack.wait_until(lambda url=url: requests.get(url, timeout=10).json(), f"{service} is passing")
