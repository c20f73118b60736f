/* Text that is cut: never in the middle of a code point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "json.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Code points of one to four bytes, next to each other in every way, the first and the last of each length. */
static const char *const texts[] = {
    "",
    "a",
    "é",
    "€",
    "😀",
    "aé€😀",
    "😀€éa",
    "éé€€😀😀aa",
    "😀a€aéa",
    "\x01\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
    "Soirée d'été 🎵🎶 à la plage — €50",
};

/* The longest prefix of whole code points within `max` bytes. */
static size_t whole_prefix(const char *text, size_t max)
{
    size_t len = strlen(text);
    if (max >= len)
        return len;
    while (max > 0 && ((unsigned char)text[max] & 0xC0) == 0x80)
        max--;
    return max;
}

static void test_a_cut_text_loses_its_incomplete_code_point_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        size_t len = strlen(texts[i]);
        for (size_t cut = 0; cut <= len; cut++) {
            CLEANUP(free_text) char *text = mem_copy(texts[i], cut);
            text_mend(text);
            if (strlen(text) != whole_prefix(texts[i], cut) || strncmp(text, texts[i], strlen(text)) != 0)
                fail_msg("'%s' cut at byte %zu became '%s'", texts[i], cut, text);
            assert_true(utf8_valid(text, strlen(text)));
            text_mend(text); /* a whole one stays */
            assert_int_equal(strlen(text), whole_prefix(texts[i], cut));
        }
    }
}

static void test_a_copy_is_cut_before_a_code_point_whatever_the_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        size_t len = strlen(texts[i]);
        for (size_t size = 1; size <= len + 3; size++) {
            /* Exactly `size` bytes on the heap: one more is a read or write behind the end. */
            CLEANUP(free_text) char *copy = mem_new(size);
            memset(copy, 'x', size);
            bool whole = text_copy(copy, size, texts[i]);
            assert_int_equal(whole, len < size);
            assert_int_equal(strlen(copy), whole_prefix(texts[i], size - 1));
            assert_memory_equal(copy, texts[i], strlen(copy));
        }
    }
}

static void test_bytes_that_are_no_utf8_are_cut_without_harm(void **state)
{
    (void)state;
    static const char *const cases[] = {"\x80",     "\x80\x80\x80\x80\x80\x80", "\xFF\xFF\xFF",
                                        "a\xBF\xBF\xBF\xBF", "\xC3",            "\xF0\x9F\x98",
                                        "\xF0",     "\xE2\x82",                 "ab\xC3\xC3\xC3"};
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t size = 1; size <= strlen(cases[i]) + 1; size++) {
            CLEANUP(free_text) char *copy = mem_new(size);
            (void)text_copy(copy, size, cases[i]);
            assert_true(strlen(copy) < size);
            assert_memory_equal(copy, cases[i], strlen(copy));
            text_mend(copy);
        }
}

static void test_copies_are_their_own(void **state)
{
    (void)state;
    char source[] = "abc";
    CLEANUP(free_text) char *text = mem_text(source), *part = mem_copy(source, 2), *none = mem_copy(NULL, 0);
    source[0] = 'x';
    assert_string_equal(text, "abc");
    assert_string_equal(part, "ab");
    assert_string_equal(none, "");
    assert_null(mem_text(NULL));
}

static void test_new_memory_is_zeroed_and_never_null(void **state)
{
    (void)state;
    CLEANUP(free_text) char *nothing = mem_new(0), *bytes = mem_new(1000);
    assert_non_null(nothing);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(bytes[i], 0);
    bytes[999] = 'z';
    bytes = mem_grow(bytes, 5000);
    assert_int_equal(bytes[999], 'z');
    nothing = mem_grow(nothing, 0);
    assert_non_null(nothing);
}

static void test_a_formatted_text_is_as_long_as_it_needs(void **state)
{
    (void)state;
    CLEANUP(free_text) char *empty = mem_format("%s", ""), *wide = mem_format("%*d", 5000, 7);
    assert_string_equal(empty, "");
    assert_int_equal(strlen(wide), 5000);
    assert_int_equal(wide[4999], '7');
}

struct owner {
    int before;
    char member[3];
};

static void test_a_member_leads_to_its_owner(void **state)
{
    (void)state;
    struct owner owner = {.before = 1};
    assert_ptr_equal(OWNER(&owner.member, struct owner, member), &owner);
    assert_ptr_equal(OWNER(&owner.before, struct owner, before), &owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_text_loses_its_incomplete_code_point_alone),
        cmocka_unit_test(test_a_copy_is_cut_before_a_code_point_whatever_the_room),
        cmocka_unit_test(test_bytes_that_are_no_utf8_are_cut_without_harm),
        cmocka_unit_test(test_copies_are_their_own),
        cmocka_unit_test(test_new_memory_is_zeroed_and_never_null),
        cmocka_unit_test(test_a_formatted_text_is_as_long_as_it_needs),
        cmocka_unit_test(test_a_member_leads_to_its_owner),
    };
    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
