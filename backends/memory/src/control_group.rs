//! How much memory the host lets this process use.

use std::fs;
use std::path::Path;

/// The least limit of the control groups that this process is in (cgroups(7)), in bytes; none where they set none.
pub(crate) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    least_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// Of `groups`, as `/proc/PID/cgroup` has them, whose files are below `root`. A group is bound by those above it, too; in a
/// container only some of them are to be seen.
fn least_limit(groups: &str, root: &Path) -> Option<u64> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        // One without a limit has no number there.
        let limit = |group| fs::read_to_string(folder.join(group).join(file)).ok();
        let limits = above.filter_map(limit);
        limits.filter_map(|text| text.trim().parse().ok()).min()
    };
    groups.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_bound_by_the_least_limit_of_those_that_it_is_in() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/memory.max", "1000\n");
        put("a/b/memory.max", "max\n");
        put("a/b/c/memory.max", "2000\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/x/memory.limit_in_bytes", "500\n");
        put("cpu/memory.limit_in_bytes", "1\n");
        for (groups, limit) in [
            ("0::/a/b/c\n", Some(1000)),
            ("0::/a/b\n", Some(1000)),
            ("0::/\n", None),
            ("", None),
            ("0::/elsewhere/c\n", None),
            ("4:cpu,cpuacct:/\n3:memory:/x/y\n0::/\n", Some(500)),
            ("3:memory:/\n", Some(9_223_372_036_854_771_712)),
            ("3:memory:/x\n0::/a\n", Some(500)),
            ("no line\n", None),
        ] {
            assert_eq!(least_limit(groups, root.path()), limit, "{groups:?}");
        }
    }
}
