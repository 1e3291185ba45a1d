// Runs a program in a sandbox and says how it ended. `npm install koffi` first.
//
//     SANDCELL_LIBRARY=/usr/local/lib/libsandcell.so.0 node run.js /bin/sh -c 'id; echo hello'
const koffi = require('koffi');

const lib = koffi.load(process.env.SANDCELL_LIBRARY ?? 'libsandcell.so.0');
const policyNew = lib.func('void *sandcell_policy_new()');
const setTimeoutMs = lib.func('int sandcell_policy_set_timeout_ms(void *policy, uint64_t milliseconds)');
const run = lib.func(
  'int sandcell_run(void *policy, const char **argv, _Out_ void **result, _Out_ void **error)');
const errorMessage = lib.func('const char *sandcell_error_message(void *error)');
const errorHint = lib.func('const char *sandcell_error_hint(void *error)');
const stdout = lib.func('void *sandcell_result_stdout(void *result, _Out_ size_t *length)');
const outcome = lib.func('const char *sandcell_result_outcome(void *result)');
const exitCode = lib.func('int sandcell_result_exit_code(void *result)');
const free = (name) => lib.func(`void sandcell_${name}_free(void *handle)`);

const policy = policyNew();
setTimeoutMs(policy, 10000);
const [result, error, length] = [[null], [null], [0]];
if (run(policy, [...process.argv.slice(2), null], result, error) !== 0) {
  process.stderr.write(`${errorMessage(error[0])}\nhint: ${errorHint(error[0])}\n`);
  process.exitCode = 125;
} else {
  const output = stdout(result[0], length);
  process.stdout.write(Buffer.from(koffi.decode(output, 'uint8_t', length[0])));
  if (outcome(result[0]) !== 'exited') {
    process.stderr.write(`${outcome(result[0])}\n`);
  }
  process.exitCode = exitCode(result[0]);
}
free('result')(result[0]);
free('error')(error[0]);
free('policy')(policy);
