/* What --check looks at in a SQLite database of this service. */
#include "schema.h"
#include "store.h"

/* What every commit keeps true, and the schema does not say. */
static const char *const checks[] = {
    "SELECT 'soirée ' || s.id || ': its open request is not the current one' FROM outbox o"
    " JOIN soirees s ON s.seq = o.soiree_seq WHERE s.request_id IS NOT o.message_id",
    "SELECT 'soirée ' || s.id || ': it has a playlist, and a request for one is open' FROM outbox o"
    " JOIN soirees s ON s.seq = o.soiree_seq WHERE s.playlist_id IS NOT NULL",
    "SELECT 'outbox row ' || seq || ': its message is not JSON' FROM outbox WHERE NOT json_valid(body)",
};

void store_care(struct db_care *ret_care)
{
    *ret_care = (struct db_care){soirees_schema, soirees_schema_count, checks,
                                 sizeof checks / sizeof *checks};
}
