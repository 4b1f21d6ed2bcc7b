//! Checkpoints: written, read, and refused when they are damaged.

use object_store::ObjectStoreExt;

use super::model::Daemon;
use super::*;

async fn with_checkpoint(bytes: &[u8]) -> (Bucket, Remote, Checkpoint, tempfile::TempDir) {
    let bucket = Bucket::with_volume().await;
    let opened = open(&bucket.steady(), "a", false).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, bytes).unwrap();
    let end = opened.remote.end();
    let checkpoint = opened.remote.checkpoint(&file, end).await.unwrap();
    (bucket, opened.remote, checkpoint, folder)
}

fn noise(length: usize) -> Vec<u8> {
    let chance = super::wild::Chance::new(3);
    (0..length / 8)
        .flat_map(|_| (chance.below(u64::MAX) << 5).to_le_bytes())
        .collect()
}

#[tokio::test]
async fn a_checkpoint_of_several_parts_comes_back_as_it_was() {
    let whole = noise(40 << 20);
    let (_bucket, remote, checkpoint, folder) = with_checkpoint(&whole).await;
    assert_eq!((checkpoint.parts, checkpoint.length), (3, 40 << 20));
    let to = folder.path().join("restored");
    assert_eq!(remote.restore(&to).await.unwrap(), checkpoint.at);
    assert!(std::fs::read(&to).unwrap() == whole);
}

#[tokio::test]
async fn an_empty_file_is_a_checkpoint_too() {
    let (_bucket, remote, checkpoint, folder) = with_checkpoint(b"").await;
    let to = folder.path().join("restored");
    assert_eq!(remote.restore(&to).await.unwrap(), checkpoint.at);
    assert_eq!(std::fs::read(&to).unwrap(), b"");
}

#[tokio::test]
async fn without_a_checkpoint_reading_begins_at_the_start() {
    let bucket = Bucket::with_volume().await;
    let opened = open(&bucket.steady(), "a", false).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("restored");
    assert_eq!(opened.remote.restore(&to).await.unwrap(), Point::START);
    assert!(!to.exists());
}

#[tokio::test]
async fn a_damaged_checkpoint_is_refused_and_leaves_no_file() {
    let (bucket, remote, checkpoint, folder) = with_checkpoint(&b"rows ".repeat(1000)).await;
    let names = Names::new("vol").unwrap();
    let key = names.checkpoint_part(checkpoint.at.seq, checkpoint.id, 0);
    let good = bucket.0.get(&key).await.unwrap().bytes().await.unwrap();
    let to = folder.path().join("restored");
    let mut bad: Vec<Option<Vec<u8>>> = vec![None];
    for at in 0..good.len() {
        let mut changed = good.to_vec();
        changed[at] ^= 1;
        bad.push(Some(changed));
        bad.push(Some(good[..at].to_vec()));
    }
    // With a checksum that fits, but another content.
    let mut forged = good.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let crc = crc32fast::hash(&forged[48..]);
    forged[44..48].copy_from_slice(&crc.to_le_bytes());
    bad.push(Some(forged));
    for body in bad {
        match body {
            Some(body) => drop(bucket.0.put(&key, body.into()).await.unwrap()),
            None => bucket.0.delete(&key).await.unwrap(),
        }
        let refused = remote.restore(&to).await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{key}: ")), "{refused}");
        assert!(!to.exists());
    }
    bucket.0.put(&key, good.into()).await.unwrap();
    remote.restore(&to).await.unwrap();
}

/// What unpacks to more than HEAD says does not fill the disk.
#[tokio::test]
async fn a_checkpoint_that_unpacks_to_more_than_it_says_is_refused() {
    let (_bucket, remote, checkpoint, folder) = with_checkpoint(&vec![0; 8 << 20]).await;
    let lying = Checkpoint {
        length: 1 << 20,
        ..checkpoint
    };
    let to = folder.path().join("restored");
    let refused = remote.view().await.restore(&lying, &to).await.unwrap_err();
    assert!(refused.to_string().contains("does not unpack"), "{refused}");
    assert!(!to.exists());
}

/// I2, on this side: HEAD never names a checkpoint of a point that is not in the chain.
#[tokio::test]
async fn i2_a_checkpoint_of_a_point_outside_of_the_chain_is_refused() {
    let (bucket, remote, checkpoint, folder) = with_checkpoint(b"rows").await;
    let file = folder.path().join("file");
    remote.append(&record(&remote, "one")).await.unwrap();
    remote.append(&record(&remote, "two")).await.unwrap();
    let end = remote.end();
    let elsewhere = [
        Point {
            seq: end.seq + 1,
            ..end
        },
        Point {
            hash: ChainHash([1; 32]),
            ..end
        },
        Point {
            seq: end.seq - 1,
            ..end
        },
        Point {
            lsn: end.lsn + 1,
            ..end
        },
        // Before the checkpoint that is there.
        Point::START,
    ];
    for point in elsewhere {
        let refused = remote.checkpoint(&file, point).await.unwrap_err();
        assert!(
            matches!(refused, ShipError::Store(BucketError::Diverged(_))),
            "{refused}"
        );
    }
    let view = View::open(&bucket.steady(), "vol").await.unwrap();
    assert_eq!(view.head().checkpoint, Some(checkpoint));
    remote.checkpoint(&file, end).await.unwrap();
}

#[tokio::test]
async fn an_overtaken_daemon_makes_no_checkpoint() {
    let (bucket, remote, checkpoint, folder) = with_checkpoint(b"rows").await;
    let store = bucket.steady();
    let other = open(&store, "b", true).await.unwrap();
    let file = folder.path().join("file");
    let refused = remote.checkpoint(&file, remote.end()).await;
    assert!(matches!(refused, Err(ShipError::Fenced)));
    assert_eq!(
        other.remote.view().await.head().checkpoint,
        Some(checkpoint)
    );
}

#[tokio::test]
async fn reading_begins_with_the_checkpoint_and_goes_on_with_the_log() {
    let bucket = Bucket::with_volume().await;
    let store = bucket.steady();
    let mut daemon = Daemon::open(&store, &opener("a", false)).await.unwrap();
    daemon.write(10, "10 first", true).await.unwrap();
    daemon.write(11, "11 second", false).await.unwrap();
    daemon.checkpoint().await.unwrap();
    daemon.write(10, "10 third", false).await.unwrap();
    let again = Daemon::open(&store, &opener("a", false)).await.unwrap();
    assert_eq!(again.state, daemon.state);
    again.verify_content().await;
}
