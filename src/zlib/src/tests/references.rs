//! What is repeated of a window, compared with what comes of it when other bytes are there.

use super::*;
use crate::{Continued, References};

/// Which bytes of a window are repeated.
fn repeated(references: &mut References, at: Continued<'_>) -> Result<Vec<bool>, Malformed> {
    let mut repeated = vec![false; at.window];
    references.of(at, |range| repeated[range].fill(true))?;
    Ok(repeated)
}

/// What follows a boundary, decoded behind a window, as far as it may repeat that.
fn behind(inflater: &mut Inflater, at: Continued<'_>, window: &[u8]) -> Vec<u8> {
    inflater.continue_at(at.bits, at.before, window).unwrap();
    let mut decoded = vec![0; at.output];
    let (mut consumed, mut made) = (0, 0);
    while made < decoded.len() {
        let step = inflater.inflate(&at.input[consumed..], &mut decoded[made..]);
        let step = step.unwrap();
        consumed += step.consumed;
        made += step.made;
        if step.stop == Stop::End {
            break;
        }
    }
    decoded.truncate(made);
    decoded
}

/// Compares what is told at each boundary of a stream, and says how many there are.
fn assert_told(content: &[u8], stream: &[u8]) -> usize {
    let (mut inflater, mut references) = (Inflater::new().unwrap(), References::default());
    let whole = decode(&mut inflater, stream, usize::MAX, 1 << 20).unwrap();
    assert!(whole.is_whole && whole.content == content);
    for (consumed, made, bits) in &whole.boundaries {
        let window = &content[made.saturating_sub(WINDOW)..*made];
        let at = Continued {
            bits: *bits,
            before: stream[consumed - 1],
            input: &stream[*consumed..],
            window: window.len(),
            output: WINDOW,
        };
        let told = repeated(&mut references, at).unwrap();
        let right = behind(&mut inflater, at, window);
        let changed = |which: &dyn Fn(usize) -> bool| -> Vec<u8> {
            let bytes = window.iter().enumerate();
            bytes
                .map(|(place, byte)| if which(place) { !byte } else { *byte })
                .collect()
        };
        // All that is not told may be anything, and each of what is told counts.
        let others = changed(&|place| !told[place]);
        assert!(behind(&mut inflater, at, &others) == right, "{made}");
        let places = (0..window.len()).filter(|place| told[*place]);
        for one in places.step_by(997) {
            let other = changed(&|place| place == one);
            assert!(behind(&mut inflater, at, &other) != right, "{made}: {one}");
        }
    }
    whole.boundaries.len()
}

#[test]
fn what_is_told_is_repeated_and_nothing_else_is() {
    let content = content(150_000);
    for level in [0, 6, 9] {
        let boundaries = assert_told(&content, &deflate(&content, level));
        assert!(boundaries > 1, "{level}");
    }
}

#[test]
fn rare_symbols_have_codes_that_are_not_looked_up_at_once() {
    // Each number comes half as often as the one before.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content: Vec<u8> = Vec::new();
    for _ in 0..200_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.push(u8::try_from(state.leading_zeros()).unwrap());
    }
    for level in [6, 9] {
        assert!(assert_told(&content, &deflate(&content, level)) > 0);
    }
}

#[test]
fn blocks_with_codes_that_they_do_not_say_are_read_too() {
    use std::io::Write as _;
    let content = content(5_000);
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(6));
    for piece in content.chunks(20) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    assert!(assert_told(&content, &encoder.finish().unwrap()) > 200);
}

#[test]
fn a_stream_that_ends_early_or_is_none_is_refused_and_harms_nobody() {
    let mut references = References::default();
    let content = content(20_000);
    let stream = deflate(&content, 6);
    let mut of = |input: &[u8], bits, window| {
        let at = Continued {
            bits,
            before: 0xff,
            input,
            window,
            output: WINDOW,
        };
        repeated(&mut references, at).map(drop)
    };
    assert_eq!(of(&stream, 0, 0), Ok(()));
    assert_eq!(of(&stream, 8, 0), Err(Malformed));
    assert_eq!(of(&stream, 0, WINDOW + 1), Err(Malformed));
    for length in (0..stream.len()).step_by(71) {
        assert_eq!(of(&stream[..length], 0, 0), Err(Malformed), "{length}");
    }
    // A block of an unknown kind, and a stored one whose length is none.
    assert_eq!(of(&[0b111; 8], 0, 0), Err(Malformed));
    assert_eq!(of(&[1, 5, 0, 5, 0, 0], 0, 0), Err(Malformed));
    // Three bytes from one back, of which there are none, or one.
    assert_eq!(of(&[0b0000_0011, 0b0000_0010, 0], 0, 0), Err(Malformed));
    assert_eq!(of(&[0b0000_0011, 0b0000_0010, 0], 0, 1), Ok(()));
    let mut wrong = stream.clone();
    for place in (0..stream.len()).step_by(19) {
        wrong[place] ^= 1 << (place % 8);
        let _ = of(&wrong, u8::try_from(place % 8).unwrap(), 1000);
        wrong[place] = stream[place];
    }
}
