"""HAProxy in front of a server that speaks neither TLS nor HTTP/2."""

import os
import shutil
import socket

from .process import Child
from .wait import free_port, wait_until

PATH = os.environ["PATH"] + ":/usr/sbin"
CONFIGURATION = """\
global
    log stdout format raw local0
    maxconn 4096
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port} ssl crt {certificate} alpn {protocols}
    server server 127.0.0.1:{server}
"""


def program():
    return shutil.which("haproxy", path=PATH)


def missing():
    """Why there is no proxy here, or None."""
    return None if program() else "no haproxy here (scripts/bootstrap --tests installs it)"


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Front(Child):
    """Speaks `protocols` ("h2,http/1.1") over TLS, and plain HTTP with the server; its log says which of them.
    The certificate is to be good for DNS:localhost."""

    def __init__(self, folder, certificate, server_port, protocols):
        port, configuration = free_port(), os.path.join(folder, "front.cfg")
        with open(configuration, "w") as file:
            file.write(CONFIGURATION.format(port=port, certificate=certificate.both, protocols=protocols,
                                            server=server_port))
        super().__init__("haproxy", [program(), "-db", "-f", configuration], {"PATH": PATH},
                         os.path.join(folder, "front.log"))
        self.url = "https://localhost:%d" % port
        self.start()
        wait_until(lambda: _listens(port), 20, "HAProxy listens", interval=0.02)
