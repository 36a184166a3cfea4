/* A guest of a given number of threads and open files: all threads but the first
   wait on a condition; the first reads the file `late`, prints it, and waits. With
   a third argument it tells instead, in nanoseconds, how long the bare calls take
   that a copy of it is made by: a fork, and in the child a clone for each thread. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

static void *wait_for_ever(void *unused)
{
    pthread_mutex_lock(&mutex);
    for (;;)
        pthread_cond_wait(&never, &mutex);
    return unused;
}

static int sleeps(void *unused)
{
    for (;;)
        pause();
    return unused != NULL;
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* All clones have one stack, on which each does nothing but wait. */
static void tell_of_bare_calls(int threads, int times)
{
    static char stack[65536];
    const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    for (; times > 0; times--) {
        int told[2];
        if (pipe(told))
            exit(1);
        long long before = now();
        if (fork() == 0) {
            for (int n = 1; n < threads; n++)
                if (clone(sleeps, stack + sizeof stack - 64, flags, NULL) < 0)
                    _exit(1);
            long long after = now();
            _exit(write(told[1], &after, sizeof after) != sizeof after);
        }
        long long after;
        if (read(told[0], &after, sizeof after) != sizeof after)
            exit(1);
        printf("%lld\n", after - before);
        wait(NULL);
        close(told[0]);
        close(told[1]);
    }
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    int files = argc > 2 ? atoi(argv[2]) : 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int n = 0; n < files; n++)
        if (open("/dev/null", O_RDONLY) < 0)
            return 1;
    if (argc > 3) {
        tell_of_bare_calls(threads, atoi(argv[3]));
        return 0;
    }
    for (int n = 1; n < threads; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, wait_for_ever, NULL))
            return 1;
    }
    /* All of them are waiting by then, and the checkpoint is worth its cost. */
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    char line[256];
    int file = open("late", O_RDONLY);
    if (file < 0)
        return 1;
    ssize_t length = read(file, line, sizeof line);
    close(file);
    if (length < 0 || write(1, line, length) != length)
        return 1;
    pause();
    return 0;
}
