/* lagmaster-pro: a slow and unreliable API that makes playlists. Attempts, checks, and the default playlist
 * when all of them fail. Runs on the http_client loop. */
#ifndef PLAYLISTS_GENERATOR_H
#define PLAYLISTS_GENERATOR_H

#include "http_client.h"
#include "ids.h"
#include "playlist.h"
#include "status.h"

struct generator_settings {
    char *url;
    long timeout_ms; /* of one attempt, in all */
    int max_attempts;
    int64_t retry_delay_ms;
};
struct generator {
    struct http_client *client;
    const char *ca_file;                /* borrowed; "" = the system's CAs */
    struct generator_settings settings; /* the loop's thread alone, once it has begun to generate */
};

/* One request's playlist in the making; embedded in its owner, who keeps it until done(). */
struct generation {
    const char *style, *soiree_id, *request_id, *traceparent; /* borrowed */
    int failures;                                             /* attempts that failed; at first, before now */
    /* Loop's thread. failed(): one attempt more has, and the owner says generator_go_on when it has noted it.
     */
    void (*failed)(struct generation *generation);
    /* The generation and its playlist must outlive the call; they may go from the loop's next task on. */
    void (*done)(struct generation *generation);
    struct playlist *playlist; /* done(): the owner's from here, with nom, styles, tracks, origine */

    const struct generator *generator; /* private from here */
    struct http_exchange exchange;
    struct http_timer timer;
    char *url, *trace_header;
    int64_t began_ms;
};

/* Loop's thread: these settings count from the next attempt on, also for what has failed before; a call that
 * is under way and a wait between two end as they began. `settings` gets the former ones, to be freed. */
void generator_change(struct generator *generator, struct generator_settings *settings);

/* Loop's thread. Always ends in done(): with lagmaster's playlist, or with the default one when max_attempts
 * have failed. */
void generator_start(const struct generator *generator, struct generation *generation);

/* After failed(), once for each. Loop's thread: waits and tries again, or falls back. */
void generator_go_on(struct generation *generation);

/* Frees what a generation holds, also one that never ended. The loop must not have it any more. */
void generation_done(struct generation *generation);

/* Pure: reads {"style", "title", "tracks": [at least one string]}, no text empty; longer texts are cut at a
 * code point. PROTOCOL with a reason when it is anything else; *playlist is then unchanged. */
enum status generator_parse(const char *reply, size_t len, struct playlist *playlist, struct err *err);

/* Pure: the default playlist of a style. */
void generator_default(const char *style, struct playlist *playlist);

#endif
