// Runs a program in a sandbox and says how it ended.
//
//	go run run.go /bin/sh -c 'id; echo hello'
package main

// #cgo pkg-config: sandcell
// #include <sandcell.h>
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

func main() {
	policy := C.sandcell_policy_new()
	defer C.sandcell_policy_free(policy)
	C.sandcell_policy_set_timeout_ms(policy, 10000)

	argv := make([]*C.char, len(os.Args)) // the NULL at the end is where the name of this program was
	for i, arg := range os.Args[1:] {
		argv[i] = C.CString(arg)
		defer C.free(unsafe.Pointer(argv[i]))
	}
	var result *C.sandcell_result_t
	var failed *C.sandcell_error_t
	if C.sandcell_run(policy, &argv[0], &result, &failed) != 0 {
		defer C.sandcell_error_free(failed)
		fmt.Fprintf(os.Stderr, "%s\nhint: %s\n",
			C.GoString(C.sandcell_error_message(failed)), C.GoString(C.sandcell_error_hint(failed)))
		os.Exit(125)
	}
	defer C.sandcell_result_free(result)
	var length C.size_t
	output := C.sandcell_result_stdout(result, &length)
	os.Stdout.Write(C.GoBytes(unsafe.Pointer(output), C.int(length)))
	if C.sandcell_result_outcome_number(result) != C.SANDCELL_OUTCOME_EXITED {
		fmt.Fprintln(os.Stderr, C.GoString(C.sandcell_result_outcome(result)))
	}
	os.Exit(int(C.sandcell_result_exit_code(result)))
}
