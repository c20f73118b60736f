/* lagmaster-pro's reply and the default playlist: the pure part of the generator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "generator.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_a_good_reply_becomes_a_playlist(void **state)
{
    (void)state;
    static const char reply[] =
        "{\"style\":\"disco\",\"title\":\"Metaverse Collapse Disco\","
        "\"tracks\":[\"Track 0 - Electric Pickles\",\"Track 1 - \\\"é\\\"\"],\"more\":1}";
    CLEANUP(playlist_done) struct playlist playlist = {0};
    assert_int_equal(generator_parse(reply, strlen(reply), &playlist, NULL), STATUS_OK);
    assert_string_equal(playlist.nom, "Metaverse Collapse Disco");
    assert_string_equal(playlist.styles.json, "[\"disco\"]");
    assert_string_equal(playlist.tracks.json, "[\"Track 0 - Electric Pickles\",\"Track 1 - \\\"é\\\"\"]");
    assert_int_equal(playlist.tracks.count, 2);
    assert_string_equal(playlist.origine, "lagmaster-pro");
}

static void test_anything_else_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "",
        "<html>",
        "[]",
        "null",
        "{\"style\":\"a\",\"title\":\"b\"}",
        "{\"style\":\"a\",\"title\":\"b\",\"tracks\":[]}",
        "{\"style\":\"a\",\"title\":\"b\",\"tracks\":[\"\"]}",
        "{\"style\":\"a\",\"title\":\"b\",\"tracks\":[\"t\",1]}",
        "{\"style\":\"a\",\"title\":\"b\",\"tracks\":{\"0\":\"t\"}}",
        "{\"style\":\"\",\"title\":\"b\",\"tracks\":[\"t\"]}",
        "{\"style\":\"a\",\"title\":\"\",\"tracks\":[\"t\"]}",
        "{\"style\":\"a\",\"title\":7,\"tracks\":[\"t\"]}",
        "{\"style\":\"a\",\"title\":\"b\",\"tracks\":[\"t\"]",
        "{\"style\":\"a\",\"title\":\"\xFF\",\"tracks\":[\"t\"]}",
    };
    for (size_t i = 0; i < COUNT(replies); i++) {
        struct playlist playlist = {0};
        struct err err = {0};
        if (generator_parse(replies[i], strlen(replies[i]), &playlist, &err) != STATUS_PROTOCOL)
            fail_msg("accepted: %s", replies[i]);
        assert_true(strlen(err.text) > 0);
        assert_null(playlist.tracks.json);
        assert_string_equal(playlist.nom, "");
    }
}

/* `count` times `unit`. */
static void repeat(struct buf *out, const char *unit, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_text(out, unit);
}

static void test_texts_that_are_too_long_are_cut_at_a_code_point(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf reply;
    CLEANUP(playlist_done) struct playlist playlist = {0};
    CLEANUP(json_free) cJSON *tracks = NULL;
    buf_init(&reply, 1 << 20);
    buf_text(&reply, "{\"style\":\"");
    repeat(&reply, "é", 100);
    buf_text(&reply, "\",\"title\":\"");
    repeat(&reply, "€", 300);
    buf_text(&reply, "\",\"tracks\":[\"");
    repeat(&reply, "🎵", 400);
    buf_char(&reply, '"');
    repeat(&reply, ",\"t\"", 600);
    buf_text(&reply, "]}");
    assert_int_equal(generator_parse(buf_get(&reply), reply.len, &playlist, NULL), STATUS_OK);
    assert_int_equal(utf8_length(playlist.nom), PLAYLIST_NOM_MAX);
    assert_int_equal(strlen(playlist.styles.json), 2 * PLAYLIST_STYLE_MAX + 4);
    assert_int_equal(json_parse(playlist.tracks.json, strlen(playlist.tracks.json), &tracks, NULL),
                     STATUS_OK);
    assert_int_equal(cJSON_GetArraySize(tracks), PLAYLIST_TRACKS_MAX);
    assert_int_equal(utf8_length(tracks->child->valuestring), PLAYLIST_TRACK_MAX);
}

static void test_the_default_playlist_is_the_specifications(void **state)
{
    (void)state;
    CLEANUP(playlist_done) struct playlist playlist = {0};
    generator_default("disco", &playlist);
    assert_string_equal(playlist.nom, "Disco Mix - Default");
    assert_string_equal(playlist.styles.json, "[\"disco\"]");
    assert_string_equal(playlist.tracks.json,
                        "[\"Track 1 - disco Vibes\",\"Track 2 - disco Energy\",\"Track 3 - disco Dreams\"]");
    assert_int_equal(playlist.tracks.count, 3);
    assert_string_equal(playlist.origine, "defaut");
}

static void test_the_first_letter_is_capitalised_in_any_alphabet(void **state)
{
    (void)state;
    static const struct {
        const char *style, *title;
    } cases[] = {
        {"électro", "Électro Mix - Default"}, {"ωδή", "Ωδή Mix - Default"}, {"ДИСКО", "ДИСКО Mix - Default"},
        {"80s", "80s Mix - Default"},         {"🎵x", "🎵x Mix - Default"},   {"ßa", "ßa Mix - Default"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(playlist_done) struct playlist playlist = {0};
        generator_default(cases[i].style, &playlist);
        assert_string_equal(playlist.nom, cases[i].title);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_reply_becomes_a_playlist),
        cmocka_unit_test(test_anything_else_is_refused_and_changes_nothing),
        cmocka_unit_test(test_texts_that_are_too_long_are_cut_at_a_code_point),
        cmocka_unit_test(test_the_default_playlist_is_the_specifications),
        cmocka_unit_test(test_the_first_letter_is_capitalised_in_any_alphabet),
    };
    return cmocka_run_group_tests_name("generator", tests, NULL, NULL);
}
