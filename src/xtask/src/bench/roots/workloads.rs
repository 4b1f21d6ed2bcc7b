//! What runs in each root, and the rows it yields. The guest's side is `guest/bench/roots.py`.

use std::time::Duration;

use super::sides::Kind;
use crate::guest::session::Script;

/// What the guest does.
pub(super) const PROGRAM: &str = concat!(
    include_str!("../../../guest/bench/cold.py"),
    include_str!("../../../guest/bench/roots.py")
);
/// How it comes to the root that is measured.
const ENTER: &str = include_str!("../../../guest/bench/roots.sh");
/// All of it together.
const LIMIT: Duration = Duration::from_secs(600);

/// Something that is timed, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    key: &'static str,
    name: &'static str,
    /// It only reads, and is timed once more when the guest knows it all.
    again: bool,
}

/// Everything, in the order it runs.
const ALL: [Timed; 14] = [
    reads("scan", "look at Python's library"),
    reads("read", "read Python's library"),
    reads("walk", "look at /usr"),
    reads("start", "start python3 with 8 modules"),
    reads("random", "2,000 random reads of 4 KiB"),
    reads("sequential", "read 128 MiB"),
    reads("mapped", "read 128 MiB through a mapping"),
    reads("readers", "read Python's library, 4 at once"),
    changes("create", "create 1,000 files of 1 kB"),
    reads("small", "read 1,000 files of 1 kB"),
    changes("rename", "rename 1,000 files"),
    changes("delete", "delete 1,000 files"),
    changes("synced", "write and sync 4 KiB, 100 times"),
    changes("write", "write 64 MiB"),
];

const fn reads(key: &'static str, name: &'static str) -> Timed {
    Timed {
        key,
        name,
        again: true,
    }
}

const fn changes(key: &'static str, name: &'static str) -> Timed {
    Timed {
        key,
        name,
        again: false,
    }
}

/// A row: what the guest calls it, what a reader calls it, and under which circumstances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figure {
    pub(super) key: String,
    pub(super) name: &'static str,
    pub(super) setting: &'static str,
}

/// The rows.
pub(super) fn figures() -> Vec<Figure> {
    let figure = |timed: Timed, key: String, setting| Figure {
        key,
        name: timed.name,
        setting,
    };
    ALL.into_iter()
        .flat_map(|timed| {
            let key = timed.key;
            if timed.again {
                ["cold", "warm"]
                    .map(|setting| figure(timed, format!("{key}-{setting}"), setting))
                    .to_vec()
            } else {
                vec![figure(timed, key.to_owned(), "cold")]
            }
        })
        .collect()
}

/// The script that measures a root.
pub(super) fn script(kind: Kind) -> Script {
    Script {
        text: format!("KIND={}\n{ENTER}", kind.word()),
        limit: LIMIT,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_in_the_guests_program_and_has_a_name_of_its_own() {
        let figures = figures();
        let names: BTreeSet<_> = figures
            .iter()
            .map(|figure| (figure.name, figure.setting))
            .collect();
        assert_eq!(names.len(), figures.len());
        for timed in ALL {
            let call = if timed.again { "cold_and_warm" } else { "cold" };
            let call = format!("\n{call}(\"{}\", ", timed.key);
            assert!(PROGRAM.contains(&call), "{call}");
        }
        assert_eq!(PROGRAM.matches("\ncold").count(), ALL.len());
    }
}
