//! What can fail inside a step or a start, by numbers that travel and names that stay.

/// Makes the list of what can fail inside a step or a start, with the words for it.
macro_rules! stages {
    ($( $(#[$meta:meta])* $constant:ident = $number:literal, $name:literal, $words:literal; )*) => {
        /// What in a step or a start failed.
        pub mod stage {
            $( $(#[$meta])* pub const $constant: u32 = $number; )*

            /// The stable name and the words.
            #[cfg(feature = "write")]
            pub fn describe(stage: u32) -> (&'static str, &'static str) {
                match stage {
                    $( $number => ($name, $words), )*
                    _ => ("unknown", "an unknown step failed"),
                }
            }

            /// All of them, for tests.
            #[cfg(feature = "write")]
            pub const ALL: &[u32] = &[$( $number ),*];
        }
    };
}

stages! {
    PROTOCOL = 1, "protocol", "the sandbox's own messages do not make sense";
    MAP_PLAN = 2, "map-plan", "cannot map the plan";
    DUMPABLE = 3, "dumpable", "cannot hide the supervisor from its programs";
    SESSION = 4, "setsid", "cannot leave the caller's session";
    SIGNALS = 5, "signals", "cannot reset the supervisor's signals";
    PRIVATE_MOUNTS = 10, "private-mounts", "cannot cut the mounts off from the host's";
    OPEN_DIR = 11, "open-layer", "cannot open the layer";
    OPEN_TREE = 12, "open-tree", "cannot take the mounts at this path";
    BECOME_GROUPS = 13, "setgroups", "cannot drop supplementary groups";
    BECOME_GID = 14, "setgid", "cannot take the group id";
    BECOME_UID = 15, "setuid", "cannot take the user id";
    BASE_OPEN = 16, "base-fsopen", "cannot make a private tmpfs";
    BASE_OPTION = 17, "base-option", "cannot set the size of the private tmpfs";
    BASE_MOUNT = 18, "base-fsmount", "cannot mount the private tmpfs";
    BASE_ATTACH = 19, "base-attach", "cannot attach the private tmpfs";
    DIR = 20, "make-dir", "cannot make a directory for the new root";
    FILE = 21, "make-file", "cannot make a file for the new root";
    SYMLINK = 22, "make-symlink", "cannot make a symbolic link for the new root";
    ROOT_TREE = 23, "root-tree", "cannot take the new root's mounts";
    ROOT_ATTRIBUTES = 24, "root-attributes", "cannot set the attributes of the new root";
    ROOT_ATTACH = 25, "root-attach", "cannot attach the new root";
    OVERLAY_UPPER = 26, "overlay-upper", "the upper's file system cannot hold overlay attributes";
    OVERLAY_OPEN = 27, "overlay-open", "cannot open the directories of the overlay";
    OVERLAY_MOUNT = 28, "overlay-mount", "cannot mount the overlay";
    MOUNT_POINT = 30, "mount-point", "cannot reach or make the mount point";
    MOUNT_ATTRIBUTES = 31, "mount-attributes", "cannot set the attributes of the mount";
    MOUNT_ATTACH = 32, "mount-attach", "cannot attach the mount";
    FS_OPEN = 33, "fsopen", "cannot make the file system";
    FS_OPTION = 34, "fsconfig", "cannot set an option of the file system";
    FS_MOUNT = 35, "fsmount", "cannot mount the file system";
    RESTRICT = 36, "restrict", "cannot restrict the path";
    HOSTNAME = 40, "hostname", "cannot set the host name";
    LOOPBACK = 41, "loopback", "cannot bring the loopback interface up";
    NETWORK = 53, "network-namespace", "cannot make a network namespace";
    NETWORK_ENTER = 54, "enter-network-namespace", "cannot enter the network namespace";
    STEER_SOCKET = 91, "network-socket", "cannot make the sockets that take over connections";
    STEER_NFTABLES = 92, "network-nftables", "cannot make the rules that steer packets to the relay";
    STEER_ROUTES = 93, "network-routes", "cannot make the routes that lead packets to the relay";
    STEER_LOG = 94, "network-log", "cannot have the first packets of connections logged";
    STEER_PASS = 95, "network-pass", "cannot pass the sockets of the network to the relay";
    CGROUP_NAMESPACE = 42, "cgroup-namespace", "cannot make a cgroup namespace";
    PIVOT = 43, "pivot-root", "cannot make the new root the root";
    DETACH = 44, "detach-old-root", "cannot let go of the old root";
    KEYRING = 45, "keyring", "cannot replace the session keyring";
    NESTED = 46, "nested-namespace", "cannot make the nested user namespace";
    NESTED_MAP = 47, "nested-map", "cannot map ids into the nested user namespace";
    BOUNDING = 48, "bounding-set", "cannot drop capabilities from the bounding set";
    LANDLOCK_RULESET = 49, "landlock-ruleset", "cannot make the Landlock ruleset";
    LANDLOCK_RULE = 50, "landlock-rule", "cannot add a Landlock rule";
    LANDLOCK_ENTER = 52, "landlock-enter", "cannot enter the Landlock domain";
    SUBREAPER = 56, "subreaper", "cannot take over what programs leave behind";
    PROC = 57, "open-proc", "cannot keep a view of the sandbox's processes";
    EVENTS = 51, "events", "cannot set up the supervisor's events";
    OWN_LIMITS = 58, "supervisor-limits", "a program has changed the resource limits of the cell's supervisor for good";
    FROZEN = 59, "frozen", "the cell is paused";
    TOO_MANY = 60, "too-many-commands", "too many commands at once in this cell";
    MAP_REQUEST = 61, "map-request", "cannot map the request";
    PIPE = 62, "output-pipe", "cannot make the pipes that carry the output";
    CLONE = 63, "clone-program", "cannot make a process for the program";
    PROGRAM_SESSION = 64, "program-setsid", "cannot make a session for the program";
    PROGRAM_STDIO = 65, "program-stdio", "cannot place the program's descriptors";
    PROGRAM_RLIMIT = 66, "rlimit", "cannot set a resource limit";
    PROGRAM_CHDIR = 67, "chdir", "cannot enter the working directory";
    PROGRAM_CAPABILITIES = 68, "capabilities", "cannot set the program's capabilities";
    PROGRAM_NO_NEW_PRIVS = 69, "no-new-privs", "cannot forbid new privileges";
    PROGRAM_SECCOMP = 71, "seccomp", "cannot install the system call filter";
    PROGRAM_SIGNALS = 72, "program-signals", "cannot reset the program's signals";
    LISTENER = 75, "seccomp-listener", "cannot take the listener of the system call filter";
    PROGRAM_UMASK = 76, "umask", "cannot set the program's umask";
    TERMINAL_OPEN = 77, "terminal-open", "cannot open a pseudo-terminal of the sandbox's own";
    TERMINAL_SET = 78, "terminal-set", "cannot set the terminal's size and modes";
    TERMINAL_CONTROL = 79, "terminal-control", "cannot make the terminal the program's controlling terminal";
    TERMINAL_SEND = 96, "terminal-send", "cannot hand the terminal's other end to the caller";
    SYSTEM_GROUP = 140, "system-cgroup", "cannot enter the control group of the system";
    SYSTEM_MOUNTS = 141, "system-mounts", "cannot mount what an init needs to see";
    SYSTEM_ENTER = 142, "system-enter", "cannot enter the namespaces of the system";
    USABLE = 143, "usable", "the sandbox's ids may not open this device or socket";
    PROGRAM_EXEC = 73, "exec", "cannot execute the program";
    PROGRAM_INTERPRETER = 74, "interpreter", "the program exists, but its interpreter does not";
    LAUNCH_CGROUP = 80, "join-cgroup", "cannot join the cgroup";
    LAUNCH_ENTER = 81, "enter-user-namespace", "cannot enter the prepared user namespace";
    LAUNCH_CLONE = 82, "clone", "cannot make the namespaces";
    LAUNCH_SETGROUPS = 83, "setgroups-deny", "cannot deny setgroups in the user namespace";
    LAUNCH_UID_MAP = 84, "uid-map", "cannot map the user id";
    LAUNCH_GID_MAP = 85, "gid-map", "cannot map the group id";
    LAUNCH_CAPABILITIES = 86, "ambient-capabilities", "cannot keep capabilities for the supervisor";
    LAUNCH_DESCRIPTORS = 87, "descriptors", "cannot keep the caller's descriptors out";
    ENTER_NAMESPACES = 89, "enter-cell", "cannot enter the cell's namespaces";
    ENTER_OUTSIDE = 90, "enter-outside", "is not a child of a process that has joined the cell";
    KEEPER = 130, "keeper", "the keeper of the cell cannot begin";
    KEEPER_LOCK = 131, "keeper-lock", "the keeper cannot lock the cell";
    KEEPER_FILTER = 132, "keeper-filter", "the keeper cannot enter its system call filter";
    KEEPER_LOG = 133, "keeper-log", "the keeper cannot make the log";
    LAUNCH_EXEC = 88, "exec-init", "cannot execute the supervisor";
}
