#include "proxies.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "mem.h"

static const unsigned char mapped[12] = {
    [10] = 0xFF, [11] = 0xFF}; /* ::ffff:0:0/96, RFC 4291 section 2.5.5.2 */

/* An address as text; *ret_width is how many bits its kind has. */
static bool read_address(const char *text, unsigned char out[16], unsigned *ret_width)
{
    memcpy(out, mapped, sizeof mapped);
    *ret_width = 32;
    if (inet_pton(AF_INET, text, out + sizeof mapped) == 1)
        return true;
    *ret_width = 128;
    return inet_pton(AF_INET6, text, out) == 1;
}

static void write_address(const unsigned char bits[16], char out[ADDRESS_SIZE])
{
    bool is_v4 = memcmp(bits, mapped, sizeof mapped) == 0;
    if (!inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? bits + sizeof mapped : bits, out, ADDRESS_SIZE))
        out[0] = '\0';
}

static bool read_range(char *text, struct proxy_range *ret_range)
{
    unsigned width = 0;
    char *slash = strchr(text, '/');
    if (slash)
        *slash++ = '\0';
    if (!read_address(text, ret_range->bits, &width))
        return false;
    unsigned length = width;
    if (slash) {
        size_t digits = strspn(slash, "0123456789");
        if (digits == 0 || digits > 3 || slash[digits])
            return false;
        length = (unsigned)strtoul(slash, NULL, 10);
    }
    ret_range->length = 128 - width + length;
    return length <= width;
}

enum status proxies_parse(const char *text, struct proxies *ret_proxies, struct err *err)
{
    CLEANUP(free_text) char *copy = mem_text(text);
    struct proxies proxies = {0};
    char *rest = NULL;
    for (char *word = strtok_r(copy, ", \t", &rest); word; word = strtok_r(NULL, ", \t", &rest)) {
        CLEANUP(free_text) char *shown = mem_text(word);
        if (proxies.count == PROXIES_MAX)
            return err_set(err, STATUS_INVALID, "more than %d addresses", PROXIES_MAX);
        if (!read_range(word, &proxies.ranges[proxies.count++]))
            return err_set(err, STATUS_INVALID, "'%.64s' is not an address or a range (10.0.0.0/8)", shown);
    }
    *ret_proxies = proxies;
    return STATUS_OK;
}

enum status proxies_check(const char *text, struct err *err)
{
    struct proxies proxies;
    return proxies_parse(text, &proxies, err);
}

static bool is_trusted(const struct proxies *proxies, const unsigned char bits[16])
{
    for (size_t i = 0; i < proxies->count; i++) {
        const struct proxy_range *range = &proxies->ranges[i];
        unsigned bytes = range->length / 8, left = range->length % 8;
        if (memcmp(range->bits, bits, bytes) != 0)
            continue;
        if (left == 0 || ((range->bits[bytes] ^ bits[bytes]) >> (8 - left)) == 0)
            return true;
    }
    return false;
}

/* Takes the last of `len` bytes' addresses off, port and brackets included; false when it is none. */
static bool take_last(const char *text, size_t *len, unsigned char out[16])
{
    size_t start = *len, end = *len;
    while (start > 0 && text[start - 1] != ',')
        start--;
    *len = start > 0 ? start - 1 : 0;
    while (start < end && (text[start] == ' ' || text[start] == '\t'))
        start++;
    while (end > start && (text[end - 1] == ' ' || text[end - 1] == '\t'))
        end--;
    char word[64];
    if (end - start == 0 || end - start >= sizeof word)
        return false;
    memcpy(word, text + start, end - start);
    word[end - start] = '\0';
    char *address = word, *colon = strchr(word, ':');
    if (word[0] == '[') {
        char *close = strchr(++address, ']');
        if (!close)
            return false;
        *close = '\0';
    } else if (colon && !strchr(colon + 1, ':')) {
        *colon = '\0'; /* 192.0.2.1:4711 */
    }
    unsigned width;
    return read_address(address, out, &width);
}

void proxies_client(const struct proxies *proxies, const struct sockaddr *peer, const char *forwarded,
                    char out[ADDRESS_SIZE])
{
    unsigned char bits[16];
    out[0] = '\0';
    if (peer && peer->sa_family == AF_INET) {
        memcpy(bits, mapped, sizeof mapped);
        memcpy(bits + sizeof mapped, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    } else if (peer && peer->sa_family == AF_INET6) {
        memcpy(bits, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, sizeof bits);
    } else {
        return;
    }
    size_t len = forwarded ? strlen(forwarded) : 0;
    unsigned char before[16];
    while (len > 0 && is_trusted(proxies, bits) && take_last(forwarded, &len, before))
        memcpy(bits, before, sizeof bits);
    write_address(bits, out);
}
