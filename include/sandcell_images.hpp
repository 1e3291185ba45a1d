// The part of sandcell.hpp about images; it comes with that where the library has them.

#ifndef SANDCELL_IMAGES_HPP
#define SANDCELL_IMAGES_HPP

#include "sandcell.hpp"

namespace sandcell {

/// Ends loads, pulls and builds early, from any thread.
class Stop {
public:
    Stop() : stop_(sandcell_stop_new()) {}
    void now() const noexcept { sandcell_stop_now(stop_.get()); }
    const sandcell_stop_t *get() const noexcept { return stop_.get(); }

private:
    detail::Handle<sandcell_stop_t, sandcell_stop_free> stop_;
};

/// How to load or pull an image: what is empty is left out. `created` is for loads, what is about registries for pulls.
struct LoadOptions {
    std::string name, auth_file, user, password, ca_file, created, platform;
    bool plain_http = false, durable = false;
    /// Is told of the bytes that have come and of all. What it throws is thrown when the pull is over.
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;
    const Stop *stop = nullptr;
};

/// The steps of an image, on an image of the store or on `scratch`.
class Build {
public:
    explicit Build(const std::string &base) : build_(sandcell_build_new(detail::c_str(base))) {}
    /// The steps of a Dockerfile.
    static Build dockerfile(const std::string &file)
    {
        return Build(detail::make<sandcell_build_t>(sandcell_build_read, detail::c_str(file)));
    }

    Build &run(const std::string &line) { return step("run", line); }
    Build &run(const std::vector<std::string> &argv) { return words("run", argv); }
    Build &copy(const std::vector<std::string> &files, const std::string &place, const std::string &owner = {},
                std::uint32_t mode = UINT32_MAX)
    {
        sandcell_build_add_copy(get(), list(files).data(), detail::c_str(place), owner.empty() ? nullptr : detail::c_str(owner), mode);
        return *this;
    }
    Build &env(const std::string &key, const std::string &value) { return pair("env", key, value); }
    Build &label(const std::string &key, const std::string &value) { return pair("label", key, value); }
    Build &workdir(const std::string &dir) { return step("workdir", dir); }
    Build &user(const std::string &user) { return step("user", user); }
    Build &expose(const std::string &port) { return step("expose", port); }
    Build &volume(const std::string &dir) { return step("volume", dir); }
    Build &stop_signal(const std::string &signal) { return step("stop_signal", signal); }
    Build &cmd(const std::vector<std::string> &argv) { return words("cmd", argv); }
    Build &entrypoint(const std::vector<std::string> &argv) { return words("entrypoint", argv); }

    Build &context(const std::string &dir) { return sandcell_build_set_context(get(), detail::c_str(dir)), *this; }
    Build &name(const std::string &name) { return sandcell_build_set_name(get(), detail::c_str(name)), *this; }
    /// Any option by its name and text, as the program takes them.
    Build &set(const std::string &option, const std::string &text)
    {
        return sandcell_build_set(get(), detail::c_str(option), detail::c_str(text)), *this;
    }
    Build &arg(const std::string &key, const std::string &value)
    {
        return sandcell_build_add_arg(get(), detail::c_str(key), detail::c_str(value)), *this;
    }
    Build &target(const std::string &stage) { return sandcell_build_set_target(get(), detail::c_str(stage)), *this; }
    /// A secret for `RUN --mount=type=secret,id=...`, which is in no layer.
    Build &secret(const std::string &id, const std::string &content)
    {
        return sandcell_build_add_secret(get(), detail::c_str(id), content.data(), content.size()), *this;
    }
    Build &secret_file(const std::string &id, const std::string &file)
    {
        return sandcell_build_add_secret_file(get(), detail::c_str(id), detail::c_str(file)), *this;
    }
    Build &ssh_agent(const std::string &id, const std::string &socket)
    {
        return sandcell_build_add_ssh_agent(get(), detail::c_str(id), detail::c_str(socket)), *this;
    }
    Build &policy(const Policy &policy) { return sandcell_build_set_policy(get(), policy.get()), *this; }
    Build &timestamp(std::int64_t seconds) { return sandcell_build_set_timestamp(get(), seconds), *this; }
    Build &cache(bool cache) { return sandcell_build_set_cache(get(), cache), *this; }
    Build &show_output(bool show = true) { return sandcell_build_set_show_output(get(), show), *this; }
    Build &stop(const Stop &stop) { return sandcell_build_set_stop(get(), stop.get()), *this; }
    /// Is told of every step; as it is C's own, it may not throw.
    Build &progress(sandcell_build_progress_t progress, void *data)
    {
        return sandcell_build_set_progress(get(), progress, data), *this;
    }

    sandcell_build_t *get() const noexcept { return build_.get(); }

private:
    explicit Build(sandcell_build_t *build) noexcept : build_(build) {}

    static std::vector<const char *> list(const std::vector<std::string> &words)
    {
        std::vector<const char *> list;
        for (const std::string &word : words)
            list.push_back(detail::c_str(word));
        list.push_back(nullptr);
        return list;
    }
    Build &step(const char *kind, const std::string &text)
    {
        return sandcell_build_add_step(get(), kind, detail::c_str(text)), *this;
    }
    Build &words(const char *kind, const std::vector<std::string> &argv)
    {
        return sandcell_build_add_words(get(), kind, list(argv).data()), *this;
    }
    Build &pair(const char *kind, const std::string &key, const std::string &value)
    {
        return sandcell_build_add_pair(get(), kind, detail::c_str(key), detail::c_str(value)), *this;
    }

    detail::Handle<sandcell_build_t, sandcell_build_free> build_;
};

/// How to commit: see sandcell_commit_set for the keys.
class Commit {
public:
    Commit() : commit_(sandcell_commit_new()) {}
    Commit &set(const std::string &key, const std::string &text)
    {
        return sandcell_commit_set(commit_.get(), detail::c_str(key), detail::c_str(text)), *this;
    }
    /// An instruction of a Dockerfile that changes the configuration.
    Commit &change(const std::string &line) { return sandcell_commit_add_change(commit_.get(), detail::c_str(line)), *this; }
    /// Whose the files of `count` ids from `host` on are in the image: see sandcell_commit_add_uids.
    Commit &uids(std::uint32_t inside, std::uint32_t host, std::uint32_t count)
    {
        return sandcell_commit_add_uids(commit_.get(), inside, host, count), *this;
    }
    Commit &gids(std::uint32_t inside, std::uint32_t host, std::uint32_t count)
    {
        return sandcell_commit_add_gids(commit_.get(), inside, host, count), *this;
    }
    /// A key of the image's `config` object, as JSON.
    Commit &config(const std::string &key, const std::string &json)
    {
        return sandcell_commit_set_config(commit_.get(), detail::c_str(key), detail::c_str(json)), *this;
    }
    const sandcell_commit_t *get() const noexcept { return commit_.get(); }

private:
    detail::Handle<sandcell_commit_t, sandcell_commit_free> commit_;
};

/// An image that stays in the store as long as this lives.
class Image {
public:
    explicit Image(sandcell_image_t *image) noexcept : image_(image) {}

    std::string id() const { return sandcell_image_id(image_.get()); }
    /// Directories for `Policy::layer`, the lowest first.
    std::vector<std::string> layers() const
    {
        std::vector<std::string> list;
        for (std::size_t i = 0; i < sandcell_image_layer_count(image_.get()); i++)
            list.emplace_back(sandcell_image_layer(image_.get(), i));
        return list;
    }

private:
    detail::Handle<sandcell_image_t, sandcell_image_free> image_;
};

/// What was removed.
struct Pruned {
    std::uint64_t images, layers, bytes;
};

/// A directory of images and volumes. A text that is empty stands for what is left out.
class Store {
public:
    /// The user's own, or the one in this directory.
    explicit Store(const std::string &dir = {}) : store_(detail::make<sandcell_store_t>(sandcell_store_open, maybe(dir))) {}

    /// Changes what an image may at most be: see sandcell_store_set_limit.
    void set_limit(const std::string &limit, std::uint64_t number)
    {
        detail::call(sandcell_store_set_limit, store_.get(), detail::c_str(limit), number);
    }
    std::string dir() const { return detail::text(sandcell_store_dir, get()); }
    /// Loads images; their names as JSON. `format` is `detect`, `oci`, `docker` or `rootfs`.
    std::string load(const std::string &from, const std::string &format = {}, const LoadOptions &options = {}) const
    {
        Watcher watcher{options.progress, nullptr};
        const auto how = watcher.how(options);
        return watcher.told(detail::text(sandcell_store_load, get(), detail::c_str(from), maybe(format), &how));
    }
    /// The same of an archive from a descriptor, which is read to its end and stays the caller's.
    std::string load_from(int descriptor, const std::string &format = {}, const LoadOptions &options = {}) const
    {
        Watcher watcher{options.progress, nullptr};
        const auto how = watcher.how(options);
        return watcher.told(detail::text(sandcell_store_load_from, get(), descriptor, maybe(format), &how));
    }
    /// Gets an image from its registry; its id.
    std::string pull(const std::string &image, const LoadOptions &options = {}) const
    {
        Watcher watcher{options.progress, nullptr};
        const auto how = watcher.how(options);
        return watcher.told(detail::text(sandcell_store_pull, get(), detail::c_str(image), &how));
    }
    std::string images_json() const { return detail::text(sandcell_store_images_json, get()); }
    std::string inspect_json(const std::string &image) const
    {
        return detail::text(sandcell_store_inspect_json, get(), detail::c_str(image));
    }
    std::string history_json(const std::string &image) const
    {
        return detail::text(sandcell_store_history_json, get(), detail::c_str(image));
    }
    /// What the files of a layer are in the image and not on the disk: see sandcell_store_withheld_json.
    std::string withheld_json(const std::string &layer) const
    {
        return detail::text(sandcell_store_withheld_json, get(), detail::c_str(layer));
    }
    /// Keeps an image for one who uses its files.
    Image use_image(const std::string &image) const
    {
        return Image(detail::make<sandcell_image_t>(sandcell_store_use_image, get(), detail::c_str(image)));
    }
    std::string volumes_json() const { return detail::text(sandcell_store_volumes_json, get()); }
    /// What runs with that upper directory changed in their image, or in `base`.
    std::vector<Change> diff(const std::string &upper, const std::string &base = {}) const
    {
        detail::Handle<sandcell_changes_t, sandcell_changes_free> changes(
            detail::make<sandcell_changes_t>(sandcell_store_diff, get(), detail::c_str(upper), maybe(base)));
        return detail::list(changes.get());
    }
    /// Makes an image of what runs with that upper directory changed (none: of the configuration alone); its id.
    std::string commit(const std::string &upper, const Commit &commit = {}) const
    {
        return detail::text(sandcell_store_commit, get(), maybe(upper), commit.get());
    }
    /// Makes an image by its steps; its id.
    std::string build(const Build &build) const { return detail::text(sandcell_store_build, get(), build.get()); }
    /// Writes images to a new file or directory: `oci-archive`, `oci-dir` or `docker-archive`.
    void save(const std::vector<std::string> &images, const std::string &to, const std::string &format = {}) const
    {
        std::vector<const char *> names;
        for (const std::string &image : images)
            names.push_back(detail::c_str(image));
        names.push_back(nullptr);
        detail::call(sandcell_store_save, get(), names.data(), maybe(format), detail::c_str(to));
    }
    void tag(const std::string &image, const std::string &name) const
    {
        detail::call(sandcell_store_tag, get(), detail::c_str(image), detail::c_str(name));
    }
    Pruned remove(const std::string &image) const
    {
        return pruned([&](sandcell_pruned_t *gone) { detail::call(sandcell_store_remove, get(), detail::c_str(image), gone); });
    }
    void remove_volume(const std::string &name) const { detail::call(sandcell_store_remove_volume, get(), detail::c_str(name)); }
    Pruned prune() const
    {
        return pruned([&](sandcell_pruned_t *gone) { detail::call(sandcell_store_prune, get(), gone); });
    }

    const sandcell_store_t *get() const noexcept { return store_.get(); }

private:
    struct Watcher {
        const std::function<void(std::uint64_t, std::uint64_t)> &progress;
        std::exception_ptr thrown;

        static void tell(void *data, std::uint64_t done, std::uint64_t total) noexcept
        {
            auto *watcher = static_cast<Watcher *>(data);
            if (watcher->thrown)
                return;
            try {
                watcher->progress(done, total);
            } catch (...) {
                watcher->thrown = std::current_exception();
            }
        }

        /// For as long as the options live.
        sandcell_load_options_t how(const LoadOptions &options)
        {
            sandcell_load_options_t how{};
            how.size = sizeof how;
            how.flags = (options.plain_http ? SANDCELL_LOAD_PLAIN_HTTP : 0u) | (options.durable ? SANDCELL_LOAD_DURABLE : 0u);
            how.image_name = maybe(options.name);
            how.auth_file = maybe(options.auth_file);
            how.user = maybe(options.user);
            how.password = options.user.empty() ? nullptr : detail::c_str(options.password);
            how.ca_file = maybe(options.ca_file);
            how.created = maybe(options.created);
            how.platform = maybe(options.platform);
            how.stop = options.stop == nullptr ? nullptr : options.stop->get();
            how.progress = options.progress ? tell : nullptr;
            how.progress_data = this;
            return how;
        }

        std::string told(std::string answer) const
        {
            if (thrown)
                std::rethrow_exception(thrown);
            return answer;
        }
    };

    template <typename Remove>
    static Pruned pruned(Remove remove)
    {
        sandcell_pruned_t gone{};
        gone.size = sizeof gone;
        remove(&gone);
        return {gone.images, gone.layers, gone.bytes};
    }

    static const char *maybe(const std::string &text) { return text.empty() ? nullptr : detail::c_str(text); }

    detail::Handle<sandcell_store_t, sandcell_store_free> store_;
};

} // namespace sandcell

#endif /* SANDCELL_IMAGES_HPP */
