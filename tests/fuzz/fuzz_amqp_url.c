/* The list of RabbitMQ URLs. */
#include "amqp.h"
#include "amqp_url.h"
#include "fuzz.h"
#include "http_client.h"

static void must_keep_bounds(const struct amqp_url *url)
{
    MUST(url->host && url->host[0] && strlen(url->host) <= 253);
    MUST(url->port >= 1 && url->port <= 65535);
    MUST(url->user && url->user[0] && url->password && url->vhost && url->vhost[0] &&
         strlen(url->vhost) <= 255);
    const char *const texts[] = {url->host, url->user, url->password, url->vhost, url->shown};
    for (size_t i = 0; i < COUNT(texts); i++)
        for (const char *c = texts[i]; *c; c++)
            MUST((unsigned char)*c >= ' ' && *c != 0x7F);
}

static void put_url(struct buf *out, const struct amqp_url *url, const char *password)
{
    bool ipv6 = strchr(url->host, ':') != NULL;
    buf_text(out, url->tls ? "amqps://" : "amqp://");
    http_put_encoded(out, url->user);
    buf_char(out, ':');
    http_put_encoded(out, password);
    buf_format(out, ipv6 ? "@[%s]:%d/" : "@%s:%d/", url->host, url->port);
    http_put_encoded(out, url->vhost);
}

/* Written in full it is the same URL, and what is shown does not depend on the password. */
static void must_read_back(const struct amqp_url *url, const char *password)
{
    CLEANUP(buf_done) struct buf text;
    CLEANUP(amqp_urls_done) struct amqp_urls again = {0};
    buf_init(&text, INPUT_MAX);
    put_url(&text, url, password);
    if (text.len > 2048) /* an escape takes three bytes of its place */
        return;
    MUST(amqp_urls_parse(&again, buf_get(&text), NULL) == STATUS_OK && again.count == 1);
    const struct amqp_url *other = &again.items[0];
    MUST(other->tls == url->tls && other->port == url->port && strcmp(other->host, url->host) == 0);
    MUST(strcmp(other->user, url->user) == 0 && strcmp(other->vhost, url->vhost) == 0);
    MUST(strcmp(other->password, password) == 0 && strcmp(other->shown, url->shown) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(free_text) char *text = as_text(data, size);
    CLEANUP(amqp_urls_done) struct amqp_urls urls = {0};
    struct err err = {0};
    enum status status = amqp_urls_parse(&urls, text, &err);
    must_tell(&err, status);
    MUST(amqp_check_urls(text, NULL) == status);
    if (status != STATUS_OK) {
        MUST(status == STATUS_INVALID && urls.count == 0 && !urls.items);
        return 0;
    }
    MUST(urls.count >= 1 && urls.count <= AMQP_URLS_MAX);
    for (size_t i = 0; i < urls.count; i++) {
        must_keep_bounds(&urls.items[i]);
        must_read_back(&urls.items[i], urls.items[i].password);
        must_read_back(&urls.items[i], "another");
    }
    return 0;
}
