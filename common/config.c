#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "config_file.h"
#include "mem.h"

enum { FILE_MAX_BYTES = 64 * 1024 };

struct config {
    const struct setting *settings;
    size_t count;
    char **values;
};

char *config_read_file(const char *path, const char **ret_reason)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        *ret_reason = strerror(errno);
        return NULL;
    }
    char *text = mem_new(FILE_MAX_BYTES + 2);
    size_t len = fread(text, 1, FILE_MAX_BYTES + 1, file);
    *ret_reason = ferror(file)           ? "cannot be read (a folder?)"
                  : len > FILE_MAX_BYTES ? "is over 64 KiB"
                                         : NULL;
    (void)fclose(file);
    if (*ret_reason || strlen(text) != len) {
        *ret_reason = *ret_reason ? *ret_reason : "holds a NUL byte";
        free_text(&text);
    }
    return text;
}

/* A setting given where it does not count is not given. */
static char *counted(char *value, bool empty_counts)
{
    if (value && !*value && !empty_counts)
        free_text(&value);
    return value;
}

static char *find_in_environment(const char *name, bool empty_counts)
{
    return counted(mem_text(getenv(name)), empty_counts);
}

static char *find_in_file(const struct buf *lines, const char *name, bool empty_counts)
{
    return counted(mem_text(config_file_find(lines, name)), empty_counts);
}

/* The content of the file at `path` (freed here; NULL is fine), up to its line end. */
static char *read_secret(const struct setting *setting, char *path, struct buf *problems)
{
    const char *reason = NULL;
    char *text = path ? config_read_file(path, &reason) : NULL;
    if (text)
        text[strcspn(text, "\r\n")] = '\0';
    else if (path)
        buf_format(problems, "%s_FILE: %s: %s\n", setting->name, path, reason);
    free(path);
    return counted(text, setting->empty_counts);
}

/* Environment, then file, and in each the setting itself before NAME_FILE; NULL where nobody gives it. */
static char *find_value(const struct setting *setting, const struct buf *lines, struct buf *problems)
{
    CLEANUP(free_text) char *file_name = mem_format("%s_FILE", setting->name);
    char *value = find_in_environment(setting->name, setting->empty_counts);
    if (!value && setting->secret)
        value = read_secret(setting, find_in_environment(file_name, false), problems);
    if (!value)
        value = find_in_file(lines, setting->name, setting->empty_counts);
    if (!value && setting->secret)
        value = read_secret(setting, find_in_file(lines, file_name, false), problems);
    return value;
}

/* One line, whatever the text holds: a value may be quoted over several. Frees the text. */
static void add_problem(struct buf *problems, const struct setting *setting, char *text)
{
    for (char *c = text; *c; c++)
        if (*c > 0 && *c < ' ')
            *c = ' ';
    buf_format(problems, "%s: %s\n", setting->name, text);
    free(text);
}

static bool check_number(const struct setting *setting, const char *value, struct buf *problems)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(value, &end, 10);
    bool good = isdigit((unsigned char)*value) && !*end && !errno && number >= setting->min &&
                number <= setting->max;
    if (!good)
        add_problem(problems, setting,
                    mem_format("'%s' is not a number from %ld to %ld", value, setting->min, setting->max));
    return good;
}

static bool is_word_of(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *at = choices; len && !strchr(value, ' ') && (at = strstr(at, value)); at += len)
        if ((at == choices || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
            return true;
    return false;
}

/* A number that is none counts as its default: what is checked across settings goes on from there. */
static void check_value(const struct setting *setting, char **value_at, struct buf *problems)
{
    struct err err;
    const char *value = *value_at;
    if (!*value && (setting->empty_counts || !*setting->fallback))
        return;
    switch (setting->type) {
    case SETTING_NUMBER:
        if (!check_number(setting, value, problems)) {
            free(*value_at);
            *value_at = mem_text(setting->fallback);
        }
        return;
    case SETTING_CHOICE:
        if (!is_word_of(setting->choices, value))
            add_problem(problems, setting, mem_format("'%s' is not one of: %s", value, setting->choices));
        break;
    case SETTING_TEXT:
        break;
    }
    if (setting->check && *value && setting->check(value, &err) != STATUS_OK)
        add_problem(problems, setting, mem_text(err.text));
}

struct config *config_load_again(const struct config *config, struct buf *problems)
{
    return config_load(config->settings, config->count, problems);
}

struct config *config_load(const struct setting *settings, size_t count, struct buf *problems)
{
    struct config *config = mem_new(sizeof *config);
    *config = (struct config){settings, count, mem_new(count * sizeof(char *))};

    CLEANUP(buf_done) struct buf lines;
    buf_init(&lines, FILE_MAX_BYTES + 1);
    const char *path = getenv("CONFIG_FILE"), *reason = NULL;
    CLEANUP(free_text) char *text = path && *path ? config_read_file(path, &reason) : NULL;
    if (text)
        config_file_parse(text, path, &lines, problems);
    else if (reason)
        buf_format(problems, "CONFIG_FILE: %s: %s\n", path, reason);
    for (size_t i = 0; i < count; i++) {
        char *value = find_value(&settings[i], &lines, problems);
        config->values[i] = value ? value : mem_text(settings[i].fallback);
        check_value(&settings[i], &config->values[i], problems);
    }
    return config;
}

/* What stands before a URL's host, or is its query, is not shown: either may hold a password or a key. */
static void print_text(struct buf *out, const char *value)
{
    const char *scheme = strstr(value, "://"), *query = scheme ? strchr(scheme, '?') : NULL;
    if (scheme) {
        const char *authority = scheme + 3, *end = authority + strcspn(authority, "/?#");
        const char *at = memrchr(authority, '@', (size_t)(end - authority));
        if (at) {
            buf_append(out, value, (size_t)(authority - value));
            buf_text(out, "***");
            value = at;
        }
    }
    for (const char *c = value; *c && c != query; c++) {
        char shown = *c;
        if (shown > 0 && shown < ' ')
            shown = ' ';
        buf_char(out, shown);
    }
    if (query)
        buf_text(out, "?***");
}

void config_print(const struct config *config, struct buf *out)
{
    for (size_t i = 0; i < config->count; i++) {
        buf_format(out, "%s=", config->settings[i].name);
        if (config->settings[i].secret)
            buf_text(out, *config->values[i] ? "***" : "");
        else
            print_text(out, config->values[i]);
        buf_char(out, '\n');
    }
}

static void print_shown(struct buf *out, const char *value)
{
    if (*value)
        print_text(out, value);
    else
        buf_text(out, "vide");
}

static void put_change(struct buf *out, const struct setting *setting, const char *from, const char *to)
{
    buf_format(out, "%s%s", out->len ? ", " : "", setting->name);
    if (setting->secret)
        return;
    buf_text(out, " (");
    print_shown(out, from);
    buf_text(out, " → ");
    print_shown(out, to);
    buf_char(out, ')');
}

void config_take_live(struct config *config, struct config *wanted, struct buf *taken, struct buf *restart)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct setting *setting = &config->settings[i];
        char *from = config->values[i], *to = wanted->values[i];
        if (strcmp(from, to) == 0)
            continue;
        put_change(setting->live ? taken : restart, setting, from, to);
        if (setting->live) {
            config->values[i] = to;
            wanted->values[i] = from;
        }
    }
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->count; i++)
        free(config->values[i]);
    free(config->values);
    free(config);
}

const char *config_text(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->count; i++)
        if (strcmp(config->settings[i].name, name) == 0)
            return config->values[i];
    fprintf(stderr, "no such setting: %s\n", name);
    abort();
}

long config_number(const struct config *config, const char *name)
{
    return strtol(config_text(config, name), NULL, 10);
}

bool config_is(const struct config *config, const char *name, const char *value)
{
    return strcmp(config_text(config, name), value) == 0;
}

void config_describe(const struct setting *settings, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        const struct setting *s = &settings[i];
        const char *shown = *s->fallback ? s->fallback : "none";
        buf_format(out, "  %-26s %s [%s]\n", s->name, s->help, shown);
        if (s->type == SETTING_NUMBER)
            buf_format(out, "  %-26s   %ld to %ld\n", "", s->min, s->max);
        if (s->type == SETTING_CHOICE)
            buf_format(out, "  %-26s   one of: %s\n", "", s->choices);
        if (s->secret)
            buf_format(out, "  %-26s   or %s_FILE, a file that holds it\n", "", s->name);
        if (s->live)
            buf_format(out, "  %-26s   live: read again on SIGHUP\n", "");
    }
}

enum status config_check_readable(const char *value, struct err *err)
{
    struct stat file;
    if (access(value, R_OK) != 0 || stat(value, &file) != 0)
        return err_set(err, STATUS_INVALID, "%s: %s", value, strerror(errno));
    return S_ISDIR(file.st_mode) ? err_set(err, STATUS_INVALID, "%s: is a folder", value) : STATUS_OK;
}
