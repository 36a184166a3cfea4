/* A guest of a given number of threads: all but the first wait on a condition;
   the first reads the file `late`, prints it, and waits. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
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

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
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
