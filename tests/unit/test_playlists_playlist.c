/* A playlist's fields, their rules, changes, and its JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "mem.h"
#include "playlists/playlist.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void change_done(struct playlist_change *change)
{
    playlist_done(&change->values);
}

static enum status decode(const char *text, enum json_mode mode, struct playlist_change *ret_change,
                          struct problems *problems)
{
    CLEANUP(json_free) cJSON *document = NULL;
    *problems = (struct problems){0};
    assert_int_equal(json_parse(text, strlen(text), &document, NULL), STATUS_OK);
    return playlist_decode(document, mode, ret_change, problems);
}

/* change_done it. */
static struct playlist_change decode_well(const char *text, enum json_mode mode)
{
    struct playlist_change change;
    struct problems problems;
    if (decode(text, mode, &change, &problems) != STATUS_OK)
        fail_msg("%s: %s %s", text, problems.items[0].pointer, problems.items[0].detail);
    return change;
}

/* The only problem is with that pointer. */
static void assert_wrong(const char *text, const char *pointer)
{
    CLEANUP(change_done) struct playlist_change change;
    struct problems problems;
    if (decode(text, JSON_CREATE, &change, &problems) != STATUS_INVALID || problems.count != 1 ||
        strcmp(problems.items[0].pointer, pointer) != 0)
        fail_msg("%.80s: %zu problems, the first with %s", text, problems.count, problems.items[0].pointer);
}

static char *text_of(void (*put)(struct buf *out, const struct playlist *playlist), const struct playlist *playlist)
{
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 1 << 20);
    put(&out, playlist);
    return buf_take(&out);
}

static void test_a_playlist_needs_a_name_alone(void **state)
{
    (void)state;
    CLEANUP(change_done) struct playlist_change change = decode_well("{\"nom\":\"n\"}", JSON_CREATE);
    assert_string_equal(change.values.nom, "n");
    assert_string_equal(change.values.description, "");
    assert_string_equal(change.values.soiree_id, "");
    assert_string_equal(change.values.styles.json, "[]");
    assert_string_equal(change.values.tracks.json, "[]");
    assert_int_equal(change.values.tracks.count, 0);
    assert_wrong("{}", "/nom");
    assert_wrong("{\"nom\":null}", "/nom");
}

static void test_what_is_not_the_clients_is_ignored(void **state)
{
    (void)state;
    CLEANUP(change_done) struct playlist_change change = decode_well(
        "{\"nom\":\"n\",\"id\":\"x\",\"origine\":\"lagmaster-pro\",\"createdAt\":\"x\",\"updatedAt\":5,\"autre\":[{}]}",
        JSON_CREATE);
    assert_string_equal(change.values.id, "");
    assert_string_equal(change.values.origine, "");
    assert_int_equal(change.values.created_ms, 0);
}

/* {"<name>": "<len times é>"}, beside a name where that is another field. */
static char *long_text(const char *name, size_t len)
{
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 1 << 20);
    buf_format(&out, "{%s\"%s\":\"", strcmp(name, "nom") ? "\"nom\":\"n\"," : "", name);
    for (size_t i = 0; i < len; i++)
        buf_text(&out, "é");
    buf_text(&out, "\"}");
    return buf_take(&out);
}

/* {"nom":"n","<name>":[…]} of `count` texts of `len` code points each. */
static char *long_list(const char *name, size_t count, size_t len)
{
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 1 << 20);
    buf_format(&out, "{\"nom\":\"n\",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        buf_text(&out, i ? ",\"" : "\"");
        for (size_t point = 0; point < len; point++)
            buf_text(&out, "é");
        buf_char(&out, '"');
    }
    buf_text(&out, "]}");
    return buf_take(&out);
}

static void test_texts_are_bounded_in_code_points(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t max;
    } texts[] = {{"nom", PLAYLIST_NOM_MAX}, {"description", 2000}, {"soireeId", 128}};
    for (size_t i = 0; i < COUNT(texts); i++) {
        CLEANUP(free_text) char *longest = long_text(texts[i].name, texts[i].max);
        CLEANUP(free_text) char *longer = long_text(texts[i].name, texts[i].max + 1);
        CLEANUP(free_text) char *pointer = mem_format("/%s", texts[i].name);
        CLEANUP(change_done) struct playlist_change change = decode_well(longest, JSON_CREATE);
        assert_int_equal(utf8_length(change.values.nom) + utf8_length(change.values.description) +
                             utf8_length(change.values.soiree_id),
                         texts[i].max + (i > 0)); /* none is cut; beside the others stands the name "n" */
        assert_wrong(longer, pointer);
    }
    assert_wrong("{\"nom\":\"\"}", "/nom");
    assert_wrong("{\"nom\":\"n\",\"soireeId\":\"\"}", "/soireeId");
    assert_wrong("{\"nom\":5}", "/nom");
}

static void test_lists_are_bounded_in_texts_and_their_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t count, len;
    } lists[] = {{"stylesMusicaux", PLAYLIST_STYLES_MAX, PLAYLIST_STYLE_MAX},
                 {"tracks", PLAYLIST_TRACKS_MAX, PLAYLIST_TRACK_MAX}};
    for (size_t i = 0; i < COUNT(lists); i++) {
        CLEANUP(free_text) char *most = long_list(lists[i].name, lists[i].count, 1);
        CLEANUP(free_text) char *more = long_list(lists[i].name, lists[i].count + 1, 1);
        CLEANUP(free_text) char *longest = long_list(lists[i].name, 1, lists[i].len);
        CLEANUP(free_text) char *longer = long_list(lists[i].name, 1, lists[i].len + 1);
        CLEANUP(free_text) char *pointer = mem_format("/%s", lists[i].name);
        CLEANUP(free_text) char *item = mem_format("/%s/0", lists[i].name);
        CLEANUP(change_done) struct playlist_change change = decode_well(most, JSON_CREATE);
        CLEANUP(change_done) struct playlist_change other = decode_well(longest, JSON_CREATE);
        assert_int_equal(change.values.styles.count + change.values.tracks.count, lists[i].count);
        assert_int_equal(strlen(i ? other.values.tracks.json : other.values.styles.json), 2 * lists[i].len + 4);
        assert_wrong(more, pointer);
        assert_wrong(longer, item);
    }
    assert_wrong("{\"nom\":\"n\",\"tracks\":\"t\"}", "/tracks");
    assert_wrong("{\"nom\":\"n\",\"tracks\":[\"t\",5]}", "/tracks/1");
}

static void test_all_problems_are_named_at_once(void **state)
{
    (void)state;
    CLEANUP(change_done) struct playlist_change change;
    struct problems problems;
    assert_int_equal(decode("{\"description\":1,\"soireeId\":[],\"stylesMusicaux\":{},\"tracks\":[true]}",
                            JSON_CREATE, &change, &problems),
                     STATUS_INVALID);
    assert_int_equal(problems.count, 5);
}

/* What a change with that text makes of {nom: n, soireeId: s, tracks: [t]}: whether it changed, and its JSON. */
static bool apply(const char *text, char **ret_json)
{
    CLEANUP(change_done) struct playlist_change first = decode_well(
        "{\"nom\":\"n\",\"soireeId\":\"s\",\"tracks\":[\"t\"]}", JSON_CREATE);
    CLEANUP(change_done) struct playlist_change change = decode_well(text, JSON_CHANGE);
    bool changed = playlist_apply(&first.values, &change);
    *ret_json = text_of(playlist_put_document, &first.values);
    return changed;
}

static void test_a_change_takes_what_is_in_it(void **state)
{
    (void)state;
    static const struct {
        const char *change, *after; /* NULL: it is none */
    } cases[] = {
        {"{}", NULL},
        {"{\"nom\":\"n\",\"tracks\":[\"t\"],\"description\":null,\"stylesMusicaux\":[]}", NULL},
        {"{\"nom\":\"o\"}", "{\"nom\":\"o\",\"stylesMusicaux\":[],\"description\":\"\",\"tracks\":[\"t\"],\"soireeId\":\"s\"}"},
        {"{\"soireeId\":null}",
         "{\"nom\":\"n\",\"stylesMusicaux\":[],\"description\":\"\",\"tracks\":[\"t\"],\"soireeId\":null}"},
        {"{\"tracks\":null,\"stylesMusicaux\":[\"a\",\"b\"]}",
         "{\"nom\":\"n\",\"stylesMusicaux\":[\"a\",\"b\"],\"description\":\"\",\"tracks\":[],\"soireeId\":\"s\"}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text) char *json = NULL, *before = NULL;
        assert_false(apply("{}", &before));
        assert_int_equal(apply(cases[i].change, &json), cases[i].after != NULL);
        assert_string_equal(json, cases[i].after ? cases[i].after : before);
    }
}

static void test_clients_see_ids_times_and_where_it_comes_from(void **state)
{
    (void)state;
    CLEANUP(change_done) struct playlist_change change = decode_well("{\"nom\":\"\\\"é\"}", JSON_CREATE);
    struct playlist *playlist = &change.values;
    (void)text_copy(playlist->id, sizeof playlist->id, "p-1");
    (void)text_copy(playlist->origine, sizeof playlist->origine, "defaut");
    playlist->created_ms = 1764671400000;
    CLEANUP(free_text) char *made = text_of(playlist_put_json, playlist);
    assert_string_equal(made, "{\"id\":\"p-1\",\"nom\":\"\\\"é\",\"stylesMusicaux\":[],\"description\":\"\",\"tracks\":[],"
                              "\"soireeId\":null,\"origine\":\"defaut\",\"createdAt\":\"2025-12-02T10:30:00.000Z\"}");
    playlist->updated_ms = 1764671400001;
    CLEANUP(free_text) char *changed = text_of(playlist_put_json, playlist);
    assert_non_null(strstr(changed, ",\"updatedAt\":\"2025-12-02T10:30:00.001Z\"}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_playlist_needs_a_name_alone),
        cmocka_unit_test(test_what_is_not_the_clients_is_ignored),
        cmocka_unit_test(test_texts_are_bounded_in_code_points),
        cmocka_unit_test(test_lists_are_bounded_in_texts_and_their_lengths),
        cmocka_unit_test(test_all_problems_are_named_at_once),
        cmocka_unit_test(test_a_change_takes_what_is_in_it),
        cmocka_unit_test(test_clients_see_ids_times_and_where_it_comes_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
