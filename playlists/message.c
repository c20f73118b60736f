#include "message.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "json.h"
#include "mem.h"

/* What the log shows of a field that may be any scalar. */
static enum status show(const cJSON *document, const char *name, char *out, size_t size, struct err *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(document, name);
    if (cJSON_IsString(value)) {
        value->valuestring[utf8_prefix(value->valuestring, MESSAGE_SHOWN_MAX)] = '\0';
        (void)text_copy(out, size, value->valuestring);
    } else if (cJSON_IsNumber(value)) {
        (void)snprintf(out, size, "%.17g", value->valuedouble);
    } else if (cJSON_IsBool(value)) {
        (void)text_copy(out, size, cJSON_IsTrue(value) ? "true" : "false");
    } else if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        return err_set(err, STATUS_INVALID, "%s n'est pas une valeur simple", name);
    }
    return STATUS_OK;
}

enum status message_decode(const char *body, size_t len, size_t body_size, struct message *ret_message,
                           struct err *err)
{
    CLEANUP(json_free) cJSON *document = NULL;
    memset(ret_message, 0, sizeof *ret_message);
    if (body_size > MESSAGE_BODY_MAX)
        return err_set(err, STATUS_TOO_LARGE, "corps de %zu octets, %d au plus", body_size, MESSAGE_BODY_MAX);
    enum status status = json_parse(body, len, &document, err);
    if (status != STATUS_OK)
        return status;
    if (!cJSON_IsObject(document))
        return err_set(err, STATUS_INVALID, "le corps n'est pas un objet JSON");

    const cJSON *id = cJSON_GetObjectItemCaseSensitive(document, "soireeId");
    size_t length = cJSON_IsString(id) ? utf8_length(id->valuestring) : 0;
    if (length < 1 || length > 128)
        return err_set(err, STATUS_INVALID, "soireeId doit être un texte de 1 à 128 caractères");
    (void)text_copy(ret_message->soiree_id, sizeof ret_message->soiree_id, id->valuestring);

    const cJSON *style = cJSON_GetObjectItemCaseSensitive(document, "style");
    bool given = style && !cJSON_IsNull(style);
    if (given && (!cJSON_IsString(style) || utf8_length(style->valuestring) > PLAYLIST_STYLE_MAX))
        return err_set(err, STATUS_INVALID, "style doit être un texte d'au plus %d caractères",
                       PLAYLIST_STYLE_MAX);
    (void)text_copy(ret_message->style, sizeof ret_message->style,
                    given && *style->valuestring ? style->valuestring : "disco");

    status = show(document, "clientId", ret_message->client_id, sizeof ret_message->client_id, err);
    if (status == STATUS_OK)
        status = show(document, "timestamp", ret_message->timestamp, sizeof ret_message->timestamp, err);
    return status;
}
