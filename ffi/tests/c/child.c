/* Programs that run: pipes, pidfds, waiting, signals. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
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

/* What a descriptor was added for ends when it is closed: nothing else keeps what epoll watches. */
static void epoll_forgets_what_is_closed(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 7}};
    sandcell_child_t *child = spawn("sleep 1000", "null");
    sandcell_result_t *result = NULL;
    int pidfd = -1, other = -1;
    const int epoll = epoll_create1(EPOLL_CLOEXEC);

    FINE(sandcell_child_pidfd(child, &pidfd, &error));
    FINE(sandcell_child_pidfd(child, &other, &error));
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event) == 0);
    event.data.u64 = 8;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, other, &event) == 0);
    close(pidfd);
    FINE(sandcell_child_kill(child, &error));
    CHECK(ended(other, -1));
    CHECK(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u64 == 8);
    close(other);
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
    FINE(sandcell_child_wait(child, -1, &result, &error));
    sandcell_result_free(result);

    /* After the end there is still something that is readable. */
    FINE(sandcell_child_pidfd(child, &pidfd, &error));
    CHECK(ended(pidfd, 0) && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
    close(pidfd);
    close(epoll);
    sandcell_child_free(child);
}

/* Bytes for standard input reach what is spawned, however it is waited for, and every time. */
static void input_reaches_what_is_spawned(void)
{
    const char *const words[] = {"/bin/sh", "-c", "test \"$(cat)\" = hello", NULL};
    sandcell_command_t *command = sandcell_command_new(words);
    sandcell_child_t *child = NULL;
    sandcell_result_t *result = NULL;
    int i, pidfd = -1;

    sandcell_command_set_input(command, "hello", 5);
    CHECK(sandcell_command_set_stdin(command, "pipe") == 0); /* as it is anyway */
    for (i = 0; i < 3; i++) {
        FINE(sandcell_spawn(policy, command, &child, &error));
        CHECK(sandcell_child_take_stdin(child) == -1);
        FINE(sandcell_child_pidfd(child, &pidfd, &error));
        if (i == 0)
            CHECK(ended(pidfd, 60000)); /* nobody waits, nobody writes */
        if (i < 2)
            FINE(sandcell_child_wait(child, i == 0 ? -1 : 60000, &result, &error));
        else
            FINE(sandcell_child_wait_output(child, 60000, &result, &error));
        CHECK(result != NULL && sandcell_result_exit_code(result) == 0);
        sandcell_result_free(result);
        sandcell_child_free(child);
        close(pidfd);
    }
    sandcell_command_free(command);
}

/* A deadline does not lose what was read before, and a full pipe does not hold up who gathers. */
static void output_is_gathered_until_a_deadline(void)
{
    sandcell_child_t *child = spawn("head -c 200000 /dev/zero | tr '\\0' x; read -r line; echo late", "pipe");
    sandcell_result_t *result = NULL;
    struct pollfd watched;
    size_t length = 0;
    int i, in = sandcell_child_take_stdin(child);

    for (i = 0; i < 50; i++) {
        FINE(sandcell_child_wait_output(child, 5, &result, &error));
        CHECK(result == NULL);
    }
    CHECK(write(in, "\n", 1) == 1);
    FINE(sandcell_child_wait_output(child, -1, &result, &error));
    CHECK(result != NULL && sandcell_result_exit_code(result) == 0);
    CHECK(strcmp(sandcell_result_stdout(result, &length) + 200000, "late\n") == 0 && length == 200005);
    sandcell_result_free(result);
    sandcell_child_free(child);
    close(in);

    /* A pipe that is taken after a deadline waits again. */
    child = spawn("read -r line; echo late", "pipe");
    in = sandcell_child_take_stdin(child);
    FINE(sandcell_child_wait_output(child, 0, &result, &error));
    CHECK(result == NULL);
    watched.fd = sandcell_child_take_stdout(child);
    CHECK(watched.fd > 2 && !(fcntl(watched.fd, F_GETFL) & O_NONBLOCK));
    close(watched.fd);
    close(in);
    sandcell_child_free(child);
}

/* The number outside is that of the process that the caller sees. */
static void the_number_outside_is_the_programs_own(void)
{
    sandcell_child_t *child = spawn("echo $$; read -r line", "pipe");
    sandcell_result_t *result = NULL;
    const int in = sandcell_child_take_stdin(child), out = sandcell_child_take_stdout(child);
    char bytes[64] = "", path[64];
    FILE *file;

    CHECK(read(out, bytes, sizeof bytes - 1) > 0 && (unsigned)atoi(bytes) == sandcell_child_id(child));
    CHECK(sandcell_child_host_id(child) > 1);
    snprintf(path, sizeof path, "/proc/%u/comm", (unsigned)sandcell_child_host_id(child));
    file = fopen(path, "re");
    CHECK(file != NULL && fgets(bytes, sizeof bytes, file) != NULL && (strcmp(bytes, "sh\n") == 0 || strcmp(bytes, "dash\n") == 0));
    fclose(file);
    close(in);
    FINE(sandcell_child_wait(child, -1, &result, &error));
    sandcell_result_free(result);
    CHECK(sandcell_child_host_id(child) == 0);
    close(out);
    sandcell_child_free(child);
}

/* The port that was chosen for 0. */
static void a_published_port_is_told(void)
{
    sandcell_policy_t *before = policy;
    sandcell_child_t *child;
    char *json = NULL;

    policy = sandcell_policy_new();
    FINE(sandcell_policy_add_publish(policy, "0:80"));
    FINE(sandcell_policy_add_publish(policy, "0:80/udp"));
    FINE(sandcell_policy_add_host_port(policy, "5432"));
    child = spawn("read -r line", "pipe");
    CHECK(sandcell_child_host_port(child, 80, false) != 0 && sandcell_child_host_port(child, 80, true) != 0);
    CHECK(sandcell_child_host_port(child, 81, false) == 0 && sandcell_child_host_port(NULL, 80, false) == 0);
    FINE(sandcell_child_report_json(child, &json, &error));
    CHECK(strstr(json, "\"cell_port\":80") != NULL);
    sandcell_text_free(json);
    sandcell_child_free(child);
    sandcell_policy_free(policy);
    policy = before;
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

    epoll_forgets_what_is_closed();
    input_reaches_what_is_spawned();
    output_is_gathered_until_a_deadline();
    the_number_outside_is_the_programs_own();
    a_published_port_is_told();

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
        FINE(sandcell_child_wait_output(child, -1, &result, &error));
        CHECK(memcmp(sandcell_result_stdout(result, &length), text, much) == 0 && length == much);
        sandcell_result_free(result);
        sandcell_child_free(child);
        sandcell_command_free(command);
        free(text);
    }

    child = spawn("sleep 1000", "null");
    FINE(sandcell_child_signal(child, SIGUSR1, &error));
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(sandcell_result_outcome_number(result) == SANDCELL_OUTCOME_SIGNALED && sandcell_result_outcome_number(NULL) == 0);
    CHECK(strcmp(sandcell_result_outcome(result), "signaled") == 0 && sandcell_result_signal(result) == SIGUSR1);
    CHECK(sandcell_result_exit_code(result) == 128 + SIGUSR1);
    CHECK(strcmp(sandcell_result_timed_out_of(result), "") == 0 && strcmp(sandcell_result_timed_out_of(NULL), "") == 0);
    sandcell_result_free(result);
    CHECK(sandcell_child_signal_group(child, 0, NULL) == SANDCELL_ERROR_CONFIG);
    FINE(sandcell_child_signal_group(child, SIGTERM, &error)); /* no error, no effect */
    CHECK(sandcell_child_signal(child, 0, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_child_signal(child, 65, NULL) == SANDCELL_ERROR_CONFIG);
    sandcell_child_free(child);

    child = spawn("sleep 1000", "null");
    FINE(sandcell_child_kill(child, &error));
    FINE(sandcell_child_wait(child, -1, &result, &error));
    CHECK(strcmp(sandcell_result_outcome(result), "killed") == 0 && sandcell_result_exit_code(result) == 137);
    CHECK(sandcell_result_outcome_number(result) == SANDCELL_OUTCOME_KILLED);
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
