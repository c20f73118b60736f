#include "status.h"

#include <stdarg.h>
#include <stdio.h>

#include "mem.h"

static const struct {
    const char *name, *title;
    int http;
    bool retryable;
} statuses[STATUS_COUNT] = {
#define X(name, http, retry, title) {#name, title, http, retry},
    STATUS_LIST(X)
#undef X
};

const char *status_name(enum status status)
{
    return statuses[status].name;
}

const char *status_title(enum status status)
{
    return statuses[status].title;
}

int status_http(enum status status)
{
    return statuses[status].http;
}

bool status_retryable(enum status status)
{
    return statuses[status].retryable;
}

enum status err_set(struct err *err, enum status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        text_mend(err->text);
        err->status = status;
    }
    return status;
}
