# Runs a program in a sandbox and says how it ended.
#
#     SANDCELL_LIBRARY=/usr/local/lib/libsandcell.so.0 ruby run.rb /bin/sh -c 'id; echo hello'
require 'fiddle/import'

module Sandcell
  extend Fiddle::Importer
  dlload ENV.fetch('SANDCELL_LIBRARY', 'libsandcell.so.0')
  extern 'void *sandcell_policy_new()'
  extern 'int sandcell_policy_set_timeout_ms(void *, unsigned long long)'
  extern 'int sandcell_run(void *, void *, void *, void *)'
  extern 'char *sandcell_error_message(void *)'
  extern 'char *sandcell_error_hint(void *)'
  extern 'void *sandcell_result_stdout(void *, void *)'
  extern 'char *sandcell_result_outcome(void *)'
  extern 'int sandcell_result_exit_code(void *)'
  %w[policy error result].each { |name| extern "void sandcell_#{name}_free(void *)" }
end

def place
  Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
end

policy, result, error, length = Sandcell.sandcell_policy_new, place, place, place
Sandcell.sandcell_policy_set_timeout_ms(policy, 10_000)
texts = ARGV.map { |arg| Fiddle::Pointer[arg] }
argv = Fiddle::Pointer[(texts.map(&:to_i) + [0]).pack('J*')]
if Sandcell.sandcell_run(policy, argv, result, error) != 0
  warn Sandcell.sandcell_error_message(error.ptr), "hint: #{Sandcell.sandcell_error_hint(error.ptr)}"
  status = 125
else
  output = Sandcell.sandcell_result_stdout(result.ptr, length)
  $stdout.write output.to_s(length[0, Fiddle::SIZEOF_SIZE_T].unpack1('J'))
  outcome = Sandcell.sandcell_result_outcome(result.ptr).to_s
  warn outcome unless outcome == 'exited'
  status = Sandcell.sandcell_result_exit_code(result.ptr)
end
Sandcell.sandcell_result_free(result.ptr)
Sandcell.sandcell_error_free(error.ptr)
Sandcell.sandcell_policy_free(policy)
exit status
