/* Writing, and UTF-8. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "json.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BYTES(literal) (literal), sizeof(literal) - 1

static size_t encode(uint32_t point, char out[5])
{
    size_t len = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[len] = '\0';
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)(leads[len] | point);
    return len;
}

static void assert_reads_as(const char *json, size_t len, const char *text)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    if (json_parse(json, len, &document, &err) != STATUS_OK)
        fail_msg("%s: %s", json, err.text);
    assert_true(cJSON_IsString(document));
    if (strcmp(document->valuestring, text) != 0)
        fail_msg("%s became %s", text, document->valuestring);
}

static void test_every_code_point_survives_byte_for_byte(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf json;
    buf_init(&json, 64);
    for (uint32_t point = 1; point <= 0x10FFFF; point++) {
        if (point == 0xD800)
            point = 0xE000;
        char text[5], escaped[24];
        size_t len = encode(point, text);
        buf_clear(&json);
        json_put_text(&json, text);
        assert_reads_as(json.data, json.len, text);
        if (point >= 0x20 && point != '"' && point != '\\') {
            assert_int_equal(json.len, len + 2);
            assert_memory_equal(json.data + 1, text, len);
        }
        unsigned high = 0xD800 + ((point - 0x10000) >> 10), low = 0xDC00 + (point & 0x3FF);
        if (point < 0x10000)
            (void)snprintf(escaped, sizeof escaped, "\"\\u%04X\"", point);
        else
            (void)snprintf(escaped, sizeof escaped, "\"\\u%04x\\u%04x\"", high, low);
        assert_reads_as(escaped, strlen(escaped), text);
        assert_true(utf8_valid(text, len));
        assert_int_equal(utf8_length(text), 1);
    }
}

static void test_texts_are_counted_and_cut_in_code_points(void **state)
{
    (void)state;
    static const char text[] = "aé€😀b";
    static const size_t prefixes[] = {0, 1, 3, 6, 10, 11, 11};
    assert_int_equal(utf8_length(""), 0);
    assert_int_equal(utf8_length(text), 5);
    for (size_t points = 0; points < COUNT(prefixes); points++)
        assert_int_equal(utf8_prefix(text, points), prefixes[points]);
    assert_int_equal(utf8_prefix(text, SIZE_MAX), 11);
    assert_int_equal(utf8_prefix("ab\xF0\x9F\x98", 10), 2); /* a text that was cut between bytes */
    assert_int_equal(utf8_prefix("ab\xFF"
                                 "c",
                                 10),
                     2);
    assert_true(utf8_valid("", 0));
    assert_true(utf8_valid("a\0b", 3));
    assert_false(utf8_valid("ab\xC3", 3));
    assert_false(utf8_valid("\xED\xA0\x80", 3));
}

static void test_only_what_must_be_escaped_is_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *json;
    } cases[] = {
        {BYTES(""), "\"\""},
        {BYTES("soirée"), "\"soirée\""},
        {BYTES("a\"b\\c"), "\"a\\\"b\\\\c\""},
        {BYTES("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\""},
        {BYTES("\x01\x1F\v"), "\"\\u0001\\u001f\\u000b\""},
        {BYTES("a\0b"), "\"a\\u0000b\""},
        {BYTES("/</script>\x7F\xE2\x80\xA8"), "\"/</script>\x7F\xE2\x80\xA8\""},
        {BYTES("\"\"x\"\""), "\"\\\"\\\"x\\\"\\\"\""},
        {BYTES("caf\xE9 \xF0\x9F\x98"),
         "\"caf\xEF\xBF\xBD \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""} /* no UTF-8 */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(buf_done) struct buf out;
        buf_init(&out, 256);
        json_put_text_n(&out, cases[i].bytes, cases[i].len);
        assert_string_equal(buf_get(&out), cases[i].json);
    }
    CLEANUP(buf_done) struct buf null;
    buf_init(&null, 16);
    json_put_text(&null, NULL);
    assert_string_equal(buf_get(&null), "null");
}

static void test_numbers_are_written_short_and_read_back_the_same(void **state)
{
    (void)state;
    static const struct {
        double number;
        const char *json;
    } cases[] = {{0, "0"},
                 {-0.0, "-0"},
                 {1, "1"},
                 {-1, "-1"},
                 {50, "50"},
                 {1e5, "100000"},
                 {1e9, "1000000000"},
                 {1e15, "1000000000000000"},
                 {9007199254740991, "9007199254740991"},
                 {9007199254740992, "9007199254740992"},
                 {-9007199254740992, "-9007199254740992"},
                 {9007199254740994, "9007199254740994"},
                 {1e21, "1e+21"},
                 {0.5, "0.5"},
                 {0.1, "0.1"},
                 {9.95, "9.95"},
                 {1500.5, "1500.5"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e-7, "1e-07"},
                 {DBL_MAX, "1.7976931348623157e+308"},
                 {DBL_MIN, "2.2250738585072014e-308"},
                 {5e-324, "5e-324"},
                 {NAN, "null"},
                 {INFINITY, "null"},
                 {-INFINITY, "null"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(buf_done) struct buf out;
        buf_init(&out, 64);
        json_put_number(&out, cases[i].number);
        assert_string_equal(buf_get(&out), cases[i].json);
    }
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 64);
    uint64_t bits = 20251202;
    for (int i = 0; i < 100000; i++) {
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        double number;
        memcpy(&number, &bits, sizeof number);
        if (!isfinite(number))
            continue;
        buf_clear(&out);
        json_put_number(&out, number);
        assert_int_equal(json_check(out.data, out.len, NULL), STATUS_OK);
        assert_true(strtod(out.data, NULL) == number);
    }
}

static void test_names_get_their_commas(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 256);
    json_put_name(&out, "first");
    assert_string_equal(buf_get(&out), "\"first\":");
    buf_clear(&out);
    buf_text(&out, "[");
    json_put_name(&out, "first");
    assert_string_equal(buf_get(&out), "[\"first\":");
    buf_clear(&out);
    buf_text(&out, "[{");
    json_put_name(&out, "a");
    json_put_text(&out, "{");
    json_put_name(&out, "b");
    buf_text(&out, "[");
    json_put_number(&out, 2);
    buf_text(&out, "]");
    json_put_name(&out, "c");
    buf_text(&out, "{}");
    json_put_name(&out, "d");
    buf_text(&out, "{");
    json_put_name(&out, "e");
    buf_text(&out, "null}}]");
    assert_string_equal(buf_get(&out), "[{\"a\":\"{\",\"b\":[2],\"c\":{},\"d\":{\"e\":null}}]");
    assert_int_equal(json_check(out.data, out.len, NULL), STATUS_OK);
}

static void test_writing_past_the_maximum_is_marked(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 7);
    json_put_text(&out, "12345");
    assert_true(buf_ok(&out));
    buf_clear(&out);
    json_put_text(&out, "123456");
    assert_false(buf_ok(&out));
    buf_clear(&out);
    json_put_text(&out, "1\n3\n");
    assert_false(buf_ok(&out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point_survives_byte_for_byte),
        cmocka_unit_test(test_texts_are_counted_and_cut_in_code_points),
        cmocka_unit_test(test_only_what_must_be_escaped_is_escaped),
        cmocka_unit_test(test_numbers_are_written_short_and_read_back_the_same),
        cmocka_unit_test(test_names_get_their_commas),
        cmocka_unit_test(test_writing_past_the_maximum_is_marked),
    };
    return cmocka_run_group_tests_name("json_write", tests, NULL, NULL);
}
