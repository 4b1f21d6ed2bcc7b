//! Which table of contents a manifest vouches for.

use crate::blob::Sha256Digest;

/// SHA-256 of an eStargz layer's table, as JSON.
const ESTARGZ: &str = "containerd.io/snapshot/stargz/toc.digest";

/// What the annotations of zstd:chunked begin with, now and before 2023.
const CHUNKED: [&str; 2] = [
    "io.github.containers.zstd-chunked",
    "io.containers.zstd-chunked",
];

/// The one type of table that there is.
const CRFS: u64 = 1;

/// A table of contents, as the annotations of a layer in a manifest name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TocReference {
    /// Of an eStargz layer.
    EStargz {
        /// SHA-256 of the table.
        toc: Sha256Digest,
    },
    /// Of a zstd:chunked layer.
    ZstdChunked(ChunkedPlace),
}

/// Where a zstd:chunked layer has its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkedPlace {
    /// SHA-256 of the table as the layer has it.
    pub(super) sha256: Sha256Digest,
    /// Its place in the layer, after the head of its frame.
    pub(super) offset: u64,
    /// Bytes that it has there.
    pub(super) length: u64,
    /// Bytes that it decodes to.
    pub(super) decoded: u64,
}

impl TocReference {
    /// The table that a layer's annotations name, if they do so completely. One that they do not give a SHA-256 of is
    /// nobody's word.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        for prefix in CHUNKED {
            let sha256 = annotation(&format!("{prefix}.manifest-checksum"));
            let position = annotation(&format!("{prefix}.manifest-position"));
            if let (Some(sha256), Some(position)) = (sha256, position) {
                let place = ChunkedPlace::parse(sha256.parse().ok()?, position);
                return place.map(Self::ZstdChunked);
            }
        }
        let toc = annotation(ESTARGZ)?.parse().ok()?;
        Some(Self::EStargz { toc })
    }

    /// The SHA-256 that the manifest has of the table.
    pub fn digest(&self) -> Sha256Digest {
        match self {
            Self::EStargz { toc } => *toc,
            Self::ZstdChunked(place) => place.sha256,
        }
    }

    /// Whether the layer may have files of its format, which are none of the image:
    /// see [`is_of_format`](Self::is_of_format).
    pub(crate) fn has_files_of_format(&self) -> bool {
        matches!(self, Self::EStargz { .. })
    }

    /// Whether a path of such a layer is of its format: the table itself, and marks for those who read ahead.
    pub(crate) fn is_of_format(path: &[u8]) -> bool {
        let mut names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."));
        let name = names.next();
        let is_last = names.next().is_none();
        let of_format: [&[u8]; 3] = [
            super::estargz::TABLE,
            b".prefetch.landmark",
            b".no.prefetch.landmark",
        ];
        is_last && name.is_some_and(|name| of_format.contains(&name))
    }
}

impl ChunkedPlace {
    /// `offset:length:decoded:type`, as the annotation has it.
    fn parse(sha256: Sha256Digest, position: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = position.split(':').map(|it| it.parse().ok()).collect();
        match numbers?.as_slice() {
            [offset, length, decoded, CRFS] => Some(Self {
                sha256,
                offset: *offset,
                length: *length,
                decoded: *decoded,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn of(annotations: &[(&str, &'static str)]) -> Option<TocReference> {
        TocReference::of(|name| {
            let found = annotations.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        })
    }

    #[test]
    fn a_table_is_named_completely_or_not_at_all() {
        for prefix in CHUNKED {
            let checksum = format!("{prefix}.manifest-checksum");
            let position = format!("{prefix}.manifest-position");
            let named = of(&[(&checksum, SHA256), (&position, "5:6:7:1")]);
            let Some(TocReference::ZstdChunked(place)) = named else {
                panic!("{named:?}");
            };
            assert_eq!((place.offset, place.length, place.decoded), (5, 6, 7));
            assert_eq!(of(&[(&checksum, SHA256)]), None);
            assert_eq!(of(&[(&position, "5:6:7:1")]), None);
            for wrong in ["5:6:7:2", "5:6:7", "5:6:7:1:1", "-5:6:7:1", "a:6:7:1", ""] {
                assert_eq!(of(&[(&checksum, SHA256), (&position, wrong)]), None);
            }
        }
        let named = of(&[(ESTARGZ, SHA256)]).unwrap();
        assert_eq!(named.digest().to_string(), SHA256);
        assert_eq!(of(&[(ESTARGZ, "sha512:00")]), None);
        assert_eq!(of(&[("other", SHA256)]), None);
    }

    #[test]
    fn files_of_the_format_are_those_at_the_root() {
        for path in [
            "stargz.index.json",
            "./.prefetch.landmark",
            "/.no.prefetch.landmark",
        ] {
            assert!(TocReference::is_of_format(path.as_bytes()), "{path}");
        }
        for path in ["a/stargz.index.json", "stargz.index.json/a", "", "./", "a"] {
            assert!(!TocReference::is_of_format(path.as_bytes()), "{path}");
        }
    }
}
