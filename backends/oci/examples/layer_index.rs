//! Indexes a layer and says what that took: `cargo run --release --example layer_index -- LAYER [SPAN]`.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use vfsd_oci::blob::SpanReader;
use vfsd_oci::content::{HostBoot, LayerContent};
use vfsd_oci::index::{IndexOptions, LayerIndex, build_index};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: layer_index LAYER [SPAN]")?;
    let mut options = IndexOptions::default();
    if let Some(span) = arguments.next() {
        options.blob.span = span.to_string_lossy().parse()?;
    }
    let (start, worked) = (Instant::now(), processor_seconds());
    let index = build_index(File::open(&path)?, &options, |_| {})?;
    let (built, worked) = (start.elapsed().as_secs_f64(), processor_seconds() - worked);
    let blob = Arc::clone(&index.blob);
    let bytes = index.to_bytes();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{} {:?}, diff-id {}",
        blob.digest, blob.compression, blob.diff_id
    );
    println!(
        "{} entries, {} spans; {:.1} MB to {:.1} MB of tar in {built:.3} s: {:.0} MB/s, {:.0} per core",
        index.entries.len(),
        blob.spans.len(),
        megabytes(blob.size),
        megabytes(blob.decoded_size),
        megabytes(blob.decoded_size) / built,
        megabytes(blob.decoded_size) / worked,
    );
    let start = Instant::now();
    LayerIndex::from_bytes(&bytes)?;
    let read = start.elapsed().as_secs_f64();
    let length = megabytes(u64::try_from(bytes.len())?);
    println!("index of {length:.2} MB, read in {read:.4} s");
    let (start, worked) = (Instant::now(), processor_seconds());
    let reader = SpanReader::new(File::open(&path)?, Arc::clone(&blob));
    for span in 0..blob.spans.len() {
        reader.stream(span, |_| Ok(()))?;
    }
    let (read, worked) = (start.elapsed().as_secs_f64(), processor_seconds() - worked);
    let speed = |seconds| megabytes(blob.decoded_size) / seconds;
    println!(
        "all spans read and verified in {read:.3} s: {:.0} MB/s, {:.0} per core",
        speed(read),
        speed(worked),
    );
    let folder = tempfile::tempdir_in(".")?;
    let source = Arc::new(File::open(&path)?);
    let content = LayerContent::open(folder.path(), &index, source, HostBoot::current())?;
    let (start, worked) = (Instant::now(), processor_seconds());
    for span in 0..blob.spans.len() {
        content.fill_span(span)?;
    }
    let (filled, worked) = (start.elapsed().as_secs_f64(), processor_seconds() - worked);
    content.sync()?;
    let synced = start.elapsed().as_secs_f64() - filled;
    let start = Instant::now();
    let (mut calls, mut resident) = (0_u32, 0_u32);
    for entry in 0..index.entries.len() {
        let there = content.is_resident(entry, 0..4096);
        resident += u32::from(there && content.locate(entry, 0..4096).next().is_some());
        calls += 1;
    }
    let asked = start.elapsed().as_secs_f64() * 1e9 / f64::from(calls.max(1));
    println!(
        "cache filled in {filled:.3} s: {:.0} MB/s, {:.0} per core; synced in {synced:.3} s",
        speed(filled),
        speed(worked),
    );
    println!("{resident} entries have a first page, which is found in {asked:.0} ns");
    Ok(())
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
