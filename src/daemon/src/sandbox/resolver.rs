//! What a storage on other hosts reads of this one: names of hosts, and whom to trust.

/// Absolute paths of files and directories, as far as this host has them.
pub(super) const FILES: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
