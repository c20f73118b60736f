/* soirees: books parties. See README.md, "How it is built". */
#include "daemon.h"
#include "service.h"
#include "store.h"

static const struct setting settings[] = {
    NUMBER_SETTING("REQUEST_AGAIN_AFTER_S", "900", 0, 604800,
                   "an unanswered request for a playlist is sent again after this, seconds; 0: never",
                   .live = true),
};

int main(int argc, char **argv)
{
    static const struct service_program program = {
        .name = "soirees",
        .summary = "books parties and asks for their playlists",
        .default_port = "3003",
        .default_name = "service-soirees",
        .default_database = "./data/soirees.db",
        .settings = settings,
        .setting_count = sizeof settings / sizeof *settings,
        .care = store_care,
        .start = daemon_start,
        .changed = daemon_changed,
        .stop = daemon_stop,
    };
    return service_main(argc, argv, &program);
}
