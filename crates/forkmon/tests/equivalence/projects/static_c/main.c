/* Raw calls of a static program: an early file that stays mapped, pread in pieces, a
 * binary file of records that it reads and patches, a FIFO, a shared mapping, a hole, a
 * child that reads, and a signal at times. */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(what) \
    do { \
        if (!(what)) { \
            perror(#what); \
            printf("failed: %s\n", #what); \
            exit(9); \
        } \
    } while (0)

static unsigned work(unsigned rounds)
{
    unsigned x = 1;
    for (unsigned i = 0; i < rounds; i++)
        x = x * 1103515245 + i;
    return x;
}

static long number(const char *text)
{
    const char *at = strchr(text, '@');
    return at ? atol(at + 1) : 0;
}

/* The text of a file; NULL if it is not there. */
static char *slurp(const char *name)
{
    static char text[65536];
    int fd = open(name, O_RDONLY);
    if (fd < 0)
        return NULL;
    ssize_t count = read(fd, text, sizeof text - 1);
    REQUIRE(count >= 0);
    text[count] = 0;
    close(fd);
    return text;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_seen(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 4096);
    printf("begin\n");
    printf("work %u\n", work(8000000));

    /* Mapped, and looked at again at the end. */
    int fd = open("mapped.txt", O_RDONLY);
    REQUIRE(fd >= 0);
    struct stat found;
    REQUIRE(fstat(fd, &found) == 0);
    char *mapped = NULL;
    if (found.st_size > 0) {
        mapped = mmap(NULL, found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        REQUIRE(mapped != MAP_FAILED);
        printf("mapped %ld\n", number(strndup(mapped, found.st_size)));
    }
    close(fd);
    printf("work %u\n", work(8000000));

    /* Records: each run patches the first and adds one. */
    struct { long count, last; } head = { 0, 0 };
    int records = open("records.bin", O_RDWR | O_CREAT, 0644);
    REQUIRE(records >= 0);
    REQUIRE(read(records, &head, sizeof head) >= 0);
    head.count++;
    REQUIRE(pwrite(records, &head, sizeof head, 0) == sizeof head);
    printf("records %ld %u\n", head.count, work(4000000));

    const char *text = slurp("override.txt");
    printf("override %s", text ? text : "none\n");

    struct dirent **names;
    int count = scandir("data", &names, is_seen, by_name);
    REQUIRE(count >= 0);
    long sum = 0;
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, "data/%s", names[i]->d_name);
        text = slurp(path);
        sum += text ? number(text) : 0;
        printf("%s %ld %u\n", path, sum, work(5000000));
    }

    /* In pieces. */
    fd = open("pieces.txt", O_RDONLY);
    REQUIRE(fd >= 0);
    char piece[9] = "";
    for (off_t at = 0; pread(fd, piece, 8, at) > 0; at += 8) {
        sum += strlen(piece);
        work(500000);
        memset(piece, 0, sizeof piece);
    }
    close(fd);
    printf("pieces %ld\n", sum);

    REQUIRE(mkdir("out", 0755) == 0);
    REQUIRE(mkfifo("out/fifo", 0600) == 0);
    fd = open("out/big", O_RDWR | O_CREAT | O_EXCL, 0644);
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, 8192) == 0);
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(shared != MAP_FAILED);
    snprintf(shared + 4096, 64, "shared %ld", sum);
    printf("work %u\n", work(4000000));

    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        text = slurp("child.txt");
        fd = open("out/child", O_WRONLY | O_CREAT | O_EXCL, 0600);
        dprintf(fd, "child %s", text ? text : "none");
        _exit(text ? (int)(number(text) % 3) : 4);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    printf("child %d %u\n", status, work(4000000));

    text = slurp("last.txt");
    long last = text ? number(text) : -1;
    snprintf(shared, 64, "last %ld", last);
    REQUIRE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 16) == 0);
    head.last = last;
    REQUIRE(pwrite(records, &head, sizeof head, 0) == sizeof head);
    REQUIRE(rename("out/child", "out/child.txt") == 0);
    unlink("stale.txt");
    REQUIRE(rmdir("out") != 0);
    printf("last %ld %s\n", last, mapped ? "mapped" : "");
    if (last % 5 == 4)
        abort();
    return last % 3;
}
