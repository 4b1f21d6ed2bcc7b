//! Streams whole, in pieces, and continued.

mod references;

use std::io::Read as _;

use flate2::Compression;
use flate2::read::DeflateEncoder;

use crate::{Inflater, Malformed, Stop, WINDOW};

/// Text with words that come again, near and far, and noise in between.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(end).unwrap()).unwrap()
    };
    let mut content: Vec<u8> = Vec::new();
    while content.len() < length {
        let distance = 1 + below(WINDOW);
        match content.len().checked_sub(distance) {
            Some(from) if below(2) == 0 => {
                let end = from + distance.min(3 + below(20));
                content.extend_from_within(from..end);
            }
            _ => content.extend_from_slice(&below(usize::MAX).to_le_bytes()),
        }
    }
    content.truncate(length);
    content
}

fn deflate(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(content, Compression::new(level));
    let mut stream = Vec::new();
    encoder.read_to_end(&mut stream).unwrap();
    stream
}

/// What was decoded, how much of the stream that took, and the boundaries: how much of both was before, and the bits.
struct Decoded {
    content: Vec<u8>,
    consumed: usize,
    boundaries: Vec<(usize, usize, u8)>,
    is_whole: bool,
}

/// Decodes with so much input and so much room at a time.
fn decode(
    inflater: &mut Inflater,
    stream: &[u8],
    piece: usize,
    room: usize,
) -> Result<Decoded, Malformed> {
    let mut buffer = vec![0; room];
    let mut decoded = Decoded {
        content: Vec::new(),
        consumed: 0,
        boundaries: Vec::new(),
        is_whole: false,
    };
    loop {
        let rest = &stream[decoded.consumed..];
        let step = inflater.inflate(&rest[..piece.min(rest.len())], &mut buffer)?;
        decoded.content.extend_from_slice(&buffer[..step.made]);
        decoded.consumed += step.consumed;
        match step.stop {
            Stop::Wants if step.consumed == 0 && step.made == 0 => return Ok(decoded),
            Stop::Wants => {}
            Stop::Boundary { bits } => {
                assert!(bits < 8);
                let place = (decoded.consumed, decoded.content.len(), bits);
                decoded.boundaries.push(place);
            }
            Stop::End => {
                decoded.is_whole = true;
                return Ok(decoded);
            }
        }
    }
}

#[test]
fn streams_are_decoded_and_boundaries_found_alike_in_pieces_of_any_size() {
    let content = content(300_000);
    let mut inflater = Inflater::new().unwrap();
    for level in [0, 6, 9] {
        let stream = deflate(&content, level);
        let mut padded = stream.clone();
        padded.extend_from_slice(b"what follows");
        let mut boundaries = None;
        for (piece, room) in [(usize::MAX, 1 << 20), (1, 1 << 20), (999, 1), (3, 500)] {
            inflater.begin().unwrap();
            let decoded = decode(&mut inflater, &padded, piece, room).unwrap();
            assert!(
                decoded.is_whole && decoded.content == content,
                "{level}: {piece}"
            );
            assert_eq!(decoded.consumed, stream.len());
            assert!(decoded.boundaries.len() > 1, "{level}");
            let expected = boundaries.get_or_insert(decoded.boundaries.clone());
            assert_eq!(*expected, decoded.boundaries, "{level}: {piece}, {room}");
        }
    }
}

#[test]
fn a_stream_goes_on_at_each_boundary_behind_the_bytes_before() {
    let content = content(300_000);
    let mut inflater = Inflater::new().unwrap();
    let mut seen = [false; 8];
    for level in [0, 6, 9] {
        let stream = deflate(&content, level);
        inflater.begin().unwrap();
        let whole = decode(&mut inflater, &stream, usize::MAX, 1 << 20).unwrap();
        for (consumed, made, bits) in whole.boundaries {
            seen[usize::from(bits)] = true;
            let window = &content[made.saturating_sub(WINDOW)..made];
            let before = stream[consumed - 1];
            inflater.continue_at(bits, before, window).unwrap();
            let rest = decode(&mut inflater, &stream[consumed..], 5_000, 70_000).unwrap();
            assert!(
                rest.is_whole && rest.content == content[made..],
                "{level}: {made}"
            );
        }
    }
    assert!(seen.iter().filter(|seen| **seen).count() > 4, "{seen:?}");
}

#[test]
fn what_is_before_the_beginning_is_not_referred_to() {
    // A fixed block that repeats three bytes from one back, of which there are none.
    let stream = [0b0000_0011, 0b0000_0010, 0];
    let mut inflater = Inflater::new().unwrap();
    assert!(decode(&mut inflater, &stream, 1, 100).is_err());
    // Nor is what was before a stream that begins anew.
    let mut output = [0; 100];
    inflater.begin().unwrap();
    inflater
        .inflate(&deflate(b"before", 6), &mut output)
        .unwrap();
    inflater.begin().unwrap();
    assert_eq!(inflater.inflate(&stream, &mut output), Err(Malformed));
    inflater.continue_at(0, 0, b"x").unwrap();
    assert_eq!(inflater.inflate(&stream, &mut output).unwrap().made, 3);
    assert_eq!(&output[..3], b"xxx");
}

#[test]
fn a_boundary_has_less_than_a_byte_and_a_window_of_32_kib() {
    let mut inflater = Inflater::new().unwrap();
    assert!(inflater.continue_at(8, 0, &[]).is_err());
    assert!(inflater.continue_at(7, 0, &[]).is_ok());
    assert!(inflater.continue_at(0, 0, &[0; WINDOW]).is_ok());
    assert!(inflater.continue_at(0, 0, &[0; WINDOW + 1]).is_err());
}
