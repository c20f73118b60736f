/* A booking: its fields, their rules, what a change does to its request for a playlist, its JSON. Pure: no
 * I/O, no clock, no globals. */
#ifndef SOIREES_SOIREE_H
#define SOIREES_SOIREE_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "ids.h"
#include "json.h"

/* A text of at most `points` code points, with its NUL. */
#define TEXT_SIZE(points) (4 * (points) + 1)

struct soiree {
    int64_t seq; /* the order of commits; pages go by it */
    int64_t version;
    char id[TEXT_SIZE(64)];
    char client_id[TEXT_SIZE(128)];
    char date[11];
    char lieu[TEXT_SIZE(200)];
    int64_t nombre_invites;
    double budget;
    char style[TEXT_SIZE(64)];
    char statut[TEXT_SIZE(32)];
    char playlist_id[TEXT_SIZE(64)]; /* "" = null */
    char request_id[UUID_SIZE];      /* the current request for a playlist; "" = none */
    int64_t created_ms, updated_ms;  /* updated_ms 0: never changed */
};

/* The bits of soiree_change.present, in the order of the field table. */
enum soiree_field {
    SOIREE_CLIENT_ID,
    SOIREE_DATE,
    SOIREE_LIEU,
    SOIREE_NOMBRE_INVITES,
    SOIREE_BUDGET,
    SOIREE_STYLE,
    SOIREE_STATUT,
    SOIREE_PLAYLIST_ID,
};

/* A decoded request body: the fields that were in it. */
struct soiree_change {
    unsigned present;
    struct soiree values;
};

/* INVALID with every problem. JSON_CREATE fills in the defaults. */
enum status soiree_decode(const cJSON *document, enum json_mode mode, struct soiree_change *ret_change,
                          struct problems *problems);

/* What becomes of the booking's request for a playlist. */
enum soiree_request {
    SOIREE_REQUEST_KEPT,
    SOIREE_REQUEST_NEW,      /* a new one becomes current, the old one's unsent message is dropped */
    SOIREE_REQUEST_CANCELLED /* none is current any more */
};

/* Applies a change to *soiree. *ret_changed tells whether any field became another; without that nothing is
 * written. A new style asks for a new playlist; a playlist given by a client wins and cancels; taking one
 * away (null) asks again. Does not touch version, times and request_id. */
enum soiree_request soiree_apply(struct soiree *soiree, const struct soiree_change *change,
                                 bool *ret_changed);

/* What the worker's link (a PATCH with Playlist-Request) does. */
enum soiree_link {
    SOIREE_LINK_SET,     /* the request is current and has no playlist yet */
    SOIREE_LINK_SAME,    /* that playlist is linked already */
    SOIREE_LINK_REFUSED, /* the request is not current, or another playlist is there: 409 */
};
enum soiree_link soiree_link(const struct soiree *soiree, const char *request_id, const char *playlist_id);

/* The booking as clients see it. */
void soiree_put_json(struct buf *out, const struct soiree *soiree);

/* The fields that a client gave, canonical: two bodies that mean the same booking give the same text. */
void soiree_put_document(struct buf *out, const struct soiree *soiree);

/* The body of the message that asks for a playlist. */
void soiree_put_message(struct buf *out, const struct soiree *soiree, int64_t now_ms);

#endif
