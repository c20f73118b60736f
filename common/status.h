/* One list of outcomes for the whole project: what each means over HTTP and whether trying again can help.
 * A library's own codes are translated once, in the module that owns the library. */
#ifndef COMMON_STATUS_H
#define COMMON_STATUS_H

#include <stdbool.h>
#include <stddef.h>

/*    name              HTTP  retry   title of the problem body (RFC 9457) */
#define STATUS_LIST(X)                                                                                       \
    X(OK, 200, false, "OK")                                                                                  \
    X(MALFORMED, 400, false, "Requête mal formée")                                                           \
    X(UNAUTHORIZED, 401, false, "Authentification requise")                                                  \
    X(FORBIDDEN, 403, false, "Accès refusé")                                                                 \
    X(NOT_FOUND, 404, false, "Ressource introuvable")                                                        \
    X(METHOD, 405, false, "Méthode non autorisée")                                                           \
    X(CONFLICT, 409, false, "Conflit")                                                                       \
    X(GONE, 410, false, "Ressource supprimée")                                                               \
    X(STALE, 412, false, "Version périmée")                                                                  \
    X(TOO_LARGE, 413, false, "Corps trop volumineux")                                                        \
    X(MEDIA_TYPE, 415, false, "Type de contenu non pris en charge")                                          \
    X(INVALID, 422, false, "Données invalides")                                                              \
    X(INTERNAL, 500, false, "Erreur interne")                                                                \
    X(BUSY, 503, true, "Service momentanément indisponible")                                                 \
    X(FULL, 503, true, "Espace disque insuffisant")                                                          \
    X(IO, 503, true, "Stockage indisponible")                                                                \
    X(UNSYNCED, 503, true, "Durabilité inconnue")                                                            \
    X(NETWORK, 503, true, "Réseau indisponible")                                                             \
    X(TIMEOUT, 503, true, "Délai dépassé")                                                                   \
    X(PROTOCOL, 503, true, "Réponse inattendue")                                                             \
    X(STOPPING, 503, true, "Arrêt en cours")

enum status {
#define X(name, http, retry, title) STATUS_##name,
    STATUS_LIST(X)
#undef X
        STATUS_COUNT
};

/* An outcome with its reason, for the problem body or the log line where the error stops. */
struct err {
    enum status status;
    char text[256];
};

const char *status_name(enum status status);  /* "NOT_FOUND" */
const char *status_title(enum status status); /* "Ressource introuvable" */
int status_http(enum status status);          /* 404 */
/* Whether the same call may succeed later with nothing changed by the caller. */
bool status_retryable(enum status status);

/* Fills *err (which may be NULL) and returns `status`, so that a failing function ends in one line:
 *     return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
 * A text over 255 bytes is cut. */
enum status err_set(struct err *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
