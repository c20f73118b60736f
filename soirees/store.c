/* Hands each call to the engine that was opened. */
#include "store_internal.h"

enum status store_open(struct store **ret_store, const struct store_config *config, struct err *err)
{
    return config->url && *config->url ? store_postgres_open(ret_store, config, err)
                                       : store_sqlite_open(ret_store, config, err);
}

void store_close(struct store *store)
{
    if (store)
        store->ops->close(store);
}

enum status store_health(struct store *store, int64_t *ret_since_ms, struct err *err)
{
    return store->ops->health(store, ret_since_ms, err);
}

void store_put_metrics(struct store *store, struct buf *out)
{
    store->ops->put_metrics(store, out);
}

void store_on_outbox(struct store *store, void (*wake)(void *arg), void *arg)
{
    store->wake_arg = arg;
    store->wake = wake;
}

void store_write_begun(struct store_write *write)
{
    write->requested = write->store->woken = false;
}

void store_write_ended(struct store_write *write, const struct err *err)
{
    struct store *store = write->store;
    write->err = *err;
    if (write->requested && err->status == STATUS_OK && store->wake && !store->woken) {
        store->woken = true;
        store->wake(store->wake_arg);
    }
    write->done(write);
}

enum status store_get(struct store *store, const char *id, struct soiree *ret_soiree, struct err *err)
{
    return store->ops->get(store, id, ret_soiree, err);
}

enum status store_list(struct store *store, const struct soiree_filter *filter, const struct api_page *page,
                       bool (*row)(void *arg, const struct soiree *soiree), void *arg, struct err *err)
{
    return store->ops->list(store, filter, page, row, arg, err);
}

void store_submit(struct store *store, struct store_write *write)
{
    store->ops->submit(store, write);
}

void store_outbox_look(struct store *store, struct store_outbox *ret_outbox)
{
    store->ops->outbox_look(store, ret_outbox);
}

enum status store_outbox_unsent(struct store *store, int64_t after, size_t max, struct outbox_row *rows,
                                size_t *ret_count, struct err *err)
{
    return store->ops->outbox_unsent(store, after, max, rows, ret_count, err);
}

enum status store_outbox_get(struct store *store, int64_t seq, struct outbox_row *ret_row, struct err *err)
{
    return store->ops->outbox_get(store, seq, ret_row, err);
}

enum status store_outbox_due(struct store *store, int64_t now_ms, struct outbox_row *ret_row, struct err *err)
{
    return store->ops->outbox_due(store, now_ms, ret_row, err);
}

enum status store_outbox_take(struct store *store, int64_t seq, struct err *err)
{
    return store->ops->outbox_take(store, seq, err);
}

void store_outbox_hold(struct store *store, const int64_t *seqs, size_t count)
{
    store->ops->outbox_hold(store, seqs, count);
}

int64_t store_outbox_poll_ms(struct store *store)
{
    return store->ops->outbox_poll_ms(store);
}

void store_confirm(struct store *store, struct store_confirm *confirm)
{
    store->ops->confirm(store, confirm);
}
