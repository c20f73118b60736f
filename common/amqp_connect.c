#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "amqp_internal.h"
#include "cleanup.h"
#include "ids.h"
#include "mem.h"

enum {
    CONNECT_MS = 5000,
    LOGIN_MS = 10000,
    UNACKED_MS = 20000,
    MANY_CHANNELS = 16,
    /* RabbitMQ 4.1 takes no less; the library keeps a page of this size per channel. */
    FRAME_MAX_MANY = 8192,
    FRAME_MAX_FEW = 131072,
};
#define SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

static struct timeval milliseconds(int ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L};
}

/* ---- the socket ---- */

static void fail_errno(struct amqp *amqp, int error)
{
    switch (error) {
    case ECONNREFUSED:
        wire_fail(amqp, "connexion refusée");
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
        wire_fail(amqp, "hôte injoignable");
        break;
    case ETIMEDOUT:
        wire_fail(amqp, "délai dépassé");
        break;
    default:
        wire_fail(amqp, "connexion impossible : %s", strerror(error));
    }
}

/* TCP_USER_TIMEOUT (tcp(7)) ends a connection whose peer takes nothing any more, vanished or with its window
 * closed: the last resort for a send. The library's sockets do not block, so SO_SNDTIMEO would do nothing. */
static void set_options(int fd)
{
    const int on = 1;
    const unsigned unacked_ms = UNACKED_MS;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof unacked_ms);
}

/* 0, or why this address did not take the connection. ECANCELED: stopped. */
static int wait_connected(struct amqp *amqp, int fd, int64_t deadline)
{
    for (;;) {
        int64_t left_ms = deadline - clock_mono_ms();
        if (left_ms <= 0)
            return ETIMEDOUT;
        if (wire_wait(amqp, fd, POLLOUT, left_ms)) {
            int error = 0;
            socklen_t size = sizeof error;
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
        }
        if (is_stopping(amqp))
            return ECANCELED;
        call_tick(amqp);
    }
}

static int connect_address(struct amqp *amqp, const struct addrinfo *address, int64_t deadline, int *ret_fd)
{
    CLEANUP(close_fd)
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return errno;
    set_options(fd);
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
        int error = errno == EINPROGRESS ? wait_connected(amqp, fd, deadline) : errno;
        if (error)
            return error;
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* The library's own connect would neither tell why it failed nor hear a stop. */
static bool open_plain(struct amqp *amqp, const struct amqp_url *url)
{
    char port[8];
    (void)snprintf(port, sizeof port, "%d", url->port);
    struct addrinfo *addresses = NULL;
    int failed = getaddrinfo(url->host, port, &(struct addrinfo){.ai_socktype = SOCK_STREAM}, &addresses);
    if (failed) {
        wire_fail(amqp, "nom d'hôte introuvable (%s)", gai_strerror(failed));
        return false;
    }
    int left = 0, fd = -1, error = 0;
    for (const struct addrinfo *address = addresses; address; address = address->ai_next)
        left++;
    int64_t end = clock_mono_ms() + CONNECT_MS;
    for (const struct addrinfo *address = addresses; address && fd < 0 && error != ECANCELED;
         address = address->ai_next) {
        int64_t now = clock_mono_ms();
        error = connect_address(amqp, address, now + (end - now) / left--, &fd);
    }
    freeaddrinfo(addresses);
    if (fd < 0) {
        fail_errno(amqp, error);
        return false;
    }
    amqp_socket_t *socket = amqp_tcp_socket_new(amqp->connection);
    if (!socket)
        abort();
    amqp_tcp_socket_set_sockfd(socket, fd);
    return true;
}

static bool open_tls(struct amqp *amqp, const struct amqp_url *url)
{
    amqp_socket_t *socket = amqp_ssl_socket_new(amqp->connection);
    if (!socket) {
        wire_fail(amqp, "TLS : OpenSSL ne démarre pas");
        return false;
    }
    /* A key with a pass phrase would ask for it on the terminal. */
    amqp_ssl_socket_set_key_passwd(socket, "");
    const char *ca_file = amqp->ca_file[0] ? amqp->ca_file : SYSTEM_CA_FILE;
    int status = amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST);
    if (status == AMQP_STATUS_OK && amqp_ssl_socket_set_cacert(socket, ca_file) != AMQP_STATUS_OK) {
        wire_fail(amqp, "TLS : autorités illisibles (%s)", ca_file);
        return false;
    }
    if (status == AMQP_STATUS_OK && amqp->cert_file[0] &&
        amqp_ssl_socket_set_key(socket, amqp->cert_file, amqp->key_file) != AMQP_STATUS_OK) {
        wire_fail(amqp, "TLS : certificat ou clé du client illisible (%s, %s)", amqp->cert_file,
                  amqp->key_file);
        return false;
    }
    struct timeval timeout = milliseconds(CONNECT_MS);
    if (status == AMQP_STATUS_OK)
        status = amqp_socket_open_noblock(socket, url->host, url->port, &timeout);
    if (status != AMQP_STATUS_OK) {
        if (status == AMQP_STATUS_SOCKET_ERROR)
            wire_fail(amqp, "connexion refusée ou hôte injoignable");
        wire_fail_status(amqp, status);
        return false;
    }
    set_options(amqp_get_sockfd(amqp->connection));
    return true;
}

/* ---- the login ---- */

static void set_login_fd(struct amqp *amqp, int fd)
{
    pthread_mutex_lock(&amqp->mutex);
    close_fd(&amqp->login_fd);
    amqp->login_fd = fd;
    pthread_mutex_unlock(&amqp->mutex);
}

static void fail_login(struct amqp *amqp, const amqp_rpc_reply_t *reply)
{
    bool refused = reply->reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
                   reply->reply.id == AMQP_CONNECTION_CLOSE_METHOD;
    if (!refused) {
        wire_fail_status(amqp, reply->reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION
                                   ? reply->library_error
                                   : AMQP_STATUS_WRONG_METHOD);
        return;
    }
    const amqp_connection_close_t *close = reply->reply.decoded;
    char text[AMQP_REASON_SIZE / 2];
    bytes_to_text(text, sizeof text, close->reply_text);
    const char *what = "ouverture refusée";
    if (close->reply_code == AMQP_ACCESS_REFUSED)
        what = "identifiants refusés";
    else if (close->reply_code == AMQP_NOT_ALLOWED)
        what = "hôte virtuel refusé";
    amqp->login_refused = amqp->login_refused || close->reply_code == AMQP_ACCESS_REFUSED;
    wire_fail(amqp, "%s : %d %s", what, close->reply_code, text);
    (void)amqp_send_method(amqp->connection, 0, AMQP_CONNECTION_CLOSE_OK_METHOD,
                           &(amqp_connection_close_ok_t){0});
}

static amqp_rpc_reply_t login(struct amqp *amqp, const struct amqp_url *url)
{
    amqp_table_entry_t capabilities[] = {true_entry("consumer_cancel_notify"),
                                         true_entry("connection.blocked")};
    amqp_table_entry_t entries[] = {
        text_entry("product", "Soirées"),
        text_entry("connection_name", amqp->connection_name),
        table_entry("capabilities", (amqp_table_t){.num_entries = 2, .entries = capabilities}),
    };
    amqp_table_t properties = {.num_entries = 3, .entries = entries};
    int frame_max = amqp->channels_max > MANY_CHANNELS ? FRAME_MAX_MANY : FRAME_MAX_FEW;
    return amqp_login_with_properties(amqp->connection, url->vhost, (int)amqp->channels_max + 1, frame_max,
                                      (int)amqp->heartbeat_s, &properties, AMQP_SASL_METHOD_PLAIN, url->user,
                                      url->password);
}

bool wire_login(struct amqp *amqp, const struct amqp_url *url)
{
    amqp_rpc_reply_t reply = login(amqp, url);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        fail_login(amqp, &reply);
        return false;
    }
    int channel_max = amqp_get_channel_max(amqp->connection);
    if (channel_max != 0 && (unsigned)channel_max < amqp->channels_least + 1) {
        wire_fail(amqp, "RabbitMQ n'ouvre que %d canaux, il en faut %u", channel_max,
                  amqp->channels_least + 1);
        return false;
    }
    bool fewer = channel_max != 0 && (unsigned)channel_max < amqp->channels_max + 1;
    amqp->channel_count = fewer ? (unsigned)channel_max - 1 : amqp->channels_max;
    amqp->logged_in = true;
    return true;
}

bool wire_open(struct amqp *amqp, const struct amqp_url *url)
{
    amqp->connection = amqp_new_connection();
    if (!amqp->connection)
        abort();
    struct timeval timeout = milliseconds(LOGIN_MS);
    (void)amqp_set_handshake_timeout(amqp->connection, &timeout);
    amqp->encrypted = url->tls;
    if (!(url->tls ? open_tls(amqp, url) : open_plain(amqp, url)))
        return false;

    set_login_fd(amqp, dup(amqp_get_sockfd(amqp->connection)));
    if (is_stopping(amqp)) { /* from here on amqp_stop() ends the login by itself */
        set_login_fd(amqp, -1);
        wire_fail(amqp, "arrêt en cours");
        return false;
    }
    bool logged_in = wire_login(amqp, url);
    set_login_fd(amqp, -1);
    return logged_in;
}
