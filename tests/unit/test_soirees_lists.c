/* What lists cost, counted in steps of SQLite's virtual machine: a page costs the same wherever it is, and
 * what a filter leaves out is never read in the table. */
#include "soirees_fixture.h"

enum { ROWS = 100000, PAGE = 10 };

/* ---- counting ---- */

/* Of the last statement that a connection has finished; the test lists in one thread. */
static struct {
    int steps, scanned, sorts, built;
} cost;

static int on_profile(unsigned event, void *arg, void *statement, void *time)
{
    (void)event;
    (void)arg;
    (void)time;
    cost.steps = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_VM_STEP, 1);
    cost.scanned = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_FULLSCAN_STEP, 1);
    cost.sorts = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_SORT, 1);
    cost.built = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_AUTOINDEX, 1);
    return 0;
}

static int on_open(sqlite3 *handle, const char **error, const struct sqlite3_api_routines *routines)
{
    (void)error;
    (void)routines;
    return sqlite3_trace_v2(handle, SQLITE_TRACE_PROFILE, on_profile, NULL);
}

/* ---- a store with many bookings ---- */

/* Booking i is of client i % 100, on one of 100 days in turn, and every hundredth is an option. */
static int fill(void **state)
{
    assert_int_equal(sqlite3_auto_extension((void (*)(void))on_open), SQLITE_OK);
    assert_int_equal(new_fixture(state), 0);
    sqlite3_reset_auto_extension();
    CLEANUP(free_text)
    char *sql = mem_format(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
        " INSERT INTO soirees (id, version, client_id, date, lieu, nombre_invites, budget,"
        " style, statut, created_ms, updated_ms)"
        " SELECT 'id-' || i, 1, 'client-' || (i %% 100), date('2026-01-01', '+' || (i %% 100)"
        " || ' days'), 'Paris', 1, 0, 'disco', CASE WHEN i %% 100 THEN 'sûre' ELSE 'option'"
        " END, 0, 0 FROM n",
        ROWS);
    run_beside(*state, sql);
    return 0;
}

struct seen {
    size_t count;
    int64_t first, last;
};

static bool see(void *arg, const struct soiree *soiree)
{
    struct seen *seen = arg;
    seen->first = seen->count++ == 0 ? soiree->seq : seen->first;
    assert_true(seen->count == 1 || soiree->seq < seen->last);
    seen->last = soiree->seq;
    return true;
}

/* The rows before `before`; *cost is then that of the list. */
static struct seen list(struct fixture *fixture, struct soiree_filter filter, int64_t before)
{
    struct seen seen = {0};
    struct err err = {0};
    filter.client_id = filter.client_id ? filter.client_id : "";
    filter.statut = filter.statut ? filter.statut : "";
    filter.date_from = filter.date_from ? filter.date_from : "";
    filter.date_to = filter.date_to ? filter.date_to : "";
    const struct api_page page = {.limit = PAGE, .before = before};
    if (store_list(fixture->store, &filter, &page, see, &seen, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(cost.sorts, 0); /* in the order of the index: what is behind the page is not looked at */
    assert_int_equal(cost.built, 0);
    assert_int_equal(cost.scanned, 0);
    return seen;
}

/* ---- tests ---- */

static void test_a_page_costs_the_same_wherever_it_is(void **state)
{
    static const struct soiree_filter filters[] = {
        {.client_id = NULL},
        {.client_id = "client-7"},
        {.statut = "sûre"},
        {.statut = "option"},
        {.date_from = "2026-01-01"},
        {.date_from = "2026-01-01", .date_to = "2026-12-31"},
        {.client_id = "client-7", .statut = "sûre", .date_from = "2026-01-01", .date_to = "2026-12-31"},
        {.statut = "option", .date_to = "2026-12-31"},
    };
    for (size_t i = 0; i < COUNT(filters); i++) {
        assert_int_equal(list(*state, filters[i], INT64_MAX).count, PAGE + 1);
        int steps = cost.steps;
        assert_true(steps > 0 && steps < 1000);
        for (int64_t before = ROWS; before > ROWS / 10; before -= ROWS / 10) {
            struct seen seen = list(*state, filters[i], before);
            assert_int_equal(seen.count, PAGE + 1);
            assert_true(seen.first < before);
            assert_true(abs(cost.steps - steps) <= 60); /* 50: dates that come round once in a hundred */
        }
    }
}

static void test_what_nothing_has_costs_nothing(void **state)
{
    static const struct soiree_filter filters[] = {
        {.client_id = "nobody"},
        {.client_id = "nobody", .statut = "sûre", .date_from = "2026-01-01"},
        {.statut = "absente"},
        {.statut = "absente", .date_from = "2026-01-01"},
    };
    for (size_t i = 0; i < COUNT(filters); i++) {
        assert_int_equal(list(*state, filters[i], INT64_MAX).count, 0);
        assert_true(cost.steps < 100);
    }
}

/* Some 20 steps an item that is left out, each a look into an index: 0.1 us. */
static void test_what_dates_leave_out_costs_little(void **state)
{
    static const struct {
        struct soiree_filter filter;
        int looked_at;
    } cases[] = {
        {{.date_from = "2027-01-01"}, ROWS},
        {{.statut = "option", .date_from = "2027-01-01"}, ROWS / 100},
        {{.client_id = "client-7", .date_to = "2025-12-31"}, ROWS / 100},
        {{.client_id = "client-7", .statut = "option"}, ROWS / 100},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(list(*state, cases[i].filter, INT64_MAX).count, 0);
        assert_true(cost.steps < 20 * cases[i].looked_at + 100);
    }
}

static void assert_covered(struct fixture *fixture, const char *index, const char *condition)
{
    sqlite3 *handle = NULL;
    sqlite3_stmt *statement = NULL;
    CLEANUP(free_text)
    char *sql = mem_format("EXPLAIN QUERY PLAN SELECT seq, statut, date FROM soirees INDEXED BY %s WHERE %s",
                           index, condition);
    assert_int_equal(sqlite3_open(fixture->path, &handle), SQLITE_OK);
    if (sqlite3_prepare_v2(handle, sql, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(handle));
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    const char *plan = (const char *)sqlite3_column_text(statement, 3);
    if (!strstr(plan, "COVERING INDEX"))
        fail_msg("%s: %s", sql, plan);
    sqlite3_finalize(statement);
    sqlite3_close(handle);
}

static void test_the_indexes_hold_all_that_filters_look_at(void **state)
{
    assert_covered(*state, "soirees_client", "client_id = 'c' AND seq < 9 AND statut = 's' AND date > 'd'");
    assert_covered(*state, "soirees_statut", "statut = 's' AND seq < 9 AND date > 'd'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page_costs_the_same_wherever_it_is),
        cmocka_unit_test(test_what_nothing_has_costs_nothing),
        cmocka_unit_test(test_what_dates_leave_out_costs_little),
        cmocka_unit_test(test_the_indexes_hold_all_that_filters_look_at),
    };
    return cmocka_run_group_tests_name("soirees lists", tests, fill, free_fixture);
}
