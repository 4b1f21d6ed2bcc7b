//! A small engine: files of one piece each, written again and again, with a record for each write.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::wild::Chance;
use super::*;

/// What a volume holds: all records, and the content of each file as it was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) records: Vec<(Lsn, String)>,
    pub(super) files: BTreeMap<u64, Piece>,
}

pub(super) fn content(text: &str) -> Vec<u8> {
    text.repeat(40).into_bytes()
}

/// Where content lies that nobody looks at.
const BEHIND: u64 = 1 << 20;

impl State {
    fn apply(&mut self, object: LogObject) {
        for (lsn, record) in object.records {
            self.records.push((lsn, String::from_utf8(record).unwrap()));
        }
        for piece in object.pieces {
            self.files.insert(piece.ino, piece);
        }
    }

    /// Everything in a file, as a database would be.
    pub(super) fn save(&self, path: &Path) {
        let mut lines: Vec<String> = Vec::new();
        for (lsn, record) in &self.records {
            lines.push(format!("record {lsn} {record}"));
        }
        for piece in self.files.values() {
            let (frame, within) = piece.place.unwrap();
            let object = match frame.object {
                ObjectId::Log(seq) => format!("{seq} -"),
                ObjectId::Segment { epoch, seq } => format!("{epoch} {seq}"),
            };
            lines.push(format!(
                "file {} {} {object} {} {} {} {} {within}",
                piece.ino, piece.length, frame.offset, frame.stored, frame.length, frame.crc
            ));
        }
        std::fs::write(path, lines.join("\n")).unwrap();
    }

    pub(super) fn load(path: &Path) -> Self {
        let mut state = Self::default();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            if words[0] == "record" {
                state
                    .records
                    .push((words[1].parse().unwrap(), words[2].to_owned()));
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            let short = |at: usize| words[at].parse::<u32>().unwrap();
            let object = match words[4] {
                "-" => ObjectId::Log(number(3)),
                _ => ObjectId::Segment {
                    epoch: number(3),
                    seq: number(4),
                },
            };
            let frame = Frame {
                object,
                offset: number(5),
                stored: short(6),
                length: short(7),
                crc: short(8),
            };
            let piece = Piece {
                ino: number(1),
                offset: 0,
                length: number(2),
                place: Some((frame, short(9))),
            };
            state.files.insert(piece.ino, piece);
        }
        state
    }

    pub(super) fn frames(&self) -> Vec<Frame> {
        self.files
            .values()
            .map(|piece| piece.place.unwrap().0)
            .collect()
    }

    fn objects(&self) -> HashSet<ObjectId> {
        self.frames()
            .into_iter()
            .map(|frame| frame.object)
            .collect()
    }
}

/// A daemon that has the volume.
pub(super) struct Daemon {
    pub(super) remote: Remote,
    pub(super) state: State,
    /// Of the checkpoint that HEAD named when this daemon last looked or wrote one.
    named: Named,
    folder: tempfile::TempDir,
}

impl Daemon {
    pub(super) async fn open(store: &Store, opener: &Opener) -> Result<Self, BucketError> {
        let opened = Remote::open(store, "vol", opener).await?;
        let mut daemon = Self {
            remote: opened.remote,
            state: State::default(),
            named: Named::default(),
            folder: fast_folder(),
        };
        if let Err(error) = daemon.recover(&opened.head).await {
            // Whoever took the volume over may have removed what was to be read.
            return Err(match insist(|| daemon.remote.verify_owner()).await {
                Err(ShipError::Fenced) => BucketError::Fenced("vol".into()),
                _ => error,
            });
        }
        Ok(daemon)
    }

    async fn recover(&mut self, head: &Head) -> Result<(), BucketError> {
        let file = self.folder.path().join("restored");
        let base = self.remote.restore(&file).await?;
        if let Some(checkpoint) = &head.checkpoint {
            self.state = State::load(&file);
            self.knows(checkpoint.id);
        }
        let mut state = std::mem::take(&mut self.state);
        let followed = self.remote.follow::<BucketError>(base, |object, _| {
            state.apply(object);
            Ok(())
        });
        assert_eq!(followed.await?, self.remote.end());
        self.state = state;
        Ok(())
    }

    fn knows(&mut self, checkpoint: u64) {
        self.named = Named {
            checkpoints: BTreeSet::from([checkpoint]),
            objects: self.state.objects(),
            ..Named::default()
        };
    }

    /// Writes a file; done when that is in the bucket. Small content goes into the log object.
    pub(super) async fn write(
        &mut self,
        ino: u64,
        text: &str,
        inline: bool,
    ) -> Result<Point, ShipError> {
        let raw = content(text);
        let mut small = self.remote.inline().unwrap();
        let mut pieces = Vec::new();
        let frame = match inline {
            true => small.append(&raw).unwrap(),
            false => {
                let mut writer = self.remote.segment().unwrap();
                let before = writer.append(ino, BEHIND, b"what comes before it").unwrap();
                pieces.push(Piece::whole(ino, BEHIND, before));
                let frame = writer.append(ino, 0, &raw).unwrap();
                let segment = writer.finish().unwrap();
                insist(|| self.remote.put_segment(&segment)).await?;
                frame
            }
        };
        let lsn = self.remote.end().lsn + 1;
        let piece = Piece::whole(ino, 0, frame);
        // The last one of a file counts here.
        pieces.push(piece);
        let records = vec![(lsn, text.as_bytes().to_vec())];
        let sealed = self
            .remote
            .seal(lsn, records.clone(), pieces, small)
            .unwrap();
        let point = insist(|| self.remote.append(&sealed)).await?;
        assert_eq!(point, sealed.point());
        self.state.records.push((lsn, text.to_owned()));
        self.state.files.insert(ino, piece);
        Ok(point)
    }

    pub(super) async fn checkpoint(&mut self) -> Result<Checkpoint, ShipError> {
        let file = self.folder.path().join("made");
        self.state.save(&file);
        let checkpoint = self.remote.checkpoint(&file, self.remote.end()).await?;
        self.knows(checkpoint.id);
        Ok(checkpoint)
    }

    pub(super) async fn collect(&self) -> Result<Collected, ShipError> {
        self.remote.collect(&self.named, Duration::ZERO).await
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// All files hold what was last written to them, as their records say.
    pub(super) async fn verify_content(&self) {
        let frames = self.state.frames();
        let contents = self.remote.read_frames(&frames).await.unwrap();
        let last: BTreeMap<u64, &str> = self
            .state
            .records
            .iter()
            .filter_map(|(_, text)| Some((text.split_once(' ')?.0.parse().ok()?, text.as_str())))
            .collect();
        for (piece, read) in self.state.files.values().zip(contents) {
            assert_eq!(read, content(last[&piece.ino]));
        }
        assert_eq!(self.state.files.len(), last.len());
    }
}

/// In memory where the host has such a place: checkpoints are made durable when they are restored.
fn fast_folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Does something until the store answers.
async fn insist<T, F: Future<Output = Result<T, ShipError>>>(
    mut work: impl FnMut() -> F,
) -> Result<T, ShipError> {
    loop {
        match work().await {
            Err(ShipError::Store(BucketError::Store { .. })) => {}
            result => return result,
        }
    }
}

/// A text that names its file and that nobody else writes.
pub(super) fn text(chance: &Chance, daemon: u64, number: u64) -> (u64, String) {
    let ino = chance.below(5) + 10;
    (ino, format!("{ino} {daemon}.{number}"))
}
