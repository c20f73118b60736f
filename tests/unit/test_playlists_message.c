/* The message that asks for a playlist: what is accepted of any producer, and what can never succeed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cleanup.h"
#include "mem.h"
#include "message.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static enum status decode(const char *body, struct message *message, struct err *err)
{
    return message_decode(body, strlen(body), strlen(body), message, err);
}

static void test_good_messages_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *body, *soiree_id, *style, *client_id, *timestamp;
    } cases[] = {
        {"{\"soireeId\":\"1\",\"clientId\":\"c\",\"style\":\"techno\",\"timestamp\":\"2025\"}", "1", "techno",
         "c", "2025"},
        {"{\"soireeId\":\"1\"}", "1", "disco", "", ""},
        {"{\"soireeId\":\"1\",\"style\":null}", "1", "disco", "", ""},
        {"{\"soireeId\":\"1\",\"style\":\"\"}", "1", "disco", "", ""},
        {"{\"soireeId\":\"\\u00e9\",\"clientId\":12,\"timestamp\":true,\"more\":[1]}", "é", "disco", "12",
         "true"},
        {" { \"soireeId\" : \"1\" , \"clientId\" : null } ", "1", "disco", "", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct message message;
        struct err err = {0};
        if (decode(cases[i].body, &message, &err) != STATUS_OK)
            fail_msg("%s: %s", cases[i].body, err.text);
        assert_string_equal(message.soiree_id, cases[i].soiree_id);
        assert_string_equal(message.style, cases[i].style);
        assert_string_equal(message.client_id, cases[i].client_id);
        assert_string_equal(message.timestamp, cases[i].timestamp);
    }
}

static void test_hopeless_messages_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "not json",
        "[]",
        "\"1\"",
        "{}",
        "{\"soireeId\":1}",
        "{\"soireeId\":null}",
        "{\"soireeId\":\"\"}",
        "{\"soireeId\":\"1\",\"style\":7}",
        "{\"soireeId\":\"1\",\"style\":[]}",
        "{\"soireeId\":\"1\",\"clientId\":{}}",
        "{\"soireeId\":\"1\",\"timestamp\":[]}",
        "{\"soireeId\":\"1\",\"soireeId\":\"2\"}",
        "{\"soireeId\":\"1\"} x",
        "{\"soireeId\":\"\xFF\"}",
        "{\"soireeId\":\"a\\u0000b\"}",
    };
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct message message;
        struct err err = {0};
        if (decode(bodies[i], &message, &err) == STATUS_OK)
            fail_msg("accepted: %s", bodies[i]);
        assert_true(strlen(err.text) > 0);
    }
}

/* A soireeId or style of `points` code points of two bytes each. */
static enum status decode_long(const char *format, size_t points)
{
    struct message message;
    CLEANUP(free_text) char *text = mem_new(2 * points + 1);
    for (size_t i = 0; i < points; i++)
        memcpy(text + 2 * i, "é", 2);
    CLEANUP(free_text)
    char *body = mem_format("{\"soireeId\":\"%s\",\"style\":\"%s\"}", strcmp(format, "id") == 0 ? text : "1",
                            strcmp(format, "style") == 0 ? text : "");
    return decode(body, &message, NULL);
}

static void test_lengths_count_code_points(void **state)
{
    (void)state;
    assert_int_equal(decode_long("id", 128), STATUS_OK);
    assert_int_equal(decode_long("id", 129), STATUS_INVALID);
    assert_int_equal(decode_long("style", 64), STATUS_OK);
    assert_int_equal(decode_long("style", 65), STATUS_INVALID);
}

static void test_a_body_that_was_announced_as_too_long_is_refused(void **state)
{
    (void)state;
    struct message message;
    const char *body = "{\"soireeId\":\"1\"}";
    assert_int_equal(message_decode(body, strlen(body), MESSAGE_BODY_MAX + 1, &message, NULL),
                     STATUS_TOO_LARGE);
    assert_int_equal(message_decode(body, strlen(body), MESSAGE_BODY_MAX, &message, NULL), STATUS_OK);
}

static void test_what_the_log_shows_is_cut_at_a_code_point(void **state)
{
    (void)state;
    struct message message;
    CLEANUP(free_text) char *text = mem_new(2 * 300 + 1);
    for (size_t i = 0; i < 300; i++)
        memcpy(text + 2 * i, "é", 2);
    CLEANUP(free_text) char *body = mem_format("{\"soireeId\":\"1\",\"clientId\":\"%s\"}", text);
    assert_int_equal(decode(body, &message, NULL), STATUS_OK);
    assert_int_equal(utf8_length(message.client_id), MESSAGE_SHOWN_MAX);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_messages_are_decoded),
        cmocka_unit_test(test_hopeless_messages_are_refused_with_a_reason),
        cmocka_unit_test(test_lengths_count_code_points),
        cmocka_unit_test(test_a_body_that_was_announced_as_too_long_is_refused),
        cmocka_unit_test(test_what_the_log_shows_is_cut_at_a_code_point),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
