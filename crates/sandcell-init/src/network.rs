//! The network namespace. To make one takes the kernel as long as half of the mounts, so it is made by a process of
//! its own on another processor meanwhile, which shares memory and descriptors with init and leaves it there.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::rawsys::{self, call, clone_onto, nr};
use crate::wire::stage;
use crate::{At, Fault, spawn, steering};

const WALL: usize = 0x4000_0000;

/// What passes between the two.
struct Network {
    loopback: bool,
    maker: i32,
    begun: AtomicBool,
    made: Result<i32, Fault>,
}

const UNFINISHED: Fault = Fault { stage: stage::NETWORK, errno: rawsys::EPROTO };
static mut NETWORK: Network =
    Network { loopback: false, maker: 0, begun: AtomicBool::new(false), made: Err(UNFINISHED) };

/// Starts making it.
pub fn begin(loopback: bool) -> Result<(), Fault> {
    let network = &raw mut NETWORK;
    // SAFETY: the maker uses `NETWORK` and the stack until it ends, and init only after it has ended.
    unsafe {
        (*network).loopback = loopback;
        let flags = rawsys::CLONE_VM | rawsys::CLONE_FILES;
        let call = rawsys::clone_args(flags, spawn::child_stack(), 0, 0);
        (*network).maker = rawsys::check(clone_onto(nr::CLONE, call, make, network.cast())).at(stage::NETWORK)? as i32;
        // The scheduler leaves it here, behind init, until it balances, which is later than we are done.
        place((*network).maker, Place::Elsewhere);
    }
    Ok(())
}

/// Of the processors that init may run on.
enum Place {
    /// Any other than this one; where there is no other, nothing changes.
    Elsewhere,
    Here,
    Anywhere,
}

/// Where a process runs; should it not be possible, all is only slower.
fn place(pid: i32, place: Place) {
    let mut allowed = [0u8; 1024];
    let mut here = 0u32;
    // SAFETY: a buffer as long as is said, and a place for a number.
    unsafe {
        let Ok(length) = call!(nr::SCHED_GETAFFINITY, 0, allowed.len(), allowed.as_mut_ptr()) else { return };
        if call!(nr::GETCPU, &raw mut here, 0, 0).is_err() {
            return;
        }
        let (byte, bit) = (here as usize / 8, 1 << (here % 8));
        match place {
            Place::Elsewhere => allowed[byte % 1024] &= !bit,
            Place::Here => {
                allowed = [0; 1024];
                allowed[byte % 1024] = bit;
            }
            Place::Anywhere => {}
        }
        let _ = call!(nr::SCHED_SETAFFINITY, pid, length, allowed.as_ptr());
    }
}

/// Waits until it is made, and enters it.
pub fn enter() -> Result<(), Fault> {
    let network = &raw mut NETWORK;
    // SAFETY: after the wait nobody else uses `NETWORK`; it was written behind the compiler's back.
    unsafe {
        let maker = (*network).maker;
        // From here on this processor is free. Where the other one is busy with somebody else, it is the one to run on.
        place(maker, if (*network).begun.load(Relaxed) { Place::Anywhere } else { Place::Here });
        while rawsys::reap(maker, WALL) == Err(rawsys::EINTR) {}
        let namespace = (&raw const (*network).made).read_volatile()?;
        rawsys::setns(namespace, rawsys::CLONE_NEWNET).at(stage::NETWORK_ENTER)?;
        rawsys::close(namespace);
    }
    Ok(())
}

/// # Safety
/// `arg` is `NETWORK`.
unsafe extern "C" fn make(arg: *mut u8) -> ! {
    let network = arg.cast::<Network>();
    // SAFETY: see `begin`.
    unsafe {
        (*network).begun.store(true, Relaxed);
        (&raw mut (*network).made).write_volatile(namespace((*network).loopback));
    }
    rawsys::exit(0)
}

/// A descriptor of a new network namespace: this process moves into it and asks one of its sockets.
fn namespace(loopback: bool) -> Result<i32, Fault> {
    const AF_INET: usize = 2;
    const SOCK_DGRAM: usize = 2;
    const SIOCSIFFLAGS: usize = 0x8914;
    const SIOCGSKNS: usize = 0x894C;
    const IFF_UP: u16 = 1;
    const IFF_RUNNING: u16 = 0x40;
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(IFF_UP | IFF_RUNNING).to_ne_bytes());
    // SAFETY: numbers, and a request with the layout and size of struct ifreq.
    unsafe {
        rawsys::unshare(rawsys::CLONE_NEWNET).at(stage::NETWORK)?;
        let socket = rawsys::socket(AF_INET, SOCK_DGRAM, 0).at(stage::NETWORK)?;
        if loopback {
            call!(nr::IOCTL, socket, SIOCSIFFLAGS, request.as_ptr()).at(stage::LOOPBACK)?;
            add_addresses();
            steering::carry_out()?;
        }
        let namespace = call!(nr::IOCTL, socket, SIOCGSKNS, 0).at(stage::NETWORK)?;
        rawsys::close(socket as i32);
        Ok(namespace as i32)
    }
}

/// Two requests of rtnetlink(7) for interface 1, the loopback: RTM_NEWADDR of 10.0.2.100/32 and of fd00::100/128 (IFA_F_NODAD).
const ADDRESSES: [u8; 76] = [
    32, 0, 0, 0, 20, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr: length, type, NLM_F_REQUEST | CREATE | EXCL
    2, 32, 0, 0, 1, 0, 0, 0, // ifaddrmsg: AF_INET, prefix length, flags, scope, index
    8, 0, 2, 0, 10, 0, 2, 100, // IFA_LOCAL
    44, 0, 0, 0, 20, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, //
    10, 128, 2, 0, 1, 0, 0, 0, // AF_INET6
    20, 0, 1, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, // IFA_ADDRESS, fd00::100
];

/// Gives the loopback an address of each family besides its own: getaddrinfo(3) with AI_ADDRCONFIG takes a family for
/// configured only then. Nothing more is reachable: both are this interface's alone, and there is no route but to them.
fn add_addresses() {
    const AF_NETLINK: usize = 16;
    const SOCK_RAW: usize = 3;
    // Where it cannot be (no IPv6, a filter around the caller) names are looked up as on a host without a network.
    if let Ok(socket) = rawsys::socket(AF_NETLINK, SOCK_RAW, 0) {
        let _ = rawsys::write(socket, &ADDRESSES);
        rawsys::close(socket);
    }
}
