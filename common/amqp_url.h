/* The list of RabbitMQ URLs, taken apart (https://www.rabbitmq.com/docs/uri-spec). Pure: no I/O, no clock.
 * Private to amqp*.c and its test; the rest of the project checks its setting with amqp_check_urls(). */
#ifndef COMMON_AMQP_URL_H
#define COMMON_AMQP_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

struct amqp_url {
    bool tls;   /* amqps */
    char *host; /* without the brackets of an IPv6 address */
    int port;
    char *user, *password, *vhost; /* decoded */
    char *shown;                   /* for people: the password as *** */
};

struct amqp_urls {
    struct amqp_url *items;
    size_t count; /* 1..AMQP_URLS_MAX once parsed */
};

/* Takes "amqp://user:password@host:port/vhost[,…]" apart; spaces around a URL are allowed.
 * Absent parts: guest:guest, port 5672 (5671 with amqps), vhost "/"; an empty vhost ("amqp://host/") is "/"
 * as well. A comma, '/', '?', '#' or '%' inside a part is written %2C and so on. Parameters (?heartbeat=…)
 * are refused, since nothing would heed them. INVALID with the URL's number in the list and what is wrong,
 * never its text. */
enum status amqp_urls_parse(struct amqp_urls *ret_urls, const char *text, struct err *err);

/* Wipes the passwords and frees; zeroed storage is fine. For CLEANUP(). */
void amqp_urls_done(struct amqp_urls *urls);

#endif
