//! A FUSE session: negotiation, node and handle tables, dispatch, exports.
#![forbid(unsafe_code)]

mod exchange;
mod exports;
mod idmap;
mod options;
mod session;

pub use exchange::{Body, Delivery, Exchange, HEADER_LENGTH, Incoming, inline_length};
pub use exports::{Export, Exports, ExportsError};
pub use idmap::{IdMap, IdMapError};
pub use options::{Budget, CacheMode, CachePolicy, Offer, SessionOptions, Transport};
pub use session::{MetricsSnapshot, Session};
