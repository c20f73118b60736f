/* A disk that really runs full: a small tmpfs, where the test may mount one (root), else skipped. */
#include "db_fixture.h"

#include <sched.h>
#include <string.h>
#include <sys/mount.h>

/* Mounts a tmpfs of that size in the fixture's folder and opens the database there. */
static void open_on_small_disk(struct fixture *fixture, unsigned mebibytes)
{
    char options[32]; /* skip() jumps: nothing to free */
    (void)snprintf(options, sizeof options, "size=%um", mebibytes);
    if (mount("tmpfs", fixture->folder, "tmpfs", MS_NOSUID | MS_NODEV, options) != 0) {
        print_message("no tmpfs: %s\n", strerror(errno));
        skip();
    }
    fixture_open(fixture);
}

static int leave_small_disk(void **state)
{
    struct fixture *fixture = *state;
    fixture_close(fixture);
    (void)umount2(fixture->folder, MNT_DETACH);
    return fixture_free(state);
}

static char *filler(const struct fixture *fixture)
{
    return mem_format("%s/filler", fixture->folder);
}

/* Takes up to that many bytes off the disk, whatever is left. */
static void fill(const struct fixture *fixture, size_t bytes)
{
    static const char block[64 * 1024];
    CLEANUP(free_text) char *path = filler(fixture);
    FILE *file = fopen(path, "ae");
    assert_non_null(file);
    (void)setvbuf(file, NULL, _IONBF, 0);
    for (size_t written = 0; written < bytes; written += sizeof block)
        if (fwrite(block, 1, sizeof block, file) != sizeof block)
            break;
    (void)fclose(file);
}

static void make_room(const struct fixture *fixture)
{
    CLEANUP(free_text) char *path = filler(fixture);
    assert_int_equal(unlink(path), 0);
}

static enum status add_growing(struct db *db, const char *name, struct err *ret_err)
{
    struct item_job item;
    item_init(&item, name);
    item.job.grows = true;
    enum status status = item_commit(db, &item);
    *ret_err = item.job.err;
    return status;
}

static void test_little_free_space_refuses_what_grows_and_nothing_else(void **state)
{
    struct fixture *fixture = *state;
    struct err err = {0};
    open_on_small_disk(fixture, 80);
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_OK);
    assert_int_equal(add_growing(fixture->db, "enough", &err), STATUS_OK);

    fill(fixture, 20 << 20); /* 60 MiB left: under the limit of 64 */
    assert_int_equal(add_growing(fixture->db, "too much", &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "espace disque insuffisant"));
    assert_non_null(strstr(err.text, "64"));
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, &err), STATUS_FULL);
    assert_int_equal(add_item(fixture->db, "allowed"), STATUS_OK);
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_FULL);

    make_room(fixture);
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_OK); /* at once */
    assert_int_equal(add_growing(fixture->db, "enough again", &err), STATUS_OK);
    assert_int_equal(count_items(fixture->db, "too much"), 0);
    assert_int_equal(count_items(fixture->db, ""), 3);
}

static void test_a_refusal_for_space_leaves_the_rest_of_its_batch_alone(void **state)
{
    struct fixture *fixture = *state;
    struct item_job jobs[8];
    open_on_small_disk(fixture, 32); /* never enough */
    for (size_t i = 0; i < COUNT(jobs); i++) {
        static const char *const names[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
        item_init(&jobs[i], names[i]);
        jobs[i].job.grows = i % 2 == 1;
        db_submit(fixture->db, &jobs[i].job);
    }
    for (size_t i = 0; i < COUNT(jobs); i++)
        assert_int_equal(item_wait(&jobs[i]), i % 2 == 1 ? STATUS_FULL : STATUS_OK);
    assert_int_equal(count_items(fixture->db, ""), 4);
}

static enum status run_large(struct db_job *job, struct db_conn *conn, struct err *err)
{
    struct item_job *item = OWNER(job, struct item_job, job);
    return db_run(conn, ADD_LARGE, err, "ti", item->name, (int64_t)(512 << 10));
}

static bool writing_works(void *db)
{
    struct err err = {0};
    return db_health(db, &(int64_t){0}, &err) == STATUS_OK || strstr(err.text, "Mio"); /* the disk is below the limit for good */
}

static void test_a_disk_that_is_full_fails_writes_loses_nothing_and_recovers(void **state)
{
    struct fixture *fixture = *state;
    open_on_small_disk(fixture, 16);
    assert_int_equal(add_item(fixture->db, "before"), STATUS_OK);
    fill(fixture, 64 << 20);
    enum status status = STATUS_OK;
    int stored = 1;
    for (int i = 0; i < 64 && status == STATUS_OK; i++) {
        struct item_job item;
        char name[] = "large 00 ";
        name[6] = (char)('0' + i / 10);
        name[7] = (char)('0' + i % 10);
        item_init(&item, name);
        item.job.run = run_large;
        status = item_commit(fixture->db, &item);
        stored += status == STATUS_OK;
    }
    assert_int_equal(status, STATUS_FULL);
    assert_int_equal(count_items(fixture->db, ""), stored);
    assert_int_equal(db_health(fixture->db, &(int64_t){0}, NULL), STATUS_FULL);

    make_room(fixture);
    wait_until(writing_works, fixture->db);
    assert_int_equal(add_item(fixture->db, "after"), STATUS_OK);
    assert_int_equal(count_items(fixture->db, ""), stored + 1);
    fixture_close(fixture);
    fixture_open(fixture);
    assert_int_equal(count_items(fixture->db, "before"), 1);
    assert_int_equal(count_items(fixture->db, ""), stored + 1);
}

/* The mounts are this program's alone, and go with it. */
static int hide_mounts(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNS) == 0)
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return 0;
}

#define TEST_SMALL_DISK(test) cmocka_unit_test_setup_teardown(test, fixture_new, leave_small_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_SMALL_DISK(test_little_free_space_refuses_what_grows_and_nothing_else),
        TEST_SMALL_DISK(test_a_refusal_for_space_leaves_the_rest_of_its_batch_alone),
        TEST_SMALL_DISK(test_a_disk_that_is_full_fails_writes_loses_nothing_and_recovers),
    };
    return cmocka_run_group_tests_name("db_disk", tests, hide_mounts, NULL);
}
