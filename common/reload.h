/* What a daemon does on SIGHUP: reads CONFIG_FILE, every NAME_FILE and API_TOKENS_FILE anew, checks all of it
 * as at start, and takes over what is live (config.h says which settings are, and why not the others), and
 * what the file of tokens holds. Its name is not live: whether the API is open is decided by a start.
 * Anything wrong: all of it is refused, everything stays as it was, and the log names every problem. The main
 * thread. */
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
