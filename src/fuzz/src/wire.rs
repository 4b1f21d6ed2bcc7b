//! One request, decoded.

use vfsd_fuse::{
    InitFlags, Layout, Opcode, RequestHeader, decode as decode_request, inline_length,
};

/// Decodes bytes as a transport does, for guests that have agreed on all and on nothing.
pub(crate) fn decode(data: &[u8]) {
    let mut header = [0; RequestHeader::SIZE];
    let have = data.len().min(header.len());
    header[..have].copy_from_slice(&data[..have]);
    let inline = &data[..inline_length(&header, data.len())];
    for flags in [InitFlags::empty(), InitFlags::all()] {
        // What comes out is checked by its types; nothing may panic on the way.
        if let Ok(request) = decode_request(inline, data.len(), Layout { flags }) {
            assert_eq!(
                Some(request.header.opcode_number),
                data.get(4..8).map(number)
            );
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

/// A request of each opcode with room for its arguments, and a name where one may be.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let opcodes = (0..=60)
        .chain([4096])
        .filter(|number| Opcode::from_number(*number).is_some());
    opcodes
        .flat_map(|opcode| {
            [
                request(opcode, 8),
                request(opcode, 40),
                request(opcode, 104),
            ]
        })
        .collect()
}

fn request(opcode: u32, arguments: usize) -> Vec<u8> {
    let mut bytes = vec![0; RequestHeader::SIZE + arguments];
    bytes.extend_from_slice(b"name\0user.other\0");
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[8] = 2;
    bytes[16] = 1;
    bytes
}
