//! Keys that the client library cannot name.
//!
//! Its paths have no empty component, no `.`, no `..`, no control character and no `/` at an end; a single
//! key of another form makes it refuse a whole page of a listing. In what a service lists, such a
//! key is therefore [written](encode) as one component that it takes, and [read back](decode) behind it.

use std::fmt::Write as _;

use object_store::path::Path;

/// Begins an encoded key: a character of the private use area. What follows is hexadecimal.
const MARK: char = '\u{f8ff}';

/// The form in which a listed key passes the client library.
pub(super) fn encode(raw: &str) -> String {
    if !raw.starts_with(MARK) && Path::parse(raw).is_ok_and(|path| path.as_ref() == raw) {
        return raw.to_owned();
    }
    let mut encoded = String::with_capacity(raw.len().saturating_mul(2).saturating_add(3));
    encoded.push(MARK);
    for byte in raw.bytes() {
        // Writing to a string does not fail.
        let _ = write!(encoded, "{byte:02x}");
    }
    encoded
}

/// The key as the service has it. `None` for what no encoding gives.
pub(super) fn decode(passed: &str) -> Option<String> {
    let Some(hex) = passed.strip_prefix(MARK) else {
        return Some(passed.to_owned());
    };
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let mut raw = Vec::with_capacity(hex.len() / 2);
    for pair in hex.as_bytes().chunks(2) {
        let &[high, low] = pair else {
            return None;
        };
        let value = nibble(high)?.checked_mul(16)?.checked_add(nibble(low)?)?;
        raw.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_passes_the_library_and_comes_back() {
        for raw in [
            "a",
            "a/b.txt",
            "",
            "/",
            "//",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "../x",
            "a\nb",
            "a\0",
            "\u{f8ff}61",
            "\u{f8ff}",
            "e\u{301}/\u{1f600}",
            "100% *?[]",
            "\u{7f}",
        ] {
            let passed = encode(raw);
            let path = Path::parse(&passed).unwrap();
            assert_eq!(path.as_ref(), passed, "{raw:?}");
            assert_eq!(decode(path.as_ref()).as_deref(), Some(raw));
        }
    }

    #[test]
    fn ordinary_keys_stay_as_they_are() {
        assert_eq!(encode("a/b c/\u{e4}.txt"), "a/b c/\u{e4}.txt");
    }

    #[test]
    fn what_no_encoding_gives_is_not_read() {
        for bad in ["\u{f8ff}6", "\u{f8ff}zz", "\u{f8ff}ff", "\u{f8ff}+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
