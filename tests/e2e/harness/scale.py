"""docker-compose.scale.yml's stack from outside: its containers, and clients that book all the time."""

import json
import os
import pathlib
import random
import re
import subprocess
import threading
import time
import uuid

import requests

from .booking import BOOKING
from .wait import free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILE = "docker-compose.scale.yml"
PROJECT = "soirees-scale-test"
RABBITMQ = ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]
SOIREES = ["service-soirees-1", "service-soirees-2"]
PLAYLISTS = ["service-playlists-1", "service-playlists-2"]
INSTANCES = SOIREES + PLAYLISTS
OTHERS = ["postgres", "consul", "haproxy", "lagmaster"]
LOGIN = ("admin", "admin123")
QUEUE = "playlist_generation_queue"
IMAGES = ["rabbitmq:4-management", "hashicorp/consul:1.20", "postgres:17", "haproxy:3.0"]
COMMAND_TIMEOUT_S = 900  # the first build fetches packages
AGAIN = (502, 503, 504)  # what a client repeats
LOG_TAIL = 40000


class Failed(Exception):
    """A docker command failed; no AssertionError, for waiting does not help."""


def docker(*args, timeout=120):
    """Output of a docker command."""
    done = subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise Failed("docker %s: %s%s" % (" ".join(args), done.stdout, done.stderr))
    return done.stdout


def _answers(*command, timeout=60):
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def missing():
    """Why the stack cannot be brought up here, or None."""
    if not _answers("docker", "info"):
        return "no Docker engine answers"
    if not compose_command():
        return "neither `docker compose` nor docker-compose here"
    for image in IMAGES:
        if not _answers("docker", "image", "inspect", image) and \
                not _answers("docker", "pull", image, timeout=600):
            return "no image %s here, and none to be fetched" % image
    return None


def compose_command():
    for command in (["docker", "compose"], ["docker-compose"]):
        if _answers(*command, "version"):
            return command
    return None


def _free_net():
    """The first three numbers of a network that Docker has not given away."""
    taken = docker("network", "inspect", *docker("network", "ls", "-q").split())
    return next(net for net in ("172.31.%d" % n for n in range(250, 210, -1)) if net + "." not in taken)


def _metric(text, name, **labels):
    """The sum of a metric's values with these labels."""
    wanted = ['%s="%s"' % pair for pair in labels.items()]
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if re.match(re.escape(name) + r"[{ ]", line) and all(one in line for one in wanted))


class ScaleStack:
    def __init__(self):
        self.command = [*compose_command(), "-p", PROJECT, "-f", FILE, "--env-file", "offline.env",
                        "--profile", "offline"]
        ports = {name: free_port() for name in ("SOIREES_PORT", "PLAYLISTS_PORT", "PROXY_STATUS_PORT",
                                                "RABBITMQ_PORT", "RABBITMQ_UI_PORT", "CONSUL_PORT",
                                                "POSTGRES_PORT")}
        names = ("LAGMASTER", "SHUTDOWN", "COMPOSE_", "RABBITMQ_", "POSTGRES_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        self.env.update({name: str(port) for name, port in ports.items()})
        self.env.update(SCALE_NET=_free_net(), UI_BIND="127.0.0.1", PLAYLIST_WORKERS="100", LOG_LEVEL="info",
                        LOG_FORMAT="pretty", LAGMASTER_TIMEOUT_MS="20000", LAGMASTER_RETRY_DELAY_MS="500")
        self.ports = ports
        self.soirees = "http://127.0.0.1:%d" % ports["SOIREES_PORT"]
        self.playlists = "http://127.0.0.1:%d" % ports["PLAYLISTS_PORT"]
        self.status = "http://127.0.0.1:%d" % ports["PROXY_STATUS_PORT"]
        self.database_url = "postgresql://soirees:soirees@127.0.0.1:%d/soirees" % ports["POSTGRES_PORT"]

    def compose(self, *args, check=True):
        done = subprocess.run([*self.command, *args], cwd=ROOT, env=self.env, text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=COMMAND_TIMEOUT_S)
        if check and done.returncode:
            raise Failed("compose %s: %s" % (" ".join(args), done.stdout[-6000:]))
        return done.stdout

    def up(self):
        self.compose("up", "--build", "-d")
        for service in RABBITMQ + ["postgres", "consul", "lagmaster"]:
            self.wait_healthy(service)
        self.wait_complete()

    def down(self):
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", check=False)

    # ---- containers

    def container(self, service):
        found = docker("ps", "-aq", "--filter", "label=com.docker.compose.project=" + PROJECT, "--filter",
                       "label=com.docker.compose.service=" + service, "--filter",
                       "label=com.docker.compose.oneoff=False").split()
        if not found:
            raise Failed("no container of " + service)
        return found[0]

    def state(self, service):
        return json.loads(docker("inspect", self.container(service)))[0]["State"]

    def address(self, container):
        """On the containers' network, which this machine reaches."""
        networks = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def logs(self):
        parts = ((OTHERS + RABBITMQ, 20), (INSTANCES, 40))
        return "".join(self.compose("logs", "--no-color", "--tail", str(lines), *services, check=False)
                       for services, lines in parts)[-LOG_TAIL:]

    def kill(self, service):
        docker("kill", self.container(service))

    def start(self, service):
        docker("start", self.container(service))

    def wait_healthy(self, service):
        wait_until(lambda: self.state(service).get("Health", {}).get("Status") == "healthy", 150,
                   service + " is healthy", interval=0.5)

    def wait_complete(self, timeout=240):
        """Until HAProxy sends requests to two instances of each service."""
        wait_until(lambda: requests.get(self.status + "/complete", timeout=5).ok, timeout,
                   "all instances get requests", interval=0.2)

    # ---- what the services and the broker say

    def metrics(self, services, name, **labels):
        """The sum of one metric over the instances, each asked by itself."""
        def text(service):
            port = 3003 if service in SOIREES else 3002
            url = "http://%s:%d/metrics" % (self.address(self.container(service)), port)
            return requests.get(url, timeout=10).text
        return sum(_metric(text(service), name, **labels) for service in services)

    def lagmaster(self, method, path, **body):
        url = "http://%s:8080/control%s" % (self.address(self.container("lagmaster")), path)
        reply = requests.request(method, url, json=body if method == "PUT" else None, timeout=10)
        reply.raise_for_status()
        return reply.json() if reply.text else None

    def queue(self, node="rabbitmq-1", name=QUEUE):
        """What the management API of one node knows of a queue."""
        url = "http://%s:15672/api/queues/%%2F/%s" % (self.address(self.container(node)), name)
        reply = requests.get(url, auth=LOGIN, timeout=10)
        assert reply.ok, reply.text
        return reply.json()

    # ---- bookings

    def book(self, **changes):
        reply = requests.post(self.soirees + "/api/soirees", json={**BOOKING, **changes}, timeout=30)
        assert reply.status_code == 201, reply.text
        return reply.json()

    def linked(self, soiree_id, timeout=60, playlists=None):
        """Waits until the soirée has its playlist; (soirée, playlist). `playlists`: URL of the one to ask."""
        def found():
            soiree = requests.get("%s/api/soirees/%s" % (self.soirees, soiree_id), timeout=10).json()
            return soiree["playlistId"] and soiree
        soiree = wait_until(found, timeout, "soirée %s has its playlist" % soiree_id, interval=0.2)
        reply = requests.get("%s/api/playlists/%s" % (playlists or self.playlists, soiree["playlistId"]),
                             timeout=10)
        assert reply.ok, reply.text
        return soiree, reply.json()


class Clients:
    """Threads that call turn(session) again and again, until stop()."""

    def __init__(self, turns, pause_s):
        self._stopping, self._abandoned, self._running = (threading.Event() for _ in range(3))
        self._pause_s = pause_s
        self._running.set()
        self._threads = [threading.Thread(target=self._run, args=(turn,), daemon=True) for turn in turns]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, turn):
        session = requests.Session()
        session.trust_env = False
        while not self._stopping.is_set():
            self._running.wait()
            turn(session)
            self._stopping.wait(self._pause_s)

    def pause(self, paused):
        (self._running.clear if paused else self._running.set)()

    def abandon(self):
        """Ends them whatever they wait for."""
        self._abandoned.set()
        self._stopping.set()
        self._running.set()

    def stop(self):
        self._stopping.set()
        self._running.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client that does not come back"


class Bookers(Clients):
    """Book under an Idempotency-Key, and repeat what was not answered, for as long as it takes."""

    def __init__(self, stack, count=3, pause_s=0.1):
        super().__init__([self._book] * count, pause_s)
        self.url = stack.soirees + "/api/soirees"
        self.acknowledged, self.unexpected, self.repeated = [], [], 0

    def _book(self, session):
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        body = {**BOOKING, "styleMusical": random.choice(("disco", "techno", "zouk"))}
        while True:
            try:
                reply = session.post(self.url, json=body, headers=headers, timeout=20)
            except requests.RequestException:
                reply = None
            if reply is not None and reply.status_code == 201:
                self.acknowledged.append(reply.json()["id"])
                return
            if reply is not None and reply.status_code not in AGAIN:
                self.unexpected.append("%d %s" % (reply.status_code, reply.text))
                return
            if self._abandoned.is_set():
                return
            self.repeated += 1
            time.sleep(0.2)

    def wait_acknowledged(self, more=5, timeout=60):
        """Until so many more bookings were acknowledged; the last of them."""
        target = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= target, timeout, "%d more bookings" % more)
        return self.acknowledged[-1]


class Once(Clients):
    """Do everything once: whatever is not answered as it should be is a failure."""

    def __init__(self, stack, pause_s=0.02):
        self.failures, self.answered = [], 0
        soirees, playlists = stack.soirees + "/api/soirees", stack.playlists + "/api/playlists"
        made = stack.book()["id"]

        def turn(method, url, status, fresh, **options):
            def once(session):
                try:
                    reply = (requests if fresh else session).request(method, url, timeout=30, **options)
                    if reply.status_code == status:
                        self.answered += 1
                    else:
                        self.failures.append("%s %s: %d %s" % (method, url, reply.status_code, reply.text))
                except requests.RequestException as error:
                    self.failures.append("%s %s: %r" % (method, url, error))
            return once
        super().__init__([turn(method, url, status, fresh, **options) for fresh in (True, False)
                          for method, url, status, options in (
                              ("POST", soirees, 201, {"json": BOOKING}),
                              ("POST", playlists, 201, {"json": {"nom": "Mix"}}),
                              ("PATCH", "%s/%s" % (soirees, made), 200, {"json": {"lieu": "Lyon"}}),
                              ("GET", soirees + "?limit=5", 200, {}))], pause_s)
