#include "ids.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "mem.h"

/* A refill a page of random bytes instead of a system call an id. Forking would repeat ids; the daemons never
 * fork. */
static void random_bytes(unsigned char *out, size_t len)
{
    static _Thread_local unsigned char pool[1024];
    static _Thread_local size_t left;
    if (left < len) {
        size_t filled = 0;
        while (filled < sizeof pool) {
            ssize_t got = getrandom(pool + filled, sizeof pool - filled, 0);
            if (got > 0)
                filled += (size_t)got;
        }
        left = sizeof pool;
    }
    left -= len;
    memcpy(out, pool + left, len);
}

static int64_t clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int64_t clock_mono_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t clock_mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t uuid_time_ms(const char *uuid)
{
    int64_t ms = 0;
    for (int i = 0; i < 13; i++) {
        char c = uuid[i], letter = (char)(c | 32);
        int digit = c >= '0' && c <= '9' ? c - '0' : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
        if (i == 8 ? c != '-' : digit < 0)
            return -1;
        ms = i == 8 ? ms : ms * 16 + digit;
    }
    return uuid[13] == '-' && uuid[14] == '7' ? ms : -1;
}

static void hex(const unsigned char *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

void uuid_v7(char out[UUID_SIZE])
{
    unsigned char b[16];
    random_bytes(b, sizeof b);
    uint64_t ms = (uint64_t)clock_wall_ms();
    for (int i = 0; i < 6; i++)
        b[i] = (unsigned char)(ms >> (40 - 8 * i));
    b[6] = (unsigned char)(0x70 | (b[6] & 0x0F));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3F));
    hex(b, 4, out);
    hex(b + 4, 2, out + 9);
    hex(b + 6, 2, out + 14);
    hex(b + 8, 2, out + 19);
    hex(b + 10, 6, out + 24);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[36] = '\0';
}

static void digits(char *out, int width, int number)
{
    for (int i = width - 1; i >= 0; i--, number /= 10)
        out[i] = (char)('0' + number % 10);
}

void timestamp_format(int64_t wall_ms, char out[TIMESTAMP_SIZE])
{
    static const int64_t first = -62167219200000, last = 253402300799999; /* years 0000 and 9999 */
    if (wall_ms < first)
        wall_ms = first;
    if (wall_ms > last)
        wall_ms = last;
    int64_t ms = ((wall_ms % 1000) + 1000) % 1000;
    time_t seconds = (time_t)((wall_ms - ms) / 1000);
    struct tm t;
    gmtime_r(&seconds, &t);
    memcpy(out, "0000-00-00T00:00:00.000Z", TIMESTAMP_SIZE);
    digits(out, 4, t.tm_year + 1900);
    digits(out + 5, 2, t.tm_mon + 1);
    digits(out + 8, 2, t.tm_mday);
    digits(out + 11, 2, t.tm_hour);
    digits(out + 14, 2, t.tm_min);
    digits(out + 17, 2, t.tm_sec);
    digits(out + 20, 3, (int)ms);
}

uint32_t random_below(uint32_t bound)
{
    uint32_t r;
    random_bytes((unsigned char *)&r, sizeof r);
    return (uint32_t)(((uint64_t)r * bound) >> 32);
}

static int lower_hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* That many digits, and not all of them zero. */
static bool is_id(const char *text, size_t len)
{
    bool zero = true;
    for (size_t i = 0; i < len; i++) {
        if (lower_hex_digit(text[i]) < 0)
            return false;
        zero = zero && text[i] == '0';
    }
    return !zero;
}

bool traceparent_valid(const char *text)
{
    enum { LEN = TRACEPARENT_SIZE - 1 };
    if (!text || strnlen(text, LEN) < LEN || text[2] != '-' || text[35] != '-' || text[52] != '-')
        return false;
    if (lower_hex_digit(text[0]) < 0 || lower_hex_digit(text[1]) < 0 || strncmp(text, "ff", 2) == 0)
        return false;
    bool later = strncmp(text, "00", 2) != 0, ends = text[LEN] == '\0' || (later && text[LEN] == '-');
    bool flags = lower_hex_digit(text[53]) >= 0 && lower_hex_digit(text[54]) >= 0;
    return ends && flags && is_id(text + 3, 32) && is_id(text + 36, 16);
}

void traceparent_continue(const char *incoming, char out[TRACEPARENT_SIZE])
{
    unsigned char b[24];
    random_bytes(b, sizeof b);
    b[0] |= 1; /* ids of all zero are invalid (Trace Context section 3.2.2) */
    b[16] |= 1;
    memcpy(out, "00-", sizeof "00-");
    hex(b, 16, out + 3);
    hex(b + 16, 8, out + 36);
    out[35] = out[52] = '-';
    memcpy(out + 53, "01", sizeof "01");
    if (traceparent_valid(incoming)) {
        memcpy(out + 3, incoming + 3, 32);
        out[54] = lower_hex_digit(incoming[54]) & 1 ? '1' : '0';
    }
}

const char *trace_id(const char *traceparent, char out[TRACE_ID_SIZE])
{
    bool valid = traceparent_valid(traceparent);
    (void)text_copy(out, TRACE_ID_SIZE, valid ? traceparent + 3 : "");
    return out;
}
