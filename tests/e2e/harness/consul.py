"""A Consul agent in development mode (everything in memory) on free ports."""

import glob
import json
import os
import re
import shutil
import subprocess

import requests

from .process import Child
from .wait import free_port, wait_until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def find_binary():
    """CONSUL_BIN, else the one on PATH, else the one that scripts/bootstrap unpacked; None: there is none."""
    named = os.environ.get("CONSUL_BIN")
    if named:
        return named if os.access(named, os.X_OK) else None
    unpacked = [path for path in sorted(glob.glob(ROOT + "/build/tools/**/bin/consul", recursive=True))
                if os.path.isfile(path) and os.access(path, os.X_OK)]
    return shutil.which("consul") or (unpacked[0] if unpacked else None)


def missing():
    """Why there can be no agent here, or None."""
    if find_binary() is None:
        return "no Consul agent in CONSUL_BIN, PATH or build/tools (scripts/bootstrap --tests looks for one)"
    return None


def _version(binary):
    text = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in re.search(r"v(\d+)\.(\d+)", text).groups())


class Consul:
    """One agent; after kill() and start() it has the same address and has forgotten everything. With a
    `certificate` (harness.tls) of an `authority` it speaks HTTPS, too."""

    def __init__(self, folder, certificate=None, authority=None):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.port = free_port()
        binary = find_binary()
        argv = [binary, "agent", "-dev", "-node=e2e", "-bind=127.0.0.1", "-client=127.0.0.1",
                "-log-level=warn", "-http-port=%d" % self.port, "-server-port=%d" % free_port(),
                "-serf-lan-port=%d" % free_port(), "-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1"]
        if _version(binary) >= (1, 14):
            argv.append("-grpc-tls-port=-1")
        if certificate:
            self.https_port = free_port()
            argv.append("-config-file=" + self._write_tls(certificate, authority, _version(binary)))
        env = {"PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8"}
        self.agent = Child("consul", argv, env, os.path.join(self.folder, "consul.log"), cwd=self.folder)

    def _write_tls(self, certificate, authority, version):
        files = {"cert_file": certificate.cert, "key_file": certificate.key, "ca_file": authority.cert}
        path = os.path.join(self.folder, "tls.json")
        with open(path, "w") as file:
            json.dump({"ports": {"https": self.https_port},
                       **({"tls": {"https": files}} if version >= (1, 12) else files)}, file)
        return path

    def start(self):
        self.agent.start()

        def answers():
            assert self.agent.running, "Consul ended: " + self.agent.log()[-3000:]
            assert self.get("/v1/status/leader"), "no leader yet"
            return bool(self.get("/v1/catalog/nodes"))
        wait_until(answers, 60, "Consul answers")
        return self

    def kill(self):
        self.agent.kill()

    def close(self):
        self.agent.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self):
        return {"CONSUL_HOST": "127.0.0.1", "CONSUL_PORT": str(self.port)}

    def get(self, path):
        reply = requests.get("http://127.0.0.1:%d%s" % (self.port, path), timeout=10)
        assert reply.status_code == 200, "GET %s: %d %s" % (path, reply.status_code, reply.text)
        return reply.json()

    def put(self, path, body=None):
        reply = requests.put("http://127.0.0.1:%d%s" % (self.port, path), json=body, timeout=10)
        assert reply.status_code == 200, "PUT %s: %d %s" % (path, reply.status_code, reply.text)

    def services(self, name):
        """The agent's own registrations under a name, by ID."""
        everything = self.get("/v1/agent/services")
        return {key: value for key, value in everything.items() if value["Service"] == name}

    def instances(self, name):
        """The health entries (Node, Service, Checks) of a name, passing or not."""
        return self.get("/v1/health/service/" + name)

    def passing(self, name):
        """As instances, the passing ones alone."""
        return self.get("/v1/health/service/%s?passing" % name)

    def register(self, name, service_id, port):
        """An instance without a check, which is passing at once."""
        self.put("/v1/agent/service/register", {"Name": name, "ID": service_id, "Address": "127.0.0.1",
                                                "Port": port})

    def deregister(self, service_id):
        self.put("/v1/agent/service/deregister/" + service_id)
