/* The table of fields: json_decode, its problems, and dates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "json.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { NAME_POINTS = 8, WORD_POINTS = 4 };

struct sample {
    char name[4 * NAME_POINTS + 1];
    char day[11];
    int64_t guests;
    double budget;
    char style[4 * NAME_POINTS + 1];
    char link[4 * NAME_POINTS + 1];
    struct json_texts tracks;
    int64_t exact;
};

#define MEMBER(name) .offset = offsetof(struct sample, name), .size = sizeof(((struct sample *)0)->name)

static const struct json_field fields[] = {
    {"name", JSON_TEXT, .min = 1, .max = NAME_POINTS, MEMBER(name), .required = true},
    {"day", JSON_DATE, MEMBER(day)},
    {"guests", JSON_INTEGER, .min = 1, .max = 100000, MEMBER(guests), .fallback = "1"},
    {"budget", JSON_NUMBER, .min = 0, .max = 1e9, MEMBER(budget), .fallback = "0.5"},
    {"style", JSON_TEXT, .min = 1, .max = NAME_POINTS, MEMBER(style), .fallback = "\"disco\""},
    {"link", JSON_TEXT, .min = 1, .max = NAME_POINTS, MEMBER(link), .nullable = true, .fallback = "\"none\""},
    {"tracks", JSON_TEXTS, .max = WORD_POINTS, .max_items = 5, MEMBER(tracks), .fallback = "[]"},
    {"exact", JSON_INTEGER, .min = -1e300, .max = 1e300, MEMBER(exact)},
};
enum { NAME = 1, DAY = 2, GUESTS = 4, BUDGET = 8, STYLE = 16, LINK = 32, TRACKS = 64, EXACT = 128 };

static void free_sample(struct sample *sample)
{
    free(sample->tracks.json);
}

static enum status decode(const char *text, enum json_mode mode, struct sample *out, unsigned *present,
                          struct problems *problems)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    if (json_parse(text, strlen(text), &document, &err) != STATUS_OK)
        fail_msg("%s: %s", text, err.text);
    return json_decode(document, mode, fields, COUNT(fields), out, present, problems);
}

/* Decodes a document without a problem. */
static unsigned decode_well(const char *text, enum json_mode mode, struct sample *out)
{
    struct problems problems = {0};
    unsigned present = 0;
    if (decode(text, mode, out, &present, &problems) != STATUS_OK)
        fail_msg("%s: %s %s", text, problems.items[0].pointer, problems.items[0].detail);
    assert_int_equal(problems.count, 0);
    return present;
}

static void assert_one_problem(const char *text, enum json_mode mode, const char *pointer, const char *detail)
{
    CLEANUP(free_sample) struct sample out = {0};
    struct problems problems = {0};
    unsigned present = 12345;
    if (decode(text, mode, &out, &present, &problems) != STATUS_INVALID)
        fail_msg("accepted: %s", text);
    assert_int_equal(problems.count, 1);
    assert_string_equal(problems.items[0].pointer, pointer);
    assert_string_equal(problems.items[0].detail, detail);
    assert_int_equal(present, 12345); /* an output is set on success alone */
}

static void test_every_type_is_decoded(void **state)
{
    (void)state;
    CLEANUP(free_sample) struct sample out = {0};
    unsigned present =
        decode_well("{\"tracks\":[\"a\",\"\",\"\\u00e9\\n\\\"\",\"😀😀😀😀\"],\"link\":\"l\",\"style\":\"rock\","
                    "\"budget\":1234.5,\"guests\":150,\"day\":\"2025-12-31\",\"name\":\"Zoé\","
                    "\"exact\":-7}",
                    JSON_CREATE, &out);
    assert_int_equal(present, 255);
    assert_string_equal(out.name, "Zoé");
    assert_string_equal(out.day, "2025-12-31");
    assert_int_equal(out.guests, 150);
    assert_true(out.budget == 1234.5);
    assert_string_equal(out.style, "rock");
    assert_string_equal(out.link, "l");
    assert_int_equal(out.tracks.count, 4);
    assert_string_equal(out.tracks.json, "[\"a\",\"\",\"é\\n\\\"\",\"😀😀😀😀\"]");
    assert_int_equal(out.exact, -7);
}

static void test_create_fills_what_is_absent_or_null(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned present;
        const char *link;
    } cases[] = {
        {"{\"name\":\"n\"}", NAME, "none"},
        {"{\"name\":\"n\",\"day\":null,\"guests\":null,\"budget\":null,\"style\":null,\"tracks\":null,"
         "\"exact\":null}",
         255 - LINK, "none"},
        {"{\"link\":null,\"name\":\"n\"}", NAME | LINK, ""}, /* null is a value of this one */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_sample) struct sample out;
        memset(&out, 'x', sizeof out);
        assert_int_equal(decode_well(cases[i].text, JSON_CREATE, &out), cases[i].present);
        assert_string_equal(out.name, "n");
        assert_string_equal(out.day, "");
        assert_int_equal(out.guests, 1);
        assert_true(out.budget == 0.5);
        assert_string_equal(out.style, "disco");
        assert_string_equal(out.link, cases[i].link);
        assert_string_equal(out.tracks.json, "[]");
        assert_int_equal(out.tracks.count, 0);
        assert_int_equal(out.exact, 0);
    }
}

static const struct sample before = {"old", "2020-02-29", 7, 7.5, "techno", "linked", {0}, 77};

static void test_change_leaves_alone_what_is_absent(void **state)
{
    (void)state;
    struct sample out = before;
    assert_int_equal(decode_well("{}", JSON_CHANGE, &out), 0);
    assert_memory_equal(&out, &before, sizeof out);
    assert_int_equal(decode_well("{\"guests\":8,\"unknown\":{\"name\":3}}", JSON_CHANGE, &out), GUESTS);
    assert_int_equal(out.guests, 8);
    out.guests = before.guests;
    assert_memory_equal(&out, &before, sizeof out);
}

static void test_change_takes_null_as_the_default(void **state)
{
    (void)state;
    CLEANUP(free_sample) struct sample out = before;
    unsigned present =
        decode_well("{\"day\":null,\"guests\":null,\"budget\":null,\"style\":null,\"link\":null,"
                    "\"tracks\":null,\"exact\":null}",
                    JSON_CHANGE, &out);
    assert_int_equal(present, 255 - NAME);
    assert_string_equal(out.name, "old");
    assert_string_equal(out.day, "");
    assert_int_equal(out.guests, 1);
    assert_true(out.budget == 0.5);
    assert_string_equal(out.style, "disco");
    assert_string_equal(out.link, "");
    assert_string_equal(out.tracks.json, "[]");
    assert_int_equal(out.exact, 0);
}

static void test_a_required_field_must_be_there(void **state)
{
    (void)state;
    assert_one_problem("{}", JSON_CREATE, "/name", "champ obligatoire");
    assert_one_problem("{\"name\":null}", JSON_CREATE, "/name", "champ obligatoire");
    assert_one_problem("{\"name\":null}", JSON_CHANGE, "/name", "champ obligatoire");
    assert_one_problem("{\"Name\":\"n\"}", JSON_CREATE, "/name", "champ obligatoire"); /* byte for byte */
}

static void test_what_is_no_object_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"[]", "[{\"name\":\"n\"}]", "\"name\"", "1", "true", "null"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        assert_one_problem(texts[i], JSON_CREATE, "", "doit être un objet JSON");
        assert_one_problem(texts[i], JSON_CHANGE, "", "doit être un objet JSON");
    }
}

#define TEXT "doit être un texte"
#define LENGTH "doit contenir entre 1 et 8 caractères"
#define INTEGER "doit être un entier entre 1 et 100000"
#define EXACTLY "doit être un entier entre -9007199254740991 et 9007199254740991"
#define AMOUNT "doit être un nombre entre 0 et 1000000000"
#define DATE "doit être une date qui existe, au format AAAA-MM-JJ"
#define LIST "doit être une liste d'au plus 5 textes"
#define ITEM "doit contenir au plus 4 caractères"

static void test_each_wrong_value_has_its_pointer_and_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *pointer, *detail;
    } cases[] = {
        {"{\"name\":1}", "/name", TEXT},
        {"{\"name\":[\"n\"]}", "/name", TEXT},
        {"{\"name\":{}}", "/name", TEXT},
        {"{\"name\":true}", "/name", TEXT},
        {"{\"link\":0}", "/link", TEXT},
        {"{\"name\":\"\"}", "/name", LENGTH},
        {"{\"name\":\"123456789\"}", "/name", LENGTH},
        {"{\"name\":\"ééééééééé\"}", "/name", LENGTH},
        {"{\"name\":\"😀😀😀😀😀😀😀😀😀\"}", "/name", LENGTH},
        {"{\"link\":\"\"}", "/link", LENGTH},
        {"{\"guests\":\"50\"}", "/guests", INTEGER},
        {"{\"guests\":50.5}", "/guests", INTEGER},
        {"{\"guests\":50.0000001}", "/guests", INTEGER},
        {"{\"guests\":0}", "/guests", INTEGER},
        {"{\"guests\":-1}", "/guests", INTEGER},
        {"{\"guests\":0.9999999999}", "/guests", INTEGER},
        {"{\"guests\":100001}", "/guests", INTEGER},
        {"{\"guests\":4294967297}", "/guests", INTEGER},           /* 1 in 32 bits */
        {"{\"guests\":18446744073709551617}", "/guests", INTEGER}, /* 1 in 64 bits */
        {"{\"guests\":1e300}", "/guests", INTEGER},
        {"{\"guests\":true}", "/guests", INTEGER},
        {"{\"guests\":[1]}", "/guests", INTEGER},
        {"{\"exact\":9007199254740992}", "/exact", EXACTLY},
        {"{\"exact\":9007199254740993}", "/exact", EXACTLY},
        {"{\"exact\":-9007199254740992}", "/exact", EXACTLY},
        {"{\"exact\":9223372036854775808}", "/exact", EXACTLY},
        {"{\"exact\":-1e308}", "/exact", EXACTLY},
        {"{\"budget\":-0.01}", "/budget", AMOUNT},
        {"{\"budget\":1000000000.1}", "/budget", AMOUNT},
        {"{\"budget\":\"12\"}", "/budget", AMOUNT},
        {"{\"budget\":false}", "/budget", AMOUNT},
        {"{\"day\":20251231}", "/day", DATE},
        {"{\"day\":\"\"}", "/day", DATE},
        {"{\"day\":\"2025-02-29\"}", "/day", DATE},
        {"{\"day\":\"31/12/2025\"}", "/day", DATE},
        {"{\"tracks\":\"a\"}", "/tracks", LIST},
        {"{\"tracks\":{\"0\":\"a\"}}", "/tracks", LIST},
        {"{\"tracks\":[\"\",\"\",\"\",\"\",\"\",\"\"]}", "/tracks", LIST},
        {"{\"tracks\":[1,2,3,4,5,6]}", "/tracks", LIST},
        {"{\"tracks\":[\"a\",\"b\",\"c\",4]}", "/tracks/3", TEXT},
        {"{\"tracks\":[null]}", "/tracks/0", TEXT},
        {"{\"tracks\":[\"a\",[\"b\"]]}", "/tracks/1", TEXT},
        {"{\"tracks\":[\"a\",\"ééééé\"]}", "/tracks/1", ITEM},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_one_problem(cases[i].text, JSON_CHANGE, cases[i].pointer, cases[i].detail);
}

static void test_the_bounds_themselves_are_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t guests, exact;
        double budget;
    } cases[] = {
        {"{\"guests\":1,\"budget\":0}", 1, 0, 0},
        {"{\"guests\":100000,\"budget\":1000000000}", 100000, 0, 1e9},
        {"{\"guests\":50.0,\"budget\":1e9}", 50, 0, 1e9},
        {"{\"guests\":5e1,\"budget\":1e-9}", 50, 0, 1e-9},
        {"{\"guests\":1,\"exact\":9007199254740991}", 1, 9007199254740991, 0},
        {"{\"guests\":1,\"exact\":-9007199254740991}", 1, -9007199254740991, 0},
        {"{\"guests\":1,\"exact\":-0.0}", 1, 0, 0},
        {"{\"guests\":1,\"exact\":2147483648}", 1, 2147483648, 0}, /* over an int */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sample out = {0};
        decode_well(cases[i].text, JSON_CHANGE, &out);
        assert_int_equal(out.guests, cases[i].guests);
        assert_int_equal(out.exact, cases[i].exact);
        assert_true(out.budget == cases[i].budget);
    }
    CLEANUP(free_sample) struct sample out = {0};
    decode_well("{\"name\":\"😀😀😀😀😀😀😀😀\",\"style\":\"12345678\",\"budget\":-0}", JSON_CHANGE, &out);
    assert_string_equal(out.name, "😀😀😀😀😀😀😀😀"); /* fills its array to the last byte */
    assert_string_equal(out.style, "12345678");
    decode_well("{\"tracks\":[\"\\u0001\\u0002\\u0003\\u0004\",\"1234\",\"1234\",\"1234\",\"éééé\"]}",
                JSON_CHANGE, &out);
    assert_int_equal(out.tracks.count, 5);
    assert_string_equal(out.tracks.json,
                        "[\"\\u0001\\u0002\\u0003\\u0004\",\"1234\",\"1234\",\"1234\",\"éééé\"]");
    assert_memory_equal(&out.budget, &(double){0}, sizeof(double)); /* no negative zero */
}

static void test_all_problems_are_named_at_once_in_the_order_of_the_table(void **state)
{
    (void)state;
    static const struct problem expected[] = {
        {"/name", "champ obligatoire"},
        {"/day", DATE},
        {"/guests", INTEGER},
        {"/budget", AMOUNT},
        {"/style", LENGTH},
        {"/link", TEXT},
        {"/tracks/1", TEXT},
        {"/tracks/2", ITEM},
        {"/exact", EXACTLY},
    };
    CLEANUP(free_sample) struct sample out = {0};
    struct problems problems = {0};
    unsigned present = 0;
    enum status status =
        decode("{\"exact\":0.5,\"tracks\":[\"a\",2,\"12345\"],\"link\":5,\"style\":\"\",\"budget\":-1,"
               "\"guests\":1.5,\"day\":\"hier\"}",
               JSON_CREATE, &out, &present, &problems);
    assert_int_equal(status, STATUS_INVALID);
    assert_int_equal(problems.count, COUNT(expected));
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_string_equal(problems.items[i].pointer, expected[i].pointer);
        assert_string_equal(problems.items[i].detail, expected[i].detail);
    }
    assert_null(out.tracks.json);
    assert_int_equal(decode("{\"name\":\"n\"}", JSON_CHANGE, &out, &present, &problems), STATUS_OK);
    assert_int_equal(problems.count, 0); /* the problems are this document's */
}

static void test_problems_past_the_maximum_are_counted_and_not_kept(void **state)
{
    (void)state;
    struct problems problems = {0};
    for (int i = 0; i < PROBLEMS_MAX + 10; i++)
        problems_add(&problems, "/p", "problem %d", i);
    assert_int_equal(problems.count, PROBLEMS_MAX + 10);
    assert_string_equal(problems.items[PROBLEMS_MAX - 1].detail, "problem 31");
}

static void test_long_problems_are_cut_before_a_code_point(void **state)
{
    (void)state;
    struct problems problems = {0};
    char longer[600] = "";
    for (int i = 0; i < 299; i++)
        memcpy(longer + 2 * i, "é", 3);
    problems_add(&problems, longer, "%s", longer);
    assert_int_equal(strlen(problems.items[0].pointer), 62);
    assert_int_equal(strlen(problems.items[0].detail), 158);
    assert_memory_equal(problems.items[0].pointer, longer, 62);
    assert_memory_equal(problems.items[0].detail, longer, 158);
}

static void test_only_days_that_exist_are_dates(void **state)
{
    (void)state;
    static const char *const good[] = {"2025-12-31", "2024-02-29", "2000-02-29", "0000-02-29", "0000-01-01",
                                       "9999-12-31", "1999-01-31", "2025-04-30", "2400-02-29", "2025-02-28"};
    static const char *const bad[] = {
        "",           "2025",        "2025-12",    "2025-12-3",  "2025-12-311", "2025-12-31 ", " 2025-12-31",
        "2025-02-29", "1900-02-29",  "2100-02-29", "2023-02-29", "2024-02-30",  "2025-04-31",  "2025-06-31",
        "2025-09-31", "2025-11-31",  "2025-01-32", "2025-00-10", "2025-13-01",  "2025-01-00",  "2025-1-01",
        "2025/12/31", "20251231",    "2025-12/31", "-025-12-31", "+2025-12-3",  "2025-12-3x",  "x025-12-31",
        "2025--1-31", "2025-12-31T", "202é-12-31", "٢٠٢٥-12-31", "2025-12-:0",  "2025-12-/0",  "2025-W01-1",
    };
    for (size_t i = 0; i < COUNT(good); i++)
        if (!date_valid(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < COUNT(bad); i++)
        if (date_valid(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

/* The calendar repeats every 400 years of 146,097 days. */
static void test_four_hundred_years_have_their_days(void **state)
{
    (void)state;
    int days = 0;
    for (int year = 1600; year < 2000; year++)
        for (int month = 0; month <= 99; month++)
            for (int day = 0; day <= 99; day++) {
                char text[40];
                (void)snprintf(text, sizeof text, "%04d-%02d-%02d", year, month, day);
                days += date_valid(text);
            }
    assert_int_equal(days, 146097);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_is_decoded),
        cmocka_unit_test(test_create_fills_what_is_absent_or_null),
        cmocka_unit_test(test_change_leaves_alone_what_is_absent),
        cmocka_unit_test(test_change_takes_null_as_the_default),
        cmocka_unit_test(test_a_required_field_must_be_there),
        cmocka_unit_test(test_what_is_no_object_is_refused),
        cmocka_unit_test(test_each_wrong_value_has_its_pointer_and_reason),
        cmocka_unit_test(test_the_bounds_themselves_are_accepted),
        cmocka_unit_test(test_all_problems_are_named_at_once_in_the_order_of_the_table),
        cmocka_unit_test(test_problems_past_the_maximum_are_counted_and_not_kept),
        cmocka_unit_test(test_long_problems_are_cut_before_a_code_point),
        cmocka_unit_test(test_only_days_that_exist_are_dates),
        cmocka_unit_test(test_four_hundred_years_have_their_days),
    };
    return cmocka_run_group_tests_name("json_decode", tests, NULL, NULL);
}
