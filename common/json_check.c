/* RFC 8259 by recursive descent. Each check_* starts on the first byte of its construct and leaves `at`
 * behind the last, or on what is wrong. JSON_DEPTH_MAX bounds the recursion. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "utf8.h"

/* cJSON looks at 63 bytes of a number and would take the rest for something else. RFC 8259 section 9 allows a
 * limit. */
enum { NUMBER_MAX_BYTES = 63 };

struct scan {
    const char *text;
    size_t len, at;
    int depth;
    const char *reason; /* French; set by the check that failed */
};

static bool check_value(struct scan *scan);

static bool fail(struct scan *scan, size_t at, const char *reason)
{
    scan->at = at;
    scan->reason = reason;
    return false;
}

/* The next byte, -1 at the end. */
static int peek(const struct scan *scan)
{
    return scan->at < scan->len ? (unsigned char)scan->text[scan->at] : -1;
}

static bool take(struct scan *scan, char c)
{
    bool found = scan->at < scan->len && scan->text[scan->at] == c;
    scan->at += found;
    return found;
}

static void skip_space(struct scan *scan)
{
    int c = peek(scan);
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
        scan->at++;
        c = peek(scan);
    }
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

/* The UTF-16 code unit that \uXXXX at offset `at` stands for; -1 when there is none. */
static int escaped_unit(const struct scan *scan, size_t at)
{
    if (scan->len - at < 6 || scan->text[at] != '\\' || scan->text[at + 1] != 'u')
        return -1;
    int unit = 0;
    for (size_t i = at + 2; i < at + 6; i++) {
        int digit = hex_digit(scan->text[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool check_escape(struct scan *scan)
{
    size_t start = scan->at++;
    int c = peek(scan);
    if (c != 'u') {
        if (c <= 0 || !strchr("\"\\/bfnrt", c))
            return fail(scan, start, "échappement inconnu dans une chaîne");
        scan->at++;
        return true;
    }
    int unit = escaped_unit(scan, start);
    if (unit < 0)
        return fail(scan, start, "\\u doit être suivi de quatre chiffres hexadécimaux");
    if (unit == 0)
        return fail(scan, start, "\\u0000 est interdit");
    scan->at = start + 6;
    if (unit < 0xD800 || unit > 0xDFFF)
        return true;
    int low = unit <= 0xDBFF ? escaped_unit(scan, scan->at) : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return fail(scan, start, "moitié de paire UTF-16 isolée");
    scan->at += 6;
    return true;
}

static bool check_string(struct scan *scan)
{
    scan->at++;
    for (;;) {
        int c = peek(scan);
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            scan->at++;
        } else if (c == '"') {
            scan->at++;
            return true;
        } else if (c == '\\') {
            if (!check_escape(scan))
                return false;
        } else if (c >= 0x80) {
            size_t step = utf8_step(scan->text + scan->at, scan->len - scan->at);
            if (step == 0)
                return fail(scan, scan->at, "UTF-8 invalide");
            scan->at += step;
        } else {
            return fail(scan, scan->at,
                        c < 0 ? "chaîne non terminée" : "caractère de contrôle dans une chaîne");
        }
    }
}

static bool on_digit(const struct scan *scan)
{
    int c = peek(scan);
    return c >= '0' && c <= '9';
}

/* One digit or more. */
static bool take_digits(struct scan *scan)
{
    size_t start = scan->at;
    while (on_digit(scan))
        scan->at++;
    return scan->at > start;
}

static bool check_number(struct scan *scan)
{
    static const char malformed[] = "nombre mal formé";
    size_t start = scan->at;
    (void)take(scan, '-');
    if (take(scan, '0') ? on_digit(scan) : !take_digits(scan))
        return fail(scan, scan->at, malformed);
    if (take(scan, '.') && !take_digits(scan))
        return fail(scan, scan->at, malformed);
    bool exponent = take(scan, 'e') || take(scan, 'E');
    if (exponent) {
        if (!take(scan, '+'))
            (void)take(scan, '-');
        if (!take_digits(scan))
            return fail(scan, scan->at, malformed);
    }
    size_t size = scan->at - start;
    if (size > NUMBER_MAX_BYTES)
        return fail(scan, start, "nombre de plus de 63 caractères");
    if (exponent) { /* 63 bytes without one are finite */
        char copy[NUMBER_MAX_BYTES + 1] = {0};
        memcpy(copy, scan->text + start, size);
        if (!isfinite(strtod(copy, NULL)))
            return fail(scan, start, "nombre trop grand");
    }
    return true;
}

static bool check_word(struct scan *scan, const char *word, size_t len)
{
    if (scan->len - scan->at < len || memcmp(scan->text + scan->at, word, len) != 0)
        return fail(scan, scan->at, "valeur attendue");
    scan->at += len;
    return true;
}

static bool check_array(struct scan *scan)
{
    scan->at++;
    skip_space(scan);
    if (take(scan, ']'))
        return true;
    do {
        if (!check_value(scan))
            return false;
    } while (take(scan, ','));
    return take(scan, ']') || fail(scan, scan->at, "« , » ou « ] » attendu");
}

static bool check_object(struct scan *scan)
{
    scan->at++;
    skip_space(scan);
    if (take(scan, '}'))
        return true;
    do {
        skip_space(scan);
        if (peek(scan) != '"')
            return fail(scan, scan->at, "nom de champ entre guillemets attendu");
        if (!check_string(scan))
            return false;
        skip_space(scan);
        if (!take(scan, ':'))
            return fail(scan, scan->at, "« : » attendu");
        if (!check_value(scan))
            return false;
    } while (take(scan, ','));
    return take(scan, '}') || fail(scan, scan->at, "« , » ou « } » attendu");
}

static bool check_nested(struct scan *scan, bool (*check)(struct scan *scan))
{
    if (scan->depth == JSON_DEPTH_MAX)
        return fail(scan, scan->at, "plus de 16 niveaux d'imbrication");
    scan->depth++;
    bool ok = check(scan);
    scan->depth--;
    return ok;
}

static bool check_bare_value(struct scan *scan)
{
    switch (peek(scan)) {
    case '{':
        return check_nested(scan, check_object);
    case '[':
        return check_nested(scan, check_array);
    case '"':
        return check_string(scan);
    case 't':
        return check_word(scan, "true", 4);
    case 'f':
        return check_word(scan, "false", 5);
    case 'n':
        return check_word(scan, "null", 4);
    case '-':
        return check_number(scan);
    case -1:
        return fail(scan, scan->at, "le texte finit trop tôt");
    default:
        return on_digit(scan) ? check_number(scan) : fail(scan, scan->at, "valeur attendue");
    }
}

/* A value and the white space around it. */
static bool check_value(struct scan *scan)
{
    skip_space(scan);
    bool ok = check_bare_value(scan);
    if (ok)
        skip_space(scan);
    return ok;
}

static bool check_document(struct scan *scan)
{
    if (scan->len >= 3 && memcmp(scan->text, "\xEF\xBB\xBF", 3) == 0)
        return fail(scan, 0, "marque d'ordre des octets (BOM) interdite");
    if (!check_value(scan))
        return false;
    return scan->at == scan->len || fail(scan, scan->at, "texte en trop après le document");
}

enum status json_check(const char *text, size_t len, struct err *err)
{
    struct scan scan = {.text = text, .len = len};
    if (check_document(&scan))
        return STATUS_OK;
    return err_set(err, STATUS_MALFORMED, "JSON mal formé à l'octet %zu : %s", scan.at, scan.reason);
}
