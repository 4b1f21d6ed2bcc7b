//! The keys of a volume's objects.

use object_store::path::Path;

use super::place::ObjectId;

/// Names the objects of the volume under one prefix of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    root: Path,
}

impl Names {
    /// Of the volume under `prefix`: empty, or components with `/` between them.
    ///
    /// # Errors
    /// What the object store's client cannot name, such as `..`.
    pub fn new(prefix: &str) -> Result<Self, object_store::path::Error> {
        Ok(Self {
            root: Path::parse(prefix.trim_end_matches('/'))?,
        })
    }

    fn at<const N: usize>(&self, parts: [&str; N]) -> Path {
        parts
            .into_iter()
            .fold(self.root.clone(), |path, part| path.join(part))
    }

    /// The key `relative` with the prefix before it, for listings.
    pub(super) fn below(&self, relative: &str) -> String {
        match self.root.as_ref() {
            "" => relative.to_owned(),
            root => format!("{root}/{relative}"),
        }
    }

    /// The key without the prefix.
    fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        match self.root.as_ref() {
            "" => Some(key),
            root => key.strip_prefix(root)?.strip_prefix('/'),
        }
    }

    /// What says which volume it is.
    pub(super) fn volume(&self) -> Path {
        self.at(["volume.json"])
    }

    /// Who owns the volume, and where reading begins.
    pub(super) fn head(&self) -> Path {
        self.at(["HEAD"])
    }

    pub(super) fn log(&self, seq: u64) -> Path {
        self.at(["log", &format!("{seq:020}")])
    }

    /// The last byte of the number comes first, so that services spread the load.
    pub(super) fn segment(&self, epoch: u64, seq: u64) -> Path {
        let low = seq & 0xff;
        self.at([
            "seg",
            &format!("{low:02x}"),
            &format!("{epoch:016x}-{seq:016x}"),
        ])
    }

    pub(super) fn object(&self, id: ObjectId) -> Path {
        match id {
            ObjectId::Log(seq) => self.log(seq),
            ObjectId::Segment { epoch, seq } => self.segment(epoch, seq),
        }
    }

    pub(super) fn checkpoint_part(&self, seq: u64, id: u64, part: u32) -> Path {
        let folder = format!("{seq:020}-{id:016x}");
        self.at(["ckpt", &folder, &format!("{part:08}")])
    }

    pub(super) fn snapshot(&self, name: &str) -> Path {
        self.at(["snap", &format!("{name}.json")])
    }

    pub(super) fn parse_log(&self, key: &str) -> Option<u64> {
        decimal(self.relative(key)?.strip_prefix("log/")?, 20)
    }

    /// The segment of a key: only of the very key that it has.
    pub(super) fn parse_segment(&self, key: &str) -> Option<ObjectId> {
        let (_, name) = self.relative(key)?.strip_prefix("seg/")?.split_once('/')?;
        let (epoch, seq) = name.split_once('-')?;
        let (epoch, seq) = (hexadecimal(epoch)?, hexadecimal(seq)?);
        (self.segment(epoch, seq).as_ref() == key).then_some(ObjectId::Segment { epoch, seq })
    }

    /// Number of the log object and id of the checkpoint that a part belongs to, and the part's number.
    pub(super) fn parse_part(&self, key: &str) -> Option<(u64, u64, u32)> {
        let (folder, part) = self.relative(key)?.strip_prefix("ckpt/")?.split_once('/')?;
        let part = u32::try_from(decimal(part, 8)?).ok()?;
        let (seq, id) = folder.split_once('-')?;
        Some((decimal(seq, 20)?, hexadecimal(id)?, part))
    }

    pub(super) fn parse_snapshot<'a>(&self, key: &'a str) -> Option<&'a str> {
        let name = self.relative(key)?.strip_prefix("snap/")?;
        name.strip_suffix(".json")
            .filter(|name| !name.contains('/'))
    }
}

fn decimal(text: &str, digits: usize) -> Option<u64> {
    let sound = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit());
    sound.then(|| text.parse().ok()).flatten()
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    let sound = text.len() == 16 && text.bytes().all(digit);
    sound.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for prefix in ["", "a", "a/b c/"] {
            let names = Names::new(prefix).unwrap();
            for number in [0, 1, 0x1ff, u64::MAX] {
                let log = names.log(number);
                assert_eq!(names.parse_log(log.as_ref()), Some(number));
                assert_eq!(names.parse_segment(log.as_ref()), None);
                let id = ObjectId::Segment {
                    epoch: number,
                    seq: 7,
                };
                assert_eq!(names.parse_segment(names.object(id).as_ref()), Some(id));
                let part = names.checkpoint_part(number, 5, 3);
                assert_eq!(names.parse_part(part.as_ref()), Some((number, 5, 3)));
            }
            let snapshot = names.snapshot("before");
            assert_eq!(names.parse_snapshot(snapshot.as_ref()), Some("before"));
            assert!(snapshot.as_ref().starts_with(&names.below("snap/")));
        }
    }

    #[test]
    fn other_keys_are_not_taken_for_objects_of_the_volume() {
        let names = Names::new("p").unwrap();
        for key in [
            "p/log/1",
            "p/log/+0000000000000000001",
            "log/00000000000000000001",
            "p/log/99999999999999999999",
            "pp/log/00000000000000000001",
            "p/seg/00/0000000000000001-0000000000000001",
            "p/seg/01/0000000000000001-000000000000000G",
            "p/seg/01/0000000000000001-0000000000000001/x",
            "p/seg/0000000000000001-0000000000000001",
            "p/ckpt/x/00000001",
        ] {
            assert_eq!(names.parse_log(key), None, "{key}");
            assert_eq!(names.parse_segment(key), None, "{key}");
            assert_eq!(names.parse_part(key), None, "{key}");
        }
        assert!(Names::new("a/../b").is_err());
    }

    #[test]
    fn keys_of_log_objects_are_in_the_order_of_their_numbers() {
        let names = Names::new("p").unwrap();
        let keys: Vec<_> = [0, 9, 10, 1 << 40, u64::MAX]
            .map(|seq| names.log(seq))
            .into();
        assert!(keys.is_sorted());
    }
}
