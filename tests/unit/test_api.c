/* Lists of entity tags and what they allow. Pages, filters and keys come through HTTP and are tested end to
 * end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api.h"
#include "cleanup.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct tags {
    const char *text;
    bool weak_too, any;
    unsigned count;
    int64_t versions[4];
};

static bool expects(const struct tags *expected, int64_t version)
{
    for (unsigned i = 0; i < expected->count; i++)
        if (expected->versions[i] == version)
            return true;
    return expected->any;
}

static void assert_parsed(const struct tags *expected)
{
    static const int64_t versions[] = {1, 2, 3, 4, 5, 7, 10, 16, 9999999999999999, INT64_MAX};
    /* Exactly as long as it is: reading behind the end is caught. */
    CLEANUP(free_text) char *text = mem_text(expected->text);
    for (size_t i = 0; i < COUNT(versions); i++)
        if (api_tags_name(text, expected->weak_too, versions[i]) != expects(expected, versions[i]))
            fail_msg("%s: version %lld", text, (long long)versions[i]);
}

static void test_versions_are_read_from_lists_of_entity_tags(void **state)
{
    (void)state;
    static const struct tags cases[] = {
        {"\"1\"", .count = 1, .versions = {1}},
        {"\"1\"", .weak_too = true, .count = 1, .versions = {1}},
        {"\"1\", \"2\"", .count = 2, .versions = {1, 2}},
        {"\"1\",\"2\",\"3\"", .count = 3, .versions = {1, 2, 3}},
        {" \t\"1\"\t ,\t\"2\" ", .count = 2, .versions = {1, 2}},
        {",,\"1\",, ,\"2\",", .count = 2, .versions = {1, 2}}, /* RFC 9110 section 5.6.1.2 */
        {"\"7\", \"7\"", .count = 2, .versions = {7, 7}},
        {"\"9999999999999999\"", .count = 1, .versions = {9999999999999999}},
        {"\"abc\", \"5\"", .count = 1, .versions = {5}},
        {"\"with, comma\", \"5\"", .count = 1, .versions = {5}},
        {"\"\", \"5\"", .count = 1, .versions = {5}},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_parsed(&cases[i]);
}

static void test_weak_tags_count_where_they_may(void **state)
{
    (void)state;
    static const struct tags cases[] = {
        {"W/\"1\"", .weak_too = false},
        {"W/\"1\"", .weak_too = true, .count = 1, .versions = {1}},
        {"W/\"1\", \"2\", W/\"3\"", .count = 1, .versions = {2}},
        {"W/\"1\", \"2\", W/\"3\"", .weak_too = true, .count = 3, .versions = {1, 2, 3}},
        {"w/\"1\"", .weak_too = true}, /* case-sensitive: RFC 9110 section 8.8.3 */
        {"W\"1\"", .weak_too = true},
        {"W/ \"1\"", .weak_too = true},
        {"W/", .weak_too = true},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_parsed(&cases[i]);
}

static void test_a_star_alone_names_every_version(void **state)
{
    (void)state;
    static const struct tags cases[] = {
        {"*", .any = true},      {" *\t", .any = true},
        {"**", .any = false},    {"*x", .any = false},
        {"W/*", .any = false},   {"*, \"1\"", .any = false},
        {"\"*\"", .any = false}, {"\"1\", *", .count = 1, .versions = {1}},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_parsed(&cases[i]);
}

static void test_what_is_no_tag_of_ours_names_no_version(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        ",",
        "1",
        "\"",
        "\"1",
        "1\"",
        "'1'",
        "\"\"",
        "\"0\"",
        "\"01\"",
        "\"-1\"",
        "\"+1\"",
        "\" 1\"",
        "\"1 \"",
        "\"1.0\"",
        "\"0x1\"",
        "\"1e1\"",
        "\"1a\"",
        "\"abc\"",
        "\"99999999999999999999\"",
        "\"9223372036854775808\"",
        "\"\xC3\xA9\"",
        "\"\xFF\"",
        "\"1\xC2\xA0\"",
        "<1>",
        "x, \"1\"",
        "\"\\\"1\"",
    };
    for (size_t i = 0; i < COUNT(texts); i++) {
        assert_parsed(&(struct tags){texts[i], .weak_too = false});
        assert_parsed(&(struct tags){texts[i], .weak_too = true});
    }
}

static void test_what_was_read_before_nonsense_stands(void **state)
{
    (void)state;
    static const struct tags cases[] = {
        {"\"1\", x, \"2\"", .count = 1, .versions = {1}},
        {"\"1\", \"2", .count = 1, .versions = {1}},
        {"\"1\"; \"2\"", .count = 1, .versions = {1}},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_parsed(&cases[i]);
}

static void test_a_list_of_tags_may_be_long(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 64 * 1024);
    for (int i = 1; i <= 1000; i++)
        buf_format(&text, "\"%d\", ", i);
    for (int i = 1; i <= 1000; i++)
        assert_true(api_tags_name(buf_get(&text), false, i));
    assert_false(api_tags_name(buf_get(&text), false, 1001));
}

static void test_a_change_goes_on_when_its_conditions_hold(void **state)
{
    (void)state;
    static const struct {
        struct api_conditions conditions;
        int64_t version;
        bool hold;
    } cases[] = {
        {{NULL, NULL}, 1, true},
        {{.match = ""}, 1, false}, /* If-Match without a tag of ours */
        {{.match = "*"}, 1, true},
        {{.match = "\"1\""}, 1, true},
        {{.match = "\"1\""}, 2, false},
        {{.match = "\"2\""}, 1, false},
        {{.match = "W/\"1\""}, 1, false},
        {{.match = "\"9\", \"2\""}, 2, true},
        {{.match = "\"9\", \"2\""}, 1, false},
        {{.none_match = ""}, 1, true}, /* If-None-Match without a tag of ours */
        {{.none_match = "*"}, 1, false},
        {{.none_match = "\"1\""}, 1, false},
        {{.none_match = "W/\"1\""}, 1, false},
        {{.none_match = "\"1\""}, 2, true},
        {{"*", "\"1\""}, 1, false},
        {{"*", "\"1\""}, 2, true},
        {{"\"1\"", "\"2\""}, 1, true},
        {{"\"1\"", "\"2\""}, 3, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(api_conditions_hold(&cases[i].conditions, cases[i].version), cases[i].hold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_are_read_from_lists_of_entity_tags),
        cmocka_unit_test(test_weak_tags_count_where_they_may),
        cmocka_unit_test(test_a_star_alone_names_every_version),
        cmocka_unit_test(test_what_is_no_tag_of_ours_names_no_version),
        cmocka_unit_test(test_what_was_read_before_nonsense_stands),
        cmocka_unit_test(test_a_list_of_tags_may_be_long),
        cmocka_unit_test(test_a_change_goes_on_when_its_conditions_hold),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
