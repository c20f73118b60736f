/* An HTTP client that sends what it is told, byte for byte, and a server on a free port: for the tests of
 * http_server. Everything fails the test by itself; nothing waits more than RAW_TIMEOUT_S. */
#ifndef TESTS_RAW_HTTP_H
#define TESTS_RAW_HTTP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "http_server.h"
#include "json.h"
#include "mem.h"

#define HOST "Host: test\r\n"
#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { RAW_TIMEOUT_S = 20, RAW_MAX_BYTES = 4 * 1024 * 1024 };

struct raw_client {
    int fd;
    struct buf received; /* not yet taken */
};

struct raw_reply {
    int status;
    char *head; /* status line and headers */
    char *body; /* with a NUL behind */
    size_t body_len;
};

/* -1 when the connection is refused. */
static inline int raw_dial(unsigned port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct timeval limit = {.tv_sec = RAW_TIMEOUT_S};
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    return -1;
}

static inline struct raw_client raw_connect(unsigned port)
{
    struct raw_client client = {.fd = raw_dial(port)};
    assert_true(client.fd >= 0);
    buf_init(&client.received, RAW_MAX_BYTES);
    return client;
}

static inline void raw_close(struct raw_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    buf_done(&client->received);
}

static inline void raw_send_n(struct raw_client *client, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(client->fd, bytes, len, MSG_NOSIGNAL);
        assert_true(sent > 0);
        bytes += sent;
        len -= (size_t)sent;
    }
}

static inline void raw_send(struct raw_client *client, const char *text)
{
    raw_send_n(client, text, strlen(text));
}

/* False at the end of the connection (closed or reset). */
static inline bool raw_receive(struct raw_client *client)
{
    char bytes[16 * 1024];
    ssize_t got = recv(client->fd, bytes, sizeof bytes, 0);
    if (got < 0)
        assert_int_equal(errno, ECONNRESET); /* EAGAIN: nothing within RAW_TIMEOUT_S */
    if (got <= 0)
        return false;
    buf_append(&client->received, bytes, (size_t)got);
    assert_true(buf_ok(&client->received));
    return true;
}

/* Takes `len` bytes out of what was received. */
static inline char *raw_take(struct raw_client *client, size_t len)
{
    char *taken = mem_copy(client->received.data, len);
    memmove(client->received.data, client->received.data + len, client->received.len - len + 1);
    client->received.len -= len;
    return taken;
}

static inline void raw_reply_done(struct raw_reply *reply)
{
    free(reply->head);
    free(reply->body);
    *reply = (struct raw_reply){0};
}

/* The first header of that name, in a static buffer; NULL when absent. */
static inline const char *raw_header(const struct raw_reply *reply, const char *name)
{
    static _Thread_local char value[4096];
    size_t len = strlen(name);
    for (const char *line = strstr(reply->head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':') {
            const char *start = line + 2 + len + 1 + strspn(line + 2 + len + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(start, "\r"), start);
            return value;
        }
    return NULL;
}

static inline void assert_header(const struct raw_reply *reply, const char *name, const char *value)
{
    const char *found = raw_header(reply, name);
    if (!found && value)
        fail_msg("no %s in %s", name, reply->head);
    if (found && !value)
        fail_msg("unexpected %s: %s", name, found);
    if (value)
        assert_string_equal(found, value);
}

/* Reads one reply; `to_head`: it answers HEAD, so that no body follows. False at the end of the connection.
 */
static inline bool raw_read_reply(struct raw_client *client, bool to_head, struct raw_reply *reply)
{
    char *end;
    *reply = (struct raw_reply){0};
    while (!client->received.len || !(end = strstr(client->received.data, "\r\n\r\n")))
        if (!raw_receive(client))
            return false;
    reply->head = raw_take(client, (size_t)(end - client->received.data) + 4);
    assert_int_equal(sscanf(reply->head, "HTTP/1.1 %d ", &reply->status), 1);
    const char *length = raw_header(reply, "Content-Length");
    reply->body_len = length && !to_head && reply->status != 304 ? strtoul(length, NULL, 10) : 0;
    while (client->received.len < reply->body_len)
        assert_true(raw_receive(client));
    reply->body = reply->body_len ? raw_take(client, reply->body_len) : mem_text("");
    return true;
}

static inline struct raw_reply raw_expect(struct raw_client *client, int status)
{
    struct raw_reply reply;
    if (!raw_read_reply(client, false, &reply))
        fail_msg("connection ended, %d expected", status);
    if (reply.status != status)
        fail_msg("%d expected: %s%s", status, reply.head, reply.body);
    return reply;
}

/* The server closes (or resets) and has sent nothing more. */
static inline void assert_closed(struct raw_client *client)
{
    assert_int_equal(client->received.len, 0);
    assert_false(raw_receive(client));
}

/* One request on a connection of its own. */
static inline struct raw_reply raw_exchange(unsigned port, const char *request, int status)
{
    struct raw_client client = raw_connect(port);
    raw_send(&client, request);
    struct raw_reply reply = raw_expect(&client, status);
    raw_close(&client);
    return reply;
}

static inline void assert_member(const cJSON *object, const char *name, const char *text)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    assert_non_null(member);
    assert_true(cJSON_IsString(member));
    assert_string_equal(member->valuestring, text);
}

/* The reply is a whole problem body (RFC 9457) about `path`; `detail` NULL: any. */
static inline void assert_problem(const struct raw_reply *reply, const char *path, const char *detail)
{
    assert_header(reply, "Content-Type", "application/problem+json");
    assert_header(reply, "Cache-Control", "no-store");
    assert_non_null(raw_header(reply, "X-Request-Id"));
    cJSON *problem = cJSON_Parse(reply->body);
    assert_non_null(problem);
    assert_member(problem, "type", "about:blank");
    assert_member(problem, "instance", path);
    const cJSON *title = cJSON_GetObjectItemCaseSensitive(problem, "title");
    assert_true(cJSON_IsString(title) && title->valuestring[0]);
    assert_int_equal(cJSON_GetObjectItemCaseSensitive(problem, "status")->valueint, reply->status);
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(problem, "detail");
    assert_true(cJSON_IsString(found) && found->valuestring[0]);
    assert_member(problem, "error", found->valuestring);
    if (detail)
        assert_string_equal(found->valuestring, detail);
    cJSON_Delete(problem);
}

/* A handler that answers what it saw, as JSON. */
static inline void raw_echo(struct http_call *call, void *service)
{
    CLEANUP(buf_done) struct buf out;
    size_t len;
    const char *body = http_call_body(call, &len);
    (void)service;
    assert_int_equal(body[len], '\0');
    buf_init(&out, RAW_MAX_BYTES);
    buf_char(&out, '{');
    json_put_name(&out, "method");
    json_put_text(&out, http_call_method(call));
    json_put_name(&out, "path");
    json_put_text(&out, http_call_path(call));
    json_put_name(&out, "param");
    json_put_text(&out, http_call_param(call));
    json_put_name(&out, "queryText");
    json_put_text(&out, http_call_query_text(call));
    json_put_name(&out, "a");
    json_put_text(&out, http_call_query(call, "a"));
    json_put_name(&out, "b");
    json_put_text(&out, http_call_query(call, "b"));
    json_put_name(&out, "ifMatch");
    json_put_text(&out, http_call_header(call, "if-match"));
    json_put_name(&out, "requestId");
    json_put_text(&out, http_call_request_id(call));
    json_put_name(&out, "body");
    json_put_text_n(&out, body, len);
    buf_char(&out, '}');
    http_answer_json(call, 200, &out);
    assert_int_equal(out.len, 0);
}

static inline unsigned raw_free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* Opens the server with the config's gaps filled, on a port that was free; somebody else may be quicker:
 * again. */
static inline struct http_server *raw_server(struct http_server_config config, unsigned *ret_port)
{
    struct http_server *server = NULL;
    struct err err = {.text = ""};
    config.bind = config.bind ? config.bind : "127.0.0.1";
    config.threads = config.threads ? config.threads : 2;
    config.max_body_bytes = config.max_body_bytes ? config.max_body_bytes : 64 * 1024;
    config.max_connections = config.max_connections ? config.max_connections : 1000;
    config.idle_timeout_s = config.idle_timeout_s ? config.idle_timeout_s : 30;
    config.cors_origin = config.cors_origin ? config.cors_origin : "*";
    for (int attempt = 0; attempt < 20; attempt++) {
        *ret_port = config.port = raw_free_port();
        if (http_server_open(&server, &config, &err) == STATUS_OK)
            return server;
    }
    fail_msg("no server: %s", err.text);
    return NULL;
}

#endif
