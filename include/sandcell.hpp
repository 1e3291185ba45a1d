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

/// Milliseconds, rounded up: what is asked for is waited for. What is too long to be counted, `hours::max()` or an infinite
/// time, is SANDCELL_UNLIMITED.
template <typename Rep, typename Period>
std::uint64_t milliseconds(std::chrono::duration<Rep, Period> time)
{
    using Exact = std::chrono::milliseconds;
    const auto about = std::chrono::duration<long double, std::milli>(time).count();
    if (!(about > 0)) // also what is no number
        return 0;
    if (time == time.max() || about >= 9.0e18L) // near the last that ceil can count
        return SANDCELL_UNLIMITED;
    return static_cast<std::uint64_t>(std::chrono::ceil<Exact>(time).count());
}

/// The same for a wait, where a negative number has no end.
template <typename Rep, typename Period>
std::int64_t wait_milliseconds(std::chrono::duration<Rep, Period> time)
{
    const std::uint64_t count = milliseconds(time);
    return count > static_cast<std::uint64_t>(INT64_MAX) ? -1 : static_cast<std::int64_t>(count);
}

/// A text for C. One with a NUL inside is refused like any other mistake in its place, never cut off.
inline const char *c_str(const std::string &text) noexcept
{
    return text.find('\0') == std::string::npos ? text.c_str() : sandcell_text_with_nul();
}

/// A list for C, with its NULL.
inline std::vector<const char *> c_list(const std::vector<std::string> &words)
{
    std::vector<const char *> list;
    list.reserve(words.size() + 1);
    for (const std::string &word : words)
        list.push_back(c_str(word));
    list.push_back(nullptr);
    return list;
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
    std::chrono::nanoseconds wall;
    std::optional<std::chrono::nanoseconds> user, system;
    std::optional<std::uint64_t> memory_peak_bytes, pids_peak, output_bytes, io_read_bytes, io_write_bytes;
    std::optional<std::chrono::nanoseconds> throttled;
    std::optional<std::uint64_t> oom_kills, pids_refused;
    std::optional<double> memory_pressure, cpu_pressure, io_pressure;

    explicit Usage(const sandcell_usage_t &usage)
        : wall(static_cast<std::int64_t>(usage.wall_ns)), user(time(usage.user_ns)), system(time(usage.system_ns)),
          memory_peak_bytes(known(usage.memory_peak_bytes)), pids_peak(known(usage.pids_peak)),
          output_bytes(known(usage.output_bytes)), io_read_bytes(known(usage.io_read_bytes)),
          io_write_bytes(known(usage.io_write_bytes)), throttled(time(usage.throttled_ns)),
          oom_kills(known(usage.oom_kills)), pids_refused(known(usage.pids_refused)), memory_pressure(share(usage.memory_pressure)),
          cpu_pressure(share(usage.cpu_pressure)), io_pressure(share(usage.io_pressure))
    {
    }

private:
    static std::optional<std::chrono::nanoseconds> time(std::uint64_t ns)
    {
        if (ns == SANDCELL_UNKNOWN)
            return std::nullopt;
        return std::chrono::nanoseconds(static_cast<std::int64_t>(ns));
    }
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

/// How a program ended. A later version may have more.
enum class Outcome {
    exited = SANDCELL_OUTCOME_EXITED,
    signaled = SANDCELL_OUTCOME_SIGNALED,
    timed_out = SANDCELL_OUTCOME_TIMED_OUT,
    out_of_memory = SANDCELL_OUTCOME_OUT_OF_MEMORY,
    output_limit = SANDCELL_OUTCOME_OUTPUT_LIMIT,
    syscall_denied = SANDCELL_OUTCOME_SYSCALL_DENIED,
    killed = SANDCELL_OUTCOME_KILLED
};

/// What came of a run. Views into it live as long as it does.
class Result {
public:
    explicit Result(sandcell_result_t *result) noexcept : result_(result) {}

    /// How it ended, for a `switch`.
    Outcome ended() const noexcept { return static_cast<Outcome>(sandcell_result_outcome_number(result_.get())); }

    /// `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or `killed`.
    std::string_view outcome() const noexcept { return sandcell_result_outcome(result_.get()); }
    /// Which time ran out, with `timed_out`: `wall` or `cpu`; empty otherwise.
    std::string_view timed_out_of() const noexcept { return sandcell_result_timed_out_of(result_.get()); }
    /// The status that a shell would show.
    int exit_code() const noexcept { return sandcell_result_exit_code(result_.get()); }
    /// The signal that ended the program; 0 where it was none.
    int signal() const noexcept { return sandcell_result_signal(result_.get()); }
    /// The system call that was denied; empty where none was.
    std::string_view syscall() const noexcept { return sandcell_result_syscall(result_.get()); }
    /// Whether the program ended by itself with status 0.
    bool success() const noexcept { return ended() == Outcome::exited && exit_code() == 0; }
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
    /// That list is not complete: it would be longer than 40 MiB, or something moved directories meanwhile.
    bool changes_truncated() const noexcept { return sandcell_result_changes_truncated(result_.get()); }
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

/// A program to run: arguments, environment, streams. Setters chain, on a temporary, too: `auto command =
/// Command{"/bin/cat"}.input("hello")`.
class Command {
public:
    Command(std::initializer_list<std::string> argv) : Command(std::vector<std::string>(argv)) {}
    explicit Command(const std::vector<std::string> &argv)
    {
        command_.reset(sandcell_command_new(detail::c_list(argv).data()));
    }

    explicit Command(sandcell_command_t *command) noexcept : command_(command) {}

    Command &arg(const std::string &arg) & { return sandcell_command_add_arg(get(), detail::c_str(arg)), *this; }
    Command &&arg(const std::string &arg) && { return std::move(this->arg(arg)); }
    Command &arg0(const std::string &name) & { return sandcell_command_set_arg0(get(), detail::c_str(name)), *this; }
    Command &&arg0(const std::string &name) && { return std::move(this->arg0(name)); }
    Command &env(const std::string &key, const std::string &value) &
    {
        return sandcell_command_set_env(get(), detail::c_str(key), detail::c_str(value)), *this;
    }
    Command &&env(const std::string &key, const std::string &value) && { return std::move(this->env(key, value)); }
    Command &env_remove(const std::string &key) & { return sandcell_command_set_env(get(), detail::c_str(key), nullptr), *this; }
    Command &&env_remove(const std::string &key) && { return std::move(this->env_remove(key)); }
    Command &env_clear() & { return sandcell_command_clear_env(get()), *this; }
    Command &&env_clear() && { return std::move(this->env_clear()); }
    Command &chdir(const std::string &dir) & { return sandcell_command_set_chdir(get(), detail::c_str(dir)), *this; }
    Command &&chdir(const std::string &dir) && { return std::move(this->chdir(dir)); }
    /// `inherit`, `null` or `pipe`; or a descriptor, which stays yours.
    Command &in(const char *stdio) & { return sandcell_command_set_stdin(get(), stdio), *this; }
    Command &&in(const char *stdio) && { return std::move(this->in(stdio)); }
    Command &in(int fd) & { return sandcell_command_set_stdin_fd(get(), fd), *this; }
    Command &&in(int fd) && { return std::move(this->in(fd)); }
    Command &out(const char *stdio) & { return sandcell_command_set_stdout(get(), stdio), *this; }
    Command &&out(const char *stdio) && { return std::move(this->out(stdio)); }
    Command &out(int fd) & { return sandcell_command_set_stdout_fd(get(), fd), *this; }
    Command &&out(int fd) && { return std::move(this->out(fd)); }
    Command &err(const char *stdio) & { return sandcell_command_set_stderr(get(), stdio), *this; }
    Command &&err(const char *stdio) && { return std::move(this->err(stdio)); }
    Command &err(int fd) & { return sandcell_command_set_stderr_fd(get(), fd), *this; }
    Command &&err(int fd) && { return std::move(this->err(fd)); }
    /// Passes a descriptor on as `number` inside.
    Command &pass_fd(int fd, int number) & { return sandcell_command_add_fd(get(), fd, number), *this; }
    Command &&pass_fd(int fd, int number) && { return std::move(this->pass_fd(fd, number)); }
    /// Bytes for standard input.
    Command &input(std::string_view bytes) & { return sandcell_command_set_input(get(), bytes.data(), bytes.size()), *this; }
    Command &&input(std::string_view bytes) && { return std::move(this->input(bytes)); }
#if __cplusplus >= 202002L
    Command &input(std::span<const std::byte> bytes) &
    {
        return input(std::string_view(reinterpret_cast<const char *>(bytes.data()), bytes.size()));
    }
    Command &&input(std::span<const std::byte> bytes) && { return std::move(this->input(bytes)); }
#endif
    template <typename Rep, typename Period>
    Command &timeout(std::chrono::duration<Rep, Period> time) &
    {
        return sandcell_command_set_timeout_ms(get(), detail::milliseconds(time)), *this;
    }
    template <typename Rep, typename Period>
    Command &&timeout(std::chrono::duration<Rep, Period> time) && { return std::move(this->timeout(time)); }
    Command &count_output(bool count = true) & { return sandcell_command_set_count_output(get(), count), *this; }
    Command &&count_output(bool count = true) && { return std::move(this->count_output(count)); }
    Command &track_changes(bool track = true) & { return sandcell_command_set_track_changes(get(), track), *this; }
    Command &&track_changes(bool track = true) && { return std::move(this->track_changes(track)); }
    /// A terminal of the sandbox's own: the streams that nobody has set are it.
    Command &terminal(std::uint16_t rows, std::uint16_t columns) &
    {
        return sandcell_command_set_terminal(get(), rows, columns), *this;
    }
    Command &&terminal(std::uint16_t rows, std::uint16_t columns) && { return std::move(this->terminal(rows, columns)); }
    Command &learn(bool learn = true) & { return sandcell_command_set_learn(get(), learn), *this; }
    Command &&learn(bool learn = true) && { return std::move(this->learn(learn)); }

    sandcell_command_t *get() const noexcept { return command_.get(); }

private:
    detail::Handle<sandcell_command_t, sandcell_command_free> command_;
};

/// The other end of a program's terminal. Destroying it hangs up.
class Terminal {
public:
    explicit Terminal(Descriptor fd) noexcept : fd_(std::move(fd)) {}

    void resize(std::uint16_t rows, std::uint16_t columns) const
    {
        detail::call(sandcell_terminal_resize, fd_.get(), rows, columns);
    }
    /// What the program has shown: empty when nobody has the terminal any more.
    std::string read(std::size_t most = 65536) const { return read_within(most, -1).value_or(std::string()); }
    /// Nothing where none came within this time.
    template <typename Rep, typename Period>
    std::optional<std::string> read_for(std::chrono::duration<Rep, Period> time, std::size_t most = 65536) const
    {
        return read_within(most, detail::wait_milliseconds(time));
    }
    /// Types all of it.
    void write(std::string_view bytes) const { write_within(bytes, -1); }
    /// How many bytes the program took within this time.
    template <typename Rep, typename Period>
    std::size_t write_for(std::string_view bytes, std::chrono::duration<Rep, Period> time) const
    {
        return write_within(bytes, detail::wait_milliseconds(time));
    }
    /// For poll(2) and the like; O_NONBLOCK is set.
    int get() const noexcept { return fd_.get(); }
    explicit operator bool() const noexcept { return fd_.get() >= 0; }

private:
    std::optional<std::string> read_within(std::size_t most, std::int64_t timeout) const
    {
        std::string bytes(most, '\0');
        std::int64_t count = -1;
        detail::call(sandcell_terminal_read, fd_.get(), bytes.data(), bytes.size(), timeout, &count);
        if (count < 0) {
            return std::nullopt;
        }
        bytes.resize(static_cast<std::size_t>(count));
        return bytes;
    }
    std::size_t write_within(std::string_view bytes, std::int64_t timeout) const
    {
        std::int64_t count = 0;
        detail::call(sandcell_terminal_write, fd_.get(), bytes.data(), bytes.size(), timeout, &count);
        return static_cast<std::size_t>(count);
    }

    Descriptor fd_;
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
    /// The same process as the caller numbers it; 0 where it has ended.
    std::uint32_t host_id() const noexcept { return sandcell_child_host_id(child_.get()); }
    /// The port of the host at which this port is published; 0 where it is not.
    std::uint16_t host_port(std::uint16_t cell_port, bool udp = false) const noexcept
    {
        return sandcell_child_host_port(child_.get(), cell_port, udp);
    }
    /// Our ends of the pipes; empty where there are none (any more).
    Descriptor take_in() { return Descriptor(sandcell_child_take_stdin(child_.get())); }
    Descriptor take_out() { return Descriptor(sandcell_child_take_stdout(child_.get())); }
    Descriptor take_err() { return Descriptor(sandcell_child_take_stderr(child_.get())); }
    /// The other end of its terminal; false where there is none (any more).
    Terminal take_terminal() { return Terminal(Descriptor(sandcell_child_take_terminal(child_.get()))); }
    Result wait()
    {
        return Result(detail::make<sandcell_result_t>(sandcell_child_wait, child_.get(), std::int64_t{-1}));
    }
    /// Empty where it still runs after this time.
    template <typename Rep, typename Period>
    std::optional<Result> wait_for(std::chrono::duration<Rep, Period> time)
    {
        return waited(sandcell_child_wait, detail::wait_milliseconds(time));
    }
    template <typename Clock, typename Duration>
    std::optional<Result> wait_until(std::chrono::time_point<Clock, Duration> time)
    {
        return wait_for(until(time));
    }
    /// Closes our end of standard input, reads those outputs that are pipes, and waits.
    Result wait_output()
    {
        return Result(detail::make<sandcell_result_t>(sandcell_child_wait_output, child_.get(), std::int64_t{-1}));
    }
    /// Empty where it still runs after this time; what was read by then is in a later answer.
    template <typename Rep, typename Period>
    std::optional<Result> wait_output_for(std::chrono::duration<Rep, Period> time)
    {
        return waited(sandcell_child_wait_output, detail::wait_milliseconds(time));
    }
    template <typename Clock, typename Duration>
    std::optional<Result> wait_output_until(std::chrono::time_point<Clock, Duration> time)
    {
        return wait_output_for(until(time));
    }
    void signal(int number) const { detail::call(sandcell_child_signal, child_.get(), number); }
    /// Sends a signal to the program and to what it started in its process group, as a terminal does for Ctrl-C.
    void signal_group(int number) const { detail::call(sandcell_child_signal_group, child_.get(), number); }
    void kill() const { detail::call(sandcell_child_kill, child_.get()); }
    std::string report_json() const { return detail::text(sandcell_child_report_json, child_.get()); }

    sandcell_child_t *get() const noexcept { return child_.get(); }

private:
    template <typename Wait>
    std::optional<Result> waited(Wait wait, std::int64_t timeout)
    {
        auto *result = detail::make<sandcell_result_t>(wait, child_.get(), timeout);
        return result == nullptr ? std::nullopt : std::optional<Result>(Result(result));
    }
    template <typename Clock, typename Duration>
    static auto until(std::chrono::time_point<Clock, Duration> time)
    {
        const auto now = Clock::now();
        using Left = decltype(time - now);
        return time <= now ? Left::zero() : time - now; // the earliest time has no distance that can be counted
    }

    detail::Handle<sandcell_child_t, sandcell_child_free> child_;
};

/// The way into a cell for one process that the caller forks: see sandcell_cell_entry.
class Entry {
public:
    explicit Entry(sandcell_entry_t *entry) noexcept : entry_(entry) {}

    Entry &chdir(const std::string &dir) { return detail::call(sandcell_entry_chdir, get(), detail::c_str(dir)), *this; }
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
    /// The port of the host at which this port is published; 0 where it is not.
    std::uint16_t host_port(std::uint16_t cell_port, bool udp = false) const noexcept
    {
        return sandcell_cell_host_port(cell_.get(), cell_port, udp);
    }
    void freeze() const { detail::call(sandcell_cell_freeze, cell_.get()); }
    void thaw() const { detail::call(sandcell_cell_thaw, cell_.get()); }
    /// Changes the limits that `limits` names; the others stay.
    void set_limits(const Policy &limits) const;
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
    void kill() const { detail::call(sandcell_cell_kill, cell_.get()); }

    sandcell_cell_t *get() const noexcept { return cell_.get(); }

private:
    detail::Handle<sandcell_cell_t, sandcell_cell_free> cell_;
};

/// What a pool has done so far.
struct PoolStats {
    std::uint64_t hits;   ///< Commands that took a sandbox that waited.
    std::uint64_t misses; ///< Commands for which none was there.
    std::size_t waiting;  ///< Sandboxes that wait now.
};

/// Sandboxes of one policy that are built ahead, each for one program.
class Pool {
public:
    /// Builds `size` sandboxes, and keeps as many waiting.
    Pool(const Policy &policy, std::size_t size);

    Result run(const Command &command) const
    {
        return Result(detail::make<sandcell_result_t>(sandcell_pool_run, pool_.get(), command.get()));
    }
    Child spawn(const Command &command) const
    {
        return Child(detail::make<sandcell_child_t>(sandcell_pool_spawn, pool_.get(), command.get()));
    }
    PoolStats stats() const
    {
        PoolStats stats{};
        detail::call(sandcell_pool_stats, pool_.get(), &stats.hits, &stats.misses, &stats.waiting);
        return stats;
    }

    sandcell_pool_t *get() const noexcept { return pool_.get(); }

private:
    detail::Handle<sandcell_pool_t, sandcell_pool_free> pool_;
};

/// A line of a log, or a part of one.
struct LogLine {
    std::uint64_t offset;  ///< Where it begins in the log.
    std::uint64_t next;    ///< Where the next one does: Log::seek takes it.
    std::uint64_t time_ns; ///< Nanoseconds since 1970.
    int stream;            ///< 1 for standard output, 2 for standard error.
    bool partial;          ///< Whether the line goes on in the next part of the same stream.
    std::string text;      ///< What the program wrote, without the line's end.
};

/// Reads the log of a named cell: for one thread at a time.
class Log {
public:
    explicit Log(sandcell_log_t *log) noexcept : log_(log) {}

    void seek(std::uint64_t offset) noexcept { sandcell_log_seek(log_.get(), offset); }
    /// The next line, for which it waits no longer than that; empty where none has come, or none will.
    std::optional<LogLine> next(std::chrono::milliseconds timeout = std::chrono::milliseconds(0))
    {
        sandcell_log_record_t record{};
        record.size = sizeof record;
        detail::call(sandcell_log_next, log_.get(), detail::milliseconds(timeout), &record);
        if (record.stream == 0)
            return std::nullopt;
        return LogLine{record.offset, record.next, record.time_ns, record.stream, record.partial != 0,
                       std::string(record.text, record.length)};
    }
    sandcell_log_t *get() const noexcept { return log_.get(); }

private:
    detail::Handle<sandcell_log_t, sandcell_log_free> log_;
};

/// A cell with a name, which outlives whoever started it. Destroying this ends nothing.
class NamedCell {
public:
    explicit NamedCell(sandcell_named_t *named) noexcept : named_(named) {}

    /// The cell of this name, of the calling user.
    static NamedCell find(const std::string &name)
    {
        return NamedCell(detail::make<sandcell_named_t>(sandcell_named_find, detail::c_str(name)));
    }
    /// What is known of all cells of the calling user, as a JSON array.
    static std::string list_json() { return detail::text(sandcell_named_list_json); }

    std::string info_json() const { return detail::text(sandcell_named_info_json, named_.get()); }
    /// The live cell: Cell::kill ends it for everybody, destroying it does not.
    Cell cell() const { return Cell(detail::make<sandcell_cell_t>(sandcell_named_cell, named_.get())); }
    void stop(std::chrono::milliseconds grace) const
    {
        detail::call(sandcell_named_stop, named_.get(), detail::milliseconds(grace));
    }
    void kill() const { detail::call(sandcell_named_kill, named_.get()); }
    void signal(int number) const { detail::call(sandcell_named_signal, named_.get(), number); }
    void pause() const { detail::call(sandcell_named_pause, named_.get()); }
    void resume() const { detail::call(sandcell_named_resume, named_.get()); }
    /// What came of it; empty while it lives.
    std::optional<Result> wait(std::chrono::milliseconds timeout) const
    {
        auto result = detail::make<sandcell_result_t>(sandcell_named_wait, named_.get(),
                                                      detail::milliseconds(timeout));
        return result ? std::optional<Result>(Result(result)) : std::nullopt;
    }
    /// Waits for its end.
    Result wait() const
    {
        return Result(detail::make<sandcell_result_t>(sandcell_named_wait, named_.get(), SANDCELL_UNLIMITED));
    }
    void write(std::string_view data) const
    {
        detail::call(sandcell_named_write, named_.get(), data.data(), data.size());
    }
    void close_stdin() const { detail::call(sandcell_named_close_stdin, named_.get()); }
    void remove() const { detail::call(sandcell_named_remove, named_.get()); }
    Log log() const { return Log(detail::make<sandcell_log_t>(sandcell_named_log, named_.get())); }

    sandcell_named_t *get() const noexcept { return named_.get(); }

private:
    detail::Handle<sandcell_named_t, sandcell_named_free> named_;
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

} // namespace sandcell

#include "sandcell_options.hpp"

namespace sandcell {

/// What a sandbox is to be like. Sizes are bytes; words are those of sandcell.h. Options of one value are in
/// sandcell_options.hpp.
class Policy : public detail::Options<Policy> {
public:
    Policy() : policy_(sandcell_policy_new()) {}

    /// Any option by its name and text, as the program `sandcell` takes them: docs/options.md.
    Policy &set(const std::string &option, const std::string &text)
    {
        return sandcell_policy_set(get(), detail::c_str(option), detail::c_str(text)), *this;
    }

    Policy &root_host() { return sandcell_policy_set_root_host(get()), *this; }
    Policy &root_empty() { return sandcell_policy_set_root_empty(get()), *this; }
    Policy &root_dir(const std::string &dir) { return sandcell_policy_set_root_dir(get(), detail::c_str(dir)), *this; }
#ifdef SANDCELL_IMAGES
    /// An image of the store, by its name or id.
    Policy &root_image(const std::string &image) { return sandcell_policy_set_root_image(get(), detail::c_str(image)), *this; }
    /// The store of images and volumes, instead of the user's own.
    Policy &store(const std::string &dir) { return sandcell_policy_set_store(get(), detail::c_str(dir)), *this; }
    /// A named directory of the store that outlives runs.
    Policy &volume(const std::string &name, const std::string &dest, bool writable = true)
    {
        return sandcell_policy_add_volume(get(), detail::c_str(name), detail::c_str(dest), writable), *this;
    }
#endif
    Policy &layer(const std::string &dir) { return sandcell_policy_add_layer(get(), detail::c_str(dir)), *this; }
    Policy &upper_tmpfs() { return sandcell_policy_set_upper_tmpfs(get()), *this; }
    Policy &upper_dir(const std::string &dir) { return sandcell_policy_set_upper_dir(get(), detail::c_str(dir)), *this; }
    Policy &ro(const std::string &path) { return sandcell_policy_add_ro(get(), detail::c_str(path), nullptr), *this; }
    Policy &ro(const std::string &source, const std::string &dest)
    {
        return sandcell_policy_add_ro(get(), detail::c_str(source), detail::c_str(dest)), *this;
    }
    Policy &rw(const std::string &path) { return sandcell_policy_add_rw(get(), detail::c_str(path), nullptr), *this; }
    Policy &rw(const std::string &source, const std::string &dest)
    {
        return sandcell_policy_add_rw(get(), detail::c_str(source), detail::c_str(dest)), *this;
    }
    Policy &allow_host(const std::string &rule)
    {
        return sandcell_policy_add_allow_host(get(), detail::c_str(rule)), *this;
    }
    Policy &deny_host(const std::string &rule)
    {
        return sandcell_policy_add_deny_host(get(), detail::c_str(rule)), *this;
    }
    /// Shows a device of the host beneath /dev: "/dev/fuse", "/dev/sda:ro", "/dev/ttyUSB0:/dev/modem".
    Policy &device(const std::string &device) { return sandcell_policy_add_device(get(), detail::c_str(device)), *this; }
    /// Shows one Unix socket of the host: "PATH" or "PATH:DEST".
    Policy &socket(const std::string &socket) { return sandcell_policy_add_socket(get(), detail::c_str(socket)), *this; }
    /// Lets programs have what they only get where it is asked for: "ptrace", "nested" or "engine-socket".
    Policy &allow(const std::string &what) { return sandcell_policy_add_allow(get(), detail::c_str(what)), *this; }

    /// Publishes a port on the host: "8080:80"; "0:80" at one that is free, which host_port of a child or cell tells.
    Policy &publish(const std::string &rule) { return sandcell_policy_add_publish(get(), detail::c_str(rule)), *this; }

    /// Lets a port of the host's own 127.0.0.1 be reached, as host.containers.internal.
    Policy &host_port(const std::string &rule) { return sandcell_policy_add_host_port(get(), detail::c_str(rule)), *this; }

    /// Has connections go by a proxy: "http://HOST:PORT" or "socks5://HOST:PORT".
    Policy &upstream_proxy(const std::string &url)
    {
        return sandcell_policy_set_upstream_proxy(get(), detail::c_str(url)), *this;
    }
    Policy &allow_net(const std::string &rule) { return sandcell_policy_add_allow_net(get(), detail::c_str(rule)), *this; }
    Policy &deny_net(const std::string &rule) { return sandcell_policy_add_deny_net(get(), detail::c_str(rule)), *this; }
    Policy &tmpfs(const std::string &dest, std::uint64_t bytes = 0)
    {
        return sandcell_policy_add_tmpfs(get(), detail::c_str(dest), bytes), *this;
    }
    Policy &file(const std::string &dest, std::string_view content)
    {
        return sandcell_policy_add_file(get(), detail::c_str(dest), content.data(), content.size()), *this;
    }
    Policy &file(const std::string &dest, std::string_view content, std::uint32_t mode)
    {
        return sandcell_policy_add_file_mode(get(), detail::c_str(dest), content.data(), content.size(), mode), *this;
    }
#if __cplusplus >= 202002L
    Policy &file(const std::string &dest, std::span<const std::byte> content)
    {
        return file(dest, std::string_view(reinterpret_cast<const char *>(content.data()), content.size()));
    }
#endif

    Policy &user(const std::string &user) { return sandcell_policy_set_user(get(), detail::c_str(user)), *this; }
    Policy &seccomp(const std::string &filter) { return sandcell_policy_set_seccomp(get(), detail::c_str(filter)), *this; }
    Policy &seccomp_json(const std::string &json) { return sandcell_policy_set_seccomp_json(get(), detail::c_str(json)), *this; }
    Policy &seccomp_file(const std::string &file) { return sandcell_policy_set_seccomp_file(get(), detail::c_str(file)), *this; }
    /// Named sets of system calls on top of the filter that is set so far, and out of it.
    Policy &seccomp_with(const std::string &set) { return sandcell_policy_add_seccomp_set(get(), detail::c_str(set)), *this; }
    Policy &seccomp_without(const std::string &set) { return sandcell_policy_remove_seccomp_set(get(), detail::c_str(set)), *this; }
    Policy &cap_add(const std::string &name) { return sandcell_policy_add_cap(get(), detail::c_str(name)), *this; }

    /// Bytes and operations per second; 0 for no limit.
    Policy &io_max(const std::string &device, std::uint64_t read_bytes, std::uint64_t write_bytes,
                   std::uint64_t read_ops = 0, std::uint64_t write_ops = 0)
    {
        return sandcell_policy_add_io_max(get(), detail::c_str(device), read_bytes, write_bytes, read_ops, write_ops), *this;
    }
    Policy &rlimit(const std::string &name, std::uint64_t soft, std::uint64_t hard)
    {
        return sandcell_policy_add_rlimit(get(), detail::c_str(name), soft, hard), *this;
    }

    Policy &env(const std::string &key, const std::string &value)
    {
        return sandcell_policy_add_env(get(), detail::c_str(key), detail::c_str(value)), *this;
    }
    /// `all`, or an item of docs/options.md.
    Policy &best_effort(const std::string &item) { return sandcell_policy_add_best_effort(get(), detail::c_str(item)), *this; }

#ifdef SANDCELL_IMAGES
    /// The program that the image names, with these words, or with the image's own where there are none.
    Command image_command(const std::vector<std::string> &words = {}) const
    {
        const auto list = detail::c_list(words);
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
    /// Starts a cell with a name and without a main program. `flags`: SANDCELL_DETACH_ flags; 0: what is usual of the log.
    NamedCell detach(const std::string &name) const
    {
        const sandcell_command_t *none = nullptr;
        return NamedCell(detail::make<sandcell_named_t>(sandcell_detach, policy_.get(), detail::c_str(name), none,
                                                        std::uint64_t{0}, std::uint32_t{0}, std::uint64_t{0}));
    }
    /// The same with a main program, whose output is the log and with which the cell ends.
    NamedCell detach(const std::string &name, const Command &main, std::uint64_t flags = 0,
                     std::uint64_t log_max_size = 0, std::uint32_t log_files = 0) const
    {
        return NamedCell(detail::make<sandcell_named_t>(sandcell_detach, policy_.get(), detail::c_str(name), main.get(),
                                                        log_max_size, log_files, flags));
    }
    /// The filter in Docker's form.
    std::string seccomp_json() const { return detail::text(sandcell_policy_seccomp_json, policy_.get()); }
    /// The filter in words.
    std::string seccomp_text() const { return detail::text(sandcell_policy_seccomp_text, policy_.get()); }
    /// The filter as the kernel takes it.
    Bpf seccomp_bpf() const { return Bpf(detail::make<sandcell_bpf_t>(sandcell_policy_seccomp_bpf, policy_.get())); }
    /// The options that differ from the defaults, as JSON.
    std::string options_json() const { return detail::text(sandcell_policy_options_json, policy_.get()); }
    /// The steps that a run would take, as JSON.
    std::string explain_json() const { return detail::text(sandcell_explain_json, policy_.get()); }

    sandcell_policy_t *get() const noexcept { return policy_.get(); }

private:
    detail::Handle<sandcell_policy_t, sandcell_policy_free> policy_;
};

inline Pool::Pool(const Policy &policy, std::size_t size)
    : pool_(detail::make<sandcell_pool_t>(sandcell_pool_start, policy.get(), size))
{
}

inline void Cell::set_limits(const Policy &limits) const { detail::call(sandcell_cell_set_limits, cell_.get(), limits.get()); }

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
    detail::Handle<sandcell_owned_t, sandcell_owned_free> owned(detail::make<sandcell_owned_t>(sandcell_owned_list, detail::c_str(tree)));
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
    detail::call(sandcell_owned_copy_out, detail::c_str(tree), detail::c_str(copy), &left_out);
    return left_out;
}

/// Makes the caller the owner of everything in it.
inline void reclaim(const std::string &tree) { detail::call(sandcell_owned_reclaim, detail::c_str(tree)); }
/// Removes it with everything in it.
inline void remove(const std::string &tree) { detail::call(sandcell_owned_remove, detail::c_str(tree)); }

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
