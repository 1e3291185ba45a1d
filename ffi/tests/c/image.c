/* Images: a store, an image from a root file system, runs, volumes, a commit, a build. The argument is a directory. */
#include "check.h"

static void shell(const char *directory, const char *script)
{
    char line[4096];
    snprintf(line, sizeof line, "cd '%s' && %s", directory, script);
    CHECK(system(line) == 0);
}

static char place[4][2048];

static const char *in(const char *directory, int number, const char *name)
{
    snprintf(place[number], sizeof place[number], "%s/%s", directory, name);
    return place[number];
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *dir = argv[1];
    sandcell_error_t *error = NULL;
    sandcell_store_t *store = NULL;
    char *json = NULL, *id = NULL;
    shell(dir, "mkdir -p root/bin root/etc context && cp /bin/busybox root/bin/sh && echo root:x:0:0::/root:/bin/sh >root/etc/passwd");
    shell(dir, "printf 'FROM app:1\\nRUN echo built >/made\\nENTRYPOINT [\"/bin/sh\", \"-c\"]\\nCMD [\"read x </made; echo $x\"]\\n' >context/Dockerfile");

    FINE(sandcell_store_open(in(dir, 0, "store"), &store, &error));
    FINE(sandcell_store_load(store, in(dir, 0, "root"), "rootfs", "app:1", &json, &error));
    CHECK(strcmp(json, "[\"app:1\"]") == 0);
    sandcell_text_free(json);
    REFUSED(sandcell_store_load(store, place[0], "tar", NULL, &json, &error), SANDCELL_ERROR_CONFIG, "image_format");
    CHECK(json == NULL);

    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_policy_set_store(policy, in(dir, 0, "store"));
    sandcell_policy_set_root_image(policy, "app:1");
    sandcell_policy_add_volume(policy, "data", "/data", true);
    sandcell_policy_set_upper_dir(policy, in(dir, 1, "upper"));
    const char *words[] = {"/bin/sh", "-c", "echo x >/x; echo y >/data/y", NULL};
    sandcell_result_t *result = NULL;
    FINE(sandcell_run(policy, words, &result, &error));
    CHECK(sandcell_result_exit_code(result) == 0);
    sandcell_result_free(result);
    sandcell_policy_free(policy);
    FINE(sandcell_store_commit(store, in(dir, 1, "upper"), "app:2", &id, &error));
    CHECK(strncmp(id, "sha256:", 7) == 0);
    sandcell_text_free(id);
    FINE(sandcell_owned_remove(in(dir, 1, "upper"), &error)); /* nobody else can be rid of the kernel's directory in it */

    FINE(sandcell_store_build(store, in(dir, 1, "context/Dockerfile"), in(dir, 2, "context"), "app:3", &id, &error));
    sandcell_text_free(id);
    policy = sandcell_policy_new();
    sandcell_policy_set_store(policy, in(dir, 0, "store"));
    sandcell_policy_set_root_image(policy, "app:3");
    sandcell_command_t *command = NULL;
    FINE(sandcell_image_command(policy, NULL, &command, &error));
    FINE(sandcell_run_command(policy, command, &result, &error));
    CHECK(wrote(result, "built\n"));
    sandcell_result_free(result);
    sandcell_command_free(command);
    sandcell_policy_free(policy);

    FINE(sandcell_store_inspect_json(store, "app:3", &json, &error));
    CHECK(strstr(json, "\"RepoTags\":[\"app:3\"]") != NULL);
    sandcell_text_free(json);
    FINE(sandcell_store_history_json(store, "app:2", &json, &error));
    CHECK(strstr(json, "sandcell commit") != NULL);
    sandcell_text_free(json);
    FINE(sandcell_store_volumes_json(store, &json, &error));
    CHECK(strstr(json, "\"data\"") != NULL);
    sandcell_text_free(json);
    FINE(sandcell_store_remove_volume(store, "data", &error));
    FINE(sandcell_store_save(store, "app:3", NULL, in(dir, 1, "saved.tar"), &error));
    FINE(sandcell_store_tag(store, "app:3", "other:1", &error));
    FINE(sandcell_store_remove(store, "app:3", &error));
    REFUSED(sandcell_store_remove(store, "app:3", &error), SANDCELL_ERROR_CONFIG, "app:3");
    FINE(sandcell_store_prune(store, &error));
    FINE(sandcell_store_images_json(store, &json, &error));
    CHECK(strstr(json, "other:1") != NULL && strstr(json, "app:3") == NULL);
    sandcell_text_free(json);
    /* The layers may have files of sub-ids, which the test's directory could not be rid of. */
    FINE(sandcell_store_remove(store, "other:1", &error));
    FINE(sandcell_store_remove(store, "app:2", &error));
    FINE(sandcell_store_remove(store, "app:1", &error));
    FINE(sandcell_store_prune(store, &error));
    FINE(sandcell_store_images_json(store, &json, &error));
    CHECK(strcmp(json, "[]") == 0);
    sandcell_text_free(json);
    sandcell_store_free(store);
    return 0;
}
