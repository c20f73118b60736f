#include "meters.h"

#include "amqp.h"
#include "consul.h"
#include "ids.h"
#include "relay.h"
#include "routes.h"
#include "service.h"
#include "store.h"

struct metrics_counter meters_publishes = {
    .name = "soirees_publishes_total",
    .help = "Messages published, by what the broker said: confirmed, refused, or not routed to any queue.",
    .label = "outcome",
    .values = {"confirmed", "nacked", "returned"},
};

static struct metrics_counter sent_again = {
    .name = "soirees_requests_sent_again_total",
    .help = "Requests that stayed open for REQUEST_AGAIN_AFTER_S and were published again.",
};

static struct metrics_histogram confirm_durations = {
    .name = "soirees_commit_to_confirm_seconds",
    .help = "From a booking's transaction to the broker's confirm of its message.",
    .scale = &metrics_slow,
};

void meters_confirmed(const char *message_id, bool again)
{
    int64_t made_ms = uuid_time_ms(message_id);
    if (again)
        metrics_count(&sent_again, 0);
    else if (made_ms >= 0)
        metrics_observe(&confirm_durations, 0, (clock_wall_ms() - made_ms) * 1000);
}

static void put_outbox(struct buf *out, struct store *store)
{
    static const char *const name = "soirees_outbox_rows";
    struct store_outbox outbox;
    store_outbox_look(store, &outbox);
    metrics_put_head(
        out, name, "gauge",
        "Rows of the outbox: messages that wait for the broker, requests that wait for their playlist.");
    metrics_put_value(out, name, "state=\"unsent\"", (double)outbox.unsent);
    metrics_put_value(out, name, "state=\"open\"", (double)outbox.open);
    double age_s = outbox.oldest_ms < 0 ? 0 : (double)(clock_wall_ms() - outbox.oldest_ms) / 1000;
    metrics_put_gauge(out, "soirees_outbox_oldest_unsent_seconds",
                      "Age of the oldest message that the broker has not confirmed; 0: there is none.",
                      age_s > 0 ? age_s : 0);
}

static void put_all(struct buf *out, void *service)
{
    struct soirees *soirees = service;
    int64_t since;
    http_server_put_metrics(soirees->server, out);
    put_outbox(out, soirees->store);
    metrics_put_counter(out, &meters_publishes);
    metrics_put_counter(out, &sent_again);
    metrics_put_histogram(out, &confirm_durations);
    metrics_put_state(out, "amqp_state", "Connection to RabbitMQ: 1 for the present state.", relay_states,
                      relay_state(soirees->relay, &since));
    amqp_put_metrics(out);
    consul_put_metrics(soirees->consul, out);
    store_put_metrics(soirees->store, out);
}

void meters_get(struct http_call *call, void *service)
{
    service_answer_metrics(call, "soirees", put_all, service);
}
