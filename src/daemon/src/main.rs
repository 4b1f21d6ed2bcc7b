//! The binary `vfsd`.
fn main() {}
