/* What the broker has confirmed, on its way to the store. Rows are marked many at a time: their transaction
 * shares its pages, and mostly itself, with those of bookings, and one for each confirm would cost as much as
 * the booking did. What is lost with the process meanwhile is sent twice, with the same message_id.
 *
 * All of it is the relay's thread's. */
#ifndef SOIREES_MARKS_H
#define SOIREES_MARKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store.h"

enum { MARKS_MAX = STORE_CONFIRM_MAX, MARKS_UNFINISHED_MAX = 2 * MARKS_MAX };

struct marks {
    struct store *store;
    void (*wake)(void *arg);
    void *arg;
    int64_t seqs[MARKS_MAX];
    size_t count;
    int64_t due_ms;   /* monotonic: when they are to be handed over */
    int64_t retry_ms; /* monotonic: not before, after an error */
    bool clock_back;

    /* One job at a time; busy is cleared by the writer's thread. */
    struct store_confirm confirm;
    atomic_bool busy;
    struct store_confirm last; /* marks_end's */
};

/* wake(arg) asks for a turn; any thread. */
void marks_init(struct marks *marks, struct store *store, void (*wake)(void *arg), void *arg);

/* At most MARKS_MAX at a time wait here. They go to the store within 20 ms; in the next turn when they are
 * many, or with `at_once`. */
void marks_add(struct marks *marks, int64_t seq, int64_t now_ms, bool at_once);

/* The wall clock may have been put back (store_confirm.clock_back): goes with the next turn. */
void marks_mend(struct marks *marks);

/* How many wait here, not yet handed over. */
size_t marks_waiting(const struct marks *marks);

/* Whether the store may not know yet of all that was added. */
bool marks_unfinished(const struct marks *marks);
/* Which these are, at most MARKS_UNFINISHED_MAX; the number of them. */
size_t marks_list(const struct marks *marks, int64_t *ret_seqs);

/* Hands over what is due; a job that failed is handed over again. Returns after how many ms the next turn is
 * due, INT64_MAX: none. */
int64_t marks_turn(struct marks *marks, int64_t now_ms);

/* The last turn, for what waits still: the store has all of it then, at the latest once it is closed. */
void marks_end(struct marks *marks);

#endif
