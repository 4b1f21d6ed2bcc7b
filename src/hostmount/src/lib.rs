//! The same server behind /dev/fuse on the host
