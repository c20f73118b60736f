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
    int64_t versions[API_VERSIONS_MAX];
};

static void assert_parsed(const struct tags *expected)
{
    /* Exactly as long as it is: reading behind the end is caught. */
    CLEANUP(free_text) char *text = mem_text(expected->text);
    struct api_condition condition;
    memset(&condition, 0x5A, sizeof condition);
    api_condition_parse(text, expected->weak_too, &condition);
    if (!condition.given || condition.any != expected->any || condition.count != expected->count)
        fail_msg("%s: any %d, %u versions", text, condition.any, condition.count);
    for (unsigned i = 0; i < expected->count; i++)
        if (condition.versions[i] != expected->versions[i])
            fail_msg("%s: version %lld", text, (long long)condition.versions[i]);
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

static void test_at_most_eight_versions_are_kept(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 64 * 1024);
    for (int i = 1; i <= 1000; i++)
        buf_format(&text, "\"%d\", ", i);
    assert_parsed(&(struct tags){buf_get(&text), .count = 8, .versions = {1, 2, 3, 4, 5, 6, 7, 8}});
}

static void test_a_change_goes_on_when_its_conditions_hold(void **state)
{
    (void)state;
    static const struct {
        struct api_conditions conditions;
        int64_t version;
        bool hold;
    } cases[] = {
        {{.match = {.given = false}}, 1, true}, /* neither */
        {{.match = {.given = false, .count = 1, .versions = {2}}}, 1, true},
        {{.match = {.given = true}}, 1, false}, /* If-Match without a tag of ours */
        {{.match = {.given = true, .any = true}}, 1, true},
        {{.match = {.given = true, .count = 1, .versions = {1}}}, 1, true},
        {{.match = {.given = true, .count = 1, .versions = {1}}}, 2, false},
        {{.match = {.given = true, .count = 1, .versions = {2}}}, 1, false},
        {{.match = {.given = true, .count = 8, .versions = {9, 8, 7, 6, 5, 4, 3, 2}}}, 2, true},
        {{.match = {.given = true, .count = 8, .versions = {9, 8, 7, 6, 5, 4, 3, 2}}}, 1, false},
        {{.match = {.given = true, .count = 1, .versions = {3, 4}}}, 4, false}, /* behind the count */
        {{.none_match = {.given = true}}, 1, true}, /* If-None-Match without a tag of ours */
        {{.none_match = {.given = true, .any = true}}, 1, false},
        {{.none_match = {.given = true, .count = 1, .versions = {1}}}, 1, false},
        {{.none_match = {.given = true, .count = 1, .versions = {1}}}, 2, true},
        {{{.given = true, .any = true}, {.given = true, .count = 1, .versions = {1}}}, 1, false},
        {{{.given = true, .any = true}, {.given = true, .count = 1, .versions = {1}}}, 2, true},
        {{{.given = true, .count = 1, .versions = {1}}, {.given = true, .count = 1, .versions = {2}}},
         1,
         true},
        {{{.given = true, .count = 1, .versions = {1}}, {.given = true, .count = 1, .versions = {2}}},
         3,
         false},
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
        cmocka_unit_test(test_at_most_eight_versions_are_kept),
        cmocka_unit_test(test_a_change_goes_on_when_its_conditions_hold),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
