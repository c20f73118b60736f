"""GET /metrics, read: {"name": {frozenset of (label, value): number}}; and promtool."""

import re
import shutil
import subprocess

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"(?:,|$)')


def read(text):
    """The samples of an exposition; every line must be one, or a comment."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        name, labels, number = SAMPLE.match(line).groups()
        labels = labels or ""
        assert LABEL.sub("", labels) == "", line
        series = found.setdefault(name, {})
        key = frozenset(LABEL.findall(labels))
        assert key not in series, "twice: " + line
        series[key] = float(number)
    return found


def scrape(daemon):
    reply = daemon.get("/metrics")
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(reply.text)


def value(samples, name, **labels):
    """One series' number; 0 for one that is not there (yet)."""
    return samples.get(name, {}).get(frozenset(labels.items()), 0)


def promtool(*arguments, text=None):
    """Run promtool; (its exit status, what it printed). The tests that call it skip without it."""
    result = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=120)
    return result.returncode, result.stdout + result.stderr


def missing():
    """Why Prometheus cannot be asked here, or None."""
    if not shutil.which("promtool") or not shutil.which("prometheus"):
        return "Prometheus is not installed: run scripts/bootstrap --tests"
    return None
