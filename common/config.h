/* Settings: one table a program drives parsing, --help, --check-config and the README. Values come from the
 * environment, else from KEY=VALUE lines (config_file.h) in the file that CONFIG_FILE names, else from the
 * table. A secret may also be given as NAME_FILE (a file's content without its trailing line end).
 *
 * Read at start, and anew on SIGHUP. What is read anew counts as a whole or not at all, and of it the
 * settings marked `live` alone: those that one owner can take over between two steps of its work. The others
 * name what is opened once and held (ports, the database, the connections to RabbitMQ and Consul with their
 * logins), what others know the process by (SERVICE_NAME), or who may come in at all: they need a restart.
 *
 * The values of a config belong to the main thread; the text of a setting that is not live stays for as long
 * as the config does, and any thread may read it. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "status.h"

enum setting_type {
    SETTING_TEXT,
    SETTING_NUMBER, /* a decimal integer, min..max */
    SETTING_CHOICE, /* one word of `choices` */
};

struct setting {
    const char *name;
    enum setting_type type;
    const char *fallback; /* as it would be written; "" = none */
    long min, max;
    const char *choices; /* "pretty json" */
    bool secret;         /* never shown; NAME_FILE is read too */
    bool empty_counts;   /* an empty value is a value; elsewhere it means the default */
    bool live;           /* may change while the program runs */
    /* A further check of a text that is not empty; NULL when there is none. */
    enum status (*check)(const char *value, struct err *err);
    const char *help;
};

/* Rows of a table; further members may be named behind their help. */
#define TEXT_SETTING(name_, fallback_, ...)                                                                  \
    {                                                                                                        \
        .name = (name_), .type = SETTING_TEXT, .fallback = (fallback_), .help = __VA_ARGS__                  \
    }
#define SECRET_SETTING(name_, fallback_, ...)                                                                \
    {                                                                                                        \
        .name = (name_), .type = SETTING_TEXT, .secret = true, .fallback = (fallback_), .help = __VA_ARGS__  \
    }
#define NUMBER_SETTING(name_, fallback_, min_, max_, ...)                                                    \
    {                                                                                                        \
        .name = (name_), .type = SETTING_NUMBER, .fallback = (fallback_), .min = (min_), .max = (max_),      \
        .help = __VA_ARGS__                                                                                  \
    }
#define CHOICE_SETTING(name_, fallback_, choices_, ...)                                                      \
    {                                                                                                        \
        .name = (name_), .type = SETTING_CHOICE, .fallback = (fallback_), .choices = (choices_),             \
        .help = __VA_ARGS__                                                                                  \
    }

struct config;

/* Reads all settings of the table (which must outlive the config). Everything that is wrong is appended to
 * `problems`, a line each ("RABBITMQ_PORT: …"); nothing wrong leaves it empty. Never NULL; free with
 * config_free. */
struct config *config_load(const struct setting *settings, size_t count, struct buf *problems);
void config_free(struct config *config);

/* The settings of the same table, read anew: config_load once more. */
struct config *config_load_again(const struct config *config, struct buf *problems);

/* Takes from `wanted` (config_load_again, without problems) the live settings that differ; `wanted` is to be
 * freed and nothing else. What was taken is appended to `taken`, what differs and is not live to `restart`:
 * "LOG_LEVEL (info → debug), SOIREES_TOKEN", a secret by its name alone, a URL without its user. */
void config_take_live(struct config *config, struct config *wanted, struct buf *taken, struct buf *restart);

/* The value of a setting of the table; asking for another name aborts (a programmer's error). Borrowed. */
const char *config_text(const struct config *config, const char *name);
long config_number(const struct config *config, const char *name);
bool config_is(const struct config *config, const char *name, const char *value);

/* The table for --help: name, default, what it means, whether it is live. */
void config_describe(const struct setting *settings, size_t count, struct buf *out);

/* The table's names and values as KEY=VALUE lines, for --print-config: a secret as ***, and so is what a URL
 * says before its '@'. */
void config_print(const struct config *config, struct buf *out);

/* The whole file as text (free() it), at most 64 KiB without NUL; NULL with *ret_reason where it is not that.
 */
char *config_read_file(const char *path, const char **ret_reason);

/* For struct setting's check: a file that can be read. */
enum status config_check_readable(const char *value, struct err *err);

#endif
