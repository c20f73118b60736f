/* For the tests of common/amqp against a real RabbitMQ: TEST_AMQP_URL (one URL, virtual host "/", a user who
 * may do everything) and TEST_RABBITMQ_UI (http://user:password@host:port of its management API). One file
 * includes it. */
#ifndef TESTS_AMQP_BROKER_H
#define TESTS_AMQP_BROKER_H

#include "amqp_fixture.h"

#include <netdb.h>
#include <sys/socket.h>

#include "amqp_url.h"
#include "buf.h"
#include "cleanup.h"

#define UNUSED __attribute__((unused))

static const char *broker_url;
static struct amqp_url broker, ui; /* broker_url and TEST_RABBITMQ_UI, taken apart */
static char queue[64];             /* the current test's own */

/* ---- the management API ---- */

static void append_base64(struct buf *out, const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i += 3) {
        unsigned long bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < len ? (unsigned char)text[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            buf_char(out, i + j <= len ? digits[bits >> (18 - 6 * j) & 63] : '=');
    }
}

/* Returns the status; the whole answer is left in *answer. */
static UNUSED int call_ui(const char *method, const char *path, const char *body, struct buf *answer)
{
    char port[8];
    (void)snprintf(port, sizeof port, "%d", ui.port);
    struct addrinfo *address = NULL;
    assert_int_equal(getaddrinfo(ui.host, port, &(struct addrinfo){.ai_socktype = SOCK_STREAM}, &address), 0);
    CLEANUP(close_fd) int fd = socket(address->ai_family, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, address->ai_addr, address->ai_addrlen), 0);
    freeaddrinfo(address);

    CLEANUP(buf_done) struct buf request;
    buf_init(&request, 1 << 16);
    CLEANUP(free_text) char *login = mem_format("%s:%s", ui.user, ui.password);
    buf_format(&request, "%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n",
               method, path, strlen(body));
    buf_text(&request, "Authorization: Basic ");
    append_base64(&request, login);
    buf_format(&request, "\r\n\r\n%s", body);
    assert_int_equal(send(fd, request.data, request.len, 0), request.len);

    buf_clear(answer);
    char part[4096];
    ssize_t got;
    while ((got = recv(fd, part, sizeof part, 0)) > 0)
        buf_append(answer, part, (size_t)got);
    int status = 0;
    assert_int_equal(sscanf(buf_get(answer), "HTTP/%*s %d", &status), 1);
    return status;
}

static UNUSED void declare_queue(const char *arguments)
{
    CLEANUP(buf_done) struct buf answer;
    buf_init(&answer, 1 << 16);
    CLEANUP(free_text) char *path = mem_format("/api/queues/%%2F/%s", queue);
    CLEANUP(free_text) char *body = mem_format("{\"durable\": true, \"arguments\": %s}", arguments);
    assert_int_equal(call_ui("PUT", path, body, &answer), 201);
}

static UNUSED int delete_queue(void)
{
    CLEANUP(buf_done) struct buf answer;
    buf_init(&answer, 1 << 16);
    CLEANUP(free_text) char *path = mem_format("/api/queues/%%2F/%s", queue);
    return call_ui("DELETE", path, "", &answer);
}

/* The "name" of the first object (none has another inside) that has `wanted` in it, after its opening quote.
 */
static const char *find_connection(const char *list, const char *wanted)
{
    const char *found = strstr(list, wanted);
    while (found && found > list && *found != '{')
        found--;
    const char *name = found ? strstr(found, "\"name\":\"") : NULL;
    return name ? name + strlen("\"name\":\"") : NULL;
}

/* Closes a connection of this name; the API knows of one a few seconds after it was made. */
static UNUSED void close_connection_named(const char *name)
{
    CLEANUP(buf_done) struct buf answer;
    buf_init(&answer, 1 << 22);
    CLEANUP(free_text) char *wanted = mem_format("\"user_provided_name\":\"%s\"", name);
    int64_t end = clock_mono_ms() + PATIENCE_S * 1000;
    for (;;) {
        assert_int_equal(call_ui("GET", "/api/connections?columns=user_provided_name,name", "", &answer),
                         200);
        const char *id = find_connection(buf_get(&answer), wanted);
        if (!id) {
            assert_true(clock_mono_ms() < end);
            (void)nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
            continue;
        }
        CLEANUP(buf_done) struct buf path;
        buf_init(&path, 4096);
        buf_text(&path, "/api/connections/");
        for (; *id && *id != '"'; id++)
            buf_format(&path, *id == ' ' || *id == '>' ? "%%%02X" : "%c", (unsigned char)*id);
        assert_int_equal(call_ui("DELETE", buf_get(&path), "", &answer), 204);
        return;
    }
}

/* ---- what the sessions do ---- */

static UNUSED bool ensure(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_queue_ensure(amqp, queue, "");
}

static UNUSED bool open_for_publishing(struct amqp *amqp, void *arg)
{
    return ensure(amqp, arg) && amqp_channel_begin(amqp, 1) && amqp_channel_confirms(amqp, 1);
}

static UNUSED bool open_for_consuming(struct amqp *amqp, void *arg)
{
    return ensure(amqp, arg) && amqp_channel_begin(amqp, 2) && amqp_consume(amqp, 2, queue, 1);
}

static UNUSED bool open_for_both(struct amqp *amqp, void *arg)
{
    return open_for_publishing(amqp, arg) && open_for_consuming(amqp, arg);
}

struct batch {
    unsigned count;
    struct amqp_publication publication;
    uint64_t last_tag;
};

static UNUSED bool publish(struct amqp *amqp, void *arg)
{
    struct batch *batch = arg;
    batch->publication.queue = batch->publication.queue ? batch->publication.queue : queue;
    for (unsigned i = 0; i < batch->count; i++) {
        if (!amqp_publish(amqp, 1, &batch->publication, &batch->last_tag))
            return false;
    }
    return true;
}

static UNUSED void publish_text(struct session *session, unsigned count, const char *text)
{
    struct batch batch = {.count = count, .publication = {.body = text, .body_len = strlen(text)}};
    assert_true(session_do(session, publish, &batch));
}

static UNUSED bool ack_on_2(struct amqp *amqp, void *arg)
{
    return amqp_ack(amqp, 2, *(uint64_t *)arg);
}

static UNUSED bool nack_on_2(struct amqp *amqp, void *arg)
{
    return amqp_nack_drop(amqp, 2, *(uint64_t *)arg);
}

static UNUSED bool look(struct amqp *amqp, void *arg)
{
    return amqp_queue_look(amqp, queue, arg);
}

/* The queue's state, once it has as many messages as that: acks take effect after they were sent. */
static UNUSED struct amqp_queue wait_for_messages(struct session *session, uint32_t messages)
{
    struct amqp_queue found;
    int64_t end = clock_mono_ms() + PATIENCE_S * 1000;
    do {
        assert_true(clock_mono_ms() < end);
        assert_true(session_do(session, look, &found));
    } while (found.messages != messages);
    return found;
}

static UNUSED void wait_for_consumers(struct session *session, uint32_t consumers)
{
    struct amqp_queue found;
    int64_t end = clock_mono_ms() + PATIENCE_S * 1000;
    do {
        assert_true(clock_mono_ms() < end);
        assert_true(session_do(session, look, &found));
    } while (found.consumers != consumers);
}

/* ---- the programs ---- */

static UNUSED int name_queue(void **state)
{
    static unsigned number;
    (void)state;
    (void)snprintf(queue, sizeof queue, "unit-%d-%u", (int)getpid(), ++number);
    return 0;
}

static UNUSED int remove_queue(void **state)
{
    (void)state;
    (void)delete_queue();
    return 0;
}

static void test_skipped_without_a_broker(void **state)
{
    (void)state;
    print_message("TEST_AMQP_URL and TEST_RABBITMQ_UI do not name a RabbitMQ: nothing is tested here\n");
    skip();
}

/* True when both URLs are there; a wrong one ends the program. */
static bool find_broker(void)
{
    static struct amqp_urls urls, ui_urls;
    const char *ui_url = getenv("TEST_RABBITMQ_UI");
    broker_url = getenv("TEST_AMQP_URL");
    if (!broker_url || !broker_url[0] || !ui_url || !ui_url[0])
        return false;
    CLEANUP(free_text)
    char *as_amqp = mem_format("amqp%s", strncmp(ui_url, "http", 4) == 0 ? ui_url + 4 : ui_url);
    struct err err = {0};
    if (amqp_urls_parse(&urls, broker_url, &err) != STATUS_OK ||
        amqp_urls_parse(&ui_urls, as_amqp, &err) != STATUS_OK) {
        fprintf(stderr, "TEST_AMQP_URL, TEST_RABBITMQ_UI: %s\n", err.text);
        exit(1);
    }
    broker = urls.items[0];
    ui = ui_urls.items[0];
    return true;
}

/* With a queue name of its own for each test, the queue removed afterwards. */
#define broker_test(function) cmocka_unit_test_setup_teardown(function, name_queue, remove_queue)

static int run_broker_tests(const struct CMUnitTest *tests, size_t count)
{
    static const struct CMUnitTest skipped[] = {cmocka_unit_test(test_skipped_without_a_broker)};
    if (!find_broker())
        return cmocka_run_group_tests(skipped, NULL, NULL);
    return _cmocka_run_group_tests("broker", tests, count, NULL, NULL);
}

#endif
