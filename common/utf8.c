#include "utf8.h"

#include <string.h>

#include "json.h"

size_t utf8_step(const char *bytes, size_t len)
{
    const unsigned char *b = (const unsigned char *)bytes;
    if (len > 0 && b[0] < 0x80)
        return 1;
    if (len < 2 || b[0] < 0xC2 || b[0] > 0xF4)
        return 0;
    size_t step = b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    /* The second byte's bounds keep out overlong forms, surrogates and what is over U+10FFFF. */
    unsigned char least = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char most = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    if (len < step || b[1] < least || b[1] > most)
        return 0;
    for (size_t i = 2; i < step; i++)
        if ((b[i] & 0xC0) != 0x80)
            return 0;
    return step;
}

size_t utf8_length(const char *text)
{
    size_t points = 0;
    for (; *text; text++)
        points += ((unsigned char)*text & 0xC0) != 0x80;
    return points;
}

size_t utf8_prefix(const char *text, size_t max_points)
{
    size_t len = strlen(text), at = 0, step;
    while (max_points-- > 0 && (step = utf8_step(text + at, len - at)) > 0)
        at += step;
    return at;
}

bool utf8_valid(const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        size_t step = utf8_step(bytes + at, len - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}
