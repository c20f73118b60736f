/* json_check, json_parse, UTF-8 and the writer. The table of fields has its own program, test_json_decode.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "json.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BYTES(literal) (literal), sizeof(literal) - 1

/* Copies text to the very end of mapped memory: reading one byte behind it, in libcjson too, kills the test.
 */
static const char *at_the_edge(const char *text, size_t len)
{
    enum { ROOM = 1 << 20 };
    static char *room;
    if (!room) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        room = mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(room, MAP_FAILED);
        assert_int_equal(mprotect(room + ROOM, page, PROT_NONE), 0);
    }
    assert_true(len <= ROOM);
    return len > 0 ? memcpy(room + ROOM - len, text, len) : room + ROOM;
}

static enum status parse(const char *text, size_t len, cJSON **document, struct err *err)
{
    return json_parse(at_the_edge(text, len), len, document, err);
}

static void assert_accepted(const char *text, size_t len)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    if (json_check(at_the_edge(text, len), len, &err) != STATUS_OK)
        fail_msg("refused by json_check: %.200s: %s", text, err.text);
    if (parse(text, len, &document, &err) != STATUS_OK)
        fail_msg("refused by json_parse: %.200s: %s", text, err.text);
    assert_non_null(document);
}

static void assert_refused(const char *text, size_t len, const char *why)
{
    CLEANUP(json_free) cJSON *document = NULL;
    struct err err = {0};
    if (parse(text, len, &document, &err) != STATUS_MALFORMED)
        fail_msg("accepted: %.200s", text);
    assert_null(document);
    assert_int_equal(err.status, STATUS_MALFORMED);
    assert_string_equal(err.text, why);
    assert_true(utf8_valid(err.text, strlen(err.text)));
}

static void test_every_valid_form_is_accepted(void **state)
{
    (void)state;
    /* clang-format off */
    static const char *const texts[] = {
        "{}", "[]", "\"\"", "0", "-0", "-0.0", "1", "-1", "10", "0.5", "1e5", "1E+5", "1e-5", "1.25e2",
        "0e0", "0E+7", "true", "false", "null", " \t\r\n{ \t\r\n} \t\r\n", " [ ] ", "[1]", "[1,2]",
        "[ 1 , 2 ]", "[[],{}]", "{\"a\":1}", "{ \"a\" : 1 , \"b\" : 2 }", "{\"\":0}",
        "{\"a\":{\"a\":{\"a\":1}}}", "[{\"a\":1},{\"a\":1}]", "{\"a\":1,\"A\":2}", "{\"a\":\"a\"}",
        "[\"a\",\"a\"]", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0001\"", "\"\\u00e9\\u00E9\"",
        "\"\\ud83d\\ude00\"", "\"\\uD800\\uDC00\"", "\"\\uDBFF\\uDFFF\"", "\"\\uD7FF\\uE000\"",
        "\"\\uFFFE\\uFFFF\"", "\"\\\\u0000\"", "\"\\\\ud800\"", "\"\x7F\"", "\"\xC2\x80\"", "\"\xDF\xBF\"",
        "\"\xE0\xA0\x80\"", "\"\xED\x9F\xBF\"", "\"\xEE\x80\x80\"", "\"\xEF\xBF\xBF\"",
        "\"\xF0\x90\x80\x80\"", "\"\xF4\x8F\xBF\xBF\"", "\"\xEF\xBB\xBF\"", "\"/\"",
        "1.7976931348623157e308", "-1.7976931348623157E308", "5e-324", "1e-400", "0e999999999",
        "9007199254740993", "123456789012345678901234567890",
        "0.1234567890123456789012345678901234567890123456789012345678901", /* 63 bytes */
        "[999999999999999999999999999999999999999999999999999999999999999]", /* 63 digits */
    };
    /* clang-format on */
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_accepted(texts[i], strlen(texts[i]));
}

struct refused {
    const char *text;
    size_t len, offset;
    const char *reason;
};

#define EARLY "le texte finit trop tôt"
#define VALUE "valeur attendue"
#define NAME "nom de champ entre guillemets attendu"
#define TRAILING "texte en trop après le document"
#define NUMBER "nombre mal formé"
#define UTF8 "UTF-8 invalide"
#define CONTROL "caractère de contrôle dans une chaîne"
#define ESCAPE "échappement inconnu dans une chaîne"
#define HEX "\\u doit être suivi de quatre chiffres hexadécimaux"
#define LONE "moitié de paire UTF-16 isolée"
#define OPEN "chaîne non terminée"
#define BOM "marque d'ordre des octets (BOM) interdite"
#define IN_ARRAY "« , » ou « ] » attendu"
#define IN_OBJECT "« , » ou « } » attendu"

static const struct refused malformed[] = {
    {BYTES(""), 0, EARLY},
    {BYTES(" \n"), 2, EARLY},
    {BYTES("["), 1, EARLY},
    {BYTES("[1,"), 3, EARLY},
    {BYTES("{\"a\":"), 5, EARLY},
    {BYTES("{"), 1, NAME},
    {BYTES("{\"a\":1,"), 7, NAME},
    {BYTES("{\"a\""), 4, "« : » attendu"},
    {BYTES("{\"a\" 1}"), 5, "« : » attendu"},
    {BYTES("{\"a\",1}"), 4, "« : » attendu"},
    {BYTES("{a:1}"), 1, NAME},
    {BYTES("{'a':1}"), 1, NAME},
    {BYTES("{1:1}"), 1, NAME},
    {BYTES("{,}"), 1, NAME},
    {BYTES("{\"a\":1,}"), 7, NAME},
    {BYTES("{\"a\":1,,\"b\":2}"), 7, NAME},
    {BYTES("{\"a\":1 \"b\":2}"), 7, IN_OBJECT},
    {BYTES("{\"a\":1]"), 6, IN_OBJECT},
    {BYTES("{\"a\":1"), 6, IN_OBJECT},
    {BYTES("{\"a\"::1}"), 5, VALUE},
    {BYTES("{\"a\":}"), 5, VALUE},
    {BYTES("[1,]"), 3, VALUE},
    {BYTES("[,1]"), 1, VALUE},
    {BYTES("[1,,2]"), 3, VALUE},
    {BYTES("[1 2]"), 3, IN_ARRAY},
    {BYTES("[1}"), 2, IN_ARRAY},
    {BYTES("[1"), 2, IN_ARRAY},
    {BYTES("]"), 0, VALUE},
    {BYTES("}"), 0, VALUE},
    {BYTES(","), 0, VALUE},
    {BYTES("[1]]"), 3, TRAILING},
    {BYTES("{}{}"), 2, TRAILING},
    {BYTES("1 2"), 2, TRAILING},
    {BYTES("{} x"), 3, TRAILING},
    {BYTES("{}\0"), 2, TRAILING},
    {BYTES("{}\n\0"), 3, TRAILING},
    {BYTES("null,"), 4, TRAILING},
    {BYTES("truex"), 4, TRAILING},
    {BYTES("\"a\"\"b\""), 3, TRAILING},
    {BYTES("{}\xEF\xBB\xBF"), 2, TRAILING},
    {BYTES("tru"), 0, VALUE},
    {BYTES("True"), 0, VALUE},
    {BYTES("nul"), 0, VALUE},
    {BYTES("NULL"), 0, VALUE},
    {BYTES("fals"), 0, VALUE},
    {BYTES("[nulL]"), 1, VALUE},
    {BYTES("undefined"), 0, VALUE},
    {BYTES("NaN"), 0, VALUE},
    {BYTES("Infinity"), 0, VALUE},
    {BYTES("-Infinity"), 1, NUMBER},
    {BYTES("-NaN"), 1, NUMBER},
    {BYTES("'a'"), 0, VALUE},
    {BYTES("a"), 0, VALUE},
    {BYTES("/**/{}"), 0, VALUE},
    {BYTES("{}//"), 2, TRAILING},
    {BYTES("#\n{}"), 0, VALUE},
    {BYTES("[1/**/]"), 2, IN_ARRAY},
    {BYTES("\0"), 0, VALUE},
    {BYTES("\0{}"), 0, VALUE},
    {BYTES("[\0]"), 1, VALUE},
    {BYTES("\v1"), 0, VALUE},
    {BYTES("\f1"), 0, VALUE},
    {BYTES("[\x01]"), 1, VALUE},
    {BYTES("1\f"), 1, TRAILING},
    {BYTES("\xC2\xA0[]"), 0, VALUE},
    {BYTES("[]\xE2\x80\xA8"), 2, TRAILING},
    {BYTES("\xE2\x80\xA8[]"), 0, VALUE},
    /* numbers */
    {BYTES("01"), 1, NUMBER},
    {BYTES("-01"), 2, NUMBER},
    {BYTES("00"), 1, NUMBER},
    {BYTES("-"), 1, NUMBER},
    {BYTES("--1"), 1, NUMBER},
    {BYTES("- 1"), 1, NUMBER},
    {BYTES("+1"), 0, VALUE},
    {BYTES(".5"), 0, VALUE},
    {BYTES("-.5"), 1, NUMBER},
    {BYTES("1."), 2, NUMBER},
    {BYTES("1.e5"), 2, NUMBER},
    {BYTES("1e"), 2, NUMBER},
    {BYTES("1e+"), 3, NUMBER},
    {BYTES("1e-"), 3, NUMBER},
    {BYTES("1e+-5"), 3, NUMBER},
    {BYTES("1E5.5"), 3, TRAILING},
    {BYTES("1.2.3"), 3, TRAILING},
    {BYTES("0x10"), 1, TRAILING},
    {BYTES("1_000"), 1, TRAILING},
    {BYTES("[1.]"), 3, NUMBER},
    {BYTES("[1e5e5]"), 4, IN_ARRAY},
    {BYTES("1,5"), 1, TRAILING},
    {BYTES("\xEF\xBC\x91"), 0, VALUE},
    {BYTES("1e999"), 0, "nombre trop grand"},
    {BYTES("[-1e999]"), 1, "nombre trop grand"},
    {BYTES("1.7976931348623159e308"), 0, "nombre trop grand"},
    {BYTES("1e99999999999999999999"), 0, "nombre trop grand"},
    {BYTES("[9999999999999999999999999999999999999999999999999999999999999999]"), 1,
     "nombre de plus de 63 caractères"},
    {BYTES("0.12345678901234567890123456789012345678901234567890123456789012"), 0,
     "nombre de plus de 63 caractères"},
    /* strings */
    {BYTES("\""), 1, OPEN},
    {BYTES("\"abc"), 4, OPEN},
    {BYTES("\"\\\""), 3, OPEN},
    {BYTES("{\"a"), 3, OPEN},
    {BYTES("\"\0\""), 1, CONTROL},
    {BYTES("\"a\nb\""), 2, CONTROL},
    {BYTES("\"\t\""), 1, CONTROL},
    {BYTES("\"\x1F\""), 1, CONTROL},
    {BYTES("{\"a\nb\":1}"), 3, CONTROL},
    {BYTES("\"\\"), 1, ESCAPE},
    {BYTES("\"\\x41\""), 1, ESCAPE},
    {BYTES("\"\\a\""), 1, ESCAPE},
    {BYTES("\"\\'\""), 1, ESCAPE},
    {BYTES("\"\\\0\""), 1, ESCAPE},
    {BYTES("\"\\\n\""), 1, ESCAPE},
    {BYTES("\"\\U00e9\""), 1, ESCAPE},
    {BYTES("\"\\\xC3\xA9\""), 1, ESCAPE},
    {BYTES("\"\\u\""), 1, HEX},
    {BYTES("\"\\u00e\""), 1, HEX},
    {BYTES("\"\\u00g0\""), 1, HEX},
    {BYTES("\"\\u 123\""), 1, HEX},
    {BYTES("\"\\u+123\""), 1, HEX},
    {BYTES("\"\\u12"), 1, HEX},
    {BYTES("\"\\u0000\""), 1, "\\u0000 est interdit"},
    {BYTES("\"admin\\u0000x\""), 6, "\\u0000 est interdit"},
    {BYTES("{\"a\\u0000\":1}"), 3, "\\u0000 est interdit"},
    {BYTES("\"\\ud800\""), 1, LONE},
    {BYTES("\"\\udbff\""), 1, LONE},
    {BYTES("\"\\udc00\""), 1, LONE},
    {BYTES("\"\\uDFFF\""), 1, LONE},
    {BYTES("\"\\ud800\\ud800\""), 1, LONE},
    {BYTES("\"\\ude00\\ud83d\""), 1, LONE},
    {BYTES("\"\\ud83d\\u0041\""), 1, LONE},
    {BYTES("\"\\ud83dx\""), 1, LONE},
    {BYTES("\"\\ud83d\\n\""), 1, LONE},
    {BYTES("\"\\ud83d\\ud"), 1, LONE},
    {BYTES("\"\\ud83d"), 1, LONE},
    {BYTES("\"\\ud83d\\ude00\\ud83d\""), 13, LONE},
    {BYTES("{\"\\ud800\":1}"), 2, LONE},
    /* UTF-8 */
    {BYTES("\"\xFF\""), 1, UTF8},
    {BYTES("\"\xFE\""), 1, UTF8},
    {BYTES("\"\x80\""), 1, UTF8},
    {BYTES("\"\xBF\""), 1, UTF8},
    {BYTES("\"\xC0\x80\""), 1, UTF8},
    {BYTES("\"\xC1\xBF\""), 1, UTF8},
    {BYTES("\"\xE0\x80\x80\""), 1, UTF8},
    {BYTES("\"\xE0\x9F\xBF\""), 1, UTF8},
    {BYTES("\"\xF0\x80\x80\x80\""), 1, UTF8},
    {BYTES("\"\xF0\x8F\xBF\xBF\""), 1, UTF8},
    {BYTES("\"\xED\xA0\x80\""), 1, UTF8},
    {BYTES("\"\xED\xBF\xBF\""), 1, UTF8},
    {BYTES("\"\xED\xA0\xBD\xED\xB8\x80\""), 1, UTF8},
    {BYTES("\"\xF4\x90\x80\x80\""), 1, UTF8},
    {BYTES("\"\xF5\x80\x80\x80\""), 1, UTF8},
    {BYTES("\"\xF8\x88\x80\x80\x80\""), 1, UTF8},
    {BYTES("\"ab\xC3\""), 3, UTF8},
    {BYTES("\"\xE2\x82\""), 1, UTF8},
    {BYTES("\"\xF0\x9F\x98\""), 1, UTF8},
    {BYTES("\"\xC3"), 1, UTF8},
    {BYTES("\"\xF0\x9F\x98"), 1, UTF8},
    {BYTES("\"\xC3\x28\""), 1, UTF8},
    {BYTES("\"\xE2\x28\xA1\""), 1, UTF8},
    {BYTES("\"\xE2\x82\x28\""), 1, UTF8},
    {BYTES("\"caf\xE9\""), 4, UTF8},
    {BYTES("{\"\xE9\":1}"), 2, UTF8},
    {BYTES("\xEF\xBB\xBF{}"), 0, BOM},
    {BYTES("\xEF\xBB\xBF"), 0, BOM},
    {BYTES(" \xEF\xBB\xBF{}"), 1, VALUE},
    {BYTES("\xEF\xBB"), 0, VALUE},
    {BYTES("\xFF\xFE{\0}\0"), 0, VALUE},
    {BYTES("\xFE\xFF\0{\0}"), 0, VALUE},
    {BYTES("{\0}\0"), 1, NAME}};

static void test_every_malformed_text_is_refused_with_its_reason_and_offset(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(malformed); i++) {
        char why[256];
        (void)snprintf(why, sizeof why, "JSON mal formé à l'octet %zu : %s", malformed[i].offset,
                       malformed[i].reason);
        assert_refused(malformed[i].text, malformed[i].len, why);
    }
}

static void test_an_empty_body_without_memory_is_refused(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(json_check(NULL, 0, &err), STATUS_MALFORMED);
    assert_string_equal(err.text, "JSON mal formé à l'octet 0 : " EARLY);
    assert_int_equal(json_check(NULL, 0, NULL), STATUS_MALFORMED); /* nobody asks why */
}

/* `depth` containers inside each other, arrays and objects in turn. */
static void put_nested(struct buf *out, int depth, char first)
{
    for (int i = 0; i < depth; i++)
        buf_text(out, (first == '[') == (i % 2 == 0) ? "[" : "{\"a\":");
    buf_char(out, '1');
    for (int i = depth - 1; i >= 0; i--)
        buf_text(out, (first == '[') == (i % 2 == 0) ? "]" : "}");
}

static void test_sixteen_levels_are_accepted_and_seventeen_are_not(void **state)
{
    (void)state;
    for (const char *first = "[{"; *first; first++) {
        CLEANUP(buf_done) struct buf text;
        buf_init(&text, 1024);
        put_nested(&text, 16, *first);
        assert_accepted(text.data, text.len);
        buf_clear(&text);
        put_nested(&text, 17, *first);
        char why[256];
        (void)snprintf(why, sizeof why, "JSON mal formé à l'octet %d : plus de 16 niveaux d'imbrication",
                       8 * 6);
        assert_refused(text.data, text.len, why);
    }
    assert_accepted(
        BYTES("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]")); /* wide, not deep */
}

static void test_a_million_brackets_are_refused_at_once(void **state)
{
    (void)state;
    enum { LEN = 1000000 };
    CLEANUP(free_text) char *text = mem_new(LEN);
    memset(text, '[', LEN);
    assert_refused(text, LEN, "JSON mal formé à l'octet 16 : plus de 16 niveaux d'imbrication");
}

static void test_a_name_twice_in_one_object_is_refused_also_when_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *name;
    } cases[] = {
        {"{\"a\":1,\"a\":1}", "a"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "a"},
        {"{\"a\":1,\"\\u0061\":2}", "a"},
        {"{\"\\u00e9\":1,\"é\":2}", "é"},
        {"{\"\\ud83d\\ude00\":1,\"\\uD83D\\uDE00\":2}", "😀"},
        {"{\"/\":1,\"\\/\":2}", "/"},
        {"{\"\":1,\"\":2}", ""},
        {"[[{\"x\":{\"a\":null,\"a\":null}}]]", "a"},
        {"{\"a\":{\"b\":1,\"b\":2},\"c\":1}", "b"},
        {"{\"c\":1,\"a\":[{\"b\":1},{\"b\":1,\"b\":2}]}", "b"},
        {"{\"ééééééééééééééééééééééééééééééé1234\":1,\"ééééééééééééééééééééééééééééééé1234\":2}",
         "ééééééééééééééééééééééééééééééé1"} /* shown up to 32 characters */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text)
        char *why = mem_format("JSON mal formé : le champ « %s » est présent deux fois", cases[i].name);
        assert_refused(cases[i].text, strlen(cases[i].text), why);
    }
}

/* {"n0":0,…}, `count` names; the last one repeats name number `twice` when that is not negative. */
static void put_object(struct buf *out, int count, int twice)
{
    buf_char(out, '{');
    for (int i = 0; i < count; i++)
        buf_format(out, "%s\"n%d\":%d", i > 0 ? "," : "", i == count - 1 && twice >= 0 ? twice : i, i);
    buf_char(out, '}');
}

static void test_a_name_twice_is_found_in_objects_of_every_size(void **state)
{
    (void)state;
    for (int count = 2; count <= 40; count++)
        for (int twice = -1; twice < count - 1; twice++) {
            CLEANUP(buf_done) struct buf text;
            buf_init(&text, 4096);
            put_object(&text, count, twice);
            if (twice < 0) {
                assert_accepted(text.data, text.len);
                continue;
            }
            char why[256];
            (void)snprintf(why, sizeof why, "JSON mal formé : le champ « n%d » est présent deux fois", twice);
            assert_refused(text.data, text.len, why);
        }
}

/* Comparing all pairs of 60,000 names takes half a minute, sorting them some ten milliseconds. */
static void test_a_large_object_takes_no_quadratic_time(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf text;
    buf_init(&text, 1 << 20);
    put_object(&text, 60000, 59998);
    assert_true(buf_ok(&text));
    clock_t start = clock();
    assert_refused(text.data, text.len, "JSON mal formé : le champ « n59998 » est présent deux fois");
    assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
}

static const char whole[] =
    "{\"clientId\":\"c-\\u00e9\\ud83d\\ude00é😀\\n\",\"n\":[-1.5e3,0,null,true,false,{}],\"x\":{\"y\":\"\"}}";

static void test_every_truncated_document_is_refused(void **state)
{
    (void)state;
    assert_accepted(BYTES(whole));
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        CLEANUP(json_free) cJSON *document = NULL;
        assert_int_equal(parse(whole, len, &document, NULL), STATUS_MALFORMED);
        assert_null(document);
    }
}

static void test_a_document_with_any_byte_changed_is_parsed_when_it_passes_the_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof whole - 1; i++)
        for (int byte = 0; byte < 256; byte++) {
            char text[sizeof whole];
            memcpy(text, whole, sizeof text);
            text[i] = (char)byte;
            CLEANUP(json_free) cJSON *document = NULL;
            struct err err = {0};
            enum status checked = json_check(text, sizeof whole - 1, NULL);
            enum status parsed = parse(text, sizeof whole - 1, &document, &err);
            if (checked != parsed && !strstr(err.text, "deux fois"))
                fail_msg("checked %d, parsed %d: %s", (int)checked, (int)parsed, text);
        }
}

static void test_values_are_read_as_written(void **state)
{
    (void)state;
    CLEANUP(json_free) cJSON *document = NULL;
    assert_int_equal(parse(BYTES(whole), &document, NULL), STATUS_OK);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(document, "clientId")->valuestring, "c-é😀é😀\n");
    const cJSON *numbers = cJSON_GetObjectItemCaseSensitive(document, "n");
    assert_true(cJSON_GetArrayItem(numbers, 0)->valuedouble == -1500);
    assert_int_equal(cJSON_GetArraySize(numbers), 6);
    json_free(&document);
    assert_null(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_valid_form_is_accepted),
        cmocka_unit_test(test_every_malformed_text_is_refused_with_its_reason_and_offset),
        cmocka_unit_test(test_an_empty_body_without_memory_is_refused),
        cmocka_unit_test(test_sixteen_levels_are_accepted_and_seventeen_are_not),
        cmocka_unit_test(test_a_million_brackets_are_refused_at_once),
        cmocka_unit_test(test_a_name_twice_in_one_object_is_refused_also_when_escaped),
        cmocka_unit_test(test_a_name_twice_is_found_in_objects_of_every_size),
        cmocka_unit_test(test_a_large_object_takes_no_quadratic_time),
        cmocka_unit_test(test_every_truncated_document_is_refused),
        cmocka_unit_test(test_a_document_with_any_byte_changed_is_parsed_when_it_passes_the_check),
        cmocka_unit_test(test_values_are_read_as_written),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
