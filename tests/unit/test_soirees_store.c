/* Bookings in the store: create, change, link, delete, conditions and keys. Lists and the outbox have
 * programs of their own. */
#include "soirees_fixture.h"

/* ---- create ---- */

static void test_a_booking_and_its_request_are_stored_together(void **state)
{
    struct fixture *fixture = *state;
    int64_t before = clock_wall_ms();
    struct soiree soiree = book(fixture, "{" BOOKING "}"), stored = get(fixture, soiree.id);
    assert_int_equal(strlen(soiree.id), 36);
    assert_int_equal(soiree.version, 1);
    assert_in_range(soiree.created_ms, before, clock_wall_ms());
    assert_int_equal(soiree.updated_ms, 0);
    assert_same(&soiree, &stored);
    (void)assert_only_request(fixture, &soiree);
    assert_int_equal(atomic_load(&fixture->wakes), 1);
}

static void test_a_booking_with_a_playlist_asks_for_none(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING ",\"playlistId\":\"p\"}"),
                  stored = get(fixture, soiree.id);
    assert_string_equal(stored.playlist_id, "p");
    assert_string_equal(stored.request_id, "");
    assert_int_equal(count_unsent(fixture), 0);
    assert_int_equal(atomic_load(&fixture->wakes), 0);
}

static void test_every_field_is_stored_as_it_was_given(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(
        fixture, "{\"clientId\":\"é😀'\\\"\\\\\",\"date\":\"0000-01-01\",\"lieu\":\"\\u0001\\n\","
                 "\"nombreInvites\":100000,\"budget\":123456789.12345678,\"styleMusical\":"
                 "\"'; DROP TABLE soirees; --\",\"statut\":\"%s%n\",\"playlistId\":\" \"}");
    close_store(fixture);
    open_store(fixture);
    struct soiree stored = get(fixture, soiree.id);
    assert_same(&soiree, &stored);
    assert_true(stored.budget == 123456789.12345678);
    assert_string_equal(stored.client_id, "é😀'\"\\");
    assert_string_equal(stored.style, "'; DROP TABLE soirees; --");
}

static void test_ids_and_requests_are_never_the_same(void **state)
{
    struct fixture *fixture = *state;
    struct soiree first = book(fixture, "{" BOOKING "}"), second = book(fixture, "{" BOOKING "}");
    assert_string_not_equal(first.id, second.id);
    assert_string_not_equal(first.request_id, second.request_id);
    assert_string_not_equal(first.id, first.request_id);
    assert_true(second.seq > first.seq);
}

/* Whatever fails in a transaction, nothing of it is left: here a trigger stands for the failure. */
static void test_without_its_message_a_booking_is_not_stored(void **state)
{
    struct fixture *fixture = *state;
    struct soiree before = book(fixture, "{" BOOKING "}");
    refuse_rows(fixture, "outbox", "true");
    struct store_write write = new_write(STORE_CREATE, "", "{" BOOKING "}");
    assert_int_not_equal(run_write(fixture, &write), STATUS_OK);
    assert_non_null(strstr(write.err.text, "refused"));
    assert_gone(fixture, write.soiree.id);
    struct store_write restyle = new_write(STORE_CHANGE, before.id, "{\"styleMusical\":\"rock\"}");
    assert_int_not_equal(run_write(fixture, &restyle), STATUS_OK);
    struct soiree after = get(fixture, before.id);
    assert_same(&before, &after);
    (void)assert_only_request(fixture, &before); /* the old message, not dropped */
    assert_int_equal(atomic_load(&fixture->wakes), 1);
}

static void test_without_its_key_a_booking_is_not_stored(void **state)
{
    struct fixture *fixture = *state;
    refuse_rows(fixture, "idempotency", "true");
    struct store_write write = new_write(STORE_CREATE, "", "{" BOOKING "}");
    (void)text_copy(write.key, sizeof write.key, "key");
    assert_int_not_equal(run_write(fixture, &write), STATUS_OK);
    assert_gone(fixture, write.soiree.id);
    assert_int_equal(count_unsent(fixture), 0);
}

/* ---- change ---- */

static void test_a_change_keeps_what_it_does_not_name(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING ",\"budget\":5}");
    struct soiree changed = change(fixture, soiree.id, "{\"lieu\":\"ailleurs\"}"),
                  stored = get(fixture, soiree.id);
    assert_same(&changed, &stored);
    assert_string_equal(stored.lieu, "ailleurs");
    assert_string_equal(stored.client_id, "c");
    assert_true(stored.budget == 5);
    assert_int_equal(stored.version, 2);
    assert_int_equal(stored.created_ms, soiree.created_ms);
    assert_true(stored.updated_ms >= stored.created_ms);
    assert_string_equal(stored.request_id, soiree.request_id);
    (void)assert_only_request(fixture, &stored);
    assert_int_equal(atomic_load(&fixture->wakes), 1); /* nothing new to send */
}

static void test_a_change_that_changes_nothing_leaves_version_and_time(void **state)
{
    struct fixture *fixture = *state;
    static const char *const same[] = {"{}", "{" BOOKING "}", "{\"styleMusical\":\"disco\"}",
                                       "{\"playlistId\":null}", "{\"budget\":0,\"statut\":null}"};
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    int64_t seq = assert_only_request(fixture, &soiree);
    for (size_t i = 0; i < COUNT(same); i++) {
        struct soiree changed = change(fixture, soiree.id, same[i]), stored = get(fixture, soiree.id);
        assert_same(&changed, &soiree);
        assert_same(&stored, &soiree);
        assert_int_equal(assert_only_request(fixture, &soiree), seq);
    }
}

static void test_another_style_replaces_the_unsent_message(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    int64_t first = assert_only_request(fixture, &soiree);
    struct soiree rock = change(fixture, soiree.id, "{\"styleMusical\":\"rock\"}");
    assert_string_not_equal(rock.request_id, soiree.request_id);
    int64_t second = assert_only_request(fixture, &rock);
    assert_true(second > first);
    assert_int_equal(atomic_load(&fixture->wakes), 2);

    struct outbox_row row;
    assert_int_equal(store_outbox_get(fixture->store, first, &row, NULL), STATUS_NOT_FOUND);
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "old", NULL), STATUS_CONFLICT);
    assert_int_equal(link_playlist(fixture, soiree.id, rock.request_id, "new", NULL), STATUS_OK);
}

static void test_another_style_asks_anew_also_when_a_playlist_was_linked(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING ",\"playlistId\":\"p\"}");
    struct soiree rock = change(fixture, soiree.id, "{\"styleMusical\":\"rock\"}"),
                  stored = get(fixture, soiree.id);
    assert_string_equal(stored.playlist_id, "");
    assert_same(&rock, &stored);
    (void)assert_only_request(fixture, &rock);
}

static void test_a_clients_playlist_cancels_the_request_and_null_asks_again(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    struct soiree chosen = change(fixture, soiree.id, "{\"playlistId\":\"mine\"}");
    assert_string_equal(chosen.playlist_id, "mine");
    assert_string_equal(chosen.request_id, "");
    assert_int_equal(count_unsent(fixture), 0);
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "late", NULL), STATUS_CONFLICT);

    struct soiree again = change(fixture, soiree.id, "{\"playlistId\":null}");
    assert_string_equal(again.playlist_id, "");
    assert_string_not_equal(again.request_id, soiree.request_id);
    (void)assert_only_request(fixture, &again);
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "late", NULL), STATUS_CONFLICT);
}

/* ---- link ---- */

static void test_the_link_of_the_current_request_is_set_once(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}"), linked, again;
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "p", &linked), STATUS_OK);
    assert_string_equal(linked.playlist_id, "p");
    assert_int_equal(linked.version, 2);
    assert_true(linked.updated_ms > 0);
    assert_string_equal(linked.request_id, "");
    assert_int_equal(count_unsent(fixture), 0); /* answered: not sent any more */

    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "p", &again), STATUS_OK);
    assert_same(&again, &linked); /* the same value again: nothing changes */
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "q", NULL), STATUS_CONFLICT);
    again = get(fixture, soiree.id);
    assert_same(&again, &linked);
}

static void test_the_link_of_another_request_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}"), other = book(fixture, "{" BOOKING "}");
    static const char *const requests[] = {"", "x", "00000000-0000-7000-8000-000000000000"};
    for (size_t i = 0; i < COUNT(requests); i++)
        assert_int_equal(link_playlist(fixture, soiree.id, requests[i], "p", NULL), STATUS_CONFLICT);
    assert_int_equal(link_playlist(fixture, soiree.id, other.request_id, "p", NULL), STATUS_CONFLICT);
    struct soiree stored = get(fixture, soiree.id);
    assert_same(&stored, &soiree);
    assert_int_equal(count_unsent(fixture), 2);
}

/* ---- delete ---- */

static void test_deleting_drops_the_booking_and_its_message(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}"), other = book(fixture, "{" BOOKING "}");
    struct store_write write = new_write(STORE_DELETE, soiree.id, "");
    assert_int_equal(run_write(fixture, &write), STATUS_OK);
    assert_same(&write.soiree, &soiree); /* as it was */
    assert_gone(fixture, soiree.id);
    (void)assert_only_request(fixture, &other);
    assert_int_equal(delete_soiree(fixture, soiree.id), STATUS_NOT_FOUND);
    assert_int_equal(link_playlist(fixture, soiree.id, soiree.request_id, "p", NULL), STATUS_NOT_FOUND);
}

static void test_unknown_ids_are_not_found_whatever_they_look_like(void **state)
{
    struct fixture *fixture = *state;
    static const char *const ids[] = {
        "", " ", "1", "%", "_", "' OR 1=1 --", "é😀", "NULL", "019ad8f5-0000-7000-8000-000000000000"};
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    for (size_t i = 0; i < COUNT(ids); i++) {
        struct store_write write = new_write(STORE_CHANGE, ids[i], "{\"lieu\":\"x\"}");
        assert_gone(fixture, ids[i]);
        assert_int_equal(run_write(fixture, &write), STATUS_NOT_FOUND);
        assert_int_equal(delete_soiree(fixture, ids[i]), STATUS_NOT_FOUND);
        assert_int_equal(link_playlist(fixture, ids[i], soiree.request_id, "p", NULL), STATUS_NOT_FOUND);
    }
    for (char *c = soiree.id; *c; c++) /* ids are opaque: their case counts */
        *c = (char)(*c >= 'a' && *c <= 'f' ? *c - 'a' + 'A' : *c);
    assert_gone(fixture, soiree.id);
}

/* ---- If-Match ---- */

static void test_a_write_whose_condition_is_stale_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    static const enum store_write_kind kinds[] = {STORE_CHANGE, STORE_DELETE, STORE_LINK};
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    soiree = change(fixture, soiree.id, "{\"lieu\":\"ailleurs\"}");
    static const char *const stale[] = {"\"1\"", "\"1\", \"3\"", ""};
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (size_t i = 0; i < COUNT(stale); i++) {
            struct store_write write = new_write(kinds[k], soiree.id, "{\"playlistId\":\"p\"}");
            (void)text_copy(write.request_id, sizeof write.request_id, soiree.request_id);
            write.conditions.match = stale[i];
            assert_int_equal(run_write(fixture, &write), STATUS_STALE);
            assert_non_null(strstr(write.err.text, "\"2\""));
            struct soiree stored = get(fixture, soiree.id);
            assert_same(&stored, &soiree);
        }
}

static void test_a_write_whose_condition_holds_goes_on(void **state)
{
    struct fixture *fixture = *state;
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    struct store_write write = new_write(STORE_CHANGE, soiree.id, "{\"lieu\":\"2\"}");
    write.conditions.match = "\"7\", \"1\"";
    assert_int_equal(run_write(fixture, &write), STATUS_OK);
    write = new_write(STORE_CHANGE, soiree.id, "{\"lieu\":\"3\"}");
    write.conditions.match = "*";
    assert_int_equal(run_write(fixture, &write), STATUS_OK);
    write = new_write(STORE_CHANGE, soiree.id, "{\"lieu\":\"4\"}");
    write.conditions.none_match = "\"3\"";
    assert_int_equal(run_write(fixture, &write), STATUS_STALE);
    write = new_write(STORE_DELETE, soiree.id, "");
    write.conditions.match = "\"3\"";
    assert_int_equal(run_write(fixture, &write), STATUS_OK);
}

/* ---- Idempotency-Key ---- */

static struct store_write book_with_key(struct fixture *fixture, const char *key, const char *text)
{
    struct store_write write = new_write(STORE_CREATE, "", text);
    (void)text_copy(write.key, sizeof write.key, key);
    (void)run_write(fixture, &write);
    return write;
}

static void test_the_same_key_and_document_give_the_booking_as_it_is_now(void **state)
{
    struct fixture *fixture = *state;
    struct store_write first = book_with_key(fixture, "key", "{" BOOKING "}");
    assert_int_equal(first.err.status, STATUS_OK);
    struct store_write second = book_with_key(fixture, "key", "{" BOOKING ",\"budget\":0,\"statut\":null}");
    assert_int_equal(second.err.status, STATUS_OK);
    assert_same(&second.soiree, &first.soiree);
    (void)assert_only_request(fixture, &first.soiree); /* one booking, one message */
    assert_int_equal(atomic_load(&fixture->wakes), 1);

    struct soiree changed = change(fixture, first.soiree.id, "{\"lieu\":\"ailleurs\"}");
    struct store_write third = book_with_key(fixture, "key", "{" BOOKING "}");
    assert_int_equal(third.err.status, STATUS_OK);
    assert_same(&third.soiree, &changed);
    struct store_write other = book_with_key(fixture, "another", "{" BOOKING "}");
    assert_string_not_equal(other.soiree.id, first.soiree.id);
    assert_int_equal(count_unsent(fixture), 2);
}

static void test_a_key_used_for_another_booking_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct store_write first = book_with_key(fixture, "key", "{" BOOKING "}");
    struct store_write second = book_with_key(fixture, "key", "{" BOOKING ",\"budget\":1}");
    assert_int_equal(first.err.status, STATUS_OK);
    assert_int_equal(second.err.status, STATUS_INVALID);
    assert_int_equal(count_unsent(fixture), 1);
    assert_int_equal(book_with_key(fixture, "key", "{" BOOKING "}").err.status, STATUS_OK);
}

static void test_a_key_whose_booking_was_deleted_says_so(void **state)
{
    struct fixture *fixture = *state;
    struct store_write first = book_with_key(fixture, "key", "{" BOOKING "}");
    assert_int_equal(delete_soiree(fixture, first.soiree.id), STATUS_OK);
    struct store_write second = book_with_key(fixture, "key", "{" BOOKING "}");
    assert_int_equal(second.err.status, STATUS_GONE);
    assert_int_equal(count_unsent(fixture), 0);
}

static void test_two_bookings_at_once_with_one_key_are_one(void **state)
{
    enum { WRITES = 20 };
    struct fixture *fixture = *state;
    static struct store_write writes[WRITES];
    sem_t done;
    sem_init(&done, 0, 0);
    for (int i = 0; i < WRITES; i++) {
        writes[i] = new_write(STORE_CREATE, "", "{" BOOKING "}");
        (void)text_copy(writes[i].key, sizeof writes[i].key, "key");
        writes[i].done = post_done;
        writes[i].arg = &done;
        store_submit(fixture->store, &writes[i]);
    }
    for (int i = 0; i < WRITES; i++)
        wait_for(&done);
    for (int i = 0; i < WRITES; i++) {
        assert_int_equal(writes[i].err.status, STATUS_OK);
        assert_string_equal(writes[i].soiree.id, writes[0].soiree.id);
    }
    (void)assert_only_request(fixture, &writes[0].soiree);
    sem_destroy(&done);
}

/* ---- many at once ---- */

enum { MANY = 40 };

static void submit_all(struct fixture *fixture, struct store_write *writes)
{
    sem_t done;
    sem_init(&done, 0, 0);
    for (int i = 0; i < MANY; i++) {
        writes[i].done = post_done;
        writes[i].arg = &done;
        store_submit(fixture->store, &writes[i]);
    }
    for (int i = 0; i < MANY; i++)
        wait_for(&done);
    sem_destroy(&done);
}

static void test_one_write_that_fails_takes_no_other_with_it(void **state)
{
    struct fixture *fixture = *state;
    struct store_write writes[MANY];
    refuse_rows(fixture, "soirees", "NEW.lieu = 'refused'");
    for (int i = 0; i < MANY; i++)
        writes[i] = new_write(STORE_CREATE, "", "{" BOOKING "}");
    (void)text_copy(writes[MANY / 2].change.values.lieu, sizeof writes[0].change.values.lieu, "refused");
    submit_all(fixture, writes);
    for (int i = 0; i < MANY; i++) {
        if (i == MANY / 2) {
            assert_int_not_equal(writes[i].err.status, STATUS_OK);
            assert_gone(fixture, writes[i].soiree.id);
            continue;
        }
        assert_int_equal(writes[i].err.status, STATUS_OK);
        struct soiree stored = get(fixture, writes[i].soiree.id);
        assert_same(&stored, &writes[i].soiree);
    }
    assert_int_equal(count_unsent(fixture), MANY - 1);
}

static void test_changes_of_one_booking_at_once_follow_each_other(void **state)
{
    struct fixture *fixture = *state;
    struct store_write writes[MANY];
    struct soiree soiree = book(fixture, "{" BOOKING "}");
    for (int i = 0; i < MANY; i++) {
        CLEANUP(free_text) char *text = mem_format("{\"nombreInvites\":%d}", i + 2);
        writes[i] = new_write(STORE_CHANGE, soiree.id, text);
    }
    submit_all(fixture, writes);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(writes[i].err.status, STATUS_OK);
        assert_int_equal(writes[i].soiree.version, i + 2);
        assert_int_equal(writes[i].soiree.nombre_invites, i + 2);
    }
    struct soiree stored = get(fixture, soiree.id);
    assert_int_equal(stored.version, MANY + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_booking_and_its_request_are_stored_together),
        TEST(test_a_booking_with_a_playlist_asks_for_none),
        TEST(test_every_field_is_stored_as_it_was_given),
        TEST(test_ids_and_requests_are_never_the_same),
        TEST(test_without_its_message_a_booking_is_not_stored),
        TEST(test_without_its_key_a_booking_is_not_stored),
        TEST(test_a_change_keeps_what_it_does_not_name),
        TEST(test_a_change_that_changes_nothing_leaves_version_and_time),
        TEST(test_another_style_replaces_the_unsent_message),
        TEST(test_another_style_asks_anew_also_when_a_playlist_was_linked),
        TEST(test_a_clients_playlist_cancels_the_request_and_null_asks_again),
        TEST(test_the_link_of_the_current_request_is_set_once),
        TEST(test_the_link_of_another_request_is_refused),
        TEST(test_deleting_drops_the_booking_and_its_message),
        TEST(test_unknown_ids_are_not_found_whatever_they_look_like),
        TEST(test_a_write_whose_condition_is_stale_changes_nothing),
        TEST(test_a_write_whose_condition_holds_goes_on),
        TEST(test_the_same_key_and_document_give_the_booking_as_it_is_now),
        TEST(test_a_key_used_for_another_booking_is_refused),
        TEST(test_a_key_whose_booking_was_deleted_says_so),
        TEST(test_two_bookings_at_once_with_one_key_are_one),
        TEST(test_one_write_that_fails_takes_no_other_with_it),
        TEST(test_changes_of_one_booking_at_once_follow_each_other),
    };
    return cmocka_run_group_tests_name("soirees_store", tests, NULL, NULL);
}
