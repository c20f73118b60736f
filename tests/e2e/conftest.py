"""Fixtures of the end-to-end tests: a broker a session; a test has its own virtual host and daemons."""

import itertools
import logging
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fakes"))

from harness import broker as broker_module  # noqa: E402
from harness import consul as consul_module  # noqa: E402
from harness import description, postgres  # noqa: E402
from harness.booking import Stack  # noqa: E402
from harness.daemon import Daemons, binary  # noqa: E402
from harness.scale import ScaleStack  # noqa: E402
from harness.wait import free_port, wait_until  # noqa: E402
from lagmaster import LagMaster  # noqa: E402

LOG_TAIL = 12000  # characters of each daemon's log that a failed test shows

_numbers = itertools.count(1)


def pytest_configure(config):
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    config.addinivalue_line("markers", "slow: takes more than about 5 s; scripts/test fast leaves it out")
    config.addinivalue_line("markers", "sqlite: about SQLite's files; left out where STORE=postgres")
    config.addinivalue_line("markers", "threads: shows the threads at work; run again under ThreadSanitizer")
    config.addinivalue_line("markers", "xdist_group: those of one name run in one worker, in their order")


def pytest_collection_modifyitems(items):
    for item in items if postgres.chosen() else ():
        if item.get_closest_marker("sqlite"):
            item.add_marker(pytest.mark.skip(reason="about SQLite's files"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failed test shows the logs of its daemons."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for daemon in value.all if isinstance(value, Daemons) else []:
                report.sections.append(("log of %s" % daemon.name, daemon.log()[-LOG_TAIL:]))
            if isinstance(value, ScaleStack):
                report.sections.append(("logs of the containers", value.logs()))


def _check_exchanges():
    found = description.take_findings()
    if found:
        shown = "\n\n".join(found[:10])
        pytest.fail("%d time(s) not as described:\n\n%s" % (len(found), shown), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup():
    """What is not as described fails the test that saw it: here what its fixtures saw, ..."""
    _check_exchanges()


@pytest.hookimpl(trylast=True)
def pytest_runtest_call():
    """... here what it saw itself, ..."""
    _check_exchanges()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """... and here what was seen at its end, or by a test that failed already."""
    _check_exchanges()


@pytest.fixture(scope="session")
def built():
    """The programs exist."""
    for program in ("soirees", "playlists"):
        if not os.access(binary(program), os.X_OK):
            pytest.fail("%s is not there: build first, or set SOIREES_BIN_DIR" % binary(program),
                        pytrace=False)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """RabbitMQ for the whole session; tests take a `vhost` of it and never stop it."""
    reason = broker_module.missing()
    if reason:
        pytest.skip(reason)
    node = broker_module.Broker(tmp_path_factory.mktemp("broker"))
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def vhost(broker):
    """An empty virtual host, for this test alone."""
    own = broker.vhost("e2e-%d" % next(_numbers))
    yield own
    broker.api("DELETE", "/vhosts/" + own.name)


@pytest.fixture
def own_broker(tmp_path):
    """A RabbitMQ of the test's own, not started yet, to be stopped, killed and started again at will."""
    reason = broker_module.missing()
    if reason:
        pytest.skip(reason)
    node = broker_module.Broker(tmp_path / "broker")
    yield node
    node.close()


@pytest.fixture
def consul(tmp_path):
    """A Consul agent of the test's own; kill() and start() give one that has forgotten everything."""
    reason = consul_module.missing()
    if reason:
        pytest.skip(reason)
    agent = consul_module.Consul(tmp_path / "consul")
    try:
        yield agent.start()
    finally:
        agent.close()


@pytest.fixture
def lagmaster():
    """The imitation of lagmaster-pro."""
    with LagMaster() as api:
        yield api


@pytest.fixture
def daemons(tmp_path, built):
    """Makes daemons; at the end all of them must stop cleanly and without a sanitizer's report."""
    made = Daemons(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_daemons(tmp_path_factory, built):
    """As daemons, for the tests of one file together."""
    made = Daemons(tmp_path_factory.mktemp("daemons"))
    yield made
    made.close()


@pytest.fixture
def make_stack(request, lagmaster, daemons):
    """make_stack(soirees={...}, playlists={...}, consul=agent, vhost=other): a Stack, not started yet."""
    def make(**options):
        vhost = options.pop("vhost", None) or request.getfixturevalue("vhost")
        return Stack(daemons, vhost, lagmaster, **options)
    return make


@pytest.fixture
def stack(make_stack):
    """Both daemons at work, without Consul (whose first check takes up to 10 s)."""
    return make_stack().start()


@pytest.fixture
def worker(vhost, lagmaster, daemons):
    """worker(soirees_url, **settings): a playlists daemon at work, alone; the tests write its messages."""
    def start(soirees_url=None, **settings):
        daemon = daemons.start("playlists", {
            **vhost.settings(), "LAGMASTER_URL": lagmaster.url, "LAGMASTER_RETRY_DELAY_MS": 50,
            "SOIREES_URL": soirees_url or "http://127.0.0.1:%d" % free_port(), **settings})
        wait_until(lambda: vhost.depth()[1] > 0, 60, "a consumer")
        return daemon
    return start


@pytest.fixture(scope="module")
def soirees(shared_daemons):
    """A soirees daemon for the tests of one file, with no broker and no Consul in reach."""
    return shared_daemons.start("soirees", RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=free_port())


@pytest.fixture(scope="module")
def playlists(shared_daemons):
    """A playlists daemon for the tests of one file, with no broker and no Consul in reach."""
    return shared_daemons.start("playlists", RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=free_port(),
                                LAGMASTER_URL="http://127.0.0.1:%d/" % free_port())
