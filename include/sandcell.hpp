/*
 * sandcell for C++17 and later: sandcell.h with destructors, exceptions and std::chrono. Header-only.
 *
 *     sandcell::Policy policy;
 *     policy.memory(64 << 20).timeout(std::chrono::seconds(10));
 *     sandcell::Result result = policy.run({"/bin/sh", "-c", "echo hello"});
 *
 * What fails throws sandcell::Error; how the program ended is in the Result and never an exception. Setters do not throw:
 * what they refuse, the next run throws. The contract at the head of sandcell.h holds here, too. A moved-from object may
 * only be assigned to or destroyed.
 */
#ifndef SANDCELL_HPP
#define SANDCELL_HPP

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>

#if __cplusplus >= 202002L
#include <cstddef>
#include <span>
#endif

#include "sandcell.h"

namespace sandcell {

namespace detail {

template <auto Free>
struct Freer {
    template <typename T>
    void operator()(T *handle) const noexcept
    {
        Free(handle);
    }
};

template <typename T, auto Free>
using Handle = std::unique_ptr<T, Freer<Free>>;

/// Milliseconds, rounded up: what is asked for is waited for.
template <typename Rep, typename Period>
std::uint64_t milliseconds(std::chrono::duration<Rep, Period> time)
{
    const auto count = std::chrono::ceil<std::chrono::milliseconds>(time).count();
    return count < 0 ? 0 : static_cast<std::uint64_t>(count);
}

} // namespace detail

/// Why a call failed; `what()` is the whole story in one line.
class Error : public std::runtime_error {
public:
    explicit Error(sandcell_error_t *error)
        : std::runtime_error(sandcell_error_message(error)), error_(error, sandcell_error_free)
    {
    }

    /// One of the SANDCELL_ERROR_ numbers.
    int kind() const noexcept { return sandcell_error_kind(error_.get()); }
    /// The system's error number; 0 where no system call failed.
    std::error_code code() const noexcept { return {sandcell_error_errno(error_.get()), std::generic_category()}; }
    const char *stage() const noexcept { return sandcell_error_stage(error_.get()); }
    const char *subject() const noexcept { return sandcell_error_subject(error_.get()); }
    /// What to do about it; may be empty.
    const char *hint() const noexcept { return sandcell_error_hint(error_.get()); }
    const char *report_json() const noexcept { return sandcell_error_report_json(error_.get()); }

private:
    std::shared_ptr<sandcell_error_t> error_; // shared, because exceptions are copied
};

namespace detail {

/// Calls a function whose last argument is the place for the error.
template <typename Function, typename... Arguments>
void call(Function function, Arguments... arguments)
{
    sandcell_error_t *error = nullptr;
    if (function(arguments..., &error) != 0)
        throw Error(error);
}

/// The same where a new handle comes before it.
template <typename Answer, typename Function, typename... Arguments>
Answer *make(Function function, Arguments... arguments)
{
    Answer *answer = nullptr;
    call(function, arguments..., &answer);
    return answer;
}

template <typename Function, typename... Arguments>
std::string text(Function function, Arguments... arguments)
{
    Handle<char, sandcell_text_free> text(make<char>(function, arguments...));
    return text ? text.get() : "";
}

} // namespace detail

/// A descriptor of your own, closed with this object.
class Descriptor {
public:
    Descriptor() noexcept = default;
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    Descriptor(Descriptor &&other) noexcept : fd_(other.release()) {}
    Descriptor &operator=(Descriptor &&other) noexcept
    {
        reset(other.release());
        return *this;
    }
    ~Descriptor() { reset(); }

    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept
    {
        const int old = std::exchange(fd_, fd);
        if (old >= 0)
            ::close(old);
    }

private:
    int fd_ = -1;
};

/// What a run or a cell used; empty where nothing on this host counted it.
struct Usage {
    std::chrono::nanoseconds wall, user, system;
    std::optional<std::uint64_t> memory_peak_bytes, pids_peak, output_bytes, io_read_bytes, io_write_bytes;
    std::optional<std::chrono::nanoseconds> throttled;
    std::optional<std::uint64_t> oom_kills, pids_refused;
    std::optional<double> memory_pressure, cpu_pressure, io_pressure;

    explicit Usage(const sandcell_usage_t &usage)
        : wall(time(usage.wall_ns)), user(time(usage.user_ns)), system(time(usage.system_ns)),
          memory_peak_bytes(known(usage.memory_peak_bytes)), pids_peak(known(usage.pids_peak)),
          output_bytes(known(usage.output_bytes)), io_read_bytes(known(usage.io_read_bytes)),
          io_write_bytes(known(usage.io_write_bytes)), oom_kills(known(usage.oom_kills)),
          pids_refused(known(usage.pids_refused)), memory_pressure(share(usage.memory_pressure)),
          cpu_pressure(share(usage.cpu_pressure)), io_pressure(share(usage.io_pressure))
    {
        if (usage.throttled_ns != SANDCELL_UNKNOWN)
            throttled = time(usage.throttled_ns);
    }

private:
    static std::chrono::nanoseconds time(std::uint64_t ns) { return std::chrono::nanoseconds(static_cast<std::int64_t>(ns)); }
    static std::optional<std::uint64_t> known(std::uint64_t figure)
    {
        return figure == SANDCELL_UNKNOWN ? std::nullopt : std::optional<std::uint64_t>(figure);
    }
    // A NaN is the one number that has no order: nobody counted it.
    static std::optional<double> share(double figure)
    {
        return figure >= 0 ? std::optional<double>(figure) : std::nullopt;
    }
};

/// A path that differs from the layers of an overlay.
struct Change {
    enum class Kind { added = SANDCELL_CHANGE_ADDED, modified = SANDCELL_CHANGE_MODIFIED, deleted = SANDCELL_CHANGE_DELETED };
    Kind kind;
    std::string path;
};

namespace detail {

inline std::vector<Change> list(const sandcell_changes_t *changes)
{
    std::vector<Change> list;
    for (std::size_t i = 0; i < sandcell_changes_count(changes); i++)
        list.push_back({static_cast<Change::Kind>(sandcell_changes_kind(changes, i)), sandcell_changes_path(changes, i)});
    return list;
}

} // namespace detail

/// What came of a run. Views into it live as long as it does.
class Result {
public:
    explicit Result(sandcell_result_t *result) noexcept : result_(result) {}

    /// `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or `killed`.
    std::string_view outcome() const noexcept { return sandcell_result_outcome(result_.get()); }
    /// The status that a shell would show.
    int exit_code() const noexcept { return sandcell_result_exit_code(result_.get()); }
    /// The signal that ended the program; 0 where it was none.
    int signal() const noexcept { return sandcell_result_signal(result_.get()); }
    /// The system call that was denied; empty where none was.
    std::string_view syscall() const noexcept { return sandcell_result_syscall(result_.get()); }
    /// Whether the program ended by itself with status 0.
    bool success() const noexcept { return outcome() == "exited" && exit_code() == 0; }
    /// What it wrote to standard output.
    std::string_view out() const noexcept { return captured(sandcell_result_stdout); }
    /// What it wrote to standard error.
    std::string_view err() const noexcept { return captured(sandcell_result_stderr); }
#if __cplusplus >= 202002L
    std::span<const std::byte> out_bytes() const noexcept { return std::as_bytes(std::span(out())); }
    std::span<const std::byte> err_bytes() const noexcept { return std::as_bytes(std::span(err())); }
#endif
    std::string_view report_json() const noexcept { return sandcell_result_report_json(result_.get()); }
    std::uint32_t uid() const noexcept { return sandcell_result_uid(result_.get()); }
    std::uint32_t host_uid() const noexcept { return sandcell_result_host_uid(result_.get()); }
    Usage usage() const
    {
        sandcell_usage_t usage{};
        usage.size = sizeof usage;
        sandcell_result_usage(result_.get(), &usage);
        return Usage(usage);
    }
    /// What the run changed in its overlay, where `Command::track_changes` asked for it.
    std::vector<Change> changes() const { return detail::list(sandcell_result_changes(result_.get())); }
    /// The profile that `Command::learn` asked for, as JSON; empty where it was not asked for.
    std::string learned_json() const { return detail::text(sandcell_result_learned_json, result_.get()); }
    /// Command lines of processes that outlived the program, where `Policy::leftovers` asked for them.
    std::vector<std::string> leftovers() const
    {
        std::vector<std::string> list;
        for (std::size_t i = 0; i < sandcell_result_leftover_count(result_.get()); i++)
            list.emplace_back(sandcell_result_leftover_command(result_.get(), i));
        return list;
    }

private:
    std::string_view captured(const char *(*of)(const sandcell_result_t *, std::size_t *)) const noexcept
    {
        std::size_t length = 0;
        const char *bytes = of(result_.get(), &length);
        return {bytes, length};
    }

    detail::Handle<sandcell_result_t, sandcell_result_free> result_;
};

/// A program to run: arguments, environment, streams.
class Command {
public:
    Command(std::initializer_list<std::string> argv) : Command(std::vector<std::string>(argv)) {}
    explicit Command(const std::vector<std::string> &argv)
    {
        std::vector<const char *> words;
        for (const std::string &word : argv)
            words.push_back(word.c_str());
        words.push_back(nullptr);
        command_.reset(sandcell_command_new(words.data()));
    }

    explicit Command(sandcell_command_t *command) noexcept : command_(command) {}

    Command &arg(const std::string &arg) { return sandcell_command_add_arg(get(), arg.c_str()), *this; }
    Command &arg0(const std::string &name) { return sandcell_command_set_arg0(get(), name.c_str()), *this; }
    Command &env(const std::string &key, const std::string &value)
    {
        return sandcell_command_set_env(get(), key.c_str(), value.c_str()), *this;
    }
    Command &env_remove(const std::string &key) { return sandcell_command_set_env(get(), key.c_str(), nullptr), *this; }
    Command &env_clear() { return sandcell_command_clear_env(get()), *this; }
    Command &chdir(const std::string &dir) { return sandcell_command_set_chdir(get(), dir.c_str()), *this; }
    /// `inherit`, `null` or `pipe`; or a descriptor, which stays yours.
    Command &in(const char *what) { return sandcell_command_set_stdin(get(), what), *this; }
    Command &in(int fd) { return sandcell_command_set_stdin_fd(get(), fd), *this; }
    Command &out(const char *what) { return sandcell_command_set_stdout(get(), what), *this; }
    Command &out(int fd) { return sandcell_command_set_stdout_fd(get(), fd), *this; }
    Command &err(const char *what) { return sandcell_command_set_stderr(get(), what), *this; }
    Command &err(int fd) { return sandcell_command_set_stderr_fd(get(), fd), *this; }
    /// Passes a descriptor on as `number` inside.
    Command &pass_fd(int fd, int number) { return sandcell_command_add_fd(get(), fd, number), *this; }
    /// Bytes for standard input.
    Command &input(std::string_view bytes) { return sandcell_command_set_input(get(), bytes.data(), bytes.size()), *this; }
#if __cplusplus >= 202002L
    Command &input(std::span<const std::byte> bytes)
    {
        return input(std::string_view(reinterpret_cast<const char *>(bytes.data()), bytes.size()));
    }
#endif
    template <typename Rep, typename Period>
    Command &timeout(std::chrono::duration<Rep, Period> time)
    {
        return sandcell_command_set_timeout_ms(get(), detail::milliseconds(time)), *this;
    }
    Command &count_output(bool count = true) { return sandcell_command_set_count_output(get(), count), *this; }
    Command &track_changes(bool track = true) { return sandcell_command_set_track_changes(get(), track), *this; }
    Command &learn(bool learn = true) { return sandcell_command_set_learn(get(), learn), *this; }

    sandcell_command_t *get() const noexcept { return command_.get(); }

private:
    detail::Handle<sandcell_command_t, sandcell_command_free> command_;
};

/// A program that runs. Destroying it ends the program.
class Child {
public:
    explicit Child(sandcell_child_t *child) noexcept : child_(child) {}

    /// Readable when the program has ended: for poll(2) and the like.
    Descriptor pidfd() const
    {
        int fd = -1;
        detail::call(sandcell_child_pidfd, child_.get(), &fd);
        return Descriptor(fd);
    }
    std::uint32_t id() const noexcept { return sandcell_child_id(child_.get()); }
    /// Our ends of the pipes; empty where there are none (any more).
    Descriptor take_in() { return Descriptor(sandcell_child_take_stdin(child_.get())); }
    Descriptor take_out() { return Descriptor(sandcell_child_take_stdout(child_.get())); }
    Descriptor take_err() { return Descriptor(sandcell_child_take_stderr(child_.get())); }
    Result wait()
    {
        return Result(detail::make<sandcell_result_t>(sandcell_child_wait, child_.get(), std::int64_t{-1}));
    }
    /// Empty where it still runs after this time.
    template <typename Rep, typename Period>
    std::optional<Result> wait_for(std::chrono::duration<Rep, Period> time)
    {
        const auto longest = static_cast<std::uint64_t>(INT64_MAX);
        const std::uint64_t count = detail::milliseconds(time);
        const auto timeout = static_cast<std::int64_t>(count < longest ? count : longest);
        auto *result = detail::make<sandcell_result_t>(sandcell_child_wait, child_.get(), timeout);
        return result == nullptr ? std::nullopt : std::optional<Result>(Result(result));
    }
    template <typename Clock, typename Duration>
    std::optional<Result> wait_until(std::chrono::time_point<Clock, Duration> time)
    {
        return wait_for(time - Clock::now());
    }
    /// Writes the input, reads those outputs that are pipes, and waits.
    Result wait_output() { return Result(detail::make<sandcell_result_t>(sandcell_child_wait_output, child_.get())); }
    void signal(int number) { detail::call(sandcell_child_signal, child_.get(), number); }
    void kill() { detail::call(sandcell_child_kill, child_.get()); }
    std::string report_json() const { return detail::text(sandcell_child_report_json, child_.get()); }

    sandcell_child_t *get() const noexcept { return child_.get(); }

private:
    detail::Handle<sandcell_child_t, sandcell_child_free> child_;
};

/// The way into a cell for one process that the caller forks: see sandcell_cell_entry.
class Entry {
public:
    explicit Entry(sandcell_entry_t *entry) noexcept : entry_(entry) {}

    Entry &chdir(const std::string &dir) { return detail::call(sandcell_entry_chdir, get(), dir.c_str()), *this; }
    Entry &umask(std::uint32_t mask) { return detail::call(sandcell_entry_umask, get(), mask), *this; }
    Entry &keep_fd(int fd) { return detail::call(sandcell_entry_keep_fd, get(), fd), *this; }
    /// In the child, which then forks again, waits and does nothing else.
    void join() { detail::call(sandcell_entry_join, get()); }
    /// In the child's child. This object must not be destroyed there.
    void confine() { detail::call(sandcell_entry_confine, get()); }

    sandcell_entry_t *get() const noexcept { return entry_.get(); }

private:
    detail::Handle<sandcell_entry_t, sandcell_entry_free> entry_;
};

class Policy;

/// A started sandbox in which many programs can be run. It ends with this object and the last Child started in it.
class Cell {
public:
    explicit Cell(sandcell_cell_t *cell) noexcept : cell_(cell) {}

    Result run(const Command &command) const
    {
        return Result(detail::make<sandcell_result_t>(sandcell_cell_run, cell_.get(), command.get()));
    }
    Child spawn(const Command &command) const
    {
        return Child(detail::make<sandcell_child_t>(sandcell_cell_spawn, cell_.get(), command.get()));
    }
    /// Readable when the cell has ended.
    Descriptor pidfd() const
    {
        int fd = -1;
        detail::call(sandcell_cell_pidfd, cell_.get(), &fd);
        return Descriptor(fd);
    }
    void freeze() { detail::call(sandcell_cell_freeze, cell_.get()); }
    void thaw() { detail::call(sandcell_cell_thaw, cell_.get()); }
    /// Changes the limits that `limits` names; the others stay.
    void set_limits(const Policy &limits);
    Usage usage() const
    {
        sandcell_usage_t usage{};
        usage.size = sizeof usage;
        detail::call(sandcell_cell_usage, cell_.get(), &usage);
        return Usage(usage);
    }
    /// The files that differ from the layers so far.
    std::vector<Change> changes() const
    {
        detail::Handle<sandcell_changes_t, sandcell_changes_free> changes(
            detail::make<sandcell_changes_t>(sandcell_cell_changes, cell_.get()));
        return detail::list(changes.get());
    }
    std::string report_json() const { return detail::text(sandcell_cell_report_json, cell_.get()); }
    /// The home of its programs.
    std::string home() const { return detail::text(sandcell_cell_home, cell_.get()); }
    /// The way in for a process that the caller forks.
    Entry entry() const { return Entry(detail::make<sandcell_entry_t>(sandcell_cell_entry, cell_.get())); }
    /// Ends it now, with everything in it.
    void kill() { detail::call(sandcell_cell_kill, cell_.get()); }

    sandcell_cell_t *get() const noexcept { return cell_.get(); }

private:
    detail::Handle<sandcell_cell_t, sandcell_cell_free> cell_;
};

/// A system call filter as the kernel takes it.
class Bpf {
public:
    explicit Bpf(sandcell_bpf_t *bpf) noexcept : bpf_(bpf) {}

    /// An array of `struct sock_filter`.
    const void *data() const noexcept { return sandcell_bpf_bytes(bpf_.get(), nullptr); }
    /// How many bytes they are.
    std::size_t size() const noexcept
    {
        std::size_t length = 0;
        sandcell_bpf_bytes(bpf_.get(), &length);
        return length;
    }

private:
    detail::Handle<sandcell_bpf_t, sandcell_bpf_free> bpf_;
};

/// What a sandbox is to be like. Sizes are bytes; words are those of sandcell.h.
class Policy {
public:
    Policy() : policy_(sandcell_policy_new()) {}

    Policy &root_host() { return sandcell_policy_set_root_host(get()), *this; }
    Policy &root_empty() { return sandcell_policy_set_root_empty(get()), *this; }
    Policy &root_dir(const std::string &dir) { return sandcell_policy_set_root_dir(get(), dir.c_str()), *this; }
#ifdef SANDCELL_IMAGES
    /// An image of the store, by its name or id.
    Policy &root_image(const std::string &image) { return sandcell_policy_set_root_image(get(), image.c_str()), *this; }
    /// The store of images and volumes, instead of the user's own.
    Policy &store(const std::string &dir) { return sandcell_policy_set_store(get(), dir.c_str()), *this; }
    /// A named directory of the store that outlives runs.
    Policy &volume(const std::string &name, const std::string &dest, bool writable = true)
    {
        return sandcell_policy_add_volume(get(), name.c_str(), dest.c_str(), writable), *this;
    }
#endif
    Policy &layer(const std::string &dir) { return sandcell_policy_add_layer(get(), dir.c_str()), *this; }
    Policy &upper_tmpfs() { return sandcell_policy_set_upper_tmpfs(get()), *this; }
    Policy &upper_dir(const std::string &dir) { return sandcell_policy_set_upper_dir(get(), dir.c_str()), *this; }
    Policy &ro(const std::string &path) { return sandcell_policy_add_ro(get(), path.c_str(), nullptr), *this; }
    Policy &ro(const std::string &source, const std::string &dest)
    {
        return sandcell_policy_add_ro(get(), source.c_str(), dest.c_str()), *this;
    }
    Policy &rw(const std::string &path) { return sandcell_policy_add_rw(get(), path.c_str(), nullptr), *this; }
    Policy &rw(const std::string &source, const std::string &dest)
    {
        return sandcell_policy_add_rw(get(), source.c_str(), dest.c_str()), *this;
    }
    Policy &tmpfs(const std::string &dest, std::uint64_t bytes = 0)
    {
        return sandcell_policy_add_tmpfs(get(), dest.c_str(), bytes), *this;
    }
    Policy &file(const std::string &dest, std::string_view content)
    {
        return sandcell_policy_add_file(get(), dest.c_str(), content.data(), content.size()), *this;
    }
    Policy &file(const std::string &dest, std::string_view content, std::uint32_t mode)
    {
        return sandcell_policy_add_file_mode(get(), dest.c_str(), content.data(), content.size(), mode), *this;
    }
#if __cplusplus >= 202002L
    Policy &file(const std::string &dest, std::span<const std::byte> content)
    {
        return file(dest, std::string_view(reinterpret_cast<const char *>(content.data()), content.size()));
    }
#endif

    Policy &user(const std::string &user) { return sandcell_policy_set_user(get(), user.c_str()), *this; }
    Policy &host_ids(const std::string &source) { return sandcell_policy_set_host_ids(get(), source.c_str()), *this; }
    Policy &id_count(std::uint32_t count) { return sandcell_policy_set_id_count(get(), count), *this; }
    Policy &keep_caller(bool keep = true) { return sandcell_policy_set_keep_caller(get(), keep), *this; }
    template <typename Rep, typename Period>
    Policy &wait_for_ids(std::chrono::duration<Rep, Period> time)
    {
        return sandcell_policy_set_id_wait_ms(get(), detail::milliseconds(time)), *this;
    }
    Policy &hostname(const std::string &name) { return sandcell_policy_set_hostname(get(), name.c_str()), *this; }
    Policy &isolation(const std::string &isolation) { return sandcell_policy_set_isolation(get(), isolation.c_str()), *this; }
    Policy &network(const std::string &network) { return sandcell_policy_set_network(get(), network.c_str()), *this; }
    Policy &seccomp(const std::string &filter) { return sandcell_policy_set_seccomp(get(), filter.c_str()), *this; }
    Policy &seccomp_json(const std::string &json) { return sandcell_policy_set_seccomp_json(get(), json.c_str()), *this; }
    Policy &seccomp_file(const std::string &file) { return sandcell_policy_set_seccomp_file(get(), file.c_str()), *this; }
    /// Named sets of system calls on top of the filter that is set so far, and out of it.
    Policy &seccomp_with(const std::string &set) { return sandcell_policy_add_seccomp_set(get(), set.c_str()), *this; }
    Policy &seccomp_without(const std::string &set) { return sandcell_policy_remove_seccomp_set(get(), set.c_str()), *this; }
    Policy &landlock(const std::string &wall) { return sandcell_policy_set_landlock(get(), wall.c_str()), *this; }
    Policy &cap_add(const std::string &name) { return sandcell_policy_add_cap(get(), name.c_str()), *this; }

    Policy &memory(std::uint64_t bytes) { return sandcell_policy_set_memory(get(), bytes), *this; }
    Policy &memory_high(std::uint64_t bytes) { return sandcell_policy_set_memory_high(get(), bytes), *this; }
    Policy &swap(std::uint64_t bytes) { return sandcell_policy_set_swap(get(), bytes), *this; }
    Policy &pids(std::uint64_t count) { return sandcell_policy_set_pids(get(), count), *this; }
    Policy &cpus(double cpus) { return sandcell_policy_set_cpus(get(), cpus), *this; }
    Policy &cpu_weight(std::uint32_t weight) { return sandcell_policy_set_cpu_weight(get(), weight), *this; }
    Policy &cpuset(const std::string &list) { return sandcell_policy_set_cpuset(get(), list.c_str()), *this; }
    Policy &disk(std::uint64_t bytes) { return sandcell_policy_set_disk(get(), bytes), *this; }
    Policy &inodes(std::uint64_t count) { return sandcell_policy_set_inodes(get(), count), *this; }
    Policy &io_weight(std::uint32_t weight) { return sandcell_policy_set_io_weight(get(), weight), *this; }
    /// Bytes and operations per second; 0 for no limit.
    Policy &io_max(const std::string &device, std::uint64_t read_bytes, std::uint64_t write_bytes,
                   std::uint64_t read_ops = 0, std::uint64_t write_ops = 0)
    {
        return sandcell_policy_add_io_max(get(), device.c_str(), read_bytes, write_bytes, read_ops, write_ops), *this;
    }
    Policy &cgroup(const std::string &dir) { return sandcell_policy_set_cgroup(get(), dir.c_str()), *this; }
    Policy &rlimit(const std::string &name, std::uint64_t soft, std::uint64_t hard)
    {
        return sandcell_policy_add_rlimit(get(), name.c_str(), soft, hard), *this;
    }
    template <typename Rep, typename Period>
    Policy &cpu_time(std::chrono::duration<Rep, Period> time)
    {
        return sandcell_policy_set_cpu_time_ms(get(), detail::milliseconds(time)), *this;
    }
    template <typename Rep, typename Period>
    Policy &timeout(std::chrono::duration<Rep, Period> time)
    {
        return sandcell_policy_set_timeout_ms(get(), detail::milliseconds(time)), *this;
    }
    template <typename Rep, typename Period>
    Policy &grace(std::chrono::duration<Rep, Period> time)
    {
        return sandcell_policy_set_grace_ms(get(), detail::milliseconds(time)), *this;
    }
    Policy &output_limit(std::uint64_t bytes) { return sandcell_policy_set_output_limit(get(), bytes), *this; }

    Policy &env(const std::string &key, const std::string &value)
    {
        return sandcell_policy_add_env(get(), key.c_str(), value.c_str()), *this;
    }
    Policy &keep_env(bool keep = true) { return sandcell_policy_set_keep_env(get(), keep), *this; }
    Policy &chdir(const std::string &dir) { return sandcell_policy_set_chdir(get(), dir.c_str()), *this; }
    Policy &umask(std::uint32_t mask) { return sandcell_policy_set_umask(get(), mask), *this; }
    Policy &leftovers(const std::string &what) { return sandcell_policy_set_leftovers(get(), what.c_str()), *this; }
    Policy &best_effort(const std::string &item) { return sandcell_policy_add_best_effort(get(), item.c_str()), *this; }

#ifdef SANDCELL_IMAGES
    /// The program that the image names, with these words, or with the image's own where there are none.
    Command image_command(const std::vector<std::string> &words = {}) const
    {
        std::vector<const char *> list;
        for (const std::string &word : words)
            list.push_back(word.c_str());
        list.push_back(nullptr);
        return Command(detail::make<sandcell_command_t>(sandcell_image_command, policy_.get(), list.data()));
    }
#endif
    /// Checks the policy and does ahead of the first run what takes some milliseconds.
    void prepare() const { detail::call(sandcell_prepare, get()); }
    /// Runs a program to its end in a sandbox of its own and captures what it writes.
    Result run(const Command &command) const
    {
        return Result(detail::make<sandcell_result_t>(sandcell_run_command, policy_.get(), command.get()));
    }
    /// Starts a program in a sandbox of its own, which ends with it.
    Child spawn(const Command &command) const
    {
        return Child(detail::make<sandcell_child_t>(sandcell_spawn, policy_.get(), command.get()));
    }
    /// Starts a sandbox in which many programs can be run.
    Cell start() const { return Cell(detail::make<sandcell_cell_t>(sandcell_start, policy_.get())); }
    /// The filter in Docker's form.
    std::string seccomp_json() const { return detail::text(sandcell_policy_seccomp_json, policy_.get()); }
    /// The filter in words.
    std::string seccomp_text() const { return detail::text(sandcell_policy_seccomp_text, policy_.get()); }
    /// The filter as the kernel takes it.
    Bpf seccomp_bpf() const { return Bpf(detail::make<sandcell_bpf_t>(sandcell_policy_seccomp_bpf, policy_.get())); }
    /// The steps that a run would take, as JSON.
    std::string explain_json() const { return detail::text(sandcell_explain_json, policy_.get()); }

    sandcell_policy_t *get() const noexcept { return policy_.get(); }

private:
    detail::Handle<sandcell_policy_t, sandcell_policy_free> policy_;
};

inline void Cell::set_limits(const Policy &limits) { detail::call(sandcell_cell_set_limits, cell_.get(), limits.get()); }

/// Trees whose files belong to leased ids: kept uppers, homes and images that sandboxes wrote.
namespace owned {

/// One file of a tree; `uid` and `gid` are those inside, where they are known.
struct Entry {
    enum class Kind {
        file = SANDCELL_OWNED_FILE,
        directory = SANDCELL_OWNED_DIRECTORY,
        symlink = SANDCELL_OWNED_SYMLINK,
        other = SANDCELL_OWNED_OTHER
    };
    Kind kind;
    std::string path;
    std::uint64_t bytes;
    std::uint32_t mode, host_uid, host_gid;
    std::optional<std::uint32_t> uid, gid;
};

/// Everything in the directory, each directory before what is in it.
inline std::vector<Entry> list(const std::string &tree)
{
    detail::Handle<sandcell_owned_t, sandcell_owned_free> owned(detail::make<sandcell_owned_t>(sandcell_owned_list, tree.c_str()));
    const auto known = [](std::uint32_t id) { return id == UINT32_MAX ? std::nullopt : std::optional<std::uint32_t>(id); };
    std::vector<Entry> list;
    sandcell_owned_entry_t of{};
    of.size = sizeof of;
    list.reserve(sandcell_owned_count(owned.get()));
    for (std::size_t i = 0; sandcell_owned_get(owned.get(), i, &of) == 0; i++)
        list.push_back({static_cast<Entry::Kind>(of.kind), of.path, of.bytes, of.mode, of.host_uid, of.host_gid, known(of.uid),
                        known(of.gid)});
    return list;
}

/// Copies it as the caller's own; how many devices, pipes and sockets have no copy.
inline std::size_t copy_out(const std::string &tree, const std::string &copy)
{
    std::size_t left_out = 0;
    detail::call(sandcell_owned_copy_out, tree.c_str(), copy.c_str(), &left_out);
    return left_out;
}

/// Makes the caller the owner of everything in it.
inline void reclaim(const std::string &tree) { detail::call(sandcell_owned_reclaim, tree.c_str()); }
/// Removes it with everything in it.
inline void remove(const std::string &tree) { detail::call(sandcell_owned_remove, tree.c_str()); }

} // namespace owned

/// Version of the library; SANDCELL_VERSION is that of the header.
inline std::string_view version() noexcept { return sandcell_version(); }
/// The named sets of system calls, as JSON.
inline std::string seccomp_sets_json() { return detail::text(sandcell_seccomp_sets_json); }
/// What this host allows, as JSON.
inline std::string doctor_json() { return detail::text(sandcell_doctor_json); }
/// See sandcell_adopt_cgroup.
inline std::string adopt_cgroup() { return detail::text(sandcell_adopt_cgroup); }

} // namespace sandcell

#ifdef SANDCELL_IMAGES
#include "sandcell_images.hpp"
#endif

#endif /* SANDCELL_HPP */
