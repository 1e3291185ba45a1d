/* Prints what a policy makes of each option: of lines NAME, tab, TEXT on standard input, or of the statements put in here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sandcell.h>

static sandcell_policy_t *policy;

static sandcell_policy_t *next(void)
{
    sandcell_policy_free(policy);
    return policy = sandcell_policy_new();
}

static void tell(void)
{
    char *json = NULL;
    sandcell_error_t *error = NULL;
    if (sandcell_policy_options_json(policy, &json, &error) == 0)
        printf("= %s\n", json);
    else
        printf("! %s\t%s\t%s\n", sandcell_error_subject(error), sandcell_error_message(error), sandcell_error_hint(error));
    sandcell_text_free(json);
    sandcell_error_free(error);
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *text = strchr(line, '\t');
        *text++ = '\0';
        sandcell_policy_set(next(), line, text);
        tell();
    }
    free(line);
    /* STATEMENTS */
    sandcell_policy_free(policy);
    return 0;
}
