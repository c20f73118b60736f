/* Gives every file of the named folders to a fuzz target, once: the corpus as a unit test, with any compiler.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fuzz.h"

static void replay(int folder, const char *name)
{
    CLEANUP(close_fd) int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    struct stat file;
    MUST(fd >= 0 && fstat(fd, &file) == 0);
    size_t size = (size_t)file.st_size;
    /* exactly as large as the input: what reads behind its end is seen */
    CLEANUP(free_pointer) uint8_t *data = malloc(size ? size : 1);
    MUST(data && read(fd, data, size) == (ssize_t)size);
    fprintf(stderr, "%s: %zu bytes\n", name, size);
    (void)LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (!folder) {
            perror(argv[i]);
            return 1;
        }
        for (const struct dirent *entry; (entry = readdir(folder));)
            if (entry->d_name[0] != '.') {
                replay(dirfd(folder), entry->d_name);
                count++;
            }
        closedir(folder);
    }
    fprintf(stderr, "%zu inputs\n", count);
    return count == 0; /* nothing replayed is nothing tested */
}
