/* Named places where a test can have the process killed: `FAILPOINT=name` or `FAILPOINT=name:3` (the third
 * time) in the environment. SIGKILL: nothing is flushed, nothing is cleaned up; with FAILPOINT_HANGS=1 the
 * thread stays there for good instead. They exist only in a build with -DFAILPOINTS=ON, which a Release build
 * refuses. Any thread. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#ifdef FAILPOINTS
#define FAILPOINT(name) failpoint_pass(name)
void failpoint_pass(const char *name);
#else
#define FAILPOINT(name) ((void)0)
#endif

#endif
