/* Playlists in the store: those of clients, and those that a delivery makes step by step. */
#include "playlists_fixture.h"

static struct playlist create(struct fixture *fixture, const char *text)
{
    struct store_write write = new_write(STORE_CREATE, "", text);
    if (run_write(fixture, &write) != STATUS_OK)
        fail_msg("%s", write.err.text);
    struct playlist playlist = get(fixture, write.playlist.id);
    assert_same(&write.playlist, &playlist);
    store_write_done(&write);
    return playlist;
}

static enum status try_write(struct fixture *fixture, struct store_write write)
{
    enum status status = run_write(fixture, &write);
    store_write_done(&write);
    return status;
}

/* ---- by clients ---- */

static void test_every_field_is_stored_as_it_was_given(void **state)
{
    struct fixture *fixture = *state;
    int64_t before = clock_wall_ms();
    CLEANUP(playlist_done) struct playlist made = create(
        fixture, "{\"nom\":\"é😀'\\\"\\\\\",\"description\":\"%s%n\\n\",\"soireeId\":\"'; DROP TABLE playlists; --\","
                 "\"stylesMusicaux\":[\"a\",\"\"],\"tracks\":[\"\\u0001\"]}");
    assert_int_equal(strlen(made.id), 36);
    assert_int_equal(made.version, 1);
    assert_in_range(made.created_ms, before, clock_wall_ms());
    assert_int_equal(made.updated_ms, 0);
    assert_string_equal(made.nom, "é😀'\"\\");
    assert_string_equal(made.origine, "manuelle");
    assert_string_equal(made.soiree_id, "'; DROP TABLE playlists; --");
    close_store(fixture);
    open_store(fixture);
    CLEANUP(playlist_done) struct playlist stored = get(fixture, made.id);
    assert_same(&made, &stored);
    assert_string_equal(stored.styles.json, "[\"a\",\"\"]");
}

static void test_a_change_keeps_what_it_does_not_name(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(playlist_done) struct playlist made = create(
        fixture, "{\"nom\":\"a\",\"description\":\"d\",\"soireeId\":\"s\",\"tracks\":[\"t\"]}");
    assert_int_equal(try_write(fixture, new_write(STORE_CHANGE, made.id, "{\"nom\":\"b\"}")), STATUS_OK);
    CLEANUP(playlist_done) struct playlist changed = get(fixture, made.id);
    assert_string_equal(changed.nom, "b");
    assert_string_equal(changed.description, "d");
    assert_string_equal(changed.soiree_id, "s");
    assert_string_equal(changed.tracks.json, "[\"t\"]");
    assert_int_equal(changed.version, 2);
    assert_int_equal(changed.created_ms, made.created_ms);
    assert_true(changed.updated_ms >= made.created_ms);
}

static void test_a_change_that_changes_nothing_leaves_version_and_time(void **state)
{
    struct fixture *fixture = *state;
    static const char *const same[] = {"{}", "{\"nom\":\"a\"}", "{\"tracks\":[\"t\"],\"soireeId\":null}"};
    CLEANUP(playlist_done) struct playlist made = create(fixture, "{\"nom\":\"a\",\"tracks\":[\"t\"]}");
    for (size_t i = 0; i < COUNT(same); i++) {
        assert_int_equal(try_write(fixture, new_write(STORE_CHANGE, made.id, same[i])), STATUS_OK);
        CLEANUP(playlist_done) struct playlist stored = get(fixture, made.id);
        assert_same(&made, &stored);
    }
}

static void test_unknown_ids_are_not_found(void **state)
{
    struct fixture *fixture = *state;
    assert_gone(fixture, "x");
    assert_int_equal(try_write(fixture, new_write(STORE_CHANGE, "x", "{\"nom\":\"b\"}")), STATUS_NOT_FOUND);
    assert_int_equal(try_write(fixture, new_write(STORE_DELETE, "x", "")), STATUS_NOT_FOUND);
}

static void test_a_stale_condition_changes_and_deletes_nothing(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(playlist_done) struct playlist made = create(fixture, "{\"nom\":\"a\"}");
    static const char second[] = "\"2\"";
    for (int i = 0; i < 2; i++) {
        struct store_write write = new_write(i ? STORE_DELETE : STORE_CHANGE, made.id, i ? "" : "{\"nom\":\"b\"}");
        write.conditions.match = second;
        assert_int_equal(try_write(fixture, write), STATUS_STALE);
        CLEANUP(playlist_done) struct playlist stored = get(fixture, made.id);
        assert_same(&made, &stored);
    }
    assert_int_equal(try_write(fixture, new_write(STORE_CHANGE, made.id, "{\"nom\":\"b\"}")), STATUS_OK);
    struct store_write write = new_write(STORE_DELETE, made.id, "");
    write.conditions.match = second;
    assert_int_equal(try_write(fixture, write), STATUS_OK);
    assert_gone(fixture, made.id);
}

static enum status create_with_key(struct fixture *fixture, const char *text, char *ret_id)
{
    struct store_write write = new_write(STORE_CREATE, "", text);
    (void)text_copy(write.key, sizeof write.key, "key");
    enum status status = run_write(fixture, &write);
    (void)text_copy(ret_id, UUID_SIZE, write.playlist.id);
    store_write_done(&write);
    return status;
}

static void test_a_key_makes_one_playlist(void **state)
{
    struct fixture *fixture = *state;
    char first[UUID_SIZE], again[UUID_SIZE];
    assert_int_equal(create_with_key(fixture, "{\"nom\":\"a\"}", first), STATUS_OK);
    assert_int_equal(try_write(fixture, new_write(STORE_CHANGE, first, "{\"nom\":\"now\"}")), STATUS_OK);
    assert_int_equal(create_with_key(fixture, "{\"nom\":\"a\",\"tracks\":[]}", again), STATUS_OK);
    assert_string_equal(again, first);
    assert_int_equal(create_with_key(fixture, "{\"nom\":\"b\"}", again), STATUS_INVALID);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM playlists"), 1);
    assert_int_equal(try_write(fixture, new_write(STORE_DELETE, first, "")), STATUS_OK);
    assert_int_equal(create_with_key(fixture, "{\"nom\":\"a\"}", again), STATUS_GONE);
}

struct names {
    char text[64];
    int64_t last_seq;
};

static bool add_name(void *arg, const struct playlist *playlist)
{
    struct names *names = arg;
    size_t len = strlen(names->text);
    assert_true(text_copy(names->text + len, sizeof names->text - len, playlist->nom));
    names->last_seq = playlist->seq;
    return true;
}

static struct names list(struct fixture *fixture, const char *soiree_id, int64_t limit, int64_t before)
{
    struct names names = {.text = ""};
    const struct api_page page = {.limit = limit, .before = before};
    assert_int_equal(store_list(fixture->store, soiree_id, &page, add_name, &names, NULL), STATUS_OK);
    return names;
}

static void test_lists_have_the_newest_first_and_one_row_more_than_a_page(void **state)
{
    struct fixture *fixture = *state;
    for (char name = 'a'; name <= 'e'; name++) {
        CLEANUP(free_text) char *text = mem_format("{\"nom\":\"%c\",\"soireeId\":\"%s\"}", name, name % 2 ? "odd" : "even");
        CLEANUP(playlist_done) struct playlist made = create(fixture, text);
        assert_int_equal(made.nom[0], name);
    }
    assert_string_equal(list(fixture, "", 100, INT64_MAX).text, "edcba");
    assert_string_equal(list(fixture, "odd", 100, INT64_MAX).text, "eca");
    assert_string_equal(list(fixture, "none", 100, INT64_MAX).text, "");
    struct names page = list(fixture, "", 1, INT64_MAX);
    assert_string_equal(page.text, "ed");
    assert_string_equal(list(fixture, "", 100, page.last_seq).text, "cba");
    assert_string_equal(list(fixture, "odd", 1, page.last_seq).text, "ca");
}

/* ---- by deliveries: the begin ---- */

static void test_a_request_that_nobody_knows_begins_without_a_write(void **state)
{
    struct fixture *fixture = *state;
    assert_true(begin_first(fixture, "s-1", "m-1", false));
    assert_true(begin_first(fixture, "s-1", "", false));
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM requests"), 0);
    assert_false(begin_first(fixture, "s-1", "m-1", true)); /* the broker knows it */
}

static void test_a_request_that_the_store_knows_does_not_begin_like_that(void **state)
{
    struct fixture *fixture = *state;
    (void)begin(fixture, "s-1", "m-1", false);
    assert_false(begin_first(fixture, "s-1", "m-1", false));
    assert_true(begin_first(fixture, "s-1", "m-2", false));
    assert_false(begin_first(fixture, "s-1", "", false)); /* any playlist of the soirée would do */
    assert_int_equal(save(fixture, "s-2", "m-1", NULL), STATUS_OK);
    assert_false(begin_first(fixture, "s-2", "m-1", false));
}

static void test_starts_are_counted_with_the_one_that_only_the_broker_knows(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(begin(fixture, "s-1", "m-1", false).starts, 1);
    assert_int_equal(begin(fixture, "s-1", "m-1", true).starts, 2);
    assert_int_equal(begin(fixture, "s-1", "m-1", false).starts, 3);
    assert_int_equal(begin(fixture, "s-2", "m-1", true).starts, 2); /* its first was not written */
    assert_int_equal(begin(fixture, "s-2", "m-1", true).starts, 3);
    close_store(fixture);
    open_store(fixture);
    assert_int_equal(begin(fixture, "s-2", "m-1", true).starts, 4);
}

static void test_a_start_that_ends_with_a_clean_stop_does_not_count(void **state)
{
    struct fixture *fixture = *state;
    struct step step = {.step = {.next = STORE_NEXT_NOTHING}};
    for (int stops = 0; stops < 7; stops++) {
        if (stops > 0) /* the first start is written nowhere */
            assert_int_equal(begin(fixture, "s-1", "m-1", true).starts, 1);
        assert_int_equal(run_step(fixture, &step, STORE_ABANDON, "s-1", "m-1"), STATUS_OK);
    }
    assert_int_equal(save(fixture, "s-1", "m-1", NULL), STATUS_OK);
    assert_int_equal(run_step(fixture, &step, STORE_ABANDON, "s-1", "m-1"), STATUS_OK);
    assert_int_equal(begin(fixture, "s-1", "m-1", true).next, STORE_NEXT_LINK);
    assert_int_equal(number_beside(fixture, "SELECT starts FROM requests"), 0);
}

static void test_attempts_that_failed_outlive_the_process(void **state)
{
    struct fixture *fixture = *state;
    struct step step = {.step = {.next = STORE_NEXT_NOTHING}};
    for (int i = 0; i < 2; i++) /* of a first start, which is written with them */
        assert_int_equal(run_step(fixture, &step, STORE_COUNT_FAILURE, "s-1", "m-1"), STATUS_OK);
    close_store(fixture);
    open_store(fixture);
    struct store_step begun = begin(fixture, "s-1", "m-1", true);
    assert_int_equal(begun.next, STORE_NEXT_GENERATE);
    assert_int_equal(begun.starts, 2);
    assert_int_equal(begun.failures, 2);
}

/* ---- the save ---- */

static void test_a_save_is_playlist_requests_end_and_link(void **state)
{
    struct fixture *fixture = *state;
    struct link link;
    assert_int_equal(save(fixture, "s-1", "m-1", &link), STATUS_OK); /* never begun: nothing had to be written */
    CLEANUP(playlist_done) struct playlist stored = get(fixture, link.playlist_id);
    assert_string_equal(stored.soiree_id, "s-1");
    assert_string_equal(stored.origine, "defaut");
    assert_string_equal(link.soiree_id, "s-1");
    assert_string_equal(link.request_id, "m-1");
    assert_string_equal(link.traceparent, TRACE);
    struct store_step again = begin(fixture, "s-1", "m-1", true);
    assert_int_equal(again.next, STORE_NEXT_LINK);
    assert_int_equal(again.link.seq, link.seq);
    assert_string_equal(again.link.playlist_id, link.playlist_id);
    assert_string_equal(again.link.soiree_id, link.soiree_id);
    assert_string_equal(again.link.request_id, link.request_id);
    assert_string_equal(again.link.traceparent, link.traceparent);
    assert_int_equal(begin(fixture, "s-1", "", false).next, STORE_NEXT_LINK); /* any playlist will do */
    assert_int_equal(begin(fixture, "s-1", "m-2", false).next, STORE_NEXT_GENERATE);
}

static void test_a_request_gets_one_playlist_whoever_saves_it(void **state)
{
    struct fixture *fixture = *state;
    struct link link;
    (void)begin(fixture, "s-1", "m-1", false);
    assert_int_equal(save(fixture, "s-1", "m-1", &link), STATUS_OK);
    assert_int_equal(save(fixture, "s-1", "m-1", NULL), STATUS_CONFLICT);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM playlists"), 1);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM links"), 1);
    struct store_pending pending;
    store_pending_look(fixture->store, &pending);
    assert_int_equal(pending.count, 1);
}

/* Whatever fails in a transaction, nothing of it is left: here a trigger stands for the failure. */
static void test_without_its_link_a_playlist_is_not_saved(void **state)
{
    struct fixture *fixture = *state;
    run_beside(fixture, "CREATE TRIGGER refuse BEFORE INSERT ON links BEGIN SELECT RAISE(ABORT, 'refused'); END");
    assert_int_not_equal(save(fixture, "s-1", "m-1", NULL), STATUS_OK);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM playlists"), 0);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM requests"), 0);
    assert_true(begin_first(fixture, "s-1", "m-1", false));
}

/* ---- a batch that is rolled back for one of its jobs, and run once more ---- */

static sem_t held, free_again;

static void hold_the_writer(struct store_step *step)
{
    sem_post(&held);
    wait_for(&free_again);
    step_is_done(step);
}

/* Submits the writes and then a save that fails after it has written, all in one batch. */
static void run_with_a_failing_save(struct fixture *fixture, struct store_write *writes, int count)
{
    sem_t written;
    struct step gate = {.step = {.kind = STORE_BEGIN, .soiree_id = "s", .message_id = "m", .done = hold_the_writer}};
    struct playlist playlist = {.nom = "Disco", .origine = "defaut",
                                .styles = {.json = "[]"}, .tracks = {.json = "[]"}};
    struct step failing = {.step = {.kind = STORE_SAVE, .soiree_id = "s-1", .message_id = "m-1", .request_id = "",
                                    .traceparent = TRACE, .playlist = &playlist, .done = step_is_done}};
    run_beside(fixture, "CREATE TRIGGER refuse BEFORE INSERT ON links BEGIN SELECT RAISE(ABORT, 'refused'); END");
    sem_init(&held, 0, 0);
    sem_init(&free_again, 0, 0);
    sem_init(&gate.done, 0, 0);
    sem_init(&failing.done, 0, 0);
    sem_init(&written, 0, 0);
    store_step(fixture->store, &gate.step);
    wait_for(&held);
    for (int i = 0; i < count; i++) {
        writes[i].done = write_is_done;
        writes[i].arg = &written;
        store_submit(fixture->store, &writes[i]);
    }
    store_step(fixture->store, &failing.step);
    sem_post(&free_again);
    for (int i = 0; i < count; i++)
        wait_for(&written);
    wait_for(&gate.done);
    wait_for(&failing.done);
    assert_int_not_equal(failing.step.err.status, STATUS_OK);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM requests WHERE soiree_id = 's-1'"), 0);
}

static void test_writes_of_clients_bear_being_run_once_more(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(playlist_done) struct playlist made = create(fixture, "{\"nom\":\"a\",\"tracks\":[\"t\"]}");
    CLEANUP(playlist_done) struct playlist other = create(fixture, "{\"nom\":\"o\"}");
    struct store_write writes[] = {
        new_write(STORE_CREATE, "", "{\"nom\":\"b\",\"stylesMusicaux\":[\"x\"],\"tracks\":[\"u\"]}"),
        new_write(STORE_CREATE, "", "{\"nom\":\"c\",\"tracks\":[\"v\"]}"),
        new_write(STORE_CHANGE, made.id, "{\"stylesMusicaux\":[\"y\"],\"tracks\":[\"w\"]}"),
        new_write(STORE_DELETE, other.id, ""),
    };
    (void)text_copy(writes[1].key, sizeof writes[1].key, "key");
    run_with_a_failing_save(fixture, writes, COUNT(writes));
    for (size_t i = 0; i < COUNT(writes); i++)
        assert_int_equal(writes[i].err.status, STATUS_OK);
    for (int i = 0; i < 3; i++) {
        CLEANUP(playlist_done) struct playlist stored = get(fixture, writes[i].playlist.id);
        assert_same(&writes[i].playlist, &stored);
        assert_string_equal(stored.tracks.json, i == 0 ? "[\"u\"]" : i == 1 ? "[\"v\"]" : "[\"w\"]");
        assert_int_equal(stored.version, i == 2 ? 2 : 1);
    }
    assert_gone(fixture, other.id);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM playlists"), 3);
    for (size_t i = 0; i < COUNT(writes); i++)
        store_write_done(&writes[i]);
}

static void test_a_deleted_playlist_has_no_link_and_is_not_made_again(void **state)
{
    struct fixture *fixture = *state;
    struct link link;
    assert_int_equal(save(fixture, "s-1", "m-1", &link), STATUS_OK);
    assert_int_equal(try_write(fixture, new_write(STORE_DELETE, link.playlist_id, "")), STATUS_OK);
    assert_false(begin_first(fixture, "s-1", "m-1", false));
    assert_int_equal(begin(fixture, "s-1", "m-1", false).next, STORE_NEXT_NOTHING);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM links"), 0);
    struct store_pending pending;
    store_pending_look(fixture->store, &pending);
    assert_int_equal(pending.count, 0);
    assert_int_equal(pending.oldest_ms, -1);
}

/* ---- pending links ---- */

static size_t claim(struct fixture *fixture, int64_t lease_ms)
{
    struct store_links *links = mem_new(sizeof *links);
    links->lease_ms = lease_ms;
    assert_int_equal(run_links(fixture, links, STORE_LINKS_CLAIM), STATUS_OK);
    size_t count = links->count;
    free(links);
    return count;
}

/* Tells the store about the link that a save has given. */
static void tell(struct fixture *fixture, const struct link *link, enum store_links_kind kind, int64_t delay_ms)
{
    struct store_links *links = mem_new(sizeof *links);
    links->links[0] = *link;
    links->delay_ms = delay_ms;
    assert_int_equal(run_links(fixture, links, kind), STATUS_OK);
    free(links);
}

static void test_a_new_link_is_the_workers_for_a_while(void **state)
{
    struct fixture *fixture = *state;
    int64_t before = clock_wall_ms();
    assert_int_equal(save(fixture, "s-1", "m-1", NULL), STATUS_OK);
    assert_int_equal(claim(fixture, 1000), 0);
    assert_in_range(number_beside(fixture, "SELECT next_ms FROM links"), before + STORE_FIRST_LEASE_MS,
                    clock_wall_ms() + STORE_FIRST_LEASE_MS);
    run_beside(fixture, "UPDATE links SET next_ms = 1"); /* as time goes by */
    assert_int_equal(claim(fixture, 60000), 1);
    assert_int_equal(claim(fixture, 60000), 0); /* leased */
}

static void test_a_links_end_is_soon_written_without_any_other_write(void **state)
{
    struct fixture *fixture = *state;
    struct link link, other;
    struct store_pending pending;
    assert_int_equal(save(fixture, "s-1", "m-1", &link), STATUS_OK);
    assert_int_equal(save(fixture, "s-2", "m-1", &other), STATUS_OK);
    tell(fixture, &link, STORE_LINKS_END, 0);
    assert_int_equal(number_beside(fixture, "SELECT count(*) FROM links"), 1);
    store_pending_look(fixture->store, &pending);
    assert_int_equal(pending.count, 1);
    assert_in_range(pending.oldest_ms, clock_wall_ms() - 60000, clock_wall_ms());
    assert_int_equal(begin(fixture, "s-1", "m-1", true).next, STORE_NEXT_NOTHING);
    tell(fixture, &link, STORE_LINKS_END, 0); /* told twice */
    store_pending_look(fixture->store, &pending);
    assert_int_equal(pending.count, 1);
}

static void test_a_link_that_failed_waits_unless_all_are_hurried(void **state)
{
    struct fixture *fixture = *state;
    struct link link;
    assert_int_equal(save(fixture, "s-1", "m-1", &link), STATUS_OK);
    tell(fixture, &link, STORE_LINKS_RETRY, 30000);
    assert_int_equal(number_beside(fixture, "SELECT attempts FROM links"), 1);
    assert_int_equal(claim(fixture, 1000), 0);
    assert_int_equal(save(fixture, "s-2", "m-1", NULL), STATUS_OK); /* under way: not hurried */
    tell(fixture, &link, STORE_LINKS_HURRY, 0);
    assert_int_equal(claim(fixture, 1000), 1);
}

static void test_a_lease_that_no_clock_could_have_set_is_void(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(save(fixture, "s-1", "m-1", NULL), STATUS_OK);
    run_beside(fixture, "UPDATE links SET next_ms = next_ms + 3600000");
    assert_int_equal(claim(fixture, 1000), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_field_is_stored_as_it_was_given),
        TEST(test_a_change_keeps_what_it_does_not_name),
        TEST(test_a_change_that_changes_nothing_leaves_version_and_time),
        TEST(test_unknown_ids_are_not_found),
        TEST(test_a_stale_condition_changes_and_deletes_nothing),
        TEST(test_a_key_makes_one_playlist),
        TEST(test_lists_have_the_newest_first_and_one_row_more_than_a_page),
        TEST(test_a_request_that_nobody_knows_begins_without_a_write),
        TEST(test_a_request_that_the_store_knows_does_not_begin_like_that),
        TEST(test_starts_are_counted_with_the_one_that_only_the_broker_knows),
        TEST(test_a_start_that_ends_with_a_clean_stop_does_not_count),
        TEST(test_attempts_that_failed_outlive_the_process),
        TEST(test_a_save_is_playlist_requests_end_and_link),
        TEST(test_a_request_gets_one_playlist_whoever_saves_it),
        TEST(test_without_its_link_a_playlist_is_not_saved),
        TEST(test_writes_of_clients_bear_being_run_once_more),
        TEST(test_a_deleted_playlist_has_no_link_and_is_not_made_again),
        TEST(test_a_new_link_is_the_workers_for_a_while),
        TEST(test_a_links_end_is_soon_written_without_any_other_write),
        TEST(test_a_link_that_failed_waits_unless_all_are_hurried),
        TEST(test_a_lease_that_no_clock_could_have_set_is_void),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
