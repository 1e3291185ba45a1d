//! What a program does while it is learned from: a name, and Python. Each prints `begun` before and, where it comes to
//! that, `done` after; then the program ends.

/// Whether it comes to an end by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Always, and with `done`.
    Done,
    /// By what it does to itself, one way or the other.
    Somehow,
    /// Never.
    Not,
}
use Ends::{Done, Not, Somehow};

pub const PREAMBLE: &str = "
import ctypes, mmap, os, random, resource, signal, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
random.seed(7)
def call(number, *arguments):
    answer = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(word) for word in arguments])
    return ctypes.get_errno() if answer == -1 else 0
def machine(code):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex(code))
    kept.append(page)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
def alone(work, *arguments):
    # In a child: whatever it does to itself.
    pid = os.fork()
    if pid == 0:
        try: work(*arguments)
        finally: os._exit(0)
    return os.waitpid(pid, 0)[1]
def many(count, work):
    for _ in range(count - 1):
        if os.fork() == 0: break
    while True: work()
def threads(count, work):
    for _ in range(count): threading.Thread(target=work, daemon=True).start()
def filter_of(words, flags=0, operation=1):
    code = (ctypes.c_uint64 * len(words))(*[value << 32 | op for op, value in words])
    program = (ctypes.c_uint64 * 2)(len(words), ctypes.addressof(code))
    libc.prctl(38, 1, 0, 0, 0)
    answer = libc.syscall(317, operation, flags, program)
    return ctypes.get_errno() if answer == -1 else answer
kept = []
EDGES = [0, 1, -1, 2**63 - 1, -2**63, 2**32, 2**31, 255, 4096, 0x7ffffffff000, -4096]
print('begun', flush=True)
";

pub const ALL: &[(&str, Ends, &str)] = &[
    // Numbers.
    ("the number -1", Done, "for _ in range(100): call(-1)"),
    ("the largest numbers", Done, "for n in (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -2**63): call(n, 1, 2, 3)"),
    ("numbers with something above 32 bits", Done, "for n in range(1, 2000): call(n << 32 | 39)"),
    ("numbers around the end of what is noted", Done, "for n in range(1000, 1100): call(n, *EDGES[:6])"),
    ("numbers that no table has", Done, "for n in range(480, 5000): call(n)"),
    ("random numbers", Done, "for _ in range(5000): call(random.randrange(600, 2**31))"),
    ("numbers of x32", Done, "print([call(0x40000000 + n) for n in range(600)].count(38))"),
    ("x32 with bits above", Done, "for n in range(600): call(0x7fffffff40000000 + n)"),
    ("execve of x32", Done, "print(call(0x40000000 + 520, 0, 0, 0), call(0x40000000 + 59, 0, 0, 0))"),
    // Other ways into the kernel.
    ("int 0x80: getpid", Done, "print(alone(machine('b814000000cd80c3')))"),
    ("int 0x80: execve", Done, "print(alone(machine('31db31c931d2b80b000000cd80c3')))"),
    ("int 0x80: all numbers", Done, "
for n in range(0, 450, 9): alone(machine('53b8' + struct.pack('<I', n).hex() + '31db31c931d2cd805bc3'))"),
    ("int 0x80 in a thread beside others", Somehow, "
threads(8, lambda: [call(39) for _ in range(10**6)])
machine('b814000000cd80c3')()"),
    ("sysenter", Done, "alone(machine('b8140000000f34c3'))"),
    ("calls of the vsyscall page", Done, "
for n in range(3): alone(ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)(0xffffffffff600000 + 1024 * n), 0, 0)"),
    ("a jump into the vsyscall page", Done, "
for n in (1, 9, 700, 4095): alone(ctypes.CFUNCTYPE(ctypes.c_long)(0xffffffffff600000 + n))"),
    ("a call with no stack", Done, "alone(machine('4831e4b8270000000f05cc'))"),
    ("a far return into 32 bits", Done, "alone(machine('6a236800000000cb'))"),
    // Arguments.
    ("edges as arguments of everything harmless", Done, "
for n in (39, 102, 4, 5, 6, 21, 83, 84, 86, 87, 88, 137, 138, 160, 191, 257, 262, 332, 437, 439, 452):
    for _ in range(40): call(n, *[random.choice(EDGES) for _ in range(6)])"),
    ("pointers into the kernel", Done, "
for n in (1, 20, 21, 59, 257, 262, 332): call(n, 1, -2**47, -2**46, -1, -4095, 0xffffffff81000000 - 2**64)"),
    ("a path without an end", Done, "
page = mmap.mmap(-1, 1 << 26); page.write(b'x' * (1 << 26))
for n in (21, 59, 83, 87): call(n, ctypes.addressof(ctypes.c_char.from_buffer(page)), 0, 0)"),
    ("write of more than there is", Done, "for n in (2**31, 2**40, 2**63 - 1): call(1, os.open('/dev/null', 1), 0, n)"),
    ("execve with all arguments that the kernel takes", Done, "
alone(os.execv, '/bin/true', ['x' * 100000] * 18)
try: os.execv('/bin/true', ['x' * 131072] * 1000)
except OSError as error: print(error.strerror)"),
    ("prctl with everything", Somehow, "
for n in list(range(1, 80)) + [0x53564d41, 0x59616d61, 2**31, -1]:
    alone(lambda: [call(157, n, random.choice(EDGES), random.choice(EDGES), 0, 0) for _ in range(4)])"),
    ("arch_prctl with everything", Done, "
for n in list(range(0x1001, 0x1030)) + list(range(0x2001, 0x2004)) + list(range(0x4001, 0x4005)) + list(range(0x5001, 0x5006)):
    alone(call, 158, n, random.choice(EDGES))"),
    ("clone3 of any size", Done, "
for size in (0, 8, 63, 64, 88, 4096, 2**31, -1): alone(call, 435, ctypes.addressof(ctypes.create_string_buffer(1 << 17)), size)"),
    ("clone with every flag", Somehow, "
for bit in range(8, 40):
    if bit not in (8, 14, 16): alone(lambda: os._exit(0) if libc.syscall(56, 1 << bit | 17, 0, 0, 0, 0) == 0 else None)"),
    // Without end.
    ("calls without end", Not, "while True: call(39)"),
    ("calls without end in 32 threads", Not, "
code = machine('b8270000000f05ebf7')
threads(32, code)
while True: time.sleep(1)"),
    ("calls without end in 64 processes", Not, "
code = machine('b8270000000f05ebf7')
many(64, code)"),
    ("refused calls without end", Not, "while True: call(161, 0)"),
    ("unknown calls without end", Not, "
code = machine('b8ffffff3f0f05ebf7')
many(8, code)"),
    ("forks without end", Not, "
def storm():
    try:
        if os.fork() == 0: os._exit(0)
        os.waitpid(-1, 0)
    except OSError: pass
many(8, storm)"),
    ("orphans without end", Not, "
def storm():
    try:
        if os.fork() == 0:
            for _ in range(8):
                if os.fork() == 0: os._exit(0)
            os._exit(0)
        os.waitpid(-1, 0)
    except OSError: pass
many(4, storm)"),
    ("sessions without end", Not, "
def storm():
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.01)
            os._exit(0)
    except OSError: time.sleep(0.01)
    try: os.waitpid(-1, os.WNOHANG)
    except OSError: pass
many(2, storm)"),
    ("threads without end", Not, "
while True:
    thread = threading.Thread(target=call, args=(39,)); thread.start(); thread.join()"),
    ("vfork without end", Not, "
import subprocess
while True: subprocess.call(['/bin/true'])"),
    ("execve without end", Not, "
open('/tmp/again', 'w').write('exec /bin/sh /tmp/again')
os.execv('/bin/sh', ['sh', '/tmp/again'])"),
    ("a call that restarts for each signal", Not, "
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.00002, 0.00002)
while True: call(39)"),
    ("signals to the first process without end", Not, "
def storm():
    for number in range(1, 65):
        if number != 9: libc.kill(1, number)
many(4, storm)"),
    ("every process stops another", Not, "
pids = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        while True: call(39)
    pids.append(pid)
while True:
    for pid in pids: os.kill(pid, signal.SIGSTOP); os.kill(pid, signal.SIGCONT)"),
    ("output without end", Not, "while True: os.write(1, b'x' * 65536)"),
    ("a vfork that never comes back", Not, "libc.vfork() or [time.sleep(100) for _ in iter(int, 1)]"),
    // Dying while somebody is told of it.
    ("killed in a call", Done, "
code = machine('b8270000000f05ebf7')
for _ in range(300):
    pid = os.fork()
    if pid == 0: code()
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)"),
    ("threads that end while others call", Done, "
def work():
    threads(4, lambda: [call(39) for _ in range(10**6)])
    os._exit(0)
for _ in range(30): alone(work)"),
    ("execve while threads call", Done, "
def work():
    threads(4, lambda: [call(39) for _ in range(10**6)])
    os.execv('/bin/true', ['true'])
for _ in range(20): alone(work)"),
    ("the first thread ends and the others go on", Not, "
code = machine('b8270000000f05ebf7')
threads(4, code)
call(60, 0)"),
    ("itself killed in a call", Somehow, "
code = machine('b8270000000f05ebf7')
threads(8, code)
os.kill(os.getpid(), signal.SIGKILL)"),
    ("itself stopped", Not, "os.kill(os.getpid(), signal.SIGSTOP)"),
    ("a crash in each of many children", Done, "for _ in range(50): alone(ctypes.string_at, 8)"),
    ("an abort", Somehow, "os.abort()"),
    ("out of CPU time", Somehow, "
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
while True: pass"),
    ("a return from no signal", Done, "for _ in range(20): alone(call, 15)"),
    ("a restart of no call", Done, "for _ in range(100): call(219)"),
    // The filter and its listener.
    ("a listener of its own", Done, "print(filter_of([(6, 0x7fff0000)], 8), filter_of([(6, 0x7fff0000)], 8 | 16 | 1))"),
    ("a filter that tells a listener that is not there", Done, "
def work():
    filter_of([(6, 0x7fc00000)])
    while True: call(39)
pid = os.fork()
if pid == 0: work()
time.sleep(0.2); os.kill(pid, 9); os.waitpid(pid, 0)"),
    ("a filter that kills", Done, "
for action in (0, 0x80000000, 0x30000, 0x7ff00000, 0x50000 + 4095, 0x7ffc0000): alone(lambda: (filter_of([(6, action)]), call(39)))"),
    ("a thousand filters", Done, "
def work():
    for _ in range(1000):
        if filter_of([(6, 0x7fff0000)] * 100) != 0: break
alone(work)"),
    ("a filter that is none", Done, "
for words in ([], [(0xffff, 1)], [(6, 1)] * 5000, [(5, 2**31)], [(0x20, 63), (6, 0)]): filter_of(words or [(0, 0)], 0)
for flags in range(64): filter_of([(0xffff, 0)], flags)
for operation in range(2, 9): filter_of([(6, 0x7fff0000)], 0, operation)"),
    ("strict mode", Done, "alone(lambda: (libc.prctl(22, 1), os._exit(0)))"),
    ("the requests of a listener on every descriptor", Done, "
box = ctypes.create_string_buffer(4096)
for fd in range(256):
    for request in (0xc0502100, 0xc0182101, 0x40082102, 0x80082102, 0x40182103, 0x40082104): libc.ioctl(fd, ctypes.c_ulong(request), box)"),
    ("descriptors of the first process", Done, "
pidfd = libc.syscall(434, 1, 0)
for fd in range(64): call(438, pidfd, fd, 0)
for name in ('fd', 'fdinfo', 'map_files', 'mem', 'environ', 'maps', 'syscall', 'stack', 'task/1/fd/3'):
    try: print(os.listdir('/proc/1/' + name))
    except OSError: pass
    try: print(open('/proc/1/' + name, 'rb').read(100))
    except OSError: pass"),
    ("the first process traced and written to", Done, "
for request in (0x4206, 16, 0x4207): call(101, request, 1, 0, 0)
box = ctypes.create_string_buffer(64)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(box), 64)
for n in (310, 311, 440, 448): call(n, 1, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)"),
    ("calls that come back to the program", Done, "
def work():
    box = ctypes.create_string_buffer(b'\\x01')
    libc.prctl(59, 1, 0, 0, ctypes.addressof(box))
    call(39)
alone(work)"),
    ("a child traced in its calls", Somehow, "
pid = os.fork()
if pid == 0:
    call(101, 0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    while True: call(39)
os.waitpid(pid, os.WUNTRACED)
for _ in range(200):
    if call(101, 24, pid, 0, 0): break
    os.waitpid(pid, os.WUNTRACED)
os.kill(pid, 9)"),
    // Descriptors, limits, places.
    ("no descriptors", Done, "
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
for _ in range(1000): call(39)"),
    ("all descriptors", Done, "
try:
    while True: kept.append(os.dup(0))
except OSError: pass
for _ in range(1000): call(39)"),
    ("everything closed", Done, "
out = os.dup2(1, 200)
os.closerange(0, 200); os.closerange(201, 65536)
for _ in range(1000): call(39)
os.dup2(out, 1)"),
    ("idle and slow", Done, "
os.nice(19)
try: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except OSError: pass
for _ in range(1000): call(39)"),
    ("namespaces", Done, "
for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80): alone(call, 272, bit)
for n in (161, 155, 165, 308, 428, 429, 430, 432, 442): alone(call, n, 0, 0, 0, 0, 0)"),
    ("rings, faults, keys and programs of the kernel", Done, "
for n in (425, 426, 427, 323, 248, 249, 250, 321, 298, 246, 320, 175, 313, 103, 304, 447): alone(call, n, *EDGES[:6])"),
    ("a program of memory", Done, "
fd = os.memfd_create('x'); os.write(fd, open('/bin/true', 'rb').read())
alone(os.execve, fd, ['x' * 4096], {})
alone(call, 322, fd, ctypes.addressof(ctypes.create_string_buffer(b'')), 0, 0, 0x1000)"),
    ("another personality", Done, "for n in (8, 0x40000, 0x8000000, 2**32 - 2, 0xffffffff): alone(call, 135, n)"),
    ("names and titles", Done, "
for name in (b'\\x1b[2J', b'\\xff' * 15, b'', b'a\\nb'): libc.prctl(15, name); call(39)"),
    ("what stays when the program ends", Done, "
for n in range(50):
    if os.fork() == 0:
        os.setsid()
        while True: call(39)"),
    ("what ends with the program", Somehow, "
for n in range(50):
    if os.fork() == 0:
        while True: call(39)
os._exit(7)"),
    ("a deep chain of children", Done, "
for _ in range(60):
    if os.fork(): os.wait(); os._exit(0)
call(39)"),
    ("its own output closed by its end", Somehow, "os.close(1); os.close(2); os.kill(os.getpid(), signal.SIGSEGV)"),
];
