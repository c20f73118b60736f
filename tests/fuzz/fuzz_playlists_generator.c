/* The reply of lagmaster-pro, and the default playlist of a style. */
#include "fuzz.h"
#include "playlists/generator.h"

enum { ITEM_MAX_BYTES = 4 << 20 };

/* What was made is a playlist that our own API would take. */
static void must_be_acceptable(const struct playlist *playlist, const char *origine)
{
    CLEANUP(buf_done) struct buf text;
    struct playlist_change change;
    struct problems problems;
    buf_init(&text, ITEM_MAX_BYTES);
    playlist_put_json(&text, playlist);
    CLEANUP(json_free) cJSON *document = must_be_json(&text);
    MUST(playlist_decode(document, JSON_CREATE, &change, &problems) == STATUS_OK);
    MUST(strcmp(change.values.nom, playlist->nom) == 0);
    MUST(strcmp(change.values.styles.json, playlist->styles.json) == 0 && change.values.styles.count == 1);
    MUST(strcmp(change.values.tracks.json, playlist->tracks.json) == 0);
    MUST(change.values.tracks.count == playlist->tracks.count && playlist->tracks.count >= 1);
    MUST(strcmp(playlist->origine, origine) == 0);
    playlist_done(&change.values);
}

/* `kept` is `whole`, or all of it that fits into max_points. */
static void must_be_cut(const char *kept, const char *whole, size_t max_points)
{
    size_t len = strlen(kept);
    MUST(strncmp(kept, whole, len) == 0 && (whole[len] == '\0' || utf8_length(kept) == max_points));
}

static void must_mean(const struct playlist *playlist, const cJSON *reply)
{
    CLEANUP(json_free)
    cJSON *styles = cJSON_Parse(playlist->styles.json),
          *tracks = cJSON_Parse(playlist->tracks.json);
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(reply, "tracks");
    int count = cJSON_GetArraySize(given);
    must_be_cut(playlist->nom, cJSON_GetObjectItemCaseSensitive(reply, "title")->valuestring,
                PLAYLIST_NOM_MAX);
    must_be_cut(cJSON_GetArrayItem(styles, 0)->valuestring,
                cJSON_GetObjectItemCaseSensitive(reply, "style")->valuestring, PLAYLIST_STYLE_MAX);
    MUST(playlist->tracks.count == (size_t)(count < PLAYLIST_TRACKS_MAX ? count : PLAYLIST_TRACKS_MAX));
    const cJSON *track, *of_reply = given->child;
    cJSON_ArrayForEach (track, tracks) {
        must_be_cut(track->valuestring, of_reply->valuestring, PLAYLIST_TRACK_MAX);
        of_reply = of_reply->next;
    }
}

static void try_default(const char *style)
{
    CLEANUP(playlist_done) struct playlist playlist = {.id = "0"};
    generator_default(style, &playlist);
    MUST(playlist.tracks.count == 3);
    must_be_acceptable(&playlist, "defaut");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_MAX)
        return 0;
    const char *text = at_the_edge(data, size);
    CLEANUP(playlist_done) struct playlist playlist = {.id = "0", .nom = "before"};
    const struct playlist untouched = playlist;
    CLEANUP(json_free) cJSON *reply = NULL;
    struct err err = {0};
    enum status status = generator_parse(text, size, &playlist, &err);
    must_tell(&err, status);
    if (status == STATUS_OK) {
        MUST(json_parse(text, size, &reply, NULL) == STATUS_OK);
        must_be_acceptable(&playlist, "lagmaster-pro");
        must_mean(&playlist, reply);
    } else {
        MUST(status == STATUS_PROTOCOL && memcmp(&playlist, &untouched, sizeof playlist) == 0);
    }

    CLEANUP(free_text) char *style = as_text(data, size);
    if (is_utf8(style)) {
        style[utf8_prefix(style, PLAYLIST_STYLE_MAX)] = '\0';
        try_default(style[0] ? style : "disco");
    }
    return 0;
}
