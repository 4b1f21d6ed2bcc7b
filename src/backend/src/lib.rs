//! The traits a storage implements, and their vocabulary
