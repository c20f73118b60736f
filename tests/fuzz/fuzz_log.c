/* Text from outside in a log line: it can forge no line, reach no terminal, break no JSON. The input: a byte
 * of flags, then two texts, apart by a NUL. */
#include "fuzz.h"
#include "log.h"

enum { JSON = 1, BLOCK = 2, LINE_END = 0x1E, MESSAGE_MAX_BYTES = 4096 };
static const char one_line[] = "%s : %s", block[] = "\n📩 %s\n   Style: %s\n";

/* What log_event() writes goes to a file in memory. */
static char *written(const char *format, const char *first, const char *second)
{
    static int file = -1;
    if (file < 0) {
        file = memfd_create("log", MFD_CLOEXEC);
        MUST(file >= 0 && dup2(file, STDOUT_FILENO) == STDOUT_FILENO);
    }
    MUST(lseek(file, 0, SEEK_SET) == 0 && ftruncate(file, 0) == 0);
    log_event(LOG_ERROR, "a.b", LOG_FIELDS(LOG_TEXT("first", first), LOG_NUMBER("n", -1)), format, first,
              second);
    off_t size = lseek(file, 0, SEEK_CUR);
    MUST(size > 0);
    char *line = mem_new((size_t)size + 1);
    MUST(pread(file, line, (size_t)size, 0) == size && strlen(line) == (size_t)size);
    return line;
}

static size_t count(const char *text, char c)
{
    size_t found = 0;
    for (; *text; text++)
        found += *text == c;
    return found;
}

/* The line ends are those of the format, or, where nobody could tell them from the text's, the last one
 * alone. */
static void must_be_pretty(const char *lines, const char *format, bool doubtful)
{
    MUST(is_utf8(lines) && lines[strlen(lines) - 1] == '\n');
    MUST(count(lines, '\n') == (doubtful ? 1 : 1 + count(format, '\n')));
    for (const char *c = lines; *c; c++) {
        MUST(*c == '\n' || ((unsigned char)*c >= ' ' && *c != 0x7F));
        MUST((unsigned char)*c != 0xC2 || (unsigned char)c[1] >= 0xA0); /* U+0080 to U+009F */
    }
}

static void must_be_one_object(const char *line, const char *first)
{
    CLEANUP(json_free) cJSON *object = NULL;
    MUST(count(line, '\n') == 1 && json_parse(line, strlen(line), &object, NULL) == STATUS_OK);
    must_have_text(object, "event", "a.b");
    must_have_text(object, "service", "fuzz");
    MUST(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(object, "message")));
    if (is_utf8(first) && first[0] && strlen(first) <= 1024)
        must_have_text(object, "first", first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_MAX)
        return 0;
    unsigned flags = *data++;
    size--;
    CLEANUP(free_text) char *first = next_text(&data, &size, '\0');
    CLEANUP(free_text) char *second = as_text(data, size);
    const char *format = flags & BLOCK ? block : one_line;
    log_init("fuzz", flags & JSON ? "json" : "pretty", "info");
    CLEANUP(free_text) char *line = written(format, first, second);
    bool doubtful = strchr(first, LINE_END) || strchr(second, LINE_END) ||
                    strlen(first) + strlen(second) + strlen(format) - 4 >= MESSAGE_MAX_BYTES;
    if (flags & JSON)
        must_be_one_object(line, first);
    else
        must_be_pretty(line, format, doubtful);
    return 0;
}
