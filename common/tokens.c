#include "tokens.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "config.h"
#include "mem.h"

enum { HASH_BYTES = 32 };

struct token {
    char name[TOKEN_NAME_SIZE];
    enum token_role role;
    unsigned char hash[HASH_BYTES];
};

struct list {
    unsigned count;
    struct token items[TOKENS_MAX];
};

struct tokens {
    char *path;
    pthread_rwlock_t lock;
    struct list *list; /* under the lock */
};

static void hash(const char *text, size_t len, unsigned char out[HASH_BYTES])
{
    if (EVP_Digest(text, len, out, NULL, EVP_sha256(), NULL) != 1)
        abort(); /* out of memory */
}

/* ---- the file ---- */

static bool is_name(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(text);
    return len > 0 && len < TOKEN_NAME_SIZE && strspn(text, allowed) == len;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* "sha256:" and 64 hex digits, nothing else. */
static bool read_hash(const char *text, unsigned char out[HASH_BYTES])
{
    static const char prefix[] = "sha256:";
    if (strncmp(text, prefix, sizeof prefix - 1) != 0)
        return false;
    text += sizeof prefix - 1;
    for (size_t i = 0; i < HASH_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return text[2 * (size_t)HASH_BYTES] == '\0';
}

/* What is wrong with a line, NULL when it was added. Never repeats what it holds: somebody may have written a
 * token there. */
static const char *read_line(char *line, struct list *list)
{
    static const char blanks[] = " \t\r";
    char *rest = NULL;
    char *name = strtok_r(line, blanks, &rest), *role = strtok_r(NULL, blanks, &rest);
    char *digest = strtok_r(NULL, blanks, &rest), *more = strtok_r(NULL, blanks, &rest);
    if (!name || name[0] == '#')
        return NULL;
    struct token token = {0};
    if (!digest || more)
        return "is not `name role sha256:hex`";
    if (!is_name(name))
        return "the name is not 1 to 64 of A-Z a-z 0-9 . _ -";
    if (strcmp(role, "read") != 0 && strcmp(role, "write") != 0)
        return "the role is not read or write";
    if (!read_hash(digest, token.hash))
        return "the hash is not sha256: and 64 hex digits";
    token.role = strcmp(role, "write") == 0 ? TOKEN_WRITE : TOKEN_READ;
    (void)text_copy(token.name, sizeof token.name, name);
    for (unsigned i = 0; i < list->count; i++)
        if (memcmp(list->items[i].hash, token.hash, HASH_BYTES) == 0)
            return "this hash is there already";
    if (list->count == TOKENS_MAX)
        return "is one token too many (at most 256)";
    list->items[list->count++] = token;
    return NULL;
}

/* NULL when something is wrong. */
static struct list *read_list(const char *path, struct buf *problems)
{
    const char *reason = NULL;
    CLEANUP(free_text) char *text = config_read_file(path, &reason);
    if (!text) {
        buf_format(problems, "API_TOKENS_FILE: %s: %s\n", path, reason);
        return NULL;
    }
    CLEANUP(free_pointer) struct list *list = mem_new(sizeof *list);
    bool sound = true;
    unsigned number = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        number++;
        const char *problem = read_line(line, list);
        if (problem)
            buf_format(problems, "API_TOKENS_FILE: %s:%u: %s\n", path, number, problem);
        sound = sound && !problem;
    }
    if (sound && list->count == 0)
        buf_format(problems, "API_TOKENS_FILE: %s: holds no token; unset it for an open API\n", path);
    return sound && list->count > 0 ? TAKE(list) : NULL;
}

/* ---- opening and changing ---- */

enum status tokens_open(struct tokens **ret_tokens, const char *path, struct buf *problems)
{
    struct list *list = read_list(path, problems);
    if (!list)
        return STATUS_INVALID;
    struct tokens *tokens = mem_new(sizeof *tokens);
    tokens->path = mem_text(path);
    tokens->list = list;
    pthread_rwlock_init(&tokens->lock, NULL);
    *ret_tokens = tokens;
    return STATUS_OK;
}

void tokens_close(struct tokens *tokens)
{
    if (!tokens)
        return;
    pthread_rwlock_destroy(&tokens->lock);
    free(tokens->list);
    free(tokens->path);
    free(tokens);
}

static bool same_lists(const struct list *a, const struct list *b)
{
    bool same = a->count == b->count;
    for (unsigned i = 0; same && i < a->count; i++)
        same = strcmp(a->items[i].name, b->items[i].name) == 0 && a->items[i].role == b->items[i].role &&
               memcmp(a->items[i].hash, b->items[i].hash, HASH_BYTES) == 0;
    return same;
}

bool tokens_take(struct tokens *tokens, struct tokens *fresh)
{
    pthread_rwlock_wrlock(&tokens->lock);
    struct list *old = tokens->list;
    tokens->list = fresh->list;
    pthread_rwlock_unlock(&tokens->lock);
    fresh->list = old;
    return !same_lists(tokens->list, old);
}

unsigned tokens_count(struct tokens *tokens)
{
    pthread_rwlock_rdlock(&tokens->lock);
    unsigned count = tokens->list->count;
    pthread_rwlock_unlock(&tokens->lock);
    return count;
}

/* ---- asking ---- */

/* All entries, whichever fits: how long it takes depends on their number alone. */
static bool find(const struct list *list, const unsigned char wanted[HASH_BYTES], struct token *ret_token)
{
    unsigned found = 0;
    for (unsigned i = 0; i < list->count; i++) {
        unsigned equal = CRYPTO_memcmp(list->items[i].hash, wanted, HASH_BYTES) == 0;
        found |= equal * (i + 1);
    }
    if (found)
        *ret_token = list->items[found - 1];
    return found != 0;
}

/* The token in the header's value, "" where there is none: the scheme in any case, one or more spaces. */
static const char *bearer(const char *authorization)
{
    static const char scheme[] = "Bearer";
    size_t len = sizeof scheme - 1;
    if (!authorization || strncasecmp(authorization, scheme, len) != 0 || authorization[len] != ' ')
        return "";
    return authorization + len + strspn(authorization + len, " ");
}

enum status tokens_check(struct tokens *tokens, const char *authorization, enum token_role role,
                         char ret_name[TOKEN_NAME_SIZE], struct err *err)
{
    const char *text = bearer(authorization);
    size_t len = strlen(text);
    if (len == 0)
        return err_set(err, STATUS_UNAUTHORIZED, "Un jeton est nécessaire (en-tête Authorization: Bearer …)");
    struct token token;
    unsigned char wanted[HASH_BYTES];
    bool known = len <= TOKEN_MAX_BYTES;
    if (known) {
        hash(text, len, wanted);
        pthread_rwlock_rdlock(&tokens->lock);
        known = find(tokens->list, wanted, &token);
        pthread_rwlock_unlock(&tokens->lock);
    }
    if (!known)
        return err_set(err, STATUS_UNAUTHORIZED, "Ce jeton n'est pas valable");
    (void)text_copy(ret_name, TOKEN_NAME_SIZE, token.name);
    if (role > token.role)
        return err_set(err, STATUS_FORBIDDEN, "Ce jeton ne permet que de lire");
    return STATUS_OK;
}
