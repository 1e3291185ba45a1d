/* Terminals of a sandbox's own. */
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static sandcell_policy_t *policy;
static sandcell_error_t *error;

static sandcell_command_t *shell(const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    sandcell_command_t *command;
    words[2] = script;
    command = sandcell_command_new(words);
    CHECK(sandcell_command_set_terminal(command, 33, 99) == 0);
    return command;
}

/* Reads until the text has come. */
static void until(int terminal, const char *text)
{
    char shown[65536] = "";
    size_t length = 0;
    while (strstr(shown, text) == NULL) {
        int64_t count = -1;
        CHECK(length < sizeof shown - 1);
        FINE(sandcell_terminal_read(terminal, shown + length, sizeof shown - 1 - length, 60000, &count, &error));
        CHECK(count > 0);
        length += (size_t)count;
        shown[length] = '\0';
    }
}

static void a_program_is_talked_to(void)
{
    sandcell_command_t *command = shell("tty; stty size; read line; echo got $line; stty size");
    sandcell_child_t *child = NULL;
    sandcell_result_t *result = NULL;
    char byte;
    int64_t count;
    int terminal;

    FINE(sandcell_spawn(policy, command, &child, &error));
    terminal = sandcell_child_take_terminal(child);
    CHECK(terminal >= 0 && fcntl(terminal, F_GETFD) == FD_CLOEXEC);
    CHECK(sandcell_child_take_terminal(child) == -1 && sandcell_child_take_stdout(child) == -1);
    until(terminal, "33 99");
    FINE(sandcell_terminal_read(terminal, &byte, 1, 10, &count, &error));
    if (count == 1) /* the end of the line */
        FINE(sandcell_terminal_read(terminal, &byte, 1, 10, &count, &error));
    FINE(sandcell_terminal_resize(terminal, 5, 6, &error));
    FINE(sandcell_terminal_write(terminal, "typed\n", 6, -1, &count, &error));
    CHECK(count == 6);
    until(terminal, "5 6");
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(sandcell_result_exit_code(result) == 0);
    do
        FINE(sandcell_terminal_read(terminal, &byte, 1, 60000, &count, &error));
    while (count == 1);
    CHECK(count == 0); /* nobody has it any more */
    close(terminal);
    sandcell_result_free(result);
    sandcell_child_free(child);
    sandcell_command_free(command);
}

static void a_run_has_what_was_shown(void)
{
    sandcell_command_t *command = shell("test -t 0 && test -t 1 && test -t 2 && stty size; cat");
    sandcell_result_t *result = NULL;
    FINE(sandcell_run_command(policy, command, &result, &error));
    CHECK(strcmp(sandcell_result_stdout(result, NULL), "33 99\r\n") == 0);
    sandcell_result_free(result);
    sandcell_command_free(command);
}

static void a_hang_up_ends_the_program(void)
{
    sandcell_command_t *command = shell("exec sleep 1000");
    sandcell_child_t *child = NULL;
    sandcell_result_t *result = NULL;
    FINE(sandcell_spawn(policy, command, &child, &error));
    close(sandcell_child_take_terminal(child));
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(sandcell_result_signal(result) == SIGHUP);
    sandcell_result_free(result);
    sandcell_child_free(child);
    sandcell_command_free(command);
}

static void what_is_no_terminal_is_refused(void)
{
    int64_t count = 7;
    char byte;
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(sandcell_terminal_read(ends[0], &byte, 1, 0, &count, &error) == SANDCELL_ERROR_CONFIG && count == -1);
    sandcell_error_free(error);
    error = NULL;
    CHECK(sandcell_terminal_write(-1, "x", 1, 0, &count, &error) == SANDCELL_ERROR_CONFIG && count == 0);
    sandcell_error_free(error);
    error = NULL;
    CHECK(sandcell_terminal_resize(ends[1], 1, 1, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK((fcntl(ends[0], F_GETFL) & O_NONBLOCK) == 0); /* and stays as it was */
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    policy = sandcell_policy_new();
    a_program_is_talked_to();
    a_run_has_what_was_shown();
    a_hang_up_ends_the_program();
    what_is_no_terminal_is_refused();
    sandcell_policy_free(policy);
    return 0;
}
