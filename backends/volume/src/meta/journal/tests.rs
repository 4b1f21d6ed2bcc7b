use super::*;

fn records(folder: &Path, after: Lsn) -> (Lsn, Vec<(Lsn, Vec<u8>)>) {
    let mut records = Vec::new();
    let last = read(folder, after, |lsn, record| {
        records.push((lsn, record.to_vec()));
        Ok(())
    });
    (last.unwrap(), records)
}

fn one_file(folder: &Path) -> PathBuf {
    files(folder).unwrap().pop().unwrap().1
}

#[test]
fn records_are_read_in_the_order_they_were_appended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 7).unwrap();
    assert_eq!(
        journal
            .append(b"one", Purpose::Usual, |lsn| assert_eq!(lsn, 8))
            .unwrap(),
        8
    );
    assert_eq!(journal.append(b"", Purpose::Usual, |_| ()).unwrap(), 9);
    journal.sync(9).unwrap();
    let both = vec![(8, b"one".to_vec()), (9, Vec::new())];
    assert_eq!(records(dir.path(), 7), (9, both.clone()));
    assert_eq!(records(dir.path(), 8), (9, both[1..].to_vec()));
    assert_eq!(records(dir.path(), 9), (9, Vec::new()));
    assert_eq!(records(dir.path(), 3), (3, Vec::new()), "a gap");
}

#[test]
fn records_are_read_while_others_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 0).unwrap();
    let mut cursor = Cursor::new(dir.path(), 0);
    let large = vec![3; usize::try_from(MAX_RECORD_BYTES).unwrap()];
    let mut at = 0;
    for round in 0..60_u64 {
        let size = if round % 3 == 0 { large.len() } else { 70 };
        for _ in 0..round % 4 {
            journal
                .append(&large[..size], Purpose::Usual, |_| ())
                .unwrap();
        }
        let last = journal.last();
        let read = cursor.read_to(last).unwrap();
        let numbers: Vec<Lsn> = read.iter().map(|(lsn, _)| *lsn).collect();
        assert_eq!(numbers, (at + 1..=last).collect::<Vec<_>>());
        assert!(read.iter().all(|(_, record)| record.len() == size));
        at = last;
    }
    let mut late = Cursor::new(dir.path(), at - 40);
    assert_eq!(late.read_to(at).unwrap().len(), 40);
    assert!(late.read_to(at + 1).is_err(), "not appended");
}

#[test]
fn a_journal_goes_on_after_the_files_that_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 0).unwrap();
    journal.append(b"one", Purpose::Usual, |_| ()).unwrap();
    drop(journal);
    let journal = Journal::begin(dir.path(), 1).unwrap();
    drop(journal);
    let journal = Journal::begin(dir.path(), 1).unwrap();
    journal.append(b"two", Purpose::Usual, |_| ()).unwrap();
    let both = vec![(1, b"one".to_vec()), (2, b"two".to_vec())];
    assert_eq!(records(dir.path(), 0), (2, both.clone()));
    assert_eq!(Cursor::new(dir.path(), 0).read_to(2).unwrap(), both);
    journal.trim(1).unwrap();
    assert_eq!(files(dir.path()).unwrap().len(), 1);
    assert!(Cursor::new(dir.path(), 0).read_to(2).is_err());
}

#[test]
fn what_is_torn_at_the_end_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 0).unwrap();
    journal.append(b"kept", Purpose::Usual, |_| ()).unwrap();
    journal
        .append(b"torn away", Purpose::Usual, |_| ())
        .unwrap();
    let path = one_file(dir.path());
    let mut whole = std::fs::read(&path).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap();
    whole.truncate(end + 1);
    for length in whole.len() - 24..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(records(dir.path(), 0).0, 1, "{length}");
    }
    let mut damaged = whole.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(records(dir.path(), 0).0, 1);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(records(dir.path(), 0).0, 2);
}

#[test]
fn on_a_full_disk_there_is_room_for_what_gives_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 0).unwrap();
    let record = [1; 400];
    journal.append(&record, Purpose::Usual, |_| ()).unwrap();
    journal.tail.lock().disk_is_full = true;
    let usual = (0..1000)
        .take_while(|_| journal.append(&record, Purpose::Usual, |_| ()).is_ok())
        .count();
    assert!((100..900).contains(&usual), "{usual}");
    for _ in 0..200 {
        journal.append(&record, Purpose::Freeing, |_| ()).unwrap();
        assert!(journal.append(&record, Purpose::Usual, |_| ()).is_err());
    }
    journal.tail.lock().disk_is_full = false;
    journal.append(&record, Purpose::Usual, |_| ()).unwrap();
    assert_eq!(records(dir.path(), 0).0, journal.last());
}

#[test]
fn full_files_follow_each_other_and_go_when_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::begin(dir.path(), 0).unwrap();
    let record = vec![5; usize::try_from(MAX_RECORD_BYTES).unwrap()];
    for _ in 0..40 {
        journal.append(&record, Purpose::Usual, |_| ()).unwrap();
    }
    journal.sync(40).unwrap();
    assert_eq!(records(dir.path(), 0).0, 40);
    let files_before = files(dir.path()).unwrap();
    assert_eq!(files_before.len(), 3);
    let bytes = journal.bytes();
    journal.trim(files_before[1].0).unwrap();
    assert_eq!(files(dir.path()).unwrap().len(), 2);
    assert!(journal.bytes() < bytes - FILE_BYTES + 4096);
    journal.trim(40).unwrap();
    assert_eq!(
        files(dir.path()).unwrap().len(),
        1,
        "the last is appended to"
    );
    journal.append(b"more", Purpose::Usual, |_| ()).unwrap();
    assert_eq!(journal.last(), 41);
    let longer = vec![0; record.len() + 1];
    assert!(journal.append(&longer, Purpose::Usual, |_| ()).is_err());
}
