/* Replies of /v1/health/service: what becomes an address, and what a hostile or odd reply cannot do. The rest of the
 * module is a conversation with an agent and is tested end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "consul.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static char urls[CONSUL_INSTANCES_MAX][CONSUL_URL_SIZE];

static size_t parse(const char *reply)
{
    size_t count = 999;
    struct err err = {0};
    CLEANUP(free_text) char *copy = mem_copy(reply, strlen(reply));
    memset(urls, 'x', sizeof urls);
    if (consul_parse(copy, strlen(reply), urls, &count, &err) != STATUS_OK)
        fail_msg("refused: %s: %s", reply, err.text);
    return count;
}

/* An entry of a reply. */
static char *entry(const char *service_address, const char *node_address, const char *port)
{
    return mem_format("{\"Node\":{\"Node\":\"n\",\"Address\":%s},\"Service\":{\"ID\":\"i\",\"Service\":"
                      "\"service-soirees\",\"Address\":%s,\"Port\":%s},\"Checks\":[]}",
                      node_address, service_address, port);
}

static void test_a_real_reply_gives_its_addresses(void **state)
{
    (void)state;
    static const char reply[] =
        "[{\"Node\":{\"ID\":\"40e4a748\",\"Node\":\"foobar\",\"Address\":\"10.1.10.12\",\"Datacenter\":\"dc1\","
        "\"TaggedAddresses\":{\"lan\":\"10.1.10.12\"},\"Meta\":{\"a\":\"b\"}},\"Service\":{\"ID\":\"redis\","
        "\"Service\":\"service-soirees\",\"Tags\":[\"api\"],\"Address\":\"10.1.10.13\",\"TaggedAddresses\":{\"lan\":"
        "{\"Address\":\"10.1.10.13\",\"Port\":8000}},\"Meta\":{\"v\":\"4\"},\"Port\":3003,\"Weights\":{\"Passing\":10,"
        "\"Warning\":1}},\"Checks\":[{\"Node\":\"foobar\",\"CheckID\":\"serfHealth\",\"Status\":\"passing\","
        "\"Output\":\"\\u0007 ok\\n\"}]}]\n";
    assert_int_equal(parse(reply), 1);
    assert_string_equal(urls[0], "http://10.1.10.13:3003");
    assert_int_equal(parse("[]"), 0);
    assert_int_equal(parse(" [ ] \n"), 0);
}

static void test_every_usable_address_becomes_a_url(void **state)
{
    (void)state;
    static const struct {
        const char *service_address, *node_address, *port, *url;
    } cases[] = {
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "3003", "http://10.0.0.7:3003"},
        {"\"\"", "\"10.0.0.1\"", "3003", "http://10.0.0.1:3003"}, /* "" means the node's */
        {"null", "\"10.0.0.1\"", "3003", "http://10.0.0.1:3003"},
        {"\"soirees.service.local\"", "\"\"", "1", "http://soirees.service.local:1"},
        {"\"my_host-1\"", "\"\"", "65535", "http://my_host-1:65535"},
        {"\"::1\"", "\"\"", "3003", "http://[::1]:3003"},
        {"\"2001:db8::10.0.0.1\"", "\"\"", "3003", "http://[2001:db8::10.0.0.1]:3003"},
        {"\"\"", "\"fe80::1\"", "3003", "http://[fe80::1]:3003"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "3003.0", "http://10.0.0.7:3003"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text)
        char *one = entry(cases[i].service_address, cases[i].node_address, cases[i].port);
        CLEANUP(free_text) char *reply = mem_format("[%s]", one);
        assert_int_equal(parse(reply), 1);
        assert_string_equal(urls[0], cases[i].url);
    }
}

static void test_entries_without_a_usable_address_or_port_are_skipped(void **state)
{
    (void)state;
    static const struct {
        const char *service_address, *node_address, *port;
    } cases[] = {
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "0"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "-1"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "65536"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "4294970299"}, /* 3003 in 32 bits */
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "1e300"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "0.5"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "\"3003\""},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "null"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "true"},
        {"\"10.0.0.7\"", "\"10.0.0.1\"", "[3003]"},
        {"\"\"", "\"\"", "3003"},
        {"null", "null", "3003"},
        {"\"\"", "7", "3003"},
        /* nothing that would change the meaning of the URL */
        {"\"host/path\"", "\"\"", "3003"},
        {"\"/\"", "\"\"", "3003"},
        {"\"user@evil\"", "\"\"", "3003"},
        {"\"evil?x=\"", "\"\"", "3003"},
        {"\"evil#\"", "\"\"", "3003"},
        {"\"evil%2f\"", "\"\"", "3003"},
        {"\"a b\"", "\"\"", "3003"},
        {"\" 10.0.0.7\"", "\"\"", "3003"},
        {"\"10.0.0.7\\r\\nX: y\"", "\"\"", "3003"},
        {"\"[::1]\"", "\"\"", "3003"},
        {"\"fe80::1%eth0\"", "\"\"", "3003"},
        {"\"h\\u00f4te\"", "\"\"", "3003"},
        {"\"{a,b}\"", "\"\"", "3003"}, /* libcurl's command line would glob */
        {"\"a\\\\b\"", "\"\"", "3003"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEANUP(free_text)
        char *bad = entry(cases[i].service_address, cases[i].node_address, cases[i].port);
        CLEANUP(free_text) char *good = entry("\"10.9.9.9\"", "\"\"", "3003");
        CLEANUP(free_text) char *reply = mem_format("[%s,%s,%s]", bad, good, bad);
        if (parse(reply) != 1)
            fail_msg("taken: %s as %s", bad, urls[0]);
        assert_string_equal(urls[0], "http://10.9.9.9:3003"); /* the others still count */
    }
}

static void test_an_address_too_long_for_a_url_is_skipped_and_not_cut(void **state)
{
    (void)state;
    static const char digits[] = "1111111111222222222233333333334444444444555555555566666666667777777777888888888899999"
                                 "99999aaaaaaaaaabbbbbbbbbbcccccccccc";
    for (size_t len = 1; len < sizeof digits; len++) {
        CLEANUP(free_text) char *address = mem_format("\"%.*s\"", (int)len, digits);
        CLEANUP(free_text) char *one = entry(address, "\"10.0.0.1\"", "65535");
        CLEANUP(free_text) char *reply = mem_format("[%s]", one);
        size_t url_len = strlen("http://") + len + strlen(":65535");
        assert_int_equal(parse(reply), url_len < CONSUL_URL_SIZE);
        if (url_len < CONSUL_URL_SIZE)
            assert_int_equal(strlen(urls[0]), url_len);
    }
}

static void test_at_most_32_instances_are_taken(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 31, 32, 33, 500};
    for (size_t i = 0; i < COUNT(counts); i++) {
        CLEANUP(buf_done) struct buf reply;
        buf_init(&reply, 1 << 20);
        for (size_t n = 0; n < counts[i]; n++) {
            CLEANUP(free_text) char *address = mem_format("\"10.0.%zu.%zu\"", n / 250, n % 250);
            CLEANUP(free_text) char *one = entry(address, "\"\"", "3003");
            buf_format(&reply, "%s%s", n ? "," : "[", one);
        }
        buf_char(&reply, ']');
        assert_int_equal(parse(buf_get(&reply)), counts[i] < 32 ? counts[i] : 32);
        assert_string_equal(urls[0], "http://10.0.0.0:3003"); /* the first ones, in their order */
        if (counts[i] >= 32)
            assert_string_equal(urls[31], "http://10.0.0.31:3003");
    }
}

static void test_entries_of_any_other_shape_are_skipped(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "[null]",
        "[1,true,\"x\",[],{}]",
        "[[{\"Service\":{\"Address\":\"10.0.0.7\",\"Port\":3003}}]]",
        "[{\"Service\":null}]",
        "[{\"Service\":[],\"Node\":[]}]",
        "[{\"Service\":\"Address\",\"Node\":\"Address\"}]",
        "[{\"Service\":{\"Address\":\"10.0.0.7\"}}]",
        "[{\"Service\":{\"Port\":3003}}]",
        "[{\"service\":{\"address\":\"10.0.0.7\",\"port\":3003}}]", /* names are case-sensitive */
        "[{\"Node\":{\"Address\":\"10.0.0.1\",\"Port\":3003}}]",
    };
    for (size_t i = 0; i < COUNT(replies); i++)
        if (parse(replies[i]) != 0)
            fail_msg("taken: %s as %s", replies[i], urls[0]);
}

static void test_what_is_no_list_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "",        "{}",           "null",  "\"[]\"", "1",         "[",  "[]x",
        "[{]",     "[{\"a\":1,}]", "<html>", "[\xFF]", "\xEF\xBB\xBF[]",
        "rpc error: No path to datacenter",
        "[{\"Service\":{\"Port\":1,\"Port\":2}}]",
        "[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]",
    };
    for (size_t i = 0; i < COUNT(replies); i++) {
        size_t count = 77;
        struct err err = {0};
        CLEANUP(free_text) char *copy = mem_copy(replies[i], strlen(replies[i]));
        if (consul_parse(copy, strlen(copy), urls, &count, &err) != STATUS_PROTOCOL)
            fail_msg("accepted: %s", replies[i]);
        assert_int_equal(err.status, STATUS_PROTOCOL);
        assert_true(err.text[0] != '\0');
        assert_int_equal(count, 77);
        assert_int_equal(consul_parse(copy, strlen(copy), urls, &count, NULL), STATUS_PROTOCOL); /* nobody asks why */
    }
}

static void test_the_length_counts_not_a_nul(void **state)
{
    (void)state;
    size_t count = 0;
    static const char padded[] = "[]\0\0";
    assert_int_equal(consul_parse("[]garbage", 2, urls, &count, NULL), STATUS_OK);
    assert_int_equal(consul_parse(padded, sizeof padded - 1, urls, &count, NULL), STATUS_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_real_reply_gives_its_addresses),
        cmocka_unit_test(test_every_usable_address_becomes_a_url),
        cmocka_unit_test(test_entries_without_a_usable_address_or_port_are_skipped),
        cmocka_unit_test(test_an_address_too_long_for_a_url_is_skipped_and_not_cut),
        cmocka_unit_test(test_at_most_32_instances_are_taken),
        cmocka_unit_test(test_entries_of_any_other_shape_are_skipped),
        cmocka_unit_test(test_what_is_no_list_is_refused_and_changes_nothing),
        cmocka_unit_test(test_the_length_counts_not_a_nul),
    };
    return cmocka_run_group_tests_name("consul", tests, NULL, NULL);
}
