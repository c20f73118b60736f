"""What scripts/chaos does to a system: the system, the faults, and the schedule that a seed stands for.

A fault is a generator that is resumed every few milliseconds until it has ended: faults of different parts
overlap, those of one part do not."""

import collections
import contextlib
import os
import random
import signal
import subprocess
import time

import pika.exceptions
import requests
from harness.booking import Stack
from harness.broker import QUEUE, Broker, quote
from harness.consul import Consul
from harness.daemon import Daemons
from harness.wait import unwatch
from lagmaster import MODES, LagMaster

START_S, STOP_S = 120, 60
RABBITMQCTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
PLAYLISTS = {"LAGMASTER_TIMEOUT_MS": 1500, "LAGMASTER_MAX_ATTEMPTS": 3, "LAGMASTER_RETRY_DELAY_MS": 100,
             "SHUTDOWN_GRACE_MS": 1000, "RABBITMQ_HEARTBEAT": 5}
SOIREES = {"REQUEST_AGAIN_AFTER_S": 5, "SHUTDOWN_GRACE_MS": 1000, "RABBITMQ_HEARTBEAT": 5}

Event = collections.namedtuple("Event", "at lane kind seconds")


# ---- the system

class System:
    """RabbitMQ, Consul, the imitated API and both daemons. The main thread starts everything: processes end
    with the thread that started them."""

    def __init__(self, folder, workers):
        self.folder, self.workers = folder, workers
        self.broker = Broker(os.path.join(folder, "broker"))
        self.consul = Consul(os.path.join(folder, "consul"))
        self.lagmaster = LagMaster()
        self.daemons = Daemons(folder)
        self.wrong = []  # what must not happen, whatever is done to it
        self.held = set()  # parts that a fault is busy with
        self.playlists_ends = []  # wall clock: when its process ended, one way or another

    def start(self):
        self.broker.start()
        self.consul.start()
        self.lagmaster.start()
        self.vhost = self.broker.root()
        self.stack = Stack(self.daemons, self.vhost, self.lagmaster, self.consul, SOIREES,
                           {**PLAYLISTS, "PLAYLIST_WORKERS": self.workers})
        self.soirees, self.playlists = self.stack.soirees, self.stack.playlists
        for daemon in (self.soirees, self.playlists):
            self.launch(daemon)
        for daemon in (self.soirees, self.playlists):
            drive(answers(self, daemon))

    def launch(self, daemon):
        daemon.launch()
        unwatch(daemon._check_alive)  # its end is looked for here

    def ended(self, daemon):
        """To be called whenever a daemon's process is gone."""
        daemon.meant_to_run = False
        if daemon is self.playlists:
            self.playlists_ends.append(time.time())

    def mend(self):
        """Whoever ended by itself is a finding, and is started again."""
        for name in ("soirees", "playlists"):
            daemon = getattr(self, name)
            if name not in self.held and not daemon.running:
                self.wrong.append("%s ended by itself, status %s" % (name, daemon.child.process.returncode))
                self.ended(daemon)
                self.launch(daemon)

    def close(self):
        for step in (self.daemons.close, self.lagmaster.stop, self.consul.close, self.broker.close):
            try:
                step()
            except (AssertionError, OSError) as error:
                self.wrong.append(str(error))


# ---- how a fault waits

def drive(fault):
    for _ in fault:
        time.sleep(0.02)


def pause(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield


def until(condition, seconds, what, system):
    """Resumes until the condition holds; that it never does is a finding."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (AssertionError, OSError, pika.exceptions.AMQPError) as error:
            last = ": %.300s" % error
        yield from pause(0.1)
    system.wrong.append("waited %d s in vain: %s%s" % (seconds, what, last))


def answers(system, daemon):
    def healthy():
        return requests.get(daemon.url + "/health", timeout=1).status_code == 200
    yield from until(healthy, START_S, "%s answers" % daemon.name, system)


@contextlib.contextmanager
def _held(system, parts):
    system.held.update(parts)
    try:
        yield
    finally:
        system.held.difference_update(parts)


def holding(system, parts, fault):
    """Runs the fault while no other one touches these parts."""
    while system.held & set(parts):
        yield
    with _held(system, parts):
        yield from fault


# ---- faults of the daemons

def come_back(system, daemon, seconds):
    """Its process is gone: away for a while, then started again."""
    system.ended(daemon)
    yield from pause(seconds)
    system.launch(daemon)
    yield from answers(system, daemon)


def kill(system, daemon, seconds):
    """kill -9, and away for a while."""
    daemon.kill()
    yield from come_back(system, daemon, seconds)


def terminate(system, daemon, seconds):
    """A stop as an administrator does it, and a start."""
    daemon.child.send_signal(signal.SIGTERM)
    yield from until(lambda: not daemon.running, STOP_S, "%s stops on SIGTERM" % daemon.name, system)
    if daemon.running:
        daemon.kill()
    elif daemon.child.process.returncode != 0:
        system.wrong.append("%s: exit status %d on SIGTERM" % (daemon.name, daemon.child.process.returncode))
    yield from come_back(system, daemon, seconds)


def freeze(_system, daemon, seconds):
    """Stands still, as on a machine that swaps or a paused container."""
    daemon.child.send_signal(signal.SIGSTOP)
    try:
        yield from pause(seconds)
    finally:
        daemon.child.send_signal(signal.SIGCONT)


# ---- faults of the broker

def broker_answers(system):
    def up():
        if not system.broker.node.running:  # for a moment its name may still be taken
            system.broker.node.start()
        system.vhost.depth()
        return system.broker.api("GET", "/overview")
    yield from until(up, START_S, "RabbitMQ answers", system)


def kill_broker(system, seconds):
    system.broker.kill()
    yield from pause(seconds)
    yield from broker_answers(system)


def close_connections(system, _seconds):
    system.vhost.close_connections()
    yield


def delete_queue(system, _seconds):
    system.vhost.delete_queue()
    yield


def purge_queue(system, _seconds):
    system.broker.api("DELETE", "/queues/%s/%s/contents" % (quote(system.vhost.name), QUEUE))
    yield


def _limit_memory(system, share):
    child = subprocess.Popen([RABBITMQCTL, "set_vm_memory_high_watermark", share], env=system.broker._env(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield from until(lambda: child.poll() is not None, 60, "rabbitmqctl ends", system)


def memory_alarm(system, seconds):
    yield from _limit_memory(system, "0.000001")
    yield from pause(seconds)
    yield from _limit_memory(system, "0.8")


# ---- the others

def kill_consul(system, seconds):
    """Comes back with nothing registered."""
    system.consul.kill()
    yield from pause(seconds)
    system.consul.agent.start()
    yield from until(lambda: system.consul.get("/v1/status/leader"), START_S, "Consul answers", system)


def api(mode, latency_ms):
    def fault(system, seconds):
        system.lagmaster.control(mode=mode, latency_ms=latency_ms)
        yield from pause(seconds)
        system.lagmaster.control(latency_ms=40)
        if mode == "hang":
            system.lagmaster.release()
    return fault


def power_cut(system, seconds):
    """Both daemons and the broker at the same moment."""
    for daemon in (system.soirees, system.playlists):
        daemon.kill()
        system.ended(daemon)
    system.broker.kill()
    yield from pause(seconds)
    for daemon in (system.soirees, system.playlists):
        system.launch(daemon)
    yield from broker_answers(system)
    for daemon in (system.soirees, system.playlists):
        yield from answers(system, daemon)


def _of_daemon(name, fault):
    return lambda system, seconds: fault(system, getattr(system, name), seconds)


# kind -> (lane, parts, weight, the longest it lasts in seconds, fault); lane and parts are of what it befalls
FAULTS = {}
for _name in ("soirees", "playlists"):
    FAULTS.update({
        "%s killed" % _name: (_name, [_name], 4, 3, _of_daemon(_name, kill)),
        "%s stopped by SIGTERM" % _name: (_name, [_name], 2, 2, _of_daemon(_name, terminate)),
        "%s frozen" % _name: (_name, [_name], 1, 3, _of_daemon(_name, freeze)),
        "%s away for longer" % _name: (_name, [_name], 1, 8, _of_daemon(_name, kill)),
    })
FAULTS.update({
    "broker killed": ("broker", ["broker"], 3, 3, kill_broker),
    "connections closed": ("broker", ["broker"], 3, 0, close_connections),
    "queue deleted": ("broker", ["broker"], 2, 0, delete_queue),
    "queue purged": ("broker", ["broker"], 2, 0, purge_queue),
    "memory alarm": ("broker", ["broker"], 2, 4, memory_alarm),
    "Consul killed": ("consul", ["consul"], 1, 6, kill_consul),
    "power cut": ("everything", ["soirees", "playlists", "broker"], 1, 2, power_cut),
})
FAULTS.update({"API slow": ("api", [], 4, 5, api("ok", 700))})
FAULTS.update({"API %s" % _mode: ("api", [], 1, 3, api(_mode, 20)) for _mode in MODES if _mode != "ok"})

# lane -> seconds between the end of one fault and the next, at least and at most
GAPS = {"soirees": (2, 7), "playlists": (2, 7), "broker": (3, 9), "consul": (10, 30), "api": (1, 5),
        "everything": (20, 50)}


def schedule(seed, seconds):
    """The events of each lane, in order; the same for the same seed."""
    lanes = {}
    for lane, gaps in GAPS.items():
        rng = random.Random("%s/%s" % (seed, lane))
        kinds = [kind for kind, fault in FAULTS.items() if fault[0] == lane]
        weights = [FAULTS[kind][2] for kind in kinds]
        lanes[lane], at = [], rng.uniform(1, gaps[1])
        while at < seconds:
            kind = rng.choices(kinds, weights)[0]
            lasts = round(rng.uniform(0, FAULTS[kind][3]), 1)
            lanes[lane].append(Event(round(at, 1), lane, kind, lasts))
            at += lasts + rng.uniform(*gaps)
    return lanes


def inject(system, events, began, ends, counts):
    """One lane's faults at their times; one that is due after the end is left out."""
    for event in events:
        while time.monotonic() < began + event.at:
            yield
        if time.monotonic() > ends:
            return
        _lane, parts, _weight, _longest, fault = FAULTS[event.kind]
        try:
            yield from holding(system, parts, fault(system, event.seconds))
            counts[event.kind] += 1
        except (AssertionError, requests.RequestException) as error:
            counts["(not possible: %s)" % event.kind] += 1  # no queue to delete, a broker that starts
            if "404" not in str(error) and not isinstance(error, requests.RequestException):
                system.wrong.append("%s: %s" % (event.kind, error))


def run_faults(system, lanes, seconds, counts, tick=lambda: None):
    """All lanes until the time is over and each has mended what it broke."""
    began = time.monotonic()
    running = [inject(system, events, began, began + seconds, counts) for events in lanes.values()]
    while running or time.monotonic() < began + seconds:
        for lane in list(running):
            try:
                next(lane)
            except StopIteration:
                running.remove(lane)
        system.mend()
        tick()
        time.sleep(0.02)
