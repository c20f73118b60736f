/* A settings file and a secret's file: the lines, the bounds, the checks of URLs. The input: the lines, a
 * NUL, the secret. */
#include "amqp.h"
#include "config.h"
#include "fuzz.h"
#include "http_url.h"

/* One of each kind; short names are found at once. */
static const struct setting settings[] = {
    NUMBER_SETTING("N", "7", -3, 100, "a number"),
    NUMBER_SETTING("M", "", 1, 65535, "a number that may be absent"),
    CHOICE_SETTING("C", "pretty", "pretty json", "a word"),
    CHOICE_SETTING("D", "", "quorum classic", "a word that may be absent"),
    TEXT_SETTING("T", "text", "a text"),
    TEXT_SETTING("E", "text", "a text that may be empty", .empty_counts = true),
    TEXT_SETTING("U", "http://localhost", "a URL", .check = http_url_check),
    SECRET_SETTING("S", "none", "a secret"),
    SECRET_SETTING("A", "", "URLs that hold one", .check = amqp_check_urls),
};

/* Puts the text into the file with that descriptor. */
static void fill(int fd, const char *text)
{
    size_t len = strlen(text);
    MUST(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, text, len, 0) == (ssize_t)len);
}

/* Each line names a setting of ours, or the file. */
static void must_name_settings(const struct buf *problems)
{
    for (const char *line = buf_get(problems), *end; *line; line = end + 1) {
        bool known = strncmp(line, "CONFIG_FILE: ", 13) == 0 || strncmp(line, "S_FILE: ", 8) == 0;
        for (size_t i = 0; i < COUNT(settings); i++)
            known = known || (line[0] == settings[i].name[0] && line[1] == ':' && line[2] == ' ');
        end = strchr(line, '\n');
        MUST(known && end);
    }
}

static void must_keep_bounds(const struct config *config)
{
    const char *word = config_text(config, "C"), *optional = config_text(config, "D");
    long number = config_number(config, "N"), port = config_number(config, "M");
    MUST(number >= -3 && number <= 100);
    MUST(*config_text(config, "M") ? port >= 1 && port <= 65535 : port == 0);
    MUST(strcmp(word, "pretty") == 0 || strcmp(word, "json") == 0);
    MUST(!*optional || strcmp(optional, "quorum") == 0 || strcmp(optional, "classic") == 0);
    MUST(*config_text(config, "T") && *config_text(config, "S"));
    MUST(http_url_check(config_text(config, "U"), NULL) == STATUS_OK);
    MUST(!*config_text(config, "A") || amqp_check_urls(config_text(config, "A"), NULL) == STATUS_OK);
}

static void put_quoted(struct buf *out, const char *value)
{
    buf_char(out, '"');
    for (; *value; value++) {
        if (strchr("\"\\`$", *value))
            buf_char(out, '\\');
        buf_char(out, *value);
    }
    buf_char(out, '"');
}

/* The values, written as a file, are read the same. */
static void must_read_back(const struct config *config, int fd)
{
    CLEANUP(buf_done) struct buf lines, problems;
    buf_init(&lines, 3 * INPUT_MAX);
    buf_init(&problems, 1024);
    buf_text(&lines, "# all of them\n\n");
    for (size_t i = 0; i < COUNT(settings); i++) {
        buf_format(&lines, " %s = ", settings[i].name);
        put_quoted(&lines, config_text(config, settings[i].name));
        buf_text(&lines, "\r\n");
    }
    MUST(buf_ok(&lines));
    if (lines.len > INPUT_MAX)
        return;
    fill(fd, buf_get(&lines));
    struct config *again = config_load(settings, COUNT(settings), &problems);
    MUST(problems.len == 0);
    for (size_t i = 0; i < COUNT(settings); i++)
        MUST(config_is(again, settings[i].name, config_text(config, settings[i].name)));
    config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1, secret_file = -1;
    static char path[32], secret_path[32];
    if (file < 0) {
        file = memfd_create("lines", MFD_CLOEXEC);
        secret_file = memfd_create("secret", MFD_CLOEXEC);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        (void)snprintf(secret_path, sizeof secret_path, "/proc/self/fd/%d", secret_file);
        (void)setenv("CONFIG_FILE", path, 1);
    }
    CLEANUP(free_text) char *lines = next_text(&data, &size, '\0');
    CLEANUP(free_text) char *secret = as_text(data, size);
    if (strstr(lines, "_FILE")) /* would have it read files of this machine */
        return 0;
    fill(file, lines);
    fill(secret_file, secret);
    (void)(*secret ? setenv("S_FILE", secret_path, 1) : unsetenv("S_FILE"));

    CLEANUP(buf_done) struct buf problems;
    buf_init(&problems, 8 * INPUT_MAX);
    struct config *config = config_load(settings, COUNT(settings), &problems);
    if (problems.len > 0) {
        must_name_settings(&problems);
    } else {
        must_keep_bounds(config);
        size_t len = strcspn(secret, "\r\n"); /* an empty one is none */
        MUST(len == 0 || strncmp(config_text(config, "S"), secret, len) == 0);
        (void)unsetenv("S_FILE");
        must_read_back(config, file);
    }
    config_free(config);
    return 0;
}
