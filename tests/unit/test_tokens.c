/* The tokens' file, and what a header's value is worth. */
#include "temp_folder.h"

#include <string.h>

#include "tokens.h"

/* printf %s reader-token | sha256sum */
#define READER "sha256:ba5005a40cf5212e4ac0190104cc127edab013294bb71279a975b27a80982d45"
#define WRITER "sha256:3590c0a59f72ce02700194a05f228a725c1f135a6dcb3ded9b2d86ab6a6f52cb"
#define OTHER "sha256:6c67163bbed989f232b31acc4f04df54b31285bfc01bd022c735b71e041a4754"

struct fixture {
    char *folder, *path;
    struct tokens *tokens;
    struct buf problems;
};

static int new_fixture(void **state)
{
    struct fixture *fixture = mem_new(sizeof *fixture);
    fixture->folder = temp_folder();
    fixture->path = mem_format("%s/tokens", fixture->folder);
    buf_init(&fixture->problems, 64 * 1024);
    *state = fixture;
    return 0;
}

static int free_fixture(void **state)
{
    struct fixture *fixture = *state;
    tokens_close(fixture->tokens);
    buf_done(&fixture->problems);
    free(fixture->path);
    drop_folder(&fixture->folder);
    free(fixture);
    return 0;
}

static void write_tokens(struct fixture *fixture, const char *text)
{
    write_file(fixture->path, text, strlen(text));
}

static enum status open_tokens(struct fixture *fixture, const char *text)
{
    write_tokens(fixture, text);
    buf_clear(&fixture->problems);
    return tokens_open(&fixture->tokens, fixture->path, &fixture->problems);
}

static enum status check(struct fixture *fixture, const char *authorization, enum token_role role)
{
    char name[TOKEN_NAME_SIZE];
    struct err err;
    return tokens_check(fixture->tokens, authorization, role, name, &err);
}

static void test_a_line_lets_its_token_in(void **state)
{
    struct fixture *fixture = *state;
    char name[TOKEN_NAME_SIZE] = "";
    struct err err;
    assert_int_equal(open_tokens(fixture, "# who may\n\n  \t\n"
                                          "caisse\twrite  " WRITER " \r\n"
                                          "  tableau-de-bord read " READER),
                     STATUS_OK);
    assert_int_equal(fixture->problems.len, 0);
    assert_int_equal(tokens_count(fixture->tokens), 2);
    assert_int_equal(tokens_check(fixture->tokens, "Bearer writer-token", TOKEN_WRITE, name, &err),
                     STATUS_OK);
    assert_string_equal(name, "caisse");
    assert_int_equal(tokens_check(fixture->tokens, "Bearer reader-token", TOKEN_READ, name, &err), STATUS_OK);
    assert_string_equal(name, "tableau-de-bord");
    assert_int_equal(check(fixture, "Bearer writer-token", TOKEN_READ), STATUS_OK);
}

static void test_a_reader_may_not_write(void **state)
{
    struct fixture *fixture = *state;
    char name[TOKEN_NAME_SIZE] = "";
    struct err err;
    assert_int_equal(open_tokens(fixture, "r read " READER), STATUS_OK);
    assert_int_equal(tokens_check(fixture->tokens, "Bearer reader-token", TOKEN_WRITE, name, &err),
                     STATUS_FORBIDDEN);
    assert_string_equal(name, "r");
    assert_int_not_equal(err.text[0], '\0');
}

static void test_what_is_no_known_token_stays_out(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "w write " WRITER), STATUS_OK);
    char long_token[TOKEN_MAX_BYTES + 32];
    memset(long_token, 'a', sizeof long_token);
    memcpy(long_token, "Bearer ", 7);
    long_token[sizeof long_token - 1] = '\0';
    const char *const bad[] = {NULL,
                               "",
                               "Bearer",
                               "Bearer ",
                               "Bearer    ",
                               "Bearerwriter-token",
                               "Bearer writer-toke",
                               "Bearer writer-token ",
                               "Bearer writer-token,x",
                               "Bearer Writer-token",
                               "Bearer reader-token",
                               "Bearer " WRITER,
                               "Bearer w",
                               "Basic writer-token",
                               "writer-token",
                               " Bearer writer-token",
                               "Bearer\twriter-token",
                               long_token};
    for (size_t i = 0; i < COUNT(bad); i++)
        if (check(fixture, bad[i], TOKEN_READ) != STATUS_UNAUTHORIZED)
            fail_msg("let in: %s", bad[i] ? bad[i] : "(none)");
}

static void test_the_scheme_is_known_in_any_case(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "w write " WRITER), STATUS_OK);
    assert_int_equal(check(fixture, "bearer writer-token", TOKEN_READ), STATUS_OK);
    assert_int_equal(check(fixture, "BEARER   writer-token", TOKEN_READ), STATUS_OK);
}

static void test_one_name_may_have_two_tokens(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "w write " WRITER "\nw read " READER "\n"), STATUS_OK);
    assert_int_equal(check(fixture, "Bearer reader-token", TOKEN_WRITE), STATUS_FORBIDDEN);
    assert_int_equal(check(fixture, "Bearer writer-token", TOKEN_WRITE), STATUS_OK);
}

/* All of them at once, each with its line, none with what the line holds. */
static void test_everything_wrong_is_named_with_its_line(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(
        open_tokens(fixture,
                    "w write " WRITER "\n"
                    "a read\n"
                    "# fine\n"
                    "b read " READER " more\n"
                    "c admin " READER "\n"
                    "d read s3cret\n"
                    "e read " READER "0\n"
                    "f\xc3\xa9 read " READER "\n"
                    "g read " WRITER "\n"
                    "h read sha256:zz5005a40cf5212e4ac0190104cc127edab013294bb71279a975b27a80982d45\n"
                    "i read SHA256:\n"),
        STATUS_INVALID);
    assert_null(fixture->tokens);
    const char *text = buf_get(&fixture->problems);
    static const int wrong[] = {2, 4, 5, 6, 7, 8, 9, 10, 11};
    size_t lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, COUNT(wrong));
    for (size_t i = 0; i < COUNT(wrong); i++) {
        CLEANUP(free_text) char *start = mem_format("API_TOKENS_FILE: %s:%d: ", fixture->path, wrong[i]);
        if (!strstr(text, start))
            fail_msg("nothing about line %d in:\n%s", wrong[i], text);
    }
    assert_null(strstr(text, "s3cret"));
}

static void test_a_file_that_would_shut_everybody_out_is_refused(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "# nobody\n"), STATUS_INVALID);
    assert_non_null(strstr(buf_get(&fixture->problems), "holds no token"));
    buf_clear(&fixture->problems);
    assert_int_equal(tokens_open(&fixture->tokens, "/nowhere/tokens", &fixture->problems), STATUS_INVALID);
    assert_non_null(strstr(buf_get(&fixture->problems), "/nowhere/tokens: No such file"));
}

/* "nN read sha256:…" for N of [0, count). */
static char *many_lines(unsigned count)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    for (unsigned i = 0; i < count; i++)
        buf_format(&text, "n%u read sha256:%064x\n", i, i);
    assert_true(buf_ok(&text));
    return buf_take(&text);
}

static void test_there_may_be_256_tokens(void **state)
{
    struct fixture *fixture = *state;
    CLEANUP(free_text) char *most = many_lines(TOKENS_MAX), *too_many = many_lines(TOKENS_MAX + 1);
    assert_int_equal(open_tokens(fixture, too_many), STATUS_INVALID);
    assert_non_null(strstr(buf_get(&fixture->problems), ":257: "));
    assert_int_equal(open_tokens(fixture, most), STATUS_OK);
    assert_int_equal(tokens_count(fixture->tokens), TOKENS_MAX);
}

/* What the file says now; whether that is a change. */
static bool take(struct fixture *fixture)
{
    struct tokens *fresh = NULL;
    assert_int_equal(tokens_open(&fresh, fixture->path, &fixture->problems), STATUS_OK);
    bool changed = tokens_take(fixture->tokens, fresh);
    tokens_close(fresh);
    return changed;
}

static void test_reading_again_changes_who_may_come_in(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "w write " WRITER), STATUS_OK);
    write_tokens(fixture, "o write " OTHER);
    assert_true(take(fixture));
    assert_int_equal(check(fixture, "Bearer writer-token", TOKEN_READ), STATUS_UNAUTHORIZED);
    assert_int_equal(check(fixture, "Bearer other-token", TOKEN_WRITE), STATUS_OK);
}

static void test_what_says_the_same_is_no_change(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(open_tokens(fixture, "w write " WRITER), STATUS_OK);
    write_tokens(fixture, "# the same\n\nw  write  " WRITER);
    assert_false(take(fixture));
    static const char *const others[] = {"v write " WRITER, "v read " WRITER, "v read " OTHER,
                                         "v read " OTHER "\nw write " WRITER, "v read " OTHER};
    for (size_t i = 0; i < COUNT(others); i++) {
        write_tokens(fixture, others[i]);
        assert_true(take(fixture));
        assert_false(take(fixture));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, new_fixture, free_fixture)
    const struct CMUnitTest tests[] = {
        TEST(test_a_line_lets_its_token_in),
        TEST(test_a_reader_may_not_write),
        TEST(test_what_is_no_known_token_stays_out),
        TEST(test_the_scheme_is_known_in_any_case),
        TEST(test_one_name_may_have_two_tokens),
        TEST(test_everything_wrong_is_named_with_its_line),
        TEST(test_a_file_that_would_shut_everybody_out_is_refused),
        TEST(test_there_may_be_256_tokens),
        TEST(test_reading_again_changes_who_may_come_in),
        TEST(test_what_says_the_same_is_no_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
