"""Several instances behind one proxy, as docker-compose.scale.yml brings them up, while clients book all the
time: each part is killed, the daemons are restarted one after the other, and in the end nothing is lost or
doubled.

One stack for all of it, in this order, hence one worker of pytest-xdist. Skipped where there is no Docker.
"""

import concurrent.futures
import fcntl
import os
import re
import subprocess
import sys
import tempfile

import pytest
import requests
from harness.booking import BOOKING
from harness.scale import (INSTANCES, OTHERS, PLAYLISTS, PROJECT, QUEUE, RABBITMQ, ROOT, SOIREES, Bookers,
                           Once, ScaleStack, docker, missing)
from harness.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("scale")]

RESTARTS = 25  # more than the delivery limit of a quorum queue
HELD = 5       # messages that are in a worker's hands at each of them


@pytest.fixture(scope="module")
def stack():
    reason = missing()
    if reason:
        pytest.skip(reason)
    with open(os.path.join(tempfile.gettempdir(), PROJECT + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time: another checkout's run has the same names
        stack = ScaleStack()
        stack.down()  # what an interrupted run left
        try:
            stack.up()
            yield stack
        finally:
            stack.down()
            for image in set(docker("images", "-q", "--filter", "reference=%s*" % PROJECT).split()):
                docker("rmi", "--force", image)


@pytest.fixture(scope="module")
def bookers(stack):
    """They book from the first fault to the last."""
    clients = Bookers(stack).start()
    yield clients
    clients.abandon()


# ---- nothing is broken

@pytest.mark.parametrize("command", [["docker", "compose"], ["docker-compose"]], ids=" ".join)
def test_both_composes_read_the_file(stack, command):
    try:
        done = subprocess.run([*command, *stack.command[stack.command.index("-p"):], "config", "--services"],
                              cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=60,
                              check=False)
    except FileNotFoundError:
        pytest.skip("no %s here" % command[0])
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(INSTANCES + RABBITMQ + OTHERS)


def test_the_tour_with_curl_works_through_the_proxy(stack):
    made = stack.book()
    assert made["playlistId"] is None
    soiree, playlist = stack.linked(made["id"])
    assert playlist["soireeId"] == made["id"] and playlist["origine"] == "lagmaster-pro"
    url = "%s/api/soirees/%s" % (stack.soirees, made["id"])
    changed = requests.patch(url, json={"styleMusical": "techno"}, timeout=10).json()
    assert changed["playlistId"] is None
    soiree, other = stack.linked(made["id"])
    assert other["stylesMusicaux"] == ["techno"] and other["id"] != playlist["id"]
    assert requests.put(url, json={"playlistId": "mine"}, timeout=10).json()["playlistId"] == "mine"
    reply = requests.get(stack.soirees + "/api/soirees?clientId=client123&dateFrom=2025-01-01&limit=1",
                         timeout=10)
    assert [item["id"] for item in reply.json()] == [soiree["id"]]
    keyed = [requests.post(stack.soirees + "/api/soirees", json=BOOKING, headers={"Idempotency-Key": "42"},
                           timeout=10) for _ in range(4)]  # each instance is asked
    assert {(reply.status_code, reply.json()["id"]) for reply in keyed} == {(201, keyed[0].json()["id"])}
    stale = requests.patch(url, json={"lieu": "Lyon"}, headers={"If-Match": '"1"'}, timeout=10)
    assert stale.status_code == 412
    for base in (stack.soirees, stack.playlists):
        assert requests.get(base + "/health", timeout=10).json()["status"] == "healthy"
        assert requests.get(base + "/metrics", timeout=10).status_code == 404


def test_every_message_has_a_copy_on_each_node(stack):
    for name in (QUEUE, QUEUE + ".dead"):
        queue = stack.queue(name=name)
        assert queue["type"] == "quorum"
        assert sorted(queue["members"]) == ["rabbit@" + node for node in RABBITMQ]
    wait_until(lambda: stack.queue().get("consumers") == 2 * 100, what="both worker processes consume")


def test_two_relays_publish_each_request_once(stack):
    """Three accounts: what was confirmed to the relays, what the workers acked, what the API was asked."""
    def accounts():
        return (stack.metrics(SOIREES, "soirees_publishes_total", outcome="confirmed"),
                stack.metrics(PLAYLISTS, "playlists_deliveries_total", outcome="acked"),
                stack.lagmaster("GET", "/calls?limit=0")["count"])
    before, count = accounts(), 400
    posts = [stack.metrics([one], "http_requests_total", method="POST", status="201") for one in SOIREES]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: stack.book(lieu="%d" % n)["id"], range(count)))
    for soiree_id in made:
        stack.linked(soiree_id)
    wait_until(lambda: stack.metrics(SOIREES, "soirees_outbox_rows") == 0, what="both outboxes are empty")
    wait_until(lambda: accounts()[1] - before[1] >= count, what="everything is acked")
    assert [now - then for then, now in zip(before, accounts())] == [count, count, count]
    # and neither instance had a rest
    assert all(stack.metrics([one], "http_requests_total", method="POST", status="201") - then >= count / 4
               for one, then in zip(SOIREES, posts))


# ---- one part is gone

@pytest.mark.parametrize("service", ["service-soirees-1", "service-playlists-1", "consul"])
def test_bookings_go_on_while_it_is_away(stack, bookers, service):
    bookers.wait_acknowledged(timeout=30)
    stack.kill(service)
    stack.linked(bookers.wait_acknowledged(more=20))
    stack.start(service)
    stack.wait_complete()
    stack.linked(bookers.wait_acknowledged())


def test_bookings_go_on_while_the_queues_leader_is_away(stack, bookers):
    leader = stack.queue()["leader"].split("@")[1]
    other = next(node for node in RABBITMQ if node != leader)
    stack.kill(leader)
    stack.linked(bookers.wait_acknowledged(more=20))
    wait_until(lambda: stack.queue(other)["leader"] != "rabbit@" + leader, what="another leader")
    stack.start(leader)
    stack.wait_healthy(leader)
    wait_until(lambda: len(stack.queue(other)["online"]) == 3, 60, "three copies again")
    stack.linked(bookers.wait_acknowledged())


@pytest.mark.parametrize("service", ["haproxy", "postgres"])
def test_bookings_go_on_once_it_is_back(stack, bookers, service):
    bookers.wait_acknowledged()
    stack.kill(service)
    repeated = bookers.repeated
    wait_until(lambda: bookers.repeated > repeated + 3, what="the clients repeat")
    stack.start(service)
    stack.wait_complete()
    stack.linked(bookers.wait_acknowledged(more=20))


# ---- restarts on purpose

def test_a_rolling_restart_fails_no_request(stack, bookers):
    bookers.wait_acknowledged()
    once = Once(stack).start()
    for service in INSTANCES:
        docker("restart", "--time", "20", stack.container(service))
        assert stack.state(service)["ExitCode"] == 0
        stack.wait_complete()
    answered = once.answered
    wait_until(lambda: once.answered > answered + 50, what="requests after the last restart")
    once.stop()
    assert once.failures == []
    stack.linked(bookers.wait_acknowledged())


@pytest.fixture
def lone_worker(stack, bookers):
    """Only one process works, in a container of its own, and its stops wait for nothing."""
    bookers.pause(True)
    docker("stop", "--time", "20", *[stack.container(one) for one in PLAYLISTS])
    name = PROJECT + "-worker"
    settings = {"SHUTDOWN_DELAY_MS": 0, "SHUTDOWN_GRACE_MS": 200, "PLAYLIST_WORKERS": HELD, "CONSUL_HOST": "",
                "LAGMASTER_TIMEOUT_MS": 60000}
    stack.compose("run", "-d", "--no-deps", "--name", name,
                  *[part for pair in settings.items() for part in ("-e", "%s=%s" % pair)], PLAYLISTS[0])
    yield name
    stack.lagmaster("PUT", "")
    docker("rm", "--force", name)
    docker("start", *[stack.container(one) for one in PLAYLISTS])
    stack.wait_complete()
    bookers.pause(False)


def test_restarts_of_the_worker_wear_no_message_out(stack, lone_worker):
    """RabbitMQ 4 drops what was delivered more than 20 times; deliveries whose connection ended count."""
    wait_until(lambda: stack.metrics(SOIREES, "soirees_outbox_rows") == 0, 60, "nothing is under way")
    stack.lagmaster("PUT", "", mode="hang")
    made = [stack.book(lieu="%d" % n)["id"] for n in range(HELD)]
    for number in range(RESTARTS):
        wait_until(lambda: stack.lagmaster("GET", "/waiting")["waiting"] == HELD, 60,
                   "all messages are in the worker's hands (%d)" % number)
        docker("restart", "--time", "10", lone_worker)
    moved = subprocess.run(["docker", "logs", lone_worker], capture_output=True, text=True, check=True).stdout
    assert len(re.findall("remis en fin de queue", moved)) > 0
    stack.lagmaster("PUT", "")
    stack.lagmaster("POST", "/release")
    for soiree_id in made:
        worker = "http://%s:3002" % stack.address(lone_worker)
        _soiree, playlist = stack.linked(soiree_id, playlists=worker)
        assert playlist["origine"] == "lagmaster-pro"
    assert stack.queue(name=QUEUE + ".dead").get("messages", 0) == 0


# ---- the end of it

def test_nothing_was_lost_or_doubled(stack, bookers, tmp_path):
    bookers.stop()
    assert bookers.unexpected == []
    acknowledged = tmp_path / "acknowledged"
    acknowledged.write_text("".join(soiree_id + "\n" for soiree_id in bookers.acknowledged))
    environment = {"PATH": os.environ["PATH"], "RABBITMQ_HOST": "127.0.0.1",
                   "RABBITMQ_PORT": str(stack.ports["RABBITMQ_PORT"])}
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "verify"), "--soirees", stack.soirees,
                           "--playlists", stack.playlists, "--soirees-database-url", stack.database_url,
                           "--playlists-database-url", stack.database_url, "--wait", "60",
                           "--acknowledged", str(acknowledged)], env=environment, capture_output=True,
                          text=True, timeout=300, check=False)
    print(done.stdout, done.stderr, "repeated:", bookers.repeated)
    assert done.returncode == 0, done.stdout + done.stderr
