#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"
#include "status.h"

/* The same list read a second time: what the functions answer is held against the line itself. */
static const struct {
    enum status status;
    const char *name, *title;
    int http;
    bool retryable;
} lines[] = {
#define X(name, http, retry, title) {STATUS_##name, #name, title, http, retry},
    STATUS_LIST(X)
#undef X
};

static void test_every_status_answers_its_own_line(void **state)
{
    (void)state;
    assert_int_equal(sizeof lines / sizeof *lines, STATUS_COUNT);
    for (size_t i = 0; i < STATUS_COUNT; i++) {
        assert_int_equal(lines[i].status, i);
        assert_string_equal(status_name(lines[i].status), lines[i].name);
        assert_string_equal(status_title(lines[i].status), lines[i].title);
        assert_int_equal(status_http(lines[i].status), lines[i].http);
        assert_int_equal(status_retryable(lines[i].status), lines[i].retryable);
    }
}

static void test_names_and_titles_are_present_and_told_apart(void **state)
{
    (void)state;
    for (enum status i = 0; i < STATUS_COUNT; i++) {
        assert_true(strlen(status_name(i)) >= 2);
        assert_true(strlen(status_title(i)) >= 2);
        assert_int_equal(strspn(status_name(i), "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"), strlen(status_name(i)));
        assert_true(utf8_valid(status_title(i), strlen(status_title(i))));
        for (enum status j = 0; j < i; j++) {
            assert_string_not_equal(status_name(i), status_name(j));
            assert_string_not_equal(status_title(i), status_title(j));
        }
    }
}

static void test_http_is_200_for_ok_alone_and_an_error_for_the_rest(void **state)
{
    (void)state;
    assert_int_equal(STATUS_OK, 0);
    assert_int_equal(status_http(STATUS_OK), 200);
    for (enum status i = STATUS_OK + 1; i < STATUS_COUNT; i++) {
        int http = status_http(i);
        assert_true((http >= 400 && http <= 422) || http == 500 || http == 503);
    }
}

static void test_exactly_503_is_worth_another_try(void **state)
{
    (void)state;
    for (enum status i = 0; i < STATUS_COUNT; i++)
        if (status_retryable(i) != (status_http(i) == 503))
            fail_msg("%s", status_name(i));
}

static void test_an_error_carries_its_status_and_reason(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, STATUS_IO, "%s : %d", "été", 7), STATUS_IO);
    assert_int_equal(err.status, STATUS_IO);
    assert_string_equal(err.text, "été : 7");
    assert_int_equal(err_set(NULL, STATUS_GONE, "%d", 1), STATUS_GONE);
}

static void test_a_long_reason_is_cut_to_whole_characters(void **state)
{
    (void)state;
    char longer[700] = "";
    for (int i = 0; i < 299; i++)
        memcpy(longer + 2 * i, "é", 3);
    struct err err;
    memset(&err, 'x', sizeof err);
    err_set(&err, STATUS_IO, "%s", longer);
    assert_true(strlen(err.text) >= 252 && strlen(err.text) <= 255);
    assert_memory_equal(err.text, longer, strlen(err.text));
    assert_true(utf8_valid(err.text, strlen(err.text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_answers_its_own_line),
        cmocka_unit_test(test_names_and_titles_are_present_and_told_apart),
        cmocka_unit_test(test_http_is_200_for_ok_alone_and_an_error_for_the_rest),
        cmocka_unit_test(test_exactly_503_is_worth_another_try),
        cmocka_unit_test(test_an_error_carries_its_status_and_reason),
        cmocka_unit_test(test_a_long_reason_is_cut_to_whole_characters),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
