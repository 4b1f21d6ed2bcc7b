//! What a request costs between its transport and its backend: both are of no work here.
//!
//! `cargo bench -p vfsd-server` times each request; to count instructions, run the program under
//! `valgrind --tool=callgrind` with the name of a request and two numbers of rounds, and divide the
//! difference.

#![allow(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic
)]

#[path = "../tests/still/mod.rs"]
mod still;

use std::time::Instant;

use still::{REQUESTS, Scene};

/// Rounds of a timing, and nodes that the guest knows meanwhile.
const ROUNDS: u64 = 2_000_000;
const MANY: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    let wanted = arguments.first();
    let rounds = number(1).unwrap_or(ROUNDS);
    let known = number(2);
    for known in known.map_or(vec![0, MANY], |known| vec![known]) {
        Scene::with(|scene| {
            scene.learn(known);
            for (name, request) in REQUESTS {
                if wanted.is_some_and(|wanted| wanted != name) {
                    continue;
                }
                let start = Instant::now();
                for _ in 0..rounds {
                    request(scene);
                }
                let each = start.elapsed().as_nanos() / u128::from(rounds.max(1));
                println!("{name:30} {each:6} ns with {known} nodes known");
            }
        });
    }
}
