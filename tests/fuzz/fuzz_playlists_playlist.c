/* The body of POST, PUT and PATCH of a playlist: its bounds, its problems, what is written of it and read
 * back, and what a change does to a stored one. */
#include "fuzz.h"
#include "playlists/playlist.h"

enum { ITEM_MAX_BYTES = 4 << 20 };
enum field { NOM, DESCRIPTION, SOIREE_ID, STYLES, TRACKS, FIELD_COUNT };

static bool in(unsigned present, enum field field)
{
    return present & 1U << field;
}

static void must_keep_list(const struct json_texts *texts, bool present, size_t max_items, size_t max_points)
{
    MUST((texts->json != NULL) == present);
    if (!present)
        return;
    CLEANUP(json_free) cJSON *list = NULL;
    MUST(json_parse(texts->json, strlen(texts->json), &list, NULL) == STATUS_OK && cJSON_IsArray(list));
    MUST((size_t)cJSON_GetArraySize(list) == texts->count && texts->count <= max_items);
    const cJSON *item;
    cJSON_ArrayForEach (item, list)
        MUST(cJSON_IsString(item) && utf8_length(item->valuestring) <= max_points);
}

static void must_keep_bounds(const struct playlist *playlist, unsigned present)
{
    must_fit(playlist->nom, sizeof playlist->nom, in(present, NOM), PLAYLIST_NOM_MAX);
    must_fit(playlist->description, sizeof playlist->description, 0, 2000);
    must_fit(playlist->soiree_id, sizeof playlist->soiree_id, 0, 128);
    must_keep_list(&playlist->styles, in(present, STYLES), PLAYLIST_STYLES_MAX, PLAYLIST_STYLE_MAX);
    must_keep_list(&playlist->tracks, in(present, TRACKS), PLAYLIST_TRACKS_MAX, PLAYLIST_TRACK_MAX);
}

static bool decode(const cJSON *document, enum json_mode mode, struct playlist_change *change)
{
    struct problems problems;
    memset(change, 'x', sizeof *change);
    memset(&problems, 'x', sizeof problems);
    enum status status = playlist_decode(document, mode, change, &problems);
    if (status == STATUS_OK) {
        MUST(problems.count == 0 && change->present < 1U << FIELD_COUNT);
        must_keep_bounds(&change->values, mode == JSON_CREATE ? ~0U : change->present);
        return true;
    }
    MUST(status == STATUS_INVALID);
    must_name_problems(&problems, document);
    return false;
}

static char *document_of(const struct playlist *playlist)
{
    struct buf text;
    buf_init(&text, ITEM_MAX_BYTES);
    playlist_put_document(&text, playlist);
    cJSON_Delete(must_be_json(&text));
    return buf_take(&text);
}

/* What clients see of it is a body that makes the same. */
static void must_read_back(const struct playlist *playlist)
{
    CLEANUP(free_text) char *before = document_of(playlist);
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, ITEM_MAX_BYTES);
    playlist_put_json(&text, playlist);
    CLEANUP(json_free) cJSON *document = must_be_json(&text);
    struct playlist_change again;
    MUST(decode(document, JSON_CREATE, &again));
    CLEANUP(free_text) char *after = document_of(&again.values);
    playlist_done(&again.values);
    MUST(strcmp(before, after) == 0);
}

/* A change that is applied twice changes nothing the second time. Takes the first one's lists. */
static void must_apply(struct playlist_change *change, const cJSON *document)
{
    CLEANUP(playlist_done)
    struct playlist stored = {.id = "0", .nom = "Nuit", .origine = "manuelle", .version = 3};
    stored.styles = (struct json_texts){mem_text("[\"disco\"]"), 1};
    stored.tracks = (struct json_texts){mem_text("[]"), 0};
    CLEANUP(free_text) char *before = document_of(&stored);
    bool changed = playlist_apply(&stored, change);
    CLEANUP(free_text) char *after = document_of(&stored);
    must_keep_bounds(&stored, ~0U);
    MUST(changed == (strcmp(before, after) != 0) && stored.version == 3 && strcmp(stored.id, "0") == 0);

    struct playlist_change again;
    MUST(decode(document, JSON_CHANGE, &again) && !playlist_apply(&stored, &again));
    playlist_done(&again.values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct playlist_change change;
    if (size > INPUT_MAX || json_parse(at_the_edge(data, size), size, &document, NULL) != STATUS_OK)
        return 0;
    if (decode(document, JSON_CHANGE, &change))
        must_apply(&change, document);
    playlist_done(&change.values);
    if (decode(document, JSON_CREATE, &change))
        must_read_back(&change.values);
    playlist_done(&change.values);
    return 0;
}
