/* The body of a message from any producer. */
#include "fuzz.h"
#include "playlists/message.h"

static void must_keep_bounds(const struct message *message)
{
    must_fit(message->soiree_id, sizeof message->soiree_id, 1, 128);
    must_fit(message->style, sizeof message->style, 1, PLAYLIST_STYLE_MAX);
    must_fit(message->client_id, sizeof message->client_id, 0, MESSAGE_SHOWN_MAX);
    must_fit(message->timestamp, sizeof message->timestamp, 0, MESSAGE_SHOWN_MAX);
}

static void must_mean(const struct message *message, const cJSON *document)
{
    const cJSON *style = cJSON_GetObjectItemCaseSensitive(document, "style");
    bool given = cJSON_IsString(style) && style->valuestring[0];
    must_have_text(document, "soireeId", message->soiree_id);
    MUST(given || !style || cJSON_IsNull(style) || cJSON_IsString(style));
    MUST(strcmp(message->style, given ? style->valuestring : "disco") == 0);
}

static void must_read_back(const struct message *message)
{
    CLEANUP(buf_done) struct buf text;
    struct message again;
    buf_init(&text, MESSAGE_BODY_MAX);
    buf_char(&text, '{');
    json_put_field(&text, "soireeId", message->soiree_id);
    json_put_field(&text, "clientId", message->client_id);
    json_put_field(&text, "style", message->style);
    json_put_field(&text, "timestamp", message->timestamp);
    buf_char(&text, '}');
    MUST(buf_ok(&text) && message_decode(buf_get(&text), text.len, text.len, &again, NULL) == STATUS_OK);
    MUST(strcmp(message->soiree_id, again.soiree_id) == 0 && strcmp(message->style, again.style) == 0);
    MUST(strcmp(message->client_id, again.client_id) == 0 &&
         strcmp(message->timestamp, again.timestamp) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message message;
    struct err err = {0};
    CLEANUP(json_free) cJSON *document = NULL;
    if (size > INPUT_MAX)
        return 0;
    const char *body = at_the_edge(data, size);
    enum status status = message_decode(body, size, size, &message, &err);
    must_tell(&err, status);
    bool is_json = json_parse(body, size, &document, NULL) == STATUS_OK;
    MUST((status == STATUS_MALFORMED) == !is_json);
    MUST(status == STATUS_OK || status == STATUS_MALFORMED || status == STATUS_INVALID);
    if (status == STATUS_OK) {
        must_keep_bounds(&message);
        must_mean(&message, document);
        must_read_back(&message);
    }
    /* a body of which not all was kept */
    MUST(message_decode(body, size, MESSAGE_BODY_MAX + 1, &message, NULL) == STATUS_TOO_LARGE);
    return 0;
}
