/* Compiled anew in each run: headers that are read by the compiler, then what the
 * program reads itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/first.h"
#include "lib/second.h"
#if __has_include("override.h")
#include "override.h"
#endif
#ifndef OVERRIDE
#define OVERRIDE "none"
#endif

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

int main(void)
{
    char line[256];
    long sum = 0, last = 0;
    printf("begin %s %s %s %u\n", FIRST, SECOND, OVERRIDE, work(8000000));
    fflush(stdout);
    FILE *in = fopen("input.txt", "r");
    FILE *out;
    mkdir("out", 0700);
    out = fopen("out/table", "w+");
    fprintf(out, "%08d\n", 0);
    while (in && fgets(line, sizeof line, in)) {
        sum += number(line);
        fputs(line, out);
        work(1000000);
    }
    printf("sum %ld %u\n", sum, work(8000000));
    fflush(stdout);
    rewind(out);
    fprintf(out, "%08ld", sum % 100000000);
    fclose(out);
    link("out/table", "out/same");
    symlink("table", "out/link");
    out = fopen("out/tmp", "w");
    fprintf(out, "temporary %ld\n", sum);
    fclose(out);
    rename("out/tmp", "out/kept");
    unlink("stale.txt");
    in = fopen("last.txt", "r");
    if (in && fgets(line, sizeof line, in))
        last = number(line);
    printf("last %ld\n", last);
    fprintf(stderr, "on standard error %ld\n", last);
    return last % 5;
}
