/* NULL everywhere, mistakes that are kept, and the getters of every handle. Ends with 0 where all holds. */
#include "sandcell.h"
#include "sandcell.h" /* twice on purpose */
#include <stdio.h>
#include <string.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what); \
            return 1; \
        } \
    } while (0)

int main(void)
{
    const char *const echo[] = {"/bin/sh", "-c", "printf 'a\\0b'; echo wrong >&2; exit 3", NULL};
    const char *const nothing[] = {NULL};
    const char *const missing[] = {"/no/such/program", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_result_t *result = NULL;
    sandcell_error_t *error = NULL;
    char *json = NULL;
    size_t length = 0;

    CHECK(strcmp(sandcell_version(), SANDCELL_VERSION) == 0);

    /* A good run first: what follows fails for its own reason. */
    CHECK(sandcell_run(policy, echo, &result, &error) == 0 && result != NULL && error == NULL);
    CHECK(strcmp(sandcell_result_outcome(result), "exited") == 0);
    CHECK(sandcell_result_exit_code(result) == 3);
    CHECK(memcmp(sandcell_result_stdout(result, &length), "a\0b", 4) == 0 && length == 3);
    CHECK(strcmp(sandcell_result_stderr(result, NULL), "wrong\n") == 0);
    CHECK(strstr(sandcell_result_report_json(result), "\"code\":3") != NULL);
    CHECK(sandcell_result_wall_ns(result) > 0);
    CHECK(!sandcell_result_memory_peak(result, NULL));
    sandcell_result_free(result);

    CHECK(sandcell_run(NULL, echo, &result, &error) == SANDCELL_ERROR_CONFIG && result == NULL);
    CHECK(strcmp(sandcell_error_subject(error), "policy") == 0);
    sandcell_error_free(error);
    CHECK(sandcell_run(policy, NULL, &result, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_run(policy, nothing, &result, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_run(policy, echo, NULL, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_run(policy, missing, &result, &error) == SANDCELL_ERROR_EXEC && result == NULL);
    CHECK(sandcell_error_kind(error) == SANDCELL_ERROR_EXEC && sandcell_error_errno(error) == 2);
    CHECK(strcmp(sandcell_error_stage(error), "exec") == 0 && *sandcell_error_message(error) != '\0');
    sandcell_error_free(error);

    CHECK(sandcell_explain_json(policy, &json, &error) == 0 && json[0] == '[' && error == NULL);
    sandcell_text_free(json);
    CHECK(sandcell_explain_json(policy, NULL, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_doctor_json(&json, &error) == 0 && strstr(json, "\"sandbox\"") != NULL);
    sandcell_text_free(json);
    CHECK(sandcell_doctor_json(NULL, NULL) == SANDCELL_ERROR_CONFIG);

    /* A change after a run counts, and the first mistake stays. */
    CHECK(sandcell_policy_set_user(policy, "root") == 0);
    CHECK(sandcell_policy_set_chdir(policy, "/tmp") == 0);
    {
        const char *const who[] = {"/bin/sh", "-c", "id -u; pwd", NULL};
        CHECK(sandcell_run(policy, who, &result, &error) == 0);
        CHECK(strcmp(sandcell_result_stdout(result, NULL), "0\n/tmp\n") == 0);
        sandcell_result_free(result);
    }
    CHECK(sandcell_policy_set_network(policy, "everything") == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_policy_set_hostname(policy, NULL) == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_policy_set_pids(policy, 9) == 0);
    CHECK(sandcell_run(policy, echo, &result, &error) == SANDCELL_ERROR_CONFIG && result == NULL);
    CHECK(strcmp(sandcell_error_subject(error), "network") == 0);
    sandcell_error_free(error);
    sandcell_policy_free(policy);

    CHECK(sandcell_policy_set_memory(NULL, 1) == SANDCELL_ERROR_CONFIG);
    CHECK(*sandcell_error_message(NULL) == '\0' && sandcell_error_kind(NULL) == 0);
    CHECK(*sandcell_result_stdout(NULL, &length) == '\0' && length == 0);
    CHECK(sandcell_result_exit_code(NULL) == -1);
    sandcell_policy_free(NULL);
    sandcell_result_free(NULL);
    sandcell_error_free(NULL);
    sandcell_text_free(NULL);
    return 0;
}
