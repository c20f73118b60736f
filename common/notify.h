/* What a service manager wants to know: started, stopping, still alive (sd_notify(3), "Protocol": datagrams
 * of KEY=VALUE lines to the socket that NOTIFY_SOCKET names, the watchdog's interval in WATCHDOG_USEC).
 * Without a manager nothing is sent. The main thread. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

#include <signal.h>

/* "READY=1" */
void notify_ready(void);

/* "RELOADING=1" with its time: the settings are being read anew; notify_ready() says that it is done
 * (sd_notify(3); systemd before 253 does without the time). */
void notify_reloading(void);

/* "STOPPING=1", and how long the stop may take, so that it is not cut off at the manager's own limit. */
void notify_stopping(int limit_ms);

/* Waits for one of the (blocked) signals and returns it. Meanwhile feeds the watchdog, but only while every
 * thread turns (pulse.h): one that is later than half the watchdog's interval, a minute where there is none,
 * is logged once, and the watchdog gets nothing until it is back. */
int notify_wait(const sigset_t *signals);

#endif
