/* URLs of HTTP peers, as settings give them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "http_url.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void check_all(enum status (*check)(const char *value, struct err *err), const char *const *urls,
                      size_t count, enum status expected)
{
    for (size_t i = 0; i < count; i++) {
        struct err err = {0};
        if (check(urls[i], &err) != expected)
            fail_msg("%s: %s", urls[i], err.status ? err.text : "accepted");
        assert_int_equal(err.status, expected);
    }
}

static void test_a_url_is_http_with_a_host(void **state)
{
    (void)state;
    static const char *const good[] = {"http://a", "https://a.b:1/c?d=e", "http://[::1]:3003", "http://10.0.0.7/",
                                       "http://service_a:65535", "http://u:p@a/", "http://a/%20/é"};
    static const char *const bad[] = {"", "http://", "https://", "http:///x", "http://:80", "http://?x", "http://#",
                                      "a.b", "HTTP://a", "file:///etc/passwd", "//a", "http:/a", "x", "http://u@"};
    check_all(http_url_check, good, COUNT(good), STATUS_OK);
    check_all(http_url_check, bad, COUNT(bad), STATUS_INVALID);
}

static void test_what_would_be_cut_off_or_read_differently_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"http://a b", "http://a\tb", "http://a\nb", "http://a\x7F", "http://a ",
                                      "http://a/b#c", "http://a:65536", "http://a:x", "http://a:-1",
                                      "http://[::1", "http://[::g]", "http://a;b", "http://a\\b"};
    check_all(http_url_check, bad, COUNT(bad), STATUS_INVALID);
}

static void test_a_base_url_has_no_query(void **state)
{
    (void)state;
    static const char *const good[] = {"https://a:1/b", "http://a"};
    static const char *const bad[] = {"https://a:1/b?c=d", "http://a?", "http://a:65536", "a"};
    check_all(http_url_check_base, good, COUNT(good), STATUS_OK);
    check_all(http_url_check_base, bad, COUNT(bad), STATUS_INVALID);
}

static void test_the_reason_shows_no_password(void **state)
{
    (void)state;
    static const char *const bad[] = {"ftp://u:s3cret@a", "http://u:s3cret@a:x", "http://u:s3cret@a/#", "http://u:s3cret@[a"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct err err = {0};
        assert_int_equal(http_url_check_base(bad[i], &err), STATUS_INVALID);
        assert_null(strstr(err.text, "s3cret"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_url_is_http_with_a_host),
        cmocka_unit_test(test_what_would_be_cut_off_or_read_differently_is_refused),
        cmocka_unit_test(test_a_base_url_has_no_query),
        cmocka_unit_test(test_the_reason_shows_no_password),
    };
    return cmocka_run_group_tests_name("http_url", tests, NULL, NULL);
}
