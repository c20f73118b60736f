/* What a setting may say as the URL of an HTTP peer. Both are checks for struct setting: INVALID with a
 * reason that names what is wrong, and not the value, which may hold a password. */
#ifndef COMMON_HTTP_URL_H
#define COMMON_HTTP_URL_H

#include "status.h"

/* http:// or https:// (in small letters), a host, a port up to 65535, as libcurl reads them (RFC 3986); no
 * space or control character, and no fragment, which would stay here (section 3.5). */
enum status http_url_check(const char *value, struct err *err);

/* The same, behind which paths are put: no query either. */
enum status http_url_check_base(const char *value, struct err *err);

#endif
