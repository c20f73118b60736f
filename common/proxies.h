/* Whose X-Forwarded-For is believed (TRUSTED_PROXIES), and the client's address that follows from it. What is
 * found is for the log alone: nothing is allowed or refused by an address. Pure: no I/O. */
#ifndef COMMON_PROXIES_H
#define COMMON_PROXIES_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

struct sockaddr;

enum { PROXIES_MAX = 64, ADDRESS_SIZE = 46 };

struct proxies {
    size_t count;
    struct proxy_range {
        unsigned char bits[16]; /* IPv6; IPv4 as ::ffff:a.b.c.d */
        unsigned length;        /* how many of the 128 count */
    } ranges[PROXIES_MAX];
};

/* Reads "10.0.0.1, 192.168.0.0/16 fd00::/8": addresses and ranges by commas or spaces; "" is none. INVALID
 * names the one that is wrong (English). */
enum status proxies_parse(const char *text, struct proxies *ret_proxies, struct err *err);

/* The check alone, for settings. */
enum status proxies_check(const char *text, struct err *err);

/* Writes the address of the client behind `peer` (NULL: unknown). X-Forwarded-For is read from its end for as
 * long as who wrote it is trusted: the first address that is not is the client's. `forwarded` holds the lines
 * of the header, joined by commas in their order (RFC 9110 section 5.3); NULL when there is none. "" when
 * nothing is known. */
void proxies_client(const struct proxies *proxies, const struct sockaddr *peer, const char *forwarded,
                    char out[ADDRESS_SIZE]);

#endif
