//! Rules for the network `user`.

use std::ffi::c_int;

use crate::policy::{Policy, set_text};
use crate::text::Text;

/// Lets a name be reached, such as `pypi.org` or `*.example.org:443`: TCP ports 80 and 443, or those given. The network is `user` then,
/// and everything that no rule allows is refused.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_allow_host(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "allow_host", rule)
}

/// Refuses a name, whatever else is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_deny_host(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "deny_host", rule)
}

/// Lets addresses be reached, private ones too, such as `10.1.0.0/16:5432` or `[2001:db8::/32]:443`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_allow_net(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "allow_net", rule)
}

/// Publishes a port of the sandbox on the host, such as `8080:80`, `0.0.0.0:8080:80` or `5353:53/udp`: at 127.0.0.1 unless an address
/// is given. Port 0 of the host is one that is free: sandcell_child_host_port and sandcell_cell_host_port tell which.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_publish(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "publish", rule)
}

/// Lets a port of the host's own 127.0.0.1 be reached, such as `5432` or `53/udp`, as `host.containers.internal`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_host_port(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "host_port", rule)
}

/// Has connections that the rules allow go by a proxy of the host's network, which looks names up, too: `http://HOST:PORT` (CONNECT)
/// or `socks5://HOST:PORT`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_set_upstream_proxy(policy: Option<&mut Policy>, url: Text<'_>) -> c_int {
    set_text(policy, "upstream_proxy", url)
}

/// Refuses addresses, whatever else is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_policy_add_deny_net(policy: Option<&mut Policy>, rule: Text<'_>) -> c_int {
    set_text(policy, "deny_net", rule)
}
