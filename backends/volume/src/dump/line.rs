//! The lines of a dump.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use vfsd_backend::{FileKind, Timestamp};

use crate::quota::Quota;

/// The newest format that is known.
pub(super) const FORMAT: u32 = 1;

/// One line: a JSON object, of which `kind` says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Line {
    Volume(Beginning),
    Inode(Box<InodeLine>),
    Xattr(XattrLine),
    Content(ContentLine),
    Entry(EntryLine),
    End(Summary),
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning {
    pub(super) format: u32,
    /// Of the volume that was dumped.
    pub(super) uuid: String,
    /// When, in seconds after 1970.
    pub(super) made: u64,
    /// Whether the content of files is in the dump.
    pub(super) content: bool,
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub(super) quota: Quota,
}

/// An inode. What belongs to it follows before the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InodeLine {
    /// Greater than that of the one before.
    pub(super) inode: u64,
    #[serde(rename = "type")]
    pub(super) file_type: FileType,
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    /// Of a regular file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) size: u64,
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) btime: Time,
    /// Of a device: major and minor number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<(u32, u32)>,
    /// Of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<Text>,
    /// Of a directory: the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<u64>,
    /// As chattr(1) sets them.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub(super) flags: u32,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub(super) project: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

/// An extended attribute of an inode. ACLs are such, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct XattrLine {
    pub(super) inode: u64,
    pub(super) name: Text,
    pub(super) value: Text,
}

/// Content of a regular file, in ascending order. What no line has is a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentLine {
    pub(super) inode: u64,
    pub(super) offset: u64,
    pub(super) data: Data,
}

/// A name in a directory. The inode that it names may come later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    pub(super) directory: u64,
    pub(super) name: Text,
    pub(super) inode: u64,
    #[serde(rename = "type")]
    pub(super) file_type: FileType,
}

/// How much a dump has; its last line. Without it the dump is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Files, directories and all else.
    pub inodes: u64,
    /// Names in directories.
    pub entries: u64,
    /// Bytes of content, without holes.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileType {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Character,
    Block,
}

impl From<FileKind> for FileType {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::Regular => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
            FileKind::CharDevice => Self::Character,
            FileKind::BlockDevice => Self::Block,
        }
    }
}

impl From<FileType> for FileKind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::File => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Character => Self::CharDevice,
            FileType::Block => Self::BlockDevice,
        }
    }
}

/// Permission, set-id and sticky bits: octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Mode(pub(super) u32);

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

impl TryFrom<String> for Mode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mode = u32::from_str_radix(&text, 8).ok();
        let mode = mode.filter(|mode| *mode <= 0o7777);
        mode.map(Self).ok_or("a mode is octal digits up to 7777")
    }
}

/// Seconds after 1970, and nanoseconds after those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Time(i64, u32);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time.seconds, time.nanoseconds)
    }
}

impl Time {
    pub(super) fn timestamp(self) -> Result<Timestamp, &'static str> {
        Timestamp::new(self.0, self.1).map_err(|_| "a second has fewer nanoseconds")
    }
}

/// A name or a value: a string if it is UTF-8, and in base64 if not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub(super) struct Text(pub(super) Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Plain(String),
    Encoded { base64: Data },
}

impl From<Form> for Text {
    fn from(form: Form) -> Self {
        match form {
            Form::Plain(text) => Self(text.into_bytes()),
            Form::Encoded { base64 } => Self(base64.0),
        }
    }
}

impl From<Text> for Form {
    fn from(text: Text) -> Self {
        match String::from_utf8(text.0) {
            Ok(text) => Self::Plain(text),
            Err(error) => Self::Encoded {
                base64: Data(error.into_bytes()),
            },
        }
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Data(pub(super) Vec<u8>);

impl From<Data> for String {
    fn from(data: Data) -> Self {
        BASE64.encode(data.0)
    }
}

impl TryFrom<String> for Data {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64.decode(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_where_they_can_be_and_come_back_as_they_were() {
        for (bytes, told) in [
            (&b"plain"[..], r#""plain""#),
            (b"tab\t\"quote\"\0", r#""tab\t\"quote\"\u0000""#),
            ("\u{e4}".as_bytes(), "\"\u{e4}\""),
            (b"\xff\xfe", r#"{"base64":"//4="}"#),
        ] {
            let text = Text::from(bytes);
            let written = serde_json::to_string(&text).unwrap();
            assert_eq!(written, told);
            assert_eq!(serde_json::from_str::<Text>(&written).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for wrong in [
            "",
            "{}",
            r#"{"kind":"other"}"#,
            r#"{"kind":"end","inodes":-1,"entries":0,"bytes":0}"#,
            r#"{"kind":"content","inode":2,"offset":0,"data":"*"}"#,
            r#"{"kind":"entry","directory":1,"name":"a","inode":2,"type":"door"}"#,
            r#"{"kind":"entry","directory":1,"name":"a","inode":2,"type":"file","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Line>(wrong).is_err(), "{wrong}");
        }
        assert!(Mode::try_from("10000".to_owned()).is_err());
        assert!(Mode::try_from("0o7".to_owned()).is_err());
    }
}
