/* Eight threads share one policy, one command, one cell and one child; and one forks while the others run. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 4 };

static sandcell_policy_t *policy;
static sandcell_command_t *command;
static sandcell_cell_t *cell;
static sandcell_child_t *child;

static void *use(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        sandcell_error_t *error = NULL;
        sandcell_result_t *result = NULL;
        FINE(sandcell_run_command(policy, command, &result, &error));
        CHECK(wrote(result, "here\n") && strstr(sandcell_result_report_json(result), "exited") != NULL);
        sandcell_result_free(result);
        FINE(sandcell_cell_run(cell, command, &result, &error));
        CHECK(wrote(result, "here\n"));
        sandcell_result_free(result);
    }
    return NULL;
}

/* All wait for the same child; that one of them ends it meanwhile must not have to wait for the others. */
static void *wait_for_it(void *unused)
{
    sandcell_error_t *error = NULL;
    sandcell_result_t *result = NULL;
    (void)unused;
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "killed") == 0);
    sandcell_result_free(result);
    return NULL;
}

static void *forks(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3 * ROUNDS; i++) {
        int status;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(127);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return NULL;
}

int main(void)
{
    const char *const echo[] = {"/bin/echo", "here", NULL};
    const char *const slow[] = {"/bin/sleep", "1000", NULL};
    sandcell_error_t *error = NULL;
    sandcell_command_t *sleeper = sandcell_command_new(slow);
    pthread_t threads[THREADS + 1];

    policy = sandcell_policy_new();
    command = sandcell_command_new(echo);
    FINE(sandcell_start(policy, &cell, &error));
    for (int i = 0; i <= THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, i == THREADS ? forks : use, NULL) == 0);
    for (int i = 0; i <= THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);

    FINE(sandcell_spawn(policy, sleeper, &child, &error));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_for_it, NULL) == 0);
    FINE(sandcell_child_kill(child, &error));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);

    /* The child of a fork takes nothing of its parent's sandboxes with it when it ends. */
    sandcell_child_free(child);
    FINE(sandcell_spawn(policy, sleeper, &child, &error));
    {
        sandcell_result_t *result = NULL;
        int status;
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        FINE(sandcell_child_wait(child, 50, &result, &error));
        CHECK(result == NULL); /* it still runs */
    }
    sandcell_child_free(child);
    sandcell_command_free(sleeper);
    sandcell_command_free(command);
    sandcell_cell_free(cell);
    sandcell_policy_free(policy);
    return 0;
}
