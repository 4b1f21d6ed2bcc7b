//! Directories as they are listed.

use std::collections::{BTreeMap, BTreeSet};

use vfsd_backend::{Device, Errno, FileKind, RenameFlags};

use super::{Row, refused, rows};
use crate::place::{Listed, Place, read_some};

pub(super) const ROWS: &[Row] = rows! {
    an_empty_directory_lists_itself_and_its_parent,
    all_entries_are_listed_once,
    a_listing_goes_on_where_it_stopped,
    a_listing_from_the_start_again_is_whole,
    two_listings_do_not_disturb_each_other,
    entries_tell_their_type,
    special_entries_tell_their_type needs SPECIAL_FILES,
    entries_tell_the_inode_numbers_of_their_files,
    cookies_are_never_zero_and_never_repeat,
    an_entry_for_which_there_is_no_room_comes_next_time,
    a_listing_with_no_room_at_all_gives_nothing,
    removal_of_what_was_listed_hides_nothing,
    entries_that_stay_are_listed_once_while_others_come_and_go,
    entries_that_are_replaced_are_listed_once,
    entries_that_change_places_are_listed_once needs EXCHANGE,
    a_listing_ends_while_each_entry_is_renamed_and_back,
    a_removed_entry_is_gone_from_a_new_listing,
    a_renamed_entry_is_listed_under_its_new_name,
    a_listing_after_the_last_entry_is_empty,
    a_forged_cookie_does_no_harm,
    a_directory_can_be_emptied_while_it_is_listed,
    a_listing_goes_on_in_a_directory_opened_anew needs REOPEN,
    opendir_of_a_file_is_refused,
    fsync_of_a_directory_succeeds,
};

fn is_dot(entry: &Listed) -> bool {
    matches!(entry.name.as_slice(), b"." | b"..")
}

fn fill(root: &Place, count: usize) -> BTreeSet<String> {
    let names: BTreeSet<String> = (0..count).map(|index| format!("file-{index:04}")).collect();
    for name in &names {
        root.put(name, b"").unwrap();
    }
    names
}

/// Reads on from `cookie` to the end, `room` entries at a time.
fn read_rest(dir: &dyn vfsd_backend::Directory, cookie: u64, room: usize) -> Vec<Listed> {
    let mut all = Vec::new();
    let mut cookie = cookie;
    loop {
        let batch = read_some(dir, cookie, room).unwrap();
        let Some(last) = batch.last() else {
            return all;
        };
        cookie = last.next;
        all.extend(batch);
    }
}

/// How often each name was listed, without the two that each directory has.
fn count(entries: &[Listed]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !is_dot(entry)) {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn an_empty_directory_lists_itself_and_its_parent(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let mut listed = dir.list().unwrap();
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].name, b".");
    assert_eq!(listed[0].inode, dir.attributes().unwrap().inode);
    assert_eq!(listed[1].name, b"..");
    assert_eq!(listed[1].inode, root.attributes().unwrap().inode);
}

fn all_entries_are_listed_once(root: &Place) {
    let names = fill(root, 1000);
    for room in [1000, 100, 13] {
        let dir = root.opendir().unwrap();
        let counts = count(&read_rest(dir.as_ref(), 0, room));
        assert!(counts.values().all(|&count| count == 1));
        assert!(counts.keys().eq(names.iter()), "{room} at a time");
    }
}

fn a_listing_goes_on_where_it_stopped(root: &Place) {
    let names = fill(root, 50);
    let dir = root.opendir().unwrap();
    let mut all = read_some(dir.as_ref(), 0, 20).unwrap();
    assert_eq!(all.len(), 20);
    // Asked twice, the same cookie gives the same entries.
    let cookie = all.last().unwrap().next;
    let again = read_some(dir.as_ref(), cookie, 5).unwrap();
    assert_eq!(read_some(dir.as_ref(), cookie, 5).unwrap(), again);
    all.extend(read_rest(dir.as_ref(), cookie, 100));
    assert!(count(&all).keys().eq(names.iter()));
    assert!(count(&all).values().all(|&count| count == 1));
}

fn a_listing_goes_on_in_a_directory_opened_anew(root: &Place) {
    let names = fill(root, 100);
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let dir = root.opendir().unwrap();
        let batch = read_some(dir.as_ref(), cookie, 7).unwrap();
        let Some(last) = batch.last() else { break };
        cookie = last.next;
        // What was listed goes, and others come.
        for (index, name) in count(&batch).keys().enumerate() {
            if names.contains(name) {
                root.unlink(name).unwrap();
                root.put(&format!("new-{cookie}-{index}"), b"").unwrap();
            }
        }
        all.extend(batch);
    }
    let counts = count(&all);
    assert!(counts.values().all(|&count| count == 1));
    assert!(names.iter().all(|name| counts.contains_key(name)));
}

fn a_listing_from_the_start_again_is_whole(root: &Place) {
    fill(root, 30);
    let dir = root.opendir().unwrap();
    let first = count(&read_rest(dir.as_ref(), 0, 7));
    root.put("new", b"").unwrap();
    let second = count(&read_rest(dir.as_ref(), 0, 7));
    assert_eq!(first.len() + 1, second.len());
    assert!(second.contains_key("new"));
}

fn two_listings_do_not_disturb_each_other(root: &Place) {
    let names = fill(root, 60);
    let (one, two) = (root.opendir().unwrap(), root.opendir().unwrap());
    let mut listed = [Vec::new(), Vec::new()];
    let mut cookies = [0, 0];
    for round in 0..40 {
        for (index, dir) in [&one, &two].into_iter().enumerate() {
            let batch = read_some(dir.as_ref(), cookies[index], 2 + index + round % 3).unwrap();
            cookies[index] = batch.last().map_or(cookies[index], |entry| entry.next);
            listed[index].extend(batch);
        }
    }
    for entries in &listed {
        assert!(count(entries).keys().eq(names.iter()));
        assert!(count(entries).values().all(|&count| count == 1));
    }
}

fn kind_of(root: &Place, name: &str) -> Option<FileKind> {
    let listed = root.list().unwrap();
    let entry = listed.iter().find(|entry| entry.name == name.as_bytes());
    entry.unwrap().kind
}

fn entries_tell_their_type(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    root.symlink("link", "target").unwrap();
    for (name, kind) in [
        (".", FileKind::Directory),
        ("file", FileKind::Regular),
        ("dir", FileKind::Directory),
        ("link", FileKind::Symlink),
    ] {
        let told = kind_of(root, name);
        assert!(told.is_none_or(|told| told == kind), "{name}: {told:?}");
    }
}

fn special_entries_tell_their_type(root: &Place) {
    for (name, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket)] {
        root.mknod(name, kind, Device::default()).unwrap();
        let told = kind_of(root, name);
        assert!(told.is_none_or(|told| told == kind), "{name}: {told:?}");
    }
}

fn entries_tell_the_inode_numbers_of_their_files(root: &Place) {
    root.put("file", b"").unwrap();
    root.mkdir("dir").unwrap();
    root.symlink("link", "target").unwrap();
    for entry in root.list().unwrap().iter().filter(|entry| !is_dot(entry)) {
        let name = std::str::from_utf8(&entry.name).unwrap();
        let file = root.lookup(name).unwrap();
        assert_eq!(entry.inode, file.attributes().unwrap().inode, "{name}");
    }
}

fn cookies_are_never_zero_and_never_repeat(root: &Place) {
    fill(root, 200);
    let listed = root.list().unwrap();
    let cookies: BTreeSet<u64> = listed.iter().map(|entry| entry.next).collect();
    assert_eq!(cookies.len(), listed.len());
    assert!(!cookies.contains(&0));
    assert!(cookies.iter().all(|&cookie| i64::try_from(cookie).is_ok()));
}

fn an_entry_for_which_there_is_no_room_comes_next_time(root: &Place) {
    let names = fill(root, 5);
    let dir = root.opendir().unwrap();
    let counts = count(&read_rest(dir.as_ref(), 0, 1));
    assert!(counts.keys().eq(names.iter()));
    assert!(counts.values().all(|&count| count == 1));
}

fn a_listing_with_no_room_at_all_gives_nothing(root: &Place) {
    fill(root, 5);
    let dir = root.opendir().unwrap();
    assert_eq!(read_some(dir.as_ref(), 0, 0).unwrap(), []);
    assert_eq!(read_rest(dir.as_ref(), 0, 100).len(), 7);
}

fn removal_of_what_was_listed_hides_nothing(root: &Place) {
    let names = fill(root, 300);
    let dir = root.opendir().unwrap();
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let batch = read_some(dir.as_ref(), cookie, 20).unwrap();
        let Some(last) = batch.last() else { break };
        cookie = last.next;
        for entry in batch.iter().filter(|entry| !is_dot(entry)) {
            root.unlink(std::str::from_utf8(&entry.name).unwrap())
                .unwrap();
        }
        all.extend(batch);
    }
    assert!(count(&all).keys().eq(names.iter()));
    assert_eq!(root.names().unwrap(), [""; 0]);
}

fn entries_that_stay_are_listed_once_while_others_come_and_go(root: &Place) {
    let stay = fill(root, 200);
    for index in 0..100 {
        root.put(&format!("goes-{index}"), b"").unwrap();
    }
    let dir = root.opendir().unwrap();
    let mut all = Vec::new();
    let mut cookie = 0;
    let mut round = 0;
    loop {
        let batch = read_some(dir.as_ref(), cookie, 11).unwrap();
        let Some(last) = batch.last() else { break };
        cookie = last.next;
        all.extend(batch);
        // A few changes at each step, far fewer than entries: the listing comes to its end.
        if round < 20 {
            let _ = root.unlink(&format!("goes-{round}"));
            let other = format!("goes-{}", round + 50);
            let _ = root.rename(&other, root, &format!("moved-{round}"));
            root.put(&format!("new-{round}"), b"").unwrap();
        }
        round += 1;
    }
    let counts = count(&all);
    for name in &stay {
        assert_eq!(counts.get(name), Some(&1), "{name}");
    }
}

/// Lists `dir` and lets `change` do something to each name of a batch before the next batch is read.
///
/// # Panics
/// When the listing has not ended after three times as many entries as there are names.
fn list_and_change(dir: &Place, names: &BTreeSet<String>, change: impl Fn(&str)) -> Vec<Listed> {
    let open = dir.opendir().unwrap();
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let batch = read_some(open.as_ref(), cookie, 7).unwrap();
        let Some(last) = batch.last() else {
            return all;
        };
        cookie = last.next;
        for entry in batch.iter().filter(|entry| !is_dot(entry)) {
            change(std::str::from_utf8(&entry.name).unwrap());
        }
        all.extend(batch);
        assert!(all.len() <= 3 * names.len(), "the listing does not end");
    }
}

fn entries_that_are_replaced_are_listed_once(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    let names = fill(&dir, 40);
    let replaced = std::cell::Cell::new(false);
    let listed = list_and_change(&dir, &names, |_| {
        // As editors save their files: in the middle of the listing, all those before and after.
        if !replaced.replace(true) {
            for name in &names {
                root.put("saved", b"").unwrap();
                root.rename("saved", &dir, name).unwrap();
            }
        }
    });
    assert!(
        count(&listed)
            .into_iter()
            .eq(names.into_iter().map(|name| (name, 1)))
    );
}

fn entries_that_change_places_are_listed_once(root: &Place) {
    let names = fill(root, 40);
    let last = names.last().unwrap();
    let listed = list_and_change(root, &names, |name| {
        if name != last {
            root.rename_with(name, root, last, RenameFlags::EXCHANGE)
                .unwrap();
        }
    });
    assert!(
        count(&listed)
            .into_iter()
            .eq(names.into_iter().map(|name| (name, 1)))
    );
}

fn a_listing_ends_while_each_entry_is_renamed_and_back(root: &Place) {
    let names = fill(root, 60);
    let listed = list_and_change(root, &names, |name| {
        // Whether an entry is told of that was not there at the begin, is the file system's choice.
        if names.contains(name) {
            root.rename(name, root, "moved").unwrap();
            root.rename("moved", root, name).unwrap();
        }
    });
    let counts = count(&listed);
    assert!(names.iter().all(|name| counts.contains_key(name)));
}

fn a_removed_entry_is_gone_from_a_new_listing(root: &Place) {
    fill(root, 3);
    root.unlink("file-0001").unwrap();
    assert_eq!(root.names().unwrap(), ["file-0000", "file-0002"]);
}

fn a_renamed_entry_is_listed_under_its_new_name(root: &Place) {
    fill(root, 2);
    root.rename("file-0000", root, "renamed").unwrap();
    assert_eq!(root.names().unwrap(), ["file-0001", "renamed"]);
}

fn a_listing_after_the_last_entry_is_empty(root: &Place) {
    fill(root, 3);
    let dir = root.opendir().unwrap();
    let last = read_rest(dir.as_ref(), 0, 100).last().unwrap().next;
    assert_eq!(read_some(dir.as_ref(), last, 10).unwrap(), []);
}

fn a_forged_cookie_does_no_harm(root: &Place) {
    let names = fill(root, 10);
    let dir = root.opendir().unwrap();
    for cookie in [
        3,
        12_345,
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        u64::from(u32::MAX),
    ] {
        if let Ok(entries) = read_some(dir.as_ref(), cookie, 100) {
            assert!(count(&entries).keys().all(|name| names.contains(name)));
        }
    }
    assert!(
        count(&read_rest(dir.as_ref(), 0, 5))
            .keys()
            .eq(names.iter())
    );
}

fn a_directory_can_be_emptied_while_it_is_listed(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    fill(&dir, 40);
    let open = dir.opendir().unwrap();
    let first = read_some(open.as_ref(), 0, 10).unwrap();
    for name in dir.names().unwrap() {
        dir.unlink(&name).unwrap();
    }
    root.rmdir("dir").unwrap();
    // What the listing had read ahead may still come; it must end.
    let mut cookie = first.last().unwrap().next;
    for _ in 0..100 {
        match read_some(open.as_ref(), cookie, 10) {
            Ok(entries) if !entries.is_empty() => cookie = entries.last().unwrap().next,
            _ => return,
        }
    }
    panic!("the listing of an empty directory does not end");
}

fn opendir_of_a_file_is_refused(root: &Place) {
    let file = root.put("file", b"").unwrap();
    refused(file.opendir(), Errno::NOTDIR);
}

fn fsync_of_a_directory_succeeds(root: &Place) {
    fill(root, 2);
    let dir = root.opendir().unwrap();
    crate::place::wait(dir.fsync(false)).unwrap();
    crate::place::wait(dir.fsync(true)).unwrap();
}
