/* What soirees counts and measures beside what every daemon does (metrics.h): any thread, and GET /metrics
 * shows it. */
#ifndef SOIREES_METERS_H
#define SOIREES_METERS_H

#include <stdbool.h>

#include "http_server.h"
#include "metrics.h"

/* How a publication of a message ended. */
enum { PUBLISH_CONFIRMED, PUBLISH_NACKED, PUBLISH_RETURNED };
extern struct metrics_counter meters_publishes;

/* Open requests that were published once more, and confirmed. */
extern struct metrics_counter meters_sent_again;

/* The broker has confirmed the first message of this request: counts the time since its booking. The id is a
 * UUIDv7, which tells it. */
void meters_confirmed(const char *message_id);

/* A handler: GET /metrics. Its second argument is the struct soirees. */
void meters_get(struct http_call *call, void *service);

#endif
