//! Starts a program: a child that shares init's memory until it executes. Not by CLONE_VFORK: a program may sit in its
//! execve for long, and whoever waits there hears of nothing else.

use core::ffi::CStr;

use core::sync::atomic::{AtomicI32, Ordering};

use crate::listener::{self, Progress};
use crate::rawsys::{self, call, clone_onto, nr};
use crate::system::{self, System};
use crate::terminal::{self, Terminal};
use crate::wire::{self, Ask, NO_SLOT, Reader, stage};
use crate::{At, Fault, end, landlock};

const STACK: usize = 32 * 1024;
const CAP_KILL: u64 = 1 << 5;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// What every program of this sandbox gets.
struct Common {
    keep: u64,
    filter: Option<(&'static [u8], u32)>,
    /// Whether init enters the filter itself, so that programs have it from the start.
    shared: bool,
    /// The same filter with a listener, and whether that one learns.
    listener: Option<(&'static [u8], u32)>,
    learn: bool,
    /// A Landlock ruleset that each program enters by itself, or 0. See `Step::LandlockEach`.
    ruleset: i32,
}

#[repr(C, align(16))]
struct Stack([u8; STACK]);

/// Pointers of a request, as many as most have: more are in memory of their own. In use until the program runs, and there is
/// one request at a time.
const FEW: usize = 256;
static mut POINTERS: [usize; FEW] = [0; FEW];

static mut COMMON: Common = Common { keep: 0, filter: None, shared: false, listener: None, learn: false, ruleset: 0 };
static mut CHILD_STACK: Stack = Stack([0; STACK]);

fn common() -> &'static mut Common {
    // SAFETY: one thread; no reference outlives the statement that takes it, and the child only reads.
    unsafe { &mut *(&raw mut COMMON) }
}

/// The end of the stack of whichever child is on its way: there is never more than one.
pub fn child_stack() -> usize {
    // SAFETY: an address only.
    unsafe { (&raw mut CHILD_STACK).cast::<u8>().add(STACK) as usize }
}

pub fn set_filter(program: &'static [u8], flags: u32) {
    common().filter = Some((program, flags));
}

pub fn share_filter() {
    common().shared = true;
}

/// The last thing that is done while the sandbox is built.
pub fn enter_filter() -> Result<(), Fault> {
    if !common().shared {
        return Ok(());
    }
    if let Some((program, flags)) = common().filter.take() {
        rawsys::set_no_new_privs().at(stage::PROGRAM_NO_NEW_PRIVS)?;
        install(program, flags).at(stage::PROGRAM_SECCOMP)?;
    }
    Ok(())
}

pub fn set_listener(program: &'static [u8], flags: u32, learn: bool) {
    common().listener = Some((program, flags));
    common().learn = learn;
}

pub fn set_ruleset(ruleset: i32) {
    common().ruleset = ruleset;
}

/// Whether each program enters a Landlock domain by itself: there is no PID namespace then.
pub fn has_ruleset() -> bool {
    common().ruleset > 0
}

/// Whether programs start beside a go-between that takes the listener of their filter.
pub fn listens() -> bool {
    common().listener.is_some()
}

/// Whether the listener only notes what is called.
pub fn learns() -> bool {
    common().learn
}

/// See `rawsys::bound_capabilities`.
pub fn bound_capabilities(keep: u64) -> Result<(), Fault> {
    common().keep = keep;
    const CAP_SETPCAP: u32 = 8;
    match rawsys::bound_capabilities(keep) {
        // Without a user namespace an ordinary caller may not; nor can its programs get one (no_new_privs).
        Err(rawsys::EPERM) if !end::is_first() && !rawsys::has_capability(CAP_SETPCAP) => Ok(()),
        answer => answer.at(stage::BOUNDING),
    }
}

/// All is built: init keeps only what it needs to end its programs and to give them theirs.
pub fn shed_capabilities() -> Result<(), Fault> {
    let enters = if system::is_expected() { CAP_SYS_ADMIN } else { 0 };
    let own = if end::is_first() { common().keep | CAP_KILL | enters } else { 0 };
    rawsys::clear_ambient().at(stage::BOUNDING)?;
    rawsys::set_capabilities(own, own, 0).at(stage::BOUNDING)
}

/// Signals as a fresh program expects them: nothing ignored, whatever the caller did.
pub fn default_signals() -> Result<(), Fault> {
    // SIGKILL and SIGSTOP refuse, and cannot be ignored.
    for signal in (1..=64).filter(|&signal| signal != rawsys::SIGKILL && signal != rawsys::SIGSTOP) {
        rawsys::default_signal(signal).at(stage::SIGNALS)?;
    }
    Ok(())
}

/// A request, read once and laid out for execve.
pub struct Request {
    bytes: &'static [u8],
    /// Whether those are a mapping of their own.
    mapped: bool,
    pub flags: u32,
    umask: u32,
    pub timeout: u64,
    pub grace: u64,
    pub output_limit: u64,
    /// `RELAY_` bits.
    pub relay: u32,
    pub terminal: Option<Terminal>,
    system: Option<System>,
    work_dir: Option<&'static CStr>,
    /// argv, NULL, envp, NULL in memory of their own.
    pointers: *mut usize,
    pointer_bytes: usize,
    environment: usize,
}

impl Request {
    /// Reads and checks all of it before anything is started.
    pub fn read(bytes: &'static [u8], mapped: bool) -> Result<Request, Fault> {
        let malformed = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
        let mut request = Request {
            bytes,
            mapped,
            flags: 0,
            umask: 0o22,
            timeout: 0,
            grace: 0,
            output_limit: 0,
            relay: 0,
            terminal: None,
            system: None,
            work_dir: None,
            pointers: core::ptr::null_mut(),
            pointer_bytes: 0,
            environment: 0,
        };
        let (mut arguments, mut variables, mut programs) = (0, 0, 0);
        for ask in request.asks() {
            match ask.map_err(|_| malformed)? {
                Ask::Settings { flags, umask, timeout, grace, output_limit } => {
                    (request.flags, request.umask) = (flags, umask);
                    (request.timeout, request.grace, request.output_limit) = (timeout, grace, output_limit);
                }
                Ask::WorkDir { path } => request.work_dir = Some(path),
                Ask::Argument { .. } => arguments += 1,
                Ask::Variable { .. } => variables += 1,
                Ask::Program { .. } => programs += 1,
                Ask::Relay { streams } => request.relay = streams,
                Ask::Terminal { streams, flags, size, modes } => {
                    request.terminal = Some(Terminal { streams, flags, size, modes });
                }
                Ask::System { index, masked, restricted } => {
                    request.system = Some(System { index, masked, restricted });
                }
                // More than the kernel allows (fs.nr_open), and room to count on.
                Ask::Descriptor { number, .. } | Ask::Null { number } if number > i32::MAX as u32 / 2 => {
                    return Err(malformed);
                }
                Ask::Rlimit { .. } | Ask::Descriptor { .. } | Ask::Null { .. } | Ask::Ignore { .. } => {}
            }
        }
        if programs == 0 || arguments == 0 {
            return Err(malformed);
        }
        request.pointer_bytes = (arguments + variables + 2) * size_of::<usize>();
        request.environment = arguments + 1;
        request.point(arguments, variables)?;
        Ok(request)
    }

    /// Makes argv and envp, which point into the request.
    fn point(&mut self, arguments: usize, variables: usize) -> Result<(), Fault> {
        const PROT_READ_WRITE: usize = 3;
        const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
        // SAFETY: a buffer or a new anonymous mapping, filled within its bounds: the same records are counted and stored.
        unsafe {
            let (bytes, protection) = (self.pointer_bytes, PROT_READ_WRITE);
            self.pointers = if bytes <= size_of_val(&*(&raw const POINTERS)) {
                (&raw mut POINTERS).cast()
            } else {
                let mapped = call!(nr::MMAP, 0, bytes, protection, MAP_PRIVATE_ANONYMOUS, -1i32, 0);
                mapped.at(stage::MAP_REQUEST)? as *mut usize
            };
            self.pointers.add(arguments).write(0);
            self.pointers.add(arguments + 1 + variables).write(0);
            let (mut argument, mut variable) = (0, self.environment);
            for ask in self.asks() {
                match ask {
                    Ok(Ask::Argument { text }) => {
                        self.pointers.add(argument).write(text.as_ptr() as usize);
                        argument += 1;
                    }
                    Ok(Ask::Variable { text }) => {
                        self.pointers.add(variable).write(text.as_ptr() as usize);
                        variable += 1;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn asks(&self) -> impl Iterator<Item = Result<Ask<'static>, wire::Malformed>> + use<> {
        let mut reader = Reader::new(self.bytes);
        let mut broken = false;
        core::iter::from_fn(move || {
            if broken {
                return None;
            }
            let next = Ask::next(&mut reader).transpose();
            broken = matches!(next, Some(Err(_)));
            next
        })
    }

    /// The index, in the message, of the descriptor that becomes `number`; `NO_SLOT` where it is /dev/null.
    pub fn descriptor(&self, number: u32) -> u32 {
        self.asks().fold(NO_SLOT, |found, ask| match ask {
            Ok(Ask::Descriptor { index, number: n }) if n == number => index,
            _ => found,
        })
    }

    /// The highest number that a descriptor of the program gets.
    pub fn highest(&self) -> u32 {
        self.asks().fold(2, |most, ask| match ask {
            Ok(Ask::Descriptor { number, .. }) => most.max(number),
            _ => most,
        })
    }

    pub fn free(self) {
        if self.pointer_bytes > FEW * size_of::<usize>() {
            // SAFETY: the mapping was made by `read`; the program has its own copies by now.
            let _ = unsafe { call!(nr::MUNMAP, self.pointers, self.pointer_bytes) };
        }
        if self.mapped {
            crate::unmap(self.bytes);
        }
    }
}

/// What the child needs, and where it leaves what failed.
pub struct Start<'a> {
    pub request: &'a Request,
    /// The descriptors of the message, index by index.
    fds: &'a [i32],
    /// The program's end of its terminal, or -1.
    slave: i32,
    /// What was made ahead: a session, and a descriptor of /dev/null or -1.
    pub has_session: bool,
    pub null: i32,
    pub fault: Option<Fault>,
    pub progress: Progress,
}

impl<'a> Start<'a> {
    pub fn new(request: &'a Request, fds: &'a [i32], slave: i32) -> Start<'a> {
        Start { request, fds, slave, has_session: false, null: -1, fault: None, progress: Progress::new() }
    }
}

/// What is called now and then while a program is long in being executed, with its number.
pub type Tend<'a> = &'a mut dyn FnMut(i32);

/// Waits until the kernel has zeroed the word of a child that shares our memory: it has executed or ended.
pub fn until_zero(word: &AtomicI32, mut tend: impl FnMut()) {
    const LOOK: [u64; 2] = [0, 50_000_000];
    const ETIMEDOUT: i32 = 110;
    loop {
        let value = word.load(Ordering::Acquire);
        if value == 0 {
            return;
        }
        let waited = rawsys::futex_wait(word, value, &LOOK);
        if waited == Err(ETIMEDOUT) {
            tend();
        }
    }
}

/// Starts the program; its pid and a pidfd of it.
pub fn start(request: &Request, fds: &[i32], slave: i32, tend: Tend<'_>) -> Result<(i32, i32), Fault> {
    let mut start = Start::new(request, fds, slave);
    let mut pidfd = -1i32;
    let shares = AtomicI32::new(1);
    let mut flags = rawsys::CLONE_VM | rawsys::CLONE_PIDFD | rawsys::CLONE_CHILD_CLEARTID | rawsys::SIGCHLD as u64;
    match request.system {
        Some(_) => flags |= rawsys::CLONE_NEWPID,
        None => system::enter()?,
    }
    // SAFETY: this process waits below while the child uses the stack and `start`.
    let result = unsafe {
        let args = rawsys::clone_args(flags, child_stack(), &raw mut pidfd as usize, shares.as_ptr() as usize);
        clone_onto(nr::CLONE, args, child, (&raw mut start).cast())
    };
    let pid = rawsys::check(result).at(stage::CLONE)? as i32;
    until_zero(&shares, || tend(pid));
    // SAFETY: the child may have written the fault behind the compiler's back, and is gone from our memory.
    match unsafe { (&raw const start.fault).read_volatile() } {
        None if request.system.is_some() => system::began(pidfd).map(|()| (pid, pidfd)),
        None => Ok((pid, pidfd)),
        Some(fault) => {
            rawsys::close(pidfd);
            let _ = rawsys::reap(pid, 0);
            Err(fault)
        }
    }
}

/// # Safety
/// `arg` is the `Start` of a parent that waits.
pub unsafe extern "C" fn child(arg: *mut u8) -> ! {
    // SAFETY: see above.
    let start = unsafe { &mut *arg.cast::<Start<'_>>() };
    let (Ok(fault) | Err(fault)) = become_program(start);
    start.fault = Some(fault);
    rawsys::exit(127);
}

/// Becomes the program; comes back only with what failed.
fn become_program(start: &Start<'_>) -> Result<Fault, Fault> {
    let request = start.request;
    let common = common();
    if let Some(system) = &request.system {
        system.begin(start.fds)?;
    }
    if common.ruleset > 0 {
        // Before the descriptors are placed: one of them may get the ruleset's number.
        landlock::restrict(common.ruleset).at(stage::LANDLOCK_ENTER)?;
        rawsys::set_parent_death_signal(rawsys::SIGKILL).at(stage::PROGRAM_SIGNALS)?;
    }
    match start.slave {
        -1 if start.has_session => {}
        -1 => rawsys::setsid().at(stage::PROGRAM_SESSION)?,
        slave => terminal::come_to_foreground(slave).at(stage::TERMINAL_CONTROL)?,
    }
    place_descriptors(start).at(stage::PROGRAM_STDIO)?;
    rawsys::umask(request.umask).at(stage::PROGRAM_UMASK)?;
    for ask in request.asks() {
        if let Ok(Ask::Rlimit { resource, soft, hard }) = ask {
            rawsys::set_rlimit(resource as usize, &[soft, hard]).at(stage::PROGRAM_RLIMIT)?;
        }
    }
    ignore_signals(request).at(stage::PROGRAM_SIGNALS)?;
    drop_capabilities(common.keep).at(stage::PROGRAM_CAPABILITIES)?;
    // Without capabilities already: a directory that the program could not enter, init does not enter for it.
    if let Some(path) = request.work_dir {
        rawsys::chdir(path).at(stage::PROGRAM_CHDIR)?;
    }
    rawsys::set_no_new_privs().at(stage::PROGRAM_NO_NEW_PRIVS)?;
    rawsys::set_signal_mask(&0).at(stage::PROGRAM_SIGNALS)?;
    install_filters(common, &start.progress).at(stage::PROGRAM_SECCOMP)?;
    Ok(execute_first(request))
}

/// The child has a table of its own (no CLONE_SIGHAND), and what is ignored stays so over execve(2).
fn ignore_signals(request: &Request) -> Result<(), i32> {
    for ask in request.asks() {
        let Ok(Ask::Ignore { signals }) = ask else { continue };
        for signal in (1..=64).filter(|signal| signals >> (signal - 1) & 1 == 1) {
            rawsys::ignore_signal(signal)?;
        }
    }
    Ok(())
}

/// From here on the child may do nothing but execute.
fn install_filters(common: &Common, progress: &Progress) -> Result<(), i32> {
    if let Some((program, flags)) = common.listener {
        match install(program, flags) {
            Ok(fd) => {
                progress.listener.store(fd as i32, Ordering::Release);
                return Ok(());
            }
            // Somebody around the caller listens already: one listener is all that the kernel allows. (EINVAL: one
            // without listeners.) The same filter without one ends programs too, but cannot tell us for what.
            Err(rawsys::EBUSY | rawsys::EINVAL) if common.filter.is_some() => {}
            Err(errno) => return Err(errno),
        }
    }
    if let Some((program, flags)) = common.filter {
        install(program, flags)?;
    }
    progress.listener.store(listener::NONE, Ordering::Release);
    Ok(())
}

fn install(program: &[u8], flags: u32) -> Result<usize, i32> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct FilterProgram {
        length: u16,
        instructions: *const u8,
    }
    let filter = FilterProgram { length: (program.len() / 8) as u16, instructions: program.as_ptr() };
    // SAFETY: the layout of struct sock_fprog; the instructions are as many as is said.
    unsafe { call!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &raw const filter) }
}

/// As execvp(3) does: the first candidate that is there; permission denied only if none is.
fn execute_first(request: &Request) -> Fault {
    let mut fault = Fault { stage: stage::PROGRAM_EXEC, errno: rawsys::ENOENT };
    for ask in request.asks() {
        let Ok(Ask::Program { path }) = ask else { continue };
        // SAFETY: the pointer arrays end in NULL and point into the request.
        let errno = unsafe {
            let environment = request.pointers.add(request.environment);
            match call!(nr::EXECVE, path.as_ptr(), request.pointers, environment) {
                Ok(_) => continue,
                Err(errno) => errno,
            }
        };
        match errno {
            rawsys::ENOENT | rawsys::ENOTDIR => {
                if fault.errno == rawsys::ENOENT && exists(path) {
                    return Fault { stage: stage::PROGRAM_INTERPRETER, errno };
                }
            }
            rawsys::EACCES => fault.errno = errno,
            _ => return Fault { stage: stage::PROGRAM_EXEC, errno },
        }
    }
    fault
}

fn exists(path: &CStr) -> bool {
    rawsys::open(path, rawsys::O_PATH).is_ok()
}

/// Puts the descriptors where the request wants them; everything else is closed by the exec.
fn place_descriptors(start: &Start<'_>) -> Result<(), i32> {
    let highest = start.request.highest();
    let streams = start.request.terminal.map_or(0, |terminal| terminal.streams);
    let is_terminal = |number: &u32| streams >> number & 1 == 1;
    // First out of the way of all targets, then into place, so that none overwrites another.
    let mut moved = [-1i32; crate::socket::MOST_DESCRIPTORS];
    for ask in start.request.asks() {
        if let Ok(Ask::Descriptor { index, .. }) = ask {
            let fd = *start.fds.get(index as usize).ok_or(rawsys::EPROTO)?;
            moved[index as usize] = rawsys::dup_above(fd, highest + 1)?;
        }
    }
    let slave = if streams == 0 { 0 } else { rawsys::dup_above(start.slave, highest + 1)? };
    for number in (0..3).filter(is_terminal) {
        rawsys::dup3(slave, number, 0)?;
    }
    for ask in start.request.asks() {
        match ask {
            Ok(Ask::Descriptor { index, number }) => {
                rawsys::dup3(moved[index as usize], number, 0)?;
            }
            Ok(Ask::Null { number }) => {
                // Numbers of the request are above it, or the standard streams' own.
                let null = if start.null > highest as i32 { start.null } else { open_null()? };
                rawsys::dup3(null, number, 0)?;
            }
            _ => {}
        }
    }
    // Close-on-exec on all, then off again on what was placed.
    rawsys::cloexec_from(3)?;
    for ask in start.request.asks() {
        if let Ok(Ask::Descriptor { number, .. }) = ask {
            rawsys::set_fd_flags(number, 0)?;
        }
    }
    Ok(())
}

pub fn open_null() -> Result<i32, i32> {
    rawsys::open(c"/dev/null", rawsys::O_RDWR)
}

fn drop_capabilities(keep: u64) -> Result<(), i32> {
    rawsys::set_capabilities(keep, keep, keep)?;
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            rawsys::raise_ambient(capability)?;
        }
    }
    Ok(())
}
