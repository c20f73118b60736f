#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ids.h"
#include "json.h"
#include "utf8.h"

static void put_escape(struct buf *out, unsigned char c)
{
    static const char letters[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\'};
    if (letters[c]) {
        buf_char(out, '\\');
        buf_char(out, letters[c]);
    } else {
        buf_format(out, "\\u%04x", c);
    }
}

/* How many bytes from here on are themselves in JSON. */
static size_t plain_run(const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        unsigned char c = (unsigned char)bytes[at];
        if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\')
            break;
        at++;
    }
    return at;
}

/* What is not UTF-8 (a library's error text, say) becomes U+FFFD, so that the output is JSON whatever comes
 * in. */
void json_put_text_n(struct buf *out, const char *bytes, size_t len)
{
    size_t run = 0, at = 0; /* bytes[run..at) can be copied as they are */
    buf_char(out, '"');
    while ((at += plain_run(bytes + at, len - at)) < len) {
        unsigned char c = (unsigned char)bytes[at];
        bool escape = c < 0x80;
        size_t step = escape ? 0 : utf8_step(bytes + at, len - at);
        if (step > 0) {
            at += step;
            continue;
        }
        buf_append(out, bytes + run, at - run);
        if (escape)
            put_escape(out, c);
        else
            buf_text(out, "\xEF\xBF\xBD");
        run = ++at;
    }
    buf_append(out, bytes + run, at - run);
    buf_char(out, '"');
}

void json_put_text(struct buf *out, const char *text)
{
    if (text)
        json_put_text_n(out, text, strlen(text));
    else
        buf_text(out, "null");
}

static void put_fraction(struct buf *out, double number)
{
    char digits[40];
    int len;
    /* 15 digits are enough for whatever was written with 15 or fewer; subnormals carry fewer, down to one. */
    int precision = fabs(number) < DBL_MIN ? 1 : 15;
    do
        len = snprintf(digits, sizeof digits, "%.*g", precision, number);
    while (++precision <= 17 && strtod(digits, NULL) != number);
    buf_append(out, digits, (size_t)len);
}

void json_put_number(struct buf *out, double number)
{
    static const double exact_max = 9007199254740992; /* 2^53 */
    if (!isfinite(number))
        buf_text(out, "null");
    else if (number == 0 && signbit(number))
        buf_text(out, "-0");
    else if (fabs(number) <= exact_max && (double)(long long)number == number)
        buf_number(out, (long long)number);
    else
        put_fraction(out, number);
}

void json_put_name(struct buf *out, const char *name)
{
    const char *last = out->len > 0 ? out->data + out->len - 1 : "{";
    if (*last != '{' && *last != '[')
        buf_char(out, ',');
    buf_char(out, '"');
    buf_text(out, name);
    buf_append(out, "\":", 2);
}

void json_put_field(struct buf *out, const char *name, const char *text)
{
    json_put_name(out, name);
    json_put_text(out, text);
}

void json_put_time_field(struct buf *out, const char *name, int64_t wall_ms)
{
    char text[TIMESTAMP_SIZE];
    timestamp_format(wall_ms, text);
    json_put_field(out, name, text);
}
