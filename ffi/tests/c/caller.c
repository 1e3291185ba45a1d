/* A caller in bad circumstances is told so, and never killed: a small RLIMIT_FSIZE, threads with the smallest stack. */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* The child's own processes: a limit cannot be raised again. */
static void in_child(void (*test)(void))
{
    int status = 0;
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        test();
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status))
        fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static sandcell_command_t *shell(const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    words[2] = script;
    return sandcell_command_new(words);
}

/* No file at all may be written: an error, and the signal is neither delivered nor left pending. */
static void no_file(void)
{
    const char *const echo[] = {"/bin/echo", "hello", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    sigset_t set;

    limit_files(0);
    CHECK(sandcell_run(policy, echo, &result, &error) == SANDCELL_ERROR_SETUP && result == NULL);
    CHECK(sandcell_error_errno(error) == 27 && strstr(sandcell_error_hint(error), "RLIMIT_FSIZE") != NULL);
    sandcell_error_free(error);
    CHECK(sigpending(&set) == 0 && !sigismember(&set, SIGXFSZ));
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && !sigismember(&set, SIGXFSZ));
    sandcell_policy_free(policy);
}

/* A megabyte is enough to start; what is larger is refused, and the next run is as before. */
static void small_files(void)
{
    static char large[2 << 20];
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_command_t *command;
    sandcell_result_t *result = NULL;
    sandcell_child_t *child = NULL;
    sandcell_error_t *error = NULL;

    limit_files(1 << 20);
    sandcell_policy_add_file(policy, "/etc/motd", "be kind\n", 8);
    command = shell("cat /etc/motd; wc -c");
    sandcell_command_set_input(command, large, sizeof large);
    FINE(sandcell_run_command(policy, command, &result, &error)); /* by a pipe */
    CHECK(wrote(result, "be kind\n2097152\n"));
    sandcell_result_free(result);
    CHECK(sandcell_spawn(policy, command, &child, &error) == SANDCELL_ERROR_SETUP && child == NULL); /* by a memory file */
    CHECK(strstr(sandcell_error_hint(error), "RLIMIT_FSIZE") != NULL);
    sandcell_error_free(error);
    sandcell_command_free(command);

    /* The limit is the program's, too, with its signal. */
    command = shell("dd if=/dev/zero of=/tmp/file bs=1024 count=2048 2>/dev/null");
    FINE(sandcell_run_command(policy, command, &result, &error));
    CHECK(sandcell_result_outcome_number(result) != SANDCELL_OUTCOME_EXITED || sandcell_result_exit_code(result) != 0);
    sandcell_result_free(result);
    sandcell_command_free(command);
    sandcell_policy_free(policy);
}

static sandcell_policy_t *shared_policy;

static void *on_a_small_stack(void *way)
{
    sandcell_command_t *command = shell("echo hello");
    sandcell_result_t *result = NULL;
    sandcell_cell_t *cell = NULL;
    sandcell_error_t *error = NULL;

    (void)way;
    FINE(sandcell_run_command(shared_policy, command, &result, &error));
    CHECK(wrote(result, "hello\n"));
    sandcell_result_free(result);
    FINE(sandcell_start(shared_policy, &cell, &error));
    FINE(sandcell_cell_run(cell, command, &result, &error));
    CHECK(wrote(result, "hello\n") && sandcell_result_report_json(result)[0] == '{');
    sandcell_result_free(result);
    sandcell_cell_free(cell);
    sandcell_command_free(command);
    return NULL;
}

/* As a new thread in a program that is linked with musl may have, or one of a language with stacks of its own. */
static void small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;

    shared_policy = sandcell_policy_new();
    sandcell_policy_set_timeout_ms(shared_policy, 60000);
    sandcell_policy_add_file(shared_policy, "/etc/motd", "be kind\n", 8);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 16384) == 0);
    CHECK(pthread_create(&thread, &attributes, on_a_small_stack, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
    sandcell_policy_free(shared_policy);
}

int main(void)
{
    in_child(no_file);
    in_child(small_files);
    in_child(small_stack);
    return 0;
}
