/* folder: a directory of the test's own, with files in it. Each test is a process of its own. */
#pragma once
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static inline void folder_make(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/anygate-test-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

/* The path of what is called so in it; good until the fourth call from here. */
static inline const char *folder_at(const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

/* A file, and the directories above it. A name that ends with '/' is a directory alone. */
static inline void folder_put(const char *name, const void *data, size_t len)
{
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s", folder_at(name));
    for (char *at = path + strlen(folder) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        (void)mkdir(path, 0755);
        *at = '/';
    }
    if (name[strlen(name) - 1] == '/') {
        return;
    }
    file = fopen(path, "w");
    cr_assert(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

static inline void folder_put_text(const char *name, const char *text)
{
    folder_put(name, text, strlen(text));
}

static inline void folder_remove(void)
{
    char command[96];

    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    cr_assert_eq(system(command), 0); // NOLINT
}
