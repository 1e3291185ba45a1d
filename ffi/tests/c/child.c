/* Programs that run: pipes, pidfds, waiting, signals. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

static sandcell_policy_t *policy;
static sandcell_error_t *error;

static sandcell_child_t *spawn(const char *script, const char *stream)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    sandcell_command_t *command;
    sandcell_child_t *child = NULL;
    words[2] = script;
    command = sandcell_command_new(words);
    sandcell_command_set_stdin(command, stream);
    sandcell_command_set_stdout(command, stream);
    sandcell_command_set_stderr(command, stream);
    FINE(sandcell_spawn(policy, command, &child, &error));
    sandcell_command_free(command);
    return child;
}

static bool ended(int pidfd, int timeout)
{
    struct pollfd watched;
    watched.fd = pidfd;
    watched.events = POLLIN;
    return poll(&watched, 1, timeout) == 1;
}

int main(void)
{
    sandcell_child_t *child;
    sandcell_result_t *result = NULL;
    char bytes[64] = "";
    char *json = NULL;
    int in, out, pidfd = -1;

    policy = sandcell_policy_new();

    /* Pipes and a pidfd for the caller's own loop, all CLOEXEC. */
    child = spawn("read -r line; echo \"$line\"; exit 5", "pipe");
    in = sandcell_child_take_stdin(child);
    out = sandcell_child_take_stdout(child);
    CHECK(in > 2 && out > 2 && sandcell_child_take_stdin(child) == -1);
    FINE(sandcell_child_pidfd(child, &pidfd, &error));
    CHECK(fcntl(in, F_GETFD) == FD_CLOEXEC && fcntl(out, F_GETFD) == FD_CLOEXEC && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    CHECK(sandcell_child_id(child) > 1);
    FINE(sandcell_child_report_json(child, &json, &error));
    CHECK(strstr(json, "\"host_uid\"") != NULL);
    sandcell_text_free(json);
    CHECK(!ended(pidfd, 0));
    FINE(sandcell_child_wait(child, 0, &result, &error));
    CHECK(result == NULL); /* it still runs */
    FINE(sandcell_child_wait(child, 10, &result, &error));
    CHECK(result == NULL);
    CHECK(write(in, "hello\n", 6) == 6);
    CHECK(ended(pidfd, -1));
    FINE(sandcell_child_wait(child, 60000, &result, &error));
    CHECK(sandcell_result_exit_code(result) == 5);
    sandcell_result_free(result);
    CHECK(read(out, bytes, sizeof bytes) == 6 && strcmp(bytes, "hello\n") == 0);
    FINE(sandcell_child_wait(child, -1, &result, &error)); /* again, after the end */
    CHECK(sandcell_result_exit_code(result) == 5);
    sandcell_result_free(result);
    FINE(sandcell_child_signal(child, SIGTERM, &error)); /* no error, no effect */
    FINE(sandcell_child_kill(child, &error));
    sandcell_child_free(child);
    close(in);
    close(out);
    close(pidfd);

    /* Waiting closes standard input, and so ends what reads it. */
    child = spawn("cat", "pipe");
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(sandcell_result_exit_code(result) == 0);
    sandcell_result_free(result);
    sandcell_child_free(child);

    /* Input and output together, more than pipes hold. */
    {
        const char *const cat[] = {"/bin/cat", NULL};
        sandcell_command_t *command = sandcell_command_new(cat);
        size_t much = 300000, length = 0;
        char *text = malloc(much);
        memset(text, 'x', much);
        sandcell_command_set_input(command, text, much);
        sandcell_command_set_stdout(command, "pipe");
        FINE(sandcell_spawn(policy, command, &child, &error));
        FINE(sandcell_child_wait_output(child, &result, &error));
        CHECK(memcmp(sandcell_result_stdout(result, &length), text, much) == 0 && length == much);
        sandcell_result_free(result);
        sandcell_child_free(child);
        sandcell_command_free(command);
        free(text);
    }

    child = spawn("sleep 1000", "null");
    FINE(sandcell_child_signal(child, SIGUSR1, &error));
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "signaled") == 0 && sandcell_result_signal(result) == SIGUSR1);
    CHECK(sandcell_result_exit_code(result) == 128 + SIGUSR1);
    sandcell_result_free(result);
    CHECK(sandcell_child_signal(child, 0, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_child_signal(child, 65, NULL) == SANDCELL_ERROR_CONFIG);
    sandcell_child_free(child);

    child = spawn("sleep 1000", "null");
    FINE(sandcell_child_kill(child, &error));
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "killed") == 0 && sandcell_result_exit_code(result) == 137);
    sandcell_result_free(result);
    sandcell_child_free(child);

    /* What is freed while it runs has ended; the pidfd is the caller's and outlives it. A policy may go first. */
    child = spawn("sleep 1000", "null");
    FINE(sandcell_child_pidfd(child, &pidfd, &error));
    sandcell_policy_free(policy);
    CHECK(!ended(pidfd, 0));
    sandcell_child_free(child);
    CHECK(ended(pidfd, 0));
    close(pidfd);
    return 0;
}
