/* TRUSTED_PROXIES (the input's first line) and X-Forwarded-For (the rest). */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "fuzz.h"
#include "proxies.h"

static bool is_address(const char *text)
{
    unsigned char bits[16];
    return inet_pton(AF_INET, text, bits) == 1 || inet_pton(AF_INET6, text, bits) == 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr = {0x0100007F}};
    CLEANUP(free_text) char *trusted = next_text(&data, &size, '\n');
    CLEANUP(free_text) char *forwarded = as_text(data, size);
    static const struct proxies none;
    struct proxies proxies;
    struct err err = {0};
    char client[ADDRESS_SIZE], direct[ADDRESS_SIZE];
    proxies_client(&none, (const struct sockaddr *)&peer, forwarded, direct);
    MUST(strcmp(direct, "127.0.0.1") == 0);
    enum status status = proxies_parse(trusted, &proxies, &err);
    MUST(status == proxies_check(trusted, &err));
    if (status != STATUS_OK) {
        MUST(status == STATUS_INVALID && err.text[0]);
        return 0;
    }
    MUST(proxies.count <= PROXIES_MAX);
    proxies_client(&proxies, (const struct sockaddr *)&peer, forwarded, client);
    MUST(is_address(client));
    proxies_client(&proxies, (const struct sockaddr *)&peer, "", direct);
    MUST(strcmp(direct, "127.0.0.1") == 0);
    return 0;
}
