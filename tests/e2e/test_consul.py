"""Registration in Consul: content, check, coming and going."""

import socket
import time

import pytest
from harness.imitations import Recorder
from harness.wait import free_port, holds_for, wait_until

BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])
TAGS = ["api", "microservice", "dj-marcel"]


@pytest.fixture
def registered(consul, daemons):
    """registered(program, **settings): a daemon that is in Consul's list."""
    def start(program, **settings):
        daemon = daemons.start(program, {"RABBITMQ_PORT": free_port(), **consul.settings(), **settings})
        name = settings.get("SERVICE_NAME", "service-" + program)
        wait_until(lambda: consul.services(name), 60, name + " is registered")
        return daemon
    return start


@BOTH
def test_a_daemon_registers_with_its_name_address_port_and_tags(program, consul, registered):
    daemon = registered(program)
    name = "service-" + program
    service = consul.services(name)["%s-127.0.0.1-%d" % (name, daemon.port)]
    assert (service["Address"], service["Port"]) == ("127.0.0.1", daemon.port)
    assert sorted(service["Tags"]) == sorted(TAGS)
    check = [c for c in consul.instances(name)[0]["Checks"] if c["ServiceName"] == name]
    assert [c["Type"] for c in check] == ["http"]


@BOTH
@pytest.mark.slow
def test_it_passes_its_check(program, consul, registered):
    daemon = registered(program)
    name = "service-" + program
    wait_until(lambda: [i["Service"]["Port"] for i in consul.passing(name)] == [daemon.port], 45,
               "the first check, within 10 s")


def test_name_and_address_can_be_chosen(consul, registered):
    daemon = registered("soirees", SERVICE_NAME="mes-soirees", SERVICE_ADDRESS="localhost")
    service = consul.services("mes-soirees")["mes-soirees-localhost-%d" % daemon.port]
    assert (service["Address"], service["Port"]) == ("localhost", daemon.port)


@pytest.mark.threads
@BOTH
def test_a_clean_stop_takes_it_off_the_list(program, consul, registered):
    daemon = registered(program)
    daemon.stop()
    assert consul.services("service-" + program) == {}
    assert consul.instances("service-" + program) == []


def test_a_clean_stop_takes_off_nobody_else(consul, registered):
    first, second = registered("soirees"), registered("soirees")
    wait_until(lambda: len(consul.services("service-soirees")) == 2, 60, "both are registered")
    first.stop()
    assert [s["Port"] for s in consul.services("service-soirees").values()] == [second.port]


@BOTH
@pytest.mark.slow
def test_it_registers_again_when_the_agent_lost_its_memory(program, consul, registered):
    daemon = registered(program)
    consul.kill()
    assert daemon.get("/health").status_code == 200
    consul.start()
    name = "service-" + program
    wait_until(lambda: [s["Port"] for s in consul.services(name).values()] == [daemon.port], 90,
               "registered again")


@pytest.mark.threads
@pytest.mark.slow
def test_it_registers_again_when_somebody_took_it_off(consul, registered):
    daemon = registered("soirees")
    key = "service-soirees-127.0.0.1-%d" % daemon.port
    consul.deregister(key)
    wait_until(lambda: key in consul.services("service-soirees"), 90, "registered again")


def test_a_restart_replaces_the_registration_that_a_crash_left(consul, registered):
    daemon = registered("soirees")
    daemon.kill()
    assert len(consul.services("service-soirees")) == 1
    daemon.start()
    holds_for(lambda: len(consul.services("service-soirees")) == 1, 2, "one registration")
    daemon.stop()
    assert consul.services("service-soirees") == {}


@BOTH
def test_an_agent_that_never_answers_delays_neither_start_nor_stop(program, daemons):
    with socket.socket() as agent:
        agent.bind(("127.0.0.1", 0))
        agent.listen(64)  # connections are taken, and that is all
        daemon = daemons.start(program, CONSUL_HOST="127.0.0.1", CONSUL_PORT=agent.getsockname()[1],
                               RABBITMQ_PORT=free_port(), SHUTDOWN_GRACE_MS=1000)
        assert daemon.health()["status"] == "healthy"
        begin = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begin < 1 + 2 + 3  # the grace, the rest of the stop, and a slow machine


# ---- what goes over the wire, where the agent does not show it

class Agent(Recorder):
    """Answers as an agent that has no instances of anything."""

    def __init__(self):
        super().__init__(self._reply)

    def _reply(self, request):
        if request.method == "GET" and "/v1/agent/service/" in request.path:
            return 404, b"unknown service", "text/plain"
        return 200, [] if request.method == "GET" else b"", "application/json"


@BOTH
def test_the_registration_says_how_to_check_and_when_to_forget(program, daemons):
    with Agent() as agent:
        daemon = daemons.start(program, CONSUL_HOST="127.0.0.1", CONSUL_PORT=agent.port, CONSUL_TOKEN="jeton",
                               RABBITMQ_PORT=free_port())
        path = "/v1/agent/service/register"
        wait_until(lambda: agent.requests("PUT", path), 30, "the registration")
        request = agent.requests("PUT", path)[0]
        assert request.headers["X-Consul-Token"] == "jeton"
        body = request.json()
        name = "service-" + program
        assert (body["Name"], body["Port"], body["Address"]) == (name, daemon.port, "127.0.0.1")
        assert body["ID"] == "%s-127.0.0.1-%d" % (name, daemon.port)
        assert sorted(body["Tags"]) == sorted(TAGS)
        check = body["Check"]
        assert check["HTTP"] == "http://127.0.0.1:%d/health" % daemon.port
        assert (check["Interval"], check["Timeout"]) == ("10s", "5s")
        assert check["DeregisterCriticalServiceAfter"] == "1m"
        daemon.stop()
        gone = agent.requests("PUT", "/v1/agent/service/deregister/" + body["ID"])
        assert len(gone) == 1 and gone[0].headers["X-Consul-Token"] == "jeton"
        assert "jeton" not in daemon.log()


def test_without_a_consul_host_nothing_is_asked(daemons):
    with Agent() as agent:
        daemon = daemons.start("playlists", CONSUL_HOST="", CONSUL_PORT=agent.port, RABBITMQ_PORT=free_port())
        holds_for(lambda: agent.requests() == [], 1.5, "silence")
        daemon.stop()
        assert agent.requests() == []


def test_the_worker_asks_for_passing_instances_with_a_blocking_query(daemons):
    with Agent() as agent:
        daemons.start("playlists", CONSUL_HOST="127.0.0.1", CONSUL_PORT=agent.port, CONSUL_TOKEN="jeton",
                      RABBITMQ_PORT=free_port())
        path = "/v1/health/service/service-soirees?"
        wait_until(lambda: agent.requests("GET", path), 30, "the look-up")
        request = agent.requests("GET", path)[0]
        assert "passing" in request.path and request.headers["X-Consul-Token"] == "jeton"
        # an agent that answers at once is not asked in a loop
        holds_for(lambda: len(agent.requests("GET", path)) < 15, 4, "few look-ups")
