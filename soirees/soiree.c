#include "soiree.h"

#include <stddef.h>
#include <string.h>

#define AT(member) .offset = offsetof(struct soiree, member), .size = sizeof((struct soiree *)0)->member

static const struct json_field fields[] = {
    [SOIREE_CLIENT_ID] = {"clientId", JSON_TEXT, 1, 128, AT(client_id), .required = true},
    [SOIREE_DATE] = {"date", JSON_DATE, AT(date), .required = true},
    [SOIREE_LIEU] = {"lieu", JSON_TEXT, 1, 200, AT(lieu), .required = true},
    [SOIREE_NOMBRE_INVITES] = {"nombreInvites", JSON_INTEGER, 1, 100000, AT(nombre_invites),
                               .required = true},
    [SOIREE_BUDGET] = {"budget", JSON_NUMBER, 0, 1e9, AT(budget), .fallback = "0"},
    [SOIREE_STYLE] = {"styleMusical", JSON_TEXT, 1, 64, AT(style), .fallback = "\"disco\""},
    [SOIREE_STATUT] = {"statut", JSON_TEXT, 1, 32, AT(statut), .fallback = "\"confirmée\""},
    [SOIREE_PLAYLIST_ID] = {"playlistId", JSON_TEXT, 1, 64, AT(playlist_id), .nullable = true},
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

enum status soiree_decode(const cJSON *document, enum json_mode mode, struct soiree_change *ret_change,
                          struct problems *problems)
{
    memset(ret_change, 0, sizeof *ret_change);
    return json_decode(document, mode, fields, FIELD_COUNT, &ret_change->values, &ret_change->present,
                       problems);
}

static bool has(const struct soiree_change *change, enum soiree_field field)
{
    return change->present & (1U << field);
}

/* Copies the field when the change has it and it differs; text and numbers alike, both are plain bytes: texts
 * are zeroed behind their NUL by the decoder. */
static bool take(struct soiree *soiree, const struct soiree_change *change, enum soiree_field field)
{
    char *to = (char *)soiree + fields[field].offset;
    const char *from = (const char *)&change->values + fields[field].offset;
    bool text = fields[field].type == JSON_TEXT || fields[field].type == JSON_DATE;
    if (!has(change, field) || (text ? strcmp(to, from) == 0 : memcmp(to, from, fields[field].size) == 0))
        return false;
    memcpy(to, from, fields[field].size);
    return true;
}

enum soiree_request soiree_apply(struct soiree *soiree, const struct soiree_change *change, bool *ret_changed)
{
    bool changed = false;
    for (int field = 0; field < SOIREE_STYLE; field++)
        changed |= take(soiree, change, (enum soiree_field)field);
    changed |= take(soiree, change, SOIREE_STATUT);
    bool restyled = take(soiree, change, SOIREE_STYLE);
    bool relinked = take(soiree, change, SOIREE_PLAYLIST_ID);
    *ret_changed = changed || restyled || relinked;
    if (relinked && soiree->playlist_id[0])
        return SOIREE_REQUEST_CANCELLED;
    if (!restyled && !relinked)
        return SOIREE_REQUEST_KEPT;
    soiree->playlist_id[0] = '\0';
    return SOIREE_REQUEST_NEW;
}

enum soiree_link soiree_link(const struct soiree *soiree, const char *request_id, const char *playlist_id)
{
    if (strcmp(soiree->playlist_id, playlist_id) == 0)
        return SOIREE_LINK_SAME;
    bool current = soiree->request_id[0] && strcmp(soiree->request_id, request_id) == 0;
    return current && !soiree->playlist_id[0] ? SOIREE_LINK_SET : SOIREE_LINK_REFUSED;
}

static void put_fields(struct buf *out, const struct soiree *soiree)
{
    json_put_field(out, "clientId", soiree->client_id);
    json_put_field(out, "date", soiree->date);
    json_put_field(out, "lieu", soiree->lieu);
    json_put_name(out, "nombreInvites");
    buf_number(out, soiree->nombre_invites);
    json_put_field(out, "playlistId", soiree->playlist_id[0] ? soiree->playlist_id : NULL);
    json_put_name(out, "budget");
    json_put_number(out, soiree->budget);
    json_put_field(out, "statut", soiree->statut);
    json_put_field(out, "styleMusical", soiree->style);
}

void soiree_put_json(struct buf *out, const struct soiree *soiree)
{
    buf_char(out, '{');
    json_put_field(out, "id", soiree->id);
    put_fields(out, soiree);
    json_put_time_field(out, "createdAt", soiree->created_ms);
    if (soiree->updated_ms)
        json_put_time_field(out, "updatedAt", soiree->updated_ms);
    buf_char(out, '}');
}

void soiree_put_document(struct buf *out, const struct soiree *soiree)
{
    buf_char(out, '{');
    put_fields(out, soiree);
    buf_char(out, '}');
}

void soiree_put_message(struct buf *out, const struct soiree *soiree, int64_t now_ms)
{
    buf_char(out, '{');
    json_put_field(out, "soireeId", soiree->id);
    json_put_field(out, "clientId", soiree->client_id);
    json_put_field(out, "style", soiree->style);
    json_put_time_field(out, "timestamp", now_ms);
    buf_char(out, '}');
}
