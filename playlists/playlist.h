/* A playlist: its fields, their rules, its JSON. Pure: no I/O, no clock, no globals. */
#ifndef PLAYLISTS_PLAYLIST_H
#define PLAYLISTS_PLAYLIST_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "json.h"

/* A text of at most `points` code points, with its NUL. */
#define TEXT_SIZE(points) (4 * (points) + 1)

enum {
    PLAYLIST_NOM_MAX = 200,
    PLAYLIST_STYLES_MAX = 20,
    PLAYLIST_STYLE_MAX = 64,
    PLAYLIST_TRACKS_MAX = 500,
    PLAYLIST_TRACK_MAX = 300,
};

struct playlist {
    int64_t seq; /* the order of commits; pages go by it */
    int64_t version;
    char id[TEXT_SIZE(64)];
    char nom[TEXT_SIZE(PLAYLIST_NOM_MAX)];
    char description[TEXT_SIZE(2000)];
    char soiree_id[TEXT_SIZE(128)];   /* "" = null */
    char origine[16];                 /* "lagmaster-pro", "defaut", "manuelle" */
    struct json_texts styles, tracks; /* owned: playlist_done */
    int64_t created_ms, updated_ms;   /* updated_ms 0: never changed */
};

/* Frees what it owns; a zeroed one is fine. For CLEANUP(). */
void playlist_done(struct playlist *playlist);

/* A decoded request body: the fields that were in it (bits in the order of the field table). */
struct playlist_change {
    unsigned present;
    struct playlist values; /* playlist_done */
};

/* INVALID with every problem. JSON_CREATE fills in the defaults. *ret_change is the caller's either way. */
enum status playlist_decode(const cJSON *document, enum json_mode mode, struct playlist_change *ret_change,
                            struct problems *problems);

/* Applies a change (taking its lists); returns whether any field became another. */
bool playlist_apply(struct playlist *playlist, struct playlist_change *change);

/* The playlist as clients see it. */
void playlist_put_json(struct buf *out, const struct playlist *playlist);

/* The fields that a client gave, canonical: two bodies that mean the same playlist give the same text. */
void playlist_put_document(struct buf *out, const struct playlist *playlist);

#endif
