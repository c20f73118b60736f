#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "cleanup.h"

static void assert_holds(const struct buf *buf, const char *text)
{
    assert_true(buf_ok(buf));
    assert_int_equal(buf->len, strlen(text));
    assert_string_equal(buf_get(buf), text);
}

static void test_a_new_buffer_is_empty_text_without_memory(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10);
    assert_holds(&buf, "");
    assert_null(buf.data);
    buf_append(&buf, "x", 0);
    assert_null(buf.data);
    buf_done(&buf);
}

static void test_everything_appended_stands_in_order(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 1000);
    buf_text(&buf, "soirée ");
    buf_append(&buf, "abcdef", 3);
    buf_char(&buf, '/');
    buf_number(&buf, -42);
    buf_format(&buf, "[%s:%03d]", "é", 7);
    buf_format(&buf, "%s", "");
    assert_holds(&buf, "soirée abc/-42[é:007]");
}

static void test_numbers_are_written_to_their_limits(void **state)
{
    (void)state;
    static const struct {
        long long number;
        const char *text;
    } cases[] = {
        {0, "0"}, {-1, "-1"}, {LLONG_MAX, "9223372036854775807"}, {LLONG_MIN, "-9223372036854775808"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CLEANUP(buf_done) struct buf buf;
        buf_init(&buf, 32);
        buf_number(&buf, cases[i].number);
        assert_holds(&buf, cases[i].text);
    }
}

static void test_bytes_of_zero_are_content(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 10);
    buf_append(&buf, "a\0b", 3);
    buf_char(&buf, '\0');
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "a\0b\0\0", 5); /* the fifth ends it and is not counted */
}

static void test_a_large_content_grows_byte_by_byte(void **state)
{
    (void)state;
    enum { LEN = 100000 };
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, LEN);
    for (int i = 0; i < LEN; i++) {
        buf_char(&buf, (char)('a' + i % 26));
        assert_int_equal(buf.data[buf.len], '\0');
    }
    assert_true(buf_ok(&buf));
    assert_int_equal(buf.len, LEN);
    for (int i = 0; i < LEN; i++)
        assert_int_equal(buf.data[i], 'a' + i % 26);
}

static void test_a_format_longer_than_the_room_is_whole(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 5000);
    buf_text(&buf, "<");
    buf_format(&buf, "%4000d>", 7);
    assert_true(buf_ok(&buf));
    assert_int_equal(buf.len, 4002);
    assert_string_equal(buf.data + 3998, "  7>");
}

static void test_exactly_the_maximum_fits(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 4);
    buf_text(&buf, "1234");
    assert_holds(&buf, "1234");
    buf_text(&buf, "");
    assert_true(buf_ok(&buf));
    buf_char(&buf, '5');
    assert_false(buf_ok(&buf));
    assert_string_equal(buf_get(&buf), "1234");
}

static void over_by_append(struct buf *buf)
{
    buf_append(buf, "56789", 5);
}

static void over_by_text(struct buf *buf)
{
    buf_text(buf, "56789");
}

static void over_by_number(struct buf *buf)
{
    buf_number(buf, 56789);
}

static void over_by_format(struct buf *buf)
{
    buf_format(buf, "%d", 56789);
}

static void over_by_all_memory(struct buf *buf)
{
    buf_append(buf, "x", SIZE_MAX);
}

static void test_what_passes_the_maximum_is_dropped_whole_and_nothing_follows(void **state)
{
    (void)state;
    static void (*const overs[])(struct buf *) = {over_by_append, over_by_text, over_by_number,
                                                  over_by_format, over_by_all_memory};
    for (size_t i = 0; i < sizeof overs / sizeof *overs; i++) {
        CLEANUP(buf_done) struct buf buf;
        buf_init(&buf, 8);
        buf_text(&buf, "1234");
        overs[i](&buf);
        assert_false(buf_ok(&buf));
        buf_char(&buf, 'x'); /* would fit, but the text would have a hole */
        buf_format(&buf, "%d", 1);
        assert_false(buf_ok(&buf));
        assert_int_equal(buf.len, 4);
        assert_string_equal(buf_get(&buf), "1234");
    }
}

static void test_clearing_empties_and_keeps_memory_and_maximum(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 4);
    buf_clear(&buf);
    assert_holds(&buf, "");
    buf_text(&buf, "1234");
    buf_char(&buf, '5');
    const char *memory = buf.data;
    buf_clear(&buf);
    assert_holds(&buf, "");
    assert_ptr_equal(buf.data, memory);
    buf_text(&buf, "abcd");
    assert_holds(&buf, "abcd");
    buf_char(&buf, 'e');
    assert_false(buf_ok(&buf));
}

static void test_taking_moves_the_content_and_keeps_the_maximum(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf buf;
    buf_init(&buf, 4);
    CLEANUP(free_text) char *empty = buf_take(&buf);
    assert_string_equal(empty, "");
    buf_text(&buf, "1234");
    CLEANUP(free_text) char *taken = buf_take(&buf);
    assert_string_equal(taken, "1234");
    assert_holds(&buf, "");
    assert_null(buf.data);
    buf_text(&buf, "abcd");
    assert_holds(&buf, "abcd");
    assert_string_equal(taken, "1234");
    buf_char(&buf, 'e');
    assert_false(buf_ok(&buf));
}

static void test_a_zeroed_or_freed_buffer_is_freed_again_without_harm(void **state)
{
    (void)state;
    struct buf zeroed = {0};
    buf_done(&zeroed);
    struct buf buf;
    buf_init(&buf, 4);
    buf_text(&buf, "1234");
    buf_done(&buf);
    assert_holds(&buf, "");
    buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_buffer_is_empty_text_without_memory),
        cmocka_unit_test(test_everything_appended_stands_in_order),
        cmocka_unit_test(test_numbers_are_written_to_their_limits),
        cmocka_unit_test(test_bytes_of_zero_are_content),
        cmocka_unit_test(test_a_large_content_grows_byte_by_byte),
        cmocka_unit_test(test_a_format_longer_than_the_room_is_whole),
        cmocka_unit_test(test_exactly_the_maximum_fits),
        cmocka_unit_test(test_what_passes_the_maximum_is_dropped_whole_and_nothing_follows),
        cmocka_unit_test(test_clearing_empties_and_keeps_memory_and_maximum),
        cmocka_unit_test(test_taking_moves_the_content_and_keeps_the_maximum),
        cmocka_unit_test(test_a_zeroed_or_freed_buffer_is_freed_again_without_harm),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
