/* Hands each call to the engine that was opened. */
#include "store_internal.h"

#include "meters.h"

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

enum status store_get(struct store *store, const char *id, struct playlist *ret_playlist, struct err *err)
{
    return store->ops->get(store, id, ret_playlist, err);
}

enum status store_list(struct store *store, const char *soiree_id, const struct api_page *page,
                       bool (*row)(void *arg, const struct playlist *playlist), void *arg, struct err *err)
{
    return store->ops->list(store, soiree_id, page, row, arg, err);
}

void store_submit(struct store *store, struct store_write *write)
{
    store->ops->submit(store, write);
}

void store_write_ended(struct store_write *write, const struct err *err)
{
    write->err = *err;
    if (write->created && err->status == STATUS_OK)
        meters_created(write->playlist.origine);
    write->done(write);
}

void store_write_done(struct store_write *write)
{
    playlist_done(&write->playlist);
    playlist_done(&write->change.values);
}

void store_pending_look(struct store *store, struct store_pending *ret_pending)
{
    store->ops->pending_look(store, ret_pending);
}

void store_step(struct store *store, struct store_step *step)
{
    store->ops->step(store, step);
}

bool store_begin_first(struct store *store, struct store_step *step)
{
    return store->ops->begin_first(store, step);
}

void store_links(struct store *store, struct store_links *links)
{
    store->ops->links(store, links);
}
