/* One sandbox, many programs. */
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

static sandcell_error_t *error;

static sandcell_command_t *shell(const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    words[2] = script;
    return sandcell_command_new(words);
}

static sandcell_result_t *run(const sandcell_cell_t *cell, const char *script)
{
    sandcell_command_t *command = shell(script);
    sandcell_result_t *result = NULL;
    FINE(sandcell_cell_run(cell, command, &result, &error));
    sandcell_command_free(command);
    return result;
}

/* Groups can be had, or it is said that they cannot; nothing in between. */
static void controls(void)
{
    sandcell_policy_t *policy = sandcell_policy_new(), *more = sandcell_policy_new();
    sandcell_cell_t *cell = NULL;
    sandcell_child_t *child = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = shell("echo ready; read -r line; echo $line");
    sandcell_usage_t usage;
    char bytes[16] = "";
    int in, out, started;

    sandcell_policy_set_pids(policy, 20);
    sandcell_policy_set_memory(policy, 64 << 20);
    sandcell_policy_set_memory(more, 96 << 20);
    started = sandcell_start(policy, &cell, &error);
    if (started != 0) {
        CHECK(started == SANDCELL_ERROR_UNSUPPORTED && cell == NULL && *sandcell_error_hint(error) != '\0');
        sandcell_error_free(error);
        error = NULL;
        /* Without a group nothing can be frozen, and that is said, too. */
        sandcell_policy_free(policy);
        policy = sandcell_policy_new();
        FINE(sandcell_start(policy, &cell, &error));
        CHECK(sandcell_cell_freeze(cell, NULL) == SANDCELL_ERROR_UNSUPPORTED);
        CHECK(sandcell_cell_thaw(cell, NULL) == SANDCELL_ERROR_UNSUPPORTED);
        CHECK(sandcell_cell_set_limits(cell, more, NULL) == SANDCELL_ERROR_UNSUPPORTED);
    } else {
        sandcell_command_set_stdin(command, "pipe");
        sandcell_command_set_stdout(command, "pipe");
        FINE(sandcell_cell_spawn(cell, command, &child, &error));
        in = sandcell_child_take_stdin(child);
        out = sandcell_child_take_stdout(child);
        CHECK(read(out, bytes, sizeof bytes) == 6);
        FINE(sandcell_cell_freeze(cell, &error));
        CHECK(write(in, "thawed\n", 7) == 7);
        FINE(sandcell_child_wait(child, 100, &result, &error));
        CHECK(result == NULL); /* it cannot read */
        FINE(sandcell_cell_thaw(cell, &error));
        FINE(sandcell_child_wait(child, -1, &result, &error));
        CHECK(sandcell_result_exit_code(result) == 0);
        sandcell_result_free(result);
        sandcell_child_free(child);
        close(in);
        close(out);
        FINE(sandcell_cell_set_limits(cell, more, &error));
        usage.size = sizeof usage;
        FINE(sandcell_cell_usage(cell, &usage, &error));
        CHECK(usage.memory_peak_bytes != SANDCELL_UNKNOWN && usage.memory_peak_bytes > 0);
    }
    sandcell_cell_free(cell);
    sandcell_command_free(command);
    sandcell_policy_free(more);
    sandcell_policy_free(policy);
}

/* `layer` is a directory with a file `old`. */
static void changes(const char *layer)
{
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_changes_t *list = NULL;
    sandcell_cell_t *cell = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = shell("echo new >/new; rm /old");
    int started;

    sandcell_policy_add_layer(policy, layer);
    sandcell_policy_add_ro(policy, "/usr", NULL);
    sandcell_policy_set_chdir(policy, "/");
    started = sandcell_start(policy, &cell, &error);
    if (started == SANDCELL_ERROR_UNSUPPORTED) { /* before Linux 6.6 */
        sandcell_error_free(error);
        error = NULL;
    } else {
        CHECK(started == 0);
        FINE(sandcell_cell_changes(cell, &list, &error));
        CHECK(sandcell_changes_count(list) == 0);
        sandcell_changes_free(list);
        FINE(sandcell_cell_run(cell, command, &result, &error));
        CHECK(sandcell_result_exit_code(result) == 0);
        sandcell_result_free(result);
        FINE(sandcell_cell_changes(cell, &list, &error));
        CHECK(sandcell_changes_count(list) == 2);
        CHECK(sandcell_changes_kind(list, 0) == SANDCELL_CHANGE_ADDED && strcmp(sandcell_changes_path(list, 0), "/new") == 0);
        CHECK(sandcell_changes_kind(list, 1) == SANDCELL_CHANGE_DELETED && strcmp(sandcell_changes_path(list, 1), "/old") == 0);
        CHECK(sandcell_changes_kind(list, 2) == 0 && *sandcell_changes_path(list, 2) == '\0');
        sandcell_changes_free(list);
        sandcell_cell_free(cell);

        /* The same for a sandbox of its own. */
        sandcell_command_set_track_changes(command, true);
        FINE(sandcell_run_command(policy, command, &result, &error));
        CHECK(sandcell_changes_count(sandcell_result_changes(result)) == 2);
        CHECK(!sandcell_result_changes_truncated(result) && !sandcell_result_changes_truncated(NULL));
        sandcell_result_free(result);
    }
    sandcell_command_free(command);
    sandcell_policy_free(policy);
}

int main(int argc, char **argv)
{
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_command_t *command;
    sandcell_cell_t *cell = NULL;
    sandcell_child_t *child = NULL;
    sandcell_result_t *result;
    sandcell_usage_t usage, again;
    struct pollfd watched;
    struct epoll_event event = {.events = EPOLLIN};
    char *json = NULL;
    int other = -1;
    const int epoll = epoll_create1(EPOLL_CLOEXEC);

    CHECK(argc == 2);
    FINE(sandcell_start(policy, &cell, &error));
    sandcell_result_free(run(cell, "echo kept >/tmp/file"));
    result = run(cell, "cat /tmp/file");
    CHECK(wrote(result, "kept\n"));
    sandcell_result_free(result);
    FINE(sandcell_cell_report_json(cell, &json, &error));
    CHECK(strstr(json, "\"item\":\"seccomp\"") != NULL);
    sandcell_text_free(json);

    /* Ended as a whole: whoever waits for a program in it learns so. */
    command = shell("sleep 1000");
    FINE(sandcell_cell_spawn(cell, command, &child, &error));
    FINE(sandcell_cell_pidfd(cell, &watched.fd, &error));
    watched.events = POLLIN;
    CHECK(poll(&watched, 1, 0) == 0);
    FINE(sandcell_cell_pidfd(cell, &other, &error));
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, other, &event) == 0);
    close(other); /* and with it what epoll watches */
    FINE(sandcell_cell_kill(cell, &error));
    CHECK(poll(&watched, 1, -1) == 1);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, watched.fd, &event) == 0 && epoll_wait(epoll, &event, 1, 0) == 1);
    close(epoll);
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "killed") == 0);
    sandcell_result_free(result);
    sandcell_child_free(child);

    /* What is asked of it afterwards says who ended it, and blames nobody else. */
    CHECK(sandcell_cell_run(cell, command, &result, &error) == SANDCELL_ERROR_IO && result == NULL);
    CHECK(strstr(sandcell_error_message(error), "killed by the caller") != NULL);
    CHECK(strstr(sandcell_error_hint(error), "out-of-memory") == NULL);
    sandcell_error_free(error);
    CHECK(sandcell_cell_spawn(cell, command, &child, &error) == SANDCELL_ERROR_IO && child == NULL);
    CHECK(strstr(sandcell_error_message(error), "killed by the caller") != NULL);
    sandcell_error_free(error);
    CHECK(sandcell_cell_freeze(cell, &error) == SANDCELL_ERROR_IO);
    CHECK(strstr(sandcell_error_message(error), "killed by the caller") != NULL);
    sandcell_error_free(error);
    error = NULL;

    /* What nobody counted is unknown, and the time of a cell that has ended stands still. */
    usage.size = again.size = sizeof usage;
    FINE(sandcell_cell_usage(cell, &usage, &error));
    CHECK(usage.wall_ns > 0 && usage.wall_ns != SANDCELL_UNKNOWN);
    CHECK(usage.user_ns == SANDCELL_UNKNOWN && usage.system_ns == SANDCELL_UNKNOWN && usage.output_bytes == SANDCELL_UNKNOWN);
    FINE(sandcell_cell_usage(cell, &again, &error));
    CHECK(again.wall_ns == usage.wall_ns);
    close(watched.fd);

    /* A pool hands out what waits, and keeps as many waiting. */
    uint64_t hits, misses;
    size_t waiting;
    sandcell_pool_t *pool = NULL;
    sandcell_command_free(command);
    command = shell("echo once");
    FINE(sandcell_pool_start(policy, 2, &pool, &error));
    FINE(sandcell_pool_run(pool, command, &result, &error));
    CHECK(wrote(result, "once\n"));
    sandcell_result_free(result);
    FINE(sandcell_pool_stats(pool, &hits, &misses, &waiting, &error));
    CHECK(hits == 1 && misses == 0 && waiting == 2);
    sandcell_pool_free(pool);
    pool = NULL;
    CHECK(sandcell_pool_start(policy, 0, &pool, &error) == SANDCELL_ERROR_CONFIG && pool == NULL);
    sandcell_error_free(error);
    error = NULL;
    sandcell_command_free(command);
    sandcell_cell_free(cell);
    sandcell_policy_free(policy);

    controls();
#ifdef UNDER_VALGRIND /* layers of root's need the clone(2) that it does not know */
    (void)changes, (void)argv;
#else
    changes(argv[1]);
#endif
    return 0;
}
