/* What is sent over a plain connection, through a socket that takes little at a time. */
#include "amqp_imitation.h"

#include <errno.h>
#include <sys/syscall.h>

enum { PIECES = 10, PIECE_BYTES = 60000, TAKEN_AT_ONCE = 1000, REFUSES_EVERY = 3 };
static char piece[PIECE_BYTES];

/* In place of the C library's, for the program and the libraries it uses. */
ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    static _Thread_local unsigned calls;
    if (flags & MSG_DONTWAIT) {
        if (++calls % REFUSES_EVERY == 0) {
            errno = EAGAIN;
            return -1;
        }
        len = len < TAKEN_AT_ONCE ? len : TAKEN_AT_ONCE;
    }
    return (ssize_t)syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
}

static bool open_one(struct amqp *amqp, void *arg)
{
    (void)arg;
    return amqp_channel_begin(amqp, 1);
}

static bool publish_pieces(struct amqp *amqp, void *arg)
{
    struct amqp_publication publication = {.queue = "q", .body = piece, .body_len = sizeof piece};
    (void)arg;
    for (int i = 0; i < PIECES; i++)
        if (!amqp_publish(amqp, 1, &publication, NULL))
            return false;
    return true;
}

/* Reads frame by frame, in no hurry, so that heartbeats come in between; acks when all of it has come as it
 * was given. */
static void read_slowly(struct fake *fake)
{
    size_t came = 0;
    while (came < (size_t)PIECES * PIECE_BYTES) {
        unsigned char head[7];
        char payload[8192];
        if (!receive(fake, head, sizeof head))
            return;
        size_t len = (size_t)head[5] << 8 | head[6];
        require(len < sizeof payload && receive(fake, payload, len + 1));
        require((unsigned char)payload[len] == FRAME_END);
        if (head[0] == BODY) {
            require(memcmp(payload, piece + came % PIECE_BYTES, len) == 0);
            came += len;
        }
        end_frame(fake, begin_frame(fake, HEARTBEAT, 0));
        flush(fake);
        (void)wait_gone(fake, 10);
    }
    add_ack(fake, 1, 1);
    flush(fake);
    say_goodbye(fake);
}

static void test_what_goes_out_in_parts_arrives_whole(void **state)
{
    (void)state;
    struct fake fake = {.heartbeat_s = 1};
    for (size_t i = 0; i < sizeof piece; i++)
        piece[i] = (char)(i * 31 >> 3);
    struct session *session = start_fake(&fake, read_slowly, open_one);
    assert_true(session_do(session, publish_pieces, NULL));
    session_wait(session, e->acks == 1);
    assert_int_equal(seen(session, downs), 0);
    stop_fake(&fake, session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_goes_out_in_parts_arrives_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
