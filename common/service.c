#include "service.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "care.h"
#include "cleanup.h"
#include "ids.h"
#include "log.h"
#include "mem.h"
#include "notify.h"
#include "pg.h"
#include "proxies.h"
#include "reload.h"
#include "tokens.h"

#define OPTIONS                                                                                              \
    "--help | --version | --check-config | --print-config | --healthcheck | --check | --backup FILE"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, HEALTHCHECK_TIMEOUT_MS = 4000, STOP_MARGIN_MS = 1500 };
enum { BODY_MAX_BYTES = 64 * 1024, CONNECTIONS_MAX = 4096, IDLE_TIMEOUT_S = 30 };

enum { FILES_RESERVED = 2048 }; /* for the database, the broker, and the calls of a thousand workers */

static atomic_bool failed;
static struct tokens *tokens; /* NULL: the API is open */
static struct proxies proxies;

/* ---- settings ---- */

/* Those of both daemons; the first three defaults are the program's. */
static const struct setting shared_settings[] = {
    NUMBER_SETTING("SERVICE_PORT", "", 1, 65535, "HTTP port"),
    TEXT_SETTING("SERVICE_NAME", "", "name in Consul and in /health"),
    TEXT_SETTING("DATABASE_PATH", "", "SQLite file; its folder is created"),
    SECRET_SETTING("DATABASE_URL", "",
                   "postgresql://user:password@host:port/database?options, several hosts by comma; instead of"
                   " DATABASE_PATH, and what several instances need",
                   .check = pg_check_url),
    TEXT_SETTING("SERVICE_BIND", "", "address to listen on; none: all interfaces"),
    TEXT_SETTING("SERVICE_ADDRESS", "", "address advertised in Consul; none: the source address towards it"),
    TEXT_SETTING("RABBITMQ_HOST", "localhost", "broker"),
    NUMBER_SETTING("RABBITMQ_PORT", "5672", 1, 65535, "its AMQP port"),
    TEXT_SETTING("RABBITMQ_USER", "admin", "user"),
    SECRET_SETTING("RABBITMQ_PASS", "admin123", "password"),
    TEXT_SETTING("RABBITMQ_VHOST", "/", "virtual host"),
    SECRET_SETTING("RABBITMQ_URL", "", "amqp:// or amqps:// URLs by comma; wins over the five above",
                   .check = amqp_check_urls),
    TEXT_SETTING("RABBITMQ_CA_FILE", "", "CAs for amqps (PEM); none: the system's",
                 .check = config_check_readable),
    TEXT_SETTING("RABBITMQ_CERT_FILE", "", "client certificate for amqps (PEM)",
                 .check = config_check_readable),
    TEXT_SETTING("RABBITMQ_KEY_FILE", "", "its key (PEM, without a pass phrase)",
                 .check = config_check_readable),
    NUMBER_SETTING("RABBITMQ_HEARTBEAT", "20", 1, 3600, "AMQP heartbeat, seconds"),
    CHOICE_SETTING("RABBITMQ_QUEUE_TYPE", "", "quorum classic",
                   "type of the queue where none exists yet; none: the broker's default"),
    TEXT_SETTING("CONSUL_HOST", "localhost", "Consul agent; set but empty: Consul is not used",
                 .empty_counts = true),
    NUMBER_SETTING("CONSUL_PORT", "8500", 1, 65535, "its HTTP port"),
    CHOICE_SETTING("CONSUL_SCHEME", "http", "http https", "how the agent is reached"),
    SECRET_SETTING("CONSUL_TOKEN", "", "ACL token"),
    TEXT_SETTING("CONSUL_CA_FILE", "", "CAs for https (PEM); none: the system's",
                 .check = config_check_readable),
    TEXT_SETTING("CORS_ORIGIN", "*", "origin that browsers may call from; set but empty: no CORS headers",
                 .empty_counts = true),
    TEXT_SETTING("API_TOKENS_FILE", "",
                 "who may use the API, a line each: name read|write sha256:hex;"
                 " none: everybody. Its content is read again on SIGHUP"),
    CHOICE_SETTING("METRICS_OPEN", "yes", "yes no", "whether /metrics needs no token where the API does"),
    TEXT_SETTING("TRUSTED_PROXIES", "",
                 "addresses and ranges by comma whose X-Forwarded-For is believed, for the log",
                 .check = proxies_check),
    NUMBER_SETTING("SHUTDOWN_GRACE_MS", "10000", 0, 3600000,
                   "what work in progress gets to finish on SIGTERM, ms", .live = true),
    NUMBER_SETTING(
        "SHUTDOWN_DELAY_MS", "0", 0, 3600000,
        "of these, what load balancers get to notice: the service says that it stops, and serves on",
        .live = true),
    NUMBER_SETTING("HTTP_THREADS", "", 1, 64, "threads that serve HTTP; none: one a core, at most 8"),
    CHOICE_SETTING("LOG_FORMAT", "pretty", "pretty json", "lines for people or for machines", .live = true),
    CHOICE_SETTING("LOG_LEVEL", "info", "debug info warn error", "least level that is logged", .live = true),
    CHOICE_SETTING("CORE_DUMPS", "no", "yes no",
                   "whether a crash may leave a core file, which holds passwords; yes also opens /proc/PID to"
                   " the daemon's user"),
};
enum { SHARED_COUNT = sizeof shared_settings / sizeof *shared_settings };

/* The shared rows with this program's defaults, then its own. free() it. */
static struct setting *join_settings(const struct service_program *program, size_t *ret_count)
{
    *ret_count = SHARED_COUNT + program->setting_count;
    struct setting *all = mem_new(*ret_count * sizeof *all);
    memcpy(all, shared_settings, sizeof shared_settings);
    memcpy(all + SHARED_COUNT, program->settings, program->setting_count * sizeof *all);
    all[0].fallback = program->default_port;
    all[1].fallback = program->default_name;
    all[2].fallback = program->default_database;
    return all;
}

void service_fail(const char *reason)
{
    log_event(LOG_ERROR, "service.failed", NULL, "❌ %s", reason);
    atomic_store(&failed, true);
    (void)kill(getpid(), SIGTERM);
}

void service_database_changed(const char *reason)
{
    if (reason)
        log_event(LOG_REPEATED(LOG_ERROR), "database.lost", LOG_FIELDS(LOG_TEXT("reason", reason)),
                  "❌ Base de données indisponible : %s", reason);
    else
        log_event(LOG_REPEATED(LOG_INFO), "database.available", NULL, "✅ Base de données disponible");
}

/* ---- the command line ---- */

static int print_help(const struct service_program *program, const struct setting *settings, size_t count)
{
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 64 * 1024);
    buf_format(
        &text,
        "%s %s: %s\n\n"
        "usage: %s [" OPTIONS "]\n\n"
        "  --check-config  names everything that is wrong with the settings; exit status 0 or 2\n"
        "  --print-config  prints the settings as they count, secrets as ***; exit status 0 or 2\n"
        "  --healthcheck   asks the running daemon's /health; exit status 0 or 1\n"
        "  --check         names everything that is wrong with the SQLite database, a running daemon's too;\n"
        "                  exit status 0 or 1\n"
        "  --backup FILE   copies the SQLite database, a running daemon's too, to FILE, which is replaced\n"
        "                  once the copy is whole, checked and on the disk; exit status 0 or 1\n\n"
        "Settings, from the environment or from KEY=VALUE lines in the file that CONFIG_FILE names\n"
        "(the environment wins); defaults in brackets. SIGHUP reads them again: what is live counts at\n"
        "once, the rest is named in the log as needing a restart.\n",
        program->name, PROJECT_VERSION, program->summary, program->name);
    config_describe(settings, count, &text);
    (void)fputs(buf_get(&text), stdout);
    return 0;
}

static int healthcheck(const struct config *config)
{
    const char *bind = config_text(config, "SERVICE_BIND");
    const char *host = *bind && strcmp(bind, "0.0.0.0") != 0 && strcmp(bind, "::") != 0 ? bind : "127.0.0.1";
    CLEANUP(free_text)
    char *url = mem_format(strchr(host, ':') ? "http://[%s]:%ld/health" : "http://%s:%ld/health", host,
                           config_number(config, "SERVICE_PORT"));
    long http_status = 0;
    struct err err = {0};
    if (http_get(url, HEALTHCHECK_TIMEOUT_MS, &http_status, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return EXIT_FAILED;
    }
    printf("%s: %ld\n", url, http_status);
    return http_status == 200 ? 0 : EXIT_FAILED;
}

/* ---- running ---- */

/* Ends a stop that hangs (a disk that no longer answers): what is committed is safe, the rest was never
 * promised. */
static void *stop_deadline(void *arg)
{
    struct timespec left = {.tv_sec = *(int *)arg / 1000, .tv_nsec = *(int *)arg % 1000 * 1000000L};
    nanosleep(&left, NULL);
    log_event(LOG_WARN, "service.cut", NULL, "⚠️ Arrêt interrompu : délai dépassé");
    _exit(atomic_load(&failed) ? EXIT_FAILED : 0);
}

static void stop(const struct service_program *program, void *service, int delay_ms, int grace_ms)
{
    int deadline_ms = grace_ms + STOP_MARGIN_MS;
    pthread_t watchdog;
    bool watched = pthread_create(&watchdog, NULL, stop_deadline, &deadline_ms) == 0;
    program->stop(service, delay_ms, grace_ms);
    if (watched) {
        (void)pthread_cancel(watchdog);
        (void)pthread_join(watchdog, NULL);
    }
}

/* Memory holds passwords. PR_SET_DUMPABLE counts for a core pattern that is a pipe, too, and keeps
 * /proc/PID/environ from other processes of the same user (prctl(2), core(5)). */
static void forbid_core_dumps(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
}

/* What concerns more than one setting, or a file's content. */
static void check(const struct service_program *program, const struct config *config,
                  struct tokens **ret_tokens, struct buf *problems)
{
    const char *tokens_path = config_text(config, "API_TOKENS_FILE");
    if (*tokens_path)
        (void)tokens_open(ret_tokens, tokens_path, problems);
    if (!*config_text(config, "RABBITMQ_CERT_FILE") != !*config_text(config, "RABBITMQ_KEY_FILE"))
        buf_text(problems, "RABBITMQ_CERT_FILE, RABBITMQ_KEY_FILE: one without the other\n");
    long delay_ms = config_number(config, "SHUTDOWN_DELAY_MS");
    if (delay_ms > 0 && delay_ms >= config_number(config, "SHUTDOWN_GRACE_MS"))
        buf_text(problems, "SHUTDOWN_DELAY_MS: must be less than SHUTDOWN_GRACE_MS, of which it is a part\n");
    if (program->check)
        program->check(config, problems);
}

/* For struct reload. */
struct running {
    const struct service_program *program;
    void *service;
};

static void check_again(void *owner, const struct config *config, struct tokens **ret_tokens,
                        struct buf *problems)
{
    const struct running *running = owner;
    check(running->program, config, ret_tokens, problems);
}

static void changed(void *owner, const struct config *config)
{
    const struct running *running = owner;
    running->program->changed(running->service, config);
}

/* Until a signal to stop. */
static void serve(struct running *running, struct config *config, const sigset_t *signals)
{
    struct reload reload = {
        .config = config, .tokens = tokens, .owner = running, .check = check_again, .changed = changed};
    notify_ready();
    while (notify_wait(signals) == SIGHUP) {
        notify_reloading();
        reload_run(&reload);
        notify_ready();
    }
}

static int run(const struct service_program *program, struct config *config)
{
    if (config_is(config, "CORE_DUMPS", "no"))
        forbid_core_dumps();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals,
                          NULL); /* before any thread: all inherit it, sigwait below takes them */
    (void)signal(SIGPIPE, SIG_IGN);
    http_client_global_init();
    log_init(config_text(config, "SERVICE_NAME"), config_text(config, "LOG_FORMAT"),
             config_text(config, "LOG_LEVEL"));

    struct running running = {.program = program};
    struct err err = {0};
    if (program->start(config, &running.service, &err) != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", program->name, err.text);
        return EXIT_FAILED;
    }
    serve(&running, config, &signals);
    int grace_ms = (int)config_number(config, "SHUTDOWN_GRACE_MS");
    notify_stopping(grace_ms + 2 * STOP_MARGIN_MS);
    stop(program, running.service, (int)config_number(config, "SHUTDOWN_DELAY_MS"), grace_ms);
    return atomic_load(&failed) ? EXIT_FAILED : 0;
}

static int print_config(const struct config *config)
{
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 1 << 20);
    config_print(config, &text);
    return fputs(buf_get(&text), stdout) < 0;
}

/* Reads the settings, then does what the option says, or the daemon's work. */
static int main_with_settings(const struct service_program *program, const struct setting *settings,
                              size_t count, const char *option, const char *argument)
{
    CLEANUP(buf_done) struct buf problems;
    buf_init(&problems, 64 * 1024);
    struct config *config = config_load(settings, count, &problems);
    check(program, config, &tokens, &problems);
    int status = 0;
    if (problems.len) {
        (void)fputs(buf_get(&problems), stderr);
        status = EXIT_USAGE;
    } else if (strcmp(option, "--check-config") == 0) {
        puts("settings: OK");
    } else if (strcmp(option, "--print-config") == 0) {
        status = print_config(config);
    } else if (strcmp(option, "--healthcheck") == 0) {
        status = healthcheck(config);
    } else if (strcmp(option, "--check") == 0) {
        struct db_care care = {0};
        program->care(&care);
        status = *config_text(config, "DATABASE_URL")
                     ? care_elsewhere()
                     : care_check(config_text(config, "DATABASE_PATH"), &care);
    } else if (strcmp(option, "--backup") == 0) {
        status = *config_text(config, "DATABASE_URL")
                     ? care_elsewhere()
                     : care_backup(config_text(config, "DATABASE_PATH"), argument);
    } else {
        status = run(program, config);
    }
    tokens_close(tokens);
    config_free(config);
    return status;
}

int service_main(int argc, char **argv, const struct service_program *program)
{
    static const char *const options[] = {
        "", "--help", "--version", "--check-config", "--print-config", "--healthcheck", "--check"};
    const char *option = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";
    bool known = argc == 1 || (argc == 3 && strcmp(option, "--backup") == 0 && *argument);
    for (size_t i = 1; i < sizeof options / sizeof *options; i++)
        known = known || (argc == 2 && strcmp(option, options[i]) == 0);
    if (!known) {
        fprintf(stderr, "usage: %s [" OPTIONS "]\n", program->name);
        return EXIT_USAGE;
    }
    if (strcmp(option, "--version") == 0)
        return printf("%s %s\n", program->name, PROJECT_VERSION) < 0;
    size_t count = 0;
    CLEANUP(free_pointer) struct setting *settings = join_settings(program, &count);
    if (strcmp(option, "--help") == 0)
        return print_help(program, settings, count);
    return main_with_settings(program, settings, count, option, argument);
}

/* ---- shared plumbing ---- */

unsigned service_http_threads(const struct config *config)
{
    long threads = config_number(config, "HTTP_THREADS");
    if (threads == 0) {
        threads = sysconf(_SC_NPROCESSORS_ONLN);
        threads = threads < 1 ? 1 : threads > 8 ? 8 : threads;
    }
    return (unsigned)threads;
}

/* Most systems start a process with 1024 descriptors, and let it have more. */
static unsigned connections_max(void)
{
    enum { WANTED = CONNECTIONS_MAX + FILES_RESERVED };
    struct rlimit files = {.rlim_cur = 1024};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < WANTED && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max < WANTED ? files.rlim_max : WANTED;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
            (void)getrlimit(RLIMIT_NOFILE, &files);
    }
    rlim_t room = files.rlim_cur > 2 * FILES_RESERVED ? files.rlim_cur - FILES_RESERVED : files.rlim_cur / 2;
    return room < CONNECTIONS_MAX ? (unsigned)room : CONNECTIONS_MAX;
}

enum status service_http_open(struct http_server **ret_server, const struct config *config,
                              const struct http_route *routes, size_t route_count, void *service,
                              struct err *err)
{
    enum status status = proxies_parse(config_text(config, "TRUSTED_PROXIES"), &proxies, err);
    if (status != STATUS_OK)
        return status;
    struct http_server_config http = {
        .bind = config_text(config, "SERVICE_BIND"),
        .port = (unsigned)config_number(config, "SERVICE_PORT"),
        .threads = service_http_threads(config),
        .max_body_bytes = BODY_MAX_BYTES,
        .max_connections = connections_max(),
        .idle_timeout_s = IDLE_TIMEOUT_S,
        .cors_origin = config_text(config, "CORS_ORIGIN"),
        .tokens = tokens,
        .metrics_open = config_is(config, "METRICS_OPEN", "yes"),
        .proxies = &proxies,
        .routes = routes,
        .route_count = route_count,
        .service = service,
    };
    return http_server_open(ret_server, &http, err);
}

int service_left_ms(int64_t end_ms)
{
    int64_t left_ms = end_ms - clock_mono_ms();
    return left_ms > 0 ? (int)left_ms : 0;
}

void service_http_close(struct http_server *server, int64_t serve_until_ms, int64_t end_ms)
{
    if (!server)
        return;
    int serves_ms = service_left_ms(serve_until_ms < end_ms ? serve_until_ms : end_ms);
    const struct timespec serves = {.tv_sec = serves_ms / 1000, .tv_nsec = serves_ms % 1000 * 1000000L};
    nanosleep(&serves, NULL);
    http_server_drain(server);
    (void)http_server_idle(server, service_left_ms(end_ms));
    http_server_close(server);
}

void service_amqp_config(const struct config *config, const char *connection_name, unsigned channels,
                         struct amqp_config *ret_config, char **ret_urls)
{
    const char *urls = config_text(config, "RABBITMQ_URL");
    CLEANUP(buf_done) struct buf made;
    buf_init(&made, 8192);
    if (!*urls) {
        const char *host = config_text(config, "RABBITMQ_HOST");
        buf_text(&made, "amqp://");
        http_put_encoded(&made, config_text(config, "RABBITMQ_USER"));
        buf_char(&made, ':');
        http_put_encoded(&made, config_text(config, "RABBITMQ_PASS"));
        buf_format(&made, strchr(host, ':') ? "@[%s]:%s/" : "@%s:%s/", host,
                   config_text(config, "RABBITMQ_PORT"));
        http_put_encoded(&made, config_text(config, "RABBITMQ_VHOST"));
    }
    *ret_urls = *urls ? mem_text(urls) : buf_take(&made);
    *ret_config = (struct amqp_config){
        .urls = *ret_urls,
        .ca_file = config_text(config, "RABBITMQ_CA_FILE"),
        .cert_file = config_text(config, "RABBITMQ_CERT_FILE"),
        .key_file = config_text(config, "RABBITMQ_KEY_FILE"),
        .heartbeat_s = (unsigned)config_number(config, "RABBITMQ_HEARTBEAT"),
        .channels = channels,
        .connection_name = connection_name,
    };
}

void service_consul_config(const struct config *config, struct consul_config *ret_config)
{
    *ret_config = (struct consul_config){
        .scheme = config_text(config, "CONSUL_SCHEME"),
        .host = config_text(config, "CONSUL_HOST"),
        .port = (unsigned)config_number(config, "CONSUL_PORT"),
        .token = config_text(config, "CONSUL_TOKEN"),
        .ca_file = config_text(config, "CONSUL_CA_FILE"),
        .service_name = config_text(config, "SERVICE_NAME"),
        .service_address = config_text(config, "SERVICE_ADDRESS"),
        .service_port = (unsigned)config_number(config, "SERVICE_PORT"),
        .watched = "",
    };
}
