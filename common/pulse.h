/* Whether the threads still turn. A thread that loops says, whenever it is about to wait, by when it will be
 * back; one that is not back long after that is stuck: in a lock, a disk or a library that never returns.
 * Any thread, without a lock but for a thread's first call. */
#ifndef COMMON_PULSE_H
#define COMMON_PULSE_H

#include <stdint.h>

/* For pulse_beat(): the thread waits until there is something to do, however long that takes. */
enum { PULSE_IDLE = -1 };

/* The calling thread will call again within `wait_ms`; 0: it is at work. The first call registers the thread
 * under `name` (a literal of at most 15 characters), which top and gdb show, too; its end takes it off the
 * list. */
void pulse_beat(const char *name, int64_t wait_ms);

/* The name of a thread that is more than `limit_ms` later than it said, with *ret_late_ms set to how much;
 * NULL when all turn. Where several are, the latest. */
const char *pulse_late(int64_t limit_ms, int64_t *ret_late_ms);

#endif
