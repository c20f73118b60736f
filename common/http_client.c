#include "http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http_client_internal.h"
#include "ids.h"
#include "mem.h"
#include "pulse.h"

enum {
    TURN_MS = 1000,
    CONNECT_TIMEOUT_MS = 5000,
    KEEP_CONNECTION_S = 10,
    KEEP_CAS_S = 3600,
    RECEIVE_BYTES = 4096,
};
enum { IDLE_HANDLES_MAX = 32, EVENTS_MAX = 64 };

/* libcurl's sockets are in an epoll set, so that a turn costs what happens in it, and not what is waiting
 * ("multi_socket", libcurl-multi(3)). */
struct http_client {
    CURLM *multi;
    int epoll_fd, wake_fd;
    pthread_t thread;
    bool running;

    pthread_mutex_t mutex; /* guards the tasks and stopping */
    struct http_task *first_task, *last_task;
    bool stopping;

    /* The loop's thread alone. */
    int64_t curl_at_ms;                          /* when libcurl wants to be called; INT64_MAX = not */
    struct http_timer *first_timer, *last_timer; /* by at_ms */
    CURL *idle[IDLE_HANDLES_MAX];
    size_t idle_count;
    struct http_exchange *active;
};

/* ---- tasks ---- */

static void wake(struct http_client *client)
{
    (void)!write(client->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void http_client_post(struct http_client *client, struct http_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&client->mutex);
    if (client->last_task)
        client->last_task->next = task;
    else
        client->first_task = task;
    client->last_task = task;
    pthread_mutex_unlock(&client->mutex);
    wake(client);
}

/* Returns false when the loop is to end. */
static bool run_tasks(struct http_client *client)
{
    pthread_mutex_lock(&client->mutex);
    struct http_task *task = client->first_task;
    client->first_task = client->last_task = NULL;
    bool stopping = client->stopping;
    pthread_mutex_unlock(&client->mutex);
    while (task) {
        struct http_task *next = task->next;
        task->run(task);
        task = next;
    }
    return !stopping;
}

/* ---- timers: a list sorted by time, searched from its end, since most delays are the longest yet ---- */

void http_client_disarm(struct http_client *client, struct http_timer *timer)
{
    if (!timer->armed)
        return;
    if (timer->previous)
        timer->previous->next = timer->next;
    else
        client->first_timer = timer->next;
    if (timer->next)
        timer->next->previous = timer->previous;
    else
        client->last_timer = timer->previous;
    timer->armed = false;
}

void http_client_after(struct http_client *client, struct http_timer *timer, int64_t delay_ms)
{
    http_client_disarm(client, timer);
    timer->at_ms = clock_mono_ms() + delay_ms;
    timer->armed = true;
    struct http_timer *before = client->last_timer;
    while (before && before->at_ms > timer->at_ms)
        before = before->previous;
    timer->previous = before;
    timer->next = before ? before->next : client->first_timer;
    if (timer->next)
        timer->next->previous = timer;
    else
        client->last_timer = timer;
    if (before)
        before->next = timer;
    else
        client->first_timer = timer;
}

static void fire_timers(struct http_client *client)
{
    int64_t now = clock_mono_ms();
    while (client->first_timer && client->first_timer->at_ms <= now) {
        struct http_timer *timer = client->first_timer;
        http_client_disarm(client, timer);
        timer->fire(timer);
    }
}

static int wait_ms(const struct http_client *client)
{
    int64_t at_ms = client->curl_at_ms;
    if (client->first_timer && client->first_timer->at_ms < at_ms)
        at_ms = client->first_timer->at_ms;
    int64_t now_ms = clock_mono_ms();
    return at_ms <= now_ms ? 0 : at_ms - now_ms < TURN_MS ? (int)(at_ms - now_ms) : TURN_MS;
}

/* ---- exchanges ---- */

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_exchange *exchange = arg;
    buf_append(&exchange->reply, bytes, size * count);
    return buf_ok(&exchange->reply) ? size * count : 0; /* 0: libcurl gives up with CURLE_WRITE_ERROR */
}

void http_exchange_take_header(struct http_exchange *exchange, const char *bytes, size_t len)
{
    static const char name[] = "X-Consul-Index:";
    if (len < sizeof name || strncasecmp(bytes, name, sizeof name - 1) != 0)
        return;
    char value[32];
    size_t rest = len - (sizeof name - 1);
    rest = rest < sizeof value ? rest : sizeof value - 1;
    memcpy(value, bytes + sizeof name - 1, rest);
    value[rest] = '\0';
    const char *digits = value + strspn(value, " \t");
    /* strtoull would take "-1" for the largest number */
    exchange->index = *digits >= '0' && *digits <= '9' ? strtoull(digits, NULL, 10) : 0;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    http_exchange_take_header(arg, bytes, size * count);
    return size * count;
}

/* Before a request goes out on a connection. libcurl repeats one by itself where a connection that it used
 * again turns out to be closed. */
static int on_request(void *arg, char *server_ip, char *local_ip, int server_port, int local_port)
{
    struct http_exchange *exchange = arg;
    (void)server_ip;
    (void)local_ip;
    (void)server_port;
    (void)local_port;
    bool again = exchange->sent;
    exchange->sent = true;
    return again ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static void set_request(CURL *easy, struct http_exchange *exchange)
{
    for (size_t i = 0; i < HTTP_HEADERS_MAX && exchange->headers[i]; i++)
        exchange->header_list = curl_slist_append(exchange->header_list, exchange->headers[i]);
    curl_easy_setopt(easy, CURLOPT_URL, exchange->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* an id may be "." or ".." */
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, exchange->method);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->header_list);
    if (exchange->body) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, exchange->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(exchange->body));
    }
    if (exchange->ca_file && *exchange->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, exchange->ca_file);
    /* Else Debian's libcurl looks into /etc/ssl/certs, too: it would trust the system's CAs beside those of
     * ca_file, and read all of them anew for every connection (CURLOPT_CA_CACHE_TIMEOUT(3)). */
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, (long)KEEP_CAS_S);
    if (exchange->direct)
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (exchange->once) {
        curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
        curl_easy_setopt(easy, CURLOPT_PREREQDATA, exchange);
    }
}

static void set_limits(CURL *easy, const struct http_exchange *exchange)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    long timeout_ms = exchange->timeout_ms > 0 ? exchange->timeout_ms : 1; /* for curl 0 means no end */
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)KEEP_CONNECTION_S);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "soirees/" PROJECT_VERSION);
}

void http_client_send(struct http_client *client, struct http_exchange *exchange)
{
    CURL *easy = client->idle_count ? client->idle[--client->idle_count] : curl_easy_init();
    if (!easy)
        abort();
    buf_init(&exchange->reply, exchange->max_reply_bytes);
    exchange->easy = easy;
    exchange->header_list = NULL;
    exchange->sent = false;
    exchange->index = 0;
    exchange->http_status = 0;
    exchange->reason[0] = exchange->content_type[0] = exchange->local_address[0] = '\0';

    set_limits(easy, exchange);
    set_request(easy, exchange);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    exchange->previous = NULL;
    exchange->next = client->active;
    if (client->active)
        client->active->previous = exchange;
    client->active = exchange;
    /* It goes out at once, so that the peer is at work while the owner does what else it has to do. */
    int running = 0;
    (void)curl_multi_add_handle(client->multi, easy);
    (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static void detach(struct http_client *client, struct http_exchange *exchange)
{
    CURL *easy = exchange->easy;
    exchange->easy = NULL;
    if (exchange->previous)
        exchange->previous->next = exchange->next;
    else
        client->active = exchange->next;
    if (exchange->next)
        exchange->next->previous = exchange->previous;
    (void)curl_multi_remove_handle(client->multi, easy);
    curl_slist_free_all(exchange->header_list);
    exchange->header_list = NULL;
    curl_easy_reset(easy);
    if (client->idle_count < IDLE_HANDLES_MAX)
        client->idle[client->idle_count++] = easy;
    else
        curl_easy_cleanup(easy);
}

void http_client_cancel(struct http_client *client, struct http_exchange *exchange)
{
    if (exchange->easy)
        detach(client, exchange);
    http_exchange_done(exchange);
}

void http_exchange_done(struct http_exchange *exchange)
{
    buf_done(&exchange->reply);
}

static enum status translate(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return STATUS_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return STATUS_TIMEOUT;
    case CURLE_WRITE_ERROR:
        return STATUS_TOO_LARGE; /* on_body alone refuses bytes */
    default:
        return STATUS_NETWORK;
    }
}

static void finish(struct http_client *client, CURL *easy, CURLcode code)
{
    struct http_exchange *exchange = NULL;
    const char *type = NULL, *address = NULL;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &exchange);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &exchange->http_status);
    (void)curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
    (void)text_copy(exchange->content_type, sizeof exchange->content_type, type ? type : "");
    (void)curl_easy_getinfo(easy, CURLINFO_LOCAL_IP, &address);
    (void)text_copy(exchange->local_address, sizeof exchange->local_address, address ? address : "");
    exchange->status = translate(code);
    if (exchange->status == STATUS_TOO_LARGE)
        (void)snprintf(exchange->reason, sizeof exchange->reason, "réponse de plus de %zu octets",
                       exchange->max_reply_bytes);
    else if (code == CURLE_ABORTED_BY_CALLBACK)
        (void)text_copy(exchange->reason, sizeof exchange->reason, "connexion fermée par le serveur");
    else if (code != CURLE_OK)
        (void)text_copy(exchange->reason, sizeof exchange->reason, curl_easy_strerror(code));
    detach(client, exchange);
    exchange->done(exchange);
}

/* ---- the loop ---- */

/* libcurl says what it waits for on a socket; `known`: the socket is in the set already. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct http_client *client = arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event event = {.data.fd = fd};
    if (what & CURL_POLL_IN)
        event.events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        event.events |= EPOLLOUT;
    if (epoll_ctl(client->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
        abort(); /* out of memory */
    (void)curl_multi_assign(client->multi, fd, client);
    return 0;
}

static int on_curl_timer(CURLM *multi, long delay_ms, void *arg)
{
    struct http_client *client = arg;
    (void)multi;
    client->curl_at_ms = delay_ms < 0 ? INT64_MAX : clock_mono_ms() + delay_ms;
    return 0;
}

static void wait_for_events(struct http_client *client)
{
    struct epoll_event events[EVENTS_MAX];
    int waits_ms = wait_ms(client);
    pulse_beat("http-client", waits_ms);
    int running = 0, count = epoll_wait(client->epoll_fd, events, EVENTS_MAX, waits_ms);
    for (int i = 0; i < count; i++) {
        uint32_t came = events[i].events;
        int what = (came & EPOLLIN ? CURL_CSELECT_IN : 0) | (came & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (came & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        uint64_t wakes;
        if (events[i].data.fd == client->wake_fd)
            (void)!read(client->wake_fd, &wakes, sizeof wakes);
        else
            (void)curl_multi_socket_action(client->multi, events[i].data.fd, what, &running);
    }
    if (client->curl_at_ms <= clock_mono_ms()) {
        client->curl_at_ms = INT64_MAX;
        (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
}

static void *client_main(void *arg)
{
    struct http_client *client = arg;
    while (run_tasks(client)) {
        int left = 0;
        fire_timers(client);
        for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left));)
            if (message->msg == CURLMSG_DONE)
                finish(client, message->easy_handle, message->data.result);
        wait_for_events(client);
    }
    return NULL;
}

static void open_loop(struct http_client *client)
{
    client->multi = curl_multi_init();
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->curl_at_ms = INT64_MAX;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client->wake_fd};
    if (!client->multi || client->epoll_fd < 0 || client->wake_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->wake_fd, &event) != 0)
        abort();
    (void)curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    (void)curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    (void)curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
}

void http_client_global_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_ALL);
}

enum status http_client_start(struct http_client **ret_client, struct err *err)
{
    struct http_client *client = mem_new(sizeof *client);
    pthread_mutex_init(&client->mutex, NULL);
    open_loop(client);
    int failed = pthread_create(&client->thread, NULL, client_main, client);
    client->running = failed == 0;
    if (failed) {
        http_client_free(client);
        return err_set(err, STATUS_IO, "pthread_create: %s", strerror(failed));
    }
    *ret_client = client;
    return STATUS_OK;
}

void http_client_stop(struct http_client *client)
{
    if (!client || !client->running)
        return;
    pthread_mutex_lock(&client->mutex);
    client->stopping = true;
    pthread_mutex_unlock(&client->mutex);
    wake(client);
    pthread_join(client->thread, NULL);
    client->running = false;
    while (client->active)
        http_client_cancel(client, client->active);
}

void http_client_free(struct http_client *client)
{
    if (!client)
        return;
    while (client->idle_count)
        curl_easy_cleanup(client->idle[--client->idle_count]);
    (void)curl_multi_cleanup(client->multi);
    close(client->epoll_fd);
    close(client->wake_fd);
    pthread_mutex_destroy(&client->mutex);
    free(client);
}

/* ---- helpers ---- */

void http_put_encoded(struct buf *out, const char *text)
{
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++) {
        if (strchr(unreserved, *text))
            buf_char(out, *text);
        else
            buf_format(out, "%%%02X", (unsigned char)*text);
    }
}

static size_t discard(char *bytes, size_t size, size_t count, void *arg)
{
    (void)bytes;
    (void)arg;
    return size * count;
}

enum status http_get(const char *url, long timeout_ms, long *ret_http_status, struct err *err)
{
    CURL *easy = curl_easy_init();
    if (!easy)
        abort();
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
    CURLcode code = curl_easy_perform(easy);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, ret_http_status);
    curl_easy_cleanup(easy);
    return code == CURLE_OK ? STATUS_OK
                            : err_set(err, translate(code), "%s: %s", url, curl_easy_strerror(code));
}
