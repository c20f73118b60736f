/* Log lines, whatever is in their arguments: one write each, JSON that parses, no forged line, nothing for a terminal to
 * obey. Standard output is a socket that keeps the writes apart while the test looks at it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "ids.h"
#include "json.h"
#include "log.h"
#include "mem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { WRITE_MAX = 128 * 1024 };

static int stdout_before = -1, reading = -1;

static void begin(const char *format, const char *level)
{
    int ends[2];
    (void)fflush(stdout);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    stdout_before = dup(STDOUT_FILENO);
    assert_int_equal(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
    assert_int_equal(close(ends[1]), 0);
    reading = ends[0];
    log_init("service-test", format, level);
}

/* The next write, as text; NULL when there was none. */
static char *next_write(void)
{
    CLEANUP(free_text) char *bytes = mem_new(WRITE_MAX + 1);
    ssize_t len = recv(reading, bytes, WRITE_MAX, MSG_DONTWAIT);
    return len > 0 ? TAKE(bytes) : NULL;
}

static int end(void **state)
{
    (void)state;
    if (stdout_before < 0)
        return 0;
    (void)dup2(stdout_before, STDOUT_FILENO);
    (void)close(stdout_before);
    (void)close(reading);
    stdout_before = reading = -1;
    return 0;
}

/* The one write since the last look. */
static char *only_write(void)
{
    char *text = next_write();
    CLEANUP(free_text) char *more = next_write();
    assert_non_null(text);
    assert_null(more);
    return text;
}

static void assert_printed(const char *expected)
{
    CLEANUP(free_text) char *text = only_write();
    assert_string_equal(text, expected);
}

/* ---- pretty ---- */

static void test_pretty_prints_the_message_alone(void **state)
{
    (void)state;
    begin("pretty", "info");
    log_event(LOG_INFO, "worker.received", LOG_FIELDS(LOG_TEXT("soireeId", "1")), "📩 Message reçu: soirée %s", "1");
    assert_printed("📩 Message reçu: soirée 1\n");
    log_event(LOG_ERROR, "x", NULL, "❌ %d %%", 5);
    assert_printed("❌ 5 %\n");
    log_event(LOG_INFO, "x", NULL, "%s", "");
    assert_printed("\n");
}

static void test_a_block_goes_out_in_one_write_with_its_line_ends(void **state)
{
    (void)state;
    begin("pretty", "info");
    log_event(LOG_INFO, "x", NULL, "✅ Playlist %s\n   Titre: %s\n   Tracks: %d", "p", "Disco \"Mix\"", 3);
    assert_printed("✅ Playlist p\n   Titre: Disco \"Mix\"\n   Tracks: 3\n");
    log_event(LOG_INFO, "x", NULL, "\n\na\n");
    assert_printed("\n\na\n\n");
}

static void test_held_lines_go_out_together_when_they_are_released(void **state)
{
    (void)state;
    begin("pretty", "info");
    log_hold();
    log_hold();
    log_event(LOG_INFO, "x", NULL, "first");
    log_event(LOG_INFO, "x", NULL, "second\nof two lines");
    assert_null(next_write());
    log_release();
    assert_printed("first\nsecond\nof two lines\n");
    log_release();
    log_event(LOG_INFO, "x", NULL, "at once");
    assert_printed("at once\n");
}

static void test_a_warning_takes_along_what_is_held(void **state)
{
    (void)state;
    begin("pretty", "info");
    log_hold();
    log_event(LOG_INFO, "x", NULL, "step");
    log_event(LOG_WARN, "x", NULL, "⚠️ warning");
    assert_printed("step\n⚠️ warning\n");
    log_event(LOG_INFO, "x", NULL, "next step");
    assert_null(next_write());
    log_release();
    assert_printed("next step\n");
}

static void test_no_more_is_held_than_16_kib(void **state)
{
    (void)state;
    begin("pretty", "info");
    char text[1024] = "";
    memset(text, 'a', sizeof text - 2);
    log_hold();
    for (int i = 0; i < 16; i++)
        log_event(LOG_INFO, "x", NULL, "%s", text);
    assert_null(next_write());
    log_event(LOG_INFO, "x", NULL, "%s", text);
    CLEANUP(free_text) char *written = only_write();
    assert_int_equal(strlen(written), 17 * (sizeof text - 1));
    log_release();
    assert_null(next_write());
}

static const struct {
    const char *argument, *shown;
} hostile[] = {
    {"a\nb", "a\\x0ab"},
    {"a\r\nb", "a\\x0d\\x0ab"},
    {"a\n❌ forged line", "a\\x0a❌ forged line"},
    {"\033[31mred\033[0m", "\\x1b[31mred\\x1b[0m"},
    {"\033]0;title\a", "\\x1b]0;title\\x07"},
    {"a\tb\v\f\b", "a\\x09b\\x0b\\x0c\\x08"},
    {"\x01\x02\x1F\x7F", "\\x01\\x02\\x1f\\x7f"},
    {"%s %n %1000d", "%s %n %1000d"},
    {"back\\slash \"quote\"", "back\\slash \"quote\""},
    {"é😀 ß", "é😀 ß"},
};

static void test_control_characters_of_an_argument_are_escaped(void **state)
{
    (void)state;
    begin("pretty", "info");
    for (size_t i = 0; i < COUNT(hostile); i++) {
        CLEANUP(free_text) char *expected = mem_format("a: %s\n   b: %s\n", hostile[i].shown, hostile[i].shown);
        log_event(LOG_INFO, "x", NULL, "a: %s\n   b: %s", hostile[i].argument, hostile[i].argument);
        assert_printed(expected);
    }
}

/* U+0080 to U+009F are control characters too: U+009B begins a terminal's commands as ESC [ does. */
static void test_the_control_characters_beyond_ascii_do_not_reach_the_terminal(void **state)
{
    (void)state;
    begin("pretty", "info");
    for (unsigned char c = 0x80; c < 0xA0; c++) {
        char argument[] = {'a', '\xC2', (char)c, '3', '1', 'm', '\0'};
        log_event(LOG_INFO, "x", NULL, "%s", argument);
        CLEANUP(free_text) char *text = only_write();
        if (strstr(text, argument + 1))
            fail_msg("U+%04X goes out as it is", c);
        assert_non_null(strstr(text, "31m"));
    }
}

static void test_bytes_that_are_no_utf8_do_not_reach_the_terminal(void **state)
{
    (void)state;
    static const char *const arguments[] = {("\x9B" "31m"), "caf\xE9", "\xFF\xFE", "\xC3", "\xED\xA0\x80", "\xF0\x9F\x98"};
    begin("pretty", "info");
    for (size_t i = 0; i < COUNT(arguments); i++) {
        log_event(LOG_INFO, "x", NULL, "%s.", arguments[i]);
        CLEANUP(free_text) char *text = only_write();
        if (!utf8_valid(text, strlen(text)))
            fail_msg("argument %zu goes out as it is", i);
    }
}

/* Inside, a line end of the format is marked by that character: an argument that holds it must not become one. */
static void test_an_argument_with_the_mark_of_a_line_end_forges_none(void **state)
{
    (void)state;
    begin("pretty", "info");
    log_event(LOG_INFO, "x", NULL, "first %s\nsecond", "a\x1E" "forged");
    CLEANUP(free_text) char *text = only_write();
    assert_null(strstr(text, "\nforged"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line: no telling which is ours */
    assert_non_null(strstr(text, "second"));
}

/* The cut takes the format's line end away, the mark takes its place. */
static void test_an_argument_that_is_cut_forges_no_line_either(void **state)
{
    (void)state;
    char argument[5000] = "a\x1E" "forged";
    memset(argument + 8, 'x', sizeof argument - 9);
    begin("pretty", "info");
    log_event(LOG_INFO, "x", NULL, "first %s\nsecond", argument);
    CLEANUP(free_text) char *text = only_write();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_a_long_message_is_cut_between_code_points(void **state)
{
    (void)state;
    CLEANUP(free_text) char *long_text = mem_new(20000);
    for (size_t i = 0; i + 4 < 20000; i += 4)
        memcpy(long_text + i, "😀", 4);
    begin("pretty", "info");
    for (int shift = 0; shift < 4; shift++) {
        log_event(LOG_INFO, "x", NULL, "%.*s%s", shift, "abc", long_text);
        CLEANUP(free_text) char *text = only_write();
        assert_in_range(strlen(text), 4000, 4097);
        assert_true(utf8_valid(text, strlen(text)));
        assert_int_equal(text[strlen(text) - 1], '\n');
    }
}

/* ---- levels, colour ---- */

static void test_what_is_below_the_level_is_not_printed(void **state)
{
    (void)state;
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int least = LOG_DEBUG; least <= LOG_ERROR; least++) {
        begin("pretty", levels[least]);
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
            log_event((enum log_level)level, "x", NULL, "%d", level);
            CLEANUP(free_text) char *text = next_write();
            assert_int_equal(text != NULL, level >= least);
            assert_int_equal(log_enabled((enum log_level)level), level >= least);
        }
        (void)end(NULL);
    }
}

static void read_terminal(int terminal, char *out, size_t size)
{
    size_t len = 0;
    while (!memchr(out, '\n', len) && len < size - 1) {
        ssize_t got = read(terminal, out + len, size - 1 - len);
        assert_true(got > 0);
        len += (size_t)got;
    }
    out[len] = '\0';
}

static void test_colour_is_for_terminals_without_no_color(void **state)
{
    (void)state;
    char text[256];
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    assert_int_equal(grantpt(terminal), 0);
    assert_int_equal(unlockpt(terminal), 0);
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    begin("pretty", "info");
    log_event(LOG_ERROR, "x", NULL, "plain");
    assert_printed("plain\n"); /* no terminal */

    assert_int_equal(unsetenv("NO_COLOR"), 0);
    assert_int_equal(dup2(slave, STDOUT_FILENO), STDOUT_FILENO);
    log_init("service-test", "pretty", "info");
    log_event(LOG_ERROR, "x", NULL, "red");
    read_terminal(terminal, text, sizeof text);
    assert_string_equal(text, "\033[31mred\033[0m\r\n");
    log_event(LOG_INFO, "x", NULL, "plain");
    read_terminal(terminal, text, sizeof text);
    assert_string_equal(text, "plain\r\n");
    log_init("service-test", "json", "info");
    log_event(LOG_ERROR, "x", NULL, "plain");
    read_terminal(terminal, text, sizeof text);
    assert_null(strchr(text, '\033'));
    assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
    log_init("service-test", "pretty", "info");
    log_event(LOG_ERROR, "x", NULL, "plain");
    read_terminal(terminal, text, sizeof text);
    assert_string_equal(text, "plain\r\n");
    assert_int_equal(unsetenv("NO_COLOR"), 0);
    (void)close(slave);
    (void)close(terminal);
}

/* ---- json ---- */

/* One line, one object; json_free it. */
static cJSON *parse_line(const char *text)
{
    cJSON *document = NULL;
    struct err err = {0};
    size_t len = strlen(text);
    assert_true(len > 0);
    if (text[len - 1] != '\n' || memchr(text, '\n', len - 1))
        fail_msg("not one line: %.200s", text);
    if (json_parse(text, len, &document, &err) != STATUS_OK)
        fail_msg("%s: %.200s", err.text, text);
    assert_true(cJSON_IsObject(document));
    return document;
}

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

static void test_json_prints_one_object_a_line(void **state)
{
    (void)state;
    begin("json", "debug");
    int64_t before = clock_wall_ms();
    log_event(LOG_WARN, "worker.received",
              LOG_FIELDS(LOG_TEXT("soireeId", "s-1"), LOG_NUMBER("attempt", 2), LOG_TEXT("requestId", ""),
                         LOG_NUMBER("big", INT64_MIN)),
              "📩 reçu:\n%s", "é");
    CLEANUP(free_text) char *text = only_write();
    CLEANUP(json_free) cJSON *line = parse_line(text);
    char from[TIMESTAMP_SIZE], to[TIMESTAMP_SIZE];
    timestamp_format(before, from);
    timestamp_format(clock_wall_ms(), to);
    assert_true(strcmp(text_of(line, "time"), from) >= 0 && strcmp(text_of(line, "time"), to) <= 0);
    assert_string_equal(text_of(line, "level"), "warn");
    assert_string_equal(text_of(line, "service"), "service-test");
    assert_string_equal(text_of(line, "event"), "worker.received");
    assert_string_equal(text_of(line, "message"), "📩 reçu:\né");
    assert_string_equal(text_of(line, "soireeId"), "s-1");
    assert_true(cJSON_GetObjectItemCaseSensitive(line, "attempt")->valuedouble == 2);
    assert_null(cJSON_GetObjectItemCaseSensitive(line, "requestId")); /* left out when empty */
    assert_non_null(strstr(text, "\"big\":-9223372036854775808}"));
    assert_int_equal(cJSON_GetArraySize(line), 8);
}

static void test_json_without_fields_is_complete_too(void **state)
{
    (void)state;
    begin("json", "info");
    log_event(LOG_INFO, "x", NULL, "y");
    CLEANUP(free_text) char *text = only_write();
    CLEANUP(json_free) cJSON *line = parse_line(text);
    assert_int_equal(cJSON_GetArraySize(line), 5);
    assert_string_equal(text_of(line, "level"), "info");
}

static void test_json_is_valid_whatever_the_arguments(void **state)
{
    (void)state;
    static const char *const arguments[] = {
        "\"", "\\", "\"}\n{\"level\":\"error\"", "\n", "\r\n", "\x01\x1E\x1F\x7F", "\xFF\xFE", "caf\xE9", "\xC3",
        "\xED\xA0\x80", "\xF0\x9F\x98", "\xC0\x80", "\xE2\x80\xA8", "😀", "\xEF\xBB\xBF", "\\u0000", "\033[31m", "%s%n",
    };
    begin("json", "info");
    for (size_t i = 0; i < COUNT(arguments); i++) {
        log_event(LOG_INFO, "x", LOG_FIELDS(LOG_TEXT("field", arguments[i]), LOG_TEXT("last", "l")), "m %s\nn",
                  arguments[i]);
        CLEANUP(free_text) char *text = only_write();
        CLEANUP(json_free) cJSON *line = parse_line(text);
        assert_int_equal(cJSON_GetArraySize(line), 7);
        assert_string_equal(text_of(line, "last"), "l");
        if (utf8_valid(arguments[i], strlen(arguments[i])))
            assert_string_equal(text_of(line, "field"), arguments[i]); /* not escaped twice */
    }
}

static void test_json_is_valid_whatever_the_length_of_the_message(void **state)
{
    (void)state;
    static const char *const fillings[] = {"x", "\"", "\x01", "\xFF", "é", "😀", "\n"};
    begin("json", "info");
    for (size_t i = 0; i < COUNT(fillings); i++) {
        CLEANUP(buf_done) struct buf filling;
        buf_init(&filling, 1 << 20);
        while (filling.len < 10000)
            buf_text(&filling, fillings[i]);
        log_event(LOG_INFO, "x", LOG_FIELDS(LOG_TEXT("last", "l")), "%s", buf_get(&filling));
        CLEANUP(free_text) char *text = only_write();
        CLEANUP(json_free) cJSON *line = parse_line(text);
        assert_string_equal(text_of(line, "last"), "l");
    }
}

static void test_json_is_valid_whatever_the_length_of_a_field(void **state)
{
    (void)state;
    static const size_t sizes[] = {100, 4096, 30000, 32 * 1024, 100000};
    begin("json", "info");
    for (size_t i = 0; i < COUNT(sizes); i++) {
        CLEANUP(free_text) char *filling = mem_new(sizes[i] + 1);
        memset(filling, 'x', sizes[i]);
        log_event(LOG_INFO, "x", LOG_FIELDS(LOG_TEXT("field", filling), LOG_TEXT("last", "l")), "message");
        CLEANUP(free_text) char *text = only_write();
        CLEANUP(json_free) cJSON *line = parse_line(text);
        assert_string_equal(text_of(line, "message"), "message");
    }
}

/* ---- threads ---- */

enum { THREADS = 4, LINES = 50 };

static void *log_lines(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, "x", LOG_FIELDS(LOG_NUMBER("i", i)), "%s\n%d", (const char *)arg, i);
    return NULL;
}

static void test_lines_of_several_threads_do_not_mix(void **state)
{
    (void)state;
    static char names[THREADS][600];
    pthread_t threads[THREADS];
    int lines = 0;
    begin("json", "info");
    for (int i = 0; i < THREADS; i++) {
        memset(names[i], 'a' + i, sizeof names[i] - 1);
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, names[i]), 0);
    }
    while (lines < THREADS * LINES) {
        CLEANUP(free_text) char *bytes = mem_new(WRITE_MAX + 1);
        assert_true(recv(reading, bytes, WRITE_MAX, 0) > 0);
        CLEANUP(json_free) cJSON *line = parse_line(bytes);
        assert_non_null(line);
        lines++;
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

#define TEST(test) cmocka_unit_test_teardown(test, end)

/* Something that fails thirty times a second for an hour: what is written of it. */
static void test_a_line_that_repeats_for_an_hour_is_written_a_handful_of_times(void **state)
{
    (void)state;
    struct log_repeat repeat = {0};
    begin("json", "info");
    int written = 0, told = 0;
    int64_t left_out = 0, seen = 0;
    for (int64_t ms = 1; ms < 3600 * 1000; ms += 33, seen++) {
        written += log_repeated(&repeat, LOG_ERROR, ms) == LOG_ERROR;
        CLEANUP(free_text) char *line = next_write();
        if (!line)
            continue;
        told++;
        const char *count = strstr(line, "\"count\":");
        assert_non_null(strstr(line, "\"event\":\"log.left_out\""));
        assert_non_null(count);
        left_out += strtoll(count + 8, NULL, 10);
    }
    assert_int_equal(written, LOG_REPEAT_BURST + 3600 * 1000 / LOG_REPEAT_MS - 1);
    assert_int_equal(told, written - LOG_REPEAT_BURST);
    assert_true(left_out > 90000 && left_out <= seen - written);
}

static void test_after_a_rest_the_first_lines_are_written_again(void **state)
{
    (void)state;
    struct log_repeat repeat = {0};
    begin("json", "info");
    for (int64_t start = 1; start < 3; start++)
        for (int i = 0; i < 2 * LOG_REPEAT_BURST; i++)
            assert_int_equal(log_repeated(&repeat, LOG_WARN, start * LOG_REPEAT_BURST * LOG_REPEAT_MS),
                             i < LOG_REPEAT_BURST ? LOG_WARN : LOG_DEBUG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pretty_prints_the_message_alone),
        TEST(test_a_block_goes_out_in_one_write_with_its_line_ends),
        TEST(test_held_lines_go_out_together_when_they_are_released),
        TEST(test_a_warning_takes_along_what_is_held),
        TEST(test_no_more_is_held_than_16_kib),
        TEST(test_control_characters_of_an_argument_are_escaped),
        TEST(test_the_control_characters_beyond_ascii_do_not_reach_the_terminal),
        TEST(test_bytes_that_are_no_utf8_do_not_reach_the_terminal),
        TEST(test_an_argument_with_the_mark_of_a_line_end_forges_none),
        TEST(test_an_argument_that_is_cut_forges_no_line_either),
        TEST(test_a_long_message_is_cut_between_code_points),
        TEST(test_what_is_below_the_level_is_not_printed),
        TEST(test_colour_is_for_terminals_without_no_color),
        TEST(test_json_prints_one_object_a_line),
        TEST(test_json_without_fields_is_complete_too),
        TEST(test_json_is_valid_whatever_the_arguments),
        TEST(test_json_is_valid_whatever_the_length_of_the_message),
        TEST(test_json_is_valid_whatever_the_length_of_a_field),
        TEST(test_lines_of_several_threads_do_not_mix),
        TEST(test_a_line_that_repeats_for_an_hour_is_written_a_handful_of_times),
        TEST(test_after_a_rest_the_first_lines_are_written_again),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
