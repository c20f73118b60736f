/* What is the same in both daemons: the command line, the order of starting and stopping, signals, the
 * settings they share, and the HTTP plumbing around a service's own routes. */
#ifndef COMMON_SERVICE_H
#define COMMON_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp.h"
#include "config.h"
#include "consul.h"
#include "db_care.h"
#include "http_client.h"
#include "http_server.h"
#include "status.h"

/* What deregistering may take of the time to stop. */
enum { DEREGISTER_MS = 1000 };

struct service_program {
    const char *name; /* "soirees" */
    const char *summary;
    const char *default_port, *default_name, *default_database;
    const struct setting *settings; /* its own; those that both daemons have are added */
    size_t setting_count;
    /* Checks that need more than one setting; appends lines. May be NULL. */
    void (*check)(const struct config *config, struct buf *problems);
    /* What --check has to know of the database. */
    void (*care)(struct db_care *ret_care);
    /* Opens everything; on error nothing stays open. `config` outlives the service. */
    enum status (*start)(const struct config *config, void **ret_service, struct err *err);
    /* The live settings of `config` may have changed; what is under way ends as it began. The main thread. */
    void (*changed)(void *service, const struct config *config);
    /* Ends it: deregisters, serves on for `delay_ms` (load balancers take that long to send elsewhere),
     * finishes what is under way, closes, frees; all but the last two within `grace_ms`. */
    void (*stop)(void *service, int delay_ms, int grace_ms);
};

/* Everything a main() does: command line, settings, start, wait for SIGTERM or SIGINT, stop; meanwhile SIGHUP
 * reads the settings anew (reload.h). Returns the exit status: 0 clean, 1 could not start or had to end, 2
 * bad settings or arguments. */
int service_main(int argc, char **argv, const struct service_program *program);

/* Ends the process with exit status 1 after one line; any thread, returns at once. For db_config.fatal. */
void service_fail(const char *reason);

/* Logs that the database can be used (reason NULL), or why it cannot. For db_config.changed and
 * pg_config.changed. */
void service_database_changed(const char *reason);

/* The HTTP server with the shared settings. */
enum status service_http_open(struct http_server **ret_server, const struct config *config,
                              const struct http_route *routes, size_t route_count, void *service,
                              struct err *err);
/* From now until `end_ms` (monotonic); 0 when that is past. */
int service_left_ms(int64_t end_ms);

/* Serves on until `serve_until_ms`, drains, waits until `end_ms` at most for what is being answered, closes;
 * times are monotonic. NULL is fine. */
void service_http_close(struct http_server *server, int64_t serve_until_ms, int64_t end_ms);
unsigned service_http_threads(const struct config *config);

/* The broker's settings as an amqp_config; free() *ret_urls after amqp_new. */
void service_amqp_config(const struct config *config, const char *connection_name, unsigned channels,
                         struct amqp_config *ret_config, char **ret_urls);

void service_consul_config(const struct config *config, struct consul_config *ret_config);

/* One part of GET /health and GET /ready. */
struct component {
    const char *name, *state, *detail; /* detail "" = none */
    bool fails;                        /* the service cannot do its job by itself: 503 */
    int64_t since_ms;                  /* when the state began, wall clock */
};
/* Answers 200, or 503 when a component fails. `ready` chooses the words: "ready" and "unready" for load
 * balancers, "healthy" and "unhealthy" for Consul and whoever restarts what is ill. */
void service_answer_health(struct http_call *call, const char *service_name, bool ready,
                           const struct component *components, size_t count);

/* Answers GET /metrics: what put() appends, and the process'. `program` names it ("soirees"). */
void service_answer_metrics(struct http_call *call, const char *program,
                            void (*put)(struct buf *out, void *service), void *service);

/* 503 with a detail that fits a storage error, or the status' own problem. */
void service_answer_error(struct http_call *call, const struct err *err);

#endif
