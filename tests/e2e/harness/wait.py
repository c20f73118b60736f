"""Waiting for a condition, and ports and folders nobody else uses."""

import fcntl
import os
import random
import socket
import tempfile
import time

DEFAULT_TIMEOUT_S = 30.0
# Below the kernel's range for outgoing connections, none of which can take a port before it is bound.
FIRST_PORT, PORTS_PER_WORKER = 20000, 1500

_given = set()
_alive = []  # functions that raise when something the tests rely on has died


class Timeout(AssertionError):
    """A condition did not come true in time."""


def watch(check):
    """Have every wait call check(), which raises (no AssertionError) when waiting on would be in vain."""
    _alive.append(check)


def unwatch(check):
    if check in _alive:
        _alive.remove(check)


def wait_until(condition, timeout=DEFAULT_TIMEOUT_S, what="", interval=0.05):
    """Call condition until it returns something true, and return that.

    An AssertionError or a network error inside it counts as "not yet"; the time-out shows the last one.
    """
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (AssertionError, OSError) as error:  # requests' errors are OSErrors too
            last = repr(error)
        for check in list(_alive):
            check()
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise Timeout("waited %g s in vain for: %s (last: %.2000s)" % (timeout, name, last))
        time.sleep(interval)


def holds_for(condition, seconds, what="", interval=0.1):
    """Assert that condition is true now and stays so for the given time (for what must *not* happen)."""
    deadline = time.monotonic() + seconds
    while True:
        assert condition(), "did not hold: %s" % (what or condition.__name__)
        if time.monotonic() > deadline:
            return
        time.sleep(interval)


def _reserve(port):
    """Mark the port as ours until this process ends; False when another test run has it. What is started again
    finds its port free."""
    path = os.path.join(tempfile.gettempdir(), "soirees-test-ports-%d" % os.getuid())
    os.makedirs(path, exist_ok=True)
    mark = os.open(os.path.join(path, str(port)), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(mark)
        return False
    return True  # the descriptor stays open, and with it the lock


def free_port():
    """A TCP port free on all addresses, never given twice, to no other test run either; pytest-xdist's workers
    draw from ranges apart."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    first = FIRST_PORT + PORTS_PER_WORKER * (int(worker[2:] or 0) % 8)
    for _ in range(1000):
        port = random.randrange(first, first + PORTS_PER_WORKER)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if not _reserve(port):
            continue
        _given.add(port)
        return port
    raise RuntimeError("no free port between %d and %d" % (first, first + PORTS_PER_WORKER))
