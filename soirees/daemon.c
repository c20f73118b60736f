#include "daemon.h"

#include <stdlib.h>

#include "log.h"
#include "mem.h"
#include "routes.h"
#include "service.h"

static enum status new_relay(struct soirees *soirees, const struct config *config, struct err *err)
{
    char *urls = NULL;
    struct relay_config relay = {
        .queue = "playlist_generation_queue",
        .queue_type = config_text(config, "RABBITMQ_QUEUE_TYPE"),
        .app_id = soirees->name,
        .again_after_ms = &soirees->again_after_ms,
    };
    service_amqp_config(config, soirees->name, 2, &relay.amqp, &urls);
    enum status status = relay_new(&soirees->relay, soirees->store, &relay, err);
    free(urls);
    return status;
}

/* Everything that a request may touch is there before the port opens; nothing reaches out before it did. */
static enum status open_all(struct soirees *soirees, const struct config *config, struct err *err)
{
    struct store_config store = {
        .path = config_text(config, "DATABASE_PATH"),
        .url = config_text(config, "DATABASE_URL"),
        .readers = service_http_threads(config) + 1,
        .again_after_ms = &soirees->again_after_ms,
        .fatal = service_fail,
        .changed = service_database_changed,
    };
    struct consul_config consul;
    service_consul_config(config, &consul);
    enum status status = store_open(&soirees->store, &store, err);
    if (status == STATUS_OK)
        status = new_relay(soirees, config, err);
    if (status == STATUS_OK)
        status = http_client_start(&soirees->client, err);
    if (status != STATUS_OK)
        return status;
    soirees->consul = consul_new(soirees->client, &consul);
    status = service_http_open(&soirees->server, config, soirees_routes, soirees_route_count, soirees, err);
    if (status == STATUS_OK)
        status = relay_start(soirees->relay, err);
    if (status == STATUS_OK)
        consul_start(soirees->consul);
    return status;
}

void daemon_changed(void *service, const struct config *config)
{
    struct soirees *soirees = service;
    atomic_store(&soirees->again_after_ms, config_number(config, "REQUEST_AGAIN_AFTER_S") * 1000);
}

enum status daemon_start(const struct config *config, void **ret_service, struct err *err)
{
    struct soirees *soirees = mem_new(sizeof *soirees);
    soirees->name = config_text(config, "SERVICE_NAME");
    daemon_changed(soirees, config);
    since_set(&soirees->draining, false);
    enum status status = open_all(soirees, config, err);
    if (status != STATUS_OK) {
        daemon_stop(soirees, 0, 0);
        return status;
    }
    log_event(LOG_INFO, "service.started",
              LOG_FIELDS(LOG_NUMBER("port", config_number(config, "SERVICE_PORT"))),
              "🚀 Service Soirées démarré sur le port %ld", config_number(config, "SERVICE_PORT"));
    *ret_service = soirees;
    return STATUS_OK;
}

/* First nobody sends us anything new, then the threads end, then what they shared goes. */
void daemon_stop(void *service, int delay_ms, int grace_ms)
{
    struct soirees *soirees = service;
    int64_t end_ms = clock_mono_ms() + grace_ms;
    since_set(&soirees->draining, true);
    http_server_leave(soirees->server);
    consul_stop(soirees->consul, grace_ms < DEREGISTER_MS ? grace_ms : DEREGISTER_MS);
    service_http_close(soirees->server, clock_mono_ms() + delay_ms, end_ms);
    relay_stop(soirees->relay);
    http_client_stop(soirees->client);
    store_close(soirees->store);
    relay_free(soirees->relay);
    consul_free(soirees->consul);
    http_client_free(soirees->client);
    free(soirees);
}
