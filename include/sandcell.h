/*
 * sandcell: a rootless sandbox for Linux as a call in your own process.
 *
 * Handles    Opaque. Each `_free` takes NULL; freeing twice, or using what was freed, is undefined. What was made with a
 *            handle goes on without it.
 * Errors     Functions that can fail return 0, or the SANDCELL_ERROR_ number of what went wrong, and put an error object
 *            into `*error`, which is yours to free; `error` may be NULL where only the number is wanted. On success
 *            `*error` is NULL. What was in `*error` and in the place for the answer before is overwritten, never freed;
 *            after an error that place holds NULL (-1 for a descriptor).
 *            No last error is kept anywhere, nothing is printed, and nothing here ends your process: a mistake in
 *            sandcell itself is the error SANDCELL_ERROR_INTERNAL.
 * Setters    What a setter refuses it remembers: every later run with that policy or command fails with that first
 *            mistake, so their numbers need not be looked at; so do builds and commits. A setter does nothing for a handle
 *            that is NULL. A setter of a command checks its value when it is called; what only the start can tell (whether a
 *            descriptor is open, a program is there) is checked then. A setter of a policy checks the form of its value
 *            when it is called; ranges, what does not go together, and what the host can do are checked when the policy is
 *            first used, after the mistakes of setters.
 * Times      Milliseconds. SANDCELL_UNLIMITED, and what is longer than any clock runs, is no limit.
 * Text       Goes in as bytes that end with a NUL (paths, arguments, variables) or UTF-8 (names, words), read during the
 *            call only. What comes out as `const char *` lives as long as its handle; what comes out through a
 *            `char **` is freed with sandcell_text_free.
 * NULL       An error of its own where something is needed; neutral (0, false, "") in functions that only read.
 * Descriptors  Passed in they are borrowed: they stay yours, and must be open, under the same number, whenever a program is
 *            started with them. Handed out they are yours to close, and CLOEXEC.
 * Threads    Children and cells may be used from any thread at any time, even while another thread waits. Errors, results,
 *            change lists, and policies and commands that nobody is changing may be read by several threads at once.
 *            `_free` is for the last user. Stores start threads that end with the call; so does a call on a thread that has
 *            less than 256 KiB of stack left, but for sandcell_entry_join and sandcell_entry_confine; nothing else starts any.
 *            No signal handler is set, no child of yours waited for.
 * Signals    A write beyond RLIMIT_FSIZE is an error (errno EFBIG) and raises no SIGXFSZ; to start a sandbox takes 1 MiB.
 * Fork       fork() is safe at any time, also while another thread is in a call. The child may call nothing here before
 *            execve() where the parent has threads (see fork(2)), and may never use or free handles of its parent: the
 *            sandboxes are the parent's.
 *            What is made for a fork, sandcell_entry_t, is the exception: its own functions, in a child with one thread.
 * Structs    Begin with their size, which you set. What the library writes it writes as far as that goes; what it reads
 *            (sandcell_load_options_t) may be shorter or longer than it knows, but where it is longer only with zeros.
 *            Flags have 64 bits; those that nobody knows are refused.
 * Images     What is about them is declared where the library has them, and SANDCELL_IMAGES is defined: ffi/install does so in
 *            the header that it installs.
 * Versions   Functions are never changed or taken away under the same SONAME; each has the symbol version of the release
 *            that it came with (SANDCELL_0, ...). New fields are added at the end of structs.
 */


#ifndef SANDCELL_H
#define SANDCELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SANDCELL_VERSION "0.1.0"

// What was asked for makes no sense; a NULL where none may be is this, too.
#define SANDCELL_ERROR_CONFIG 1

// This host cannot enforce what was asked for; the hint names the remedy.
#define SANDCELL_ERROR_UNSUPPORTED 2

// A step of building the sandbox failed. Nothing of it is left.
#define SANDCELL_ERROR_SETUP 3

// The program cannot be executed: the errno says why.
#define SANDCELL_ERROR_EXEC 4

// Talking with the program or the sandbox failed.
#define SANDCELL_ERROR_IO 5

// A mistake in sandcell itself.
#define SANDCELL_ERROR_INTERNAL 6

#if defined(SANDCELL_IMAGES)
// Pulls only: HTTP without TLS, so that whoever is on the way may read the image and the password. A registry on the
// loopback interface may speak it without being asked.
#define SANDCELL_LOAD_PLAIN_HTTP 1

// The call waits until the layers are on the disk.
#define SANDCELL_LOAD_DURABLE 2
#endif

// No limit: for sandcell_policy_add_rlimit, and for every time.
#define SANDCELL_UNLIMITED UINT64_MAX

// Keeps the main program's standard input, for sandcell_named_write.
#define SANDCELL_DETACH_KEEP_STDIN 1

// Starts the main program again when it has failed: any end but status 0.
#define SANDCELL_DETACH_RESTART_ON_FAILURE 2

// Starts the main program again whenever it has ended.
#define SANDCELL_DETACH_RESTART_ALWAYS 4

// It ended by itself: sandcell_result_exit_code.
#define SANDCELL_OUTCOME_EXITED 1

// A signal ended it: sandcell_result_signal.
#define SANDCELL_OUTCOME_SIGNALED 2

// It ran past its timeout and was ended.
#define SANDCELL_OUTCOME_TIMED_OUT 3

// The memory limit ended it, or a process of its tree.
#define SANDCELL_OUTCOME_OUT_OF_MEMORY 4

// It wrote more than the output limit and was ended.
#define SANDCELL_OUTCOME_OUTPUT_LIMIT 5

// The system call filter ended it: sandcell_result_syscall.
#define SANDCELL_OUTCOME_SYSCALL_DENIED 6

// The caller ended it.
#define SANDCELL_OUTCOME_KILLED 7

// A figure that nothing on this host counted. In a `double` the same bytes are a NaN.
#define SANDCELL_UNKNOWN UINT64_MAX

// The path is in none of the layers.
#define SANDCELL_CHANGE_ADDED 1

// It is in the layers with other content or attributes.
#define SANDCELL_CHANGE_MODIFIED 2

// It is in the layers and is gone.
#define SANDCELL_CHANGE_DELETED 3

// An ordinary file.
#define SANDCELL_OWNED_FILE 1

// A directory.
#define SANDCELL_OWNED_DIRECTORY 2

// A symbolic link.
#define SANDCELL_OWNED_SYMLINK 3

// A device (an overlay's whiteout is one), a pipe or a socket.
#define SANDCELL_OWNED_OTHER 4

// A filter as the kernel takes it. It never changes: any number of threads may read it at once.
typedef struct sandcell_bpf_t sandcell_bpf_t;

#if defined(SANDCELL_IMAGES)
// The steps of an image. To be set up by one thread.
typedef struct sandcell_build_t sandcell_build_t;
#endif

// A started sandbox in which many programs can be run. Any number of threads may use it at once.
typedef struct sandcell_cell_t sandcell_cell_t;

// The files that differ from the layers, sorted by path. It never changes: any number of threads may read it at once.
typedef struct sandcell_changes_t sandcell_changes_t;

// A program that runs. Any number of threads may use it at once; of two that wait, the second waits for the first.
typedef struct sandcell_child_t sandcell_child_t;

// A program to run: arguments, environment, streams. To be set up by one thread; then it can be run any number of
// times, by several threads at once.
typedef struct sandcell_command_t sandcell_command_t;

#if defined(SANDCELL_IMAGES)
// How to commit. To be set up by one thread.
typedef struct sandcell_commit_t sandcell_commit_t;
#endif

// What a process needs to enter a cell. It belongs to one thread, and to the children that are forked for it.
typedef struct sandcell_entry_t sandcell_entry_t;

// Why a call failed. It never changes: any number of threads may read it at once.
typedef struct sandcell_error_t sandcell_error_t;

#if defined(SANDCELL_IMAGES)
// An image that stays in the store, whoever wants to remove it, until this is freed. It never changes: any number of
// threads may read it at once.
typedef struct sandcell_image_t sandcell_image_t;
#endif

// Reads the log of a cell: for one thread at a time.
typedef struct sandcell_log_t sandcell_log_t;

// A cell with a name, of the calling user. It ends by sandcell_named_stop or sandcell_named_kill, or with its main program,
// and not with this handle or this process. Any number of threads may use it at once.
typedef struct sandcell_named_t sandcell_named_t;

// The files of a tree. It never changes: any number of threads may read it at once.
typedef struct sandcell_owned_t sandcell_owned_t;

// What a sandbox is to be like. To be set up by one thread; then any number of threads may run programs with it.
typedef struct sandcell_policy_t sandcell_policy_t;

// Sandboxes of one policy that are built ahead. Any number of threads may use it at once.
typedef struct sandcell_pool_t sandcell_pool_t;

// What came of a run. It never changes: any number of threads may read it at once.
typedef struct sandcell_result_t sandcell_result_t;

#if defined(SANDCELL_IMAGES)
// Ends loads, pulls and builds early. Any number of threads may use it at once; so may a signal handler.
typedef struct sandcell_stop_t sandcell_stop_t;

// A directory of images and volumes. Any number of threads and processes may use one at a time.
typedef struct sandcell_store_t sandcell_store_t;

// What was removed. Set `size` to `sizeof` before you pass it: as many bytes are written.
typedef struct {
  // sizeof(sandcell_pruned_t)
  size_t size;
  // Images.
  uint64_t images;
  // Layers that no image has any more.
  uint64_t layers;
  // Bytes of their files and blobs.
  uint64_t bytes;
} sandcell_pruned_t;

// Is told how many bytes of the layers have come, and how many there are in all: from threads of the library, one call at
// a time, before the function returns to which it was given. It may not throw, and calls nothing of sandcell's.
typedef void (*sandcell_progress_t)(void *data, uint64_t done, uint64_t total);

// How to load or pull. Set `size` to `sizeof` and what you do not need to zero, which is the default everywhere. A later version
// may have more at the end: what this library does not know of is refused where it is not zero.
typedef struct {
  // sizeof(sandcell_load_options_t)
  size_t size;
  // SANDCELL_LOAD_ bits; others are refused.
  uint64_t flags;
  // The image's name in the store, instead of the archive's or the registry's.
  const char *image_name;
  // Pulls only: the file with credentials, as Docker's config.json has them, instead of those that are looked for.
  const char *auth_file;
  // Pulls only, with `password`: who pulls, instead of what a file says.
  const char *user;
  // With `user`.
  const char *password;
  // Pulls only: certificates (PEM) of authorities that are trusted besides the system's.
  const char *ca_file;
  // Is told how far it is.
  sandcell_progress_t progress;
  // Passed to `progress`.
  void *progress_data;
  // Loads only: the date (RFC 3339) of an image that is made of a plain root file system, which has none otherwise.
  const char *created;
  // Ends it early.
  const sandcell_stop_t *stop;
  // The platform that is meant, such as `linux/arm64`, instead of this host's: to hand the image on, for it cannot run here.
  const char *platform;
} sandcell_load_options_t;

// Is told of a step that is about to be made: its number from 1 on, how many there are, its text as a Dockerfile has it, and
// whether its layer was made before. From the thread that builds; it may not throw, and calls nothing of sandcell's but
// sandcell_stop_now.
typedef void (*sandcell_build_progress_t)(void *data, size_t number, size_t total, const char *step, bool cached);
#endif

// What a run or a cell used. Set `size` to `sizeof` before you pass it: as many bytes are written, however many figures
// the library knows.
typedef struct {
  // sizeof(sandcell_usage_t)
  size_t size;
  // Nanoseconds from the start of the program to its end.
  uint64_t wall_ns;
  // CPU time in user mode, all processes, nanoseconds.
  uint64_t user_ns;
  // CPU time in the kernel, all processes, nanoseconds.
  uint64_t system_ns;
  // The most memory held at once: of the cgroup where there is one, otherwise of the largest process.
  uint64_t memory_peak_bytes;
  // The most processes and threads at once (cgroup only).
  uint64_t pids_peak;
  // Bytes written to standard output and error, where the library carried them.
  uint64_t output_bytes;
  // Bytes read from block devices (cgroup only).
  uint64_t io_read_bytes;
  // Bytes written to block devices (cgroup only).
  uint64_t io_write_bytes;
  // Nanoseconds that processes had to wait because of the CPU limit (cgroup only).
  uint64_t throttled_ns;
  // Processes killed for memory (cgroup only).
  uint64_t oom_kills;
  // Forks and threads refused because of the pids limit (cgroup only).
  uint64_t pids_refused;
  // Percent of the time in which some process waited for memory, the average over 10 s (cgroup v2 only).
  double memory_pressure;
  // The same for the CPU.
  double cpu_pressure;
  // The same for input and output.
  double io_pressure;
} sandcell_usage_t;

// A line of a log, or a part of one. Set `size` to `sizeof` before you pass it: as many bytes are written.
typedef struct {
  // sizeof(sandcell_log_record_t)
  size_t size;
  // Where it begins in the log.
  uint64_t offset;
  // Where the next one does: sandcell_log_seek takes it.
  uint64_t next;
  // When it was written: nanoseconds since 1970.
  uint64_t time_ns;
  // What the program wrote, without the line's end; it lives until the next call with the same log.
  const char *text;
  // How many bytes that is: they may be any.
  size_t length;
  // 1 for standard output, 2 for standard error; 0 where there is no line.
  int stream;
  // Whether the line goes on in the next part of the same stream: 0 or 1.
  int partial;
} sandcell_log_record_t;

// One file of a tree. Set `size` to `sizeof` before you pass it: as many bytes are written.
typedef struct {
  // sizeof(sandcell_owned_entry_t)
  size_t size;
  // Relative to the tree. It lives as long as the list.
  const char *path;
  // Bytes, as the file tells them.
  uint64_t bytes;
  // One of the SANDCELL_OWNED_ numbers.
  int kind;
  // Permission bits, with set-user-ID and its like.
  uint32_t mode;
  // The owner on the host.
  uint32_t host_uid;
  // The group on the host.
  uint32_t host_gid;
  // The owner inside; UINT32_MAX where no map is noted beside the tree, as it is for a kept upper of several ids.
  uint32_t uid;
  // The group inside, likewise.
  uint32_t gid;
} sandcell_owned_entry_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// One of the SANDCELL_ERROR_ numbers, which stay what they are; 0 for NULL.
int sandcell_error_kind(const sandcell_error_t *error);

// The system's error number, 0 where no system call failed.
int sandcell_error_errno(const sandcell_error_t *error);

// Stable name of the step that failed, such as `option` or `uid-map`. The text lives as long as the error; "" for NULL.
const char *sandcell_error_stage(const sandcell_error_t *error);

// The path, option, program or limit that it is about; may be empty.
const char *sandcell_error_subject(const sandcell_error_t *error);

// The whole story in one line: subject, what went wrong, the system's reason, the stage.
const char *sandcell_error_message(const sandcell_error_t *error);

// What to do about it; may be empty.
const char *sandcell_error_hint(const sandcell_error_t *error);

// The report of the run that failed, as one line of JSON in the form of sandcell_result_report_json; "" for
// SANDCELL_ERROR_INTERNAL.
const char *sandcell_error_report_json(const sandcell_error_t *error);

// Frees an error. NULL is fine.
void sandcell_error_free(sandcell_error_t *error);

// Makes a policy in which everything has its default: a read-only view of the host's system directories, private
// temporary directories, a random UID, a private loopback, no limits. NULL only where sandcell itself is broken.
sandcell_policy_t *sandcell_policy_new(void);

// Frees a policy; what was made with it goes on. NULL is fine.
void sandcell_policy_free(sandcell_policy_t *policy);

// Sets any option by its name and text, as the program `sandcell` takes them: `memory` and `64M`, `ro` and `/src:/code`,
// `timeout` and `30s`. docs/options.md lists them with their grammar. The functions below do the same with typed values.
int sandcell_policy_set(sandcell_policy_t *policy,
                        const char *option,
                        const char *text);

// The options that differ from the defaults, as a JSON object of lists of texts, to be freed with sandcell_text_free. Values of
// variables and contents of files are not shown.
int sandcell_policy_options_json(const sandcell_policy_t *policy,
                                 char **json,
                                 sandcell_error_t **error);

// Who the program is inside: `random` (the default), `root`, `caller`, or numbers as `UID` or `UID:GID`.
int sandcell_policy_set_user(sandcell_policy_t *policy, const char *user);

// `default` (the built-in allow-list) or `off`.
int sandcell_policy_set_seccomp(sandcell_policy_t *policy, const char *filter);

// A system call filter in the JSON form of Docker's profiles: the text itself.
int sandcell_policy_set_seccomp_json(sandcell_policy_t *policy, const char *json);

// The same from a file, which is read now.
int sandcell_policy_set_seccomp_file(sandcell_policy_t *policy, const char *file);

// Keeps a capability inside, such as `net_raw`: capabilities(7). It reaches what the sandbox owns, never its mounts.
int sandcell_policy_add_cap(sandcell_policy_t *policy, const char *name);

// Adds an environment variable to the clean default.
int sandcell_policy_add_env(sandcell_policy_t *policy, const char *key, const char *value);

// Goes on where the host cannot enforce `item`, and says so in the report: `all`, or an item of docs/options.md, such as
// `memory`.
int sandcell_policy_add_best_effort(sandcell_policy_t *policy,
                                    const char *item);

// Where its UID on the host comes from; auto: a leased sub-UID if available, else the caller's; disjoint: a leased
// sub-UID or an error; shared: the caller's. One of auto, disjoint, shared. Default: auto.
int sandcell_policy_set_host_ids(sandcell_policy_t *policy, const char *text);

// What keeps programs apart from the host: `landlock` is for hosts that forbid user namespaces, and weaker. One of
// namespaces, landlock. Default: namespaces.
int sandcell_policy_set_isolation(sandcell_policy_t *policy, const char *text);

// The network; `loopback` is a private one, `user` the public internet through a relay that keeps rules. One of none,
// loopback, host, user. Default: loopback.
int sandcell_policy_set_network(sandcell_policy_t *policy, const char *text);

// Landlock behind the namespaces: what the kernel can do, every rule or an error, or not at all. One of default,
// required, off. Default: default.
int sandcell_policy_set_landlock(sandcell_policy_t *policy, const char *text);

// Processes still alive when the program ends are killed, killed and listed, or make the run a failure. One of kill,
// report, fail. Default: kill.
int sandcell_policy_set_leftovers(sandcell_policy_t *policy, const char *text);

// Memory of all processes together, page cache included; more is an out-of-memory kill. At least 4096. Default: none.
int sandcell_policy_set_memory(sandcell_policy_t *policy, uint64_t bytes);

// Memory above which the kernel slows the sandbox down to reclaim (cgroup v2). At least 4096. Default: none.
int sandcell_policy_set_memory_high(sandcell_policy_t *policy, uint64_t bytes);

// Swap on top of the memory; 0 by default where memory is limited. Default: none.
int sandcell_policy_set_swap(sandcell_policy_t *policy, uint64_t bytes);

// Processes and threads. 1 to 4194303. Default: none.
int sandcell_policy_set_pids(sandcell_policy_t *policy, uint64_t count);

// CPUs, such as 0.5. 0.01 to 1000000. Default: none.
int sandcell_policy_set_cpus(sandcell_policy_t *policy, double number);

// Share of the CPU against others, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
int sandcell_policy_set_cpu_weight(sandcell_policy_t *policy, uint32_t count);

// CPUs that may be used, such as 0-3,8. Default: none.
int sandcell_policy_set_cpuset(sandcell_policy_t *policy, const char *text);

// CPU time of all processes together. Default: none. Milliseconds; SANDCELL_UNLIMITED has no end.
int sandcell_policy_set_cpu_time_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// What the throw-away upper, /tmp, the home and the other private directories may hold together. Default: none.
int sandcell_policy_set_disk(sandcell_policy_t *policy, uint64_t bytes);

// Files and directories that they may hold together. Default: none.
int sandcell_policy_set_inodes(sandcell_policy_t *policy, uint64_t count);

// Share of block input and output, 1 to 10000; 100 is the kernel's default. 1 to 10000. Default: none.
int sandcell_policy_set_io_weight(sandcell_policy_t *policy, uint32_t count);

// A cgroup v2 directory to work beneath, instead of the one that is found. Default: none.
int sandcell_policy_set_cgroup(sandcell_policy_t *policy, const char *path);

// How many ids the program has: 65536 for a whole distribution, with `cap_add` for what changes user. 1 to 4294967295.
// Default: 1.
int sandcell_policy_set_id_count(sandcell_policy_t *policy, uint32_t count);

// Map the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own. Default:
// false.
int sandcell_policy_set_keep_id(sandcell_policy_t *policy, bool enable);

// Deprecated: use sandcell_policy_set_keep_id.
int sandcell_policy_set_keep_caller(sandcell_policy_t *policy, bool enable);

// Give what other ids than the caller's own have made in writable binds to the caller when a run has ended. Default:
// false.
int sandcell_policy_set_reclaim(sandcell_policy_t *policy, bool enable);

// How long to wait for free ids. Default: not at all. Milliseconds; SANDCELL_UNLIMITED has no end.
int sandcell_policy_set_wait_for_ids_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// Deprecated: use sandcell_policy_set_wait_for_ids_ms.
int sandcell_policy_set_id_wait_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// The program is the init of a system, PID 1 of its own: systemd, OpenRC, busybox; implies root, 65536 ids, a cgroup
// and a grace of 30s. Default: false.
int sandcell_policy_set_init(sandcell_policy_t *policy, bool enable);

// The host's name inside. Default: cell- and 6 random characters.
int sandcell_policy_set_hostname(sandcell_policy_t *policy, const char *text);

// Wall-clock time that a program may take; then SIGTERM, `grace`, SIGKILL to all of it. Default: none. Milliseconds;
// SANDCELL_UNLIMITED has no end.
int sandcell_policy_set_timeout_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// Between SIGTERM and SIGKILL. Default: 2s. Milliseconds; SANDCELL_UNLIMITED has no end.
int sandcell_policy_set_grace_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// What a program may write to standard output and error together before it is ended. Default: none.
int sandcell_policy_set_output_limit(sandcell_policy_t *policy, uint64_t bytes);

// Publish the ports that the image exposes, each at a free port of the host's 127.0.0.1. Default: false.
int sandcell_policy_set_publish_all(sandcell_policy_t *policy, bool enable);

// Pass the caller's environment on. Default: false.
int sandcell_policy_set_keep_env(sandcell_policy_t *policy, bool enable);

// Working directory inside. Default: the home, or the image's.
int sandcell_policy_set_chdir(sandcell_policy_t *policy, const char *path);

// File mode creation mask. 000 to 777. Default: 022.
int sandcell_policy_set_umask(sandcell_policy_t *policy, uint32_t mode);

// Allows a named set of system calls, such as `ptrace`, on top of the filter that is set so far: the default, or the one of
// sandcell_policy_set_seccomp_json. The sets are those of sandcell_seccomp_sets_json.
int sandcell_policy_add_seccomp_set(sandcell_policy_t *policy,
                                    const char *name);

// Takes a named set of system calls, such as `network-client`, out of the filter that is set so far: they fail with EPERM.
int sandcell_policy_remove_seccomp_set(sandcell_policy_t *policy,
                                       const char *name);

// The named sets of system calls, as a JSON array of `{name, about, default}`.
int sandcell_seccomp_sets_json(char **json, sandcell_error_t **error);

// The filter of a policy in the JSON form of Docker's profiles, which sandcell_policy_set_seccomp_json takes.
int sandcell_policy_seccomp_json(const sandcell_policy_t *policy, char **json, sandcell_error_t **error);

// The same in words, with the capabilities that the policy keeps taken into account.
int sandcell_policy_seccomp_text(const sandcell_policy_t *policy, char **text, sandcell_error_t **error);

// The same as the kernel takes it, with the capabilities that the policy keeps taken into account: for seccomp(2), or for
// other launchers (`bwrap --seccomp FD`). To be freed with sandcell_bpf_free.
int sandcell_policy_seccomp_bpf(const sandcell_policy_t *policy,
                                sandcell_bpf_t **bpf,
                                sandcell_error_t **error);

// Its instructions, an array of `struct sock_filter`, and in `*length` (may be NULL) how many bytes they are: 8 for each. They
// live as long as the handle; NULL for NULL.
const void *sandcell_bpf_bytes(const sandcell_bpf_t *bpf,
                               size_t *length);

// Frees a filter. NULL is fine.
void sandcell_bpf_free(sandcell_bpf_t *bpf);

// The root is a read-only view of the host's system directories, never the homes: the default.
int sandcell_policy_set_root_host(sandcell_policy_t *policy);

// The root holds nothing but what is mounted into it.
int sandcell_policy_set_root_empty(sandcell_policy_t *policy);

// The root is this directory, read-only.
int sandcell_policy_set_root_dir(sandcell_policy_t *policy, const char *dir);

// Adds a read-only layer on top of those before; the root becomes an overlay of them. Linux 5.11.
int sandcell_policy_add_layer(sandcell_policy_t *policy, const char *dir);

// What is written to the overlay is thrown away: the default where there are layers.
int sandcell_policy_set_upper_tmpfs(sandcell_policy_t *policy);

// What is written to the overlay is kept in `dir`/upper, with `dir`/work beside it for the kernel.
int sandcell_policy_set_upper_dir(sandcell_policy_t *policy, const char *dir);

// Shows a file or directory of the host at `dest`, read-only; NULL for the same path.
int sandcell_policy_add_ro(sandcell_policy_t *policy, const char *source, const char *dest);

// Shows a file or directory of the host at `dest`, writable as far as the caller's own rights go; NULL for the same path.
int sandcell_policy_add_rw(sandcell_policy_t *policy,
                           const char *source,
                           const char *dest);

// An empty writable directory in memory; 0 bytes for no limit of its own.
int sandcell_policy_add_tmpfs(sandcell_policy_t *policy, const char *dest, uint64_t bytes);

// A read-only file with these bytes at `dest`. They are copied; `content` may be NULL where `length` is 0.
int sandcell_policy_add_file(sandcell_policy_t *policy, const char *dest, const char *content, size_t length);

// The same with these permission bits, such as 0755 for a script.
int sandcell_policy_add_file_mode(sandcell_policy_t *policy,
                                  const char *dest,
                                  const char *content,
                                  size_t length,
                                  uint32_t mode);

// Shows a device of the host beneath /dev, such as `/dev/fuse`, `/dev/ttyUSB0:/dev/modem` or `/dev/sda:ro`; of a directory each
// device in it.
int sandcell_policy_add_device(sandcell_policy_t *policy,
                               const char *device);

// Shows one Unix socket of the host, such as `/run/user/1000/agent` or `/tmp/agent:/run/agent`.
int sandcell_policy_add_socket(sandcell_policy_t *policy, const char *socket);

// Lets programs have what they only get where it is asked for: `ptrace`, `nested` or `engine-socket`.
int sandcell_policy_add_allow(sandcell_policy_t *policy, const char *what);

#if defined(SANDCELL_IMAGES)
// Opens a store, and makes it where it is not there. NULL for the user's own, $XDG_DATA_HOME/sandcell/images.
int sandcell_store_open(const char *store_dir, sandcell_store_t **store, sandcell_error_t **error);

// Frees the handle; what is in the store stays. NULL is fine.
void sandcell_store_free(sandcell_store_t *store);

// Changes what an image may at most be that is loaded or pulled with this handle: `layers` (500 by default), `members` of
// a layer (1,000,000), `layer_bytes` of its uncompressed tar (32 GiB), `ratio`, how many times larger than the compressed
// layer that may be (250), `time_ms`, milliseconds for a whole load (0, the default, for no end). To be set before other
// threads use the store.
int sandcell_store_set_limit(sandcell_store_t *store,
                             const char *limit,
                             uint64_t number,
                             sandcell_error_t **error);

// The store's directory.
int sandcell_store_dir(const sandcell_store_t *store, char **dir, sandcell_error_t **error);

// The images of the store: an array of `{Id, Names, Created, Size, SharedSize, Layers}`.
int sandcell_store_images_json(const sandcell_store_t *store, char **json, sandcell_error_t **error);

// All about an image, with the keys of `podman inspect`.
int sandcell_store_inspect_json(const sandcell_store_t *store,
                                const char *image,
                                char **json,
                                sandcell_error_t **error);

// The steps that made an image, the newest first: an array of `{created, createdBy, size, comment, layer}`.
int sandcell_store_history_json(const sandcell_store_t *store,
                                const char *image,
                                char **json,
                                sandcell_error_t **error);

// What the files of a layer are in the image and not on the disk, owners above all: an array of `{path, uid, gid, mode}`,
// where there is one with `device`, `["c" or "b", major, minor]`, and `xattrs`, an array of `[name, value in hexadecimal]`.
// In paths what is not printable ASCII, and `%`, is `%XX`. `layer` is one of `RootFS.Layers` of sandcell_store_inspect_json.
int sandcell_store_withheld_json(const sandcell_store_t *store,
                                 const char *layer,
                                 char **json,
                                 sandcell_error_t **error);

// Keeps an image, as a run does, for one who uses its files: sandcell_policy_add_layer, or a program of another kind.
int sandcell_store_use_image(const sandcell_store_t *store,
                             const char *image,
                             sandcell_image_t **used,
                             sandcell_error_t **error);

// Its id, which lives as long as the handle; "" for NULL.
const char *sandcell_image_id(const sandcell_image_t *image);

// How many directories make its root; 0 for NULL. They may be one more than its layers.
size_t sandcell_image_layer_count(const sandcell_image_t *image);

// One of them, the lowest first; "" beyond the last. The path lives as long as the handle; nothing may be changed in it.
const char *sandcell_image_layer(const sandcell_image_t *image,
                                 size_t index);

// Lets the image go. NULL is fine.
void sandcell_image_free(sandcell_image_t *image);

// The volumes of the store: an array of `{Name, Mountpoint, CreatedUnix, InUse}`.
int sandcell_store_volumes_json(const sandcell_store_t *store, char **json, sandcell_error_t **error);

// Which files runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got. `base` is the image, or NULL
// for the one that was run.
int sandcell_store_diff(const sandcell_store_t *store,
                        const char *upper,
                        const char *base,
                        sandcell_changes_t **changes,
                        sandcell_error_t **error);

// Writes images (a list of names with a NULL at its end) to a new file or directory. `image_format` is `oci-archive`, which NULL is too, `oci-dir` or
// `docker-archive`.
int sandcell_store_save(const sandcell_store_t *store,
                        const char *const *images,
                        const char *image_format,
                        const char *to,
                        sandcell_error_t **error);

// Gives an image another name.
int sandcell_store_tag(const sandcell_store_t *store,
                       const char *image,
                       const char *new_name,
                       sandcell_error_t **error);

// Takes a name away; an image without any goes, with the layers that no other image has. `*pruned` (may be NULL) tells
// what went.
int sandcell_store_remove(const sandcell_store_t *store,
                          const char *image,
                          sandcell_pruned_t *pruned,
                          sandcell_error_t **error);

// Removes a volume with all that is in it.
int sandcell_store_remove_volume(const sandcell_store_t *store, const char *volume, sandcell_error_t **error);

// Removes images without a name, layers without an image, and what killed processes left. `*pruned` (may be NULL) tells
// what went.
int sandcell_store_prune(const sandcell_store_t *store, sandcell_pruned_t *pruned, sandcell_error_t **error);

// The root is an image of the store, by its name or id. What it says of its user, environment and working directory
// is the default.
int sandcell_policy_set_root_image(sandcell_policy_t *policy, const char *image);

// The store of images and volumes, instead of the user's own.
int sandcell_policy_set_store(sandcell_policy_t *policy, const char *dir);

// Adds a named directory of the store at `dest`, which outlives runs.
int sandcell_policy_add_volume(sandcell_policy_t *policy, const char *volume, const char *dest, bool writable);

// A command of the program that the image of the policy names: its entry point with `words` (a list with a NULL at its
// end, or NULL), or with the image's own arguments where there are none.
int sandcell_image_command(const sandcell_policy_t *policy,
                           const char *const *words,
                           sandcell_command_t **command,
                           sandcell_error_t **error);

// Makes one. NULL only where sandcell itself is broken.
sandcell_stop_t *sandcell_stop_new(void);

// Ends all work that it was given to, soon and with an error; the store is as it was before. What is given it from now
// on ends at once.
void sandcell_stop_now(const sandcell_stop_t *stop);

// Frees it; work that has it goes on. NULL is fine.
void sandcell_stop_free(sandcell_stop_t *stop);

// Loads images from an archive or a directory. `image_format` is `oci`, `docker`, `rootfs` (a plain root file system),
// or `detect`, which NULL is too. `options` may be NULL. `json` becomes an array of the names.
int sandcell_store_load(const sandcell_store_t *store,
                        const char *from,
                        const char *image_format,
                        const sandcell_load_options_t *options,
                        char **json,
                        sandcell_error_t **error);

// The same of an archive that comes from a descriptor, such as a pipe or a socket: it is read to its end and stays the
// caller's.
int sandcell_store_load_from(const sandcell_store_t *store,
                             int descriptor,
                             const char *image_format,
                             const sandcell_load_options_t *options,
                             char **json,
                             sandcell_error_t **error);

// Gets an image from its registry: `image` is a name such as `debian:12`, also with a registry before it and a digest
// behind it. `options` may be NULL. `id` becomes the image's. SANDCELL_ERROR_CONFIG where the library was built without
// registries (`ffi/install --with-pull` builds it with them).
int sandcell_store_pull(const sandcell_store_t *store,
                        const char *image,
                        const sandcell_load_options_t *options,
                        char **id,
                        sandcell_error_t **error);

// Begins a build on an image of the store, or on nothing: `scratch`.
sandcell_build_t *sandcell_build_new(const char *base);

// Begins a build with the steps of a Dockerfile, which is read now. An instruction that is not supported is an error
// that names it.
int sandcell_build_read(const char *dockerfile, sandcell_build_t **build, sandcell_error_t **error);

// Frees it. NULL is fine.
void sandcell_build_free(sandcell_build_t *build);

// Adds a step that is one text: `run` (a line of shell), `workdir`, `user`, `expose`, `volume` or
// `stop_signal`.
int sandcell_build_add_step(sandcell_build_t *build, const char *kind, const char *argument);

// Adds a step that is a list of words (with a NULL at its end): `run` (without a shell), `cmd` or `entrypoint`.
int sandcell_build_add_words(sandcell_build_t *build, const char *kind, const char *const *argv);

// Adds a step that sets something: a variable (`env`) or a `label`.
int sandcell_build_add_pair(sandcell_build_t *build, const char *kind, const char *key, const char *content);

// Adds a step that copies files of the context (a list with a NULL at its end; `*`, `?` and `[...]` are patterns) to
// `dest`: a directory where it ends with a slash, is one in the image, or where there are several. `owner` is
// `USER[:GROUP]`, or NULL for root; `mode` is UINT32_MAX for that of the files.
int sandcell_build_add_copy(sandcell_build_t *build,
                            const char *const *files,
                            const char *dest,
                            const char *owner,
                            uint32_t mode);

// Where the files to be copied are, with its `.dockerignore`.
int sandcell_build_set_context(sandcell_build_t *build, const char *dir);

// The new image's name.
int sandcell_build_set_name(sandcell_build_t *build, const char *name);

// Sets any option of a build by its name and text, as the program takes them: `name`, `context`, `arg` and `KEY=VALUE`,
// `network`, `secret` and `id=NAME,src=FILE`. `sandcell build --help` lists them. The functions below do the same with typed values.
int sandcell_build_set(sandcell_build_t *build,
                       const char *option,
                       const char *text);

// The value of an `ARG` of the Dockerfile.
int sandcell_build_add_arg(sandcell_build_t *build, const char *key, const char *content);

// The stage that becomes the image, by its name or number, instead of the last. Stages that it does not need are not made.
int sandcell_build_set_target(sandcell_build_t *build,
                              const char *stage);

// A secret for `RUN --mount=type=secret,id=...`: `length` bytes, which are copied. It is in no layer.
int sandcell_build_add_secret(sandcell_build_t *build, const char *id, const void *content, size_t length);

// The same with what a file has when the step runs.
int sandcell_build_add_secret_file(sandcell_build_t *build, const char *id, const char *file);

// The socket of an ssh agent for `RUN --mount=type=ssh`, which most steps know as `default`.
int sandcell_build_add_ssh_agent(sandcell_build_t *build, const char *id, const char *socket);

// What the programs of the steps run in: limits, network, mounts, as the policy has them now. Root, upper, user, working
// directory and environment are the build's.
int sandcell_build_set_policy(sandcell_build_t *build,
                              const sandcell_policy_t *policy);

// The image's date, and the latest that a file in a new layer can have, in seconds since 1970 (SOURCE_DATE_EPOCH). An image
// has no date by default.
int sandcell_build_set_timestamp(sandcell_build_t *build,
                                 int64_t seconds);

// Whether layers that were made before by the same step on the same layers are taken as they are; they are by default.
int sandcell_build_set_cache(sandcell_build_t *build, bool cache);

// Lets programs write to the caller's own standard output and error. Otherwise the end of what they wrote is in the error of
// a step that fails.
int sandcell_build_set_show_output(sandcell_build_t *build,
                                   bool show);

// Ends the build early: the program that runs is killed, and no further step is made.
int sandcell_build_set_stop(sandcell_build_t *build, const sandcell_stop_t *stop);

// Tells `progress` (NULL for nobody) of every step; `data` is passed to it.
int sandcell_build_set_progress(sandcell_build_t *build, sandcell_build_progress_t progress, void *data);

// Makes an image by its steps. `id` becomes the image's.
int sandcell_store_build(const sandcell_store_t *store,
                         const sandcell_build_t *build,
                         char **id,
                         sandcell_error_t **error);

// Begins a commit in which everything has its default. NULL only where sandcell itself is broken.
sandcell_commit_t *sandcell_commit_new(void);

// Frees it. NULL is fine.
void sandcell_commit_free(sandcell_commit_t *commit);

// Says something about the commit: `name` (the new image's), `base` (the image that the upper lies on, instead of the one
// that was run), `created` (a date, RFC 3339; none by default), `created_by` (the command, for the history),
// `author`, `comment`, or `owners` (whom the files belong to in the image: `noted`, the default: as the run mapped them;
// `root`; `kept`: as they are on the disk; or see sandcell_commit_add_uids).
int sandcell_commit_set(sandcell_commit_t *commit,
                        const char *key,
                        const char *content);

// Says whose the files of UIDs on the disk are in the image: `count` UIDs from `host` on belong to those from `inside` on.
// A file of an id that is in no range is root's. This is for what a run wrote that noted no ids, and is instead of `owners`.
int sandcell_commit_add_uids(sandcell_commit_t *commit,
                             uint32_t inside,
                             uint32_t host,
                             uint32_t count);

// The same for groups.
int sandcell_commit_add_gids(sandcell_commit_t *commit, uint32_t inside, uint32_t host, uint32_t count);

// Changes the configuration as an instruction of a Dockerfile does: `CMD ["app"]`, `ENV A=b`.
int sandcell_commit_add_change(sandcell_commit_t *commit, const char *line);

// Sets a key of the image's `config` object (`Env`, `Cmd`, `User`, `Labels`) to a value in JSON; `null` takes it away.
int sandcell_commit_set_config(sandcell_commit_t *commit, const char *key, const char *json);

// Makes an image of what runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got, or NULL to change
// the configuration alone, for which `commit` names the base. `commit` may be NULL otherwise. `id` becomes the new image's.
int sandcell_store_commit(const sandcell_store_t *store,
                          const char *upper,
                          const sandcell_commit_t *commit,
                          char **id,
                          sandcell_error_t **error);
#endif

// Limits one block device (such as /dev/sda, or `8:0`): bytes and operations per second, 0 for no limit.
int sandcell_policy_add_io_max(sandcell_policy_t *policy,
                               const char *device,
                               uint64_t read_bytes,
                               uint64_t write_bytes,
                               uint64_t read_ops,
                               uint64_t write_ops);

// A limit of each process by its name in setrlimit(2), such as `nofile`; SANDCELL_UNLIMITED for none.
int sandcell_policy_add_rlimit(sandcell_policy_t *policy, const char *name, uint64_t soft, uint64_t hard);

// Lets a name be reached, such as `pypi.org` or `*.example.org:443`: TCP ports 80 and 443, or those given. The network is `user` then,
// and everything that no rule allows is refused.
int sandcell_policy_add_allow_host(sandcell_policy_t *policy,
                                   const char *rule);

// Refuses a name, whatever else is allowed.
int sandcell_policy_add_deny_host(sandcell_policy_t *policy, const char *rule);

// Lets addresses be reached, private ones too, such as `10.1.0.0/16:5432` or `[2001:db8::/32]:443`.
int sandcell_policy_add_allow_net(sandcell_policy_t *policy, const char *rule);

// Publishes a port of the sandbox on the host, such as `8080:80`, `0.0.0.0:8080:80` or `5353:53/udp`: at 127.0.0.1 unless an address
// is given. Port 0 of the host is one that is free: sandcell_child_host_port and sandcell_cell_host_port tell which.
int sandcell_policy_add_publish(sandcell_policy_t *policy,
                                const char *rule);

// Lets a port of the host's own 127.0.0.1 be reached, such as `5432` or `53/udp`, as `host.containers.internal`.
int sandcell_policy_add_host_port(sandcell_policy_t *policy, const char *rule);

// Has connections that the rules allow go by a proxy of the host's network, which looks names up, too: `http://HOST:PORT` (CONNECT)
// or `socks5://HOST:PORT`.
int sandcell_policy_set_upstream_proxy(sandcell_policy_t *policy,
                                       const char *url);

// Refuses addresses, whatever else is allowed.
int sandcell_policy_add_deny_net(sandcell_policy_t *policy, const char *rule);

// Makes a command. `argv` ends with a NULL, its first is the program: a path inside, or a name that is looked for along
// the PATH that the program will have.
sandcell_command_t *sandcell_command_new(const char *const *argv);

// Frees a command; what was started with it goes on. NULL is fine.
void sandcell_command_free(sandcell_command_t *command);

// Adds an argument: any bytes but NUL.
int sandcell_command_add_arg(sandcell_command_t *command, const char *arg);

// What the program finds as its own name; the program's path by default.
int sandcell_command_set_arg0(sandcell_command_t *command, const char *name);

// Sets an environment variable, over those of the policy; a `value` of NULL removes it. `key` is not empty and has no `=`.
int sandcell_command_set_env(sandcell_command_t *command,
                             const char *key,
                             const char *value);

// Starts from an empty environment, without the defaults and those of the policy; variables set before are dropped.
int sandcell_command_clear_env(sandcell_command_t *command);

// Working directory inside, an absolute path; that of the policy by default.
int sandcell_command_set_chdir(sandcell_command_t *command, const char *dir);

// Standard input: `inherit` (the caller's own; the default of sandcell_spawn), `null` (the default of
// sandcell_run_command) or `pipe` (its other end is in the child).
int sandcell_command_set_stdin(sandcell_command_t *command, const char *stdio);

// Standard output: `inherit` (the default of sandcell_spawn), `null` or `pipe` (the default of sandcell_run_command,
// which captures it).
int sandcell_command_set_stdout(sandcell_command_t *command, const char *stdio);

// Standard error, in the same way.
int sandcell_command_set_stderr(sandcell_command_t *command, const char *stdio);

// Standard input from this descriptor, which stays yours and must be open when the program is started; no directory.
int sandcell_command_set_stdin_fd(sandcell_command_t *command, int fd);

// Standard output to this descriptor, in the same way.
int sandcell_command_set_stdout_fd(sandcell_command_t *command, int fd);

// Standard error to this descriptor, in the same way.
int sandcell_command_set_stderr_fd(sandcell_command_t *command, int fd);

// Passes a descriptor on as `number` inside (3 to 1023). It stays yours and must be open when the program is started.
int sandcell_command_add_fd(sandcell_command_t *command, int fd, int number);

// Bytes for standard input, any number, which are copied. sandcell_run_command and sandcell_cell_run write them into a
// pipe while they read the output; a program that is spawned reads them from a file in memory, and
// sandcell_child_take_stdin is -1. After this standard input may be set to `pipe`, which changes nothing; anything else is
// refused: leave one of the two out. `content` may be NULL where `length` is 0.
int sandcell_command_set_input(sandcell_command_t *command,
                               const char *content,
                               size_t length);

// Wall-clock milliseconds for this command, instead of the policy's, from 1 on; 0 counts as 1. SANDCELL_UNLIMITED for no
// limit.
int sandcell_command_set_timeout_ms(sandcell_command_t *command,
                                    uint64_t milliseconds);

// Counts the bytes of stdout and stderr even where they are inherited: they pass through a pipe then.
int sandcell_command_set_count_output(sandcell_command_t *command, bool count);

// Lists the files that the run added, changed or removed in its overlay: sandcell_result_changes. For a sandbox of its
// own; a cell has sandcell_cell_changes.
int sandcell_command_set_track_changes(sandcell_command_t *command, bool track);

// Gives the program a terminal of the sandbox's own with so many lines of so many characters, its controlling terminal. The
// streams that nobody has set are it; its other end is that of sandcell_child_take_terminal, and what a program that is run
// to its end shows is in the result as its standard output.
int sandcell_command_set_terminal(sandcell_command_t *command,
                                  uint16_t rows,
                                  uint16_t columns);

// Notes every system call of the run and puts the smallest profile that lets them through into the result:
// sandcell_result_learned_json. The policy's own profile holds meanwhile. For a sandbox of its own; a cell refuses it.
int sandcell_command_set_learn(sandcell_command_t *command, bool learn);

// Version of the library as text, such as `0.1.0`; SANDCELL_VERSION is that of the header.
const char *sandcell_version(void);

// Runs a program to its end in a sandbox of its own and captures what it writes; its standard input is empty.
// `argv` ends with a NULL, its first is the program. How the program ended is in the result; an error (the return
// value is not 0 then, and the result NULL) means that the sandbox failed or the program could not be executed.
int sandcell_run(const sandcell_policy_t *policy,
                 const char *const *argv,
                 sandcell_result_t **result,
                 sandcell_error_t **error);

// The same for a program with more to say about it than its arguments.
int sandcell_run_command(const sandcell_policy_t *policy,
                         const sandcell_command_t *command,
                         sandcell_result_t **result,
                         sandcell_error_t **error);

// Starts a program in a sandbox of its own, which ends with it. Returns when the program has been executed; standard
// streams are inherited by default.
int sandcell_spawn(const sandcell_policy_t *policy,
                   const sandcell_command_t *command,
                   sandcell_child_t **child,
                   sandcell_error_t **error);

// Checks a policy and does ahead of the first run what takes some milliseconds, where sub-ids are used.
int sandcell_prepare(const sandcell_policy_t *policy, sandcell_error_t **error);

// Moves the calling process, all its threads included, into a cgroup v2 of its own below the one in which it is, so
// that sandboxes can get theirs beside it. For callers to whom their group was delegated; call it once, early. It does
// nothing where limits work already. `*group` (may be NULL) is the group beneath which sandboxes will be made, to be
// freed with sandcell_text_free.
int sandcell_adopt_cgroup(char **group, sandcell_error_t **error);

// The steps that a run would take, as a JSON array of `{name, subject, words}`, to be freed with sandcell_text_free.
// Nothing is run.
int sandcell_explain_json(const sandcell_policy_t *policy, char **json, sandcell_error_t **error);

// What this host allows, as a JSON array of `{name, ok, detail, remedy}`, to be freed with sandcell_text_free. Found by
// trying: takes some tens of milliseconds and starts a few small sandboxes.
int sandcell_doctor_json(char **json, sandcell_error_t **error);

// Puts a new pidfd into `*fd`: readable when the program has ended, for poll(2), epoll(7) and the like. It is yours to
// close and CLOEXEC, and each call makes another that shares nothing with the others: epoll forgets it when you close it,
// unless you have duplicates of it yourself. For a program that has ended and was waited for it may be an eventfd, which
// is readable, too.
int sandcell_child_pidfd(const sandcell_child_t *child,
                         int *fd,
                         sandcell_error_t **error);

// The program's process number inside the sandbox; 0 for NULL. sandcell_child_host_id is the one outside.
uint32_t sandcell_child_id(const sandcell_child_t *child);

// The program's process number as the caller sees it, for perf(1), gdb(1) and the like; 0 where it has ended, or where
// /proc does not tell it. Signals go by sandcell_child_signal: a number may soon be another process's.
uint32_t sandcell_child_host_id(const sandcell_child_t *child);

// Our end of the pipe to standard input, which is yours from now on and CLOEXEC; -1 where there is none (any more).
int sandcell_child_take_stdin(const sandcell_child_t *child);

// Our end of the pipe from standard output, in the same way.
int sandcell_child_take_stdout(const sandcell_child_t *child);

// Our end of the pipe from standard error, in the same way.
int sandcell_child_take_stderr(const sandcell_child_t *child);

// The other end of the program's terminal, which is yours from now on, CLOEXEC and O_NONBLOCK; -1 where there is none (any
// more). When it and all its copies are closed the terminal hangs up, and the program gets SIGHUP.
int sandcell_child_take_terminal(const sandcell_child_t *child);

// Waits for the end of the program, but no longer than `timeout_ms` milliseconds; a negative number waits as long as it
// takes, and closes a pipe to standard input that is still here first. Where the program still runs then, 0 is returned
// and `*result` is NULL. May be called again after the end. Pipes of standard output and error are not read: a program that
// fills one (64 KiB by default) while nobody reads it waits, and never ends. Read them, or call sandcell_child_wait_output.
int sandcell_child_wait(const sandcell_child_t *child,
                        int64_t timeout_ms,
                        sandcell_result_t **result,
                        sandcell_error_t **error);

// Closes a pipe to standard input that is still here, reads those outputs that are pipes, and waits for the end of the
// program, but no longer than `timeout_ms` milliseconds; a negative number waits as long as it takes. Where the program
// still runs then, 0 is returned and `*result` is NULL: what was read by then is in the result of a later call.
int sandcell_child_wait_output(const sandcell_child_t *child,
                               int64_t timeout_ms,
                               sandcell_result_t **result,
                               sandcell_error_t **error);

// Sends a signal, 1 to 64, to the program. No error if it has ended already.
int sandcell_child_signal(const sandcell_child_t *child, int signal, sandcell_error_t **error);

// Sends a signal, 1 to 64, to the program and to what it started in its process group, as a terminal does for Ctrl-C.
// Processes that have made a group or session of their own do not get it. No error if the program has ended already.
int sandcell_child_signal_group(const sandcell_child_t *child, int signal, sandcell_error_t **error);

// Ends the program and all that it started, at once. Waiting tells what came of it.
int sandcell_child_kill(const sandcell_child_t *child, sandcell_error_t **error);

// The port of the host at which this port of the sandbox is published, by UDP or TCP: the one that was chosen, where 0 was
// asked for; 0 where it is not published.
uint16_t sandcell_child_host_port(const sandcell_child_t *child,
                                  uint16_t cell_port,
                                  bool udp);

// Who the program is, what is enforced and which ports are published, as `{identity, enforced, published}` of a report, to be freed with sandcell_text_free.
int sandcell_child_report_json(const sandcell_child_t *child,
                               char **json,
                               sandcell_error_t **error);

// Frees a child. A program that still runs is ended, with all that it started. NULL is fine.
void sandcell_child_free(sandcell_child_t *child);

// Changes the size of the terminal; programs in the foreground get SIGWINCH. `fd` is that of sandcell_child_take_terminal, here
// and below.
int sandcell_terminal_resize(int fd,
                             uint16_t rows,
                             uint16_t columns,
                             sandcell_error_t **error);

// Reads what the program has shown, `length` bytes at most, and waits `timeout_ms` milliseconds for it at most; a negative
// number waits as long as it takes. `*count` is how many bytes there are now in `buffer`: 0 when nobody has the terminal any
// more, -1 where nothing came in time. Escape sequences among them are the program's.
int sandcell_terminal_read(int fd,
                           char *buffer,
                           size_t length,
                           int64_t timeout_ms,
                           int64_t *count,
                           sandcell_error_t **error);

// Types `length` bytes, or as many as the program takes within `timeout_ms` milliseconds; a negative number waits as long as it
// takes. `*count` is how many that were.
int sandcell_terminal_write(int fd,
                            const char *bytes,
                            size_t length,
                            int64_t timeout_ms,
                            int64_t *count,
                            sandcell_error_t **error);

// Starts a sandbox in which many programs can be run, one after another or at once.
int sandcell_start(const sandcell_policy_t *policy, sandcell_cell_t **cell, sandcell_error_t **error);

// Runs a program to its end in the cell; as sandcell_run_command.
int sandcell_cell_run(const sandcell_cell_t *cell,
                      const sandcell_command_t *command,
                      sandcell_result_t **result,
                      sandcell_error_t **error);

// Starts a program in the cell; as sandcell_spawn.
int sandcell_cell_spawn(const sandcell_cell_t *cell,
                        const sandcell_command_t *command,
                        sandcell_child_t **child,
                        sandcell_error_t **error);

// Puts a new pidfd into `*fd`: readable when the cell has ended. It is yours to close and CLOEXEC; see
// sandcell_child_pidfd.
int sandcell_cell_pidfd(const sandcell_cell_t *cell, int *fd, sandcell_error_t **error);

// Stops everything in the cell until sandcell_cell_thaw. It needs a cgroup: start the cell with a limit.
int sandcell_cell_freeze(const sandcell_cell_t *cell, sandcell_error_t **error);

// Lets everything in it go on.
int sandcell_cell_thaw(const sandcell_cell_t *cell, sandcell_error_t **error);

// Changes the limits that `limits` names, of which nothing else counts; the others stay. Only kinds of limits that the
// cell was started with.
int sandcell_cell_set_limits(const sandcell_cell_t *cell, const sandcell_policy_t *limits, sandcell_error_t **error);

// What the cell has used so far: how long it has lived, and what its cgroups count, SANDCELL_UNKNOWN where it has none. `usage->size` must be set to `sizeof *usage` before.
int sandcell_cell_usage(const sandcell_cell_t *cell,
                        sandcell_usage_t *usage,
                        sandcell_error_t **error);

// The files that differ from the layers so far; none for a root that is no overlay. To be freed with
// sandcell_changes_free.
int sandcell_cell_changes(const sandcell_cell_t *cell, sandcell_changes_t **changes, sandcell_error_t **error);

// The port of the host at which this port of the cell is published, by UDP or TCP: the one that was chosen, where 0 was asked
// for; 0 where it is not published.
uint16_t sandcell_cell_host_port(const sandcell_cell_t *cell,
                                 uint16_t cell_port,
                                 bool udp);

// Who the programs are, what is enforced and which ports are published, as `{identity, enforced, published}` of a report, to be freed with sandcell_text_free.
int sandcell_cell_report_json(const sandcell_cell_t *cell,
                              char **json,
                              sandcell_error_t **error);

// Ends the cell now, with everything in it. What waits for a program in it learns that it was killed, and what is asked of
// the cell afterwards is an error that says so.
int sandcell_cell_kill(const sandcell_cell_t *cell,
                       sandcell_error_t **error);

// Frees a cell. It ends when the children that were started in it are freed, too. NULL is fine.
void sandcell_cell_free(sandcell_cell_t *cell);

// Builds `size` sandboxes ahead (1 to 1000) and keeps as many waiting, so that a program starts about as fast as without a
// sandbox. Each serves one program and is never used again: who takes one launches the next. What waits ends with the pool
// and with the calling process; in a forked process a pool is empty.
int sandcell_pool_start(const sandcell_policy_t *policy,
                        size_t size,
                        sandcell_pool_t **pool,
                        sandcell_error_t **error);

// Runs a program to its end in a sandbox of the pool, or in one that is made for it where none waits; as
// sandcell_run_command. To track changes and to learn is decided before a sandbox is built, and refused here.
int sandcell_pool_run(const sandcell_pool_t *pool,
                      const sandcell_command_t *command,
                      sandcell_result_t **result,
                      sandcell_error_t **error);

// Starts a program in a sandbox of the pool; as sandcell_spawn.
int sandcell_pool_spawn(const sandcell_pool_t *pool,
                        const sandcell_command_t *command,
                        sandcell_child_t **child,
                        sandcell_error_t **error);

// What the pool has done so far: commands that took a sandbox that waited, commands for which none was there, and how many
// sandboxes wait now.
int sandcell_pool_stats(const sandcell_pool_t *pool,
                        uint64_t *hits,
                        uint64_t *misses,
                        size_t *waiting,
                        sandcell_error_t **error);

// Frees a pool: what waits in it ends. Programs that run go on. NULL is fine.
void sandcell_pool_free(sandcell_pool_t *pool);

// Starts a cell with a name: letters, digits, `_`, `.` and `-`, at most 64. `command` is its main program, whose output is
// the log and with which it ends; NULL for a cell without one. `log_max_size`: bytes of a file of the log, `log_files`: how
// many are kept; 0 for what is usual, 10 MiB and 5. `flags`: SANDCELL_DETACH_ flags.
int sandcell_detach(const sandcell_policy_t *policy,
                    const char *name,
                    const sandcell_command_t *command,
                    uint64_t log_max_size,
                    uint32_t log_files,
                    uint64_t flags,
                    sandcell_named_t **named,
                    sandcell_error_t **error);

// The cell of this name, of the calling user.
int sandcell_named_find(const char *name, sandcell_named_t **named, sandcell_error_t **error);

// What is known of all cells of the calling user, as a JSON array of what sandcell_named_info_json gives; to be freed with
// sandcell_text_free.
int sandcell_named_list_json(char **json,
                             sandcell_error_t **error);

// How it stands, what it uses, and what came of it, as a JSON array with one object; to be freed with sandcell_text_free.
int sandcell_named_info_json(const sandcell_named_t *named,
                             char **json,
                             sandcell_error_t **error);

// The live cell, for all that a cell can do. sandcell_cell_kill ends it for everybody, sandcell_cell_free does not.
int sandcell_named_cell(const sandcell_named_t *named, sandcell_cell_t **cell, sandcell_error_t **error);

// SIGTERM for the main program, and the end of everything after `grace_ms`; waits for that.
int sandcell_named_stop(const sandcell_named_t *named, uint64_t grace_ms, sandcell_error_t **error);

// Ends it now, with everything in it; waits for that.
int sandcell_named_kill(const sandcell_named_t *named, sandcell_error_t **error);

// A signal for the main program.
int sandcell_named_signal(const sandcell_named_t *named, int signal, sandcell_error_t **error);

// Stops everything in it until sandcell_named_resume. It needs a cgroup.
int sandcell_named_pause(const sandcell_named_t *named, sandcell_error_t **error);

// Lets everything in it go on.
int sandcell_named_resume(const sandcell_named_t *named, sandcell_error_t **error);

// Waits for its end, not longer than `timeout_ms`, and puts what came of it into `*result`; NULL there while it lives.
int sandcell_named_wait(const sandcell_named_t *named,
                        uint64_t timeout_ms,
                        sandcell_result_t **result,
                        sandcell_error_t **error);

// Writes all of it to the standard input that SANDCELL_DETACH_KEEP_STDIN has kept. The first call takes it, for this handle
// alone until that is freed; where somebody else has it, that is an error.
int sandcell_named_write(const sandcell_named_t *named,
                         const char *data,
                         size_t length,
                         sandcell_error_t **error);

// Ends that input: the program reads its end.
int sandcell_named_close_stdin(const sandcell_named_t *named, sandcell_error_t **error);

// Removes what it has left when it ended: its outcome and its log.
int sandcell_named_remove(const sandcell_named_t *named, sandcell_error_t **error);

// Frees the handle. The cell lives on. NULL is fine.
void sandcell_named_free(sandcell_named_t *named);

// Its log, from the first line that is still there.
int sandcell_named_log(const sandcell_named_t *named, sandcell_log_t **log, sandcell_error_t **error);

// Goes on at this offset: that of a line, or its `next`. Nothing for NULL.
void sandcell_log_seek(sandcell_log_t *log_of, uint64_t offset);

// The next line, for which it waits no longer than `timeout_ms`; `line->stream` is 0 where none has come, or none will: the
// cell has ended. `line->size` must be set to `sizeof *line` before.
int sandcell_log_next(sandcell_log_t *log_of,
                      uint64_t timeout_ms,
                      sandcell_log_record_t *line,
                      sandcell_error_t **error);

// Frees it. NULL is fine.
void sandcell_log_free(sandcell_log_t *log_of);

// Prepares the way into a cell for one process that the caller forks: its child calls sandcell_entry_join and forks
// again, waits and does nothing else; the child's child calls sandcell_entry_confine and has from then on what a program
// of the cell has. Both must have one thread only, and after an error of either the process must end with _exit(2). Its
// memory is a copy of the caller's, secrets included: this is for what runs with the caller's consent and may fail, such as
// tests, and not for hostile code. The policy's timeout and output limit do not hold for it; sandcell_cell_kill ends it.
int sandcell_cell_entry(const sandcell_cell_t *cell,
                        sandcell_entry_t **cell_entry,
                        sandcell_error_t **error);

// The home of the cell's programs, to be freed with sandcell_text_free.
int sandcell_cell_home(const sandcell_cell_t *cell, char **home, sandcell_error_t **error);

// Working directory inside; that of the policy by default.
int sandcell_entry_chdir(sandcell_entry_t *cell_entry, const char *dir, sandcell_error_t **error);

// File mode creation mask; that of the policy by default.
int sandcell_entry_umask(sandcell_entry_t *cell_entry, uint32_t mask, sandcell_error_t **error);

// Keeps a descriptor under its number; all others are closed. One that is a directory, or only a path, makes
// sandcell_entry_confine fail: it would lead out.
int sandcell_entry_keep_fd(sandcell_entry_t *cell_entry, int fd, sandcell_error_t **error);

// The first step, in a process that was forked for it: enters the cell's namespaces. What it forks now is in the cell.
int sandcell_entry_join(sandcell_entry_t *cell_entry, sandcell_error_t **error);

// The second step, in a process that was forked by one that has joined: becomes what a program of the cell is. The
// entry is used up, and must not be freed there: its descriptors are closed.
int sandcell_entry_confine(sandcell_entry_t *cell_entry, sandcell_error_t **error);

// Frees an entry, where it was made. NULL is fine.
void sandcell_entry_free(sandcell_entry_t *cell_entry);

// How the program ended, as one of the SANDCELL_OUTCOME_ numbers, which stay what they are: for a `switch`. A later version
// may have more. 0 for NULL.
int sandcell_result_outcome_number(const sandcell_result_t *result);

// How the program ended: `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or
// `killed`. The text lives as long as the result; "" for NULL.
const char *sandcell_result_outcome(const sandcell_result_t *result);

// Which time ran out, where the outcome is `timed_out`: `wall` or `cpu`; "" otherwise.
const char *sandcell_result_timed_out_of(const sandcell_result_t *result);

// The status that a shell would show: the program's own, 128 + n for a signal, 124 timed out, 137 out of memory or
// killed, 153 output limit, 159 system call denied; 125 instead of 0 where leftovers make the run a failure. -1 for
// NULL.
int sandcell_result_exit_code(const sandcell_result_t *result);

// The signal that ended the program, 0 where it was none.
int sandcell_result_signal(const sandcell_result_t *result);

// The name (or number) of the system call that was denied; "" where none was.
const char *sandcell_result_syscall(const sandcell_result_t *result);

// What the program wrote to standard output, as far as it was captured. A NUL follows the last byte, which `length` (may
// be NULL) does not count. The bytes live as long as the result.
const char *sandcell_result_stdout(const sandcell_result_t *result,
                                   size_t *length);

// What the program wrote to standard error, in the same way.
const char *sandcell_result_stderr(const sandcell_result_t *result, size_t *length);

// The whole report as one line of JSON, UTF-8: outcome, usage, identity, what was enforced by what, leftovers, changes.
// The text lives as long as the result; "" for NULL.
const char *sandcell_result_report_json(const sandcell_result_t *result);

// What the run used. `usage->size` must be set to `sizeof *usage` before.
int sandcell_result_usage(const sandcell_result_t *result, sandcell_usage_t *usage);

// Who the program was: its UID inside. UINT32_MAX for NULL.
uint32_t sandcell_result_uid(const sandcell_result_t *result);

// The same UID as the host sees it.
uint32_t sandcell_result_host_uid(const sandcell_result_t *result);

// The files that the run changed in its overlay, where sandcell_command_set_track_changes asked for them; otherwise NULL.
// The list belongs to the result.
const sandcell_changes_t *sandcell_result_changes(const sandcell_result_t *result);

// Whether that list is not complete: it would be longer than 40 MiB, or something moved directories meanwhile.
bool sandcell_result_changes_truncated(const sandcell_result_t *result);

// How many processes were alive when the program ended, where sandcell_policy_set_leftovers asked for them.
size_t sandcell_result_leftover_count(const sandcell_result_t *result);

// The command line of one of them; "" beyond the last.
const char *sandcell_result_leftover_command(const sandcell_result_t *result, size_t index);

// The profile that sandcell_command_set_learn asked for, in the form that sandcell_policy_set_seccomp_json takes, to be
// freed with sandcell_text_free; NULL where it was not asked for.
int sandcell_result_learned_json(const sandcell_result_t *result, char **json, sandcell_error_t **error);

// Frees a result. NULL is fine.
void sandcell_result_free(sandcell_result_t *result);

// How many there are; 0 for NULL.
size_t sandcell_changes_count(const sandcell_changes_t *changes);

// One of the SANDCELL_CHANGE_ numbers; 0 beyond the last.
int sandcell_changes_kind(const sandcell_changes_t *changes, size_t index);

// The absolute path inside; "" beyond the last. It lives as long as the list.
const char *sandcell_changes_path(const sandcell_changes_t *changes, size_t index);

// Frees a list that sandcell_cell_changes handed out; those of results belong to them. NULL is fine.
void sandcell_changes_free(sandcell_changes_t *changes);

// Lists everything in a directory whose files belong to ids that were leased for sandboxes, which the caller may not
// even look into otherwise: each directory before what is in it, in the order of the names. No link is followed.
int sandcell_owned_list(const char *tree, sandcell_owned_t **owned, sandcell_error_t **error);

// How many files there are; 0 for NULL.
size_t sandcell_owned_count(const sandcell_owned_t *owned);

// Writes one of them to `*file`, whose `size` must be set to `sizeof *file` before. SANDCELL_ERROR_CONFIG beyond the
// last.
int sandcell_owned_get(const sandcell_owned_t *owned, size_t index, sandcell_owned_entry_t *file);

// Frees a list. NULL is fine.
void sandcell_owned_free(sandcell_owned_t *owned);

// Copies such a directory to `copy`, which must not be there, as the caller's own: without set-user-ID and
// set-group-ID, owners, ACLs and extended attributes. `*left_out` (may be NULL) is how many have no copy: devices, pipes
// and sockets, SANDCELL_OWNED_OTHER in the list.
int sandcell_owned_copy_out(const char *tree,
                            const char *copy,
                            size_t *left_out,
                            sandcell_error_t **error);

// Makes the caller the owner of the directory and of everything in it. Modes stay, without set-user-ID and set-group-ID
// of files. No sandbox may be running on it; a kept upper can be used again afterwards.
int sandcell_owned_reclaim(const char *tree, sandcell_error_t **error);

// Removes the directory and everything in it: any depth, any modes, no link followed.
int sandcell_owned_remove(const char *tree, sandcell_error_t **error);

// Frees a text that a function handed out through a `char **`. NULL is fine.
void sandcell_text_free(char *text);

// A text that every function refuses like any other mistake in its place, because it contains a NUL byte: for wrappers in
// languages whose strings may. Pass it instead of what C would cut off. To be compared by its address only.
const char *sandcell_text_with_nul(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SANDCELL_H */
