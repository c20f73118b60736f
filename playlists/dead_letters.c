#include "dead_letters.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "failpoint.h"
#include "ids.h"
#include "log.h"
#include "mem.h"

enum { RETRY_MS = 1000 };

/* A message on its way to the dead-letter queue. */
struct letter {
    unsigned channel; /* where it came from */
    uint64_t delivery_tag, incarnation;
    char *message_id, *type, *app_id, *content_type, *correlation_id, *traceparent, *body, *reason;
    size_t body_len;
    char body_size[24]; /* as it was, where the body is cut; else "" */
    char failed_at[TIMESTAMP_SIZE];

    uint64_t tag;   /* of the copy; 0 = to be published */
    int64_t due_ms; /* when tag is 0 */
    bool returned;
    struct letter *next;
};

struct dead_letters {
    const char *source;
    char *queue;
    unsigned channel;
    void (*drop)(void *arg, unsigned channel, uint64_t incarnation, uint64_t tag);
    void *arg;
    struct letter *letters; /* at most one a consuming channel (prefetch 1) */
    bool queue_doubtful;
};

struct dead_letters *
dead_letters_new(const char *queue, unsigned channel,
                 void (*drop)(void *arg, unsigned channel, uint64_t incarnation, uint64_t tag), void *arg)
{
    struct dead_letters *dead = mem_new(sizeof *dead);
    *dead = (struct dead_letters){
        .source = queue, .queue = mem_format("%s.dead", queue), .channel = channel, .drop = drop, .arg = arg};
    return dead;
}

static void free_letter(struct letter *letter)
{
    free(letter->message_id);
    free(letter->type);
    free(letter->app_id);
    free(letter->content_type);
    free(letter->correlation_id);
    free(letter->traceparent);
    free(letter->body);
    free(letter->reason);
    free(letter);
}

void dead_letters_forget(struct dead_letters *dead, unsigned channel)
{
    for (struct letter **at = &dead->letters; *at;) {
        struct letter *letter = *at;
        if (channel && letter->channel != channel) {
            at = &letter->next;
            continue;
        }
        *at = letter->next;
        free_letter(letter);
    }
}

void dead_letters_down(struct dead_letters *dead)
{
    dead_letters_forget(dead, 0);
}

void dead_letters_free(struct dead_letters *dead)
{
    if (!dead)
        return;
    dead_letters_down(dead);
    free(dead->queue);
    free(dead);
}

bool dead_letters_up(struct dead_letters *dead, struct amqp *amqp)
{
    dead_letters_down(dead);
    dead->queue_doubtful = false;
    return amqp_queue_ensure(amqp, dead->queue, "") && amqp_channel_open(amqp, dead->channel) &&
           amqp_confirm_select(amqp, dead->channel);
}

static void publish(struct dead_letters *dead, struct amqp *amqp, struct letter *letter)
{
    struct amqp_header headers[5] = {
        {"x-error", letter->reason}, {"x-failed-at", letter->failed_at}, {"x-original-queue", dead->source}};
    size_t count = 3;
    if (*letter->traceparent)
        headers[count++] = (struct amqp_header){"traceparent", letter->traceparent};
    if (*letter->body_size)
        headers[count++] = (struct amqp_header){"x-body-size", letter->body_size};
    struct amqp_publication publication = {
        .queue = dead->queue,
        .message_id = letter->message_id,
        .type = letter->type,
        .app_id = letter->app_id,
        .content_type = letter->content_type,
        .correlation_id = letter->correlation_id,
        .headers = headers,
        .header_count = count,
        .body = letter->body,
        .body_len = letter->body_len,
    };
    letter->returned = false;
    FAILPOINT("dead.publish.before");
    if (!amqp_publish(amqp, dead->channel, &publication, &letter->tag))
        letter->tag = 0;
}

void dead_letters_add(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                      uint64_t incarnation, const char *reason)
{
    struct letter *letter = mem_new(sizeof *letter);
    *letter = (struct letter){
        .channel = message->channel,
        .delivery_tag = message->delivery_tag,
        .incarnation = incarnation,
        .message_id = mem_text(message->message_id),
        .type = mem_text(message->type),
        .app_id = mem_text(message->app_id),
        .content_type = mem_text(message->content_type),
        .correlation_id = mem_text(message->correlation_id),
        .traceparent = mem_text(message->traceparent),
        .body = mem_copy(message->body, message->body_len),
        .body_len = message->body_len,
        .reason = mem_text(reason),
        .next = dead->letters,
    };
    timestamp_format(clock_wall_ms(), letter->failed_at);
    if (message->body_len < message->body_size)
        (void)snprintf(letter->body_size, sizeof letter->body_size, "%" PRIu64, message->body_size);
    dead->letters = letter;
    log_event(LOG_REPEATED(LOG_ERROR), "message.dead",
              LOG_FIELDS(LOG_TEXT("requestId", letter->message_id), LOG_TEXT("reason", reason)),
              "❌ Erreur traitement, message rejeté: %s (copie dans %s)", reason, dead->queue);
    publish(dead, amqp, letter);
}

void dead_letters_confirm(struct dead_letters *dead, uint64_t tag, bool multiple, bool ack)
{
    for (struct letter **at = &dead->letters; *at;) {
        struct letter *letter = *at;
        bool meant = letter->tag && (multiple ? letter->tag <= tag : letter->tag == tag);
        if (meant && ack && !letter->returned) {
            *at = letter->next;
            FAILPOINT("dead.confirmed");
            dead->drop(dead->arg, letter->channel, letter->incarnation, letter->delivery_tag);
            FAILPOINT("dead.dropped");
            free_letter(letter);
            continue;
        }
        if (meant) {
            letter->tag = 0;
            letter->due_ms = clock_mono_ms() + RETRY_MS;
        }
        at = &letter->next;
    }
}

void dead_letters_returned(struct dead_letters *dead, int code)
{
    /* A return precedes its confirm, and not every message has an id: all on their way count as returned.
     * What did arrive is copied twice then, as an at-least-once copy may be. */
    for (struct letter *letter = dead->letters; letter; letter = letter->next)
        letter->returned = letter->returned || letter->tag;
    dead->queue_doubtful = true;
    log_event(LOG_REPEATED(LOG_WARN), "message.returned", LOG_FIELDS(LOG_NUMBER("code", code)),
              "⚠️ Message rejeté non routé vers %s (%d)", dead->queue, code);
}

void dead_letters_tick(struct dead_letters *dead, struct amqp *amqp)
{
    int64_t now_ms = clock_mono_ms();
    if (!dead->letters)
        return;
    if (dead->queue_doubtful) {
        dead->queue_doubtful = false;
        if (!amqp_queue_ensure(amqp, dead->queue, ""))
            return;
    }
    for (struct letter *letter = dead->letters; letter; letter = letter->next)
        if (!letter->tag && now_ms >= letter->due_ms)
            publish(dead, amqp, letter);
}
