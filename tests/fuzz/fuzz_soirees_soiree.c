/* The body of POST, PUT and PATCH of a soirée: its bounds, its problems, what is written of it and read back,
 * and what a change does to a stored one. */
#include "fuzz.h"
#include "soirees/soiree.h"

enum { ITEM_MAX_BYTES = 16 * 1024 }; /* what a list plans for each row */

static bool in(unsigned present, enum soiree_field field)
{
    return present & 1U << field;
}

static void must_keep_bounds(const struct soiree *soiree, unsigned present)
{
    must_fit(soiree->client_id, sizeof soiree->client_id, in(present, SOIREE_CLIENT_ID), 128);
    must_fit(soiree->lieu, sizeof soiree->lieu, in(present, SOIREE_LIEU), 200);
    must_fit(soiree->style, sizeof soiree->style, in(present, SOIREE_STYLE), 64);
    must_fit(soiree->statut, sizeof soiree->statut, in(present, SOIREE_STATUT), 32);
    must_fit(soiree->playlist_id, sizeof soiree->playlist_id, 0, 64);
    MUST(in(present, SOIREE_DATE) ? date_valid(soiree->date) : soiree->date[0] == '\0');
    MUST(soiree->nombre_invites >= in(present, SOIREE_NOMBRE_INVITES) && soiree->nombre_invites <= 100000);
    MUST(soiree->budget >= 0 && soiree->budget <= 1e9);
}

/* Decodes into storage full of rubbish; false with the problems checked. */
static bool decode(const cJSON *document, enum json_mode mode, struct soiree_change *change)
{
    struct problems problems;
    memset(change, 'x', sizeof *change);
    memset(&problems, 'x', sizeof problems);
    enum status status = soiree_decode(document, mode, change, &problems);
    if (status == STATUS_OK) {
        MUST(problems.count == 0 && change->present < 1U << (SOIREE_PLAYLIST_ID + 1));
        must_keep_bounds(&change->values, mode == JSON_CREATE ? ~0U : change->present);
        return true;
    }
    MUST(status == STATUS_INVALID);
    must_name_problems(&problems, document);
    return false;
}

static char *document_of(const struct soiree *soiree)
{
    struct buf text;
    buf_init(&text, ITEM_MAX_BYTES);
    soiree_put_document(&text, soiree);
    cJSON_Delete(must_be_json(&text));
    return buf_take(&text);
}

/* What clients see of it is a body that books the same. */
static void must_read_back(const struct soiree *soiree)
{
    CLEANUP(free_text) char *before = document_of(soiree);
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, ITEM_MAX_BYTES);
    soiree_put_json(&text, soiree);
    CLEANUP(json_free) cJSON *document = must_be_json(&text);
    struct soiree_change again;
    MUST(decode(document, JSON_CREATE, &again));
    CLEANUP(free_text) char *after = document_of(&again.values);
    MUST(strcmp(before, after) == 0);
    MUST(cJSON_HasObjectItem(document, "updatedAt") == (soiree->updated_ms != 0));
}

static void must_make_a_message(const struct soiree *soiree)
{
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, ITEM_MAX_BYTES);
    soiree_put_message(&text, soiree, 0);
    CLEANUP(json_free) cJSON *message = must_be_json(&text);
    MUST(cJSON_GetArraySize(message) == 4);
    must_have_text(message, "soireeId", soiree->id);
    must_have_text(message, "clientId", soiree->client_id);
    must_have_text(message, "style", soiree->style);
    must_have_text(message, "timestamp", "1970-01-01T00:00:00.000Z");
}

/* The rules of soiree_apply, told another way. */
static void must_apply(const struct soiree *stored, const struct soiree_change *change)
{
    struct soiree soiree = *stored;
    CLEANUP(free_text) char *before = document_of(stored);
    bool changed = true, again = true;
    enum soiree_request request = soiree_apply(&soiree, change, &changed);
    CLEANUP(free_text) char *after = document_of(&soiree);
    must_keep_bounds(&soiree, ~0U);
    MUST(changed == (strcmp(before, after) != 0));
    MUST(soiree.version == stored->version && soiree.created_ms == stored->created_ms &&
         soiree.updated_ms == stored->updated_ms && strcmp(soiree.id, stored->id) == 0 &&
         strcmp(soiree.request_id, stored->request_id) == 0);

    const char *given = change->values.playlist_id;
    bool restyled = strcmp(soiree.style, stored->style) != 0;
    bool same_link = in(change->present, SOIREE_PLAYLIST_ID) && strcmp(given, stored->playlist_id) == 0;
    bool other_link = in(change->present, SOIREE_PLAYLIST_ID) && !same_link;
    if (other_link && given[0])
        MUST(request == SOIREE_REQUEST_CANCELLED && strcmp(soiree.playlist_id, given) == 0);
    else if (other_link || restyled)
        MUST(request == SOIREE_REQUEST_NEW && soiree.playlist_id[0] == '\0');
    else
        MUST(request == SOIREE_REQUEST_KEPT && strcmp(soiree.playlist_id, stored->playlist_id) == 0);

    /* The playlist that a new style took away differs from the one that is given again. */
    if (restyled && same_link && given[0])
        return;
    MUST(soiree_apply(&soiree, change, &again) == SOIREE_REQUEST_KEPT && !again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct soiree stored = {
        .version = 3,
        .id = "0",
        .client_id = "client",
        .date = "2025-12-25",
        .lieu = "Paris",
        .nombre_invites = 50,
        .style = "disco",
        .statut = "confirmée",
        .playlist_id = "p",
        .request_id = "r",
        .created_ms = 1,
        .updated_ms = 2,
    };
    CLEANUP(json_free) cJSON *document = NULL;
    struct soiree_change change;
    if (size > INPUT_MAX || json_parse(at_the_edge(data, size), size, &document, NULL) != STATUS_OK)
        return 0;
    if (decode(document, JSON_CHANGE, &change)) {
        must_apply(&stored, &change);
        stored.playlist_id[0] = '\0';
        must_apply(&stored, &change);
    }
    if (decode(document, JSON_CREATE, &change)) {
        must_read_back(&change.values);
        must_make_a_message(&change.values);
        must_apply(&stored, &change);
    }
    return 0;
}
