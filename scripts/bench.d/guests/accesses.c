/* Looks at a path a number of times: accesses NUMBER PATH. */
#include <stdlib.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    struct stat found;
    for (int n = argc > 2 ? atoi(argv[1]) : 0; n > 0; n--)
        stat(argv[2], &found);
    return 0;
}
