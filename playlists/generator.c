#include "generator.h"

#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "cleanup.h"
#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "meters.h"

enum { REPLY_MAX_BYTES = 1 << 20, TRACKS_MAX_BYTES = 4 << 20 };

/* ---- what a playlist is made of ---- */

static void put_cut(struct buf *out, const char *text, size_t max_points)
{
    json_put_text_n(out, text, utf8_prefix(text, max_points));
}

static void copy_cut(char *out, size_t size, const char *text, size_t max_points)
{
    CLEANUP(free_text) char *cut = mem_copy(text, utf8_prefix(text, max_points));
    (void)text_copy(out, size, cut);
}

static void set_styles(struct playlist *playlist, const char *style)
{
    CLEANUP(buf_done) struct buf json;
    buf_init(&json, 4096);
    buf_char(&json, '[');
    put_cut(&json, style, PLAYLIST_STYLE_MAX);
    buf_char(&json, ']');
    playlist->styles = (struct json_texts){.json = buf_take(&json), .count = 1};
}

static bool is_text(const cJSON *value)
{
    return cJSON_IsString(value) && *value->valuestring;
}

static bool are_texts(const cJSON *list)
{
    const cJSON *item = NULL;
    if (!cJSON_IsArray(list) || !list->child)
        return false;
    cJSON_ArrayForEach (item, list) {
        if (!is_text(item))
            return false;
    }
    return true;
}

enum status generator_parse(const char *reply, size_t len, struct playlist *playlist, struct err *err)
{
    CLEANUP(json_free) cJSON *document = NULL;
    if (json_parse(reply, len, &document, err) != STATUS_OK)
        return err_set(err, STATUS_PROTOCOL, "réponse qui n'est pas du JSON valide");
    const cJSON *style = cJSON_GetObjectItemCaseSensitive(document, "style");
    const cJSON *title = cJSON_GetObjectItemCaseSensitive(document, "title");
    const cJSON *tracks = cJSON_GetObjectItemCaseSensitive(document, "tracks");
    if (!cJSON_IsObject(document) || !is_text(style) || !is_text(title) || !are_texts(tracks))
        return err_set(err, STATUS_PROTOCOL, "réponse qui n'est pas {style, title, tracks}");

    CLEANUP(buf_done) struct buf json;
    buf_init(&json, TRACKS_MAX_BYTES);
    size_t count = 0;
    buf_char(&json, '[');
    for (const cJSON *track = tracks->child; track && count < PLAYLIST_TRACKS_MAX;
         track = track->next, count++) {
        if (count)
            buf_char(&json, ',');
        put_cut(&json, track->valuestring, PLAYLIST_TRACK_MAX);
    }
    buf_char(&json, ']');
    copy_cut(playlist->nom, sizeof playlist->nom, title->valuestring, PLAYLIST_NOM_MAX);
    set_styles(playlist, style->valuestring);
    playlist->tracks = (struct json_texts){.json = buf_take(&json), .count = count};
    (void)text_copy(playlist->origine, sizeof playlist->origine, "lagmaster-pro");
    return STATUS_OK;
}

/* Appends the style with its first letter in upper case, whatever the alphabet. */
static void put_capitalised(struct buf *out, const char *style)
{
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    mbstate_t in = {0}, to = {0};
    wchar_t first = 0;
    char upper[MB_LEN_MAX];
    size_t read = utf8 ? mbrtowc(&first, style, strlen(style), &in) : 0;
    size_t written = read > 0 && read <= MB_LEN_MAX ? wcrtomb(upper, (wchar_t)towupper((wint_t)first), &to)
                                                    : 0;
    if (utf8) {
        (void)uselocale(before);
        freelocale(utf8);
    }
    bool known = written > 0 &&
                 written <= MB_LEN_MAX; /* both calls answer (size_t)-1 and -2 for what they refuse */
    if (known)
        buf_append(out, upper, written);
    buf_text(out, style + (known ? read : 0));
}

void generator_default(const char *style, struct playlist *playlist)
{
    static const char *const moods[] = {"Vibes", "Energy", "Dreams"};
    CLEANUP(buf_done) struct buf title, tracks, track;
    buf_init(&title, 1024);
    buf_init(&tracks, 8192);
    buf_init(&track, 1024);
    put_capitalised(&title, style);
    buf_text(&title, " Mix - Default");
    copy_cut(playlist->nom, sizeof playlist->nom, buf_get(&title), PLAYLIST_NOM_MAX);
    set_styles(playlist, style);
    for (int i = 0; i < 3; i++) {
        buf_clear(&track);
        buf_format(&track, "Track %d - %s %s", i + 1, style, moods[i]);
        buf_char(&tracks, i ? ',' : '[');
        json_put_text(&tracks, buf_get(&track));
    }
    buf_char(&tracks, ']');
    playlist->tracks = (struct json_texts){.json = buf_take(&tracks), .count = 3};
    (void)text_copy(playlist->origine, sizeof playlist->origine, "defaut");
}

/* ---- attempts ---- */

#define FIELDS(generation, ...)                                                                              \
    LOG_FIELDS(LOG_TEXT("soireeId", (generation)->soiree_id),                                                \
               LOG_TEXT("requestId", (generation)->request_id), LOG_TRACE((generation)->traceparent),        \
               LOG_NUMBER("attempt", (generation)->failures + 1), __VA_ARGS__)

static char *make_url(const char *base, const char *style)
{
    CLEANUP(buf_done) struct buf url;
    buf_init(&url, 16 * 1024);
    buf_format(&url, "%s%cstyle=", base, strchr(base, '?') ? '&' : '?');
    http_put_encoded(&url, style);
    return buf_take(&url);
}

static void on_reply(struct http_exchange *exchange);

static void try_once(struct generation *generation)
{
    const struct generator *generator = generation->generator;
    generation->began_ms = clock_mono_ms();
    free(generation->url);
    generation->url = make_url(generator->settings.url, generation->style);
    generation->exchange = (struct http_exchange){
        .method = "GET",
        .url = generation->url,
        .headers = {"Accept: application/json", generation->trace_header},
        .timeout_ms = generator->settings.timeout_ms,
        .max_reply_bytes = REPLY_MAX_BYTES,
        .ca_file = generator->ca_file,
        .once = true, /* each call is an attempt that counts */
        .done = on_reply,
    };
    FAILPOINT("generator.call.before");
    http_client_send(generator->client, &generation->exchange);
    FAILPOINT("generator.call.after");
    log_event(generation->failures ? LOG_REPEATED(LOG_INFO) : LOG_INFO, "lagmaster.call",
              FIELDS(generation, LOG_TEXT("style", generation->style)),
              "🎵 Appel API externe (tentative %d/%d) pour style: %s", generation->failures + 1,
              generator->settings.max_attempts, generation->style);
}

static void fall_back(struct generation *generation)
{
    log_event(LOG_REPEATED(LOG_WARN), "lagmaster.fallback",
              LOG_FIELDS(LOG_TEXT("soireeId", generation->soiree_id),
                         LOG_TEXT("requestId", generation->request_id), LOG_TRACE(generation->traceparent),
                         LOG_NUMBER("failures", generation->failures), LOG_TEXT("style", generation->style)),
              "⚠️ Génération de playlist par défaut après échec des tentatives");
    generation->playlist = mem_new(sizeof *generation->playlist);
    generator_default(generation->style, generation->playlist);
    generation->done(generation);
}

static void fail(struct generation *generation, const char *reason)
{
    int64_t took_ms = clock_mono_ms() - generation->began_ms;
    log_event(LOG_REPEATED(LOG_ERROR), "lagmaster.failed",
              FIELDS(generation, LOG_NUMBER("durationMs", took_ms), LOG_TEXT("reason", reason)),
              "❌ Erreur API (tentative %d): %s", generation->failures + 1, reason);
    generation->failures++;
    generation->failed(generation);
}

void generator_go_on(struct generation *generation)
{
    struct http_client *client = generation->generator->client;
    const struct generator_settings *settings = &generation->generator->settings;
    if (generation->failures < settings->max_attempts) {
        log_event(LOG_REPEATED(LOG_INFO), "lagmaster.wait",
                  FIELDS(generation, LOG_NUMBER("delayMs", settings->retry_delay_ms)), "⏳ Retry dans %gs...",
                  (double)settings->retry_delay_ms / 1000);
        http_client_after(client, &generation->timer, settings->retry_delay_ms);
    } else {
        fall_back(generation);
    }
}

static void try_or_fall_back(struct generation *generation)
{
    if (generation->failures < generation->generator->settings.max_attempts)
        try_once(generation);
    else
        fall_back(generation);
}

static void measure(const struct generation *generation, const struct http_exchange *exchange,
                    enum status outcome)
{
    bool answered = exchange->status == STATUS_OK;
    unsigned series = outcome == STATUS_OK                       ? ATTEMPT_OK
                      : exchange->status == STATUS_TIMEOUT       ? ATTEMPT_TIMEOUT
                      : exchange->status == STATUS_NETWORK       ? ATTEMPT_NETWORK
                      : answered && exchange->http_status != 200 ? ATTEMPT_STATUS
                                                                 : ATTEMPT_INVALID;
    metrics_observe(&meters_attempts, series, (clock_mono_ms() - generation->began_ms) * 1000);
}

static void on_reply(struct http_exchange *exchange)
{
    struct generation *generation = OWNER(exchange, struct generation, exchange);
    struct err err = {0};
    FAILPOINT("generator.reply");
    CLEANUP(free_pointer) struct playlist *playlist = mem_new(sizeof *playlist);
    if (exchange->status != STATUS_OK)
        (void)err_set(&err, exchange->status, "%s", exchange->reason);
    else if (exchange->http_status != 200)
        (void)err_set(&err, STATUS_PROTOCOL, "API returned status %ld", exchange->http_status);
    else
        err.status = generator_parse(buf_get(&exchange->reply), exchange->reply.len, playlist, &err);
    measure(generation, exchange, err.status);
    http_exchange_done(exchange);
    if (err.status != STATUS_OK) {
        fail(generation, err.text);
        return;
    }
    generation->playlist = TAKE(playlist);
    int64_t took_ms = clock_mono_ms() - generation->began_ms;
    generation->done(generation); /* first: what follows need not wait for the line */
    log_event(LOG_INFO, "lagmaster.generated", FIELDS(generation, LOG_NUMBER("durationMs", took_ms)),
              "✅ Playlist générée avec succès: %s", generation->playlist->nom);
}

static void on_timer(struct http_timer *timer)
{
    try_or_fall_back(OWNER(timer, struct generation, timer));
}

void generator_change(struct generator *generator, struct generator_settings *settings)
{
    struct generator_settings former = generator->settings;
    generator->settings = *settings;
    *settings = former;
}

void generator_start(const struct generator *generator, struct generation *generation)
{
    generation->generator = generator;
    generation->timer.fire = on_timer;
    generation->trace_header = mem_format("traceparent: %s", generation->traceparent);
    try_or_fall_back(generation);
}

void generation_done(struct generation *generation)
{
    http_exchange_done(&generation->exchange);
    free(generation->url);
    free(generation->trace_header);
    generation->url = generation->trace_header = NULL;
}
