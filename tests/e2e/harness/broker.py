"""A RabbitMQ of our own: own node name, ports, data, cookie and port mapper, so that it disturbs no other."""

import json
import os
import shutil
import socket
import urllib.parse

import pika
import requests

from . import description
from .process import Child
from .wait import free_port, wait_until

USER, PASSWORD = "admin", "admin123"
QUEUE = "playlist_generation_queue"
DEAD_QUEUE = "playlist_generation_queue.dead"
SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the plain script: /usr/sbin's wrapper changes the user
START_TIMEOUT_S = 120

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
default_user = {user}
default_pass = {password}
default_vhost = /
# The management figures are as fresh as the tests are impatient.
collect_statistics_interval = 500
management.rates_mode = basic
# Small machines: no alarm because of what else runs there.
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.8
log.console = true
log.console.level = warning
log.file = false
"""


def missing():
    """Why there can be no broker here, or None."""
    if not os.path.exists(SERVER):
        return "RabbitMQ is not installed (%s is missing): run scripts/bootstrap --tests" % SERVER
    return None


class Broker:
    """One RabbitMQ node. start() after kill() or stop() finds its data again. `config` is added to its
    rabbitmq.conf, `erlang` to Erlang's arguments."""

    def __init__(self, folder, config="", erlang="", prometheus=False):
        self.folder, self._erlang = str(folder), erlang
        self.port, self.management_port = free_port(), free_port()
        self.prometheus_port = free_port() if prometheus else None
        self.epmd_port, self.dist_port = free_port(), free_port()
        self.published = set()  # bodies that the tests themselves have published
        os.makedirs(self.folder, exist_ok=True)
        self._write("rabbitmq.conf", CONFIG.format(port=self.port, management_port=self.management_port,
                                                   user=USER, password=PASSWORD) + config
                    + ("prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %d\n" % self.prometheus_port
                       if prometheus else ""))
        self._write("enabled_plugins", "[rabbitmq_management%s].\n" % (",rabbitmq_prometheus" if prometheus else ""))
        self._write("rabbitmq-env.conf", "")
        self.epmd = Child("epmd", ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                          self._env(), os.path.join(self.folder, "epmd.log"))
        self.node = Child("rabbitmq", [SERVER], self._env(), os.path.join(self.folder, "rabbitmq.log"))

    def _write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def _env(self):
        def path(name):
            return os.path.join(self.folder, name)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": self.folder,  # the Erlang cookie
            "RABBITMQ_NODENAME": "e2e%d@localhost" % self.port,
            "RABBITMQ_CONF_ENV_FILE": path("rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": path("rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": path("advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": path("enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": path("mnesia"),
            "RABBITMQ_LOG_BASE": path("log"),
            "RABBITMQ_PID_FILE": path("pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": path("config"),
            "RABBITMQ_SCHEMA_DIR": path("schema"),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server, instead of waiting for it
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 " + self._erlang,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self):
        if not self.epmd.running:
            self.epmd.start()
        self.node.start()

        def answers():
            assert self.node.running, "RabbitMQ ended: " + self.node.log()[-3000:]
            self.api("GET", "/overview")
            with socket.create_connection(("127.0.0.1", self.port), 5):
                return True
        try:
            wait_until(answers, START_TIMEOUT_S, "RabbitMQ answers", interval=0.2)
        except AssertionError as error:
            raise AssertionError("%s\n%s" % (error, self.node.log()[-3000:]))
        return self

    def stop(self):
        if self.node.running:
            self.node.terminate(60)

    def kill(self):
        """SIGKILL, as a crash or a power cut would."""
        self.node.kill()

    def close(self):
        """End everything and remove the data."""
        self.node.kill()
        self.epmd.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def api(self, method, path, body=None):
        """One call of the management API; returns the decoded body, None for an empty one."""
        reply = requests.request(method, "http://127.0.0.1:%d/api%s" % (self.management_port, path),
                                 auth=(USER, PASSWORD), json=body, timeout=20)
        assert reply.status_code < 300, "%s %s: %d %s" % (method, path, reply.status_code, reply.text)
        return reply.json() if reply.content else None

    def root(self):
        """The virtual host that is there from the start."""
        return Vhost(self, "/")

    def vhost(self, name):
        """A new, empty virtual host."""
        self.api("PUT", "/vhosts/" + quote(name))
        self.api("PUT", "/permissions/%s/%s" % (quote(name), USER),
                 {"configure": ".*", "write": ".*", "read": ".*"})
        return Vhost(self, name)


def quote(name):
    return urllib.parse.quote(name, safe="")


class Message:
    """A message taken from a queue: text, properties, redelivered."""

    def __init__(self, method, properties, body):
        self.properties, self.body, self.redelivered = properties, body, method.redelivered
        self.headers = properties.headers or {}

    def json(self):
        return json.loads(self.body)


class Vhost:
    """One virtual host of a broker: what its daemons need to know, and what the tests ask about it."""

    def __init__(self, broker, name):
        self.broker, self.name = broker, name

    def settings(self):
        return {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": str(self.broker.port), "RABBITMQ_USER": USER,
                "RABBITMQ_PASS": PASSWORD, "RABBITMQ_VHOST": self.name}

    def connect(self):
        return pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", self.broker.port, self.name, pika.PlainCredentials(USER, PASSWORD)))

    def declare(self, queue=QUEUE, **arguments):
        """Declare a durable queue as another program would, before our daemons do."""
        connection = self.connect()
        connection.channel().queue_declare(queue, durable=True, arguments=arguments or None)
        connection.close()

    def publish(self, body, properties=None, queue=QUEUE):
        """Publish and wait for the confirm; body is bytes, or something that becomes JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
        self.broker.published.add(body)
        connection = self.connect()
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, properties, mandatory=True)
        connection.close()

    def take(self, queue=QUEUE, count=1, timeout=30, judged=True):
        """Take that many messages off a queue, waiting for it and for them; they are acknowledged. Those of our
        daemons are as they are described."""
        connection = self.connect()
        taken, channels = [], [connection.channel()]

        def all_there():
            while len(taken) < count:
                try:
                    method, properties, body = channels[-1].basic_get(queue, auto_ack=True)
                except pika.exceptions.ChannelClosedByBroker:  # no such queue yet
                    channels.append(connection.channel())
                    return False
                if method is None:
                    return False
                taken.append(Message(method, properties, body))
            return True
        wait_until(all_there, timeout, "%d message(s) in %s" % (count, queue))
        connection.close()
        for message in taken if judged else ():
            self._judge(queue, message)
        return taken

    def _judge(self, queue, message):
        """Messages of our daemons are as they are described."""
        if queue == DEAD_QUEUE:
            description.judge_message("rejet", message.properties, message.body)
        elif queue == QUEUE and message.body not in self.broker.published:
            description.judge_message("soireeReservee", message.properties, message.body)

    def queue(self, queue=QUEUE):
        """The management API's record of a queue, or None when there is no such queue."""
        try:
            return self.broker.api("GET", "/queues/%s/%s" % (quote(self.name), quote(queue)))
        except AssertionError as error:
            if ": 404 " in str(error):
                return None
            raise

    def counters(self, queue=QUEUE):
        """What happened to a queue so far, by the management API: publish, deliver, redeliver, ack, ..."""
        return (self.queue(queue) or {}).get("message_stats", {})

    def depth(self, queue=QUEUE):
        """(ready, consumers) as the queue itself says, at once; (0, 0) when there is no such queue."""
        connection = self.connect()
        try:
            found = connection.channel().queue_declare(queue, passive=True)
            return found.method.message_count, found.method.consumer_count
        except pika.exceptions.ChannelClosedByBroker:
            return 0, 0
        finally:
            connection.close()

    def drained(self, queue=QUEUE):
        """Nothing ready and nothing unacknowledged, by the (late) management figures and the queue itself."""
        record = self.queue(queue)
        return bool(record) and record.get("messages") == 0 and record.get("messages_unacknowledged") == 0 \
            and self.depth(queue)[0] == 0

    def delete_queue(self, queue=QUEUE):
        self.broker.api("DELETE", "/queues/%s/%s" % (quote(self.name), quote(queue)))

    def connections(self):
        """The open connections of this virtual host, as the management API knows them."""
        return self.broker.api("GET", "/vhosts/%s/connections" % quote(self.name))

    def consumers(self, queue=QUEUE):
        """The consumers of one queue; 'prefetch_count' and 'channel_details' are in each."""
        found = self.broker.api("GET", "/consumers/%s" % quote(self.name))
        # the API lists a consumer before it knows its channel
        return [c for c in found if c["queue"]["name"] == queue and c["channel_details"]]

    def close_connections(self):
        """Close every connection of this virtual host, as an administrator can."""
        closed = 0
        for connection in self.connections():
            self.broker.api("DELETE", "/connections/" + quote(connection["name"]))
            closed += 1
        return closed
