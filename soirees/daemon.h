/* The parts of the daemon, put together: in which order they start, and stop. For service_program. */
#ifndef SOIREES_DAEMON_H
#define SOIREES_DAEMON_H

#include "config.h"
#include "status.h"

enum status daemon_start(const struct config *config, void **ret_service, struct err *err);
/* REQUEST_AGAIN_AFTER_S counts from the next confirm; 0 ends what is sent again, what stays open stays so. */
void daemon_changed(void *service, const struct config *config);
void daemon_stop(void *service, int delay_ms, int grace_ms);

#endif
