/* What an engine of the store is: a table of what store.h offers, and a struct whose first member is a
 * struct store. Private to the store's files. */
#ifndef PLAYLISTS_STORE_INTERNAL_H
#define PLAYLISTS_STORE_INTERNAL_H

#include "store.h"

/* Each does what the function of its name in store.h says. */
struct store_ops {
    void (*close)(struct store *store);
    enum status (*health)(struct store *store, int64_t *ret_since_ms, struct err *err);
    void (*put_metrics)(struct store *store, struct buf *out);
    enum status (*get)(struct store *store, const char *id, struct playlist *ret_playlist, struct err *err);
    enum status (*list)(struct store *store, const char *soiree_id, const struct api_page *page,
                        bool (*row)(void *arg, const struct playlist *playlist), void *arg, struct err *err);
    void (*submit)(struct store *store, struct store_write *write);
    void (*pending_look)(struct store *store, struct store_pending *ret_pending);
    void (*step)(struct store *store, struct store_step *step);
    bool (*begin_first)(struct store *store, struct store_step *step);
    void (*links)(struct store *store, struct store_links *links);
};

struct store {
    const struct store_ops *ops;
};

/* The commit or the failure of a write is known: counts what it made, calls done(). The writer's thread. */
void store_write_ended(struct store_write *write, const struct err *err);

enum status store_sqlite_open(struct store **ret_store, const struct store_config *config, struct err *err);
enum status store_postgres_open(struct store **ret_store, const struct store_config *config, struct err *err);

#endif
