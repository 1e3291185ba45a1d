/* What is set arrives in the sandbox. */
#include "check.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* A profile that allows everything but makes unlinkat(2) and its kind fail with EDQUOT. */
static const char *const PROFILE = "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{\"names\": [\"unlink\", "
                                   "\"unlinkat\"], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": 122}]}";

static sandcell_result_t *run(const sandcell_policy_t *policy, const char *script)
{
    const char *words[] = {"/bin/sh", "-c", NULL, NULL};
    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    words[2] = script;
    FINE(sandcell_run(policy, words, &result, &error));
    return result;
}

static bool ends(const sandcell_policy_t *policy, const char *script, const char *outcome, int code)
{
    sandcell_result_t *result = run(policy, script);
    bool so = strcmp(sandcell_result_outcome(result), outcome) == 0 && sandcell_result_exit_code(result) == code;
    sandcell_result_free(result);
    return so;
}

/* A socket is opened with the default filter, not without its set, and again with it; an unknown set is refused. */
static void policy_sets(void)
{
    const char *socket = "python3 -c 'import socket; socket.socket(socket.AF_INET)' 2>/dev/null";
    sandcell_error_t *error = NULL;
    sandcell_result_t *result = NULL;
    const char *const nothing[] = {"/bin/true", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    CHECK(ends(policy, socket, "exited", 0));
    CHECK(sandcell_policy_remove_seccomp_set(policy, "network-client") == 0);
    CHECK(ends(policy, socket, "exited", 1));
    CHECK(sandcell_policy_add_seccomp_set(policy, "network-client") == 0);
    CHECK(ends(policy, socket, "exited", 0));
    CHECK(sandcell_policy_add_seccomp_set(policy, "everything") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_run(policy, nothing, &result, &error), SANDCELL_ERROR_CONFIG, "everything");
    sandcell_policy_free(policy);
    policy = sandcell_policy_new();
    sandcell_policy_set_seccomp(policy, "off");
    CHECK(sandcell_policy_add_seccomp_set(policy, "ptrace") == SANDCELL_ERROR_CONFIG);
    sandcell_policy_free(policy);
}

/* Whether a process under this filter may open a socket; 0 or the errno. */
static int socket_under(const sandcell_policy_t *policy)
{
    sandcell_error_t *error = NULL;
    sandcell_bpf_t *bpf = NULL;
    size_t length = 0;
    int status = 0;
    FINE(sandcell_policy_seccomp_bpf(policy, &bpf, &error));
    const void *bytes = sandcell_bpf_bytes(bpf, &length);
    CHECK(length > 0 && length % sizeof(struct sock_filter) == 0 && bytes == sandcell_bpf_bytes(bpf, NULL));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct sock_fprog filter = {.len = (unsigned short)(length / sizeof(struct sock_filter)), .filter = NULL};
        memcpy(&filter.filter, &bytes, sizeof bytes);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
            _exit(255);
        _exit(socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    sandcell_bpf_free(bpf);
    return WEXITSTATUS(status);
}

/* The kernel takes the filter as bytes, and keeps to it. Without a filter there are none. */
static void policy_bytes(void)
{
    sandcell_error_t *error = NULL;
    sandcell_bpf_t *bpf = NULL;
    sandcell_policy_t *policy = sandcell_policy_new();
    CHECK(socket_under(policy) == 0);
    sandcell_policy_remove_seccomp_set(policy, "network-client");
    CHECK(socket_under(policy) == EPERM);
    sandcell_policy_set_seccomp(policy, "off");
    REFUSED(sandcell_policy_seccomp_bpf(policy, &bpf, &error), SANDCELL_ERROR_CONFIG, "seccomp");
    CHECK(bpf == NULL);
    sandcell_policy_free(policy);
}

int main(void)
{
    sandcell_result_t *result;
    sandcell_policy_t *policy = sandcell_policy_new();

    sandcell_policy_set_hostname(policy, "cave");
    sandcell_policy_set_user(policy, "7:8");
    sandcell_policy_add_env(policy, "WHAT", "ever");
    sandcell_policy_set_umask(policy, 077);
    sandcell_policy_add_ro(policy, "/usr", "/usr-again");
    sandcell_policy_add_tmpfs(policy, "/scratch", 1 << 20);
    sandcell_policy_add_file(policy, "/etc/motd", "be kind\n", 8);
    sandcell_policy_add_file_mode(policy, "/hello", "#!/bin/sh\necho hello\n", 21, 0755);
    sandcell_policy_add_rlimit(policy, "nofile", 17, 18);
    sandcell_policy_add_rlimit(policy, "RLIMIT_CORE", 0, SANDCELL_UNLIMITED);
    sandcell_policy_set_chdir(policy, "/scratch");
    sandcell_policy_set_network(policy, "none");
    sandcell_policy_set_host_ids(policy, "auto");
    sandcell_policy_set_id_count(policy, 1);
    sandcell_policy_set_wait_for_ids_ms(policy, 1000);
    result = run(policy, "hostname; id -u; id -g; echo $WHAT; umask; pwd; ls -d /usr-again/bin; cat /etc/motd; /hello; ulimit -Sn; "
                         "ulimit -Hn; test -w /scratch && echo writable; test -w /usr-again || echo read-only");
    CHECK(wrote(result, "cave\n7\n8\never\n0077\n/scratch\n/usr-again/bin\nbe kind\nhello\n17\n18\nwritable\nread-only\n"));
    CHECK(strstr(sandcell_result_report_json(result), "\"item\":\"network\",\"requested\":\"none\"") != NULL);
    CHECK(sandcell_result_uid(result) == 7);
    sandcell_result_free(result);

    sandcell_policy_set_output_limit(policy, 1000);
    CHECK(ends(policy, "while echo loud; do :; done", "output_limit", 153));
    sandcell_policy_set_timeout_ms(policy, 100);
    sandcell_policy_set_grace_ms(policy, 0);
    CHECK(ends(policy, "sleep 1000", "timed_out", 124));
    sandcell_policy_free(policy);

    /* Filters: the default, the caller's, none. */
    policy = sandcell_policy_new();
    CHECK(ends(policy, "touch /tmp/x && rm /tmp/x", "exited", 0));
    CHECK(sandcell_policy_set_seccomp_json(policy, PROFILE) == 0);
    result = run(policy, "touch /tmp/x && rm /tmp/x");
    CHECK(sandcell_result_exit_code(result) == 1);
    CHECK(strstr(sandcell_result_stderr(result, NULL), "quota") != NULL);
    sandcell_result_free(result);
    /* Named sets lie on the filter that is set so far. */
    {
        sandcell_error_t *error = NULL;
        char *text = NULL;
        policy_sets();
        policy_bytes();
        FINE(sandcell_seccomp_sets_json(&text, &error));
        CHECK(strstr(text, "\"name\":\"network-client\"") != NULL);
        sandcell_text_free(text);
        FINE(sandcell_policy_seccomp_json(policy, &text, &error));
        CHECK(strstr(text, "unlinkat") != NULL && strstr(text, "122") != NULL);
        sandcell_text_free(text);
        FINE(sandcell_policy_seccomp_text(policy, &text, &error));
        CHECK(strstr(text, "unlinkat") != NULL);
        sandcell_text_free(text);
    }
    CHECK(sandcell_policy_set_seccomp(policy, "off") == 0);
    CHECK(sandcell_policy_set_landlock(policy, "off") == 0);
    CHECK(ends(policy, "touch /tmp/x && rm /tmp/x && grep -q 'Seccomp:.*0' /proc/self/status", "exited", 0));
    CHECK(sandcell_policy_set_seccomp_file(policy, "/no/such/file") == SANDCELL_ERROR_CONFIG);
    sandcell_policy_free(policy);

    /* A profile that is learned from a run suffices for another of the same kind, and for nothing else. */
    {
        const char *const words[] = {"/bin/sh", "-c", "echo learned", NULL};
        sandcell_command_t *command = sandcell_command_new(words);
        sandcell_error_t *error = NULL;
        char *json = NULL;
        policy = sandcell_policy_new();
        FINE(sandcell_run_command(policy, command, &result, &error));
        FINE(sandcell_result_learned_json(result, &json, &error));
        CHECK(json == NULL); /* it was not asked for */
        sandcell_result_free(result);
        sandcell_command_set_learn(command, true);
        FINE(sandcell_run_command(policy, command, &result, &error));
        FINE(sandcell_result_learned_json(result, &json, &error));
        CHECK(strstr(json, "\"write\"") != NULL && strstr(json, "\"mkdir\"") == NULL);
        CHECK(sandcell_policy_set_seccomp_json(policy, json) == 0);
        CHECK(ends(policy, "echo again", "exited", 0));
        CHECK(!ends(policy, "mkdir /tmp/new 2>/dev/null", "exited", 0));
        sandcell_text_free(json);
        sandcell_result_free(result);
        sandcell_command_free(command);
        sandcell_policy_free(policy);
    }

    /* Capabilities and the caller's environment. */
    policy = sandcell_policy_new();
    CHECK(ends(policy, "grep -q 'CapEff:\t0000000000000000' /proc/self/status", "exited", 0));
    sandcell_policy_add_cap(policy, "net_raw");
    sandcell_policy_set_keep_env(policy, true);
    setenv("SANDCELL_C_TEST", "kept", 1);
    CHECK(ends(policy, "grep -q 'CapEff:\t0000000000002000' /proc/self/status && test $SANDCELL_C_TEST = kept", "exited", 0));
    sandcell_policy_free(policy);

    /* What outlives the program is told. */
    policy = sandcell_policy_new();
    sandcell_policy_set_leftovers(policy, "report");
    result = run(policy, "sleep 1000 >/dev/null 2>&1 &");
    CHECK(sandcell_result_leftover_count(result) == 1);
    CHECK(*sandcell_result_leftover_command(result, 0) != '\0' && *sandcell_result_leftover_command(result, 1) == '\0');
    sandcell_result_free(result);
    sandcell_policy_free(policy);

    /* All of Landlock's rules, and the tier without namespaces: there, or refused with a remedy; nothing in between. */
    {
        const char *const words[] = {"/bin/readlink", "/proc/self/ns/user", NULL};
        sandcell_error_t *error = NULL;
        char own[64] = "";
        int status;
        policy = sandcell_policy_new();
        CHECK(sandcell_policy_set_landlock(policy, "required") == 0);
        status = sandcell_run(policy, words, &result, &error);
        CHECK(status == 0 || (status == SANDCELL_ERROR_UNSUPPORTED && *sandcell_error_hint(error) != '\0'));
        CHECK(status != 0 || strstr(sandcell_result_report_json(result), "\"by\":\"landlock\"") != NULL);
        sandcell_result_free(result);
        sandcell_error_free(error);
        sandcell_policy_free(policy);

        CHECK(readlink("/proc/self/ns/user", own, sizeof own - 2) > 0);
        policy = sandcell_policy_new();
        CHECK(sandcell_policy_set_isolation(policy, "namespaces") == 0);
        FINE(sandcell_run(policy, words, &result, &error));
        CHECK(sandcell_result_exit_code(result) == 0 && strncmp(sandcell_result_stdout(result, NULL), own, strlen(own)) != 0);
        sandcell_result_free(result);
        CHECK(sandcell_policy_set_isolation(policy, "landlock") == 0);
        status = sandcell_run(policy, words, &result, &error);
        CHECK(status == 0 || (status == SANDCELL_ERROR_UNSUPPORTED && *sandcell_error_hint(error) != '\0'));
        CHECK(status != 0 || wrote(result, strcat(own, "\n")));
        CHECK(status != 0 || strstr(sandcell_result_report_json(result), "\"by\":\"nothing\"") != NULL);
        sandcell_result_free(result);
        sandcell_error_free(error);
        CHECK(sandcell_policy_set_isolation(policy, "virtual machine") == SANDCELL_ERROR_CONFIG);
        error = NULL;
        REFUSED(sandcell_run(policy, words, &result, &error), SANDCELL_ERROR_CONFIG, "isolation");
        sandcell_policy_free(policy);
    }

    /* An empty root has no shell. */
    {
        const char *const shell[] = {"/bin/sh", NULL};
        sandcell_error_t *error = NULL;
        policy = sandcell_policy_new();
        sandcell_policy_set_root_empty(policy);
        REFUSED(sandcell_run(policy, shell, &result, &error), SANDCELL_ERROR_EXEC, "/bin/sh");
        sandcell_policy_set_root_dir(policy, "/");
        sandcell_policy_set_root_host(policy);
        CHECK(ends(policy, "exit 4", "exited", 4));
        sandcell_policy_free(policy);
    }
    return 0;
}
