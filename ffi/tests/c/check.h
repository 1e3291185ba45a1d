/* For the test programs: each prints nothing and ends with 0 where all holds. */
#ifndef CHECK_H
#define CHECK_H

#include <fcntl.h>
#include <sandcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What waits for ever fails instead. */
__attribute__((constructor)) static void limit_the_time(void)
{
    alarm(300);
}

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            exit(1); \
        } \
    } while (0)

/* A call that must succeed; `error` is in scope and NULL afterwards. */
#define FINE(call) \
    do { \
        if ((call) != 0) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, sandcell_error_message(error)); \
            exit(1); \
        } \
        CHECK(error == NULL); \
    } while (0)

/* A call that must be refused with this number, about this subject. */
#define REFUSED(call, kind, what) \
    do { \
        CHECK((call) == (kind)); \
        if (strcmp(sandcell_error_subject(error), what) != 0) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, sandcell_error_message(error)); \
            exit(1); \
        } \
        sandcell_error_free(error); \
        error = NULL; \
    } while (0)

static inline bool wrote(const sandcell_result_t *result, const char *text)
{
    if (strcmp(sandcell_result_stdout(result, NULL), text) == 0)
        return true;
    fprintf(stderr, "wrote:\n%sand:\n%s", sandcell_result_stdout(result, NULL), sandcell_result_stderr(result, NULL));
    return false;
}

#endif
