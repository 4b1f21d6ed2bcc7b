//! Holes, allocation and copies inside the storage.

use vfsd_backend::{Errno, FallocateMode, OpenFlags, SeekFrom};

use super::{Row, refused, rows};
use crate::place::{Handle, Place};

pub(super) const ROWS: &[Row] = rows! {
    a_hole_takes_no_space needs HOLES,
    data_is_found_after_a_hole needs HOLES,
    a_hole_is_found_after_data needs HOLES,
    the_end_of_the_file_is_a_hole needs HOLES,
    a_file_without_data_has_none_to_find needs HOLES,
    seeks_at_or_after_the_end_are_refused needs HOLES,
    extension_by_truncation_is_a_hole needs HOLES,
    truncation_gives_blocks_back needs HOLES,
    allocation_extends_the_file_with_zeros needs ALLOCATION,
    allocation_leaves_content_alone needs ALLOCATION,
    allocation_takes_space_at_once needs ALLOCATION,
    allocation_can_leave_the_size needs ALLOCATION,
    truncation_takes_what_is_allocated_after_the_end needs ALLOCATION + HOLES,
    a_punched_range_reads_as_zeros needs ALLOCATION,
    a_punched_range_is_a_hole_and_gives_space_back needs ALLOCATION + HOLES,
    a_punch_inside_a_block_clears_only_its_bytes needs ALLOCATION,
    a_punch_after_the_end_changes_nothing needs ALLOCATION,
    a_punch_across_the_end_keeps_the_size needs ALLOCATION,
    a_zeroed_range_reads_as_zeros needs ALLOCATION,
    a_zeroed_range_can_extend_the_file needs ALLOCATION,
    a_zeroed_range_can_leave_the_size needs ALLOCATION,
    allocated_space_is_a_hole_until_it_is_written needs ALLOCATION + HOLES,
    allocation_through_a_read_only_handle_is_refused needs ALLOCATION,
    allocation_moves_modification_and_change_time needs ALLOCATION,
    a_punch_without_keep_size_is_refused needs ALLOCATION,
    modes_that_contradict_each_other_are_refused needs ALLOCATION,
    allocation_over_the_largest_size_is_refused needs ALLOCATION + EXT4_LIMITS,
    collapse_takes_a_range_out needs SHIFT_RANGES,
    collapse_of_half_a_block_is_refused needs SHIFT_RANGES,
    collapse_that_reaches_the_end_is_refused needs SHIFT_RANGES,
    insert_moves_what_follows needs SHIFT_RANGES,
    insert_of_half_a_block_is_refused needs SHIFT_RANGES,
    insert_at_or_after_the_end_is_refused needs SHIFT_RANGES,
    insert_over_the_largest_size_is_refused needs SHIFT_RANGES + EXT4_LIMITS,
    collapse_undoes_insert needs SHIFT_RANGES,
    a_range_is_copied_to_another_file needs COPY_RANGE,
    a_range_is_copied_inside_a_file needs COPY_RANGE,
    a_copy_ends_at_the_end_of_the_source needs COPY_RANGE,
    a_copy_behind_its_own_end_copies_what_was_there needs COPY_RANGE,
    a_copy_from_behind_the_end_copies_nothing needs COPY_RANGE,
    a_copy_onto_itself_is_refused needs COPY_RANGE,
    a_copy_between_handles_of_the_wrong_mode_is_refused needs COPY_RANGE,
    a_copy_to_an_appending_handle_is_refused needs COPY_RANGE,
    a_copy_of_many_megabytes_is_whole needs COPY_RANGE,
    a_copy_moves_the_modification_time_of_the_target needs COPY_RANGE,
};

const BLOCK: u64 = 4096;
const ALLOCATE: FallocateMode = FallocateMode::empty();
const PUNCH: FallocateMode = FallocateMode::PUNCH_HOLE.union(FallocateMode::KEEP_SIZE);

/// A file of so many blocks, each full of its number and one.
fn numbered(root: &Place, blocks: u8) -> (Place, Handle) {
    let (file, handle) = root.create("file").unwrap();
    let content: Vec<u8> = (1..=blocks).flat_map(|number| [number; 4096]).collect();
    handle.write_all(0, &content).unwrap();
    (file, handle)
}

/// The first byte of each block.
fn numbers(handle: &Handle) -> Vec<u8> {
    let content = handle.content().unwrap();
    content.chunks(4096).map(|block| block[0]).collect()
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Allocated blocks of 512 bytes, once nothing is held back.
fn blocks(place: &Place, handle: &Handle) -> u64 {
    handle.fsync().unwrap();
    place.attributes().unwrap().blocks
}

fn a_hole_takes_no_space(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(100 * BLOCK, b"x").unwrap();
    assert_eq!(file.attributes().unwrap().size, 100 * BLOCK + 1);
    assert_eq!(blocks(&file, &handle), 8);
}

fn data_is_found_after_a_hole(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(10 * BLOCK + 5, b"x").unwrap();
    assert_eq!(handle.seek(SeekFrom::Data, 0), Ok(10 * BLOCK));
    assert_eq!(
        handle.seek(SeekFrom::Data, 10 * BLOCK + 3),
        Ok(10 * BLOCK + 3)
    );
}

fn a_hole_is_found_after_data(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(0, &[1; 8192]).unwrap();
    handle.write_all(10 * BLOCK, b"x").unwrap();
    assert_eq!(handle.seek(SeekFrom::Hole, 0), Ok(2 * BLOCK));
    assert_eq!(
        handle.seek(SeekFrom::Hole, 3 * BLOCK + 1),
        Ok(3 * BLOCK + 1)
    );
}

fn the_end_of_the_file_is_a_hole(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.write_all(0, &[1; 5000]).unwrap();
    assert_eq!(handle.seek(SeekFrom::Hole, 0), Ok(5000));
    assert_eq!(handle.seek(SeekFrom::Hole, 4999), Ok(5000));
    assert_eq!(handle.seek(SeekFrom::Data, 4999), Ok(4999));
}

fn a_file_without_data_has_none_to_find(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    file.truncate(10 * BLOCK).unwrap();
    refused(handle.seek(SeekFrom::Data, 0), Errno::NXIO);
    assert_eq!(handle.seek(SeekFrom::Hole, 0), Ok(0));
}

fn seeks_at_or_after_the_end_are_refused(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    refused(handle.seek(SeekFrom::Data, 0), Errno::NXIO);
    refused(handle.seek(SeekFrom::Hole, 0), Errno::NXIO);
    handle.write_all(0, b"abc").unwrap();
    for offset in [3, 4, 1 << 40] {
        refused(handle.seek(SeekFrom::Data, offset), Errno::NXIO);
        refused(handle.seek(SeekFrom::Hole, offset), Errno::NXIO);
    }
}

fn extension_by_truncation_is_a_hole(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"abc").unwrap();
    file.truncate(10 * BLOCK).unwrap();
    assert_eq!(handle.seek(SeekFrom::Hole, 0), Ok(BLOCK));
    refused(handle.seek(SeekFrom::Data, BLOCK), Errno::NXIO);
}

fn truncation_gives_blocks_back(root: &Place) {
    let (file, handle) = numbered(root, 10);
    assert_eq!(blocks(&file, &handle), 80);
    file.truncate(2 * BLOCK + 1).unwrap();
    assert_eq!(blocks(&file, &handle), 24);
}

fn allocation_extends_the_file_with_zeros(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"abc").unwrap();
    handle.fallocate(ALLOCATE, 100, 10_000).unwrap();
    assert_eq!(file.attributes().unwrap().size, 10_100);
    let content = handle.content().unwrap();
    assert_eq!(&content[..3], b"abc");
    assert!(all_zero(&content[3..]));
}

fn allocation_leaves_content_alone(root: &Place) {
    let (file, handle) = numbered(root, 4);
    handle.fallocate(ALLOCATE, 0, 3 * BLOCK).unwrap();
    assert_eq!(numbers(&handle), [1, 2, 3, 4]);
    assert_eq!(file.attributes().unwrap().size, 4 * BLOCK);
}

fn allocation_takes_space_at_once(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.fallocate(ALLOCATE, 0, 16 * BLOCK).unwrap();
    assert_eq!(file.attributes().unwrap().blocks, 128);
}

fn allocation_can_leave_the_size(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"abc").unwrap();
    handle
        .fallocate(FallocateMode::KEEP_SIZE, 0, 16 * BLOCK)
        .unwrap();
    assert_eq!(file.attributes().unwrap().size, 3);
    assert_eq!(blocks(&file, &handle), 128);
    assert_eq!(handle.content().unwrap(), b"abc");
}

fn truncation_takes_what_is_allocated_after_the_end(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"abc").unwrap();
    handle
        .fallocate(FallocateMode::KEEP_SIZE, 0, 16 * BLOCK)
        .unwrap();
    file.truncate(3).unwrap();
    assert_eq!(blocks(&file, &handle), 8);
}

fn a_punched_range_reads_as_zeros(root: &Place) {
    let (file, handle) = numbered(root, 5);
    handle.fallocate(PUNCH, BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(numbers(&handle), [1, 0, 0, 4, 5]);
    assert_eq!(file.attributes().unwrap().size, 5 * BLOCK);
    assert!(all_zero(&handle.read(BLOCK, 8192).unwrap()));
}

fn a_punched_range_is_a_hole_and_gives_space_back(root: &Place) {
    let (file, handle) = numbered(root, 5);
    assert_eq!(blocks(&file, &handle), 40);
    handle.fallocate(PUNCH, BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(blocks(&file, &handle), 24);
    assert_eq!(handle.seek(SeekFrom::Hole, 0), Ok(BLOCK));
    assert_eq!(handle.seek(SeekFrom::Data, BLOCK), Ok(3 * BLOCK));
}

fn a_punch_inside_a_block_clears_only_its_bytes(root: &Place) {
    let (_, handle) = numbered(root, 2);
    handle.fallocate(PUNCH, 4000, 200).unwrap();
    let content = handle.content().unwrap();
    assert!(content[..4000].iter().all(|&byte| byte == 1));
    assert!(all_zero(&content[4000..4200]));
    assert!(content[4200..].iter().all(|&byte| byte == 2));
}

fn a_punch_after_the_end_changes_nothing(root: &Place) {
    let (file, handle) = numbered(root, 2);
    handle.fallocate(PUNCH, 5 * BLOCK, BLOCK).unwrap();
    assert_eq!(file.attributes().unwrap().size, 2 * BLOCK);
    assert_eq!(numbers(&handle), [1, 2]);
}

fn a_punch_across_the_end_keeps_the_size(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, &[7; 6000]).unwrap();
    handle.fallocate(PUNCH, 5000, 100_000).unwrap();
    assert_eq!(file.attributes().unwrap().size, 6000);
    let content = handle.content().unwrap();
    assert!(content[..5000].iter().all(|&byte| byte == 7));
    assert!(all_zero(&content[5000..]));
}

fn a_zeroed_range_reads_as_zeros(root: &Place) {
    let (_, handle) = numbered(root, 4);
    handle
        .fallocate(FallocateMode::ZERO_RANGE, BLOCK - 10, BLOCK + 20)
        .unwrap();
    let content = handle.content().unwrap();
    assert!(content[..4086].iter().all(|&byte| byte == 1));
    assert!(all_zero(&content[4086..8202]));
    assert!(content[8202..12_288].iter().all(|&byte| byte == 3));
}

fn a_zeroed_range_can_extend_the_file(root: &Place) {
    let (file, handle) = numbered(root, 1);
    handle
        .fallocate(FallocateMode::ZERO_RANGE, 1000, 9000)
        .unwrap();
    assert_eq!(file.attributes().unwrap().size, 10_000);
    assert!(all_zero(&handle.read(1000, 9000).unwrap()));
}

fn a_zeroed_range_can_leave_the_size(root: &Place) {
    let (file, handle) = numbered(root, 1);
    let mode = FallocateMode::ZERO_RANGE | FallocateMode::KEEP_SIZE;
    handle.fallocate(mode, 1000, 9000).unwrap();
    assert_eq!(file.attributes().unwrap().size, BLOCK);
    let content = handle.content().unwrap();
    assert!(content[..1000].iter().all(|&byte| byte == 1));
    assert!(all_zero(&content[1000..]));
}

fn allocated_space_is_a_hole_until_it_is_written(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    handle.fallocate(ALLOCATE, 0, 1000 * BLOCK).unwrap();
    refused(handle.seek(SeekFrom::Data, 0), Errno::NXIO);
    handle.write_all(500 * BLOCK, &[1; 4096]).unwrap();
    assert_eq!(handle.seek(SeekFrom::Data, 0), Ok(500 * BLOCK));
}

fn allocation_through_a_read_only_handle_is_refused(root: &Place) {
    let (file, _) = numbered(root, 2);
    let handle = file.open(OpenFlags::READ).unwrap();
    refused(handle.fallocate(ALLOCATE, 0, BLOCK), Errno::BADF);
    refused(handle.fallocate(PUNCH, 0, BLOCK), Errno::BADF);
}

fn allocation_moves_modification_and_change_time(root: &Place) {
    let (file, handle) = numbered(root, 2);
    for mode in [ALLOCATE, PUNCH, FallocateMode::ZERO_RANGE] {
        let before = file.attributes().unwrap();
        super::let_time_pass();
        handle.fallocate(mode, 0, BLOCK).unwrap();
        let after = file.attributes().unwrap();
        assert!(after.modified > before.modified, "{mode:?}");
        assert!(after.changed > before.changed, "{mode:?}");
    }
}

fn a_punch_without_keep_size_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 2);
    let mode = FallocateMode::PUNCH_HOLE;
    refused(handle.fallocate(mode, 0, BLOCK), Errno::OPNOTSUPP);
    assert_eq!(numbers(&handle), [1, 2]);
}

fn modes_that_contradict_each_other_are_refused(root: &Place) {
    let (_, handle) = numbered(root, 2);
    for mode in [
        PUNCH | FallocateMode::ZERO_RANGE,
        PUNCH | FallocateMode::COLLAPSE_RANGE,
        FallocateMode::COLLAPSE_RANGE | FallocateMode::KEEP_SIZE,
        FallocateMode::INSERT_RANGE | FallocateMode::KEEP_SIZE,
        FallocateMode::INSERT_RANGE | FallocateMode::COLLAPSE_RANGE,
    ] {
        let errno = handle.fallocate(mode, 0, BLOCK).unwrap_err();
        let known = matches!(errno, Errno::OPNOTSUPP | Errno::INVAL);
        assert!(known, "{mode:?}: {errno}");
    }
    assert_eq!(numbers(&handle), [1, 2]);
}

fn allocation_over_the_largest_size_is_refused(root: &Place) {
    let (_, handle) = root.create("file").unwrap();
    let largest = 0xffff_ffff * BLOCK;
    refused(handle.fallocate(ALLOCATE, largest, 1), Errno::FBIG);
    refused(
        handle.fallocate(ALLOCATE, i64::MAX.unsigned_abs() - 1, 1),
        Errno::FBIG,
    );
}

fn collapse_takes_a_range_out(root: &Place) {
    let (file, handle) = numbered(root, 5);
    handle
        .fallocate(FallocateMode::COLLAPSE_RANGE, BLOCK, 2 * BLOCK)
        .unwrap();
    assert_eq!(numbers(&handle), [1, 4, 5]);
    assert_eq!(file.attributes().unwrap().size, 3 * BLOCK);
}

fn collapse_of_half_a_block_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 5);
    for (offset, length) in [(100, BLOCK), (BLOCK, 100), (BLOCK, BLOCK + 1)] {
        let collapsed = handle.fallocate(FallocateMode::COLLAPSE_RANGE, offset, length);
        refused(collapsed, Errno::INVAL);
    }
}

fn collapse_that_reaches_the_end_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 3);
    for (offset, length) in [(BLOCK, 2 * BLOCK), (0, 5 * BLOCK), (3 * BLOCK, BLOCK)] {
        let collapsed = handle.fallocate(FallocateMode::COLLAPSE_RANGE, offset, length);
        refused(collapsed, Errno::INVAL);
    }
    assert_eq!(numbers(&handle), [1, 2, 3]);
}

fn insert_moves_what_follows(root: &Place) {
    let (file, handle) = numbered(root, 3);
    handle
        .fallocate(FallocateMode::INSERT_RANGE, BLOCK, 2 * BLOCK)
        .unwrap();
    assert_eq!(numbers(&handle), [1, 0, 0, 2, 3]);
    assert_eq!(file.attributes().unwrap().size, 5 * BLOCK);
}

fn insert_of_half_a_block_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 3);
    for (offset, length) in [(100, BLOCK), (BLOCK, 100)] {
        let inserted = handle.fallocate(FallocateMode::INSERT_RANGE, offset, length);
        refused(inserted, Errno::INVAL);
    }
}

fn insert_at_or_after_the_end_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 3);
    for offset in [3 * BLOCK, 4 * BLOCK] {
        let inserted = handle.fallocate(FallocateMode::INSERT_RANGE, offset, BLOCK);
        refused(inserted, Errno::INVAL);
    }
}

fn insert_over_the_largest_size_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 3);
    let largest = 0xffff_ffff * BLOCK;
    let inserted = handle.fallocate(FallocateMode::INSERT_RANGE, BLOCK, largest - BLOCK);
    refused(inserted, Errno::FBIG);
    assert_eq!(numbers(&handle), [1, 2, 3]);
}

fn collapse_undoes_insert(root: &Place) {
    let (_, handle) = numbered(root, 4);
    let before = handle.content().unwrap();
    handle
        .fallocate(FallocateMode::INSERT_RANGE, 2 * BLOCK, 7 * BLOCK)
        .unwrap();
    handle
        .fallocate(FallocateMode::COLLAPSE_RANGE, 2 * BLOCK, 7 * BLOCK)
        .unwrap();
    assert_eq!(handle.content().unwrap(), before);
}

fn a_range_is_copied_to_another_file(root: &Place) {
    let (_, source) = numbered(root, 3);
    let (file, target) = root.create("target").unwrap();
    target.write_all(0, b"before").unwrap();
    assert_eq!(source.copy_range(BLOCK - 1, &target, 3, 5), Ok(5));
    assert_eq!(file.content().unwrap(), b"bef\x01\x02\x02\x02\x02");
}

fn a_range_is_copied_inside_a_file(root: &Place) {
    let (_, handle) = numbered(root, 3);
    assert_eq!(handle.copy_range(0, &handle, 2 * BLOCK, BLOCK), Ok(BLOCK));
    assert_eq!(numbers(&handle), [1, 2, 1]);
}

fn a_copy_ends_at_the_end_of_the_source(root: &Place) {
    let source = root
        .put("source", b"0123456789")
        .unwrap()
        .open_both()
        .unwrap();
    let (file, target) = root.create("target").unwrap();
    assert_eq!(source.copy_range(4, &target, 0, 1 << 30), Ok(6));
    assert_eq!(file.content().unwrap(), b"456789");
}

fn a_copy_behind_its_own_end_copies_what_was_there(root: &Place) {
    let (file, handle) = root.create("file").unwrap();
    handle.write_all(0, b"0123456789").unwrap();
    assert_eq!(handle.copy_range(4, &handle, 100, 1000), Ok(6));
    assert_eq!(file.attributes().unwrap().size, 106);
}

fn a_copy_from_behind_the_end_copies_nothing(root: &Place) {
    let source = root.put("source", b"abc").unwrap().open_both().unwrap();
    let (file, target) = root.create("target").unwrap();
    assert_eq!(source.copy_range(3, &target, 0, 10), Ok(0));
    assert_eq!(source.copy_range(100, &target, 0, 10), Ok(0));
    assert_eq!(file.attributes().unwrap().size, 0);
}

fn a_copy_onto_itself_is_refused(root: &Place) {
    let (_, handle) = numbered(root, 3);
    let copied = handle.copy_range(0, &handle, BLOCK, 2 * BLOCK);
    refused(copied, Errno::INVAL);
    refused(handle.copy_range(0, &handle, 0, 10), Errno::INVAL);
    assert_eq!(numbers(&handle), [1, 2, 3]);
}

fn a_copy_between_handles_of_the_wrong_mode_is_refused(root: &Place) {
    let file = root.put("source", b"abc").unwrap();
    let other = root.put("target", b"").unwrap();
    let (read, write) = (OpenFlags::READ, OpenFlags::WRITE);
    let copied = file
        .open(write)
        .unwrap()
        .copy_range(0, &other.open(write).unwrap(), 0, 3);
    refused(copied, Errno::BADF);
    let copied = file
        .open(read)
        .unwrap()
        .copy_range(0, &other.open(read).unwrap(), 0, 3);
    refused(copied, Errno::BADF);
}

fn a_copy_to_an_appending_handle_is_refused(root: &Place) {
    let source = root.put("source", b"abc").unwrap().open_both().unwrap();
    let file = root.put("target", b"").unwrap();
    let target = file.open(OpenFlags::WRITE | OpenFlags::APPEND).unwrap();
    refused(source.copy_range(0, &target, 0, 3), Errno::BADF);
}

fn a_copy_of_many_megabytes_is_whole(root: &Place) {
    let (_, source) = root.create("source").unwrap();
    let (_, target) = root.create("target").unwrap();
    for index in 0_u8..10 {
        let part = vec![index + 1; 1 << 20];
        source.write_all(u64::from(index) << 20, &part).unwrap();
    }
    let mut copied = 0;
    while copied < 10 << 20 {
        let left = (10 << 20) - copied;
        let step = source.copy_range(copied, &target, copied, left).unwrap();
        assert!(step > 0);
        copied += step;
    }
    assert_eq!(target.content().unwrap(), source.content().unwrap());
}

fn a_copy_moves_the_modification_time_of_the_target(root: &Place) {
    let (_, source) = numbered(root, 1);
    let (file, target) = root.create("target").unwrap();
    let before = file.attributes().unwrap();
    super::let_time_pass();
    source.copy_range(0, &target, 0, 10).unwrap();
    assert!(file.attributes().unwrap().modified > before.modified);
}
