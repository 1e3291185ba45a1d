/*
 * sandcell: a rootless sandbox for Linux as a call in your own process.
 *
 * Handles    Opaque. Each `_free` takes NULL; freeing twice, or using what was freed, is undefined.
 * Errors     Functions that can fail return 0, or the SANDCELL_ERROR_ number of what went wrong, and put an error object
 *            into `*error`, which is yours to free; `error` may be NULL where only the number is wanted. On success
 *            `*error` is NULL. What was in `*error` and `*result` before is overwritten, never freed.
 *            No last error is kept anywhere, nothing is printed, and nothing here ends your process: a mistake in
 *            sandcell itself is the error SANDCELL_ERROR_INTERNAL.
 * Setters    What a setter refuses it remembers: every later run with that policy fails with that first mistake, so
 *            their numbers need not be looked at. A setter does nothing for a policy that is NULL.
 * Text       Goes in as bytes that end with a NUL (paths, arguments, variables) or UTF-8 (names, words), read during the
 *            call only. What comes out as `const char *` lives as long as its handle; what comes out through a
 *            `char **` is freed with sandcell_text_free.
 * NULL       An error of its own where something is needed; neutral (0, false, "") in functions that only read.
 * Threads    Errors, results, and policies that nobody is changing may be used from several threads at once.
 * Fork       After fork() in a program with threads the child may not call anything here before execve(): see fork(2).
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

// Why a call failed. It never changes: any number of threads may read it at once.
typedef struct sandcell_error_t sandcell_error_t;

// What a sandbox is to be like. To be set up by one thread; then any number of threads may run programs with it.
typedef struct sandcell_policy_t sandcell_policy_t;

// What came of a run. It never changes: any number of threads may read it at once.
typedef struct sandcell_result_t sandcell_result_t;

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

// Frees an error. NULL is fine.
void sandcell_error_free(sandcell_error_t *error);

// Makes a policy in which everything has its default: a read-only view of the host's system directories, private
// temporary directories, a random UID, a private loopback, no limits. NULL only where sandcell itself is broken.
sandcell_policy_t *sandcell_policy_new(void);

// Frees a policy. NULL is fine.
void sandcell_policy_free(sandcell_policy_t *policy);

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

// Who the program is inside: `random` (the default), `root`, `caller`, or numbers as `UID` or `UID:GID`.
int sandcell_policy_set_user(sandcell_policy_t *policy, const char *user_word);

// The host's name inside; `cell-` and six random characters by default.
int sandcell_policy_set_hostname(sandcell_policy_t *policy, const char *name);

// Bytes of memory, page cache included.
int sandcell_policy_set_memory(sandcell_policy_t *policy, uint64_t bytes);

// Bytes of swap on top of the memory; 0 by default where memory is limited.
int sandcell_policy_set_swap(sandcell_policy_t *policy, uint64_t bytes);

// Processes and threads.
int sandcell_policy_set_pids(sandcell_policy_t *policy, uint64_t count);

// CPUs, such as 0.5.
int sandcell_policy_set_cpus(sandcell_policy_t *policy, double cpus);

// CPUs that may be used, as `0-3,8`.
int sandcell_policy_set_cpuset(sandcell_policy_t *policy, const char *list);

// Bytes that the private directories and the throw-away upper may hold together.
int sandcell_policy_set_disk(sandcell_policy_t *policy, uint64_t bytes);

// Files and directories that they may hold together.
int sandcell_policy_set_inodes(sandcell_policy_t *policy, uint64_t count);

// CPU time of all processes together, milliseconds.
int sandcell_policy_set_cpu_time_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// Wall-clock milliseconds that the program may take; then SIGTERM, the grace, SIGKILL to all of it.
int sandcell_policy_set_timeout_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// Milliseconds between SIGTERM and SIGKILL; 2000 by default.
int sandcell_policy_set_grace_ms(sandcell_policy_t *policy, uint64_t milliseconds);

// Bytes that the program may write to stdout and stderr together before it is ended.
int sandcell_policy_set_output_limit(sandcell_policy_t *policy, uint64_t bytes);

// `none`, `loopback` (a private one, the default) or `host`.
int sandcell_policy_set_network(sandcell_policy_t *policy, const char *network);

// `default` (the built-in allow-list) or `off`.
int sandcell_policy_set_seccomp(sandcell_policy_t *policy, const char *filter);

// `default` (what the running kernel can do) or `off`.
int sandcell_policy_set_landlock(sandcell_policy_t *policy, const char *wall);

// Adds an environment variable to the clean default.
int sandcell_policy_add_env(sandcell_policy_t *policy, const char *key, const char *value);

// Passes the caller's environment on.
int sandcell_policy_set_keep_env(sandcell_policy_t *policy, bool keep);

// Working directory inside; the home by default.
int sandcell_policy_set_chdir(sandcell_policy_t *policy, const char *dir);

// File mode creation mask; 022 by default.
int sandcell_policy_set_umask(sandcell_policy_t *policy, uint32_t mask);

// What happens to processes that are alive when the program ends: `kill` (the default), or `report`: they are listed in
// the report and killed.
int sandcell_policy_set_leftovers(sandcell_policy_t *policy, const char *what);

// Goes on where the host cannot enforce `item` (an option's name, such as `memory`, or `all`) and says so in the report.
int sandcell_policy_add_best_effort(sandcell_policy_t *policy,
                                    const char *item);

// How the program ended: `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or
// `killed`. The text lives as long as the result; "" for NULL.
const char *sandcell_result_outcome(const sandcell_result_t *result);

// The status that a shell would show: the program's own, 128 + n for a signal, 124 timed out, 137 out of memory or
// killed, 153 output limit, 159 system call denied. -1 for NULL.
int sandcell_result_exit_code(const sandcell_result_t *result);

// What the program wrote to standard output. A NUL follows the last byte, which `length` (may be NULL) does not count.
// The bytes live as long as the result.
const char *sandcell_result_stdout(const sandcell_result_t *result, size_t *length);

// What the program wrote to standard error, in the same way.
const char *sandcell_result_stderr(const sandcell_result_t *result, size_t *length);

// The whole report as one line of JSON, UTF-8. The text lives as long as the result.
const char *sandcell_result_report_json(const sandcell_result_t *result);

// Nanoseconds from the start of the program to its end.
uint64_t sandcell_result_wall_ns(const sandcell_result_t *result);

// Puts the most memory held at once into `bytes` and returns true; false where nothing on this host counted it.
bool sandcell_result_memory_peak(const sandcell_result_t *result, uint64_t *bytes);

// Frees a result. NULL is fine.
void sandcell_result_free(sandcell_result_t *result);

// Version of the library as text, such as `0.1.0`; SANDCELL_VERSION is that of the header.
const char *sandcell_version(void);

// Runs a program to its end in a sandbox of its own and captures what it writes; its standard input is empty.
// `argv` ends with a NULL, its first is the program. How the program ended is in the result; an error (the return
// value is not 0 then, and the result NULL) means that the sandbox failed or the program could not be executed.
int sandcell_run(const sandcell_policy_t *policy,
                 const char *const *argv,
                 sandcell_result_t **result,
                 sandcell_error_t **error);

// The steps that a run would take, as a JSON array of `{name, subject, words}`, to be freed with sandcell_text_free.
// Nothing is run.
int sandcell_explain_json(const sandcell_policy_t *policy, char **json, sandcell_error_t **error);

// What this host allows, as a JSON array of `{name, ok, detail, remedy}`, to be freed with sandcell_text_free. Found by
// trying: takes some tens of milliseconds and starts a few small sandboxes.
int sandcell_doctor_json(char **json, sandcell_error_t **error);

// Frees a text that a function handed out through a `char **`. NULL is fine.
void sandcell_text_free(char *text);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SANDCELL_H */
