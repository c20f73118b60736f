/* The parts of the daemon, put together: in which order they start, and stop. For service_program. */
#ifndef PLAYLISTS_DAEMON_H
#define PLAYLISTS_DAEMON_H

#include "config.h"
#include "status.h"

enum status daemon_start(const struct config *config, void **ret_service, struct err *err);
/* The lagmaster settings count from the next attempt, SOIREES_TOKEN from the next PATCH, PLAYLIST_WORKERS at
 * once: see generator_change, linker_change_token, worker_resize. */
void daemon_changed(void *service, const struct config *config);
void daemon_stop(void *service, int delay_ms, int grace_ms);

#endif
