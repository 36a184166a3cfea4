/* A guest of a given resident size, for the cost of checkpoints.

   memory MEGABYTES small|huge TIMES touch PAUSE_MS WRITTEN_MB
       reads the files part0, part1, ... one after the other, so that forkmon
       takes a checkpoint before each; before each it pauses, and writes to as
       many megabytes; then it says so and waits.
   memory MEGABYTES small|huge TIMES fork PAUSE_MS
       forks as often, with the same pauses, since the first fork after a while
       finds its page tables in no cache; prints for how many nanoseconds each
       fork took. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *step)
{
    perror(step);
    exit(1);
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void time_fork(void)
{
    long long start = now();
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    long long end = now();
    if (child < 0)
        fail("fork");
    waitpid(child, NULL, 0);
    printf("%lld\n", end - start);
}

static void touch(int number)
{
    char name[32];
    snprintf(name, sizeof name, "part%d", number);
    int file = open(name, O_RDONLY);
    if (file < 0)
        fail(name);
    close(file);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    size_t size = strtoul(argv[1], NULL, 10) << 20;
    int huge = strcmp(argv[2], "huge") == 0;
    int times = atoi(argv[3]);
    /* Aligned, so that huge pages fit. */
    char *memory = aligned_alloc(2 << 20, (size + (2 << 20) - 1) & ~((2UL << 20) - 1));
    if (!memory)
        fail("aligned_alloc");
    if (madvise(memory, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
        fail("madvise");
    memset(memory, 1, size);
    struct timespec pause_time = {atoi(argv[5]) / 1000, atoi(argv[5]) % 1000 * 1000000L};
    if (strcmp(argv[4], "fork") == 0) {
        for (int n = 0; n < times; n++) {
            nanosleep(&pause_time, NULL);
            time_fork();
        }
        return 0;
    }
    size_t written = argc > 6 ? strtoul(argv[6], NULL, 10) << 20 : 0;
    for (int n = 0; n < times; n++) {
        nanosleep(&pause_time, NULL);
        for (size_t at = 0; at < written; at += 4096)
            memory[(n * written + at) % size]++;
        touch(n);
    }
    puts("done");
    fflush(stdout);
    pause();
    return 0;
}
