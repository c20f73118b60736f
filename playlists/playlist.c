#include "playlist.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ids.h"

#define AT(member) .offset = offsetof(struct playlist, member), .size = sizeof((struct playlist *)0)->member

static const struct json_field fields[] = {
    {"nom", JSON_TEXT, 1, PLAYLIST_NOM_MAX, AT(nom), .required = true},
    {"description", JSON_TEXT, 0, 2000, AT(description), .fallback = "\"\""},
    {"soireeId", JSON_TEXT, 1, 128, AT(soiree_id), .nullable = true},
    {"stylesMusicaux", JSON_TEXTS, 0, PLAYLIST_STYLE_MAX, .max_items = PLAYLIST_STYLES_MAX, AT(styles),
     .fallback = "[]"},
    {"tracks", JSON_TEXTS, 0, PLAYLIST_TRACK_MAX, .max_items = PLAYLIST_TRACKS_MAX, AT(tracks),
     .fallback = "[]"},
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

void playlist_done(struct playlist *playlist)
{
    free(playlist->styles.json);
    free(playlist->tracks.json);
    playlist->styles = playlist->tracks = (struct json_texts){0};
}

enum status playlist_decode(const cJSON *document, enum json_mode mode, struct playlist_change *ret_change,
                            struct problems *problems)
{
    memset(ret_change, 0, sizeof *ret_change);
    return json_decode(document, mode, fields, FIELD_COUNT, &ret_change->values, &ret_change->present,
                       problems);
}

static bool take_texts(struct json_texts *to, struct json_texts *from)
{
    if (strcmp(to->json, from->json) == 0)
        return false;
    free(to->json);
    *to = *from;
    from->json = NULL;
    return true;
}

static bool take_text(char *to, const char *from, size_t size)
{
    if (strcmp(to, from) == 0)
        return false;
    memcpy(to, from, size);
    return true;
}

bool playlist_apply(struct playlist *playlist, struct playlist_change *change)
{
    bool changed = false;
    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        char *to = (char *)playlist + fields[i].offset, *from = (char *)&change->values + fields[i].offset;
        if (!(change->present & (1U << i)))
            continue;
        if (fields[i].type == JSON_TEXTS)
            changed |= take_texts((struct json_texts *)(void *)to, (struct json_texts *)(void *)from);
        else
            changed |= take_text(to, from, fields[i].size);
    }
    return changed;
}

static void put_fields(struct buf *out, const struct playlist *playlist)
{
    json_put_field(out, "nom", playlist->nom);
    json_put_name(out, "stylesMusicaux");
    buf_text(out, playlist->styles.json);
    json_put_field(out, "description", playlist->description);
    json_put_name(out, "tracks");
    buf_text(out, playlist->tracks.json);
    json_put_field(out, "soireeId", playlist->soiree_id[0] ? playlist->soiree_id : NULL);
}

void playlist_put_json(struct buf *out, const struct playlist *playlist)
{
    buf_char(out, '{');
    json_put_field(out, "id", playlist->id);
    put_fields(out, playlist);
    json_put_field(out, "origine", playlist->origine);
    json_put_time_field(out, "createdAt", playlist->created_ms);
    if (playlist->updated_ms)
        json_put_time_field(out, "updatedAt", playlist->updated_ms);
    buf_char(out, '}');
}

void playlist_put_document(struct buf *out, const struct playlist *playlist)
{
    buf_char(out, '{');
    put_fields(out, playlist);
    buf_char(out, '}');
}
