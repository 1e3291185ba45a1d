/* Arguments, environment and streams of one command. */
#include "check.h"
#include <fcntl.h>
#include <unistd.h>

static sandcell_policy_t *policy;
static sandcell_error_t *error;

static sandcell_command_t *shell(const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    words[2] = script;
    return sandcell_command_new(words);
}

static sandcell_result_t *run(const sandcell_command_t *command)
{
    sandcell_result_t *result = NULL;
    FINE(sandcell_run_command(policy, command, &result, &error));
    return result;
}

int main(void)
{
    sandcell_command_t *command;
    sandcell_result_t *result;
    sandcell_usage_t usage;
    char bytes[64] = "";
    int ends[2], passed[2];

    policy = sandcell_policy_new();
    sandcell_policy_add_env(policy, "OURS", "policy");
    sandcell_policy_add_env(policy, "GONE", "policy");

    command = shell("echo $0 $1 $OURS ${GONE-none}; pwd");
    sandcell_command_add_arg(command, "name");
    sandcell_command_add_arg(command, "one");
    sandcell_command_set_env(command, "OURS", "command");
    sandcell_command_set_env(command, "GONE", NULL);
    sandcell_command_set_chdir(command, "/usr");
    result = run(command);
    CHECK(wrote(result, "name one command none\n/usr\n"));
    sandcell_result_free(result);
    sandcell_command_clear_env(command); /* the same command again, changed */
    sandcell_command_set_env(command, "OURS", "alone");
    result = run(command);
    CHECK(wrote(result, "name one alone none\n/usr\n"));
    sandcell_result_free(result);
    sandcell_command_free(command);

    command = shell("tr '\\0\\n' ' ' </proc/$$/cmdline");
    sandcell_command_set_arg0(command, "other");
    result = run(command);
    CHECK(strncmp(sandcell_result_stdout(result, NULL), "other -c", 8) == 0);
    sandcell_result_free(result);
    sandcell_command_free(command);

    /* Input: bytes; more than a pipe holds; then nothing. */
    command = shell("wc -c");
    {
        size_t much = 1 << 20;
        char *zeros = calloc(much, 1);
        sandcell_command_set_input(command, zeros, much);
        free(zeros); /* it was copied */
    }
    result = run(command);
    CHECK(wrote(result, "1048576\n"));
    sandcell_result_free(result);
    sandcell_command_set_input(command, NULL, 0);
    result = run(command);
    CHECK(wrote(result, "0\n"));
    sandcell_result_free(result);
    sandcell_command_free(command);

    /* Descriptors of the caller: borrowed, still open afterwards. */
    CHECK(pipe(ends) == 0 && pipe(passed) == 0);
    CHECK(write(passed[1], "seven", 5) == 5);
    command = shell("read -r line <&7; echo $line; echo err >&2");
    sandcell_command_set_stdin_fd(command, passed[0]);
    sandcell_command_set_stdout_fd(command, ends[1]);
    sandcell_command_set_stderr_fd(command, ends[1]);
    sandcell_command_add_fd(command, passed[0], 7);
    close(passed[1]);
    result = run(command);
    CHECK(*sandcell_result_stdout(result, NULL) == '\0' && *sandcell_result_stderr(result, NULL) == '\0');
    CHECK(read(ends[0], bytes, sizeof bytes) == 10 && strcmp(bytes, "seven\nerr\n") == 0);
    CHECK(fcntl(ends[1], F_GETFD) == 0 && fcntl(passed[0], F_GETFD) == 0);
    sandcell_result_free(result);
    sandcell_command_free(command);
    close(ends[0]);
    close(ends[1]);
    close(passed[0]);

    /* A closed descriptor, none at all, and a directory are refused: the last would lead out. */
    command = shell("true");
    sandcell_command_add_fd(command, passed[0], 7);
    CHECK(sandcell_run_command(policy, command, &result, &error) == SANDCELL_ERROR_CONFIG && result == NULL);
    CHECK(strstr(sandcell_error_message(error), "cannot be passed") != NULL);
    sandcell_error_free(error);
    sandcell_command_free(command);
    command = shell("true");
    sandcell_command_set_stdout_fd(command, -1);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "descriptor -1");
    sandcell_command_free(command);
    command = shell("true");
    ends[0] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    sandcell_command_add_fd(command, ends[0], 7);
    CHECK(sandcell_run_command(policy, command, &result, &error) == SANDCELL_ERROR_CONFIG);
    CHECK(strstr(sandcell_error_message(error), "directory") != NULL);
    sandcell_error_free(error);
    error = NULL;
    sandcell_command_free(command);
    close(ends[0]);

    /* Its own timeout; counted output. */
    command = shell("printf 12345; sleep 1000");
    sandcell_policy_set_grace_ms(policy, 0);
    sandcell_command_set_timeout_ms(command, 200);
    sandcell_command_set_count_output(command, true);
    result = run(command);
    CHECK(strcmp(sandcell_result_outcome(result), "timed_out") == 0);
    usage.size = sizeof usage;
    CHECK(sandcell_result_usage(result, &usage) == 0 && usage.output_bytes == 5);
    sandcell_result_free(result);
    sandcell_command_free(command);

    /* Bytes for standard input are never lost: what would lose them is refused, before and after. */
    command = shell("cat");
    sandcell_command_set_stdin(command, "null");
    sandcell_command_set_input(command, "hello", 5); /* the last counts */
    result = run(command);
    CHECK(wrote(result, "hello"));
    sandcell_result_free(result);
    result = run(command); /* and again */
    CHECK(wrote(result, "hello"));
    sandcell_result_free(result);
    CHECK(sandcell_command_set_stdin(command, "null") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "stdin");
    sandcell_command_free(command);
    command = shell("cat");
    sandcell_command_set_input(command, "hello", 5);
    CHECK(sandcell_command_set_stdin_fd(command, 0) == SANDCELL_ERROR_CONFIG);
    sandcell_command_free(command);

    /* Each value is checked when it is set; the first mistake stays, whatever comes after. */
    command = shell("true");
    CHECK(sandcell_command_add_fd(command, 0, 1024) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_set_stdin(command, "tape") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "pass_fd");
    sandcell_command_free(command);
    command = shell("true");
    CHECK(sandcell_command_set_env(command, "A=B", "c") == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_set_chdir(command, "usr") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "env");
    sandcell_command_free(command);
    command = shell("true");
    CHECK(sandcell_command_set_chdir(command, "usr") == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_set_stdout_fd(command, -1) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_set_env(command, "", "c") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "usr");
    sandcell_command_free(command);

    /* A text that C cannot hold is refused in every place. */
    command = shell("true");
    CHECK(sandcell_command_add_arg(command, sandcell_text_with_nul()) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_add_arg(command, "") == 0); /* it is no empty text */
    CHECK(sandcell_run_command(policy, command, &result, &error) == SANDCELL_ERROR_CONFIG);
    CHECK(strstr(sandcell_error_message(error), "NUL") != NULL);
    sandcell_error_free(error);
    error = NULL;
    sandcell_command_free(command);

    /* A time that never comes. */
    command = shell("echo done");
    sandcell_command_set_timeout_ms(command, SANDCELL_UNLIMITED);
    result = run(command);
    CHECK(wrote(result, "done\n"));
    sandcell_result_free(result);
    sandcell_command_free(command);

    /* The first mistake stays. */
    command = shell("true");
    CHECK(sandcell_command_set_stdin(command, "tape") == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_command_set_stdin(command, "null") == 0);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "stdin");
    sandcell_command_free(command);
    command = sandcell_command_new(NULL);
    REFUSED(sandcell_run_command(policy, command, &result, &error), SANDCELL_ERROR_CONFIG, "argv");
    sandcell_command_free(command);

    sandcell_policy_free(policy);
    return 0;
}
