//! The layers of an image, merged once into one tree that never changes.
//!
//! A [`TreeBuilder`] takes the entries of each layer, from the lowest up, and applies what layers mean: whiteouts, hard
//! links, symbolic links on the way to an entry. Where the image specification is silent, what
//! `umoci unpack` and containerd do is the rule. Nothing leads out of the root.
//!
//! The [`Tree`] is flat: records of fixed size in one piece of memory, names and attributes in a pool, about 110 bytes
//! a file. It is [stored](Tree::store) as it is.
//!
//! # Numbers
//! Nodes are numbered breadth first from the root, names in the order of their bytes, a file with several names where
//! the first is met. Inode numbers are these numbers from 1 on, and a directory's cookies are positions
//! among its sorted names: the same image has the same on every host and after every restart.

mod arena;
mod builder;
mod error;
mod freeze;
mod path;
mod records;
mod stored;
#[cfg(test)]
mod tests;
mod validate;
mod view;
mod walk;

pub use builder::{DEFAULT_FILE_LIMIT, TreeBuilder};
pub use error::{Problem, TreeError};
pub use stored::LoadError;
pub use view::{Content, Figures, NodeId, Tree};
