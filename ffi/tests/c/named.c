/* Cells with a name, which outlive whoever started them. */
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

static sandcell_error_t *error;
static char name[64];

static sandcell_command_t *shell(const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    words[2] = script;
    return sandcell_command_new(words);
}

/* A name that is none, one that is taken, flags that nobody knows. */
static void mistakes(const sandcell_policy_t *policy)
{
    const char *const wrong[] = {"", "a/b", "..", "-a", sandcell_text_with_nul(), NULL};
    sandcell_named_t *named = NULL, *other = NULL;
    for (int i = 0; wrong[i] != NULL; i++) {
        CHECK(sandcell_detach(policy, wrong[i], NULL, 0, 0, 0, &named, NULL) == SANDCELL_ERROR_CONFIG && named == NULL);
        CHECK(sandcell_named_find(wrong[i], &named, NULL) == SANDCELL_ERROR_CONFIG && named == NULL);
    }
    CHECK(sandcell_detach(policy, name, NULL, 0, 0, 8, &named, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_detach(policy, name, NULL, 0, 0, 6, &named, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_detach(policy, name, NULL, 1, 0, 0, &named, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_detach(policy, name, NULL, 0, 99, 0, &named, NULL) == SANDCELL_ERROR_CONFIG);
    FINE(sandcell_detach(policy, name, NULL, 0, 0, 0, &named, &error));
    CHECK(sandcell_detach(policy, name, NULL, 0, 0, 0, &other, &error) == SANDCELL_ERROR_SETUP && other == NULL);
    CHECK(*sandcell_error_hint(error) != '\0');
    sandcell_error_free(error);
    error = NULL;
    CHECK(sandcell_named_remove(named, NULL) == SANDCELL_ERROR_SETUP);
    CHECK(sandcell_named_signal(named, 10, NULL) != 0);
    CHECK(sandcell_named_write(named, "x", 1, NULL) != 0);
    FINE(sandcell_named_kill(named, &error));
    FINE(sandcell_named_remove(named, &error));
    sandcell_named_free(named);
}

/* Started by a process that ends, used by another one. */
static void outlives(void)
{
    sandcell_named_t *named = NULL;
    sandcell_cell_t *cell = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = shell("echo beside; echo $USER >&2");
    int status;
    pid_t child = fork();
    if (child == 0) {
        sandcell_policy_t *policy = sandcell_policy_new();
        sandcell_command_t *main_program = shell("read line; echo got $line; echo error >&2; exit 3");
        int failed = sandcell_detach(policy, name, main_program, 4096, 2, SANDCELL_DETACH_KEEP_STDIN, &named, NULL);
        _exit(failed);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    FINE(sandcell_named_find(name, &named, &error));
    FINE(sandcell_named_cell(named, &cell, &error));
    FINE(sandcell_cell_run(cell, command, &result, &error));
    CHECK(strcmp(sandcell_result_stdout(result, NULL), "beside\n") == 0);
    sandcell_result_free(result);
    sandcell_cell_free(cell);
    FINE(sandcell_named_wait(named, 1, &result, &error));
    CHECK(result == NULL);
    FINE(sandcell_named_write(named, "typed\n", 6, &error));
    FINE(sandcell_named_close_stdin(named, &error));
    FINE(sandcell_named_wait(named, SANDCELL_UNLIMITED, &result, &error));
    CHECK(sandcell_result_exit_code(result) == 3);
    sandcell_result_free(result);
    CHECK(sandcell_named_cell(named, &cell, NULL) != 0 && cell == NULL);
    sandcell_command_free(command);
    sandcell_named_free(named);
}

static void reads_the_log(void)
{
    sandcell_named_t *named = NULL;
    sandcell_log_t *log_of = NULL;
    sandcell_log_record_t record = {.size = sizeof record};
    uint64_t next;
    char *json = NULL;
    int seen = 0;
    FINE(sandcell_named_find(name, &named, &error));
    FINE(sandcell_named_log(named, &log_of, &error));
    for (;;) {
        FINE(sandcell_log_next(log_of, 10000, &record, &error));
        if (record.stream == 0)
            break;
        const char *expected = record.stream == 1 ? "got typed" : "error";
        CHECK(record.length == strlen(expected) && memcmp(record.text, expected, record.length) == 0);
        CHECK(!record.partial && record.time_ns > 1700000000ull * 1000000000);
        next = record.next;
        seen++;
    }
    CHECK(seen == 2);
    sandcell_log_seek(log_of, next);
    FINE(sandcell_log_next(log_of, 0, &record, &error));
    CHECK(record.stream == 0 && record.text == NULL);
    sandcell_log_free(log_of);
    FINE(sandcell_named_info_json(named, &json, &error));
    CHECK(strstr(json, "\"state\":\"ended\"") != NULL && strstr(json, "\"exit_status\":3") != NULL);
    sandcell_text_free(json);
    FINE(sandcell_named_list_json(&json, &error));
    CHECK(strstr(json, name) != NULL);
    sandcell_text_free(json);
    FINE(sandcell_named_remove(named, &error));
    sandcell_named_free(named);
    CHECK(sandcell_named_find(name, &named, NULL) == SANDCELL_ERROR_CONFIG && named == NULL);
}

/* Stopped and paused; without a cgroup the latter is refused. */
static void controls(const sandcell_policy_t *policy)
{
    sandcell_named_t *named = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = shell("sleep 1000");
    int paused;
    FINE(sandcell_detach(policy, name, command, 0, 0, SANDCELL_DETACH_RESTART_ALWAYS, &named, &error));
    paused = sandcell_named_pause(named, NULL);
    CHECK(paused == 0 || paused == SANDCELL_ERROR_UNSUPPORTED || paused == SANDCELL_ERROR_SETUP);
    if (paused == 0)
        FINE(sandcell_named_resume(named, &error));
    FINE(sandcell_named_stop(named, 0, &error));
    FINE(sandcell_named_wait(named, SANDCELL_UNLIMITED, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "killed") == 0);
    sandcell_result_free(result);
    FINE(sandcell_named_remove(named, &error));
    sandcell_named_free(named);
    sandcell_command_free(command);
}

int main(void)
{
    sandcell_policy_t *policy = sandcell_policy_new();
    snprintf(name, sizeof name, "c-%d", (int)getpid());
    mistakes(policy);
    outlives();
    reads_the_log();
    controls(policy);
    sandcell_policy_free(policy);
    return 0;
}
