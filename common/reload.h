/* What a daemon does on SIGHUP: reads CONFIG_FILE, every NAME_FILE and API_TOKENS_FILE anew, checks all of it
 * as at start, and takes over what is live. Anything wrong: all of it is refused, everything stays as it was,
 * and the log names every problem. The main thread.
 *
 * Live (the tables' rows say so) are how it logs, how long a stop may take, the workers, what is asked of
 * lagmaster-pro and when, when a request is sent again, the token of the PATCH, and what the file of tokens
 * holds. Not so, and why:
 *   - the port, the database, HTTP_THREADS, the broker and Consul with their logins: opened once, and held;
 *   - SERVICE_NAME, SERVICE_ADDRESS: what others know the process by;
 *   - API_TOKENS_FILE's name, CORS_ORIGIN, METRICS_OPEN, TRUSTED_PROXIES: who may come in at all is decided
 *     by a start, not by a slip in a file that is being edited;
 *   - SOIREES_URL, the files of CAs: borrowed by calls that are under way. */
#ifndef COMMON_RELOAD_H
#define COMMON_RELOAD_H

#include "buf.h"
#include "config.h"
#include "tokens.h"

struct reload {
    struct config *config; /* what runs */
    struct tokens *tokens; /* NULL: the API is open */
    void *owner;
    /* Everything of `config` that is checked beyond single values, as at start; opens the file of tokens. */
    void (*check)(void *owner, const struct config *config, struct tokens **ret_tokens, struct buf *problems);
    /* The live settings may have changed: hands them to whom they concern. */
    void (*changed)(void *owner, const struct config *config);
};

/* One line in the log for what was taken and what needs a restart; that is named again by every reload for as
 * long as it differs. One line a problem where it was refused. */
void reload_run(struct reload *reload);

#endif
