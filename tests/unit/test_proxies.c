/* Whose X-Forwarded-For is believed. */
#include "temp_folder.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "buf.h"
#include "proxies.h"

/* The client's address behind the peer, for these trusted proxies. */
static void assert_client(const char *trusted, const char *peer, const char *forwarded, const char *expected)
{
    struct proxies proxies;
    struct err err;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char out[ADDRESS_SIZE];
    bool is_v4 = inet_pton(AF_INET, peer, &v4.sin_addr) == 1;
    assert_true(is_v4 || inet_pton(AF_INET6, peer, &v6.sin6_addr) == 1);
    assert_int_equal(proxies_parse(trusted, &proxies, &err), STATUS_OK);
    proxies_client(&proxies, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, forwarded, out);
    assert_string_equal(out, expected);
}

static void test_nobody_is_believed_by_default(void **state)
{
    (void)state;
    assert_client("", "192.0.2.1", "198.51.100.7", "192.0.2.1");
    assert_client("", "2001:db8::1", "198.51.100.7", "2001:db8::1");
    assert_client("10.0.0.0/8", "192.0.2.1", "198.51.100.7", "192.0.2.1");
}

static void test_a_trusted_proxy_says_who_the_client_is(void **state)
{
    (void)state;
    assert_client("192.0.2.1", "192.0.2.1", "198.51.100.7", "198.51.100.7");
    assert_client("192.0.2.1", "192.0.2.1", NULL, "192.0.2.1");
    assert_client("192.0.2.1", "::ffff:192.0.2.1", "198.51.100.7", "198.51.100.7");
    assert_client("::1, fd00::/8", "fd12::9", "2001:db8::5", "2001:db8::5");
    assert_client("192.0.2.1", "192.0.2.1", " [2001:db8::5]:4711 ", "2001:db8::5");
    assert_client("192.0.2.1", "192.0.2.1", "198.51.100.7:4711", "198.51.100.7");
}

/* What a client itself writes stands before what the proxies add. */
static void test_a_client_cannot_choose_its_address(void **state)
{
    (void)state;
    assert_client("10.0.0.0/8", "10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7");
    assert_client("10.0.0.0/8", "10.0.0.1", "10.9.9.9, 198.51.100.7, 10.0.0.2", "198.51.100.7");
    assert_client("10.0.0.0/8", "10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3");
}

static void test_the_last_good_address_stands_where_the_rest_is_nonsense(void **state)
{
    (void)state;
    static const char *const nonsense[] = {
        "",
        ",",
        "unknown",
        "1.2.3",
        "198.51.100.7,",
        "_secret",
        "[::1",
        "]",
        "1.2.3.4.5",
        "::1::2",
        "198.51.100.7;",
        "198.51.100.7                                                    x"};
    for (size_t i = 0; i < COUNT(nonsense); i++) {
        CLEANUP(free_text) char *behind = mem_format("%s,10.0.0.2", nonsense[i]);
        assert_client("10.0.0.0/8", "10.0.0.1", nonsense[i], "10.0.0.1");
        assert_client("10.0.0.0/8", "10.0.0.1", behind, "10.0.0.2");
    }
}

static void test_a_range_ends_where_it_says(void **state)
{
    (void)state;
    assert_client("10.1.0.0/20", "10.1.15.255", "198.51.100.7", "198.51.100.7");
    assert_client("10.1.0.0/20", "10.1.16.0", "198.51.100.7", "10.1.16.0");
    assert_client("10.1.2.3/32", "10.1.2.3", "198.51.100.7", "198.51.100.7");
    assert_client("10.1.2.3/32", "10.1.2.2", "198.51.100.7", "10.1.2.2");
    assert_client("0.0.0.0/0", "203.0.113.1", "198.51.100.7", "198.51.100.7");
    assert_client("0.0.0.0/0", "2001:db8::1", "198.51.100.7", "2001:db8::1");
    assert_client("::/0", "203.0.113.1", "198.51.100.7", "198.51.100.7");
    assert_client("2001:db8::/33", "2001:db8:7fff::", "198.51.100.7", "198.51.100.7");
    assert_client("2001:db8::/33", "2001:db8:8000::", "198.51.100.7", "2001:db8:8000::");
}

static void test_an_unknown_peer_has_no_address(void **state)
{
    (void)state;
    struct proxies none = {0};
    char out[ADDRESS_SIZE] = "x";
    proxies_client(&none, NULL, "198.51.100.7", out);
    assert_string_equal(out, "");
    proxies_client(&none, &(struct sockaddr){.sa_family = AF_UNIX}, "198.51.100.7", out);
    assert_string_equal(out, "");
}

static void test_what_is_no_range_is_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"proxy",  "10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/-1", "10.0.0.0/8x",
                                      "10.0.0", "::1/129",     "fd00::/0008", "10.0.0.1:80", "*"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        CLEANUP(free_text) char *text = mem_format("127.0.0.1, %s", bad[i]);
        struct err err;
        if (proxies_check(text, &err) != STATUS_INVALID)
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err.text, bad[i]));
    }
    struct buf many;
    struct err err;
    buf_init(&many, 8192);
    for (int i = 0; i < PROXIES_MAX; i++)
        buf_format(&many, "10.0.0.%d ", i);
    assert_int_equal(proxies_check(buf_get(&many), &err), STATUS_OK);
    buf_text(&many, "::1");
    assert_int_equal(proxies_check(buf_get(&many), &err), STATUS_INVALID);
    buf_done(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_believed_by_default),
        cmocka_unit_test(test_a_trusted_proxy_says_who_the_client_is),
        cmocka_unit_test(test_a_client_cannot_choose_its_address),
        cmocka_unit_test(test_the_last_good_address_stands_where_the_rest_is_nonsense),
        cmocka_unit_test(test_a_range_ends_where_it_says),
        cmocka_unit_test(test_an_unknown_peer_has_no_address),
        cmocka_unit_test(test_what_is_no_range_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
