#include "amqp_url.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "amqp.h"
#include "buf.h"
#include "cleanup.h"
#include "mem.h"

enum {
    URL_MAX_BYTES = 2048,
    PORT_PLAIN = 5672,
    PORT_TLS = 5671,
    VHOST_MAX_BYTES = 255,
    HOST_MAX_BYTES = 253
};

/* A part of the text, not terminated. */
struct span {
    const char *at;
    size_t len;
};

static struct span span_between(const char *start, const char *end)
{
    return (struct span){start, (size_t)(end - start)};
}

static const char *span_end(struct span span)
{
    return span.at + span.len;
}

static const char *span_find(struct span span, char c)
{
    return span.len ? memchr(span.at, c, span.len) : NULL;
}

static const char *span_find_last(struct span span, char c)
{
    return span.len ? memrchr(span.at, c, span.len) : NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct span span_trim(struct span span)
{
    while (span.len > 0 && is_blank(span.at[0]))
        span = (struct span){span.at + 1, span.len - 1};
    while (span.len > 0 && is_blank(span.at[span.len - 1]))
        span.len--;
    return span;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* NULL on a broken escape and on control characters, whoever wrote them: a NUL would cut the text, the others
 * would break log lines. */
static char *decode(struct span span)
{
    CLEANUP(free_text) char *text = mem_new(span.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < span.len; i++) {
        char c = span.at[i];
        if (c == '%') {
            bool whole = span.len - i > 2;
            int high = whole ? hex_digit(span.at[i + 1]) : -1;
            int low = whole ? hex_digit(span.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7F)
            return NULL;
        text[len++] = c;
    }
    return TAKE(text);
}

/* The parsing functions below return what is wrong, NULL when nothing is. */

static const char *parse_scheme(struct span *rest, struct amqp_url *url)
{
    static const char plain[] = "amqp://", tls[] = "amqps://";
    size_t skipped = 0;
    if (rest->len >= sizeof plain - 1 && strncasecmp(rest->at, plain, sizeof plain - 1) == 0)
        skipped = sizeof plain - 1;
    if (rest->len >= sizeof tls - 1 && strncasecmp(rest->at, tls, sizeof tls - 1) == 0)
        skipped = sizeof tls - 1;
    if (skipped == 0)
        return "it does not begin with amqp:// or amqps://";
    url->tls = skipped == sizeof tls - 1;
    *rest = (struct span){rest->at + skipped, rest->len - skipped};
    return NULL;
}

static const char *parse_login(struct span login, struct amqp_url *url)
{
    const char *colon = span_find(login, ':');
    struct span user = colon ? span_between(login.at, colon) : login;
    struct span password = colon ? span_between(colon + 1, span_end(login)) : (struct span){"", 0};
    if (user.len == 0)
        return "the user name is empty";
    url->user = decode(user);
    url->password = decode(password);
    if (!url->user || !url->password)
        return "the user name or the password has a wrong %XX";
    return NULL;
}

static const char *parse_port(struct span digits, struct amqp_url *url)
{
    long port = 0;
    for (size_t i = 0; i < digits.len && port <= UINT16_MAX; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9')
            return "the port is not a number";
        port = port * 10 + (digits.at[i] - '0');
    }
    if (port < 1 || port > UINT16_MAX)
        return "the port is not in 1..65535";
    url->port = (int)port;
    return NULL;
}

static bool host_is_valid(struct span host, bool ipv6)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    static const char address[] = "0123456789abcdefABCDEF:.";
    if (host.len == 0 || host.len > HOST_MAX_BYTES)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        if (host.at[i] == '\0' || !strchr(ipv6 ? address : letters, host.at[i]))
            return false;
    }
    return true;
}

static const char *parse_host_port(struct span text, struct amqp_url *url)
{
    bool ipv6 = text.len > 0 && text.at[0] == '[';
    struct span host = text;
    const char *colon = span_find(text, ':');
    if (ipv6) {
        const char *bracket = span_find(text, ']');
        if (!bracket)
            return "a ']' is missing";
        host = span_between(text.at + 1, bracket);
        colon = bracket + 1 < span_end(text) ? bracket + 1 : NULL;
        if (colon && *colon != ':')
            return "only a port may follow the address";
    } else if (colon) {
        host = span_between(text.at, colon);
        if (colon != span_find_last(text, ':'))
            return "an IPv6 address needs brackets";
    }
    if (host.len == 0)
        return "the host is missing";
    if (!host_is_valid(host, ipv6))
        return "the host has a character that is not allowed";
    url->host = mem_copy(host.at, host.len);
    url->port = url->tls ? PORT_TLS : PORT_PLAIN;
    return colon ? parse_port(span_between(colon + 1, span_end(text)), url) : NULL;
}

static const char *parse_vhost(struct span text, struct amqp_url *url)
{
    if (span_find(text, '/') || span_find(text, '@'))
        return "a '/' or '@' inside a part is written %2F or %40";
    url->vhost = decode(text.len ? text : (struct span){"/", 1});
    if (!url->vhost)
        return "the virtual host has a wrong %XX";
    return strlen(url->vhost) > VHOST_MAX_BYTES ? "the virtual host's name is too long" : NULL;
}

static const char *parse_url(struct span text, struct amqp_url *url)
{
    if (text.len == 0)
        return "it is empty";
    if (text.len > URL_MAX_BYTES)
        return "it is too long";
    const char *wrong = parse_scheme(&text, url);
    if (wrong)
        return wrong;
    if (span_find(text, '?') || span_find(text, '#'))
        return "parameters are not supported; a '?' or '#' inside a part is written %3F or %23";
    const char *slash = span_find(text, '/');
    struct span authority = slash ? span_between(text.at, slash) : text;
    struct span vhost = slash ? span_between(slash + 1, span_end(text)) : (struct span){"", 0};
    const char *at = span_find_last(authority, '@');
    if (at)
        wrong = parse_login(span_between(authority.at, at), url);
    else
        wrong = parse_login((struct span){"guest:guest", 11}, url);
    if (!wrong)
        wrong = parse_host_port(at ? span_between(at + 1, span_end(authority)) : authority, url);
    if (!wrong)
        wrong = parse_vhost(vhost, url);
    if (wrong)
        return wrong;
    bool ipv6 = strchr(url->host, ':') != NULL;
    bool usual = strcmp(url->vhost, "/") == 0; /* then shown as the Node.js version did, without */
    url->shown = mem_format("amqp%s://%s:***@%s%s%s:%d%s%s", url->tls ? "s" : "", url->user, ipv6 ? "[" : "",
                            url->host, ipv6 ? "]" : "", url->port, usual ? "" : "/", usual ? "" : url->vhost);
    return NULL;
}

enum status amqp_urls_parse(struct amqp_urls *ret_urls, const char *text, struct err *err)
{
    CLEANUP(amqp_urls_done) struct amqp_urls urls = {.items = mem_new(AMQP_URLS_MAX * sizeof *urls.items)};
    struct span rest = {text, strlen(text)};
    for (;;) {
        if (urls.count == AMQP_URLS_MAX)
            return err_set(err, STATUS_INVALID, "more than %d RabbitMQ URLs", AMQP_URLS_MAX);
        const char *comma = span_find(rest, ',');
        struct span one = span_trim(comma ? span_between(rest.at, comma) : rest);
        const char *wrong = parse_url(one, &urls.items[urls.count++]);
        if (wrong)
            return err_set(err, STATUS_INVALID, "RabbitMQ URL %zu: %s", urls.count, wrong);
        if (!comma)
            break;
        rest = span_between(comma + 1, span_end(rest));
    }
    *ret_urls = urls;
    urls = (struct amqp_urls){0};
    return STATUS_OK;
}

void amqp_urls_done(struct amqp_urls *urls)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct amqp_url *url = &urls->items[i];
        if (url->password)
            explicit_bzero(url->password, strlen(url->password));
        free(url->host);
        free(url->user);
        free(url->password);
        free(url->vhost);
        free(url->shown);
    }
    free(urls->items);
    *urls = (struct amqp_urls){0};
}

enum status amqp_check_urls(const char *urls, struct err *err)
{
    CLEANUP(amqp_urls_done) struct amqp_urls parsed = {0};
    return amqp_urls_parse(&parsed, urls, err);
}
