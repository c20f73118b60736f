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

/* The broker has confirmed a request's message: its first one (the time since the booking counts, which the
 * id, a UUIDv7, tells) or one that was sent `again`. */
void meters_confirmed(const char *message_id, bool again);

/* A handler: GET /metrics. Its second argument is the struct soirees. */
void meters_get(struct http_call *call, void *service);

#endif
