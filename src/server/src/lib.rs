//! A FUSE session: negotiation, node and handle tables, dispatch, exports
