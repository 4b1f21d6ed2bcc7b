//! An empty file system in memory: the reference backend
