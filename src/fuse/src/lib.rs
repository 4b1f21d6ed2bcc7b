//! The FUSE wire format: one opcode table, decode, encode
