/* Loaded before the C library: a disk that fails on command.

   The file that DISK_MODE names holds one letter. e: syncs report an I/O error. h: syncs hang until the letter changes.
   f: the disk is full, but for what the file that DISK_BALLAST names takes: once that is gone, writes succeed again. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int mode(void)
{
    const char *path = getenv("DISK_MODE");
    char letter = 0;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    if (read(fd, &letter, 1) != 1)
        letter = 0;
    close(fd);
    return letter;
}

static int sync_fails(void)
{
    for (;;) {
        int now = mode();
        if (now == 'e') {
            errno = EIO;
            return 1;
        }
        if (now != 'h')
            return 0;
        usleep(5000);
    }
}

static int write_fails(int fd)
{
    struct stat found;
    const char *ballast = getenv("DISK_BALLAST");
    if (mode() != 'f' || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))
        return 0;
    if (!ballast || access(ballast, F_OK) != 0)
        return 0;
    errno = ENOSPC;
    return 1;
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int fsync(int fd) { return sync_fails() ? -1 : REAL(int, "fsync", int)(fd); }
int fdatasync(int fd) { return sync_fails() ? -1 : REAL(int, "fdatasync", int)(fd); }

ssize_t write(int fd, const void *data, size_t size)
{
    return write_fails(fd) ? -1 : REAL(ssize_t, "write", int, const void *, size_t)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return write_fails(fd) ? -1 : REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return write_fails(fd) ? -1 : REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, data, size, at);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    return mode() == 'f' ? ENOSPC : REAL(int, "posix_fallocate", int, off_t, off_t)(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    return mode() == 'f' ? ENOSPC : REAL(int, "posix_fallocate64", int, off64_t, off64_t)(fd, at, size);
}
