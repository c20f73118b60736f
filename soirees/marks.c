#include "marks.h"

#include <string.h>

#include "failpoint.h"

enum {
    MANY = MARKS_MAX / 4,
    WAIT_MS = 20,
    RETRY_MS = 1000,
};

/* Writer's thread. */
static void confirm_done(struct store_confirm *confirm)
{
    struct marks *marks = confirm->arg;
    FAILPOINT("relay.mark.after");
    atomic_store_explicit(&marks->busy, false, memory_order_release);
    marks->wake(marks->arg);
}

void marks_init(struct marks *marks, struct store *store, void (*wake)(void *arg), void *arg)
{
    *marks = (struct marks){.store = store, .wake = wake, .arg = arg};
    marks->confirm.done = confirm_done;
    marks->confirm.arg = marks;
}

void marks_add(struct marks *marks, int64_t seq, int64_t now_ms, bool at_once)
{
    if (marks->count == 0)
        marks->due_ms = now_ms + WAIT_MS;
    marks->seqs[marks->count++] = seq;
    if (at_once || marks->count >= MANY)
        marks->due_ms = now_ms;
}

void marks_mend(struct marks *marks)
{
    marks->clock_back = true;
}

size_t marks_waiting(const struct marks *marks)
{
    return marks->count;
}

bool marks_unfinished(const struct marks *marks)
{
    return marks->count || marks->confirm.count;
}

size_t marks_list(const struct marks *marks, int64_t *ret_seqs)
{
    memcpy(ret_seqs, marks->seqs, marks->count * sizeof *ret_seqs);
    memcpy(ret_seqs + marks->count, marks->confirm.seqs, marks->confirm.count * sizeof *ret_seqs);
    return marks->count + marks->confirm.count;
}

static void hand_over(struct marks *marks)
{
    FAILPOINT("relay.mark.before");
    atomic_store(&marks->busy, true);
    store_confirm(marks->store, &marks->confirm);
}

static void fill(struct marks *marks, struct store_confirm *confirm)
{
    memcpy(confirm->seqs, marks->seqs, marks->count * sizeof *confirm->seqs);
    confirm->count = marks->count;
    marks->count = 0;
}

int64_t marks_turn(struct marks *marks, int64_t now_ms)
{
    struct store_confirm *confirm = &marks->confirm;
    if (atomic_load_explicit(&marks->busy, memory_order_acquire))
        return INT64_MAX; /* its end asks for a turn */
    if (confirm->err.status != STATUS_OK) {
        if (now_ms < marks->retry_ms)
            return marks->retry_ms - now_ms;
        marks->retry_ms = now_ms + RETRY_MS;
    } else {
        confirm->count = 0;
        confirm->clock_back = false;
    }
    if (!confirm->count && !marks->clock_back && now_ms < marks->due_ms)
        return marks->count ? marks->due_ms - now_ms : INT64_MAX;
    if (!confirm->count)
        fill(marks, confirm);
    confirm->clock_back = confirm->clock_back || marks->clock_back;
    marks->clock_back = false;
    if (confirm->count || confirm->clock_back)
        hand_over(marks);
    return INT64_MAX;
}

static void last_done(struct store_confirm *confirm)
{
    (void)confirm; /* nobody is left to try again */
}

void marks_end(struct marks *marks)
{
    marks->due_ms = marks->retry_ms = 0;
    (void)marks_turn(marks, 0);
    if (!marks->count)
        return;
    fill(marks, &marks->last); /* behind the job that the writer has */
    marks->last.done = last_done;
    store_confirm(marks->store, &marks->last);
}
