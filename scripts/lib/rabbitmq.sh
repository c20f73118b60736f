# shellcheck shell=bash
# A RabbitMQ of our own: everything it writes is in one folder, it listens on the loopback interface alone,
# and it has an epmd (Erlang's port mapper) of its own, so that stopping it touches no other Erlang program.

# The server itself: Debian's wrapper in /usr/sbin insists on root or the user rabbitmq.
# shellcheck disable=SC2034
RABBITMQ_PROGRAM=/usr/lib/rabbitmq/bin/rabbitmq-server

# rabbitmq_accepts HOST PORT USER PASSWORD VHOST: 0 when an AMQP login succeeds, 1 when somebody answers but
# refuses it (or speaks something else), 2 when nobody listens.
rabbitmq_accepts() {
    "$PYTHON" - "$@" <<'PY'
import logging, socket, sys
import pika
logging.disable(logging.CRITICAL)
host, port, user, password, vhost = sys.argv[1:6]
try:
    socket.create_connection((host, int(port)), 3).close()
except OSError:
    sys.exit(2)
try:
    pika.BlockingConnection(pika.ConnectionParameters(
        host, int(port), vhost, pika.PlainCredentials(user, password),
        connection_attempts=1, socket_timeout=3, stack_timeout=5)).close()
except Exception:  # whatever it is: not a broker for us
    sys.exit(1)
PY
}

# rabbitmq_configure DIR PORT UI_PORT DIST_PORT EPMD_PORT USER PASSWORD: writes the configuration and leaves
# in RABBITMQ_ENVIRONMENT all that the server's environment is to be: what the caller's shell or /etc/rabbitmq
# set would lead it to other people's files.
rabbitmq_configure() {
    local dir=$1 port=$2 ui_port=$3 dist_port=$4 epmd_port=$5 user=$6 password=$7
    mkdir -p "$dir/log" "$dir/mnesia"
    printf 'listeners.tcp.local = 127.0.0.1:%s\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %s\n' \
        "$port" "$ui_port" >"$dir/rabbitmq.conf"
    printf '[rabbitmq_management].\n' >"$dir/enabled_plugins"
    : >"$dir/rabbitmq-env.conf"
    # shellcheck disable=SC2034
    RABBITMQ_ENVIRONMENT=(
        "PATH=$PATH" "HOME=$dir" LANG=C.UTF-8
        RABBITMQ_NODENAME=soirees@localhost
        "RABBITMQ_DEFAULT_USER=$user" "RABBITMQ_DEFAULT_PASS=$password"
        "RABBITMQ_CONF_ENV_FILE=$dir/rabbitmq-env.conf"
        "RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf"
        "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/advanced.config"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins"
        "RABBITMQ_MNESIA_BASE=$dir/mnesia" "RABBITMQ_LOG_BASE=$dir/log"
        "RABBITMQ_PID_FILE=$dir/rabbitmq.pid"
        "RABBITMQ_DIST_PORT=$dist_port" "ERL_EPMD_PORT=$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"
    )
}
