#include "notify.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "ids.h"
#include "log.h"
#include "pulse.h"

enum { LATE_MS = 60000, CHECK_MS = 10000, SEND_S = 5 };

static void send_text(const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof address.sun_path || !strchr("/@", path[0]))
        return;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* an abstract name, its length says where it ends */
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);

    CLEANUP(close_fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = SEND_S}; /* a manager that does not read must not hold up the stop */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
        sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
        log_event(LOG_WARN, "notify.failed", NULL, "⚠️ NOTIFY_SOCKET %s : %s", path, strerror(errno));
}

void notify_ready(void)
{
    send_text("READY=1\n");
}

void notify_reloading(void)
{
    char text[80];
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld\n",
                   (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    send_text(text);
}

void notify_stopping(int limit_ms)
{
    char text[80];
    (void)snprintf(text, sizeof text, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\n", limit_ms * 1000LL);
    send_text(text);
}

/* The watchdog's interval, ms; 0 when nobody watches this process. */
static int64_t watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    int64_t ms = strtoll(usec, NULL, 10) / 1000;
    return ms > 0 ? ms : 0;
}

/* Says once when a thread is stuck, and once when all turn again. */
static bool all_turn(int64_t limit_ms, bool turned)
{
    int64_t late_ms = 0;
    const char *thread = pulse_late(limit_ms, &late_ms);
    if (thread && turned)
        log_event(LOG_ERROR, "thread.stuck",
                  LOG_FIELDS(LOG_TEXT("thread", thread), LOG_NUMBER("lateMs", late_ms)),
                  "❌ Le fil d'exécution %s ne répond plus depuis %lld s", thread, (long long)late_ms / 1000);
    else if (!thread && !turned)
        log_event(LOG_INFO, "thread.back", NULL, "✅ Tous les fils d'exécution répondent de nouveau");
    return !thread;
}

int notify_wait(const sigset_t *signals)
{
    int64_t watchdog = watchdog_ms();
    int64_t limit_ms = watchdog ? watchdog / 2 : LATE_MS, check_ms = watchdog ? watchdog / 4 : CHECK_MS;
    int64_t checked_ms = clock_mono_ms();
    bool turned = true;
    if (check_ms < 1)
        check_ms = 1;
    for (;;) {
        /* Late itself, this thread was not the only one that stood still (SIGSTOP, a frozen machine): the
         * others get a turn first. */
        int64_t now_ms = clock_mono_ms();
        if (now_ms - checked_ms < 2 * check_ms)
            turned = all_turn(limit_ms, turned);
        checked_ms = now_ms;
        if (watchdog && turned)
            send_text("WATCHDOG=1\n");
        struct timespec wait = {.tv_sec = check_ms / 1000, .tv_nsec = check_ms % 1000 * 1000000};
        int received = sigtimedwait(signals, NULL, &wait);
        if (received > 0)
            return received;
    }
}
