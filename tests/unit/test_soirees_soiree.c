/* A booking's fields and their bounds, what a change does to its request for a playlist, its JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "mem.h"
#include "soirees/soiree.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BIT(field) (1U << (field))

enum { REQUIRED = BIT(SOIREE_CLIENT_ID) | BIT(SOIREE_DATE) | BIT(SOIREE_LIEU) | BIT(SOIREE_NOMBRE_INVITES) };

static enum status decode(const char *text, enum json_mode mode, struct soiree_change *change,
                          struct problems *problems)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    memset(change, 'x', sizeof *change);
    *problems = (struct problems){0};
    if (json_parse(text, strlen(text), &document, &err) != STATUS_OK)
        fail_msg("%s: %s", text, err.text);
    return soiree_decode(document, mode, change, problems);
}

static struct soiree_change decode_well(const char *text, enum json_mode mode)
{
    struct soiree_change change;
    struct problems problems;
    if (decode(text, mode, &change, &problems) != STATUS_OK)
        fail_msg("%s: %s %s", text, problems.items[0].pointer, problems.items[0].detail);
    return change;
}

/* A complete booking in which `name` has that value (as JSON). */
static char *booking_with(const char *name, const char *value)
{
    static const char *const required[][2] = {
        {"clientId", "\"c\""}, {"date", "\"2025-12-31\""}, {"lieu", "\"l\""}, {"nombreInvites", "1"}};
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 16 * 1024);
    buf_format(&text, "{\"%s\":%s", name, value);
    for (size_t i = 0; i < COUNT(required); i++)
        if (strcmp(required[i][0], name) != 0)
            buf_format(&text, ",\"%s\":%s", required[i][0], required[i][1]);
    buf_char(&text, '}');
    return buf_take(&text);
}

/* "xxx…" of that many code points, quoted. */
static char *text_of(const char *point, size_t count)
{
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 16 * 1024);
    buf_char(&text, '"');
    while (count-- > 0)
        buf_text(&text, point);
    buf_char(&text, '"');
    return buf_take(&text);
}

static void assert_taken(const char *name, const char *value, bool taken)
{
    for (enum json_mode mode = JSON_CREATE; mode <= JSON_CHANGE; mode++) {
        CLEANUP(free_text)
        char *text = mode == JSON_CREATE ? booking_with(name, value) : mem_format("{\"%s\":%s}", name, value);
        struct soiree_change change;
        struct problems problems;
        enum status status = decode(text, mode, &change, &problems);
        if ((status == STATUS_OK) != taken)
            fail_msg("%s: %s", taken ? "refused" : "taken", text);
        if (taken)
            continue;
        assert_int_equal(status, STATUS_INVALID);
        assert_int_equal(problems.count, 1);
        assert_string_equal(problems.items[0].pointer + 1, name);
        assert_true(problems.items[0].detail[0] != '\0');
    }
}

static void test_texts_have_their_bounds_in_code_points(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t max;
    } fields[] = {{"clientId", 128}, {"lieu", 200}, {"styleMusical", 64}, {"statut", 32}, {"playlistId", 64}};
    static const char *const points[] = {"a", "é", "€", "😀", "\\u00e9", "\\ud83d\\ude00"};
    for (size_t i = 0; i < COUNT(fields); i++)
        for (size_t p = 0; p < COUNT(points); p++) {
            CLEANUP(free_text) char *none = text_of(points[p], 0), *least = text_of(points[p], 1),
                                    *most = text_of(points[p], fields[i].max),
                                    *more = text_of(points[p], fields[i].max + 1);
            assert_taken(fields[i].name, none, false);
            assert_taken(fields[i].name, least, true);
            assert_taken(fields[i].name, most, true);
            assert_taken(fields[i].name, more, false);
        }
}

static void test_every_field_has_its_type_and_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *taken[10], *refused[14];
    } fields[] = {
        {"clientId", {"\"client-1\"", "\" \""}, {"1", "true", "[]", "{}", "[\"a\"]"}},
        {"lieu", {"\"Paris\\n\""}, {"1", "false", "[]", "{}"}},
        {"date",
         {"\"2025-12-31\"", "\"1900-01-01\"", "\"2024-02-29\"", "\"2000-02-29\"", "\"9999-12-31\"", "\"0000-01-01\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2025-13-01\"", "\"2025-00-10\"", "\"2025-04-31\"", "\"2025-01-00\"",
          "\"2025-1-1\"", "\"31/12/2025\"", "\"2025-12-31T00:00:00Z\"", "\"\"", "\"2025-12-31 \"", "20251231", "[]",
          "\"２０２５-12-31\""}},
        {"nombreInvites",
         {"1", "100000", "50.0", "1e5", "5E1"},
         {"0", "-1", "100001", "1.5", "1e6", "0.999999", "\"5\"", "true", "[]", "{}", "4294967297", "1e300"}},
        {"budget",
         {"0", "-0", "0.01", "1e9", "1000000000", "1234.5", "-0.0"},
         {"-0.01", "-1", "1000000000.5", "1e10", "\"5\"", "true", "[]", "{}"}},
        {"styleMusical", {"\"rock'n'roll \\\"live\\\"\"", "null"}, {"1", "[]", "{}", "false"}},
        {"statut", {"\"annulée\"", "null"}, {"1", "[]", "{}", "false"}},
        {"playlistId", {"\"12\"", "null"}, {"12", "[]", "{}", "false", "\"\""}},
    };
    for (size_t i = 0; i < COUNT(fields); i++) {
        for (size_t n = 0; n < COUNT(fields[i].taken) && fields[i].taken[n]; n++)
            assert_taken(fields[i].name, fields[i].taken[n], true);
        for (size_t n = 0; n < COUNT(fields[i].refused) && fields[i].refused[n]; n++)
            assert_taken(fields[i].name, fields[i].refused[n], false);
        if (i < 4)
            assert_taken(fields[i].name, "null", false); /* required */
    }
}

static void test_a_minimal_booking_gets_the_defaults(void **state)
{
    (void)state;
    struct soiree_change change = decode_well(
        "{\"clientId\":\"Zoé\",\"date\":\"2025-12-31\",\"lieu\":\"Paris\",\"nombreInvites\":150}", JSON_CREATE);
    assert_int_equal(change.present, REQUIRED);
    assert_string_equal(change.values.client_id, "Zoé");
    assert_string_equal(change.values.date, "2025-12-31");
    assert_string_equal(change.values.lieu, "Paris");
    assert_int_equal(change.values.nombre_invites, 150);
    assert_true(change.values.budget == 0);
    assert_string_equal(change.values.style, "disco");
    assert_string_equal(change.values.statut, "confirmée");
    assert_string_equal(change.values.playlist_id, "");
    assert_string_equal(change.values.id, "");
    assert_string_equal(change.values.request_id, "");
    assert_int_equal(change.values.version, 0);
}

static void test_optional_fields_that_are_null_get_the_defaults(void **state)
{
    (void)state;
    static const char nulls[] = "\"budget\":null,\"styleMusical\":null,\"statut\":null,\"playlistId\":null";
    CLEANUP(free_text) char *created =
        mem_format("{\"clientId\":\"c\",\"date\":\"2025-12-31\",\"lieu\":\"l\",\"nombreInvites\":1,%s}", nulls);
    CLEANUP(free_text) char *changed = mem_format("{%s}", nulls);
    for (enum json_mode mode = JSON_CREATE; mode <= JSON_CHANGE; mode++) {
        struct soiree_change change = decode_well(mode == JSON_CREATE ? created : changed, mode);
        assert_int_equal(change.present & ~(unsigned)REQUIRED, BIT(SOIREE_BUDGET) | BIT(SOIREE_STYLE) |
                                                                   BIT(SOIREE_STATUT) | BIT(SOIREE_PLAYLIST_ID));
        assert_true(change.values.budget == 0);
        assert_string_equal(change.values.style, "disco");
        assert_string_equal(change.values.statut, "confirmée");
        assert_string_equal(change.values.playlist_id, "");
    }
}

static void test_all_problems_are_named_at_once(void **state)
{
    (void)state;
    struct soiree_change change;
    struct problems problems;
    static const char *const pointers[] = {"/clientId", "/date",         "/lieu",   "/nombreInvites",
                                           "/budget",   "/styleMusical", "/statut", "/playlistId"};
    assert_int_equal(decode("{\"date\":\"hier\",\"lieu\":\"\",\"nombreInvites\":0,\"budget\":-1,\"styleMusical\":1,"
                            "\"statut\":[],\"playlistId\":\"\"}",
                            JSON_CREATE, &change, &problems),
                     STATUS_INVALID);
    assert_int_equal(problems.count, COUNT(pointers));
    for (size_t i = 0; i < COUNT(pointers); i++)
        assert_string_equal(problems.items[i].pointer, pointers[i]);
    assert_int_equal(decode("{}", JSON_CREATE, &change, &problems), STATUS_INVALID);
    assert_int_equal(problems.count, 4);
    assert_int_equal(decode("{\"clientId\":null,\"date\":null,\"lieu\":null,\"nombreInvites\":null}", JSON_CHANGE,
                            &change, &problems),
                     STATUS_INVALID);
    assert_int_equal(problems.count, 4);
}

static void test_what_is_no_object_is_invalid(void **state)
{
    (void)state;
    static const char *const texts[] = {"[]", "\"clientId\"", "1", "null", "true", "[{\"lieu\":\"l\"}]"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct soiree_change change;
        struct problems problems;
        assert_int_equal(decode(texts[i], JSON_CHANGE, &change, &problems), STATUS_INVALID);
        assert_int_equal(problems.count, 1);
        assert_string_equal(problems.items[0].pointer, "");
    }
}

static void test_fields_that_are_not_a_clients_are_ignored(void **state)
{
    (void)state;
    struct soiree_change change = decode_well(
        "{\"id\":7,\"createdAt\":false,\"updatedAt\":[],\"origine\":{},\"version\":9,\"unknown\":null,\"Lieu\":\"L\","
        "\"clientid\":3,\"request_id\":\"x\",\"\":1}",
        JSON_CHANGE);
    assert_int_equal(change.present, 0);
    assert_string_equal(change.values.id, "");
}

/* ---- changes ---- */

static struct soiree stored(const char *style, const char *playlist_id)
{
    struct soiree soiree = {.version = 3, .nombre_invites = 10, .budget = 0.1, .date = "2025-12-31", .updated_ms = 7};
    (void)text_copy(soiree.id, sizeof soiree.id, "id");
    (void)text_copy(soiree.client_id, sizeof soiree.client_id, "client");
    (void)text_copy(soiree.lieu, sizeof soiree.lieu, "lieu");
    (void)text_copy(soiree.style, sizeof soiree.style, style);
    (void)text_copy(soiree.statut, sizeof soiree.statut, "confirmée");
    (void)text_copy(soiree.playlist_id, sizeof soiree.playlist_id, playlist_id);
    (void)text_copy(soiree.request_id, sizeof soiree.request_id, "request");
    return soiree;
}

static void test_what_a_change_does_to_the_request_for_a_playlist(void **state)
{
    (void)state;
    static const struct {
        const char *playlist, *change;
        bool changed;
        enum soiree_request request;
        const char *then;
    } cases[] = {
        /* other fields */
        {"", "{}", false, SOIREE_REQUEST_KEPT, ""},
        {"p", "{}", false, SOIREE_REQUEST_KEPT, "p"},
        {"", "{\"lieu\":\"ailleurs\"}", true, SOIREE_REQUEST_KEPT, ""},
        {"p", "{\"lieu\":\"ailleurs\",\"nombreInvites\":11,\"budget\":5}", true, SOIREE_REQUEST_KEPT, "p"},
        {"p", "{\"statut\":\"annulée\"}", true, SOIREE_REQUEST_KEPT, "p"},
        /* the style */
        {"", "{\"styleMusical\":\"rock\"}", true, SOIREE_REQUEST_NEW, ""},
        {"p", "{\"styleMusical\":\"rock\"}", true, SOIREE_REQUEST_NEW, ""},
        {"p", "{\"styleMusical\":\"disco\"}", false, SOIREE_REQUEST_KEPT, "p"},
        {"p", "{\"styleMusical\":null}", false, SOIREE_REQUEST_KEPT, "p"}, /* back to the default, which it is */
        {"p", "{\"styleMusical\":\"disco\",\"lieu\":\"ailleurs\"}", true, SOIREE_REQUEST_KEPT, "p"},
        {"p", "{\"styleMusical\":\"Disco\"}", true, SOIREE_REQUEST_NEW, ""},
        /* the playlist */
        {"", "{\"playlistId\":\"q\"}", true, SOIREE_REQUEST_CANCELLED, "q"},
        {"p", "{\"playlistId\":\"q\"}", true, SOIREE_REQUEST_CANCELLED, "q"},
        {"p", "{\"playlistId\":\"p\"}", false, SOIREE_REQUEST_KEPT, "p"},
        {"p", "{\"playlistId\":\"p\",\"lieu\":\"ailleurs\"}", true, SOIREE_REQUEST_KEPT, "p"},
        {"p", "{\"playlistId\":null}", true, SOIREE_REQUEST_NEW, ""},
        {"", "{\"playlistId\":null}", false, SOIREE_REQUEST_KEPT, ""},
        /* both */
        {"p", "{\"styleMusical\":\"rock\",\"playlistId\":\"q\"}", true, SOIREE_REQUEST_CANCELLED, "q"},
        {"", "{\"styleMusical\":\"rock\",\"playlistId\":\"q\"}", true, SOIREE_REQUEST_CANCELLED, "q"},
        {"p", "{\"styleMusical\":\"rock\",\"playlistId\":\"p\"}", true, SOIREE_REQUEST_NEW, ""}, /* equal: nothing */
        {"p", "{\"styleMusical\":\"rock\",\"playlistId\":null}", true, SOIREE_REQUEST_NEW, ""},
        {"", "{\"styleMusical\":\"rock\",\"playlistId\":null}", true, SOIREE_REQUEST_NEW, ""},
        {"p", "{\"styleMusical\":\"disco\",\"playlistId\":\"q\"}", true, SOIREE_REQUEST_CANCELLED, "q"},
        {"p", "{\"styleMusical\":\"disco\",\"playlistId\":null}", true, SOIREE_REQUEST_NEW, ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct soiree soiree = stored("disco", cases[i].playlist);
        struct soiree_change change = decode_well(cases[i].change, JSON_CHANGE);
        bool changed = !cases[i].changed;
        enum soiree_request request = soiree_apply(&soiree, &change, &changed);
        if (request != cases[i].request || changed != cases[i].changed)
            fail_msg("playlist '%s', %s: request %d, changed %d", cases[i].playlist, cases[i].change, request, changed);
        assert_string_equal(soiree.playlist_id, cases[i].then);
        assert_int_equal(soiree.version, 3); /* none of its business */
        assert_int_equal(soiree.updated_ms, 7);
        assert_string_equal(soiree.request_id, "request");
    }
}

static void test_a_change_sets_its_fields_and_no_other(void **state)
{
    (void)state;
    struct soiree soiree = stored("disco", "p");
    struct soiree_change change =
        decode_well("{\"clientId\":\"x\",\"date\":\"2026-01-01\",\"nombreInvites\":20,\"budget\":0.2}", JSON_CHANGE);
    bool changed = false;
    (void)soiree_apply(&soiree, &change, &changed);
    assert_true(changed);
    assert_string_equal(soiree.client_id, "x");
    assert_string_equal(soiree.date, "2026-01-01");
    assert_int_equal(soiree.nombre_invites, 20);
    assert_true(soiree.budget == 0.2);
    assert_string_equal(soiree.lieu, "lieu");
    assert_string_equal(soiree.statut, "confirmée");
    (void)soiree_apply(&soiree, &change, &changed); /* the same again is no change */
    assert_false(changed);
}

static void test_every_field_alone_is_a_change_only_when_it_differs(void **state)
{
    (void)state;
    static const char *const same[] = {
        "{\"clientId\":\"client\"}", "{\"date\":\"2025-12-31\"}", "{\"lieu\":\"lieu\"}",       "{\"nombreInvites\":10.0}",
        "{\"budget\":0.1}",          "{\"budget\":1e-1}",         "{\"statut\":\"confirmée\"}", "{\"statut\":null}",
    };
    static const char *const others[] = {
        "{\"clientId\":\"clien\"}", "{\"date\":\"2025-12-30\"}", "{\"lieu\":\"lieu \"}", "{\"nombreInvites\":11}",
        "{\"budget\":0.1000001}",   "{\"budget\":null}",         "{\"statut\":\"confirmee\"}",
    };
    for (size_t i = 0; i < COUNT(same) + COUNT(others); i++) {
        bool differs = i >= COUNT(same), changed = !differs;
        const char *text = differs ? others[i - COUNT(same)] : same[i];
        struct soiree soiree = stored("disco", "p");
        struct soiree_change change = decode_well(text, JSON_CHANGE);
        assert_int_equal(soiree_apply(&soiree, &change, &changed), SOIREE_REQUEST_KEPT);
        if (changed != differs)
            fail_msg("%s: changed %d", text, changed);
    }
}

static void test_what_the_workers_link_does(void **state)
{
    (void)state;
    static const struct {
        const char *request, *playlist, *asked_request, *asked_playlist;
        enum soiree_link link;
    } cases[] = {
        {"r", "", "r", "p", SOIREE_LINK_SET},
        {"r", "p", "r", "p", SOIREE_LINK_SAME},
        {"", "p", "r", "p", SOIREE_LINK_SAME}, /* linked, so no longer open */
        {"s", "p", "r", "p", SOIREE_LINK_SAME},
        {"r", "q", "r", "p", SOIREE_LINK_REFUSED},
        {"s", "", "r", "p", SOIREE_LINK_REFUSED}, /* another request is current */
        {"", "", "r", "p", SOIREE_LINK_REFUSED},  /* none is */
        {"", "", "", "p", SOIREE_LINK_REFUSED},   /* an empty header is no request's */
        {"r", "", "R", "p", SOIREE_LINK_REFUSED},
        {"", "q", "r", "p", SOIREE_LINK_REFUSED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct soiree soiree = stored("disco", cases[i].playlist);
        (void)text_copy(soiree.request_id, sizeof soiree.request_id, cases[i].request);
        assert_int_equal(soiree_link(&soiree, cases[i].asked_request, cases[i].asked_playlist), cases[i].link);
        assert_string_equal(soiree.playlist_id, cases[i].playlist); /* it only tells */
    }
}

/* ---- JSON ---- */

static void assert_json(void (*put)(struct buf *out, const struct soiree *soiree), const struct soiree *soiree,
                        const char *expected)
{
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 64 * 1024);
    put(&out, soiree);
    assert_string_equal(buf_get(&out), expected);
    CLEANUP(json_free) cJSON *document = NULL;
    assert_int_equal(json_parse(buf_get(&out), out.len, &document, NULL), STATUS_OK);
}

static void test_a_booking_is_shown_with_its_times_and_without_what_is_internal(void **state)
{
    (void)state;
    struct soiree soiree = stored("disco", "");
    soiree.created_ms = 1764671400000;
    soiree.updated_ms = 0;
    soiree.seq = 5;
    assert_json(soiree_put_json, &soiree,
                "{\"id\":\"id\",\"clientId\":\"client\",\"date\":\"2025-12-31\",\"lieu\":\"lieu\",\"nombreInvites\":10,"
                "\"playlistId\":null,\"budget\":0.1,\"statut\":\"confirmée\",\"styleMusical\":\"disco\","
                "\"createdAt\":\"2025-12-02T10:30:00.000Z\"}");
    soiree = stored("r\"n\"b", "p\n");
    soiree.created_ms = 1764671400000;
    soiree.updated_ms = 1764671400001;
    soiree.budget = 1e9;
    assert_json(soiree_put_json, &soiree,
                "{\"id\":\"id\",\"clientId\":\"client\",\"date\":\"2025-12-31\",\"lieu\":\"lieu\",\"nombreInvites\":10,"
                "\"playlistId\":\"p\\n\",\"budget\":1000000000,\"statut\":\"confirmée\",\"styleMusical\":\"r\\\"n\\\"b\","
                "\"createdAt\":\"2025-12-02T10:30:00.000Z\",\"updatedAt\":\"2025-12-02T10:30:00.001Z\"}");
}

static void test_two_bodies_that_mean_the_same_have_one_document(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"clientId\":\"é\",\"date\":\"2025-12-31\",\"lieu\":\"l\",\"nombreInvites\":50}",
        " { \"nombreInvites\" : 50.0, \"lieu\":\"\\u006c\",\"date\":\"2025-12-31\",\"clientId\":\"\\u00e9\" } ",
        ("{\"clientId\":\"é\",\"date\":\"2025-12-31\",\"lieu\":\"l\",\"nombreInvites\":5e1,\"budget\":0,\"statut\":null,"
         "\"styleMusical\":\"disco\",\"playlistId\":null,\"id\":\"ignored\",\"extra\":1}"),
    };
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct soiree_change change = decode_well(bodies[i], JSON_CREATE);
        assert_json(soiree_put_document, &change.values,
                    "{\"clientId\":\"é\",\"date\":\"2025-12-31\",\"lieu\":\"l\",\"nombreInvites\":50,\"playlistId\":null,"
                    "\"budget\":0,\"statut\":\"confirmée\",\"styleMusical\":\"disco\"}");
    }
}

static void put_message_of_then(struct buf *out, const struct soiree *soiree)
{
    soiree_put_message(out, soiree, 1764671400123);
}

static void test_the_message_has_exactly_its_four_fields(void **state)
{
    (void)state;
    struct soiree soiree = stored("disco", "p");
    assert_json(put_message_of_then, &soiree,
                "{\"soireeId\":\"id\",\"clientId\":\"client\",\"style\":\"disco\","
                "\"timestamp\":\"2025-12-02T10:30:00.123Z\"}");
    soiree = stored("\"}\\ é😀\x01", "");
    assert_json(put_message_of_then, &soiree,
                "{\"soireeId\":\"id\",\"clientId\":\"client\",\"style\":\"\\\"}\\\\ é😀\\u0001\","
                "\"timestamp\":\"2025-12-02T10:30:00.123Z\"}");
}

static void test_the_longest_booking_fits_where_it_is_written(void **state)
{
    (void)state;
    struct soiree soiree = {.date = "2025-12-31", .nombre_invites = 100000, .budget = 123456789.12345678};
    char *const members[] = {soiree.id, soiree.client_id, soiree.lieu, soiree.style, soiree.statut, soiree.playlist_id};
    static const size_t points[] = {64, 128, 200, 64, 32, 64};
    for (size_t i = 0; i < COUNT(members); i++)
        memset(members[i], '\x01', points[i]); /* six bytes each in JSON */
    CLEANUP(buf_done) struct buf item, message;
    buf_init(&item, 16 * 1024);
    buf_init(&message, 16 * 1024);
    soiree_put_json(&item, &soiree);
    soiree_put_message(&message, &soiree, INT64_MAX);
    assert_true(buf_ok(&item) && buf_ok(&message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_have_their_bounds_in_code_points),
        cmocka_unit_test(test_every_field_has_its_type_and_bounds),
        cmocka_unit_test(test_a_minimal_booking_gets_the_defaults),
        cmocka_unit_test(test_optional_fields_that_are_null_get_the_defaults),
        cmocka_unit_test(test_all_problems_are_named_at_once),
        cmocka_unit_test(test_what_is_no_object_is_invalid),
        cmocka_unit_test(test_fields_that_are_not_a_clients_are_ignored),
        cmocka_unit_test(test_what_a_change_does_to_the_request_for_a_playlist),
        cmocka_unit_test(test_a_change_sets_its_fields_and_no_other),
        cmocka_unit_test(test_every_field_alone_is_a_change_only_when_it_differs),
        cmocka_unit_test(test_what_the_workers_link_does),
        cmocka_unit_test(test_a_booking_is_shown_with_its_times_and_without_what_is_internal),
        cmocka_unit_test(test_two_bodies_that_mean_the_same_have_one_document),
        cmocka_unit_test(test_the_message_has_exactly_its_four_fields),
        cmocka_unit_test(test_the_longest_booking_fits_where_it_is_written),
    };
    return cmocka_run_group_tests_name("soirees_soiree", tests, NULL, NULL);
}
