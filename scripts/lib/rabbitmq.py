"""The broker that the daemons' settings name, for the scripts written in Python."""

import collections
import logging
import re
import ssl
import urllib.parse

import pika
import pika.exceptions
from settings import SettingsError, secret, setting

BLOCKED_TIMEOUT_S = 30

Target = collections.namedtuple("Target", "parameters shown")


class Unreachable(Exception):
    """No broker, or none that lets us in; a line for people."""


def _port(name, text):
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise SettingsError("%s: not a port" % name)
    return int(text)


def _tls(host):
    context = ssl.create_default_context(cafile=setting("RABBITMQ_CA_FILE") or None)
    certificate = setting("RABBITMQ_CERT_FILE")
    if certificate:
        context.load_cert_chain(certificate, setting("RABBITMQ_KEY_FILE") or None)
    return pika.SSLOptions(context, host)


def _target(host, port, user, password, vhost, tls=False):
    try:
        options = _tls(host) if tls else None
    except (OSError, ValueError) as error:
        raise SettingsError("RABBITMQ_CA_FILE, _CERT_FILE, _KEY_FILE: %s" % error)
    parameters = pika.ConnectionParameters(
        host, port, vhost, pika.PlainCredentials(user, password), ssl_options=options,
        # who reads our output page by page may take longer than a heartbeat; TCP watches the connection
        heartbeat=0, tcp_options={"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3},
        socket_timeout=5, stack_timeout=10, blocked_connection_timeout=BLOCKED_TIMEOUT_S)
    shown = "amqp%s://%s:***@%s:%d/%s" % ("s" if tls else "", user, "[%s]" % host if ":" in host else host,
                                          port, "" if vhost == "/" else vhost)
    return Target(parameters, shown)


def _of_url(number, text):
    try:
        url = urllib.parse.urlsplit(text)
        explicit_port = url.port
    except ValueError:
        raise SettingsError("RABBITMQ_URL: URL %d: its host or port is none" % number)
    if url.scheme.lower() not in ("amqp", "amqps") or not url.hostname or url.query or url.fragment:
        raise SettingsError("RABBITMQ_URL: URL %d is not amqp[s]://user:password@host:port/vhost" % number)
    tls = url.scheme.lower() == "amqps"
    user, password = ("guest", "guest") if url.username is None else (url.username, url.password or "")
    return _target(url.hostname, explicit_port or (5671 if tls else 5672), urllib.parse.unquote(user),
                   urllib.parse.unquote(password), urllib.parse.unquote(url.path[1:]) or "/", tls)


def targets():
    """The brokers of RABBITMQ_URL, or the one of RABBITMQ_HOST, _PORT, _USER, _PASS, _VHOST."""
    urls = secret("RABBITMQ_URL")
    if urls:
        return [_of_url(number, text.strip()) for number, text in enumerate(urls.split(","), 1)]
    return [_target(setting("RABBITMQ_HOST", "localhost"),
                    _port("RABBITMQ_PORT", setting("RABBITMQ_PORT", "5672")),
                    setting("RABBITMQ_USER", "admin"), secret("RABBITMQ_PASS", "admin123"),
                    setting("RABBITMQ_VHOST", "/"))]


# ---- the connection

def reason_of(error):
    """What went wrong, in one line."""
    if isinstance(error, pika.exceptions.AMQPConnectionError) and not str(error) and error.args:
        error = error.args[0]
    inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
    while inner:  # pika wraps what happened, sometimes in a list of all addresses it tried
        error = inner[-1] if isinstance(inner, (list, tuple)) else inner
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
    return " ".join((str(error) or repr(error)).split())


def connect(who):
    """A connection to the first broker that lets us in, and the parameters that it took."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    refusals = []
    for target in targets():
        target.parameters.client_properties = {"connection_name": who}
        try:
            return pika.BlockingConnection(target.parameters), target.parameters
        except (pika.exceptions.AMQPError, OSError) as error:
            refusals.append("%s: %s" % (target.shown, reason_of(error)))
    raise Unreachable("no RabbitMQ: " + "; ".join(refusals))


def depth(connection, queue):
    """How many messages are ready in a queue; None when there is no such queue."""
    channel = connection.channel()
    try:
        count = channel.queue_declare(queue, passive=True).method.message_count
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return None
    channel.close()
    return count
