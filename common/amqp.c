#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "amqp_internal.h"
#include "backoff.h"
#include "cleanup.h"
#include "ids.h"
#include "mem.h"
#include "metrics.h"
#include "pulse.h"

enum {
    RETRY_BASE_MS = 500,
    RETRY_MAX_MS = 30000,
    STEADY_MS = 10000,     /* a connection that lived this long was a success: the backoff begins anew */
    FRAMES_PER_TURN = 512, /* then tick() has its turn, however much comes in */
    HEARTBEAT_MAX_S = 3600,
};

enum { CONNECTION_MADE, CONNECTION_LOST, CONNECTION_FAILED };
static struct metrics_counter connections = {
    .name = "amqp_connections_total",
    .help = "Connections to RabbitMQ: made, lost after that, and tries that failed.",
    .label = "event",
    .values = {"made", "lost", "failed"},
};

void amqp_put_metrics(struct buf *out)
{
    metrics_put_counter(out, &connections);
}

/* ---- the object ---- */

static enum status check_config(const struct amqp_config *config, struct err *err)
{
    if (config->heartbeat_s < 1 || config->heartbeat_s > HEARTBEAT_MAX_S)
        return err_set(err, STATUS_INVALID, "the RabbitMQ heartbeat is not in 1..%d s", HEARTBEAT_MAX_S);
    if (config->channels < 1 || config->channels > AMQP_CHANNELS_MAX)
        return err_set(err, STATUS_INVALID, "the number of RabbitMQ channels is not in 1..%d",
                       AMQP_CHANNELS_MAX);
    bool cert = config->cert_file && config->cert_file[0], key = config->key_file && config->key_file[0];
    if (cert != key)
        return err_set(err, STATUS_INVALID,
                       "a RabbitMQ client certificate needs its key file, and the reverse");
    return STATUS_OK;
}

static char *copy_or_empty(const char *text)
{
    return mem_text(text ? text : "");
}

static void shuffle(struct amqp *amqp)
{
    for (size_t i = amqp->urls.count - 1; i > 0; i--) {
        size_t other = random_below((uint32_t)i + 1);
        size_t moved = amqp->order[i];
        amqp->order[i] = amqp->order[other];
        amqp->order[other] = moved;
    }
}

enum status amqp_new(struct amqp **ret_amqp, const struct amqp_config *config,
                     const struct amqp_handlers *handlers, void *arg, struct err *err)
{
    CLEANUP(amqp_urls_done) struct amqp_urls urls = {0};
    enum status status = check_config(config, err);
    if (status == STATUS_OK)
        status = amqp_urls_parse(&urls, config->urls, err);
    if (status != STATUS_OK)
        return status;
    CLEANUP(close_fd) int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0)
        return err_set(err, STATUS_IO, "eventfd: %s", strerror(errno));

    struct amqp *amqp = mem_new(sizeof *amqp);
    amqp->urls = urls;
    urls = (struct amqp_urls){0};
    for (size_t i = 0; i < amqp->urls.count; i++)
        amqp->order[i] = i;
    shuffle(amqp);
    amqp->ca_file = copy_or_empty(config->ca_file);
    amqp->cert_file = copy_or_empty(config->cert_file);
    amqp->key_file = copy_or_empty(config->key_file);
    amqp->connection_name = copy_or_empty(config->connection_name);
    amqp->heartbeat_s = config->heartbeat_s;
    amqp->channels_max = amqp->channel_count = config->channels;
    amqp->channels_least = config->channels_least ? config->channels_least : config->channels;
    amqp->channels = mem_new((config->channels + 2) * sizeof *amqp->channels);
    amqp->handlers = handlers;
    amqp->arg = arg;
    amqp->wake_fd = wake_fd;
    wake_fd = -1;
    amqp->login_fd = -1;
    pthread_mutex_init(&amqp->mutex, NULL);
    *ret_amqp = amqp;
    return STATUS_OK;
}

void amqp_free(struct amqp *amqp)
{
    if (!amqp)
        return;
    wire_close(amqp, false);
    amqp_urls_done(&amqp->urls);
    free(amqp->ca_file);
    free(amqp->cert_file);
    free(amqp->key_file);
    free(amqp->connection_name);
    free(amqp->channels);
    free(amqp->out.bytes);
    close(amqp->wake_fd);
    pthread_mutex_destroy(&amqp->mutex);
    free(amqp);
}

bool amqp_is_up(const struct amqp *amqp)
{
    return wire_is_up(amqp);
}

bool amqp_is_blocked(const struct amqp *amqp)
{
    return amqp->blocked;
}

const char *amqp_url_shown(const struct amqp *amqp)
{
    return amqp->urls.items[amqp->order[amqp->position]].shown;
}

uint64_t amqp_epoch(const struct amqp *amqp)
{
    return amqp->epoch;
}

/* ---- any thread ---- */

void amqp_wake(struct amqp *amqp)
{
    (void)!write(amqp->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void amqp_stop(struct amqp *amqp)
{
    atomic_store(&amqp->stopping, true);
    pthread_mutex_lock(&amqp->mutex);
    if (amqp->login_fd >= 0)
        (void)shutdown(amqp->login_fd, SHUT_RDWR);
    pthread_mutex_unlock(&amqp->mutex);
    amqp_wake(amqp);
}

bool is_stopping(const struct amqp *amqp)
{
    return atomic_load(&amqp->stopping);
}

/* ---- the loop ---- */

void call_tick(struct amqp *amqp)
{
    if (amqp->handlers->tick)
        amqp->handlers->tick(amqp, amqp->arg);
}

void amqp_tick_in(struct amqp *amqp, int64_t delay_ms)
{
    if (delay_ms < amqp->tick_ms)
        amqp->tick_ms = delay_ms > 0 ? delay_ms : 0;
}

bool amqp_flush(struct amqp *amqp)
{
    return wire_flush(amqp);
}

void amqp_drop(struct amqp *amqp, const char *reason)
{
    wire_fail(amqp, "%s", reason);
}

static void read_what_is_here(struct amqp *amqp)
{
    amqp_frame_t frame;
    for (int i = 0; i < FRAMES_PER_TURN; i++) {
        if (!wire_next(amqp, &frame))
            return;
        dispatch_frame(amqp, &frame);
        wire_release(amqp, frame.channel);
    }
}

/* Runs the connection until it is lost or the stop. The socket is read in every turn, whatever poll() said:
 * that is what sends the heartbeats, notices the missing ones, and empties what TLS holds back. Returns
 * whether up() took it. */
static bool serve(struct amqp *amqp)
{
    amqp->epoch++;
    if (amqp->handlers->up && !amqp->handlers->up(amqp, amqp->arg)) {
        if (!is_stopping(amqp))
            wire_fail(amqp, "connexion abandonnée");
        return false;
    }
    metrics_count(&connections, CONNECTION_MADE);
    while (wire_flush(amqp) && !is_stopping(amqp)) {
        bool at_once = amqp->woken || wire_has_frames(amqp);
        int64_t wait_ms = at_once ? 0 : amqp->tick_ms;
        amqp->tick_ms = AMQP_TICK_MS;
        (void)wire_wait(amqp, amqp_get_sockfd(amqp->connection), POLLIN, wait_ms);
        amqp->woken = false; /* this is the turn */
        read_what_is_here(amqp);
        if (wire_is_up(amqp))
            call_tick(amqp);
    }
    return true;
}

static void wait_for_retry(struct amqp *amqp, int64_t wait_ms)
{
    int64_t end = clock_mono_ms() + wait_ms;
    for (;;) {
        call_tick(amqp);
        int64_t left_ms = end - clock_mono_ms();
        if (left_ms <= 0 || is_stopping(amqp))
            return;
        (void)wire_wait(amqp, -1, 0, left_ms);
    }
}

/* The next URL at once, a wait after each full round. */
static void prepare_next_try(struct amqp *amqp, bool was_steady)
{
    int64_t wait_ms = 0;
    if (was_steady) {
        amqp->tried = 0;
        amqp->rounds = 0;
    }
    amqp->position = (amqp->position + 1) % amqp->urls.count;
    if (++amqp->tried >= amqp->urls.count) {
        /* Wrong credentials stay wrong until somebody comes, and every try is a line in the broker's log. */
        wait_ms = amqp->login_refused ? RETRY_MAX_MS : backoff_ms(amqp->rounds, RETRY_BASE_MS, RETRY_MAX_MS);
        amqp->rounds++;
        amqp->tried = 0;
        amqp->position = 0;
        amqp->login_refused = false;
        shuffle(amqp);
    }
    wait_for_retry(amqp, wait_ms);
}

void amqp_run(struct amqp *amqp)
{
    while (!is_stopping(amqp)) {
        bool was_up = false;
        int64_t up_at = INT64_MAX;
        pulse_beat("amqp", 0);
        if (wire_open(amqp, &amqp->urls.items[amqp->order[amqp->position]])) {
            up_at = clock_mono_ms();
            was_up = serve(amqp);
        }
        bool was_steady = was_up && clock_mono_ms() - up_at >= STEADY_MS;
        wire_close(amqp, is_stopping(amqp));
        if (is_stopping(amqp))
            return;
        metrics_count(&connections, was_up ? CONNECTION_LOST : CONNECTION_FAILED);
        if (amqp->handlers->down)
            amqp->handlers->down(amqp, amqp->arg, amqp->reason, was_up);
        prepare_next_try(amqp, was_steady);
    }
}
