/* What playlists counts and measures beside what every daemon does (metrics.h): any thread, and GET /metrics
 * shows it. */
#ifndef PLAYLISTS_METERS_H
#define PLAYLISTS_METERS_H

#include "http_server.h"
#include "metrics.h"

/* How a delivery ended: acked; a dead letter; its ack was void, since the connection or channel it came on is
 * gone (the broker delivers it again); held for too long and given back; copied to the end of its queue. */
enum { DELIVERY_ACKED, DELIVERY_DEAD, DELIVERY_VOID, DELIVERY_OVERDUE, DELIVERY_RENEWED };
extern struct metrics_counter meters_deliveries;
/* Of those acked, µs from their arrival. */
extern struct metrics_histogram meters_delivery_durations;

/* Attempts at lagmaster-pro, µs, by outcome: a playlist; another status than 200; a body that is no playlist;
 * no answer in time; no connection. */
enum { ATTEMPT_OK, ATTEMPT_STATUS, ATTEMPT_INVALID, ATTEMPT_TIMEOUT, ATTEMPT_NETWORK };
extern struct metrics_histogram meters_attempts;

/* Playlists stored, by their `origine`. */
void meters_created(const char *origine);

/* How a try to deliver a link ended. */
enum { LINK_DELIVERED, LINK_POINTLESS, LINK_PENDING };
extern struct metrics_counter meters_links;

/* A handler: GET /metrics. Its second argument is the struct playlists. */
void meters_get(struct http_call *call, void *service);

#endif
