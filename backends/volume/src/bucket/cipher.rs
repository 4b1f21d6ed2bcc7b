//! Encryption of what a bucket holds: AES-256-GCM, under a key that only those have who use the volume.
//!
//! # What is sealed
//!
//! Frames of content, the records and pieces of log objects, the maps of segments, and checkpoints: all names, attributes and
//! content. In the clear are headers and footers (numbers, lengths, checksums, so that the chain can be followed and objects
//! checked without the key), the names of objects, `volume.json`, `HEAD` and snapshots. Who sees the bucket learns how much
//! is written and when, the names of hosts and snapshots, and how well content compresses; of names and content nothing.
//!
//! # Keys and nonces
//!
//! Each object has a key of its own: HKDF-SHA256 of the volume's key, salted with the volume's uuid, expanded with what the object is
//! (its kind and the numbers in its name). Each part of it that is sealed gets 96 random bits as its nonce, which are stored before it, and
//! is followed by its tag of 128 bits.
//!
//! GCM falls if one key seals two contents with one nonce. Numbers could be nonces only if no name were ever used twice, and a
//! name is: after a bucket was put back to an earlier state the epochs of then are counted again; a clone goes on from the
//! epoch of its origin, with the same uuid and key; a log object that was not stored is made anew under its number. Nothing of
//! that has to be ruled out with random nonces: under one key, that of one name, there are as many seals as an object has parts
//! (16 MiB in frames of 4 KiB are 4096), times the few objects that ever had the name. With 2^16 the chance of two
//! equal nonces is 2^-65; NIST's limit for random nonces is 2^32 seals to a key.
//!
//! # What is bound to what
//!
//! A seal opens only where it was made. The object's name is in its key; as associated data come what the part is, where it begins in
//! the object and how long it is unpacked (a frame), or the object's header (records, parts of checkpoints). So no object can take another one's place,
//! nor a part of it another part's. What ties objects together is sealed, too: pieces carry the place, length and checksum of
//! the frames that they name, and each log object's header the hash of the one before.
//!
//! What nobody can tell who has a bucket alone: whether it is the newest state. A store that shows an earlier one as a whole, `HEAD`
//! included, or in a clone what its origin wrote since, shows what those with the key wrote. A host that has seen more finds out.
//!
//! A checkpoint's parts say which they are, not how many there are: that, and the digest of the whole file, is in `HEAD`. To cut off an
//! end there, one would have to know the digest of what is left, and so the content.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use bytes::{Bytes, BytesMut};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::head::Hex;
use super::log::Uuid;
use super::place::ObjectId;
use crate::key::VolumeKey;

/// What `volume.json` calls it.
pub(super) const ALGORITHM: &str = "AES-256-GCM";
const TAG_BYTES: usize = 16;
/// What a seal adds to what it holds.
pub(super) const SEAL_BYTES: usize = NONCE_LEN + TAG_BYTES;

/// How a volume is encrypted, as `volume.json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Encryption {
    pub(super) algorithm: String,
    /// Tells the volume's key from others.
    check: Hex<16>,
}

/// What is sealed under a key of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sealed {
    Content(ObjectId),
    /// Of the checkpoint of this id at a log object.
    Part {
        seq: u64,
        id: u64,
        part: u32,
    },
}

/// Seals and opens the objects of a volume; those of one that is not encrypted it leaves as they are.
#[derive(Clone, Default)]
pub(super) struct Cipher(Option<Arc<Prk>>);

/// The same for one object.
pub(super) struct ObjectCipher(Option<LessSafeKey>);

/// So many bytes are to be derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(prk: &Prk, what: &[u8]) -> Result<[u8; 32], Unspecified> {
    let mut bytes = [0; 32];
    prk.expand(&[what], Length(bytes.len()))?.fill(&mut bytes)?;
    Ok(bytes)
}

fn failed(_: Unspecified) -> io::Error {
    io::Error::other("encryption failed")
}

impl Cipher {
    pub(super) fn new(key: &VolumeKey, uuid: Uuid) -> Self {
        let prk = Salt::new(HKDF_SHA256, &uuid).extract(key.bytes());
        Self(Some(Arc::new(prk)))
    }

    /// What `volume.json` says of it.
    pub(super) fn encryption(&self) -> io::Result<Option<Encryption>> {
        let Some(prk) = &self.0 else {
            return Ok(None);
        };
        let check = expand(prk, b"vfsd volume 1 key check").map_err(failed)?;
        let check = *check
            .first_chunk::<16>()
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(Encryption {
            algorithm: ALGORITHM.to_owned(),
            check: check.into(),
        }))
    }

    /// What a seal adds to what it holds.
    pub(super) fn overhead(&self) -> usize {
        self.0.as_ref().map_or(0, |_| SEAL_BYTES)
    }

    pub(super) fn of(&self, object: Sealed) -> io::Result<ObjectCipher> {
        let Some(prk) = &self.0 else {
            return Ok(ObjectCipher(None));
        };
        let (kind, numbers) = match object {
            Sealed::Content(ObjectId::Log(seq)) => (b'l', [seq, 0, 0]),
            Sealed::Content(ObjectId::Segment { epoch, seq }) => (b's', [epoch, seq, 0]),
            Sealed::Part { seq, id, part } => (b'c', [seq, id, part.into()]),
        };
        let mut info = b"vfsd volume 1 object ".to_vec();
        info.push(kind);
        for number in numbers {
            info.extend_from_slice(&number.to_le_bytes());
        }
        let key = expand(prk, &info).map_err(failed)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(failed)?;
        Ok(ObjectCipher(Some(LessSafeKey::new(key))))
    }
}

impl ObjectCipher {
    /// See [`Cipher::overhead`].
    pub(super) fn overhead(&self) -> usize {
        self.0.as_ref().map_or(0, |_| SEAL_BYTES)
    }

    /// What is stored for `plain`. It opens with the same `about` alone.
    pub(super) fn seal<'a>(&self, about: &[u8], plain: Cow<'a, [u8]>) -> io::Result<Cow<'a, [u8]>> {
        let Some(key) = &self.0 else {
            return Ok(plain);
        };
        let mut nonce = [0; NONCE_LEN];
        let filled = getrandom(&mut nonce, GetRandomFlags::empty())?;
        if filled != nonce.len() {
            return Err(io::Error::other("there are no random bytes"));
        }
        let mut sealed = Vec::with_capacity(plain.len().saturating_add(SEAL_BYTES));
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        let content = sealed.get_mut(NONCE_LEN..).unwrap_or_default();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(about), content)
            .map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    /// What was sealed, from what is stored for it.
    pub(super) fn open(&self, about: &[u8], stored: &Bytes) -> Result<Bytes, Damage> {
        const FORGED: Damage = Damage("it was not sealed with the volume's key for this place");
        let Some(key) = &self.0 else {
            return Ok(stored.clone());
        };
        let (nonce, sealed) = stored.split_first_chunk::<NONCE_LEN>().ok_or(FORGED)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut opened = BytesMut::from(sealed);
        let length = key
            .open_in_place(nonce, Aad::from(about), &mut opened)
            .map_err(|_| FORGED)?
            .len();
        opened.truncate(length);
        Ok(opened.freeze())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_ref().map(|_| ALGORITHM);
        f.debug_tuple("Cipher").field(&name).finish()
    }
}

impl fmt::Debug for ObjectCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_ref().map(|_| ALGORITHM);
        f.debug_tuple("ObjectCipher").field(&name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Sealed = Sealed::Content(ObjectId::Segment { epoch: 1, seq: 2 });

    fn cipher(key: u8, uuid: u8) -> Cipher {
        Cipher::new(&VolumeKey::from([key; 32]), [uuid; 16])
    }

    fn sealed(cipher: &Cipher, object: Sealed, about: &[u8], plain: &[u8]) -> Bytes {
        let object = cipher.of(object).unwrap();
        let sealed = object.seal(about, plain.into()).unwrap();
        sealed.into_owned().into()
    }

    #[test]
    fn what_is_sealed_opens_where_it_was_sealed_and_nowhere_else() {
        let key = cipher(1, 1);
        let stored = sealed(&key, SEGMENT, b"here", b"some content");
        assert_eq!(stored.len(), 12 + SEAL_BYTES);
        let open = |cipher: &Cipher, object, about: &[u8]| {
            let opened = cipher.of(object).unwrap().open(about, &stored);
            opened.ok()
        };
        assert_eq!(open(&key, SEGMENT, b"here").unwrap(), "some content");
        assert_eq!(open(&key, SEGMENT, b"there"), None);
        assert_eq!(open(&cipher(2, 1), SEGMENT, b"here"), None);
        assert_eq!(open(&cipher(1, 2), SEGMENT, b"here"), None);
        for other in [
            Sealed::Content(ObjectId::Segment { epoch: 2, seq: 1 }),
            Sealed::Content(ObjectId::Log(1)),
            Sealed::Part {
                seq: 1,
                id: 2,
                part: 0,
            },
        ] {
            assert_eq!(open(&key, other, b"here"), None, "{other:?}");
        }
    }

    #[test]
    fn no_changed_bit_passes() {
        let key = cipher(1, 1);
        let stored = sealed(&key, SEGMENT, b"", b"some content");
        let object = key.of(SEGMENT).unwrap();
        for at in 0..stored.len() * 8 {
            let mut damaged = stored.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(object.open(b"", &damaged.into()).is_err(), "{at}");
        }
        for length in 0..stored.len() {
            assert!(object.open(b"", &stored.slice(..length)).is_err());
        }
    }

    #[test]
    fn the_same_content_is_never_sealed_alike() {
        let key = cipher(1, 1);
        let all: std::collections::HashSet<_> = (0..1000)
            .map(|_| sealed(&key, SEGMENT, b"", &[0; 64]).slice(..NONCE_LEN))
            .collect();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_key_is_told_from_others_and_its_check_gives_nothing_away() {
        let check = |key, uuid| cipher(key, uuid).encryption().unwrap().unwrap();
        assert_eq!(check(1, 1), check(1, 1));
        assert_ne!(check(1, 1), check(2, 1));
        assert_ne!(check(1, 1), check(1, 2));
    }

    #[test]
    fn without_a_key_nothing_is_changed() {
        let none = Cipher::default();
        assert_eq!(none.encryption().unwrap(), None);
        assert_eq!(none.overhead(), 0);
        let stored = sealed(&none, SEGMENT, b"", b"some content");
        assert_eq!(stored, "some content");
        let opened = none.of(SEGMENT).unwrap().open(b"other", &stored);
        assert_eq!(opened.unwrap(), "some content");
    }
}
