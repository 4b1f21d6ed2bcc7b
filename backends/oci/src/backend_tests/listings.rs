//! Listings of an image's directories.

use super::*;

#[test]
fn a_listing_goes_on_after_any_entry_in_a_fresh_handle() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let directory = root(&image);
    let all = directory.list().unwrap();
    let names: Vec<&[u8]> = all.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(
        names,
        [
            &b"."[..],
            b"..",
            b"etc",
            b"fifo",
            b"lib",
            b"sparse",
            b"tool",
            b"usr"
        ]
    );
    for (place, entry) in all.iter().enumerate() {
        let fresh = directory.opendir().unwrap();
        assert_eq!(
            read_some(&*fresh, entry.next, 100).unwrap(),
            all[place + 1..]
        );
        let number = match entry.name.as_slice() {
            b"." | b".." => 1,
            name => {
                directory
                    .lookup(std::str::from_utf8(name).unwrap())
                    .unwrap()
                    .identity()
                    .inode
            }
        };
        assert_eq!(entry.inode, number);
    }
    let fresh = directory.opendir().unwrap();
    assert_eq!(read_some(&*fresh, u64::MAX, 100).unwrap(), []);
    let below = at(&image, "usr/lib").list().unwrap();
    assert_eq!(
        below[1].inode,
        at(&image, "usr").identity().inode,
        "the parent"
    );
}

/// Takes entries while there is room, and keeps what a lookup would have found.
struct PlusSink {
    room: usize,
    taken: Vec<(Vec<u8>, Option<u64>)>,
}

impl EntrySink for PlusSink {
    fn has_room(&mut self, _name: &[u8]) -> bool {
        self.taken.len() < self.room
    }

    fn entry(&mut self, listed: &vfsd_backend::DirEntry<'_>, found: Option<Entry>) {
        let inode = found.map(|entry| entry.attributes.inode);
        assert!(inode.is_none_or(|inode| inode == listed.inode));
        self.taken.push((listed.name.to_vec(), inode));
    }
}

#[test]
fn a_listing_with_attributes_has_them_for_all_but_the_dots() {
    let image = Served::new(&tars(), gzip).open().unwrap();
    let directory: Arc<dyn Directory> = root(&image).opendir().unwrap();
    let mut sink = PlusSink {
        room: 4,
        taken: Vec::new(),
    };
    wait(directory.read_plus(0, &mut sink)).unwrap();
    let expected = [
        (b".".to_vec(), None),
        (b"..".to_vec(), None),
        (b"etc".to_vec(), Some(2)),
        (b"fifo".to_vec(), Some(3)),
    ];
    assert_eq!(sink.taken, expected);
}
