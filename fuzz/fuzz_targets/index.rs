#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vfsd_fuzz::run("index", data));
