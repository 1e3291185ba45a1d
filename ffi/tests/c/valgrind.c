/* Lets programs under valgrind make the system calls that it does not know: those that came with Linux 5.1 or later,
 * where they go through syscall(3). Linked into a program it does nothing elsewhere. */
#include <errno.h>
#include <valgrind/valgrind.h>

enum { FIRST_UNKNOWN = 424 }; /* pidfd_send_signal */

/* Runs on the processor, not on valgrind's own. */
static long native(unsigned thread, const long *call)
{
    register long fourth __asm__("r10") = call[4];
    register long fifth __asm__("r8") = call[5];
    register long sixth __asm__("r9") = call[6];
    long result;
    (void)thread;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(call[0]), "D"(call[1]), "S"(call[2]), "d"(call[3]), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

long I_WRAP_SONAME_FNNAME_ZU(libcZdsoZd6, syscall)(long, long, long, long, long, long, long);

long I_WRAP_SONAME_FNNAME_ZU(libcZdsoZd6, syscall)(long number, long a, long b, long c, long d, long e, long f)
{
    const long call[] = {number, a, b, c, d, e, f};
    long result;
    OrigFn original;
    VALGRIND_GET_ORIG_FN(original);
    if (number < FIRST_UNKNOWN) {
        CALL_FN_W_7W(result, original, number, a, b, c, d, e, f);
        return result;
    }
    result = (long)VALGRIND_NON_SIMD_CALL1(native, call);
    if (result >= 0 || result < -4095)
        return result;
    errno = (int)-result;
    return -1;
}
