/*
 * Has each write of content to a file take $SLOW_DISK_MS, in the program into which it is preloaded.
 *
 *   gcc -D_GNU_SOURCE -shared -fPIC -o slow_disk.so slow_disk.c
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Names and parameters are glibc's here, by need.
 * NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    const char *ms = getenv("SLOW_DISK_MS");

    (void)usleep(ms ? (useconds_t)strtoul(ms, NULL, 10) * 1000 : 0);
    return syscall(SYS_pwritev, fd, iov, count, offset, 0L);
}
