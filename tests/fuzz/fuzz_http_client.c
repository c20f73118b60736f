/* The header lines of a reply, as libcurl gives them one by one. */
#include "fuzz.h"
#include "http_client_internal.h"

static const char name[] = "x-consul-index:";

static bool is_index(const char *line, size_t len)
{
    if (len < sizeof name - 1)
        return false;
    for (size_t i = 0; i < sizeof name - 1; i++)
        if ((line[i] >= 'A' && line[i] <= 'Z' ? line[i] | 32 : line[i]) != name[i])
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_exchange exchange = {.index = 41};
    while (size > 0 && size <= INPUT_MAX) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) + 1 : size;
        const char *line = at_the_edge(data, len);
        uint64_t before = exchange.index;
        http_exchange_take_header(&exchange, line, len);
        MUST(exchange.index == before || is_index(line, len));

        CLEANUP(free_text) char *text = mem_copy(line, len);
        const char *value = text + sizeof name - 1;
        if (is_index(line, len) && len >= sizeof name) {
            value += strspn(value, " \t");
            size_t digits = strspn(value, "0123456789");
            MUST(digits > 0 || exchange.index == 0);
            if (digits > 0 && digits < 19 && len < 40)
                MUST(exchange.index == strtoull(value, NULL, 10));
        }
        data += len;
        size -= len;
    }
    return 0;
}
