"""Certificates made by openssl when a test needs them, and servers that use them."""

import itertools
import os
import shutil
import socket
import ssl
import subprocess
import threading
import warnings

SUBJECT = "/O=soirees-test/CN="
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def missing():
    """Why there can be no certificates here, or None."""
    return None if shutil.which("openssl") else "no openssl here"


def openssl(*arguments):
    """Run openssl; returns what it printed."""
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, "openssl %s: %s" % (" ".join(arguments), done.stderr)
    return done.stdout


class Certificate:
    """The files of one: certificate, key, and both in one (as HAProxy takes them)."""

    def __init__(self, stem):
        self.cert, self.key, self.both = stem + ".crt", stem + ".key", stem + ".pem"

    def copy_to(self, other):
        """Put this one in the other's place."""
        for source, target in ((self.cert, other.cert), (self.key, other.key), (self.both, other.both)):
            shutil.copy(source, target + ".new")
            os.replace(target + ".new", target)


class Authority:
    """A certificate authority of our own; `cert` is the file that trusts it."""

    def __init__(self, folder, name="ca"):
        self.folder, self._numbers = str(folder), itertools.count(1)
        os.makedirs(self.folder, exist_ok=True)
        self.cert, self.key = self._path(name + ".crt"), self._path(name + ".key")
        openssl("req", "-x509", *NEW_KEY, "-days", "2", "-keyout", self.key, "-out", self.cert,
                "-subj", SUBJECT + name, "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _path(self, name):
        return os.path.join(self.folder, name)

    def issue(self, *names, expired=False):
        """A certificate for servers and clients that is good for these names ("DNS:localhost")."""
        stem = self._path("cert-%d" % next(self._numbers))
        made = Certificate(stem)
        with open(stem + ".ext", "w") as file:
            file.write("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n")
            file.write("subjectAltName=%s\n" % ",".join(names or ["DNS:client.test"]))
        openssl("req", "-new", *NEW_KEY, "-keyout", made.key, "-out", stem + ".csr",
                "-subj", SUBJECT + os.path.basename(stem))
        with open(stem + ".index", "w"):
            pass
        with open(stem + ".cnf", "w") as file:
            file.write("[ca]\ndefault_ca=own\n[own]\ndatabase=%s.index\nnew_certs_dir=%s\nserial=%s.serial\n"
                       "default_md=sha256\npolicy=any\n[any]\nO=optional\nCN=optional\n"
                       % (stem, self.folder, stem))
        dates = ["20200101000000Z", "20200201000000Z"] if expired else ["20200101000000Z", "20990101000000Z"]
        openssl("ca", "-batch", "-notext", "-config", stem + ".cnf", "-cert", self.cert, "-keyfile", self.key,
                "-create_serial", "-rand_serial", "-in", stem + ".csr", "-out", made.cert,
                "-extfile", stem + ".ext", "-startdate", dates[0], "-enddate", dates[1])
        with open(made.both, "w") as both:
            for path in (made.cert, made.key):
                with open(path) as part:
                    both.write(part.read())
        return made


def serve_tls(server, certificate):
    """Have an http.server (not started yet) speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)


def only(context, version):
    """Have a context speak this version alone; below 1.2 OpenSSL 3 wants to be asked twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Handshakes:
    """A server that shakes hands, in one version of TLS alone, and hangs up; `ends` says how each ended: the
    version, or what was wrong. Use in a `with` block."""

    def __init__(self, certificate, version):
        self._context = only(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), version)
        self._context.load_cert_chain(certificate.cert, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.ends = self._listener.getsockname()[1], []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            try:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self.ends.append(secured.version())
            except OSError as error:  # SSLError is one
                self.ends.append(str(error))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
