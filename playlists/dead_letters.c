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

enum { RETRY_MS = 1000, RENEW_AFTER = 3 };

/* A message on its way to the dead-letter queue, or to the end of its own. */
struct letter {
    struct dead_letters_settled delivery; /* where it came from */
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
    const char *source, *queue_type;
    char *queue;
    unsigned channel;
    void (*settled)(void *arg, const struct dead_letters_settled *settled);
    void *arg;
    struct letter *letters; /* at most one a consuming channel (prefetch 1) */
    bool queue_doubtful;
};

struct dead_letters *dead_letters_new(const char *queue, const char *queue_type, unsigned channel,
                                      void (*settled)(void *arg, const struct dead_letters_settled *settled),
                                      void *arg)
{
    struct dead_letters *dead = mem_new(sizeof *dead);
    *dead = (struct dead_letters){
        .source = queue,
        .queue_type = queue_type,
        .queue = mem_format("%s.dead", queue),
        .channel = channel,
        .settled = settled,
        .arg = arg,
    };
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
        if (channel && letter->delivery.channel != channel) {
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
    return amqp_queue_ensure(amqp, dead->queue, dead->queue_type) &&
           amqp_channel_begin(amqp, dead->channel) && amqp_channel_confirms(amqp, dead->channel);
}

static void publish(struct dead_letters *dead, struct amqp *amqp, struct letter *letter)
{
    struct amqp_header headers[5];
    size_t count = 0;
    if (letter->delivery.dead) {
        headers[count++] = (struct amqp_header){"x-error", letter->reason};
        headers[count++] = (struct amqp_header){"x-failed-at", letter->failed_at};
        headers[count++] = (struct amqp_header){"x-original-queue", dead->source};
    }
    if (*letter->traceparent)
        headers[count++] = (struct amqp_header){"traceparent", letter->traceparent};
    if (*letter->body_size)
        headers[count++] = (struct amqp_header){"x-body-size", letter->body_size};
    struct amqp_publication publication = {
        .queue = letter->delivery.dead ? dead->queue : dead->source,
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

static struct letter *add(struct dead_letters *dead, const struct amqp_message *message, uint64_t incarnation)
{
    struct letter *letter = mem_new(sizeof *letter);
    *letter = (struct letter){
        .delivery = {.channel = message->channel, .incarnation = incarnation, .tag = message->delivery_tag},
        .message_id = mem_text(message->message_id),
        .type = mem_text(message->type),
        .app_id = mem_text(message->app_id),
        .content_type = mem_text(message->content_type),
        .correlation_id = mem_text(message->correlation_id),
        .traceparent = mem_text(message->traceparent),
        .body = mem_copy(message->body, message->body_len),
        .body_len = message->body_len,
        .next = dead->letters,
    };
    dead->letters = letter;
    return letter;
}

void dead_letters_add(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                      uint64_t incarnation, const char *reason)
{
    struct letter *letter = add(dead, message, incarnation);
    letter->delivery.dead = true;
    letter->reason = mem_text(reason);
    timestamp_format(clock_wall_ms(), letter->failed_at);
    if (message->body_len < message->body_size)
        (void)snprintf(letter->body_size, sizeof letter->body_size, "%" PRIu64, message->body_size);
    log_event(LOG_REPEATED(LOG_ERROR), "message.dead",
              LOG_FIELDS(LOG_TEXT("requestId", letter->message_id), LOG_TEXT("reason", reason)),
              "❌ Erreur traitement, message rejeté: %s (copie dans %s)", reason, dead->queue);
    publish(dead, amqp, letter);
}

bool dead_letters_renew(struct dead_letters *dead, struct amqp *amqp, const struct amqp_message *message,
                        uint64_t incarnation)
{
    if (message->delivery_count < RENEW_AFTER || message->body_len < message->body_size)
        return false;
    log_event(LOG_REPEATED(LOG_INFO), "message.renewed",
              LOG_FIELDS(LOG_TEXT("requestId", message->message_id),
                         LOG_NUMBER("deliveries", message->delivery_count)),
              "🔄 Message déjà livré %lld fois, remis en fin de queue", (long long)message->delivery_count);
    publish(dead, amqp, add(dead, message, incarnation));
    return true;
}

void dead_letters_confirm(struct dead_letters *dead, uint64_t tag, bool multiple, bool ack)
{
    for (struct letter **at = &dead->letters; *at;) {
        struct letter *letter = *at;
        bool meant = letter->tag && (multiple ? letter->tag <= tag : letter->tag == tag);
        if (meant && ack && !letter->returned) {
            *at = letter->next;
            FAILPOINT("dead.confirmed");
            dead->settled(dead->arg, &letter->delivery);
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
        if (!amqp_queue_ensure(amqp, dead->queue, dead->queue_type))
            return;
    }
    for (struct letter *letter = dead->letters; letter; letter = letter->next)
        if (!letter->tag && now_ms >= letter->due_ms)
            publish(dead, amqp, letter);
}
