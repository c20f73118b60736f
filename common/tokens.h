/* The tokens that may use the API (RFC 6750), from the file that API_TOKENS_FILE names. A line each:
 *
 *     # who    role    SHA-256 of the token, in hex
 *     caisse   write   sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
 *
 * The file holds no token, so reading it lets nobody in. Several lines may have one name: a client whose
 * token is being replaced. A plain hash is enough for what nobody can guess (`openssl rand -hex 32`), not for
 * a password. Any thread, but for opening and closing. */
#ifndef COMMON_TOKENS_H
#define COMMON_TOKENS_H

#include <stdbool.h>

#include "buf.h"
#include "status.h"

struct tokens;

enum { TOKENS_MAX = 256, TOKEN_NAME_SIZE = 65, TOKEN_MAX_BYTES = 1024 };

enum token_role { TOKEN_READ, TOKEN_WRITE }; /* write may read, too */

/* Reads the file. Everything wrong with it is appended to `problems`, "API_TOKENS_FILE: PATH:LINE: …\n" each,
 * and nothing is returned then: INVALID. A file without any token is refused: it would shut everybody out. */
enum status tokens_open(struct tokens **ret_tokens, const char *path, struct buf *problems);
void tokens_close(struct tokens *tokens); /* NULL is fine */

/* The file was read anew: from here on `tokens` knows what `fresh` did, which is to be closed. Whether that
 * is anything else than before. */
bool tokens_take(struct tokens *tokens, struct tokens *fresh);

unsigned tokens_count(struct tokens *tokens);

/* Who sent `authorization` (the header's value, NULL when absent). OK: *ret_name is whose token it is, and it
 * has the role. UNAUTHORIZED: no token, or none of ours. FORBIDDEN: a known one without the role; *ret_name
 * is set. err->text is French, for the problem body. The time it takes tells nothing about the tokens. */
enum status tokens_check(struct tokens *tokens, const char *authorization, enum token_role role,
                         char ret_name[TOKEN_NAME_SIZE], struct err *err);

#endif
