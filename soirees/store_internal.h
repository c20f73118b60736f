/* What an engine of the store is: a table of what store.h offers, and a struct whose first member is a
 * struct store. Private to the store's files. */
#ifndef SOIREES_STORE_INTERNAL_H
#define SOIREES_STORE_INTERNAL_H

#include "store.h"

/* Each does what the function of its name in store.h says. */
struct store_ops {
    void (*close)(struct store *store);
    enum status (*health)(struct store *store, int64_t *ret_since_ms, struct err *err);
    void (*put_metrics)(struct store *store, struct buf *out);
    enum status (*get)(struct store *store, const char *id, struct soiree *ret_soiree, struct err *err);
    enum status (*list)(struct store *store, const struct soiree_filter *filter, const struct api_page *page,
                        bool (*row)(void *arg, const struct soiree *soiree), void *arg, struct err *err);
    void (*submit)(struct store *store, struct store_write *write);
    void (*outbox_look)(struct store *store, struct store_outbox *ret_outbox);
    enum status (*outbox_unsent)(struct store *store, int64_t after, size_t max, struct outbox_row *rows,
                                 size_t *ret_count, struct err *err);
    enum status (*outbox_get)(struct store *store, int64_t seq, struct outbox_row *ret_row, struct err *err);
    enum status (*outbox_due)(struct store *store, int64_t now_ms, struct outbox_row *ret_row,
                              struct err *err);
    enum status (*outbox_take)(struct store *store, int64_t seq, struct err *err);
    void (*outbox_hold)(struct store *store, const int64_t *seqs, size_t count);
    int64_t (*outbox_poll_ms)(struct store *store);
    void (*confirm)(struct store *store, struct store_confirm *confirm);
};

struct store {
    const struct store_ops *ops;
    void (*wake)(void *arg); /* see store_on_outbox */
    void *wake_arg;
    bool woken; /* by this batch, whose jobs are all run before the first is done; writer's thread */
};

/* Around every run of a write, in the writer's thread: before its first statement, and when the commit or the
 * failure is known. The latter wakes the relay, once a batch, and calls done(). */
void store_write_begun(struct store_write *write);
void store_write_ended(struct store_write *write, const struct err *err);

enum status store_sqlite_open(struct store **ret_store, const struct store_config *config, struct err *err);
enum status store_postgres_open(struct store **ret_store, const struct store_config *config, struct err *err);

#endif
