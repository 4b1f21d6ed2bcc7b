//! Numbers as headers and PAX records spell them.

use vfsd_backend::Timestamp;

/// A number of a header: octal digits, or GNU's base-256 in two's complement.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes),
        _ => i64::try_from(octal(bytes)?).ok(),
    }
}

/// Octal digits with spaces and NULs around them; 0 if there are none.
fn octal(bytes: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !blank(byte));
    let digits = start.and_then(|start| bytes.get(start..)).unwrap_or(&[]);
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    // What follows a NUL is of no one; what follows a space must be blank.
    let rest = rest.split(|byte| *byte == 0).next().unwrap_or(&[]);
    if !rest.iter().all(blank) {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        let digit = u64::from(digit.wrapping_sub(b'0'));
        value = value.checked_mul(8)?.checked_add(digit)?;
    }
    Some(value)
}

fn base256(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    // The first bit marks the form, the second is the sign.
    let (mut value, first) = match first & 0x40 {
        0 => (0_i64, first & 0x7f),
        _ => (-1, *first),
    };
    // Leading ones keep -1 as it is: -1 * 256 + 255.
    for byte in std::iter::once(&first).chain(rest) {
        value = value.checked_mul(256)?.checked_add(i64::from(*byte))?;
    }
    Some(value)
}

/// Decimal digits, all of them, without a sign.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for digit in bytes {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = u64::from(digit.wrapping_sub(b'0'));
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    Some(value)
}

/// Seconds with a sign and a fraction of any length; what is finer than a nanosecond is cut off.
pub(super) fn time(bytes: &[u8]) -> Option<Timestamp> {
    let (negative, bytes) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    let mut parts = bytes.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(&[]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds: u32 = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        let digit = u32::from(digit.wrapping_sub(b'0'));
        nanoseconds = nanoseconds.checked_mul(10)?.checked_add(digit)?;
    }
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (seconds.checked_neg()?, 0),
        // Nanoseconds are added to the seconds, also before 1970.
        (true, _) => (
            seconds.checked_neg()?.checked_sub(1)?,
            1_000_000_000_u32.checked_sub(nanoseconds)?,
        ),
    };
    Timestamp::new(seconds, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_numbers_are_octal_or_base_256() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"12\x003junk", Some(0o12)),
            (b"00008\0", None),
            (b"-1\0", None),
            (b"1 2\0", None),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\x80\0\0\x01", Some(1)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                Some(-1),
            ),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Some(-255),
            ),
            (b"\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(field(bytes), value, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_also_before_1970() {
        for (text, value) in [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567899999", Some((1, 123_456_789))),
            ("1.", Some((1, 0))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("", None),
            ("-", None),
            (".5", None),
            ("1.-5", None),
            ("1e5", None),
            ("+1", None),
            ("9223372036854775808", None),
        ] {
            let expected = value.map(|(s, ns)| Timestamp::new(s, ns).unwrap());
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }
}
