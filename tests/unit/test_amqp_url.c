#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "amqp.h"
#include "amqp_url.h"
#include "cleanup.h"
#include "mem.h"

static void test_a_url_is_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool tls;
        const char *host;
        int port;
        const char *user, *password, *vhost, *shown;
    } cases[] = {
        {"amqp://admin:admin123@localhost:5672/", false, "localhost", 5672, "admin", "admin123", "/",
         "amqp://admin:***@localhost:5672"},
        {"amqp://h", false, "h", 5672, "guest", "guest", "/", "amqp://guest:***@h:5672"},
        {"amqps://h", true, "h", 5671, "guest", "guest", "/", "amqps://guest:***@h:5671"},
        {"AMQPS://u:p@H-1_x.example.org:1/", true, "H-1_x.example.org", 1, "u", "p", "/",
         "amqps://u:***@H-1_x.example.org:1"},
        {"amqp://u:p@h/%2F", false, "h", 5672, "u", "p", "/", "amqp://u:***@h:5672"},
        {"amqp://u:p@h/%2f", false, "h", 5672, "u", "p", "/", "amqp://u:***@h:5672"},
        {"amqp://u:p@h/fêtes", false, "h", 5672, "u", "p", "fêtes", "amqp://u:***@h:5672/fêtes"},
        {"amqp://u:p@h/a%2Fb%20c", false, "h", 5672, "u", "p", "a/b c", "amqp://u:***@h:5672/a/b c"},
        {"amqp://u%3A:p%40%2F%2C%25%3F%23@h:65535/v", false, "h", 65535, "u:", "p@/,%?#", "v",
         "amqp://u::***@h:65535/v"},
        {"amqp://u:p:q@h", false, "h", 5672, "u", "p:q", "/", "amqp://u:***@h:5672"},
        {"amqp://u:p@q@h", false, "h", 5672, "u", "p@q", "/", "amqp://u:***@h:5672"},
        {"amqp://u@h", false, "h", 5672, "u", "", "/", "amqp://u:***@h:5672"},
        {"amqp://u:@h", false, "h", 5672, "u", "", "/", "amqp://u:***@h:5672"},
        {"amqp://[::1]", false, "::1", 5672, "guest", "guest", "/", "amqp://guest:***@[::1]:5672"},
        {"amqp://u:p@[fe80::1]:5673/v", false, "fe80::1", 5673, "u", "p", "v",
         "amqp://u:***@[fe80::1]:5673/v"},
        {" \tamqp://u:p@127.0.0.1:5672/ \n", false, "127.0.0.1", 5672, "u", "p", "/",
         "amqp://u:***@127.0.0.1:5672"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CLEANUP(amqp_urls_done) struct amqp_urls urls = {0};
        struct err err = {0};
        if (amqp_urls_parse(&urls, cases[i].text, &err) != STATUS_OK)
            fail_msg("%s: %s", cases[i].text, err.text);
        assert_int_equal(urls.count, 1);
        assert_int_equal(urls.items[0].tls, cases[i].tls);
        assert_string_equal(urls.items[0].host, cases[i].host);
        assert_int_equal(urls.items[0].port, cases[i].port);
        assert_string_equal(urls.items[0].user, cases[i].user);
        assert_string_equal(urls.items[0].password, cases[i].password);
        assert_string_equal(urls.items[0].vhost, cases[i].vhost);
        assert_string_equal(urls.items[0].shown, cases[i].shown);
    }
}

static void test_a_list_keeps_its_order(void **state)
{
    (void)state;
    CLEANUP(amqp_urls_done) struct amqp_urls urls = {0};
    assert_int_equal(amqp_urls_parse(&urls, "amqp://a, amqps://b:7/v ,amqp://[::2]:9", NULL), STATUS_OK);
    assert_int_equal(urls.count, 3);
    assert_string_equal(urls.items[0].host, "a");
    assert_string_equal(urls.items[1].host, "b");
    assert_string_equal(urls.items[1].vhost, "v");
    assert_string_equal(urls.items[2].host, "::2");
}

static void test_what_is_wrong_is_said_without_the_text(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "RabbitMQ URL 1: it is empty"},
        {"  ", "RabbitMQ URL 1: it is empty"},
        {"amqp://u:S3cret@h,", "RabbitMQ URL 2: it is empty"},
        {"amqp://u:S3cret@h,,amqp://h", "RabbitMQ URL 2: it is empty"},
        {"http://u:S3cret@h", "RabbitMQ URL 1: it does not begin with amqp:// or amqps://"},
        {"amqp:/u:S3cret@h", "RabbitMQ URL 1: it does not begin with amqp:// or amqps://"},
        {"amqp", "RabbitMQ URL 1: it does not begin with amqp:// or amqps://"},
        {"u:S3cret@h", "RabbitMQ URL 1: it does not begin with amqp:// or amqps://"},
        {"amqp://", "RabbitMQ URL 1: the host is missing"},
        {"amqp://u:S3cret@", "RabbitMQ URL 1: the host is missing"},
        {"amqp://u:S3cret@/v", "RabbitMQ URL 1: the host is missing"},
        {"amqp://u:S3cret@:5672", "RabbitMQ URL 1: the host is missing"},
        {"amqp://[]:5672", "RabbitMQ URL 1: the host is missing"},
        {"amqp://:S3cret@h", "RabbitMQ URL 1: the user name is empty"},
        {"amqp://@h", "RabbitMQ URL 1: the user name is empty"},
        {"amqp://u:S3cret%@h", "RabbitMQ URL 1: the user name or the password has a wrong %XX"},
        {"amqp://u:S3cret%4@h", "RabbitMQ URL 1: the user name or the password has a wrong %XX"},
        {"amqp://u:S3cret%4G@h", "RabbitMQ URL 1: the user name or the password has a wrong %XX"},
        {"amqp://u:S3cret%00@h", "RabbitMQ URL 1: the user name or the password has a wrong %XX"},
        {"amqp://u%0A:S3cret@h", "RabbitMQ URL 1: the user name or the password has a wrong %XX"},
        {"amqp://u:S3cret@h:", "RabbitMQ URL 1: the port is not in 1..65535"},
        {"amqp://u:S3cret@h:0", "RabbitMQ URL 1: the port is not in 1..65535"},
        {"amqp://u:S3cret@h:65536", "RabbitMQ URL 1: the port is not in 1..65535"},
        {"amqp://u:S3cret@h:99999999999999999999999999", "RabbitMQ URL 1: the port is not in 1..65535"},
        {"amqp://u:S3cret@h:56x", "RabbitMQ URL 1: the port is not a number"},
        {"amqp://u:S3cret@h:-1", "RabbitMQ URL 1: the port is not a number"},
        {"amqp://u:S3cret/h@h", "RabbitMQ URL 1: the port is not a number"},
        {"amqp://u:S3cret@::1", "RabbitMQ URL 1: an IPv6 address needs brackets"},
        {"amqp://u:S3cret@[::1", "RabbitMQ URL 1: a ']' is missing"},
        {"amqp://u:S3cret@[::1]5672", "RabbitMQ URL 1: only a port may follow the address"},
        {"amqp://u:S3cret@[h]", "RabbitMQ URL 1: the host has a character that is not allowed"},
        {"amqp://u:S3cret@h%61", "RabbitMQ URL 1: the host has a character that is not allowed"},
        {"amqp://u:S3cret@h h", "RabbitMQ URL 1: the host has a character that is not allowed"},
        {"amqp://u:S3cret@h/a/b", "RabbitMQ URL 1: a '/' or '@' inside a part is written %2F or %40"},
        {"amqp://u:S3cret@h//", "RabbitMQ URL 1: a '/' or '@' inside a part is written %2F or %40"},
        {"amqp://u:1234/S3cret@h", "RabbitMQ URL 1: a '/' or '@' inside a part is written %2F or %40"},
        {"amqp://u:S3cret@h/%zz", "RabbitMQ URL 1: the virtual host has a wrong %XX"},
        {"amqp://u:S3cret@h/v%00", "RabbitMQ URL 1: the virtual host has a wrong %XX"},
        {"amqp://h,amqp://u:S3cret@h/?heartbeat=5",
         "RabbitMQ URL 2: parameters are not supported; a '?' or '#' inside a part is written %3F or %23"},
        {"amqp://u:S3cret#@h",
         "RabbitMQ URL 1: parameters are not supported; a '?' or '#' inside a part is written %3F or %23"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct amqp_urls urls = {0};
        struct err err = {0};
        assert_int_equal(amqp_urls_parse(&urls, cases[i].text, &err), STATUS_INVALID);
        assert_string_equal(err.text, cases[i].error);
        assert_int_equal(err.status, STATUS_INVALID);
        assert_null(strstr(err.text, "S3cret"));
        assert_null(urls.items);
        assert_int_equal(amqp_check_urls(cases[i].text, &err), STATUS_INVALID);
    }
}

static void test_lengths_have_limits(void **state)
{
    (void)state;
    char name[300], text[4096];
    struct err err;
    memset(name, 'v', 256);
    name[256] = '\0';
    (void)snprintf(text, sizeof text, "amqp://h/%s", name);
    assert_int_equal(amqp_check_urls(text, &err), STATUS_INVALID);
    assert_string_equal(err.text, "RabbitMQ URL 1: the virtual host's name is too long");
    text[strlen(text) - 1] = '\0';
    assert_int_equal(amqp_check_urls(text, &err), STATUS_OK);

    (void)snprintf(text, sizeof text, "amqp://%s", name);
    assert_int_equal(amqp_check_urls(text, &err), STATUS_INVALID);

    memset(text, 'x', 3000);
    memcpy(text, "amqp://u:", 9);
    text[3000] = '\0';
    assert_int_equal(amqp_check_urls(text, &err), STATUS_INVALID);
    assert_string_equal(err.text, "RabbitMQ URL 1: it is too long");
}

static void test_a_list_has_at_most_sixteen_urls(void **state)
{
    (void)state;
    char text[512] = "amqp://h";
    for (int i = 1; i < AMQP_URLS_MAX; i++)
        strcat(text, ",amqp://h");
    struct err err;
    assert_int_equal(amqp_check_urls(text, &err), STATUS_OK);
    strcat(text, ",amqp://h");
    assert_int_equal(amqp_check_urls(text, &err), STATUS_INVALID);
    assert_string_equal(err.text, "more than 16 RabbitMQ URLs");
}

static void test_a_configuration_out_of_bounds_is_refused(void **state)
{
    (void)state;
    static const struct amqp_config wrong[] = {
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 0, .channels = 1},
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 3601, .channels = 1},
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 1, .channels = 0},
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 1, .channels = AMQP_CHANNELS_MAX + 1},
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 1, .channels = 1, .cert_file = "c.pem"},
        {.urls = "amqp://u:S3cret@h", .heartbeat_s = 1, .channels = 1, .key_file = "k.pem"},
        {.urls = "amqp://u:S3cret@h:x", .heartbeat_s = 1, .channels = 1},
    };
    static const struct amqp_handlers handlers;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct amqp *amqp = NULL;
        struct err err = {0};
        assert_int_equal(amqp_new(&amqp, &wrong[i], &handlers, NULL, &err), STATUS_INVALID);
        assert_null(amqp);
        assert_true(err.text[0]);
        assert_null(strstr(err.text, "S3cret"));
    }
}

static void test_a_new_object_is_not_up(void **state)
{
    (void)state;
    static const struct amqp_handlers handlers;
    struct amqp_config config = {
        .urls = "amqp://u:S3cret@h", .heartbeat_s = 3600, .channels = AMQP_CHANNELS_MAX};
    struct amqp *amqp = NULL;
    assert_int_equal(amqp_new(&amqp, &config, &handlers, NULL, NULL), STATUS_OK);
    assert_false(amqp_is_up(amqp));
    assert_false(amqp_is_blocked(amqp));
    assert_int_equal(amqp_epoch(amqp), 0);
    assert_string_equal(amqp_url_shown(amqp), "amqp://u:***@h:5672");
    assert_false(amqp_channel_begin(amqp, 1));
    assert_false(amqp_publish(amqp, 1, &(struct amqp_publication){.queue = "q"}, NULL));
    assert_false(amqp_ack(amqp, 1, 1));
    assert_false(amqp_queue_look(amqp, "q", &(struct amqp_queue){0}));
    amqp_stop(amqp);
    amqp_run(amqp); /* returns at once */
    amqp_free(amqp);
    amqp_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_url_is_taken_apart),
        cmocka_unit_test(test_a_list_keeps_its_order),
        cmocka_unit_test(test_what_is_wrong_is_said_without_the_text),
        cmocka_unit_test(test_lengths_have_limits),
        cmocka_unit_test(test_a_list_has_at_most_sixteen_urls),
        cmocka_unit_test(test_a_configuration_out_of_bounds_is_refused),
        cmocka_unit_test(test_a_new_object_is_not_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
