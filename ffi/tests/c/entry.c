/* A process that the caller forks becomes one of a cell. */
#include "check.h"
#include <fcntl.h>
#include <sys/wait.h>

static sandcell_error_t *error;

static void leave(sandcell_entry_t *way, int status)
{
    (void)way; /* never freed here */
    _exit(status);
}

int main(void)
{
    const char *const words[] = {"/bin/cat", "/tmp/entered", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_cell_t *cell = NULL;
    sandcell_entry_t *way = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = sandcell_command_new(words);
    char *home = NULL, said[64] = "";
    int ends[2], status = 0;
    ssize_t length;
    pid_t pid;

    sandcell_policy_set_hostname(policy, "cave");
    sandcell_policy_set_user(policy, "1234");
    FINE(sandcell_start(policy, &cell, &error));
    FINE(sandcell_cell_home(cell, &home, &error));
    CHECK(home[0] == '/');
    sandcell_text_free(home);
    FINE(sandcell_cell_entry(cell, &way, &error));
    CHECK(pipe(ends) == 0);
    FINE(sandcell_entry_chdir(way, "/tmp", &error));
    REFUSED(sandcell_entry_chdir(way, "tmp", &error), SANDCELL_ERROR_CONFIG, "tmp");
    FINE(sandcell_entry_umask(way, 077, &error));
    FINE(sandcell_entry_keep_fd(way, ends[1], &error));

    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (sandcell_entry_join(way, NULL) != 0)
            leave(way, 1);
        pid = fork();
        if (pid != 0) {
            if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
                leave(way, 2);
            leave(way, WEXITSTATUS(status));
        }
        if (sandcell_entry_confine(way, NULL) != 0)
            leave(way, 3);
        if (sandcell_entry_confine(way, NULL) != SANDCELL_ERROR_CONFIG) /* it is used up */
            leave(way, 4);
        {
            int file = open("entered", O_WRONLY | O_CREAT, 0666);
            int uid = (int)getuid();
            if (file < 0 || write(file, "by hand\n", 8) != 8 || close(file) != 0 || write(ends[1], &uid, sizeof uid) != sizeof uid)
                leave(way, 5);
        }
        leave(way, access("/etc/shadow", R_OK) == 0 || geteuid() == 0 ? 6 : 0);
    }
    close(ends[1]);
    length = read(ends[0], said, sizeof said);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "the child ended with %d\n", WEXITSTATUS(status));
        return 1;
    }
    CHECK(length == sizeof(int) && memcmp(said, (int[]){1234}, sizeof(int)) == 0);
    close(ends[0]);
    sandcell_entry_free(way);

    /* What it left is in the cell, with its mask, and nowhere else. */
    FINE(sandcell_cell_run(cell, command, &result, &error));
    CHECK(wrote(result, "by hand\n"));
    CHECK(access("/tmp/entered", F_OK) != 0);
    sandcell_result_free(result);

    /* A cell that has ended lets nobody in. */
    FINE(sandcell_cell_entry(cell, &way, &error));
    FINE(sandcell_cell_kill(cell, &error));
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        leave(way, sandcell_entry_join(way, NULL) == SANDCELL_ERROR_SETUP ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    sandcell_entry_free(way);
    sandcell_command_free(command);
    sandcell_cell_free(cell);
    sandcell_policy_free(policy);
    return 0;
}
