/* Faults below Python, for LD_PRELOAD: errors of reading and writing, and a wall clock that jumps.
 *
 * FAULT_FOLDER        files below it are hit
 * FAULT_READS, FAULT_WRITES   every how many reads or writes of them, in each process, fail with EIO; 0 or unset: none
 * FAULT_LOG           gets a byte for each that did
 * FAULT_JUMP          seconds that the wall clock is wrong by, from when the file FAULT_JUMPED exists
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(name) *)next(#name))

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

static int below(int file) {
    const char *folder = getenv("FAULT_FOLDER");
    char link[64], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 0 && (size_t)length > strlen(folder) && !strncmp(path, folder, strlen(folder));
}

static int fails(const char *variable, unsigned long *count, int file) {
    const char *every = getenv(variable), *log = getenv("FAULT_LOG");
    int before = errno, failing = 0;
    if (every && atoi(every) > 0 && below(file) && __atomic_add_fetch(count, 1, __ATOMIC_RELAXED) % atoi(every) == 0) {
        failing = 1;
        int to = log ? open(log, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
        if (to >= 0) {
            syscall(SYS_write, to, ".", 1);
            close(to);
        }
    }
    errno = failing ? EIO : before;
    return failing;
}

static unsigned long reads, writes;

ssize_t read(int file, void *buffer, size_t size) {
    return fails("FAULT_READS", &reads, file) ? -1 : NEXT(read)(file, buffer, size);
}

ssize_t write(int file, const void *buffer, size_t size) {
    return fails("FAULT_WRITES", &writes, file) ? -1 : NEXT(write)(file, buffer, size);
}

static time_t wrong_by(void) {
    const char *jump = getenv("FAULT_JUMP"), *from = getenv("FAULT_JUMPED");
    int before = errno;
    time_t seconds = jump && from && !access(from, F_OK) ? atol(jump) : 0;
    errno = before;
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = NEXT(clock_gettime)(clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += wrong_by();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = NEXT(gettimeofday)(now, zone);
    if (!result) now->tv_sec += wrong_by();
    return result;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
