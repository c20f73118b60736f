"""TLS to RabbitMQ, Consul, the API and between the services: who is not who it should be is refused."""

import itertools
import os
import shutil
import socket
import ssl
import threading

import pytest
import requests
from harness import broker as broker_module
from harness import consul as consul_module
from harness import haproxy, tls
from harness.booking import BOOKING, Stack, made_for, message, waiting
from harness.broker import PASSWORD, USER, Broker
from harness.consul import Consul
from harness.http import ok_json
from harness.imitations import FakeSoirees, Recorder
from harness.process import Child
from harness.wait import free_port, wait_until

ROOT = consul_module.ROOT
BOTH = pytest.mark.parametrize("program", ["soirees", "playlists"])
CONFIG = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {server.cert}
ssl_options.keyfile = {server.key}
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
# whoever has no certificate of our authority is refused
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""
numbers = itertools.count(1)
GENERATED = {"style": "disco", "title": "Disco Nights", "tracks": ["Un", "Deux"]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if tls.missing():
        pytest.skip(tls.missing())
    return tls.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory, authority):
    return tls.Authority(tmp_path_factory.mktemp("other-ca"))


@pytest.fixture(scope="module")
def client(authority):
    """The daemons' own certificate."""
    return authority.issue("DNS:client.test")


# ---- amqps

class TlsBroker:
    """A RabbitMQ that speaks TLS, and the certificate that it shows: good for `localhost` unless show() says
    otherwise."""

    def __init__(self, folder, authority):
        self.good, self.shown = authority.issue("DNS:localhost"), tls.Certificate(str(folder / "shown"))
        self.good.copy_to(self.shown)
        self.port = free_port()
        config = CONFIG.format(port=self.port, ca=authority.cert, server=self.shown)
        # without its cache Erlang reads the files for each connection
        self.node = Broker(folder / "node", config, "-ssl bypass_pem_cache true")

    def show(self, certificate):
        certificate.copy_to(self.shown)

    def url(self, vhost, host="localhost"):
        return "amqps://%s:%s@%s:%d/%s" % (USER, PASSWORD, host, self.port, vhost.name)


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory, authority):
    reason = broker_module.missing()
    if reason:
        pytest.skip(reason)
    broker = TlsBroker(tmp_path_factory.mktemp("tls-broker"), authority)
    try:
        broker.node.start()
        yield broker
    finally:
        broker.node.close()


@pytest.fixture
def vhost(tls_broker):
    own = tls_broker.node.vhost("tls-%d" % next(numbers))
    yield own
    tls_broker.node.api("DELETE", "/vhosts/" + own.name)
    tls_broker.show(tls_broker.good)


@pytest.fixture
def amqps(tls_broker, vhost, authority, client):
    """Settings of a daemon that gets in; None takes one away."""
    return {"RABBITMQ_URL": tls_broker.url(vhost), "RABBITMQ_CA_FILE": authority.cert,
            "RABBITMQ_CERT_FILE": client.cert, "RABBITMQ_KEY_FILE": client.key}


def connected(vhost):
    return [c for c in vhost.connections() if c.get("ssl")]


def refused(daemon, vhost, reason):
    """The daemon says so, goes on trying, and serves meanwhile."""
    wait_until(lambda: daemon.log_has("Erreur connexion RabbitMQ"), what="a refusal in the log")
    assert reason in daemon.log(), daemon.log()
    assert vhost.connections() == [] and PASSWORD not in daemon.log()
    assert daemon.get("/health").status_code == 200


@pytest.mark.slow
def test_a_booking_gets_its_playlist_over_tls(amqps, vhost, lagmaster, daemons):
    stack = Stack(daemons, vhost, lagmaster, soirees=amqps, playlists=amqps).start()
    stack.linked(stack.book()["id"])
    found = wait_until(lambda: len(connected(vhost)) == 2 and connected(vhost), what="both connections")
    assert {c["ssl_protocol"] for c in found} == {"tlsv1.3"}
    assert all("client" in c["peer_cert_subject"] or "cert-" in c["peer_cert_subject"] for c in found)


@BOTH
@pytest.mark.slow
def test_a_broker_of_an_unknown_authority_is_refused(program, amqps, vhost, other_authority, daemons):
    daemon = daemons.start(program, amqps, RABBITMQ_CA_FILE=other_authority.cert)
    refused(daemon, vhost, "TLS : certificat refusé")


@pytest.mark.slow
def test_the_system_s_authorities_count_where_none_is_named(amqps, vhost, daemons):
    refused(daemons.start("soirees", amqps, RABBITMQ_CA_FILE=None), vhost,
            "TLS : certificat refusé")


@pytest.mark.slow
def test_a_certificate_for_another_name_is_refused(amqps, vhost, tls_broker, authority, daemons):
    tls_broker.show(authority.issue("DNS:autre.test"))
    soirees = daemons.start("soirees", amqps)
    refused(soirees, vhost, "TLS : le certificat est celui d'un autre hôte")
    # nothing else was wrong
    tls_broker.show(tls_broker.good)
    wait_until(lambda: connected(vhost), 60, "the connection")


@pytest.mark.slow
def test_an_expired_certificate_is_refused(amqps, vhost, tls_broker, authority, daemons):
    tls_broker.show(authority.issue("DNS:localhost", expired=True))
    soirees = daemons.start("soirees", amqps)
    refused(soirees, vhost, "TLS : certificat refusé")
    tls_broker.show(tls_broker.good)
    wait_until(lambda: connected(vhost), 60, "the connection")


@pytest.mark.slow
def test_a_broker_that_wants_a_certificate_takes_ours_alone(amqps, vhost, other_authority, daemons):
    without = daemons.start("soirees", amqps, RABBITMQ_CERT_FILE=None, RABBITMQ_KEY_FILE=None)
    refused(without, vhost, "TLS : échec")
    stranger = other_authority.issue("DNS:client.test")
    refused(daemons.start("soirees", amqps, RABBITMQ_CERT_FILE=stranger.cert, RABBITMQ_KEY_FILE=stranger.key),
            vhost, "TLS : échec")


def handshake(authority, daemons, version):
    """How the handshake of a soirees daemon ends with a server that speaks this version alone; its log."""
    with tls.Handshakes(authority.issue("DNS:localhost"), version) as server:
        daemon = daemons.start("soirees", RABBITMQ_URL="amqps://u:p@localhost:%d" % server.port,
                               RABBITMQ_CA_FILE=authority.cert)
        wait_until(lambda: server.ends and daemon.log_has("Erreur connexion"), what="the end of a handshake")
        return server.ends[0], daemon.log()


def test_tls_1_1_is_refused(authority, daemons):
    end, log = handshake(authority, daemons, ssl.TLSVersion.TLSv1_1)
    assert "unsupported protocol" in end.lower().replace("_", " "), end
    assert "RabbitMQ: TLS : échec de la négociation" in log


def test_another_client_would_speak_tls_1_1(authority):
    """So the server of the test above is one that the daemon alone refuses."""
    with tls.Handshakes(authority.issue("DNS:localhost"), ssl.TLSVersion.TLSv1_1) as server:
        context = tls.only(ssl.create_default_context(cafile=authority.cert), ssl.TLSVersion.TLSv1_1)
        with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            with context.wrap_socket(connection, server_hostname="localhost") as secured:
                assert secured.version() == "TLSv1.1"


@pytest.mark.parametrize("version, spoken",
                         [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")])
def test_tls_1_2_and_1_3_are_spoken(version, spoken, authority, daemons):
    assert handshake(authority, daemons, version)[0] == spoken


# ---- Consul

@pytest.fixture
def tls_consul(tmp_path, authority):
    reason = consul_module.missing()
    if reason:
        pytest.skip(reason)
    agent = Consul(tmp_path / "consul", authority.issue("DNS:localhost", "IP:127.0.0.1"), authority)
    try:
        yield agent.start()
    finally:
        agent.close()


@BOTH
def test_consul_is_reached_by_https_and_verified(program, tls_consul, authority, other_authority, daemons):
    settings = {"RABBITMQ_PORT": free_port(), "CONSUL_HOST": "localhost", "CONSUL_SCHEME": "https",
                "CONSUL_PORT": tls_consul.https_port}
    name = "service-" + program
    for ca in (other_authority.cert, None):
        stranger = daemons.start(program, settings, CONSUL_CA_FILE=ca)
        wait_until(lambda: stranger.log_has("Consul non disponible"), what="a refusal in the log")
        assert tls_consul.services(name) == {}
        stranger.stop()
    daemons.start(program, settings, CONSUL_CA_FILE=authority.cert)
    wait_until(lambda: tls_consul.services(name), 60, name + " is registered")


# ---- lagmaster-pro and soirees

def tls_recorder(recorder, certificate):
    tls.serve_tls(recorder.server, certificate)
    recorder.url = "https://localhost:%d" % recorder.port
    return recorder


@pytest.mark.parametrize("trust", ["authority", "other", "system", "SSL_CERT_FILE"])
def test_lagmaster_is_verified(trust, authority, other_authority, daemons, own_vhost):
    api = tls_recorder(Recorder(lambda _request: (200, GENERATED, "application/json")),
                       authority.issue("DNS:localhost"))
    ca = {"authority": authority.cert, "other": other_authority.cert}.get(trust)
    with api, FakeSoirees(200) as soirees:
        playlists = daemons.start(
            "playlists", own_vhost.settings(), LAGMASTER_URL=api.url + "/x", LAGMASTER_CA_FILE=ca,
            LAGMASTER_RETRY_DELAY_MS=10, SOIREES_URL=soirees.url,
            SSL_CERT_FILE=authority.cert if trust == "SSL_CERT_FILE" else None)
        wait_until(lambda: own_vhost.depth()[1] > 0, 60, "a consumer")
        own_vhost.publish(message("s-" + trust))
        made = made_for(playlists, "s-" + trust)
        assert made["origine"] == ("lagmaster-pro" if trust == "authority" else "defaut")
        assert bool(api.requests()) == (trust == "authority")
        if trust != "authority":
            assert playlists.log().count("Erreur API") == 3


@pytest.fixture
def own_vhost(broker):
    own = broker.vhost("tls-plain-%d" % next(numbers))
    yield own
    broker.api("DELETE", "/vhosts/" + own.name)


def test_the_authorities_are_not_read_anew_with_every_connection(authority, other_authority, daemons, own_vhost,
                                                                 tmp_path):
    """A thousand workers that each read the system's would do nothing else."""
    together = threading.Barrier(2)

    def answer(_request):
        if len(api.requests()) > 1:
            together.wait(60)  # two calls at once: one of them on a connection of its own
        return 200, GENERATED, "application/json"

    api, trusted = tls_recorder(Recorder(answer), authority.issue("DNS:localhost")), str(tmp_path / "ca.pem")
    shutil.copy(authority.cert, trusted)
    with api, FakeSoirees(200) as soirees:
        playlists = daemons.start(
            "playlists", own_vhost.settings(), LAGMASTER_URL=api.url + "/x", LAGMASTER_CA_FILE=trusted,
            LAGMASTER_MAX_ATTEMPTS=1, PLAYLIST_WORKERS=2, SOIREES_URL=soirees.url)
        wait_until(lambda: own_vhost.depth()[1] == 2, 60, "two consumers")
        own_vhost.publish(message("first"))
        assert made_for(playlists, "first")["origine"] == "lagmaster-pro"
        shutil.copy(other_authority.cert, trusted)
        for name in ("second", "third"):
            own_vhost.publish(message(name))
        for name in ("second", "third"):
            assert made_for(playlists, name)["origine"] == "lagmaster-pro"


def test_soirees_is_verified(authority, other_authority, daemons, own_vhost, lagmaster):
    certificate = authority.issue("DNS:localhost")
    with tls_recorder(FakeSoirees(200), certificate) as soirees:
        settings = {**own_vhost.settings(), "LAGMASTER_URL": lagmaster.url, "SOIREES_URL": soirees.url}
        stranger = daemons.start("playlists", settings, SOIREES_CA_FILE=other_authority.cert,
                                 SOIREES_TOKEN="secret")
        wait_until(lambda: own_vhost.depth()[1] > 0, 60, "a consumer")
        own_vhost.publish(message("s-1"))
        wait_until(lambda: stranger.log_has("Erreur mise à jour soirée s-1"), 60, "a refusal in the log")
        assert soirees.requests() == []
        stranger.restart(SOIREES_CA_FILE=authority.cert)
        wait_until(soirees.links, 60, "the link")
        assert soirees.links()[0].headers["Authorization"] == "Bearer secret"


def test_the_api_may_speak_http_2(make_stack, own_vhost, authority, tmp_path):
    """Calls share a connection then; one that fails takes none of the others with it."""
    if haproxy.missing():
        pytest.skip(haproxy.missing())
    stack = make_stack(vhost=own_vhost)
    front = haproxy.Front(str(tmp_path), authority.issue("DNS:localhost"), stack.lagmaster.port, "h2")
    stack.playlists.settings.update(LAGMASTER_URL=front.url + "/generate_playlist", PLAYLIST_WORKERS=30,
                                    LAGMASTER_CA_FILE=authority.cert, LAGMASTER_RETRY_DELAY_MS=10)
    try:
        stack.lagmaster.control(mode="hang", fail_first=5)
        stack.start()
        booked = [stack.book()["id"] for _ in range(30)]
        waiting(stack.lagmaster, 30)
        stack.lagmaster.control(mode="ok")
        stack.lagmaster.release()
        for soiree_id in booked:
            stack.linked(soiree_id)
        found = ok_json(stack.playlists.get("/api/playlists"))
        assert [p["origine"] for p in found] == ["lagmaster-pro"] * 30
        assert "HTTP/2.0" in front.log() and "HTTP/1.1" not in front.log()
    finally:
        front.kill()


# ---- the daemons behind HAProxy

class Proxy:
    """HAProxy with ops/haproxy.cfg."""

    def __init__(self, folder, certificate, soirees, playlists):
        self.ports = {"soirees": free_port(), "playlists": free_port()}
        env = {"PATH": os.environ["PATH"], "TLS_CERT": certificate.both, "TLS_BIND": "127.0.0.1",
               "SOIREES_TLS_PORT": str(self.ports["soirees"]), "SOIREES": "127.0.0.1:%d" % soirees.port,
               "PLAYLISTS_TLS_PORT": str(self.ports["playlists"]),
               "PLAYLISTS": "127.0.0.1:%d" % playlists.port, "PLAIN_PORT": str(free_port()),
               **{program.upper() + "_PUBLIC_PORT": str(port) for program, port in self.ports.items()}}
        self.child = Child("haproxy", [haproxy.program(), "-db", "-f", os.path.join(ROOT, "ops", "haproxy.cfg")], env,
                           folder / "haproxy.log")

    def url(self, program):
        return "https://localhost:%d" % self.ports[program]


class FromAddress(requests.adapters.HTTPAdapter):
    """Connects from this address."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


@pytest.mark.slow
def test_the_daemons_behind_haproxy(make_stack, own_vhost, authority, tmp_path):
    """ops/haproxy.cfg as it is: clients and the worker come by HTTPS, the log names who they are."""
    if haproxy.missing():
        pytest.skip(haproxy.missing())
    stack = make_stack(vhost=own_vhost, soirees={"TRUSTED_PROXIES": "127.0.0.1", "LOG_FORMAT": "json",
                                                 "LOG_LEVEL": "debug"})
    proxy = Proxy(tmp_path, authority.issue("DNS:localhost"), stack.soirees, stack.playlists)
    stack.playlists.settings.update(SOIREES_URL=proxy.url("soirees"), SOIREES_CA_FILE=authority.cert)
    try:
        proxy.child.start()
        stack.start()
        session = requests.Session()
        session.trust_env, session.verify = False, authority.cert
        session.mount("https://", FromAddress("127.0.0.5"))

        def call(method, program, path, **options):
            return session.request(method, proxy.url(program) + path, timeout=30, **options)
        for program in ("soirees", "playlists"):
            wait_until(lambda: call("GET", program, "/health").status_code == 200, 60, program + " by HTTPS")
        reply = call("POST", "soirees", "/api/soirees", json=BOOKING,
                     headers={"X-Forwarded-For": "198.51.100.7"})
        made = ok_json(reply, 201)
        assert reply.headers["Strict-Transport-Security"]
        path = "/api/soirees/" + made["id"]
        wait_until(lambda: ok_json(call("GET", "soirees", path))["playlistId"], 60, "the link")
        found = ok_json(call("GET", "playlists", "/api/playlists", params={"soireeId": made["id"]}))
        assert [p["origine"] for p in found] == ["lagmaster-pro"]
        # the client's address is what HAProxy saw, not what the client said
        wait_until(lambda: stack.soirees.log_has('"client":"127.0.0.5"'), what="the client in the log")
        assert "198.51.100.7" not in stack.soirees.log()
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(proxy.url("soirees") + "/health", timeout=30)
    finally:
        proxy.child.kill()
