/* Authorization (the input's first line) and the file of tokens (the rest). */
#include "fuzz.h"
#include "tokens.h"

/* Puts the text into the file. */
static void fill(int file, const char *text)
{
    size_t len = strlen(text);
    MUST(ftruncate(file, 0) == 0 && pwrite(file, text, len, 0) == (ssize_t)len);
}

/* Every line of the list of problems is one. */
static void must_be_lines(const struct buf *problems, const char *path)
{
    CLEANUP(free_text)
    char *copy = mem_text(buf_get(problems)),
         *start = mem_format("API_TOKENS_FILE: %s:", path);
    for (char *rest = copy, *line; (line = strsep(&rest, "\n")) && *line;)
        MUST(strncmp(line, start, strlen(start)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    static char path[32];
    if (file < 0) {
        file = memfd_create("tokens", MFD_CLOEXEC);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    CLEANUP(free_text) char *authorization = next_text(&data, &size, '\n');
    CLEANUP(free_text) char *lines = as_text(data, size);
    CLEANUP(buf_done) struct buf problems;
    struct tokens *tokens = NULL;
    buf_init(&problems, 4 * 1024 * 1024);
    fill(file, lines);
    if (tokens_open(&tokens, path, &problems) != STATUS_OK) {
        MUST(!tokens && problems.len > 0);
        must_be_lines(&problems, path);
        return 0;
    }
    MUST(problems.len == 0 && tokens_count(tokens) >= 1 && tokens_count(tokens) <= TOKENS_MAX);
    char name[TOKEN_NAME_SIZE] = "";
    struct err err = {0};
    enum status reads = tokens_check(tokens, authorization, TOKEN_READ, name, &err);
    enum status writes = tokens_check(tokens, authorization, TOKEN_WRITE, name, &err);
    MUST((reads == STATUS_OK) == (name[0] != '\0') && (reads == STATUS_OK || reads == STATUS_UNAUTHORIZED));
    MUST(writes == reads || (reads == STATUS_OK && writes == STATUS_FORBIDDEN));
    struct tokens *fresh = NULL;
    MUST(tokens_open(&fresh, path, &problems) == STATUS_OK && !tokens_take(tokens, fresh));
    tokens_close(fresh);
    tokens_close(tokens);
    return 0;
}
