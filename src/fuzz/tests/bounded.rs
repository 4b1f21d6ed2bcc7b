//! A bounded number of inputs for each target, which a seed repeats.
//!
//! `VFSD_FUZZ_SEED` chooses another seed, `VFSD_FUZZ_TIMES` multiplies the number of inputs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use vfsd_fuzz::{TARGETS, Target};
use vfsd_testkit::model::Random;

/// Longest input made from nothing.
const LONGEST: u64 = 600;

fn setting(name: &str, usual: u64) -> u64 {
    let chosen = std::env::var(name).ok();
    chosen.map_or(usual, |text| text.parse().unwrap())
}

fn byte(random: &mut Random) -> u8 {
    // Ends of ranges are more interesting than what lies between.
    match random.below(4) {
        0 => [0, 1, 0x7f, 0x80, 0xff][usize::try_from(random.below(5)).unwrap()],
        _ => u8::try_from(random.below(256)).unwrap(),
    }
}

/// An input: one of the seeds, several of them, or neither; and then some changes.
fn input(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| {
        seeds[usize::try_from(random.below(seeds.len() as u64)).unwrap()].clone()
    };
    let mut input: Vec<u8> = match random.below(8) {
        0 => (0..random.below(LONGEST)).map(|_| byte(random)).collect(),
        1..=3 => (0..random.below(6)).flat_map(|_| pick(random)).collect(),
        _ => pick(random),
    };
    for _ in 0..random.below(8) {
        let at = usize::try_from(random.below(input.len() as u64 + 1)).unwrap();
        match random.below(5) {
            0 => input.truncate(at),
            1 => input.insert(at, byte(random)),
            2 if at < input.len() => drop(input.remove(at)),
            3 if at + 4 <= input.len() => {
                let number = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 4096];
                let number = number[usize::try_from(random.below(6)).unwrap()];
                input[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
            }
            _ if at < input.len() => input[at] = byte(random),
            _ => {}
        }
    }
    input
}

fn fuzz(name: &str) {
    let target: &Target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    let first = setting("VFSD_FUZZ_SEED", 1);
    let inputs = target.bounded.saturating_mul(setting("VFSD_FUZZ_TIMES", 1));
    let mut random = Random::new(first);
    for number in 0..inputs {
        let input = input(&mut random, &seeds);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            eprintln!("{name}, input {number} of seed {first}: {input:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_request_of_any_bytes_is_decoded_or_refused() {
    fuzz("decode");
}

#[test]
fn any_requests_of_a_session_are_answered_once_each() {
    fuzz("session");
}

#[test]
fn a_ring_of_any_bytes_leaves_the_device_and_its_other_rings_alone() {
    fuzz("ring");
}

#[test]
fn any_messages_of_a_front_end_end_with_it() {
    fuzz("connection");
}

#[test]
fn rules_of_any_text_are_read_or_refused() {
    fuzz("rules");
}

#[test]
fn a_layer_of_any_bytes_is_indexed_or_refused() {
    fuzz("tar");
}

#[test]
fn documents_of_any_bytes_are_an_image_or_refused() {
    fuzz("image");
}

#[test]
fn an_index_of_any_bytes_leads_to_right_pieces_or_is_refused() {
    fuzz("index");
}

#[test]
fn a_table_of_contents_of_any_bytes_is_an_index_or_refused() {
    fuzz("contents");
}

#[test]
fn replies_of_any_bytes_end_each_call_and_no_more_than_their_connection() {
    fuzz("plugin");
}

#[test]
fn each_target_is_one_of_cargo_fuzz_too() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&path), "{path}");
        let text = std::fs::read_to_string(format!("{folder}/{path}")).unwrap();
        assert!(text.contains(&format!("run(\"{}\"", target.name)), "{path}");
    }
}
