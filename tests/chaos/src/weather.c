/* Loaded into the node under test (LD_PRELOAD): makes its disk slow or failing and its clock wrong, as the
 * harness writes into a small shared file. The node's own code is what runs everywhere else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* As in weather.rs. */
struct weather {
    _Atomic int64_t failing;  /* not 0: a sync fails */
    _Atomic int64_t slow_ms;  /* a sync takes so much longer */
    _Atomic int64_t clock_s;  /* the wall clock is so far ahead */
    _Atomic int64_t failed;   /* syncs that failed so far */
    _Atomic int64_t delayed;  /* syncs that took longer so far */
};

static struct weather *weather;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("QUELL_CHAOS_WEATHER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        abort(); /* a run without its weather would pass for nothing */
    void *page = mmap(NULL, sizeof *weather, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        abort();
    weather = page;
}

/* -1 with EIO where a sync fails now. */
static int sync_weather(void)
{
    if (!weather)
        return 0;
    int64_t slow = weather->slow_ms;
    if (slow > 0) {
        weather->delayed++;
        struct timespec left = { slow / 1000, slow % 1000 * 1000000 };
        while (nanosleep(&left, &left) != 0 && errno == EINTR)
            ;
    }
    if (weather->failing) {
        weather->failed++;
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int fd)
{
    return sync_weather() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_weather() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd)
{
    return sync_weather() ? -1 : (int)syscall(SYS_syncfs, fd);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int done = real_gettime ? real_gettime(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (done == 0 && weather && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += weather->clock_s;
    return done;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}
