/* Settings: the environment, a file of lines, secrets in files of their own, and all problems at once. */
#include "temp_folder.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "config.h"
#include "http_url.h"

static const struct setting settings[] = {
    {.name = "T_TEXT", .fallback = "the default", .live = true, .help = "a text"},
    {.name = "T_NONE", .fallback = "", .help = "a text without a default"},
    {.name = "T_EMPTY", .fallback = "*", .empty_counts = true, .help = "empty is a value"},
    {.name = "T_PORT", .type = SETTING_NUMBER, .fallback = "3003", .min = 1, .max = 65535, .help = "a port"},
    {.name = "T_THREADS", .type = SETTING_NUMBER, .fallback = "", .min = 1, .max = 64, .help = "a number or none"},
    {.name = "T_FORMAT", .type = SETTING_CHOICE, .fallback = "pretty", .choices = "pretty json", .live = true, .help = "a word"},
    {.name = "T_KIND", .type = SETTING_CHOICE, .fallback = "", .choices = "quorum classic", .help = "a word or none"},
    {.name = "T_SECRET", .fallback = "admin123", .secret = true, .help = "a password"},
    {.name = "T_TOKEN", .fallback = "", .secret = true, .live = true, .help = "another"},
    {.name = "T_URL", .fallback = "", .live = true, .check = http_url_check, .help = "a URL"},
};

struct fixture {
    char *folder;
    struct config *config;
    struct buf problems;
};

static void forget_environment(void)
{
    for (size_t i = 0; i < COUNT(settings); i++) {
        CLEANUP(free_text) char *file = mem_format("%s_FILE", settings[i].name);
        (void)unsetenv(settings[i].name);
        (void)unsetenv(file);
    }
    (void)unsetenv("CONFIG_FILE");
}

static int new_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    fixture->folder = temp_folder();
    buf_init(&fixture->problems, 64 * 1024);
    forget_environment();
    *state = fixture;
    return 0;
}

static int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    forget_environment();
    config_free(fixture->config);
    buf_done(&fixture->problems);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

static void set(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
}

/* Writes a file into the folder and sets the variable to its path. */
static void set_to_file_n(struct fixture *fixture, const char *name, const char *bytes, size_t len)
{
    CLEANUP(free_text) char *path = mem_format("%s/%s", fixture->folder, name);
    write_file(path, bytes, len);
    set(name, path);
}

static void set_to_file(struct fixture *fixture, const char *name, const char *text)
{
    set_to_file_n(fixture, name, text, strlen(text));
}

static void load(struct fixture *fixture)
{
    config_free(fixture->config);
    buf_clear(&fixture->problems);
    fixture->config = config_load(settings, COUNT(settings), &fixture->problems);
    assert_non_null(fixture->config);
}

static void load_well(struct fixture *fixture)
{
    load(fixture);
    assert_string_equal(buf_get(&fixture->problems), "");
}

/* What the problems say, the fixture's folder written as "." */
static void assert_problems(struct fixture *fixture, const char *expected)
{
    CLEANUP(buf_done) struct buf shown;
    size_t len = strlen(fixture->folder);
    buf_init(&shown, 64 * 1024);
    load(fixture);
    for (const char *c = buf_get(&fixture->problems); *c; c++) {
        bool folder = strncmp(c, fixture->folder, len) == 0;
        buf_char(&shown, folder ? '.' : *c);
        c += folder ? len - 1 : 0;
    }
    assert_string_equal(buf_get(&shown), expected);
}

static void assert_text(const struct fixture *fixture, const char *name, const char *value)
{
    assert_string_equal(config_text(fixture->config, name), value);
    assert_true(config_is(fixture->config, name, value));
    assert_false(config_is(fixture->config, name, "another"));
}

/* ---- where values come from ---- */

static void test_without_anything_every_setting_has_its_default(void **state)
{
    struct fixture *fixture = *state;
    load_well(fixture);
    for (size_t i = 0; i < COUNT(settings); i++)
        assert_text(fixture, settings[i].name, settings[i].fallback);
    assert_int_equal(config_number(fixture->config, "T_PORT"), 3003);
    assert_int_equal(config_number(fixture->config, "T_THREADS"), 0); /* none */
}

static void test_the_environment_wins_over_the_file_and_the_file_over_the_default(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "CONFIG_FILE", "T_TEXT=of the file\nT_NONE=of the file\nT_PORT=8080\n");
    set("T_NONE", "of the environment");
    load_well(fixture);
    assert_text(fixture, "T_TEXT", "of the file");
    assert_text(fixture, "T_NONE", "of the environment");
    assert_int_equal(config_number(fixture->config, "T_PORT"), 8080);
    assert_text(fixture, "T_FORMAT", "pretty");
}

static void test_an_empty_value_means_the_default_except_where_it_counts(void **state)
{
    struct fixture *fixture = *state;
    set("T_TEXT", "");
    set("T_PORT", "");
    set("T_FORMAT", "");
    set("T_EMPTY", "");
    load_well(fixture);
    assert_text(fixture, "T_TEXT", "the default");
    assert_text(fixture, "T_PORT", "3003");
    assert_text(fixture, "T_FORMAT", "pretty");
    assert_text(fixture, "T_EMPTY", "");

    forget_environment();
    set_to_file(fixture, "CONFIG_FILE", "T_TEXT=\nT_PORT=\"\"\nT_EMPTY=\n");
    load_well(fixture);
    assert_text(fixture, "T_TEXT", "the default");
    assert_text(fixture, "T_PORT", "3003");
    assert_text(fixture, "T_EMPTY", "");

    set_to_file(fixture, "CONFIG_FILE", "T_TEXT=of the file\nT_EMPTY=of the file\n");
    set("T_TEXT", "");
    set("T_EMPTY", "");
    load_well(fixture);
    assert_text(fixture, "T_TEXT", "of the file"); /* an empty variable is none */
    assert_text(fixture, "T_EMPTY", "");
}

static void test_the_environment_is_read_once(void **state)
{
    struct fixture *fixture = *state;
    set("T_TEXT", "at the start");
    load_well(fixture);
    set("T_TEXT", "later");
    assert_text(fixture, "T_TEXT", "at the start");
}

/* ---- CONFIG_FILE ---- */

static void test_the_lines_of_a_file_are_read_as_people_write_them(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *lines, *value;
    } cases[] = {
        {"T_TEXT=value", "value"},
        {"T_TEXT=value\n", "value"},
        {"T_TEXT=value\r\n", "value"},
        {"\n\n  \t \n# T_TEXT=comment\n  # T_TEXT=comment\n T_TEXT = value \n", "value"},
        {"\tT_TEXT\t=\tvalue with spaces\t", "value with spaces"},
        {"T_TEXT=a=b==", "a=b=="},
        {"T_TEXT=first\nT_TEXT=last\n", "last"},
        {"T_TEXT='single'", "single"},
        {"T_TEXT=\"double\"", "double"},
        {"T_TEXT=\" kept \"", " kept "},
        {"T_TEXT=value # no comment", "value # no comment"},
        {"T_TEXT=#value", "#value"},
        {"T_TEXT=é 😀", "é 😀"},
        {"T_TEXTS=longer\nT_TEX=shorter\nt_text=lower\nT_TEXT=value\nX_T_TEXT=other\n", "value"},
        {"SOMETHING_ELSE=1\n", "the default"},
        {"", "the default"},
        {"T_TEXT=value\\", "value"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        set_to_file(fixture, "CONFIG_FILE", cases[i].lines);
        load_well(fixture);
        assert_text(fixture, "T_TEXT", cases[i].value);
    }
}

/* As systemd reads them, but for a backslash before CR LF, and at the end of a comment (before 254). */
static void test_quotes_backslashes_and_comments_are_those_of_systemd(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *lines, *value;
    } cases[] = {
        {"; T_TEXT=comment\n  ;T_TEXT=comment\nT_TEXT=value", "value"},
        {"# a comment \\\nT_TEXT=value", "value"},
        {"T_TEXT=\"a\\\"b\\\\c\\$d\\`e\"", "a\"b\\c$d`e"},
        {"T_TEXT=\"a\\b\\n\\'\"", "a\\b\\n\\'"},
        {"T_TEXT='a\\b\\\\\"$'", "a\\b\\\\\"$"},
        {"T_TEXT=a\\b\\\\c\\\"\\ ", "ab\\c\" "},
        {"T_TEXT=it's\"fine\"", "it's\"fine\""},
        {"T_TEXT='it''s' \"f\"ine ", "itsfine"},
        {"T_TEXT='a'b'c'", "ab'c'"},
        {"T_TEXT=one \\\ntwo", "one two"},
        {"T_TEXT=one\\\r\ntwo\r\n", "onetwo"},
        {"T_TEXT=\"one\\\ntwo\"", "onetwo"},
        {"T_TEXT=\\\n value", " value"},
        {"T_TEXT=\"one\ntwo\"", "one\ntwo"},
        {"T_TEXT='one\nT_TEXT=two'\nT_NONE=x", "one\nT_TEXT=two"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        set_to_file(fixture, "CONFIG_FILE", cases[i].lines);
        load_well(fixture);
        assert_text(fixture, "T_TEXT", cases[i].value);
    }
}

static void test_a_value_over_several_lines_is_named_in_one(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "CONFIG_FILE", "T_PORT='8\n0'\nT_FORMAT='x\ny'\n");
    assert_problems(fixture, "T_PORT: '8 0' is not a number from 1 to 65535\n"
                             "T_FORMAT: 'x y' is not one of: pretty json\n");
}

static void test_a_line_that_is_none_is_named_with_its_place(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "CONFIG_FILE", "T_TEXT='fi\nne'\nhelp me\n# fine\n\nT_PORT: 80\nT_NONE=fine\n");
    assert_problems(fixture, "CONFIG_FILE: ./CONFIG_FILE: line 3 is not KEY=VALUE\n"
                             "CONFIG_FILE: ./CONFIG_FILE: line 6 is not KEY=VALUE\n");
    assert_text(fixture, "T_NONE", "fine");
}

/* These would be passed over otherwise, and the default would count. */
static void test_a_name_that_can_be_none_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static const char *const lines[] = {"export T_TEXT=x",      "\xEF\xBB\xBFT_TEXT=x", "=x", "1T_TEXT=x",
                                        "T-TEXT=x", "T_TEXT =x\nT\xC3\x89XT=x", "\"T_TEXT\"=x"};
    for (size_t i = 0; i < COUNT(lines); i++) {
        set_to_file(fixture, "CONFIG_FILE", lines[i]);
        assert_problems(fixture, strchr(lines[i], '\n') ? "CONFIG_FILE: ./CONFIG_FILE: line 2 is not KEY=VALUE\n"
                                                        : "CONFIG_FILE: ./CONFIG_FILE: line 1 is not KEY=VALUE\n");
    }
}

static void test_a_quote_without_an_end_is_named_with_its_line(void **state)
{
    struct fixture *fixture = *state;
    static const char *const lines[] = {"\nT_TEXT='it\"\nT_NONE=x", "\nT_TEXT='", "\nT_TEXT=\"a\\\"\n\n", "\nT_TEXT='a'\""};
    for (size_t i = 0; i < COUNT(lines); i++) {
        set_to_file(fixture, "CONFIG_FILE", lines[i]);
        assert_problems(fixture, "CONFIG_FILE: ./CONFIG_FILE: line 2 has a quote without an end\n");
    }
}

static void test_a_file_that_cannot_be_read_is_a_problem(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *missing = mem_format("%s/missing", fixture->folder);
    set("CONFIG_FILE", missing);
    assert_problems(fixture, "CONFIG_FILE: ./missing: No such file or directory\n");
    set("CONFIG_FILE", fixture->folder);
    assert_problems(fixture, "CONFIG_FILE: .: cannot be read (a folder?)\n");
    set_to_file_n(fixture, "CONFIG_FILE", "T_TEXT=a\0b\n", 11);
    assert_problems(fixture, "CONFIG_FILE: ./CONFIG_FILE: holds a NUL byte\n");
    set("CONFIG_FILE", "");
    load_well(fixture); /* none */
}

static void test_a_file_has_at_most_64_kib(void **state)
{
    enum { MOST = 64 * 1024 };
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *text = mem_new(MOST + 1);
    memset(text, 'x', MOST + 1);
    memcpy(text, "T_TEXT=", 7);
    set_to_file_n(fixture, "CONFIG_FILE", text, MOST);
    load_well(fixture);
    assert_int_equal(strlen(config_text(fixture->config, "T_TEXT")), MOST - 7);
    set_to_file_n(fixture, "CONFIG_FILE", text, MOST + 1);
    assert_problems(fixture, "CONFIG_FILE: ./CONFIG_FILE: is over 64 KiB\n");
}

/* ---- secrets ---- */

static void test_a_secret_may_be_in_a_file_of_its_own(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *content, *value;
    } cases[] = {
        {"s3cret", "s3cret"},         {"s3cret\n", "s3cret"},       {"s3cret\r\n", "s3cret"}, {" sp aces \n", " sp aces "},
        {"\"quoted\"\n", "\"quoted\""}, {"KEY=VALUE\n", "KEY=VALUE"}, {"#é\n", "#é"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        set_to_file(fixture, "T_SECRET_FILE", cases[i].content);
        load_well(fixture);
        assert_text(fixture, "T_SECRET", cases[i].value);
    }
    set("T_SECRET_FILE", "");
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "admin123");
}

static void test_an_empty_secret_file_means_the_default(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "T_SECRET_FILE", "\n");
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "admin123");
    set_to_file(fixture, "CONFIG_FILE", "T_SECRET=of the file\n");
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "of the file");
}

static void test_the_path_of_a_secret_may_come_from_the_file(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *path = mem_format("%s/secret", fixture->folder);
    CLEANUP(free_text) char *lines = mem_format("T_SECRET_FILE=%s\n", path);
    write_file(path, "s3cret\n", 7);
    set_to_file(fixture, "CONFIG_FILE", lines);
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "s3cret");
}

static void test_a_secret_in_the_environment_wins_over_its_file(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "T_SECRET_FILE", "of its file\n");
    set("T_SECRET", "of the environment");
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "of the environment");
}

static void test_a_secret_file_named_by_the_environment_wins_over_the_configuration_file(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "T_SECRET_FILE", "mounted\n");
    set_to_file(fixture, "CONFIG_FILE", "T_SECRET=left there\n");
    load_well(fixture);
    assert_text(fixture, "T_SECRET", "mounted");
}

static void test_only_secrets_are_read_from_files_of_their_own(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "T_TEXT_FILE", "of a file\n");
    load_well(fixture);
    assert_text(fixture, "T_TEXT", "the default");
}

static void test_a_secret_file_that_cannot_be_read_is_a_problem(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *missing = mem_format("%s/missing", fixture->folder);
    set("T_SECRET_FILE", missing);
    assert_problems(fixture, "T_SECRET_FILE: ./missing: No such file or directory\n");
}

/* ---- checks ---- */

static void test_numbers_are_decimal_and_within_their_bounds(void **state)
{
    struct fixture *fixture = *state;
    static const char *const good[] = {"1", "80", "65535", "0080"};
    static const char *const bad[] = {"0",     "65536", "-1",  "+1",   "1.0", "1e3",  "0x50", "80 ",
                                      " 80",   "eighty", "8o", "3003,", "١",  "99999999999999999999999"};
    for (size_t i = 0; i < COUNT(good); i++) {
        set("T_PORT", good[i]);
        load_well(fixture);
        assert_int_equal(config_number(fixture->config, "T_PORT"), atoi(good[i]));
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        CLEANUP(free_text) char *why = mem_format("T_PORT: '%s' is not a number from 1 to 65535\n", bad[i]);
        set("T_PORT", bad[i]);
        assert_problems(fixture, why);
        assert_text(fixture, "T_PORT", "3003"); /* for what is checked across settings */
    }
    set("T_PORT", "1");
    set("T_THREADS", "65");
    assert_problems(fixture, "T_THREADS: '65' is not a number from 1 to 64\n");
}

static void test_a_choice_is_one_of_its_words(void **state)
{
    struct fixture *fixture = *state;
    static const char *const bad[] = {"prett", "retty", "pretty ", "prettyjson", "Json", "json,pretty", " ", "y j",
                                      "pretty json"};
    set("T_FORMAT", "json");
    set("T_KIND", "classic");
    load_well(fixture);
    assert_text(fixture, "T_FORMAT", "json");
    for (size_t i = 0; i < COUNT(bad); i++) {
        CLEANUP(free_text) char *why = mem_format("T_FORMAT: '%s' is not one of: pretty json\n", bad[i]);
        set("T_FORMAT", bad[i]);
        assert_problems(fixture, why);
    }
}

static void test_all_problems_are_named_at_once(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *missing = mem_format("%s/missing", fixture->folder);
    set_to_file(fixture, "CONFIG_FILE", "nonsense\nT_THREADS=none\n");
    set("T_PORT", "high");
    set("T_FORMAT", "xml");
    set("T_KIND", "mirrored");
    set("T_SECRET_FILE", missing);
    set("T_URL", "ftp://x");
    assert_problems(fixture, "CONFIG_FILE: ./CONFIG_FILE: line 1 is not KEY=VALUE\n"
                             "T_PORT: 'high' is not a number from 1 to 65535\n"
                             "T_THREADS: 'none' is not a number from 1 to 64\n"
                             "T_FORMAT: 'xml' is not one of: pretty json\n"
                             "T_KIND: 'mirrored' is not one of: quorum classic\n"
                             "T_SECRET_FILE: ./missing: No such file or directory\n"
                             "T_URL: is not an http:// or https:// URL with a host\n");
}

/* ---- showing them ---- */

static void test_the_description_has_every_setting_and_no_value(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(buf_done) struct buf out;
    buf_init(&out, 64 * 1024);
    set("T_TEXT", "given");
    set("T_SECRET", "confidential");
    load_well(fixture);
    config_describe(settings, COUNT(settings), &out);
    for (size_t i = 0; i < COUNT(settings); i++) {
        const struct setting *s = &settings[i];
        CLEANUP(free_text)
        char *line = mem_format("  %-26s %s [%s]\n", s->name, s->help, *s->fallback ? s->fallback : "none");
        const char *found = strstr(buf_get(&out), line);
        assert_non_null(found);
        /* what follows it up to the next name */
        const char *live = strstr(found, "live: read again on SIGHUP\n"), *next = strstr(found, "\n  T_");
        assert_int_equal(live && (!next || live < next), s->live);
    }
    assert_non_null(strstr(buf_get(&out), "1 to 65535\n"));
    assert_non_null(strstr(buf_get(&out), "one of: pretty json\n"));
    assert_non_null(strstr(buf_get(&out), "or T_SECRET_FILE, a file that holds it\n"));
    assert_null(strstr(buf_get(&out), "T_TEXT_FILE"));
    assert_null(strstr(buf_get(&out), "given"));
    assert_null(strstr(buf_get(&out), "confidential"));
}

/* ---- reading them anew ---- */

/* What is taken and what is not, with the present environment. */
static void take(struct fixture *fixture, const char *expected_taken, const char *expected_restart)
{
    CLEANUP(buf_done) struct buf problems, taken, restart;
    buf_init(&problems, 64 * 1024);
    buf_init(&taken, 64 * 1024);
    buf_init(&restart, 64 * 1024);
    struct config *wanted = config_load_again(fixture->config, &problems);
    assert_int_equal(problems.len, 0);
    config_take_live(fixture->config, wanted, &taken, &restart);
    config_free(wanted);
    assert_string_equal(buf_get(&taken), expected_taken);
    assert_string_equal(buf_get(&restart), expected_restart);
}

static void test_what_is_live_is_taken_and_the_rest_is_named_for_as_long_as_it_differs(void **state)
{
    struct fixture *fixture = *state;
    set("T_TEXT", "before");
    load_well(fixture);
    take(fixture, "", "");
    set("T_TEXT", "after");
    set("T_FORMAT", "json");
    set("T_PORT", "8080");
    set("T_NONE", "something");
    const char *port = config_text(fixture->config, "T_PORT");
    take(fixture, "T_TEXT (before → after), T_FORMAT (pretty → json)",
         "T_NONE (vide → something), T_PORT (3003 → 8080)");
    assert_text(fixture, "T_TEXT", "after");
    assert_text(fixture, "T_FORMAT", "json");
    assert_text(fixture, "T_PORT", "3003");
    assert_text(fixture, "T_NONE", "");
    assert_ptr_equal(config_text(fixture->config, "T_PORT"), port); /* others may hold it */
    take(fixture, "", "T_NONE (vide → something), T_PORT (3003 → 8080)");
    (void)unsetenv("T_PORT");
    (void)unsetenv("T_TEXT");
    take(fixture, "T_TEXT (after → the default)", "T_NONE (vide → something)");
}

static void test_what_is_read_anew_shows_no_secret(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "T_TOKEN_FILE", "confidential-1\n");
    set("T_SECRET", "confidential-2");
    load_well(fixture);
    set_to_file(fixture, "T_TOKEN_FILE", "confidential-3\n");
    set("T_SECRET", "confidential-4");
    set("T_URL", "https://me:confidential-5@host/path?key=confidential-6");
    take(fixture, "T_TOKEN, T_URL (vide → https://***@host/path?***)", "T_SECRET");
    assert_text(fixture, "T_TOKEN", "confidential-3");
    assert_text(fixture, "T_SECRET", "confidential-2");
}

static void test_the_file_is_read_anew_and_the_environment_still_wins(void **state)
{
    struct fixture *fixture = *state;
    set_to_file(fixture, "CONFIG_FILE", "T_TEXT=file 1\nT_FORMAT=json\n");
    set("T_TEXT", "environment");
    load_well(fixture);
    set_to_file(fixture, "CONFIG_FILE", "T_TEXT=file 2\n");
    take(fixture, "T_FORMAT (json → pretty)", "");
    assert_text(fixture, "T_TEXT", "environment");
}

static void test_asking_for_a_setting_that_does_not_exist_ends_the_process(void **state)
{
    struct fixture *fixture = *state;
    load_well(fixture);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        (void)close(STDERR_FILENO);
        (void)config_text(fixture->config, "T_TYPO");
        _exit(0);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended));
    assert_int_equal(WTERMSIG(ended), SIGABRT);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, new_fixture, free_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_anything_every_setting_has_its_default),
        TEST(test_the_environment_wins_over_the_file_and_the_file_over_the_default),
        TEST(test_an_empty_value_means_the_default_except_where_it_counts),
        TEST(test_the_environment_is_read_once),
        TEST(test_the_lines_of_a_file_are_read_as_people_write_them),
        TEST(test_quotes_backslashes_and_comments_are_those_of_systemd),
        TEST(test_a_value_over_several_lines_is_named_in_one),
        TEST(test_a_line_that_is_none_is_named_with_its_place),
        TEST(test_a_name_that_can_be_none_is_refused),
        TEST(test_a_quote_without_an_end_is_named_with_its_line),
        TEST(test_a_file_that_cannot_be_read_is_a_problem),
        TEST(test_a_file_has_at_most_64_kib),
        TEST(test_a_secret_may_be_in_a_file_of_its_own),
        TEST(test_an_empty_secret_file_means_the_default),
        TEST(test_the_path_of_a_secret_may_come_from_the_file),
        TEST(test_a_secret_in_the_environment_wins_over_its_file),
        TEST(test_a_secret_file_named_by_the_environment_wins_over_the_configuration_file),
        TEST(test_only_secrets_are_read_from_files_of_their_own),
        TEST(test_a_secret_file_that_cannot_be_read_is_a_problem),
        TEST(test_numbers_are_decimal_and_within_their_bounds),
        TEST(test_a_choice_is_one_of_its_words),
        TEST(test_all_problems_are_named_at_once),
        TEST(test_the_description_has_every_setting_and_no_value),
        TEST(test_what_is_live_is_taken_and_the_rest_is_named_for_as_long_as_it_differs),
        TEST(test_what_is_read_anew_shows_no_secret),
        TEST(test_the_file_is_read_anew_and_the_environment_still_wins),
        TEST(test_asking_for_a_setting_that_does_not_exist_ends_the_process),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
