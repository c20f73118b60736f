/* What --check looks at in a SQLite database of this service. */
#include "schema.h"
#include "store.h"

/* What every commit keeps true, and the schema does not say. */
static const char *const checks[] = {
    "SELECT 'playlist ' || id || ': styles or tracks are no JSON array' FROM playlists WHERE"
    " iif(json_valid(styles), json_type(styles), '') <> 'array'"
    " OR iif(json_valid(tracks), json_type(tracks), '') <> 'array'",
    "SELECT 'link ' || seq || ': its playlist ' || playlist_id || ' is not there' FROM links"
    " WHERE playlist_id NOT IN (SELECT id FROM playlists)",
};

void store_care(struct db_care *ret_care)
{
    *ret_care = (struct db_care){playlists_schema, playlists_schema_count, checks,
                                 sizeof checks / sizeof *checks};
}
