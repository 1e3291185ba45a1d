/*
 * A tiny online judge: runs a submission on each input, with limits, and compares what it writes.
 *
 *     cc judge.c -o judge $(pkg-config --cflags --libs sandcell)
 *     ./judge ./submission 1.in 1.out 2.in 2.out
 *
 * Verdicts: AC accepted, WA wrong answer, TLE too slow, MLE too much memory, OLE too much output, RE anything else.
 */
#include <sandcell.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(sandcell_error_t *error)
{
    fprintf(stderr, "%s\nhint: %s\n", sandcell_error_message(error), sandcell_error_hint(error));
    exit(125);
}

/* Whether a file holds exactly these bytes. */
static bool same(const char *path, const char *bytes, size_t length)
{
    FILE *file = fopen(path, "rb");
    bool equal = file != NULL;
    for (size_t i = 0; equal && i < length; i++)
        equal = fgetc(file) == (unsigned char)bytes[i];
    equal = equal && fgetc(file) == EOF;
    if (file != NULL)
        fclose(file);
    return equal;
}

static const char *verdict(const sandcell_result_t *result, const char *expected)
{
    const char *outcome = sandcell_result_outcome(result);
    if (strcmp(outcome, "timed_out") == 0)
        return "TLE";
    if (strcmp(outcome, "out_of_memory") == 0)
        return "MLE";
    if (strcmp(outcome, "output_limit") == 0)
        return "OLE";
    if (strcmp(outcome, "exited") != 0 || sandcell_result_exit_code(result) != 0)
        return "RE";
    size_t length;
    const char *output = sandcell_result_stdout(result, &length);
    return same(expected, output, length) ? "AC" : "WA";
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc % 2 != 0) {
        fprintf(stderr, "usage: %s SUBMISSION INPUT EXPECTED [INPUT EXPECTED]...\n", argv[0]);
        return 2;
    }
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_policy_add_ro(policy, argv[1], "/submission");
    sandcell_policy_set_network(policy, "none");
    sandcell_policy_set_timeout_ms(policy, 1000);
    sandcell_policy_set_grace_ms(policy, 0);
    sandcell_policy_set_memory(policy, 64u << 20);
    sandcell_policy_set_pids(policy, 16);
    sandcell_policy_set_disk(policy, 16u << 20);
    sandcell_policy_set_output_limit(policy, 1u << 20);
    /* A real judge wants these enforced and would rather not run; this one goes on and could show the report. */
    sandcell_policy_add_best_effort(policy, "memory");
    sandcell_policy_add_best_effort(policy, "pids");

    const char *const words[] = {"/submission", NULL};
    sandcell_command_t *command = sandcell_command_new(words);
    bool all = true;
    for (int i = 2; i < argc; i += 2) {
        sandcell_error_t *error = NULL;
        sandcell_result_t *result = NULL;
        int input = open(argv[i], O_RDONLY | O_CLOEXEC);
        if (input < 0) {
            perror(argv[i]);
            return 125;
        }
        sandcell_command_set_stdin_fd(command, input);
        if (sandcell_run_command(policy, command, &result, &error) != 0)
            fail(error);
        close(input); /* it stayed ours */

        sandcell_usage_t usage = {.size = sizeof usage};
        sandcell_result_usage(result, &usage);
        const char *word = verdict(result, argv[i + 1]);
        printf("%s: %s (%" PRIu64 " ms)\n", argv[i], word, usage.wall_ns / 1000000);
        all = all && strcmp(word, "AC") == 0;
        sandcell_result_free(result);
    }
    sandcell_command_free(command);
    sandcell_policy_free(policy);
    return all ? 0 : 1;
}
