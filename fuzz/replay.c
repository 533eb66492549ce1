/*
 * replay: feeds files to a fuzz target without libFuzzer, so that every corpus is a regression test
 * for any compiler.
 *
 *   fuzz_x PATH...    each PATH a file or a folder of files, not searched deeper
 *
 * Each input lies in memory cut to its size, so that a read past its end is seen by ASan. The name
 * of each input is printed before it runs: the last one in the log is the one that crashed. Exit
 * code 0 when all ran and there was at least one, else 1.
 */
#include "engine/base.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#define INPUT_MAX  (1 << 20) /* bytes; more than any fuzzer is asked to make */
#define PATH_BYTES 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads all of `f` into memory cut to its size; NULL when it cannot be read or is too large. */
static uint8_t *read_all(FILE *f, size_t *out_size)
{
    struct stat st;
    uint8_t *data = NULL;

    if (fstat(fileno(f), &st) != 0 || st.st_size < 0 || st.st_size > INPUT_MAX) {
        return NULL;
    }
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    if (data && fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        free(data);
        return NULL;
    }
    *out_size = (size_t)st.st_size;
    return data;
}

static bool replay_file(const char *path)
{
    FILE *f = fopen(path, "rbe");
    size_t size = 0;
    uint8_t *data = f ? read_all(f, &size) : NULL;
    bool ok = false;

    (void)fprintf(stderr, "%s%s\n", path, data ? "" : ": cannot be read, or too large");
    if (data) {
        ok = LLVMFuzzerTestOneInput(data, size) == 0;
    }
    free(data);
    if (f) {
        (void)fclose(f);
    }
    return ok;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool replay_folder(const char *path, size_t *count)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, visible, alphasort);
    bool ok = n >= 0;

    for (int i = 0; i < n; i++) {
        char file[PATH_BYTES];
        int len = snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);

        ok = len > 0 && (size_t)len < sizeof(file) && replay_file(file) && ok;
        free(entries[i]);
        ++*count;
    }
    free(entries);
    return ok;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    bool ok = true;

    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            ok = replay_folder(argv[i], &count) && ok;
        } else {
            ok = replay_file(argv[i]) && ok;
            count++;
        }
    }
    (void)fprintf(stderr, "%zu inputs\n", count);
    return ok && count > 0 ? 0 : 1;
}
