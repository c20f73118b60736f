#include "config_file.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

struct reader {
    const char *at;
    unsigned line;
};

static bool is_blank(char c)
{
    return c != '\n' && isspace((unsigned char)c);
}

static char next(struct reader *reader)
{
    if (*reader->at == '\n')
        reader->line++;
    return *reader->at++;
}

static void skip_line(struct reader *reader)
{
    reader->at += strcspn(reader->at, "\n");
}

/* Where a backslash stands; true when it joined two lines. */
static bool joins_lines(struct reader *reader)
{
    size_t len = strncmp(reader->at, "\\\r\n", 3) == 0 ? 3 : strncmp(reader->at, "\\\n", 2) == 0 ? 2 : 0;
    reader->at += len;
    reader->line += len > 0;
    return len > 0;
}

/* The name, without the spaces behind it; the reader is behind the equals sign then. */
static size_t read_name(struct reader *reader, const char **ret_name)
{
    const char *name = reader->at;
    size_t len = strcspn(name, "=\n");
    if (name[len] != '=' || isdigit((unsigned char)*name))
        return 0;
    reader->at += len + 1;
    while (len > 0 && is_blank(name[len - 1]))
        len--;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return 0;
    *ret_name = name;
    return len;
}

/* From behind a quote to behind the one that ends it; false where none does. */
static bool read_quoted(struct reader *reader, char quote, struct buf *out)
{
    while (*reader->at) {
        if (quote == '"' && *reader->at == '\\') {
            if (joins_lines(reader))
                continue;
            if (reader->at[1] && strchr("\"\\`$", reader->at[1]))
                reader->at++;
            buf_char(out, next(reader));
            continue;
        }
        char c = next(reader);
        if (c == quote)
            return true;
        buf_char(out, c);
    }
    return false;
}

/* Up to the line's end. Once it has begun, quotes are part of it. */
static void read_bare(struct reader *reader, struct buf *out)
{
    size_t kept = out->len; /* up to the last that is no space */
    while (*reader->at && *reader->at != '\n') {
        bool blank = is_blank(*reader->at);
        if (*reader->at == '\\') {
            if (joins_lines(reader))
                continue;
            if (*++reader->at == '\0')
                break;
        }
        buf_char(out, next(reader));
        kept = blank ? kept : out->len;
    }
    out->len = kept;
}

/* False where a quote has no end. */
static bool read_value(struct reader *reader, struct buf *out)
{
    for (;;) {
        while (is_blank(*reader->at))
            reader->at++;
        char c = *reader->at;
        if (c == '\0' || c == '\n')
            return true;
        if (c != '\'' && c != '"') {
            read_bare(reader, out);
            return true;
        }
        reader->at++;
        if (!read_quoted(reader, c, out))
            return false;
    }
}

static void read_pair(struct reader *reader, const char *path, struct buf *pairs, struct buf *problems)
{
    unsigned line = reader->line;
    const char *name = NULL;
    size_t len = read_name(reader, &name);
    if (len == 0) {
        buf_format(problems, "CONFIG_FILE: %s: line %u is not KEY=VALUE\n", path, line);
        skip_line(reader);
        return;
    }
    buf_append(pairs, name, len);
    buf_char(pairs, '\0');
    if (!read_value(reader, pairs))
        buf_format(problems, "CONFIG_FILE: %s: line %u has a quote without an end\n", path, line);
    buf_char(pairs, '\0');
}

void config_file_parse(const char *text, const char *path, struct buf *pairs, struct buf *problems)
{
    struct reader reader = {text, 1};
    while (*reader.at) {
        if (isspace((unsigned char)*reader.at))
            (void)next(&reader);
        else if (*reader.at == '#' || *reader.at == ';')
            skip_line(&reader);
        else
            read_pair(&reader, path, pairs, problems);
    }
}

const char *config_file_find(const struct buf *pairs, const char *name)
{
    const char *found = NULL;
    for (size_t at = 0; at < pairs->len;) {
        const char *pair = pairs->data + at, *value = pair + strlen(pair) + 1;
        if (strcmp(pair, name) == 0)
            found = value;
        at = (size_t)(value - pairs->data) + strlen(value) + 1;
    }
    return found;
}
