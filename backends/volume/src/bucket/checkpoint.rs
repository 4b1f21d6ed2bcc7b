//! Checkpoints: the file with all rows as they were at a point of the chain, compressed and cut into parts.
//!
//! A part begins with 48 bytes: [`MAGIC`], the volume's uuid, the checkpoint's id (8 bytes), the part's number (4), the CRC-32 of
//! what follows (4). That is sealed with the bytes before the CRC where the volume is encrypted. HEAD names a checkpoint only after all of its parts are there.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use zstd::stream::{read, write};

use super::chain;
use super::cipher::{ObjectCipher, Sealed};
use super::damage::Damage;
use super::error::{BucketError, ShipError};
use super::head::Checkpoint;
use super::log::Uuid;
use super::objects::Objects;
use super::open::random;
use super::place::{ChainHash, Point};
use super::remote::Remote;
use crate::meta::codec::{Decoder, Encoder};

const MAGIC: [u8; 16] = *b"vfsd checkpt\0\0\0\x01";
const HEADER_BYTES: usize = 48;
/// Of a part, its header included.
const PART_BYTES: usize = 16 << 20;
const LEVEL: i32 = 1;
/// What a reader spends on a window at most: 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;

impl Remote {
    /// Stores `file` as what reading begins with from now on: all rows as they are at the point `at`. It must not change
    /// meanwhile.
    ///
    /// # Errors
    /// `at` is no point of the chain or lies before the checkpoint that is there; the file cannot be read; what
    /// [`ShipError`] names.
    pub async fn checkpoint(&self, file: &Path, at: Point) -> Result<Checkpoint, ShipError> {
        let _care = self.care.lock().await;
        let base = self.head().await.base();
        if at.seq < base.seq || !self.has(at).await? {
            return Err(ShipError::Store(BucketError::Diverged(at.seq)));
        }
        let checkpoint = store_parts(&self.objects, self.uuid, file, at).await?;
        self.change_head(|head| head.checkpoint = Some(checkpoint.clone()))
            .await?;
        Ok(checkpoint)
    }

    /// Whether a point is one of the chain.
    async fn has(&self, point: Point) -> Result<bool, BucketError> {
        let end = self.end();
        if point == end || point == Point::START || point == self.head().await.base() {
            return Ok(true);
        }
        if point.seq >= end.seq {
            return Ok(false);
        }
        let found = chain::fetch(&self.objects, self.uuid, point.seq).await?;
        Ok(found.is_some_and(|found| found.point == point))
    }
}

/// Stores the parts of a checkpoint, which nothing names yet.
pub(super) async fn store_parts(
    objects: &Objects,
    uuid: Uuid,
    file: &Path,
    at: Point,
) -> Result<Checkpoint, BucketError> {
    let [id, _] = halves(random());
    let cipher = objects.cipher.clone();
    let sealed = move |part| Sealed::Part {
        seq: at.seq,
        id,
        part,
    };
    let path = file.to_owned();
    let mut packer = blocking(move || Packer::open(&path)).await?;
    let (mut parts, mut stored) = (0_u32, 0_u64);
    loop {
        let cipher = cipher.clone();
        let (back, part) = blocking(move || {
            let part = packer.part(uuid, id, parts, &cipher.of(sealed(parts))?)?;
            Ok((packer, part))
        })
        .await?;
        packer = back;
        let Some(part) = part else {
            break;
        };
        stored = stored.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        let key = objects.names.checkpoint_part(at.seq, id, parts);
        if !objects.create(&key, part).await? {
            let taken = Damage("there is another checkpoint of this name");
            return Err(BucketError::damaged(key)(taken));
        }
        parts = parts.saturating_add(1);
    }
    let (length, digest) = packer.read();
    Ok(Checkpoint {
        at,
        id,
        parts,
        stored,
        length,
        digest,
    })
}

fn halves(number: u128) -> [u64; 2] {
    let half = |shift: u32| u64::try_from((number >> shift) & u128::from(u64::MAX)).unwrap_or(0);
    [half(64), half(0)]
}

/// Writes the file of a checkpoint to `to`. It is there whole, or not at all.
pub(super) async fn restore(
    objects: &Objects,
    uuid: Uuid,
    checkpoint: &Checkpoint,
    to: &Path,
) -> Result<(), BucketError> {
    let result = write_parts(objects, uuid, checkpoint, to.to_owned()).await;
    if result.is_err()
        && let Err(error) = std::fs::remove_file(to)
    {
        tracing::debug!(%error, "there is no half of a checkpoint to remove");
    }
    result
}

async fn write_parts(
    objects: &Objects,
    uuid: Uuid,
    checkpoint: &Checkpoint,
    to: PathBuf,
) -> Result<(), BucketError> {
    let length = checkpoint.length;
    let mut unpacker = blocking(move || Unpacker::create(&to, length)).await?;
    let limit = u64::try_from(PART_BYTES).unwrap_or(u64::MAX);
    let mut key = objects.names.head();
    for number in 0..checkpoint.parts {
        key = objects
            .names
            .checkpoint_part(checkpoint.at.seq, checkpoint.id, number);
        let damaged = |what| BucketError::damaged(&key)(Damage(what));
        let Some((part, _)) = objects.read(&key, limit).await? else {
            return Err(damaged("it is not there"));
        };
        let (id, cipher) = (checkpoint.id, objects.cipher.clone());
        let sealed = Sealed::Part {
            seq: checkpoint.at.seq,
            id,
            part: number,
        };
        let (back, taken) = blocking(move || {
            let taken = match open_part(uuid, id, number, &part, &cipher.of(sealed)?) {
                Ok(data) => unpacker.add(&data),
                Err(damage) => Err(Refused::Damaged(damage)),
            };
            Ok((unpacker, taken))
        })
        .await?;
        unpacker = back;
        match taken {
            Ok(()) => {}
            Err(Refused::Damaged(damage)) => return Err(BucketError::damaged(&key)(damage)),
            Err(Refused::Disk(error)) => {
                return Err(BucketError::local("write a checkpoint to the disk")(error));
            }
        }
    }
    let (read, digest) = blocking(move || unpacker.finish()).await?;
    match (read, digest) == (checkpoint.length, checkpoint.digest) {
        true => Ok(()),
        false => Err(BucketError::damaged(key)(Damage(
            "the checkpoint that ends with it is not the one that was written",
        ))),
    }
}

/// Runs what waits for the disk or computes for long away from other tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BucketError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(BucketError::local("a checkpoint's file"))
}

/// Counts and digests what passes.
struct Digesting<T> {
    inner: T,
    length: u64,
    digest: Sha256,
}

impl<T> Digesting<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            length: 0,
            digest: Sha256::new(),
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(length);
    }

    fn passed(&self) -> (u64, ChainHash) {
        (
            self.length,
            ChainHash(self.digest.clone().finalize().into()),
        )
    }
}

impl Read for Digesting<File> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.pass(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Compresses a file part by part.
struct Packer {
    encoder: read::Encoder<'static, BufReader<Digesting<File>>>,
}

impl Packer {
    fn open(path: &Path) -> io::Result<Self> {
        let encoder = read::Encoder::new(Digesting::new(File::open(path)?), LEVEL)?;
        Ok(Self { encoder })
    }

    /// The next part; `None` after the last.
    fn part(
        &mut self,
        uuid: Uuid,
        id: u64,
        number: u32,
        cipher: &ObjectCipher,
    ) -> io::Result<Option<Bytes>> {
        let mut data = Vec::new();
        let beside = HEADER_BYTES.saturating_add(cipher.overhead());
        let room = PART_BYTES.saturating_sub(beside);
        let room = u64::try_from(room).map_err(io::Error::other)?;
        (&mut self.encoder).take(room).read_to_end(&mut data)?;
        if data.is_empty() {
            return Ok(None);
        }
        let mut part = Encoder(Vec::with_capacity(data.len().saturating_add(beside)));
        part.0.extend_from_slice(&MAGIC);
        part.0.extend_from_slice(&uuid);
        part.u64(id);
        part.u32(number);
        let data = cipher.seal(&part.0, data.into())?;
        part.u32(crc32fast::hash(&data));
        part.0.extend_from_slice(&data);
        Ok(Some(part.0.into()))
    }

    /// Bytes of the file that were read, and their digest.
    fn read(&self) -> (u64, ChainHash) {
        self.encoder.get_ref().get_ref().passed()
    }
}

/// The data of a part.
fn open_part(
    uuid: Uuid,
    id: u64,
    number: u32,
    part: &Bytes,
    cipher: &ObjectCipher,
) -> Result<Bytes, Damage> {
    let mut from = Decoder(part);
    let header = (
        from.array::<16>()?,
        from.array::<16>()?,
        from.u64()?,
        from.u32()?,
    );
    if header != (MAGIC, uuid, id, number) {
        return Err(Damage("it is not that part of that checkpoint"));
    }
    let about = part.len().saturating_sub(from.0.len());
    let about = part.get(..about).unwrap_or_default();
    let crc = from.u32()?;
    let data = part.slice_ref(from.0);
    match crc32fast::hash(&data) == crc {
        true => cipher.open(about, &data),
        false => Err(Damage("its checksum is wrong")),
    }
}

/// Why a part was not taken.
enum Refused {
    Damaged(Damage),
    Disk(io::Error),
}

/// Writes what comes to a file, up to the length that is expected.
struct Target {
    file: Digesting<File>,
    length: u64,
    failed: Option<io::Error>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = u64::try_from(bytes.len())
            .ok()
            .and_then(|n| n.checked_add(self.file.length));
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let written = match self.file.inner.write(bytes) {
            Ok(written) => written,
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                return Err(kind.into());
            }
        };
        self.file.pass(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Unpacker {
    decoder: write::Decoder<'static, Target>,
}

impl Unpacker {
    fn create(path: &Path, length: u64) -> io::Result<Self> {
        let target = Target {
            file: Digesting::new(File::create(path)?),
            length,
            failed: None,
        };
        let mut decoder = write::Decoder::new(target)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Self { decoder })
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Refused> {
        let written = self
            .decoder
            .write_all(data)
            .and_then(|()| self.decoder.flush());
        let failed = self.decoder.get_mut().failed.take();
        match (written, failed) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(error)) => Err(Refused::Disk(error)),
            (Err(_), None) => Err(Refused::Damaged(Damage(
                "it does not unpack to a checkpoint",
            ))),
        }
    }

    /// Bytes that were written and are on the disk, and their digest.
    fn finish(self) -> io::Result<(u64, ChainHash)> {
        let target = self.decoder.into_inner();
        target.file.inner.sync_all()?;
        Ok(target.file.passed())
    }
}
