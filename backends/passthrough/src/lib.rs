//! A host directory as a file system
