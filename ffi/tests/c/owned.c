/* Trees of leased ids: listed, copied, given back, removed. The argument is a directory with a `layer` in it. */
#include "check.h"
#include <sys/stat.h>

static sandcell_error_t *error;

/* The file of this name in the tree; its path is forgotten. */
static sandcell_owned_entry_t find(const char *tree, const char *path)
{
    sandcell_owned_t *owned = NULL;
    sandcell_owned_entry_t file, found;
    memset(&found, 0, sizeof found);
    file.size = sizeof file;
    FINE(sandcell_owned_list(tree, &owned, &error));
    for (size_t i = 0; i < sandcell_owned_count(owned); i++) {
        CHECK(sandcell_owned_get(owned, i, &file) == 0 && file.size == sizeof file);
        if (strcmp(file.path, path) == 0)
            found = file;
    }
    CHECK(sandcell_owned_get(owned, sandcell_owned_count(owned), &file) == SANDCELL_ERROR_CONFIG);
    sandcell_owned_free(owned);
    found.path = NULL;
    return found;
}

int main(int argc, char **argv)
{
    const char *const words[] = {"/bin/sh", "-c",
                                 "mkdir /d && echo secret >/d/file && chmod 600 /d/file && chown 33:44 /d/file && "
                                 "ln -s /etc/passwd /d/link && mkfifo /d/pipe && chmod 700 /d && chown 33:33 /d", NULL};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_result_t *result = NULL;
    sandcell_owned_entry_t file;
    char kept[2048], tree[2100], copy[2100], inside[2200];
    struct stat stat_of;
    size_t left_out = 7;
    int status;

    CHECK(argc == 2);
    snprintf(kept, sizeof kept, "%s/kept", argv[1]);
    snprintf(tree, sizeof tree, "%s/upper/d", kept);
    snprintf(copy, sizeof copy, "%s/copy", argv[1]);
    snprintf(inside, sizeof inside, "%s/layer", argv[1]);
    sandcell_policy_add_layer(policy, inside);
    sandcell_policy_set_upper_dir(policy, kept);
    sandcell_policy_add_ro(policy, "/usr", NULL);
    sandcell_policy_set_chdir(policy, "/");
    sandcell_policy_set_user(policy, "root");
    sandcell_policy_set_id_count(policy, 1000);
    sandcell_policy_add_cap(policy, "chown");
    status = sandcell_run(policy, words, &result, &error);
    if (status != 0) { /* no sub-ids: that is said */
        CHECK(status == SANDCELL_ERROR_UNSUPPORTED && *sandcell_error_hint(error) != '\0');
        sandcell_error_free(error);
        sandcell_policy_free(policy);
        return 0;
    }
    CHECK(wrote(result, "") && sandcell_result_exit_code(result) == 0);
    sandcell_result_free(result);
    sandcell_policy_free(policy);

    /* The list is relative to the tree, and knows who is who inside where the note lies beside it. */
    snprintf(inside, sizeof inside, "%s/upper", kept);
    file = find(inside, "d/file");
    CHECK(file.kind == SANDCELL_OWNED_FILE && file.mode == 0600 && file.bytes == 7);
    CHECK(file.uid == 33 && file.gid == 44 && file.host_uid != (uint32_t)getuid());
    CHECK(find(inside, "d").kind == SANDCELL_OWNED_DIRECTORY && find(inside, "d/link").kind == SANDCELL_OWNED_SYMLINK);
    CHECK(find(inside, "d/pipe").kind == SANDCELL_OWNED_OTHER && find(inside, "nothing").kind == 0);
    CHECK(getuid() == 0 || access(tree, R_OK) != 0); /* the caller itself may not look */

    FINE(sandcell_owned_copy_out(tree, copy, &left_out, &error));
    CHECK(left_out == 1);
    snprintf(inside, sizeof inside, "%s/file", copy);
    CHECK(stat(inside, &stat_of) == 0 && stat_of.st_uid == getuid() && stat_of.st_size == 7);
    REFUSED(sandcell_owned_copy_out(tree, copy, NULL, &error), SANDCELL_ERROR_IO, copy);

    FINE(sandcell_owned_reclaim(kept, &error));
    snprintf(inside, sizeof inside, "%s/file", tree);
    CHECK(stat(inside, &stat_of) == 0 && stat_of.st_uid == getuid());
    FINE(sandcell_owned_remove(kept, &error));
    CHECK(stat(kept, &stat_of) != 0);
    REFUSED(sandcell_owned_remove(kept, &error), SANDCELL_ERROR_IO, kept);
    return 0;
}
