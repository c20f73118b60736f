#include "http_url.h"

#include <string.h>

#include <curl/curl.h>

enum status http_url_check(const char *value, struct err *err)
{
    size_t scheme = strncmp(value, "http://", 7) == 0 ? 7 : strncmp(value, "https://", 8) == 0 ? 8 : 0;
    const char *host = value + scheme;
    if (!scheme || !*host || strchr("/?#:", *host))
        return err_set(err, STATUS_INVALID, "is not an http:// or https:// URL with a host");
    if (strchr(value, '#'))
        return err_set(err, STATUS_INVALID, "holds a '#', behind which nothing is sent");
    for (const char *c = value; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7F)
            return err_set(err, STATUS_INVALID, "holds a space or a control character");
    CURLU *url = curl_url();
    CURLUcode code = url ? curl_url_set(url, CURLUPART_URL, value, CURLU_PATH_AS_IS) : CURLUE_OUT_OF_MEMORY;
    curl_url_cleanup(url);
    return code == CURLUE_OK ? STATUS_OK
                             : err_set(err, STATUS_INVALID, "is no URL: %s", curl_url_strerror(code));
}

enum status http_url_check_base(const char *value, struct err *err)
{
    return strchr(value, '?')
               ? err_set(err, STATUS_INVALID, "holds a '?', where paths are to be put behind it")
               : http_url_check(value, err);
}
