/* The lines KEY=VALUE of a settings file, as systemd reads an EnvironmentFile= (systemd.exec(5)), so that one
 * file serves both:
 *   - lines that begin with # or ; are comments, as are empty ones;
 *   - spaces around names and values are not theirs; of two lines with the same name the later counts;
 *   - '…' holds any character but ', "…" too, where a backslash makes text of " \ ` $ and joins two lines;
 *     both may hold line ends;
 *   - elsewhere a backslash makes text of the character behind it, and joins two lines at a line's end.
 * Stricter than there: what is no KEY=VALUE ("export KEY=…", a byte order mark) is refused, not passed over.
 */
#ifndef COMMON_CONFIG_FILE_H
#define COMMON_CONFIG_FILE_H

#include "buf.h"

/* Appends what the lines of `text` say to `pairs`, each a name and a value with a NUL behind either, and to
 * `problems` a line for each that is refused: "CONFIG_FILE: <path>: line 3 is not KEY=VALUE". The pairs are
 * at most as long as the text and one byte more. */
void config_file_parse(const char *text, const char *path, struct buf *pairs, struct buf *problems);

/* The value that counts for the name, inside `pairs`; NULL where there is none. */
const char *config_file_find(const struct buf *pairs, const char *name);

#endif
