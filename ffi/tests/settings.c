/* What is set arrives in the sandbox. Ends with 0 where all holds. */
#include "sandcell.h"
#include <stdio.h>
#include <string.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #what, sandcell_error_message(error)); \
            return 1; \
        } \
    } while (0)

int main(void)
{
    const char *const look[] = {"/bin/sh", "-c", "hostname; id -u; id -g; echo $WHAT; umask; pwd; ls -d /usr-again/bin; "
                                "test -w /scratch && echo writable; test -w /usr-again || echo read-only", NULL};
    const char *const seen = "cave\n7\n8\never\n0077\n/scratch\n/usr-again/bin\nwritable\nread-only\n";
    const char *const slow[] = {"/bin/sleep", "1000", NULL};
    const char *const loud[] = {"/bin/sh", "-c", "while echo loud; do :; done", NULL};
    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    sandcell_policy_t *policy = sandcell_policy_new();

    sandcell_policy_set_hostname(policy, "cave");
    sandcell_policy_set_user(policy, "7:8");
    sandcell_policy_add_env(policy, "WHAT", "ever");
    sandcell_policy_set_umask(policy, 077);
    sandcell_policy_add_ro(policy, "/usr", "/usr-again");
    sandcell_policy_add_tmpfs(policy, "/scratch", 1 << 20);
    sandcell_policy_set_chdir(policy, "/scratch");
    sandcell_policy_set_network(policy, "none");
    CHECK(sandcell_run(policy, look, &result, &error) == 0);
    if (strcmp(sandcell_result_stdout(result, NULL), seen) != 0) {
        fprintf(stderr, "not as set:\n%s%s", sandcell_result_stdout(result, NULL), sandcell_result_stderr(result, NULL));
        return 1;
    }
    CHECK(strstr(sandcell_result_report_json(result), "\"item\":\"network\",\"requested\":\"none\"") != NULL);
    sandcell_result_free(result);

    sandcell_policy_set_output_limit(policy, 1000);
    CHECK(sandcell_run(policy, loud, &result, &error) == 0);
    CHECK(strcmp(sandcell_result_outcome(result), "output_limit") == 0);
    CHECK(sandcell_result_exit_code(result) == 153);
    sandcell_result_free(result);

    sandcell_policy_set_timeout_ms(policy, 100);
    sandcell_policy_set_grace_ms(policy, 0);
    CHECK(sandcell_run(policy, slow, &result, &error) == 0);
    CHECK(strcmp(sandcell_result_outcome(result), "timed_out") == 0);
    CHECK(sandcell_result_exit_code(result) == 124);
    sandcell_result_free(result);
    sandcell_policy_free(policy);
    return 0;
}
