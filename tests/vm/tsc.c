/* Prints the frequency of this processor's time stamp counter in kHz: the second kernel is told, since it cannot find it out
   on a busy machine. */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

/* Counter and seconds at one moment: of many readings the one that was interrupted least. */
static void look(unsigned long long *ticks, double *seconds)
{
    unsigned long long best = ~0ULL;
    for (int i = 0; i < 200; i++) {
        struct timespec now;
        unsigned long long before = __rdtsc(), took;
        clock_gettime(CLOCK_MONOTONIC_RAW, &now);
        took = __rdtsc() - before;
        if (took < best) {
            best = took;
            *ticks = before + took / 2;
            *seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
        }
    }
}

int main(void)
{
    unsigned long long first, last;
    double from, to;
    const struct timespec pause = {0, 200000000};
    look(&first, &from);
    nanosleep(&pause, NULL);
    look(&last, &to);
    printf("%.0f\n", (double)(last - first) / (to - from) / 1000);
    return 0;
}
