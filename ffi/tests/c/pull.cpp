// Images from a registry, by the C++ header. Arguments: a directory, and the registry's HOST:PORT where there is one.
#include <sandcell.hpp>

#include <cstdio>
#include <stdexcept>

int main(int argc, char **argv)
{
    sandcell::Store store(std::string(argv[1]) + "/store");
    sandcell::LoadOptions options;
    options.name = "mine:1";
    options.auth_file = std::string(argv[1]) + "/no-credentials.json";
    options.plain_http = true;
    int told = 0;
    options.progress = [&told](std::uint64_t done, std::uint64_t total) {
        told++;
        if (done > total || told > 1)
            throw std::runtime_error("enough");
        throw std::logic_error("the first");
    };
    const std::string image = std::string(argc > 2 ? argv[2] : "localhost") + "/app:1";
    try {
        store.pull(image, options);
        std::puts("nothing was thrown");
        return 1;
    } catch (const std::logic_error &error) {
        // What the caller's own function threw comes out, once the pull is over.
        if (argc == 2 || error.what() != std::string("the first") || told != 1)
            return 2;
    } catch (const sandcell::Error &error) {
        return argc == 2 && error.kind() == SANDCELL_ERROR_CONFIG ? 0 : 3;
    }
    if (store.images_json().find("mine:1") == std::string::npos)
        return 4;
    options.progress = nullptr;
    if (store.pull(image, options).rfind("sha256:", 0) != 0)
        return 5;
    // Builds, commits, limits and counts by the header's own hands. Without programs: there is no shell in the image.
    store.set_limit("members", 1000);
    sandcell::Build build("mine:1");
    build.env("A", "b").cmd({"app", "x"}).label("k", "v").name("built:1");
    if (store.build(build).rfind("sha256:", 0) != 0 || store.inspect_json("built:1").find("\"A=b\"") == std::string::npos)
        return 6;
    sandcell::Commit commit;
    commit.set("base", "built:1").set("name", "committed:1").change("ENV C=d").config("User", "\"7\"");
    store.commit({}, commit);
    if (store.inspect_json("committed:1").find("\"C=d\"") == std::string::npos)
        return 7;
    sandcell::Stop stop;
    stop.now();
    options.stop = &stop;
    try {
        store.pull(image, options);
        return 8;
    } catch (const sandcell::Error &) {
    }
    {
        const auto kept = store.use_image("mine:1");
        const std::string layers = store.inspect_json("mine:1");
        const auto layer = layers.substr(layers.find("sha256:", layers.find("\"RootFS\"")), 71);
        if (kept.id().rfind("sha256:", 0) != 0 || kept.layers().size() != 1 || store.withheld_json(layer).front() != '[')
            return 10;
    }
    store.commit({}, sandcell::Commit().set("base", "mine:1").set("name", "mapped:1").uids(7, 1000, 1).gids(7, 1000, 1));
    store.remove("mapped:1");
    if (store.remove("committed:1").images != 1)
        return 9;
    store.remove("built:1");
    store.remove("mine:1");
    store.prune();
    return 0;
}
