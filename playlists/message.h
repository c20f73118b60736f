/* The message that asks for a playlist, as it comes from any producer. Pure. */
#ifndef PLAYLISTS_MESSAGE_H
#define PLAYLISTS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "playlist.h"
#include "status.h"

enum { MESSAGE_BODY_MAX = 64 * 1024, MESSAGE_ID_SIZE = 256, MESSAGE_SHOWN_MAX = 128 };

struct message {
    char soiree_id[TEXT_SIZE(128)];
    char style[TEXT_SIZE(PLAYLIST_STYLE_MAX)];
    char client_id[TEXT_SIZE(MESSAGE_SHOWN_MAX)]; /* for the log: any scalar, as text, cut */
    char timestamp[TEXT_SIZE(MESSAGE_SHOWN_MAX)];
};

/* Decodes {"soireeId", "clientId", "style", "timestamp"}: soireeId a string of 1..128 code points; style a
 * string of at most 64, absent, null or "" = disco; clientId and timestamp any scalar; other fields are
 * ignored. INVALID, MALFORMED or TOO_LARGE with a reason: such a message can never succeed. `body_size` is
 * the announced size. */
enum status message_decode(const char *body, size_t len, size_t body_size, struct message *ret_message,
                           struct err *err);

#endif
