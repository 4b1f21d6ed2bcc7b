//! What a storage can do.

bitflags::bitflags! {
    /// Features of a storage. One that no backend of a session has is not offered to the guest.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Capabilities: u32 {
        /// Extended attributes.
        const XATTR = 1 << 0;
        /// POSIX ACLs in `system.posix_acl_*`, default ACLs applied on creation, mode and ACL kept
        /// in step by the storage. With it the storage applies the caller's umask.
        const POSIX_ACL = 1 << 1;
        /// Security labels given with a new file are stored with its creation.
        const SECURITY_CONTEXT = 1 << 2;
        /// fcntl(2) byte-range locks that exclude whoever else uses the storage.
        const POSIX_LOCKS = 1 << 3;
        /// flock(2) locks that exclude whoever else uses the storage.
        const FLOCK = 1 << 4;
        /// Set-id bits and `security.capability` are cleared by the storage on write, truncate and
        /// change of owner (`FUSE_HANDLE_KILLPRIV_V2`).
        const KILL_PRIVILEGES = 1 << 5;
        /// Other file systems may be mounted below the root; their roots are marked.
        const SUBMOUNTS = 1 << 6;
        /// The guest may hold back and merge writes.
        const WRITEBACK = 1 << 7;
        /// Nothing in the tree ever changes.
        const IMMUTABLE = 1 << 8;
        /// Truncation on open is one step with the open.
        const ATOMIC_TRUNCATE = 1 << 9;
        /// Nobody changes the tree but who is served, so that the guest may remember all that it was
        /// told until it changes it itself.
        const PRIVATE = 1 << 10;
        /// A node can be opened whenever it is alive, to read and to write, whatever its mode and also
        /// without a name; and the cookies of a listing hold in the directory opened anew. Together
        /// with [`IMMUTABLE`](Self::IMMUTABLE) or [`PRIVATE`](Self::PRIVATE) a guest then opens
        /// nothing: what it reads and writes is opened here.
        const REOPEN = 1 << 11;
    }
}
