/* Who gets gzip, and that what comes out is the content again, whatever the pieces it came in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "cleanup.h"
#include "gzip.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void assert_accepted(bool expected, const char *const *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CLEANUP(free_text) char *header = mem_text(headers[i]); /* reading behind the end is caught */
        if (gzip_accepted(header) != expected)
            fail_msg("%s", header ? header : "(none)");
    }
}

static void test_who_asks_for_gzip_gets_it(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "gzip", "GZIP", "x-gzip", "gzip, deflate", "deflate, gzip", "br,gzip", "br;q=1.0, gzip;q=0.5",
        "gzip;q=1", "gzip;q=1.", "gzip;q=1.000", "gzip;q=0.001", "gzip ; q=0.5", "gzip;\tQ=0.5 ,br", "*",
        "*;q=0.1", "deflate;q=0, *;q=0.5", "gzip, identity", "gzip;q=0.5, identity;q=0.5",
        "gzip;q=0.5, identity;q=0.4", "gzip, *;q=0", "identity;q=0, gzip;q=0.1", " ,, gzip,",
        "unknown;x=1, gzip", "identity;q=2, gzip;q=0.1", "gzip;q=0, x-gzip", "*;q=0.3, gzip;q=0.4"};
    assert_accepted(true, headers, COUNT(headers));
}

static void test_who_does_not_gets_the_plain_form(void **state)
{
    (void)state;
    static const char *const headers[] = {
        NULL, "", " ", ",", "identity", "deflate", "br", "gzi", "gzipp", "gzip-x", "gzip;q=0", "gzip;q=0.0",
        "gzip;q=0.000", "gzip; q=0", "GZIP;Q=0", "*;q=0", "gzip;q=0, *", "*, gzip;q=0", "identity, *;q=0",
        "gzip;q=0.5, identity", "gzip;q=0.5, *", "gzip;q=0.4, identity;q=0.5", "gzip;q=", "gzip;q=2",
        "gzip;q=1.001", "gzip;q=0.5x", "gzip;q=-1", "gzip;level=9", "gzip;", "gzip;q=0.1234", "gzip gzip",
        "\"gzip\"", ";q=1"};
    assert_accepted(false, headers, COUNT(headers));
}

/* Compresses text[0..len) in pieces and checks that zlib gives it back. */
static void assert_comes_back(const char *text, size_t len, size_t piece)
{
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 16 << 20);
    struct gzip *gzip = gzip_new(&out);
    for (size_t at = 0; at < len; at += piece)
        gzip_add(gzip, text + at, len - at < piece ? len - at : piece);
    gzip_end(gzip);
    gzip_free(gzip);

    CLEANUP(free_text) char *back = mem_new(len + 1);
    z_stream stream = {.next_in = (unsigned char *)out.data, .avail_in = (unsigned)out.len};
    assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK); /* gzip alone, its checksum and length included */
    stream.next_out = (unsigned char *)back;
    stream.avail_out = (unsigned)len + 1;
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(stream.total_out, len);
    assert_int_equal(stream.avail_in, 0);
    assert_memory_equal(back, text, len);
    inflateEnd(&stream);
}

static void test_what_was_compressed_comes_back(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 1024, 16 * 1024, 65536, 1000000};
    CLEANUP(free_text) char *alike = mem_new(1000000), *unlike = mem_new(1000000);
    uint32_t random = 1;
    for (size_t i = 0; i < 1000000; i++) {
        random = random * 1664525 + 1013904223;
        alike[i] = "{\"lieu\":\"Paris\"},"[i % 17];
        unlike[i] = (char)(random >> 24);
    }
    for (size_t i = 0; i < COUNT(lengths); i++) {
        assert_comes_back(alike, lengths[i], 65536);
        assert_comes_back(unlike, lengths[i], 65536);
        assert_comes_back(unlike, lengths[i], 777);
    }
}

static void test_lists_shrink(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out, in;
    buf_init(&out, 1 << 20);
    buf_init(&in, 1 << 20);
    for (int i = 0; i < 1000; i++)
        buf_format(&in, "{\"id\":\"%08x\",\"lieu\":\"Paris\",\"nombreInvites\":%d},", (unsigned)i * 2654435u, i);
    struct gzip *gzip = gzip_new(&out);
    gzip_add(gzip, in.data, in.len);
    gzip_end(gzip);
    gzip_free(gzip);
    assert_true(buf_ok(&out) && out.len < in.len / 3);
}

static void test_a_compressor_may_be_given_up(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 1 << 20);
    struct gzip *gzip = gzip_new(&out);
    gzip_add(gzip, "x", 1);
    gzip_free(gzip);
    gzip_free(NULL);
}

static void test_an_output_that_is_too_small_shows(void **state)
{
    (void)state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 10);
    struct gzip *gzip = gzip_new(&out);
    gzip_add(gzip, "a text", 6);
    gzip_end(gzip);
    gzip_free(gzip);
    assert_false(buf_ok(&out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_asks_for_gzip_gets_it),
        cmocka_unit_test(test_who_does_not_gets_the_plain_form),
        cmocka_unit_test(test_what_was_compressed_comes_back),
        cmocka_unit_test(test_lists_shrink),
        cmocka_unit_test(test_a_compressor_may_be_given_up),
        cmocka_unit_test(test_an_output_that_is_too_small_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
