/*
 * Runs a program in a sandbox and says how it ended.
 *
 *     cc run.c -o run $(pkg-config --cflags --libs sandcell) && ./run /bin/sh -c 'id; echo hello'
 */
#include <sandcell.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s PROGRAM [ARGUMENT...]\n", argv[0]);
        return 2;
    }
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_policy_set_timeout_ms(policy, 10000);
    sandcell_policy_set_user(policy, "1234");
    sandcell_policy_add_env(policy, "GREETING", "hello");

    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    int status;
    if (sandcell_run(policy, (const char *const *)(argv + 1), &result, &error) != 0) {
        fprintf(stderr, "%s\n", sandcell_error_message(error));
        if (*sandcell_error_hint(error) != '\0')
            fprintf(stderr, "hint: %s\n", sandcell_error_hint(error));
        status = 125;
    } else {
        size_t length;
        const char *output = sandcell_result_stdout(result, &length);
        fwrite(output, 1, length, stdout);
        output = sandcell_result_stderr(result, &length);
        fwrite(output, 1, length, stderr);
        status = sandcell_result_exit_code(result);
        fprintf(stderr, "%s, status %d\n", sandcell_result_outcome(result), status);
    }
    sandcell_result_free(result);
    sandcell_error_free(error);
    sandcell_policy_free(policy);
    return status;
}
