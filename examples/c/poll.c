/*
 * Many sandboxes in one event loop: each has a pidfd, which poll(2) watches like any other descriptor.
 *
 *     cc poll.c -o poll $(pkg-config --cflags --libs sandcell) && ./poll 8
 */
#include <sandcell.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 64 };

static void fail(sandcell_error_t *error)
{
    fprintf(stderr, "%s\nhint: %s\n", sandcell_error_message(error), sandcell_error_hint(error));
    exit(125);
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 8;
    if (count < 1 || count > MOST) {
        fprintf(stderr, "usage: %s [1 to %d]\n", argv[0], MOST);
        return 2;
    }
    sandcell_error_t *error = NULL;
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_policy_set_timeout_ms(policy, 10000);

    sandcell_child_t *children[MOST];
    struct pollfd watched[MOST];
    for (int i = 0; i < count; i++) {
        char script[64];
        snprintf(script, sizeof script, "sleep 0.%d; exit %d", (count - i) % 10, i);
        const char *const words[] = {"/bin/sh", "-c", script, NULL};
        sandcell_command_t *command = sandcell_command_new(words);
        if (sandcell_spawn(policy, command, &children[i], &error) != 0)
            fail(error);
        sandcell_command_free(command); /* what was started goes on without it */
        if (sandcell_child_pidfd(children[i], &watched[i].fd, &error) != 0)
            fail(error);
        watched[i].events = POLLIN;
    }

    for (int running = count; running > 0;) {
        if (poll(watched, (nfds_t)count, -1) < 0)
            continue; /* a signal */
        for (int i = 0; i < count; i++) {
            if (watched[i].fd < 0 || watched[i].revents == 0)
                continue;
            sandcell_result_t *result = NULL;
            if (sandcell_child_wait(children[i], -1, &result, &error) != 0)
                fail(error);
            printf("sandbox %d: %s, status %d\n", i, sandcell_result_outcome(result), sandcell_result_exit_code(result));
            sandcell_result_free(result);
            sandcell_child_free(children[i]);
            close(watched[i].fd);
            watched[i].fd = -1; /* poll(2) skips it */
            running--;
        }
    }
    sandcell_policy_free(policy);
    return 0;
}
