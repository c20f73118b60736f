/* playlists: makes playlists for booked parties. See README.md, "How it is built". */
#include "daemon.h"
#include "http_url.h"
#include "service.h"
#include "store.h"
#include "worker.h"

static const struct setting settings[] = {
    NUMBER_SETTING("PLAYLIST_WORKERS", "1", 1, WORKERS_MAX,
                   "messages worked on at once, each on its own channel with prefetch 1", .live = true),
    TEXT_SETTING("LAGMASTER_URL", "https://lagmaster-pro.fly.dev/generate_playlist",
                 "the API that makes playlists", .live = true, .check = http_url_check),
    TEXT_SETTING("LAGMASTER_CA_FILE", "", "CAs for https (PEM); none: the system's",
                 .check = config_check_readable),
    NUMBER_SETTING("LAGMASTER_TIMEOUT_MS", "90000", 1, 1500000, "one attempt in all, ms", .live = true),
    NUMBER_SETTING("LAGMASTER_MAX_ATTEMPTS", "3", 1, 100, "then the default playlist", .live = true),
    NUMBER_SETTING("LAGMASTER_RETRY_DELAY_MS", "10000", 0, 1500000, "between two attempts, ms", .live = true),
    TEXT_SETTING("SOIREES_URL", "http://localhost:3003",
                 "soirees, when Consul is off or has known no passing instance for 30 s",
                 .check = http_url_check_base),
    TEXT_SETTING("SOIREES_CA_FILE", "", "CAs for https (PEM); none: the system's",
                 .check = config_check_readable),
    SECRET_SETTING("SOIREES_TOKEN", "", "bearer token for the PATCH to soirees", .live = true),
};

/* A delivery must end before the broker takes it back (RabbitMQ's consumer_timeout: 30 minutes). */
static void check(const struct config *config, struct buf *problems)
{
    long attempts = config_number(config, "LAGMASTER_MAX_ATTEMPTS");
    long ms = attempts * config_number(config, "LAGMASTER_TIMEOUT_MS") +
              (attempts - 1) * config_number(config, "LAGMASTER_RETRY_DELAY_MS");
    if (ms > 25 * 60 * 1000)
        buf_format(
            problems,
            "LAGMASTER_TIMEOUT_MS, LAGMASTER_MAX_ATTEMPTS, LAGMASTER_RETRY_DELAY_MS: together %ld s, at most"
            " 25 minutes\n",
            ms / 1000);
}

int main(int argc, char **argv)
{
    static const struct service_program program = {
        .name = "playlists",
        .summary = "makes playlists for booked parties",
        .default_port = "3002",
        .default_name = "service-playlists",
        .default_database = "./data/playlists.db",
        .settings = settings,
        .setting_count = sizeof settings / sizeof *settings,
        .check = check,
        .care = store_care,
        .start = daemon_start,
        .changed = daemon_changed,
        .stop = daemon_stop,
    };
    return service_main(argc, argv, &program);
}
