#include "daemon.h"

#include <stdlib.h>

#include "log.h"
#include "mem.h"
#include "routes.h"
#include "service.h"

static struct generator_settings generator_settings(const struct config *config)
{
    return (struct generator_settings){
        .url = mem_text(config_text(config, "LAGMASTER_URL")),
        .timeout_ms = config_number(config, "LAGMASTER_TIMEOUT_MS"),
        .max_attempts = (int)config_number(config, "LAGMASTER_MAX_ATTEMPTS"),
        .retry_delay_ms = config_number(config, "LAGMASTER_RETRY_DELAY_MS"),
    };
}

static void new_linker(struct playlists *playlists, const struct config *config)
{
    struct linker_config linker = {
        .client = playlists->client,
        .store = playlists->store,
        .fallback_url = config_text(config, "SOIREES_URL"),
        .ca_file = config_text(config, "SOIREES_CA_FILE"),
        .token = config_text(config, "SOIREES_TOKEN"),
    };
    playlists->linker = linker_new(&linker);
    struct consul_config consul;
    service_consul_config(config, &consul);
    consul.watched = "service-soirees";
    consul.changed = linker_hurry;
    consul.arg = playlists->linker;
    playlists->consul = consul_new(playlists->client, &consul);
}

static enum status new_worker(struct playlists *playlists, const struct config *config, struct err *err)
{
    char *urls = NULL;
    struct worker_config worker = {
        .queue = "playlist_generation_queue",
        .queue_type = config_text(config, "RABBITMQ_QUEUE_TYPE"),
        .workers = (unsigned)config_number(config, "PLAYLIST_WORKERS"),
    };
    playlists->means = (struct delivery_means){
        .client = playlists->client,
        .store = playlists->store,
        .linker = playlists->linker,
        .generator = {.client = playlists->client,
                      .ca_file = config_text(config, "LAGMASTER_CA_FILE"),
                      .settings = generator_settings(config)},
    };
    service_amqp_config(config, playlists->name, WORKER_CHANNELS, &worker.amqp, &urls);
    enum status status = worker_new(&playlists->worker, &worker, &playlists->means, err);
    free(urls);
    return status;
}

/* ---- settings that change while it runs ---- */

static void forget(struct handover *handover)
{
    free(handover->generator.url);
    free(handover->token);
    handover->generator.url = handover->token = NULL;
}

/* The loop's thread. */
static void take_over(struct http_task *task)
{
    struct playlists *playlists = OWNER(task, struct playlists, handover.task);
    struct handover *handover = &playlists->handover;
    pthread_mutex_lock(&handover->mutex);
    generator_change(&playlists->means.generator, &handover->generator);
    linker_change_token(playlists->linker, handover->token);
    forget(handover);
    handover->posted = false;
    pthread_mutex_unlock(&handover->mutex);
}

void daemon_changed(void *service, const struct config *config)
{
    struct playlists *playlists = service;
    struct handover *handover = &playlists->handover;
    pthread_mutex_lock(&handover->mutex);
    forget(handover);
    handover->generator = generator_settings(config);
    handover->token = mem_text(config_text(config, "SOIREES_TOKEN"));
    if (!handover->posted)
        http_client_post(playlists->client, &handover->task);
    handover->posted = true;
    pthread_mutex_unlock(&handover->mutex);
    worker_resize(playlists->worker, (unsigned)config_number(config, "PLAYLIST_WORKERS"));
}

/* ---- life ---- */

/* Everything that a request may touch is there before the port opens; nothing reaches out before it did. */
static enum status open_all(struct playlists *playlists, const struct config *config, struct err *err)
{
    struct store_config store = {
        .path = config_text(config, "DATABASE_PATH"),
        .url = config_text(config, "DATABASE_URL"),
        .readers = service_http_threads(config) + 1, /* the worker's thread */
        .fatal = service_fail,
        .changed = service_database_changed,
    };
    enum status status = store_open(&playlists->store, &store, err);
    if (status == STATUS_OK)
        status = http_client_start(&playlists->client, err);
    if (status != STATUS_OK)
        return status;
    new_linker(playlists, config);
    status = new_worker(playlists, config, err);
    if (status == STATUS_OK)
        status = service_http_open(&playlists->server, config, playlists_routes, playlists_route_count,
                                   playlists, err);
    if (status != STATUS_OK)
        return status;
    consul_start(playlists->consul);
    linker_start(playlists->linker, playlists->consul);
    return worker_start(playlists->worker, err);
}

enum status daemon_start(const struct config *config, void **ret_service, struct err *err)
{
    struct playlists *playlists = mem_new(sizeof *playlists);
    playlists->name = config_text(config, "SERVICE_NAME");
    since_set(&playlists->draining, false);
    pthread_mutex_init(&playlists->handover.mutex, NULL);
    playlists->handover.task.run = take_over;
    enum status status = open_all(playlists, config, err);
    if (status != STATUS_OK) {
        daemon_stop(playlists, 0, 0);
        return status;
    }
    log_event(LOG_INFO, "service.started",
              LOG_FIELDS(LOG_NUMBER("port", config_number(config, "SERVICE_PORT"))),
              "🚀 Service Playlists démarré sur le port %ld", config_number(config, "SERVICE_PORT"));
    *ret_service = playlists;
    return STATUS_OK;
}

/* First nobody sends us anything new, then the threads end, then what they shared goes. */
void daemon_stop(void *service, int delay_ms, int grace_ms)
{
    struct playlists *playlists = service;
    int64_t end_ms = clock_mono_ms() + grace_ms;
    since_set(&playlists->draining, true);
    http_server_leave(playlists->server);
    worker_stop_consuming(playlists->worker);
    consul_stop(playlists->consul, grace_ms < DEREGISTER_MS ? grace_ms : DEREGISTER_MS);
    int64_t serve_until_ms = clock_mono_ms() + delay_ms;
    worker_stop(playlists->worker, service_left_ms(end_ms));
    service_http_close(playlists->server, serve_until_ms, end_ms);
    http_client_stop(playlists->client);
    worker_abandon(playlists->worker);
    store_close(playlists->store);
    worker_free(playlists->worker);
    linker_free(playlists->linker);
    consul_free(playlists->consul);
    http_client_free(playlists->client);
    forget(&playlists->handover);
    pthread_mutex_destroy(&playlists->handover.mutex);
    free(playlists->means.generator.settings.url);
    free(playlists);
}
