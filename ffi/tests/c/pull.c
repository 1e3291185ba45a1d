/* Images from a registry. Arguments: a directory, and the registry's HOST:PORT, or nothing for a library without any. */
#include "check.h"

static sandcell_error_t *error;

static void count(void *data, uint64_t done, uint64_t total)
{
    CHECK(done <= total);
    ++*(int *)data;
}

int main(int argc, char **argv)
{
    sandcell_store_t *store = NULL;
    char *id = NULL, *json = NULL, place[2048], image[256];
    struct {
        sandcell_load_options_t known;
        uint64_t later;
    } how;
    int told = 0;

    CHECK(argc == 2 || argc == 3);
    snprintf(place, sizeof place, "%s/store", argv[1]);
    FINE(sandcell_store_open(place, &store, &error));

    /* A caller may know of less than the library, or of more, if it does not ask for it. */
    memset(&how, 0, sizeof how);
    REFUSED(sandcell_store_pull(store, "a", &how.known, &id, &error), SANDCELL_ERROR_CONFIG, "options");
    how.known.size = sizeof how;
    how.later = 1;
    REFUSED(sandcell_store_pull(store, "a", &how.known, &id, &error), SANDCELL_ERROR_CONFIG, "options");
    how.later = 0;
    how.known.flags = UINT64_C(1) << 63;
    REFUSED(sandcell_store_pull(store, "a", &how.known, &id, &error), SANDCELL_ERROR_CONFIG, "options");
    how.known.flags = SANDCELL_LOAD_DURABLE;
    how.known.user = "me";
    REFUSED(sandcell_store_pull(store, "a", &how.known, &id, &error), SANDCELL_ERROR_CONFIG, "options");
    CHECK(id == NULL);
    how.known.user = NULL;
    how.known.flags |= SANDCELL_LOAD_PLAIN_HTTP;

    how.known.created = "2024-01-02T03:04:05Z";
    CHECK(sandcell_store_pull(store, "a", &how.known, &id, &error) == SANDCELL_ERROR_CONFIG);
    sandcell_error_free(error);
    error = NULL;
    how.known.created = NULL;

    if (argc == 2) {
        REFUSED(sandcell_store_pull(store, "a", NULL, &id, &error), SANDCELL_ERROR_CONFIG, "pull");
        CHECK(id == NULL);
        sandcell_store_free(store);
        return 0;
    }
    snprintf(place, sizeof place, "%s/no-credentials.json", argv[1]);
    snprintf(image, sizeof image, "%s/app:1", argv[2]);
    how.known.image_name = "mine:1";
    how.known.auth_file = place;
    how.known.progress = count;
    how.known.progress_data = &told;
    /* What is stopped before it begins ends at once, and the same without a stop goes through. */
    sandcell_stop_t *stop = sandcell_stop_new();
    sandcell_stop_now(stop);
    how.known.stop = stop;
    CHECK(sandcell_store_pull(store, image, &how.known, &id, &error) == SANDCELL_ERROR_SETUP && id == NULL);
    sandcell_error_free(error);
    error = NULL;
    how.known.stop = NULL;
    sandcell_stop_free(stop);
    FINE(sandcell_store_pull(store, image, &how.known, &id, &error));
    CHECK(strncmp(id, "sha256:", 7) == 0 && told > 0);
    sandcell_text_free(id);
    FINE(sandcell_store_images_json(store, &json, &error));
    CHECK(strstr(json, "mine:1") != NULL);
    sandcell_text_free(json);
    /* Only what has a name of its own is asked for: there is no such tag. */
    snprintf(image, sizeof image, "%s/app:2", argv[2]);
    CHECK(sandcell_store_pull(store, image, &how.known, &id, &error) == SANDCELL_ERROR_SETUP && id == NULL);
    CHECK(*sandcell_error_message(error) != '\0');
    sandcell_error_free(error);
    error = NULL;
    FINE(sandcell_store_remove(store, "mine:1", NULL, &error));
    FINE(sandcell_store_prune(store, NULL, &error));
    sandcell_store_free(store);
    return 0;
}
