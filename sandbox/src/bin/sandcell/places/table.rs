//! The places, each once. The table in docs/hosts.md is printed from here; `tests/places.rs` runs each row.

use super::facts::Facts;

/// What a sandbox with namespaces does in a place that was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Works,
    /// It does with what `line` says.
    WithLine,
    /// No line makes it work; `line` says what to do instead.
    Refused,
}

/// What `isolation` set to `landlock` gives there, where the kernel has the Landlock that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weaker {
    Runs,
    /// With the reason.
    Refused(&'static str),
}

/// How the row is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    Run,
    /// By what of the place.
    Imitated(&'static str),
}

pub struct Place {
    pub id: &'static str,
    pub name: &'static str,
    pub is_here: fn(&Facts) -> bool,
    pub verdict: Verdict,
    pub line: &'static str,
    pub weaker: Weaker,
    /// What is not to be had there, whatever is said.
    pub never: &'static str,
    pub tried: Tried,
    /// The function of `tests/places.rs`.
    pub test: &'static str,
}

impl Place {
    /// Settings that forbid something: the place is elsewhere for whom they do not stop.
    pub fn is_setting(&self) -> bool {
        ["debian-restricted", "no-user-namespaces", "actions", "ubuntu-restricted"].contains(&self.id)
    }
}

const NO_GROUPS: &str =
    "limits by cgroup, unless the container's cgroup may be written to: the container's own hold for all";
const ENGINE: Tried = Tried::Imitated("podman with Docker's filter, masks and marks");

/// The innermost first: of several that fit, the first is meant.
pub const PLACES: &[Place] = &[
    Place {
        id: "debian-restricted",
        name: "Debian with kernel.unprivileged_userns_clone=0",
        is_here: |facts| facts.userns_clone == Some(0),
        verdict: Verdict::WithLine,
        line: "sudo sysctl -w kernel.unprivileged_userns_clone=1    # for good: sudo sandcell doctor --fix",
        weaker: Weaker::Runs,
        never: "namespaces without root's consent",
        tried: Tried::Imitated("its setting, and a filter that refuses as it does"),
        test: "debian_without_unprivileged_user_namespaces_is_told_its_sysctl",
    },
    Place {
        id: "no-user-namespaces",
        name: "user.max_user_namespaces=0",
        is_here: |facts| facts.max_user_namespaces == Some(0),
        verdict: Verdict::WithLine,
        line: "sudo sysctl -w user.max_user_namespaces=15000    # for good: sudo sandcell doctor --fix",
        weaker: Weaker::Runs,
        never: "namespaces without root's consent",
        tried: Tried::Run,
        test: "a_host_with_no_user_namespaces_left_is_told_its_sysctl",
    },
    Place {
        id: "gvisor",
        name: "gVisor (runsc)",
        is_here: |facts| {
            facts.osrelease.ends_with("-gvisor") || facts.version.ends_with("Sun Jan 10 15:06:54 PST 2016")
        },
        verdict: Verdict::Refused,
        line: "run that container with --runtime=runc (Kubernetes: runtimeClassName), or one gVisor container for each program",
        weaker: Weaker::Refused("gVisor has no Landlock"),
        never: "anything: its kernel has neither the mount calls of Linux 5.12 nor Landlock",
        tried: Tried::Imitated("its kernel's name, and a filter for the calls that it lacks"),
        test: "gvisor_is_refused_with_what_to_do_instead",
    },
    Place {
        id: "sandcell",
        name: "sandcell in sandcell",
        is_here: |facts| facts.first_process == "sandcell-init",
        verdict: Verdict::Refused,
        line: "start both from the host, or the inner one with --isolation landlock",
        weaker: Weaker::Runs,
        never: "namespaces: the outer sandbox's filter and its masks of /proc forbid them",
        tried: Tried::Run,
        test: "sandcell_in_sandcell_is_refused_and_runs_without_namespaces",
    },
    Place {
        id: "flatpak",
        name: "Flatpak application",
        is_here: |facts| facts.flatpak_info,
        verdict: Verdict::Refused,
        line: "flatpak-spawn --host sandcell run ...    # the application needs --talk-name=org.freedesktop.Flatpak",
        weaker: Weaker::Runs,
        never: "namespaces: Flatpak's filter refuses them to every application, and no permission lifts that",
        tried: Tried::Imitated("bubblewrap with its filter and mark"),
        test: "flatpak_is_refused_with_what_to_do_instead",
    },
    Place {
        id: "nspawn",
        name: "systemd-nspawn",
        is_here: |facts| facts.manager.contains("systemd-nspawn"),
        verdict: Verdict::WithLine,
        line: "systemd-nspawn --system-call-filter=@keyring ...    # and as root in it: mkdir -p /run/proc && mount -t proc proc /run/proc",
        weaker: Weaker::Refused("its filter refuses Landlock's calls; add @sandbox where systemd knows it"),
        never: "limits by cgroup, unless the machine has a systemd of its own that delegates them",
        tried: Tried::Imitated("its filter, mounts and marks"),
        test: "systemd_nspawn_is_told_its_filter_and_a_whole_proc",
    },
    Place {
        id: "lxc",
        name: "LXC, Incus, LXD",
        is_here: |facts| {
            facts.manager.contains("lxc")
                || facts.cgroup.contains("/lxc")
                || facts.mounts.iter().any(|mount| mount.source == "lxcfs")
                || facts.is_mounted("/dev/.lxc")
        },
        verdict: Verdict::WithLine,
        line: "incus config set NAME security.nesting=true    # LXC: lxc.include = /usr/share/lxc/config/nesting.conf",
        weaker: Weaker::Runs,
        never: "other ids than those that the container was given",
        tried: Tried::Imitated("its maps, masks and mounts"),
        test: "a_container_of_lxc_is_told_to_be_nesting",
    },
    Place {
        id: "nix",
        name: "Nix build",
        is_here: |facts| facts.nix_user && (facts.is_mounted("/nix/store") || facts.has_variable("NIX_BUILD_TOP")),
        verdict: Verdict::Works,
        line: "",
        weaker: Weaker::Runs,
        never: "leased ids and limits by cgroup: a build has one id and no cgroup of its own",
        tried: Tried::Imitated("its maps, filter and marks"),
        test: "a_nix_build_holds_sandboxes",
    },
    Place {
        id: "bubblewrap",
        name: "bubblewrap",
        is_here: |facts| {
            facts.first_process == "bwrap" || facts.root().is_some_and(|root| root.root.ends_with("/newroot"))
        },
        verdict: Verdict::WithLine,
        line: "bwrap --bind /proc /proc ...    # in the place of --proc /proc, which as root is a masked one",
        weaker: Weaker::Runs,
        never: "namespaces under --disable-userns",
        tried: Tried::Run,
        test: "bubblewrap_is_told_to_show_a_whole_proc",
    },
    Place {
        id: "kubernetes",
        name: "Kubernetes pod, restricted",
        is_here: |facts| {
            facts.is_mounted("/run/secrets/kubernetes.io")
                || facts.is_mounted("/var/run/secrets/kubernetes.io")
                || facts.cgroup.contains("/kubepods")
        },
        verdict: Verdict::WithLine,
        line: "spec: {hostUsers: false, containers: [{securityContext: {procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}}]}",
        weaker: Weaker::Runs,
        never: "that line in a namespace that enforces `restricted`: there a Localhost profile in the place of Unconfined; limits by cgroup: the pod's own hold",
        tried: Tried::Imitated("podman with a restricted pod's filter, masks, user and mounts"),
        test: "a_restricted_pod_is_told_its_yaml",
    },
    Place {
        id: "gitlab",
        name: "GitLab runner, Docker executor",
        is_here: |facts| is_container(facts) && facts.is_mounted("/builds"),
        verdict: Verdict::WithLine,
        line: r#"privileged = true, user = "1000:1000"    # two lines of [runners.docker] in the runner's config.toml; that user has no capabilities in it"#,
        weaker: Weaker::Runs,
        never: "less than that: the runner has no word for Docker's masks of /proc",
        tried: ENGINE,
        test: "container_jobs_and_devcontainers_are_told_their_own_words",
    },
    Place {
        id: "actions-container",
        name: "GitHub Actions, job with `container:`",
        is_here: |facts| is_container(facts) && facts.is_mounted("/__w"),
        verdict: Verdict::WithLine,
        line: r#"container: {image: ..., options: "--user 1001 --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"}"#,
        weaker: Weaker::Runs,
        never: NO_GROUPS,
        tried: ENGINE,
        test: "container_jobs_and_devcontainers_are_told_their_own_words",
    },
    Place {
        id: "devcontainer",
        name: "Development container, Codespaces",
        is_here: |facts| {
            is_container(facts)
                && (["/workspaces", "/vscode"].iter().any(|point| facts.is_mounted(point))
                    || ["REMOTE_CONTAINERS", "CODESPACES"].iter().any(|name| facts.has_variable(name)))
        },
        verdict: Verdict::WithLine,
        line: r#""securityOpt": ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"], "remoteUser": "vscode""#,
        weaker: Weaker::Runs,
        never: NO_GROUPS,
        tried: ENGINE,
        test: "container_jobs_and_devcontainers_are_told_their_own_words",
    },
    Place {
        id: "podman",
        name: "podman, defaults",
        is_here: |facts| facts.containerenv && !facts.dockerenv || facts.cgroup.contains("libpod-"),
        verdict: Verdict::WithLine,
        line: "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL ...    # rootless, or with --user 1000:1000",
        weaker: Weaker::Runs,
        never: NO_GROUPS,
        tried: Tried::Run,
        test: "podmans_defaults_are_told_the_two_options_that_it_takes",
    },
    Place {
        id: "docker",
        name: "Docker, defaults",
        is_here: is_container,
        verdict: Verdict::WithLine,
        line: "docker run --user 1000:1000 --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined ...",
        weaker: Weaker::Runs,
        never: NO_GROUPS,
        tried: ENGINE,
        test: "dockers_defaults_are_told_the_options_that_it_takes",
    },
    Place {
        id: "actions",
        name: "GitHub Actions, hosted Ubuntu",
        is_here: |facts| facts.hosted_runner && facts.apparmor_restricts == Some(1),
        verdict: Verdict::WithLine,
        line: "- run: sudo sandcell doctor --fix --yes    # or, the machine being yours alone: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        weaker: Weaker::Runs,
        never: "nothing is missing",
        tried: Tried::Imitated("its settings and directories, and a filter that refuses as AppArmor does"),
        test: "a_hosted_runner_and_ubuntu_are_told_what_apparmor_wants",
    },
    Place {
        id: "ubuntu-restricted",
        name: "Ubuntu 23.10 and later",
        is_here: |facts| facts.apparmor_restricts == Some(1),
        verdict: Verdict::WithLine,
        line: "sudo sandcell doctor --fix    # installs an AppArmor profile for the program",
        weaker: Weaker::Runs,
        never: "namespaces for other programs that use the library, without a profile of their own",
        tried: Tried::Imitated("its settings, and a filter that refuses as AppArmor does"),
        test: "a_hosted_runner_and_ubuntu_are_told_what_apparmor_wants",
    },
    Place {
        id: "wsl1",
        name: "WSL 1",
        is_here: |facts| facts.osrelease.ends_with("-Microsoft"),
        verdict: Verdict::Refused,
        line: "wsl --set-version DISTRIBUTION 2    # in Windows",
        weaker: Weaker::Refused("there is no Linux kernel"),
        never: "anything: WSL 1 has no Linux kernel",
        tried: Tried::Imitated("its kernel's name, and a filter for the calls that it lacks"),
        test: "wsl_1_is_told_to_become_2",
    },
    Place {
        id: "wsl2",
        name: "WSL 2",
        is_here: |facts| facts.osrelease.to_lowercase().contains("microsoft"),
        verdict: Verdict::Works,
        line: "",
        weaker: Weaker::Runs,
        never: "limits by cgroup without systemd (`[boot] systemd=true` in /etc/wsl.conf); what its kernel is too old for",
        tried: Tried::Imitated("its kernel's name"),
        test: "wsl_2_holds_sandboxes",
    },
    // The kernel tells nobody: it is by elimination that this is known.
    Place {
        id: "chroot",
        name: "chroot",
        is_here: |facts| {
            !facts.filtered && facts.apparmor_restricts != Some(1) && ["", "unconfined"].contains(&&facts.label[..])
        },
        verdict: Verdict::WithLine,
        line: "unshare --user --map-root-user --mount sh -c 'mount --rbind DIR DIR && cd DIR && pivot_root . . && umount -l . && exec sandcell run ...'    # in the place of chroot DIR; as root without --user --map-root-user",
        weaker: Weaker::Runs,
        never: "namespaces after chroot(2): the kernel makes none",
        tried: Tried::Run,
        test: "a_changed_root_is_told_to_be_a_pivoted_one",
    },
    Place {
        id: "host",
        name: "Linux 5.12 or later",
        is_here: |_| true,
        verdict: Verdict::Works,
        line: "",
        weaker: Weaker::Runs,
        never: "nothing is missing",
        tried: Tried::Run,
        test: "a_host_and_a_container_that_allows_everything_hold_sandboxes",
    },
];

fn is_container(facts: &Facts) -> bool {
    facts.dockerenv
        || facts.containerenv
        || ["/docker/", "docker-", "/buildkit/", "cri-containerd"].iter().any(|name| facts.cgroup.contains(name))
}
