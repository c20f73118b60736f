"""The test programs of common/amqp (tests/unit) that want a real broker."""

import os
import subprocess

import pytest
from harness.broker import PASSWORD, USER
from harness.daemon import binary


@pytest.mark.parametrize("program", ["test_amqp", "test_amqp_connection"])
def test_the_wire_layer_against_a_real_broker(own_broker, program):
    path = os.path.join(os.path.dirname(binary("soirees")), program)
    if not os.access(path, os.X_OK):
        pytest.skip("%s is not built (scripts/test builds it)" % program)
    own_broker.start()
    login = "%s:%s@127.0.0.1" % (USER, PASSWORD)
    env = {**os.environ, "TEST_AMQP_URL": "amqp://%s:%d" % (login, own_broker.port),
           "TEST_RABBITMQ_UI": "http://%s:%d" % (login, own_broker.management_port)}
    result = subprocess.run([path], env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    assert "SKIPPED" not in result.stdout + result.stderr
