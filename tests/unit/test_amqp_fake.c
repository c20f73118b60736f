/* common/amqp against an imitation of a broker: what a real one does seldom, late or never. */
#include "amqp_imitation.h"

static bool open_three(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_channel_begin(amqp, 1) && amqp_channel_begin(amqp, 2) && amqp_channel_begin(amqp, 3);
}

static bool look_at_q(struct amqp *amqp, void *arg)
{
    return amqp_queue_look(amqp, "q", arg);
}

/* ---- reading ---- */

static void interleave(struct fake *fake)
{
    (void)await(fake, CHANNEL_OPEN);
    for (unsigned channel = 1; channel <= 3; channel++)
        add_deliver(fake, channel, channel * 10);
    end_frame(fake, begin_frame(fake, HEARTBEAT, 0));
    for (unsigned channel = 3; channel >= 1; channel--)
        add_header(fake, channel, channel == 2 ? 0 : 6);
    add_body(fake, 1, "ab");
    add_body(fake, 3, "xyz");
    add_body(fake, 1, "cdef");
    add_body(fake, 3, "XYZ");
    /* One byte a packet: a frame never comes whole. */
    (void)setsockopt(fake->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    for (size_t i = 0; i < fake->out.len; i++)
        (void)send(fake->fd, fake->out.data + i, 1, MSG_NOSIGNAL);
    buf_clear(&fake->out);
    say_goodbye(fake);
}

static void test_messages_whose_frames_are_mixed_arrive_whole(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, interleave, open_three);
    session_wait(session, e->deliveries == 3);
    assert_int_equal(seen(session, tag_on)[1], 10);
    assert_int_equal(seen(session, tag_on)[2], 20);
    assert_int_equal(seen(session, tag_on)[3], 30);
    assert_string_equal(seen(session, body), "xyzXYZ");
    assert_string_equal(seen(session, message_id), "");
    stop_fake(&fake, session);
}

enum { FLOOD = 100000 };

static void flood(struct fake *fake)
{
    (void)await(fake, CHANNEL_OPEN);
    for (unsigned i = 1; i <= FLOOD; i++)
        add_ack(fake, 1, i);
    flush(fake);
    say_goodbye(fake);
}

static void test_ticks_go_on_in_a_flood(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, flood, open_three);
    session_wait(session, e->acks == FLOOD);
    assert_true(seen(session, ticks) >= 100);
    stop_fake(&fake, session);
}

static void answer_late(struct fake *fake)
{
    unsigned channel = await(fake, QUEUE_DECLARE);
    add_ack(fake, 1, 1);
    add_deliver(fake, 2, 5);
    add_header(fake, 2, 2);
    add_declare_ok(fake, channel, 3, 4);
    add_body(fake, 2, "hi");
    flush(fake);
    say_goodbye(fake);
}

static bool look_alone(struct amqp *amqp, void *arg)
{
    struct session *session = arg;
    struct amqp_queue found = {0};
    return amqp_queue_look(amqp, "q", &found) && found.messages == 3 && found.consumers == 4 &&
           seen(session, acks) == 0;
}

static void test_what_comes_in_during_a_look_is_handled_after_it(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, answer_late, open_three);
    assert_true(session_do(session, look_alone, session));
    session_wait(session, e->acks == 1 && e->deliveries == 1);
    assert_string_equal(seen(session, body), "hi");
    stop_fake(&fake, session);
}

static void add_message(struct fake *fake, unsigned channel, uint64_t tag, const char *body)
{
    add_deliver(fake, channel, tag);
    add_header(fake, channel, strlen(body));
    add_body(fake, channel, body);
}

static void send_more_with_each_answer(struct fake *fake)
{
    unsigned channel = await(fake, QUEUE_DECLARE);
    add_message(fake, 2, 1, "first");
    add_message(fake, 2, 2, "second");
    add_message(fake, 2, 3, "third");
    add_declare_ok(fake, channel, 0, 0);
    flush(fake);
    channel = await(fake, QUEUE_DECLARE);
    char fourth[3001] = ""; /* enough to lie over all that came before */
    memset(fourth, '4', sizeof fourth - 1);
    add_message(fake, 2, 4, fourth);
    add_declare_ok(fake, channel, 0, 0);
    flush(fake);
    say_goodbye(fake);
}

static char bodies[32]; /* their beginnings */

static void look_at_the_first(struct amqp *amqp, struct session *session)
{
    (void)snprintf(bodies + strlen(bodies), sizeof bodies - strlen(bodies), "%.6s|", session->events.body);
    if (session->events.deliveries == 1)
        require(look_at_q(amqp, &(struct amqp_queue){0}));
}

static bool look_with_messages(struct amqp *amqp, void *arg)
{
    struct session *session = arg;
    session->on_message = look_at_the_first;
    return look_at_q(amqp, &(struct amqp_queue){0});
}

static void test_what_is_kept_survives_what_is_read_after_it(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, send_more_with_each_answer, open_three);
    assert_true(session_do(session, look_with_messages, session));
    session_wait(session, e->deliveries == 4);
    stop_fake(&fake, session);
    assert_string_equal(bodies, "first|second|third|444444|");
}

static void block_and_unblock(struct fake *fake)
{
    (void)await(fake, CHANNEL_OPEN);
    size_t start = begin_method(fake, 0, CONNECTION_BLOCKED);
    put_text(fake, "low on memory", 1);
    end_frame(fake, start);
    flush(fake);
    (void)await(fake, BASIC_ACK);
    add_simple(fake, 0, CONNECTION_UNBLOCKED);
    flush(fake);
    (void)await(fake, BASIC_ACK);
    say_goodbye(fake);
}

static bool ack_on_1(struct amqp *amqp, void *arg)
{
    return amqp_ack(amqp, 1, *(uint64_t *)arg);
}

static void test_an_alarm_is_told_and_nothing_is_asked_meanwhile(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct amqp_queue found;
    struct session *session = start_fake(&fake, block_and_unblock, open_three);
    session_wait(session, e->blocks == 1);
    assert_string_equal(seen(session, text), "low on memory");
    assert_false(session_do(session, look_at_q, &found));
    assert_true(session_do(session, ack_on_1, &(uint64_t){1}));
    session_wait(session, e->unblocks == 1);
    assert_int_equal(seen(session, downs), 0);
    assert_true(session_do(session, ack_on_1, &(uint64_t){2}));
    stop_fake(&fake, session);
}

/* ---- closing ---- */

static void close_across(struct fake *fake)
{
    (void)await(fake, CHANNEL_OPEN);
    (void)await(fake, CHANNEL_OPEN);
    (void)await(fake, CHANNEL_OPEN);
    unsigned channel = await(fake, CHANNEL_CLOSE);
    require(channel == 2);
    add_deliver(fake, 2, 1); /* void */
    add_header(fake, 2, 0);
    add_close(fake, 2, CHANNEL_CLOSE, 406, "too late");
    flush(fake);
    require(await(fake, CHANNEL_CLOSE_OK) == 2);
    add_simple(fake, 2, CHANNEL_CLOSE_OK);
    flush(fake);
    require(await(fake, CHANNEL_OPEN) == 2);
    add_deliver(fake, 2, 2);
    add_header(fake, 2, 0);
    flush(fake);
    say_goodbye(fake);
}

static bool reopen_2(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_channel_end(amqp, 2) && amqp_channel_begin(amqp, 2);
}

static void test_both_sides_may_close_a_channel_at_once(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, close_across, open_three);
    assert_true(session_do(session, reopen_2, NULL));
    session_wait(session, e->deliveries >= 1);
    assert_int_equal(seen(session, tag), 2);
    assert_int_equal(seen(session, deliveries), 1);
    assert_int_equal(seen(session, closes) + seen(session, downs), 0);
    stop_fake(&fake, session);
}

static void close_during_look(struct fake *fake)
{
    (void)await(fake, QUEUE_DECLARE);
    add_close(fake, 0, CONNECTION_CLOSE, 320, "CONNECTION_FORCED - bye");
    flush(fake);
    (void)await(fake, CONNECTION_CLOSE_OK);
}

static void test_a_loss_during_a_look_is_a_loss(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct amqp_queue found;
    struct session *session = start_fake(&fake, close_during_look, open_three);
    assert_false(session_do(session, look_at_q, &found));
    session_wait(session, e->downs == 1);
    assert_string_equal(seen(session, down_reason),
                        "connexion fermée par RabbitMQ : 320 CONNECTION_FORCED - bye");
    assert_true(seen(session, was_up));
    session_wait(session, e->ups == 2);
    stop_fake(&fake, session);
}

static void swallow(struct fake *fake)
{
    char part[65536];
    while (recv(fake->fd, part, sizeof part, 0) > 0)
        continue;
}

static void test_a_goodbye_without_an_answer_is_not_waited_for_long(void **state)
{
    (void)state;
    struct fake fake = {0};
    struct session *session = start_fake(&fake, swallow, open_three);
    session_wait(session, e->ups == 1);
    assert_in_range(stop_fake(&fake, session), 1500, 3000);
}

static void test_a_login_without_an_answer_does_not_hold_up_a_stop(void **state)
{
    (void)state;
    struct fake fake = {.raw = true};
    struct session *session = start_fake(&fake, swallow, NULL);
    /* The tick of the connect has nothing to do with it: whenever the stop comes, it must be short. */
    assert_in_range(stop_fake(&fake, session), 0, 1000);
    fake = (struct fake){.raw = true};
    session = start_fake(&fake, swallow, NULL);
    (void)nanosleep(&(struct timespec){.tv_nsec = 300 * 1000000}, NULL);
    assert_in_range(stop_fake(&fake, session), 0, 1000);
}

/* ---- peers that are no good ---- */

static void test_a_silent_peer_is_left_after_two_heartbeats(void **state)
{
    (void)state;
    struct fake fake = {.heartbeat_s = 1};
    int64_t start = clock_mono_ms();
    struct session *session = start_fake(&fake, swallow, open_three);
    session_wait(session, e->downs == 1);
    assert_string_equal(seen(session, down_reason), "plus aucun signe de vie (heartbeat)");
    assert_in_range(clock_mono_ms() - start, 1900, 4000);
    stop_fake(&fake, session);
}

static void read_nothing(struct fake *fake)
{
    do {
        end_frame(fake, begin_frame(fake, HEARTBEAT, 0));
        flush(fake);
    } while (!wait_gone(fake, 500));
}

static void read_and_say_nothing(struct fake *fake)
{
    (void)wait_gone(fake, -1);
}

static bool publish_till_refused(struct amqp *amqp, void *arg)
{
    static char body[60000];
    (void)arg;
    struct amqp_publication publication = {.queue = "q", .body = body, .body_len = sizeof body};
    for (int i = 0; i < 10000; i++) {
        if (!amqp_publish(amqp, 1, &publication, NULL))
            return true;
    }
    return false;
}

static void test_a_peer_that_reads_nothing_cannot_hold_a_publish(void **state)
{
    (void)state;
    struct fake fake = {.heartbeat_s = 60};
    struct session *session = start_fake(&fake, read_nothing, open_three);
    int64_t start = clock_mono_ms();
    assert_true(session_do(session, publish_till_refused, NULL));
    assert_in_range(clock_mono_ms() - start, 9000, 12000);
    session_wait(session, e->downs == 1);
    assert_string_equal(seen(session, down_reason), "RabbitMQ ne lit plus ce qui lui est envoyé");
    stop_fake(&fake, session);
}

/* Here the library's own publish would wait for ever. */
static void test_a_dead_peer_cannot_hold_a_publish(void **state)
{
    (void)state;
    struct fake fake = {.heartbeat_s = 1};
    struct session *session = start_fake(&fake, read_and_say_nothing, open_three);
    int64_t start = clock_mono_ms();
    assert_true(session_do(session, publish_till_refused, NULL));
    assert_in_range(clock_mono_ms() - start, 1000, 5000);
    session_wait(session, e->downs == 1);
    assert_string_equal(seen(session, down_reason), "plus aucun signe de vie (heartbeat)");
    stop_fake(&fake, session);
}

static const char *bad_kind;

static void misbehave(struct fake *fake)
{
    if (strcmp(bad_kind, "http") == 0) {
        buf_text(&fake->out, "HTTP/1.1 400 Bad Request\r\n\r\n");
    } else if (strcmp(bad_kind, "end") == 0) {
        end_frame(fake, begin_frame(fake, HEARTBEAT, 0));
        fake->out.data[fake->out.len - 1] = 'x';
    } else if (strcmp(bad_kind, "channel") == 0) {
        add_deliver(fake, 500, 1);
    } else if (strcmp(bad_kind, "body") == 0) {
        (void)await(fake, CHANNEL_OPEN);
        add_body(fake, 1, "x");
    } else if (strcmp(bad_kind, "long") == 0) {
        (void)await(fake, CHANNEL_OPEN);
        add_deliver(fake, 1, 1);
        add_header(fake, 1, 2);
        add_body(fake, 1, "xyz");
    } else if (strcmp(bad_kind, "twice") == 0) {
        (void)await(fake, CHANNEL_OPEN);
        add_deliver(fake, 1, 1);
        add_deliver(fake, 1, 2);
    }
    flush(fake);
    swallow(fake);
}

static void test_what_is_not_amqp_ends_the_connection(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *reason;
        bool raw;
        unsigned channel_max;
    } cases[] = {
        {"http", "ce n'est pas de l'AMQP 0-9-1 valide (invalid AMQP data)", true, 0},
        {"end", "ce n'est pas de l'AMQP 0-9-1 valide (invalid AMQP data)", false, 0},
        {"channel", "trame sur un canal inconnu (500)", false, 0},
        {"body", "RabbitMQ envoie un contenu hors d'un message", false, 0},
        {"long", "RabbitMQ envoie un message plus long qu'annoncé", false, 0},
        {"twice", "RabbitMQ commence un message avant la fin du précédent", false, 0},
        {"few", "RabbitMQ n'ouvre que 5 canaux, il en faut 9", false, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake fake = {.raw = cases[i].raw, .channel_max = cases[i].channel_max};
        bad_kind = cases[i].kind;
        struct session *session = start_fake(&fake, misbehave, open_three);
        session_wait(session, e->downs == 1);
        assert_string_equal(seen(session, down_reason), cases[i].reason);
        assert_int_equal(seen(session, deliveries), 0);
        stop_fake(&fake, session);
    }
}

/* A port whose queue of new connections is full answers nothing, as a host that is not there. */
static void test_ticks_go_on_and_a_stop_is_heard_while_connecting(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listen_fd = socket(AF_INET, SOCK_STREAM, 0), first_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listen_fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listen_fd, 0), 0);
    assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(connect(first_fd, (struct sockaddr *)&address, size), 0);
    char url[64];
    (void)snprintf(url, sizeof url, "amqp://127.0.0.1:%d", ntohs(address.sin_port));
    struct session *session = session_start(url);
    session_wait(session, e->ticks >= 3);
    assert_int_equal(seen(session, downs), 0);
    int64_t start = clock_mono_ms();
    session_stop(session);
    assert_in_range(clock_mono_ms() - start, 0, 400);
    session = session_start(url);
    session_wait(session, e->downs == 1);
    assert_string_equal(seen(session, down_reason), "délai dépassé");
    session_stop(session);
    close(first_fd);
    close(listen_fd);
}

static void test_a_closed_port_is_said_and_tried_again(void **state)
{
    (void)state;
    struct session *session = session_start("amqp://u:S3cret@127.0.0.1:1");
    session_wait(session, e->downs == 3);
    assert_string_equal(seen(session, down_reason), "connexion refusée");
    assert_int_equal(seen(session, epoch), 0);
    assert_int_equal(seen(session, ups), 0);
    int64_t start = clock_mono_ms();
    session_stop(session);
    assert_in_range(clock_mono_ms() - start, 0, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_whose_frames_are_mixed_arrive_whole),
        cmocka_unit_test(test_ticks_go_on_in_a_flood),
        cmocka_unit_test(test_what_comes_in_during_a_look_is_handled_after_it),
        cmocka_unit_test(test_what_is_kept_survives_what_is_read_after_it),
        cmocka_unit_test(test_an_alarm_is_told_and_nothing_is_asked_meanwhile),
        cmocka_unit_test(test_both_sides_may_close_a_channel_at_once),
        cmocka_unit_test(test_a_loss_during_a_look_is_a_loss),
        cmocka_unit_test(test_a_goodbye_without_an_answer_is_not_waited_for_long),
        cmocka_unit_test(test_a_login_without_an_answer_does_not_hold_up_a_stop),
        cmocka_unit_test(test_a_silent_peer_is_left_after_two_heartbeats),
        cmocka_unit_test(test_a_peer_that_reads_nothing_cannot_hold_a_publish),
        cmocka_unit_test(test_a_dead_peer_cannot_hold_a_publish),
        cmocka_unit_test(test_what_is_not_amqp_ends_the_connection),
        cmocka_unit_test(test_ticks_go_on_and_a_stop_is_heard_while_connecting),
        cmocka_unit_test(test_a_closed_port_is_said_and_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
