/*
 * Methods of sandcell::Policy for options that have one value; sandcell.hpp includes this. Made from the options table by
 * sandbox/tests/options: change sandbox/src/policy/options/table.rs instead.
 */
#ifndef SANDCELL_OPTIONS_HPP
#define SANDCELL_OPTIONS_HPP

#include <chrono>
#include <cstdint>
#include <string>

#include "sandcell.h"

namespace sandcell::detail {

/// The part of `Policy` that is made from the table.
template <typename Policy>
class Options {
public:
    /// Where its UID on the host comes from; auto: a leased sub-UID if available, else the caller's; disjoint: a leased
    /// sub-UID or an error; shared: the caller's. One of auto, disjoint, shared. Default: auto.
    Policy &host_ids(const std::string &text) { return sandcell_policy_set_host_ids(handle(), c_str(text)), self(); }
    /// What keeps programs apart from the host: `landlock` is for hosts that forbid user namespaces, and weaker. One of
    /// namespaces, landlock. Default: namespaces.
    Policy &isolation(const std::string &text) { return sandcell_policy_set_isolation(handle(), c_str(text)), self(); }
    /// The network; `loopback` is a private one, `user` the public internet through a relay that keeps rules. One of
    /// none, loopback, host, user. Default: loopback.
    Policy &network(const std::string &text) { return sandcell_policy_set_network(handle(), c_str(text)), self(); }
    /// Landlock behind the namespaces: what the kernel can do, every rule or an error, or not at all. One of default,
    /// required, off. Default: default.
    Policy &landlock(const std::string &text) { return sandcell_policy_set_landlock(handle(), c_str(text)), self(); }
    /// Processes still alive when the program ends are killed, killed and listed, or make the run a failure. One of kill,
    /// report, fail. Default: kill.
    Policy &leftovers(const std::string &text) { return sandcell_policy_set_leftovers(handle(), c_str(text)), self(); }
    /// Memory of all processes together, page cache included; more is an out-of-memory kill. At least 4096. Default:
    /// none.
    Policy &memory(std::uint64_t bytes) { return sandcell_policy_set_memory(handle(), bytes), self(); }
    /// Memory above which the kernel slows the sandbox down to reclaim (cgroup v2). At least 4096. Default: none.
    Policy &memory_high(std::uint64_t bytes) { return sandcell_policy_set_memory_high(handle(), bytes), self(); }
    /// Swap on top of the memory; 0 by default where memory is limited. Default: none.
    Policy &swap(std::uint64_t bytes) { return sandcell_policy_set_swap(handle(), bytes), self(); }
    /// Processes and threads. 1 to 4194303. Default: none.
    Policy &pids(std::uint64_t count) { return sandcell_policy_set_pids(handle(), count), self(); }
    /// CPUs, such as 0.5. 0.01 to 1000000. Default: none.
    Policy &cpus(double number) { return sandcell_policy_set_cpus(handle(), number), self(); }
    /// Share of the CPU against others, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
    Policy &cpu_weight(std::uint32_t count) { return sandcell_policy_set_cpu_weight(handle(), count), self(); }
    /// CPUs that may be used, such as 0-3,8. Default: none.
    Policy &cpuset(const std::string &text) { return sandcell_policy_set_cpuset(handle(), c_str(text)), self(); }
    /// CPU time of all processes together. Default: none.
    template <typename Rep, typename Period>
    Policy &cpu_time(std::chrono::duration<Rep, Period> time) { return sandcell_policy_set_cpu_time_ms(handle(), milliseconds(time)), self(); }
    /// What the throw-away upper, /tmp, the home and the other private directories may hold together. Default: none.
    Policy &disk(std::uint64_t bytes) { return sandcell_policy_set_disk(handle(), bytes), self(); }
    /// Files and directories that they may hold together. Default: none.
    Policy &inodes(std::uint64_t count) { return sandcell_policy_set_inodes(handle(), count), self(); }
    /// Share of block input and output, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
    Policy &io_weight(std::uint32_t count) { return sandcell_policy_set_io_weight(handle(), count), self(); }
    /// A cgroup v2 directory to work beneath, instead of the one that is found. Default: none.
    Policy &cgroup(const std::string &path) { return sandcell_policy_set_cgroup(handle(), c_str(path)), self(); }
    /// How many ids the program has: 65536 for a whole distribution, with `cap_add` for what changes user. 1 to
    /// 4294967295. Default: 1.
    Policy &id_count(std::uint32_t count) { return sandcell_policy_set_id_count(handle(), count), self(); }
    /// Map the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own.
    /// Default: false.
    Policy &keep_id(bool enable = true) { return sandcell_policy_set_keep_id(handle(), enable), self(); }
    [[deprecated("use keep_id")]]
    Policy &keep_caller(bool enable = true) { return sandcell_policy_set_keep_caller(handle(), enable), self(); }
    /// Give what other ids than the caller's own have made in writable binds to the caller when a run has ended. Default:
    /// false.
    Policy &reclaim(bool enable = true) { return sandcell_policy_set_reclaim(handle(), enable), self(); }
    /// How long to wait for free ids. Default: not at all.
    template <typename Rep, typename Period>
    Policy &wait_for_ids(std::chrono::duration<Rep, Period> time) { return sandcell_policy_set_wait_for_ids_ms(handle(), milliseconds(time)), self(); }
    /// The program is the init of a system, PID 1 of its own: systemd, OpenRC, busybox; implies root, 65536 ids, a cgroup
    /// and a grace of 30s. Default: false.
    Policy &init(bool enable = true) { return sandcell_policy_set_init(handle(), enable), self(); }
    /// The host's name inside. Default: cell- and 6 random characters.
    Policy &hostname(const std::string &text) { return sandcell_policy_set_hostname(handle(), c_str(text)), self(); }
    /// Wall-clock time that a program may take; then SIGTERM, `grace`, SIGKILL to all of it. Default: none.
    template <typename Rep, typename Period>
    Policy &timeout(std::chrono::duration<Rep, Period> time) { return sandcell_policy_set_timeout_ms(handle(), milliseconds(time)), self(); }
    /// Between SIGTERM and SIGKILL. Default: 2s.
    template <typename Rep, typename Period>
    Policy &grace(std::chrono::duration<Rep, Period> time) { return sandcell_policy_set_grace_ms(handle(), milliseconds(time)), self(); }
    /// What a program may write to standard output and error together before it is ended. Default: none.
    Policy &output_limit(std::uint64_t bytes) { return sandcell_policy_set_output_limit(handle(), bytes), self(); }
    /// Publish the ports that the image exposes, each at a free port of the host's 127.0.0.1. Default: false.
    Policy &publish_all(bool enable = true) { return sandcell_policy_set_publish_all(handle(), enable), self(); }
    /// Pass the caller's environment on. Default: false.
    Policy &keep_env(bool enable = true) { return sandcell_policy_set_keep_env(handle(), enable), self(); }
    /// Working directory inside. Default: the home, or the image's.
    Policy &chdir(const std::string &path) { return sandcell_policy_set_chdir(handle(), c_str(path)), self(); }
    /// File mode creation mask. 000 to 777. Default: 022.
    Policy &umask(std::uint32_t mode) { return sandcell_policy_set_umask(handle(), mode), self(); }

private:
    Policy &self() noexcept { return static_cast<Policy &>(*this); }
    sandcell_policy_t *handle() noexcept { return self().get(); }
};

} // namespace sandcell::detail

#endif /* SANDCELL_OPTIONS_HPP */
