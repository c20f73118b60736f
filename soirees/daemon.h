/* The parts of the daemon, put together: in which order they start, and stop. For service_program. */
#ifndef SOIREES_DAEMON_H
#define SOIREES_DAEMON_H

#include "config.h"
#include "status.h"

enum status daemon_start(const struct config *config, void **ret_service, struct err *err);
void daemon_stop(void *service, int grace_ms);

#endif
