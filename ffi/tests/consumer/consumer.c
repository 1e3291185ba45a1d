#include <sandcell.h>
#include <string.h>

int main(void)
{
    const char *const words[] = {"/bin/echo", "hello", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_result_t *result = NULL;
    int failed = sandcell_run(policy, words, &result, NULL) || strcmp(sandcell_result_stdout(result, NULL), "hello\n") != 0;
    sandcell_result_free(result);
    sandcell_policy_free(policy);
    return failed;
}
