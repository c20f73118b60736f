/* One step through UTF-8, for the modules that read or write text byte by byte. Any thread. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <stddef.h>

/* Bytes of the code point that bytes[0..len) begins with: 1 to 4; 0 when that is no whole, valid sequence
 * (RFC 3629 section 4) or len is 0. */
size_t utf8_step(const char *bytes, size_t len);

#endif
