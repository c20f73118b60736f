/* The floor under one worker's cycle on this machine: what is left of it when no service does anything else.
 * For each message, one after the other: one delivery at prefetch 1, one GET of the API, one durable commit
 * of a playlist, one PATCH whose receiver (a thread: another process would cost the same wake-ups) makes one
 * durable commit, one ack. Nothing is validated, retried, logged or looked up twice; all buffers are fixed,
 * both connections stay open.
 *
 * usage: bench_floor FOLDER AMQP_PORT VHOST API_PORT COUNT; prints seconds and CPU from the first delivery to
 * the last ack. The queue must hold COUNT messages. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX_BYTES = 4096, ID_SIZE = 37 };
#define QUEUE "playlist_generation_queue"
#define SCHEMA_SOIREES                                                                                       \
    "CREATE TABLE soirees (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, playlist_id TEXT)"
#define SCHEMA_PLAYLISTS                                                                                     \
    "CREATE TABLE playlists (seq INTEGER PRIMARY KEY, soiree_id TEXT NOT NULL, answer TEXT)"

static void fail(const char *what)
{
    (void)fprintf(stderr, "bench_floor: %s\n", what);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- the two databases ---- */

static sqlite3 *open_database(const char *folder, const char *name, const char *schema)
{
    char path[TEXT_MAX_BYTES];
    sqlite3 *db = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
            SQLITE_OK ||
        sqlite3_exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", NULL, NULL, NULL) !=
            SQLITE_OK ||
        sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
    return statement;
}

/* One statement, one durable commit. */
static void commit(sqlite3_stmt *statement, const char *first, const char *second)
{
    sqlite3_bind_text(statement, 1, first, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, second, -1, SQLITE_STATIC);
    if (sqlite3_step(statement) != SQLITE_DONE)
        fail(sqlite3_errmsg(sqlite3_db_handle(statement)));
    sqlite3_reset(statement);
}

/* ---- HTTP over one kept connection ---- */

/* Reads one message, head and body; returns its body. */
static char *receive(int fd, char text[TEXT_MAX_BYTES])
{
    size_t used = 0;
    for (;;) {
        ssize_t got = read(fd, text + used, TEXT_MAX_BYTES - 1 - used);
        if (got <= 0)
            return NULL;
        used += (size_t)got;
        text[used] = '\0';
        char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        if (end && used >= (size_t)(end + 4 - text) + (length ? strtoul(length + 16, NULL, 10) : 0))
            return end + 4;
    }
}

static void send_text(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail("write");
}

static int connect_to(unsigned port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        fail("connect");
    return fd;
}

/* ---- the receiver of the PATCH ---- */

struct soirees {
    int listener;
    sqlite3 *db;
};

static void *serve(void *arg)
{
    struct soirees *soirees = arg;
    sqlite3_stmt *update = prepare(soirees->db, "UPDATE soirees SET playlist_id = ?2 WHERE id = ?1");
    int fd = accept(soirees->listener, NULL, NULL), on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char text[TEXT_MAX_BYTES], id[ID_SIZE], playlist_id[ID_SIZE];
    for (char *body; (body = receive(fd, text));) {
        if (sscanf(text, "PATCH /api/soirees/%36s ", id) != 1 ||
            sscanf(body, "{\"playlistId\":\"%36[^\"]", playlist_id) != 1)
            fail("not what was sent");
        commit(update, id, playlist_id);
        send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    }
    return NULL;
}

static unsigned start_soirees(struct soirees *soirees)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    pthread_t thread;
    soirees->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (soirees->listener < 0 || bind(soirees->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(soirees->listener, 1) != 0 ||
        getsockname(soirees->listener, (struct sockaddr *)&address, &size) != 0 ||
        pthread_create(&thread, NULL, serve, soirees) != 0)
        fail("listen");
    return ntohs(address.sin_port);
}

/* ---- the worker ---- */

static void check_amqp(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        fail(what);
}

static amqp_connection_state_t consume(unsigned port, const char *vhost)
{
    amqp_connection_state_t amqp = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(amqp);
    if (amqp_socket_open(socket, "127.0.0.1", (int)port) != AMQP_STATUS_OK)
        fail("RabbitMQ");
    check_amqp(amqp_login(amqp, vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "admin", "admin123"), "login");
    amqp_channel_open(amqp, 1);
    check_amqp(amqp_get_rpc_reply(amqp), "channel.open");
    amqp_basic_qos(amqp, 1, 0, 1, 0);
    amqp_basic_consume(amqp, 1, amqp_cstring_bytes(QUEUE), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check_amqp(amqp_get_rpc_reply(amqp), "basic.consume");
    return amqp;
}

/* The next delivery: its soireeId and its tag. */
static uint64_t take(amqp_connection_state_t amqp, char id[ID_SIZE])
{
    amqp_envelope_t envelope;
    char text[TEXT_MAX_BYTES];
    amqp_maybe_release_buffers(amqp);
    check_amqp(amqp_consume_message(amqp, &envelope, NULL, 0), "a delivery");
    (void)snprintf(text, sizeof text, "%.*s", (int)envelope.message.body.len,
                   (char *)envelope.message.body.bytes);
    const char *at = strstr(text, "\"soireeId\"");
    if (!at || sscanf(at, "\"soireeId\": \"%36[^\"]", id) != 1)
        fail("a message without soireeId");
    uint64_t tag = envelope.delivery_tag;
    amqp_destroy_envelope(&envelope);
    return tag;
}

struct worker {
    int api, soirees;
    sqlite3_stmt *insert;
    amqp_connection_state_t amqp;
};

static void cycle(struct worker *worker, const char *id, uint64_t tag, long number)
{
    char text[TEXT_MAX_BYTES], playlist_id[ID_SIZE];
    send_text(worker->api, "GET /generate_playlist?style=disco HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    char *answer = receive(worker->api, text);
    if (!answer)
        fail("the API left");
    commit(worker->insert, id, answer);
    (void)snprintf(playlist_id, sizeof playlist_id, "%036ld", number);
    (void)snprintf(text, sizeof text,
                   "PATCH /api/soirees/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n{\"playlistId\":\"%s\"}",
                   id, strlen("{\"playlistId\":\"\"}") + ID_SIZE - 1, playlist_id);
    send_text(worker->soirees, text);
    if (!receive(worker->soirees, text))
        fail("soirees left");
    if (amqp_basic_ack(worker->amqp, 1, tag, 0) != AMQP_STATUS_OK)
        fail("ack");
}

/* The bookings that the messages are about. */
static void fill(sqlite3 *db, long count)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %ld)"
                   " INSERT INTO soirees (id) SELECT printf('%%036d', i) FROM n",
                   count);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        (void)fprintf(stderr, "usage: bench_floor FOLDER AMQP_PORT VHOST API_PORT COUNT\n");
        return 2;
    }
    long count = strtol(argv[5], NULL, 10);
    struct soirees soirees = {.db = open_database(argv[1], "floor-soirees.db", SCHEMA_SOIREES)};
    fill(soirees.db, count);
    sqlite3 *db = open_database(argv[1], "floor-playlists.db", SCHEMA_PLAYLISTS);
    struct worker worker = {
        .soirees = connect_to(start_soirees(&soirees)),
        .api = connect_to((unsigned)strtoul(argv[4], NULL, 10)),
        .insert = prepare(db, "INSERT INTO playlists (soiree_id, answer) VALUES (?1, ?2)"),
        .amqp = consume((unsigned)strtoul(argv[2], NULL, 10), argv[3]),
    };
    double began = 0, cpu = 0;
    for (long i = 0; i < count; i++) {
        char id[ID_SIZE];
        uint64_t tag = take(worker.amqp, id);
        if (i == 0) {
            began = seconds(CLOCK_MONOTONIC);
            cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        }
        cycle(&worker, id, tag, i);
    }
    printf("{\"seconds\":%.6f,\"cpu_s\":%.6f}\n", seconds(CLOCK_MONOTONIC) - began,
           seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
