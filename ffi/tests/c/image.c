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

static void stopping(void *data, size_t number, size_t total, const char *step, bool cached)
{
    CHECK(number >= 1 && number <= total && *step != '\0' && !cached);
    if (number == 2)
        sandcell_stop_now(data);
}

static void count(void *data, size_t number, size_t total, const char *step, bool cached)
{
    (void)step;
    (void)total;
    ((size_t *)data)[0] = number;
    ((size_t *)data)[1] += cached;
}

/* The steps that are calls; what is made of them says so. */
static sandcell_build_t *steps(const char *context)
{
    const char *files[] = {"Dockerfile", NULL}, *run[] = {"/bin/sh", "-c", "echo words >/words", NULL};
    const char *entry[] = {"/bin/sh", "-c", NULL}, *cmd[] = {"read x </made; read y </words; echo $x $y $A; pwd", NULL};
    sandcell_build_t *build = sandcell_build_new("app:1");
    sandcell_build_set_context(build, context);
    sandcell_build_add_step(build, "run", "echo line >/made");
    sandcell_build_add_words(build, "run", run);
    sandcell_build_add_copy(build, files, "/copied", "7:8", 0640);
    sandcell_build_add_pair(build, "env", "A", "b c");
    sandcell_build_add_pair(build, "label", "L", "l");
    sandcell_build_add_step(build, "workdir", "/etc");
    sandcell_build_add_step(build, "expose", "80");
    sandcell_build_add_step(build, "volume", "/kept");
    sandcell_build_add_step(build, "stop_signal", "SIGINT");
    sandcell_build_add_words(build, "entrypoint", entry);
    sandcell_build_add_words(build, "cmd", cmd);
    sandcell_build_set_timestamp(build, 1700000000);
    return build;
}

/* Stages, secrets and agents of a Dockerfile, an archive from a descriptor, and a user of the image by name. */
static void further(sandcell_store_t *store, const char *where, const char *dir)
{
    sandcell_error_t *error = NULL;
    sandcell_result_t *result = NULL;
    sandcell_build_t *build = NULL;
    char *id = NULL, *json = NULL;
    shell(dir, "mkdir further && echo file > further/secret && printf '%s\\n' 'FROM app:1 AS first'"
               " 'RUN --mount=type=secret,id=a --mount=type=secret,id=b --mount=type=ssh"
               " read x </run/secrets/a; read y </run/secrets/b; echo $x $y $SSH_AUTH_SOCK >/seen'"
               " \"RUN echo 'web:x:33:34::/:/bin/sh' >>/etc/passwd\" 'FROM app:1' 'RUN exit 9' > further/Dockerfile");
    FINE(sandcell_build_read(in(dir, 1, "further/Dockerfile"), &build, &error));
    sandcell_build_set_context(build, in(dir, 1, "further"));
    sandcell_build_set_name(build, "further:1");
    sandcell_build_set_target(build, "first");
    sandcell_build_add_secret(build, "a", "bytes\n", 6);
    sandcell_build_add_secret_file(build, "b", in(dir, 1, "further/secret"));
    sandcell_build_add_ssh_agent(build, "default", in(dir, 1, "further/secret"));
    FINE(sandcell_store_build(store, build, &id, &error));
    sandcell_text_free(id);
    id = NULL;
    CHECK(sandcell_build_add_secret(build, "a", NULL, 6) == SANDCELL_ERROR_CONFIG);
    sandcell_build_free(build);
    FINE(sandcell_build_read(in(dir, 1, "further/Dockerfile"), &build, &error));
    CHECK(sandcell_build_set(build, "nothing", "first") == SANDCELL_ERROR_CONFIG);
    CHECK(sandcell_store_build(store, build, &id, &error) == SANDCELL_ERROR_CONFIG);
    CHECK(id == NULL && strstr(sandcell_error_message(error), "nothing") != NULL);
    sandcell_error_free(error);
    error = NULL;
    sandcell_build_free(build);
    FINE(sandcell_build_read(in(dir, 1, "further/Dockerfile"), &build, &error));
    CHECK(sandcell_build_set(build, "target", "nowhere") == 0);
    CHECK(sandcell_store_build(store, build, &id, &error) == SANDCELL_ERROR_CONFIG);
    CHECK(id == NULL && strstr(sandcell_error_message(error), "nowhere") != NULL);
    sandcell_error_free(error);
    error = NULL;
    sandcell_build_free(build);

    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_policy_set_store(policy, where);
    sandcell_policy_set_root_image(policy, "further:1");
    CHECK(sandcell_policy_set(policy, "user", "web") == 0);
    const char *argv[] = {"/bin/sh", "-c", "read x </seen; echo $x $USER $HOME", NULL};
    FINE(sandcell_run(policy, argv, &result, &error));
    CHECK(wrote(result, "bytes file /run/buildkit/ssh_agent.2 web /\n"));
    sandcell_result_free(result);
    sandcell_policy_free(policy);

    const char *images[] = {"further:1", NULL};
    FINE(sandcell_store_save(store, images, "docker-archive", in(dir, 1, "further/saved.tar"), &error));
    int saved = open(in(dir, 1, "further/saved.tar"), O_RDONLY | O_CLOEXEC);
    sandcell_load_options_t options = {0};
    options.size = sizeof options;
    options.image_name = "again:1";
    FINE(sandcell_store_load_from(store, saved, NULL, &options, &json, &error));
    CHECK(strcmp(json, "[\"again:1\"]") == 0 && fcntl(saved, F_GETFD) >= 0);
    sandcell_text_free(json);
    json = NULL;
    close(saved);
    REFUSED(sandcell_store_load_from(store, -1, NULL, NULL, &json, &error), SANDCELL_ERROR_CONFIG, "descriptor");
    REFUSED(sandcell_store_load_from(store, 0, "zip", NULL, &json, &error), SANDCELL_ERROR_CONFIG, "image_format");
    FINE(sandcell_store_remove(store, "again:1", NULL, &error));
    FINE(sandcell_store_remove(store, "further:1", NULL, &error));
    FINE(sandcell_store_prune(store, NULL, &error));
}

static void builds(sandcell_store_t *store, const char *where, const char *context)
{
    sandcell_error_t *error = NULL;
    sandcell_result_t *result = NULL;
    sandcell_command_t *command = NULL;
    char *id = NULL, *again = NULL, *json = NULL;
    size_t told[2] = {0, 0};
    sandcell_policy_t *policy = sandcell_policy_new();
    sandcell_build_t *build = steps(context);

    sandcell_build_set_name(build, "steps:1");
    sandcell_build_set_policy(build, policy);
    sandcell_build_set_show_output(build, true);
    sandcell_build_set_progress(build, count, told);
    FINE(sandcell_store_build(store, build, &id, &error));
    CHECK(told[0] == 12 && told[1] == 0);
    FINE(sandcell_store_build(store, build, &again, &error));
    CHECK(told[0] == 12 && told[1] == 2 && strcmp(id, again) == 0);
    sandcell_text_free(again);
    sandcell_text_free(id);
    sandcell_build_set_cache(build, false);
    told[1] = 0;
    FINE(sandcell_store_build(store, build, &id, &error));
    CHECK(told[1] == 0);
    sandcell_text_free(id);
    sandcell_build_free(build);
    FINE(sandcell_store_inspect_json(store, "steps:1", &json, &error));
    CHECK(strstr(json, "\"SIGINT\"") && strstr(json, "\"80/tcp\"") && strstr(json, "\"/kept\"") && strstr(json, "\"L\":\"l\""));
    CHECK(strstr(json, "2023-11-14T22:13:20Z") != NULL);
    sandcell_text_free(json);
    sandcell_policy_set_store(policy, where);
    sandcell_policy_set_root_image(policy, "steps:1");
    FINE(sandcell_image_command(policy, NULL, &command, &error));
    FINE(sandcell_run_command(policy, command, &result, &error));
    CHECK(wrote(result, "line words b c\n/etc\n"));
    sandcell_result_free(result);
    sandcell_command_free(command);

    /* A build is stopped from its own progress; a mistake in a step or in a policy is the build's. */
    sandcell_stop_t *stop = sandcell_stop_new();
    build = steps(context);
    sandcell_build_set_cache(build, false);
    sandcell_build_set_stop(build, stop);
    sandcell_build_set_progress(build, stopping, stop);
    CHECK(sandcell_store_build(store, build, &id, &error) == SANDCELL_ERROR_SETUP && id == NULL);
    sandcell_error_free(error);
    sandcell_build_free(build);
    sandcell_stop_free(stop);
    build = steps(context);
    CHECK(sandcell_build_add_step(build, "add", "x") == SANDCELL_ERROR_CONFIG);
    sandcell_build_set_cache(build, true);
    REFUSED(sandcell_store_build(store, build, &id, &error), SANDCELL_ERROR_CONFIG, "kind");
    sandcell_build_free(build);
    build = steps(context);
    sandcell_policy_set_network(policy, "everywhere");
    CHECK(sandcell_build_set_policy(build, policy) == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_store_build(store, build, &id, &error), SANDCELL_ERROR_CONFIG, "network");
    sandcell_build_free(build);
    sandcell_policy_free(policy);
}

/* Nothing but what is asked for is loaded: limits, dates and stops. */
static void loads(sandcell_store_t *store, const char *root)
{
    sandcell_error_t *error = NULL;
    char *json = NULL;
    sandcell_load_options_t how = {.size = sizeof how, .image_name = "dated:1", .created = "2024-01-02T03:04:05Z"};

    FINE(sandcell_store_set_limit(store, "members", 1, &error));
    CHECK(sandcell_store_load(store, root, "rootfs", NULL, &json, &error) == SANDCELL_ERROR_SETUP);
    CHECK(strstr(sandcell_error_message(error), "members") != NULL);
    sandcell_error_free(error);
    FINE(sandcell_store_set_limit(store, "members", 1000000, &error));
    FINE(sandcell_store_set_limit(store, "layers", 100, &error));
    FINE(sandcell_store_set_limit(store, "layer_bytes", UINT64_C(1) << 30, &error));
    FINE(sandcell_store_set_limit(store, "ratio", 100, &error));
    FINE(sandcell_store_set_limit(store, "time_ms", 60000, &error));
    REFUSED(sandcell_store_set_limit(store, "bytes", 1, &error), SANDCELL_ERROR_CONFIG, "limit");
    sandcell_stop_t *stop = sandcell_stop_new();
    sandcell_stop_now(stop);
    how.stop = stop;
    CHECK(sandcell_store_load(store, root, "rootfs", &how, &json, &error) == SANDCELL_ERROR_SETUP && json == NULL);
    sandcell_error_free(error);
    sandcell_stop_free(stop);
    how.stop = NULL;
    how.auth_file = root;
    REFUSED(sandcell_store_load(store, root, "rootfs", &how, &json, &error), SANDCELL_ERROR_CONFIG, "options");
    how.auth_file = NULL;
    FINE(sandcell_store_load(store, root, "rootfs", &how, &json, &error));
    CHECK(strcmp(json, "[\"dated:1\"]") == 0);
    sandcell_text_free(json);
    FINE(sandcell_store_inspect_json(store, "dated:1", &json, &error));
    CHECK(strstr(json, "2024-01-02T03:04:05Z") != NULL);
    sandcell_text_free(json);
}

/* A root of a used image's layers; while it is in use nobody removes it, and afterwards they do. */
static void keeps(sandcell_store_t *store, const char *root)
{
    const char *const words[] = {"/bin/sh", "-c", "read x </etc/passwd; echo $x", NULL};
    sandcell_error_t *error = NULL;
    sandcell_result_t *result = NULL;
    sandcell_image_t *kept = NULL;
    sandcell_policy_t *policy = sandcell_policy_new();
    char *json = NULL;
    sandcell_load_options_t named = {.size = sizeof named, .image_name = "kept:1"};

    FINE(sandcell_store_load(store, root, "rootfs", &named, &json, &error));
    sandcell_text_free(json);
    REFUSED(sandcell_store_use_image(store, "nowhere:1", &kept, &error), SANDCELL_ERROR_CONFIG, "nowhere:1");
    CHECK(kept == NULL);
    FINE(sandcell_store_use_image(store, "kept:1", &kept, &error));
    CHECK(strncmp(sandcell_image_id(kept), "sha256:", 7) == 0);
    CHECK(sandcell_image_layer_count(kept) == 1 && *sandcell_image_layer(kept, 1) == '\0');
    sandcell_policy_add_layer(policy, sandcell_image_layer(kept, 0));
    FINE(sandcell_run(policy, words, &result, &error));
    CHECK(wrote(result, "root:x:0:0::/root:/bin/sh\n"));
    sandcell_result_free(result);
    sandcell_policy_free(policy);
    CHECK(sandcell_store_remove(store, sandcell_image_id(kept), NULL, &error) == SANDCELL_ERROR_SETUP);
    CHECK(strstr(sandcell_error_message(error), "using this image") != NULL);
    sandcell_error_free(error);
    sandcell_image_free(kept);
    FINE(sandcell_store_remove(store, "kept:1", NULL, &error));
}

/* Whether the only layer that the image has above the first says that `file` is theirs. */
static bool belongs(sandcell_store_t *store, const char *image, const char *theirs)
{
    sandcell_error_t *error = NULL;
    char *json = NULL, *withheld = NULL, layer[72];
    FINE(sandcell_store_inspect_json(store, image, &json, &error));
    const char *last = strstr(strstr(strstr(json, "\"RootFS\""), "sha256:") + 1, "sha256:");
    snprintf(layer, sizeof layer, "%.71s", last);
    FINE(sandcell_store_withheld_json(store, layer, &withheld, &error));
    bool so = strstr(withheld, theirs) != NULL;
    sandcell_text_free(withheld);
    sandcell_text_free(json);
    return so;
}

/* Files on the disk are in the image whose the caller says; by default, and where no range has them, root's. */
static void owners(sandcell_store_t *store, const char *upper)
{
    sandcell_error_t *error = NULL;
    sandcell_owned_t *files = NULL;
    sandcell_owned_entry_t x = {.size = sizeof x};
    char *id = NULL;
    const char *const theirs = "\"gid\":8,\"mode\":420,\"path\":\"x\",\"uid\":77";

    FINE(sandcell_owned_list(upper, &files, &error));
    for (size_t i = 0; strcmp(x.path == NULL ? "" : x.path, "upper/x") != 0; i++)
        CHECK(sandcell_owned_get(files, i, &x) == 0);
    for (uint32_t off = 0; off < 2; off++) {
        sandcell_commit_t *commit = sandcell_commit_new();
        sandcell_commit_set(commit, "name", "mapped:1");
        CHECK(sandcell_commit_add_uids(commit, 77, x.host_uid + off, 8) == 0);
        CHECK(sandcell_commit_add_gids(commit, 8, x.host_gid, 1) == 0);
        FINE(sandcell_store_commit(store, upper, commit, &id, &error));
        CHECK(belongs(store, "mapped:1", theirs) == (off == 0));
        sandcell_text_free(id);
        sandcell_commit_free(commit);
    }
    sandcell_owned_free(files);
    sandcell_commit_t *commit = sandcell_commit_new();
    CHECK(sandcell_commit_add_gids(commit, 1, UINT32_MAX, 2) == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_store_commit(store, upper, commit, &id, &error), SANDCELL_ERROR_CONFIG, "count");
    sandcell_commit_free(commit);
    FINE(sandcell_store_remove(store, "mapped:1", NULL, &error));
    FINE(sandcell_store_prune(store, NULL, &error));
    REFUSED(sandcell_store_withheld_json(store, "layer", &id, &error), SANDCELL_ERROR_CONFIG, "layer");
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *dir = argv[1];
    sandcell_error_t *error = NULL;
    sandcell_store_t *store = NULL;
    char *json = NULL, *id = NULL;
    shell(dir, "mkdir -p root/bin root/etc context && cp /bin/busybox root/bin/sh && echo root:x:0:0::/root:/bin/sh >root/etc/passwd");
    shell(dir, "printf 'FROM app:1\\nARG WORD\\nRUN echo $WORD >/made\\nENTRYPOINT [\"/bin/sh\", \"-c\"]\\nCMD [\"read x </made; echo $x\"]\\n' >context/Dockerfile");

    FINE(sandcell_store_open(in(dir, 0, "store"), &store, &error));
    sandcell_load_options_t named = {.size = sizeof named, .image_name = "app:1"};
    FINE(sandcell_store_load(store, in(dir, 0, "root"), "rootfs", &named, &json, &error));
    CHECK(strcmp(json, "[\"app:1\"]") == 0);
    sandcell_text_free(json);
    REFUSED(sandcell_store_load(store, place[0], "tar", NULL, &json, &error), SANDCELL_ERROR_CONFIG, "image_format");
    CHECK(json == NULL);
    loads(store, place[0]);
    keeps(store, place[0]);
    FINE(sandcell_store_dir(store, &json, &error));
    CHECK(strcmp(json, in(dir, 0, "store")) == 0);
    sandcell_text_free(json);

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
    sandcell_changes_t *changes = NULL;
    FINE(sandcell_store_diff(store, in(dir, 1, "upper"), NULL, &changes, &error));
    CHECK(sandcell_changes_count(changes) == 1 && sandcell_changes_kind(changes, 0) == SANDCELL_CHANGE_ADDED);
    CHECK(strcmp(sandcell_changes_path(changes, 0), "/x") == 0);
    sandcell_changes_free(changes);
    owners(store, in(dir, 1, "upper"));
    sandcell_commit_t *commit = sandcell_commit_new();
    sandcell_commit_set(commit, "name", "app:2");
    sandcell_commit_set(commit, "comment", "why");
    sandcell_commit_set(commit, "author", "me");
    sandcell_commit_set(commit, "created", "2024-01-02T03:04:05Z");
    sandcell_commit_add_change(commit, "ENV WORD=x");
    sandcell_commit_set_config(commit, "Labels", "{\"k\":\"v\"}");
    FINE(sandcell_store_commit(store, in(dir, 1, "upper"), commit, &id, &error));
    CHECK(strncmp(id, "sha256:", 7) == 0);
    sandcell_text_free(id);
    FINE(sandcell_store_inspect_json(store, "app:2", &json, &error));
    CHECK(strstr(json, "\"WORD=x\"") && strstr(json, "\"k\":\"v\"") && strstr(json, "\"me\"") && strstr(json, "2024-01-02"));
    sandcell_text_free(json);
    CHECK(sandcell_commit_set(commit, "colour", "red") == SANDCELL_ERROR_CONFIG);
    REFUSED(sandcell_store_commit(store, in(dir, 1, "upper"), commit, &id, &error), SANDCELL_ERROR_CONFIG, "colour");
    sandcell_commit_free(commit);
    /* The configuration alone. */
    REFUSED(sandcell_store_commit(store, NULL, NULL, &id, &error), SANDCELL_ERROR_CONFIG, "upper");
    commit = sandcell_commit_new();
    sandcell_commit_set(commit, "base", "app:2");
    sandcell_commit_set(commit, "name", "app:config");
    FINE(sandcell_store_commit(store, NULL, commit, &id, &error));
    sandcell_text_free(id);
    sandcell_commit_free(commit);
    FINE(sandcell_owned_remove(in(dir, 1, "upper"), &error)); /* nobody else can be rid of the kernel's directory in it */

    sandcell_build_t *build = NULL;
    FINE(sandcell_build_read(in(dir, 1, "context/Dockerfile"), &build, &error));
    sandcell_build_set_context(build, in(dir, 2, "context"));
    sandcell_build_set_name(build, "app:3");
    sandcell_build_add_arg(build, "WORD", "built");
    FINE(sandcell_store_build(store, build, &id, &error));
    sandcell_text_free(id);
    sandcell_build_free(build);
    builds(store, in(dir, 0, "store"), in(dir, 2, "context"));
    further(store, in(dir, 0, "store"), dir);
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
    const char *both[] = {"app:3", "app:1", NULL};
    FINE(sandcell_store_save(store, both, NULL, in(dir, 1, "saved.tar"), &error));
    FINE(sandcell_store_tag(store, "app:3", "other:1", &error));
    sandcell_pruned_t gone = {.size = sizeof gone, .images = 7};
    FINE(sandcell_store_remove(store, "app:3", &gone, &error));
    CHECK(gone.images == 0 && gone.layers == 0 && gone.bytes == 0);
    REFUSED(sandcell_store_remove(store, "app:3", NULL, &error), SANDCELL_ERROR_CONFIG, "app:3");
    gone.size = 1;
    REFUSED(sandcell_store_prune(store, &gone, &error), SANDCELL_ERROR_CONFIG, "pruned");
    gone.size = sizeof gone;
    FINE(sandcell_store_prune(store, &gone, &error));
    FINE(sandcell_store_images_json(store, &json, &error));
    CHECK(strstr(json, "other:1") != NULL && strstr(json, "app:3") == NULL);
    sandcell_text_free(json);
    /* The layers may have files of sub-ids, which the test's directory could not be rid of. */
    FINE(sandcell_store_remove(store, "other:1", &gone, &error));
    CHECK(gone.images == 1 && gone.layers == 1 && gone.bytes > 0);
    const char *names[] = {"app:2", "app:config", "steps:1", "dated:1", "app:1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        FINE(sandcell_store_remove(store, names[i], NULL, &error));
    FINE(sandcell_store_prune(store, NULL, &error));
    FINE(sandcell_store_images_json(store, &json, &error));
    CHECK(strcmp(json, "[]") == 0);
    sandcell_text_free(json);
    sandcell_store_free(store);
    return 0;
}
