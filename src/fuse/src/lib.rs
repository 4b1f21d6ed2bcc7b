//! The FUSE wire format: one opcode table, decode, encode. No I/O.
#![forbid(unsafe_code)]
/// Header of every request.
#[derive(Debug)]
pub struct RequestHeader;
impl RequestHeader {
    /// Bytes of the header on the wire.
    pub const SIZE: usize = 40;
}
/// How many bytes of a request are header and arguments.
pub fn inline_length(_header: &[u8; RequestHeader::SIZE], readable: usize) -> usize {
    readable.min(160 * 1024)
}
