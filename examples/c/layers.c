/*
 * A root file system from layers, and the list of what a run changed in it. The layers stay as they are.
 *
 *     cc layers.c -o layers $(pkg-config --cflags --libs sandcell) && ./layers LAYER... -- PROGRAM [ARGUMENT...]
 */
#include <sandcell.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    int at = 1;
    sandcell_policy_t *policy = sandcell_policy_new();
    for (; at < argc && strcmp(argv[at], "--") != 0; at++)
        sandcell_policy_add_layer(policy, argv[at]); /* the first is the lowest */
    if (at == 1 || at + 1 >= argc) {
        fprintf(stderr, "usage: %s LAYER... -- PROGRAM [ARGUMENT...]\n", argv[0]);
        sandcell_policy_free(policy);
        return 2;
    }
    /* Programs and their libraries come from the host, read-only, where the layers have none. */
    sandcell_policy_add_ro(policy, "/usr", NULL);
    sandcell_policy_set_chdir(policy, "/");

    sandcell_command_t *command = sandcell_command_new((const char *const *)(argv + at + 1));
    sandcell_command_set_track_changes(command, true);
    sandcell_command_set_stdout(command, "inherit");
    sandcell_command_set_stderr(command, "inherit");

    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    int status = 125;
    if (sandcell_run_command(policy, command, &result, &error) != 0) {
        fprintf(stderr, "%s\nhint: %s\n", sandcell_error_message(error), sandcell_error_hint(error));
    } else {
        const sandcell_changes_t *changes = sandcell_result_changes(result);
        for (size_t i = 0; i < sandcell_changes_count(changes); i++)
            printf("%c %s\n", "?+~-"[sandcell_changes_kind(changes, i)], sandcell_changes_path(changes, i));
        status = sandcell_result_exit_code(result);
    }
    sandcell_result_free(result);
    sandcell_error_free(error);
    sandcell_command_free(command);
    sandcell_policy_free(policy);
    return status;
}
