//! Reading and writing.

use vfsd_backend::{Errno, OpenFlags, SliceSource, WriteRequest};

use super::{Row, refused, rows};
use crate::place::{Place, wait};

pub(super) const ROWS: &[Row] = rows! {
    what_was_written_is_read,
    a_read_at_the_end_is_empty,
    a_read_beyond_the_end_is_empty,
    a_read_across_the_end_is_short,
    a_read_of_nothing_is_empty,
    a_write_replaces_only_its_range,
    a_write_of_nothing_changes_nothing,
    a_write_beyond_the_end_leaves_zeros_between,
    appends_go_to_the_end_whatever_the_offset,
    appends_of_two_handles_do_not_overwrite_each_other,
    pages_written_back_keep_their_place_in_an_appending_handle,
    a_write_through_a_read_only_handle_is_refused,
    a_read_through_a_write_only_handle_is_refused,
    what_one_handle_writes_another_reads,
    a_file_truncated_under_a_handle_is_read_short,
    large_writes_cross_blocks,
    writes_at_odd_offsets_are_read_back,
    content_survives_close_and_open,
    open_with_truncation_empties_the_file,
    open_for_reading_leaves_content_and_times,
    open_of_a_directory_is_refused,
    open_of_a_symbolic_link_is_refused,
    synchronous_handles_write,
    fsync_and_fdatasync_succeed,
    flush_and_release_succeed,
    a_file_of_many_megabytes_reads_back,
};

fn what_was_written_is_read(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    assert_eq!(handle.write(0, b"hello world"), Ok(11));
    assert_eq!(handle.read(0, 100).unwrap(), b"hello world");
    assert_eq!(handle.read(6, 5).unwrap(), b"world");
    assert_eq!(file.attributes().unwrap().size, 11);
}

fn a_read_at_the_end_is_empty(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    assert_eq!(handle.read(3, 10).unwrap(), b"");
}

fn a_read_beyond_the_end_is_empty(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    assert_eq!(handle.read(1 << 40, 10).unwrap(), b"");
}

fn a_read_across_the_end_is_short(root: &Place) {
    let file = root.put("file", b"abcdef").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    assert_eq!(handle.read(4, 100_000).unwrap(), b"ef");
}

fn a_read_of_nothing_is_empty(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    assert_eq!(handle.read(0, 0).unwrap(), b"");
}

fn a_write_replaces_only_its_range(root: &Place) {
    let file = root.put("file", b"0123456789").unwrap();
    let handle = file.open_both().unwrap();
    handle.write_all(3, b"abc").unwrap();
    assert_eq!(handle.content().unwrap(), b"012abc6789");
}

fn a_write_of_nothing_changes_nothing(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let before = file.attributes().unwrap();
    let handle = file.open_both().unwrap();
    assert_eq!(handle.write(100, b""), Ok(0));
    assert_eq!(file.attributes().unwrap(), before);
}

fn a_write_beyond_the_end_leaves_zeros_between(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open_both().unwrap();
    handle.write_all(10_000, b"xyz").unwrap();
    let content = handle.content().unwrap();
    assert_eq!(content.len(), 10_003);
    assert_eq!(&content[..3], b"abc");
    assert!(content[3..10_000].iter().all(|&byte| byte == 0));
    assert_eq!(&content[10_000..], b"xyz");
}

fn appends_go_to_the_end_whatever_the_offset(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::WRITE | OpenFlags::APPEND).unwrap();
    handle.write_all(0, b"def").unwrap();
    handle.write_all(1000, b"ghi").unwrap();
    assert_eq!(file.content().unwrap(), b"abcdefghi");
}

fn appends_of_two_handles_do_not_overwrite_each_other(root: &Place) {
    let file = root.put("file", b"").unwrap();
    let flags = OpenFlags::WRITE | OpenFlags::APPEND;
    let one = file.open(flags).unwrap();
    let two = file.open(flags).unwrap();
    std::thread::scope(|scope| {
        for handle in [&one, &two] {
            scope.spawn(|| {
                for _ in 0..50 {
                    handle.write_all(0, &[1; 100]).unwrap();
                }
            });
        }
    });
    let content = file.content().unwrap();
    assert_eq!(content.len(), 10_000);
    assert!(content.iter().all(|&byte| byte == 1));
}

fn pages_written_back_keep_their_place_in_an_appending_handle(root: &Place) {
    let file = root.put("file", b"0123456789").unwrap();
    let handle = file.open(OpenFlags::WRITE | OpenFlags::APPEND).unwrap();
    let request = WriteRequest {
        offset: 2,
        kill_privileges: false,
        cached: true,
    };
    let written = wait(handle.0.write(request, &mut SliceSource::new(b"ab")));
    assert_eq!(written, Ok(2));
    assert_eq!(file.content().unwrap(), b"01ab456789");
    handle.write_all(0, b"end").unwrap();
    assert_eq!(file.content().unwrap(), b"01ab456789end");
}

fn a_write_through_a_read_only_handle_is_refused(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    refused(handle.write(0, b"x"), Errno::BADF);
    assert_eq!(file.content().unwrap(), b"abc");
}

fn a_read_through_a_write_only_handle_is_refused(root: &Place) {
    let file = root.put("file", b"abc").unwrap();
    let handle = file.open(OpenFlags::WRITE).unwrap();
    refused(handle.read(0, 1), Errno::BADF);
}

fn what_one_handle_writes_another_reads(root: &Place) {
    let (file, writer) = root.create("file").unwrap();
    let reader = file.open(OpenFlags::READ).unwrap();
    writer.write_all(0, b"one").unwrap();
    assert_eq!(reader.content().unwrap(), b"one");
    writer.write_all(3, b"two").unwrap();
    assert_eq!(reader.content().unwrap(), b"onetwo");
}

fn a_file_truncated_under_a_handle_is_read_short(root: &Place) {
    let file = root.put("file", &[1; 10_000]).unwrap();
    let handle = file.open(OpenFlags::READ).unwrap();
    file.truncate(10).unwrap();
    assert_eq!(handle.read(0, 10_000).unwrap().len(), 10);
}

/// Bytes that tell their position.
fn pattern(length: usize) -> Vec<u8> {
    let bytes = (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 251).unwrap());
    bytes.collect()
}

fn large_writes_cross_blocks(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    let bytes = pattern(1 << 20);
    handle.write_all(1, &bytes).unwrap();
    assert_eq!(file.attributes().unwrap().size, (1 << 20) + 1);
    assert_eq!(handle.read(1, 1 << 20).unwrap(), bytes);
    assert_eq!(handle.read(4095, 3).unwrap(), &bytes[4094..4097]);
}

fn writes_at_odd_offsets_are_read_back(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    let mut expected = Vec::new();
    for (round, offset) in [4095, 0, 8191, 4097, 12_289, 1].into_iter().enumerate() {
        let bytes = vec![u8::try_from(round + 1).unwrap(); 5000 + round];
        handle
            .write_all(u64::try_from(offset).unwrap(), &bytes)
            .unwrap();
        let end: usize = offset + bytes.len();
        expected.resize(expected.len().max(end), 0);
        expected[offset..end].copy_from_slice(&bytes);
        assert_eq!(handle.content().unwrap(), expected);
    }
}

fn content_survives_close_and_open(root: &Place) {
    root.put("file", b"content").unwrap();
    let file = root.lookup("file").unwrap();
    assert_eq!(file.content().unwrap(), b"content");
    assert_eq!(file.content().unwrap(), b"content");
}

fn open_with_truncation_empties_the_file(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let handle = file.open(OpenFlags::WRITE | OpenFlags::TRUNCATE).unwrap();
    assert_eq!(file.attributes().unwrap().size, 0);
    handle.write_all(0, b"new").unwrap();
    assert_eq!(file.content().unwrap(), b"new");
}

fn open_for_reading_leaves_content_and_times(root: &Place) {
    let file = root.put("file", b"content").unwrap();
    let before = file.attributes().unwrap();
    drop(file.open(OpenFlags::READ).unwrap());
    drop(file.open_both().unwrap());
    assert_eq!(file.attributes().unwrap(), before);
}

fn open_of_a_directory_is_refused(root: &Place) {
    let dir = root.mkdir("dir").unwrap();
    refused(dir.open_both(), Errno::ISDIR);
}

fn open_of_a_symbolic_link_is_refused(root: &Place) {
    root.put("file", b"").unwrap();
    let link = root.symlink("link", "file").unwrap();
    // A guest follows links itself, so that only a hostile one asks: any refusal will do.
    let errno = link.open(OpenFlags::READ).map(drop).unwrap_err();
    assert!(matches!(errno, Errno::LOOP | Errno::BADF), "{errno}");
}

fn synchronous_handles_write(root: &Place) {
    let file = root.put("file", b"").unwrap();
    for flag in [OpenFlags::SYNC, OpenFlags::DSYNC] {
        let handle = file.open(OpenFlags::WRITE | flag).unwrap();
        handle.write_all(0, b"durable").unwrap();
        assert_eq!(file.content().unwrap(), b"durable");
    }
}

fn fsync_and_fdatasync_succeed(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(0, b"x").unwrap();
    handle.fsync().unwrap();
    wait(handle.0.fsync(true)).unwrap();
}

fn flush_and_release_succeed(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(0, b"x").unwrap();
    handle.flush(1).unwrap();
    wait(handle.0.release()).unwrap();
}

fn a_file_of_many_megabytes_reads_back(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    let bytes = pattern(1 << 20);
    for index in 0..8 {
        handle.write_all(index << 20, &bytes).unwrap();
    }
    for index in (0..8).rev() {
        assert_eq!(handle.read(index << 20, 1 << 20).unwrap(), bytes);
    }
}
