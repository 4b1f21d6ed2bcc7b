//! The errno table: what a guest is told when a backend did not do what was asked.

use vfsd_backend::{Errno, Error};
use vfsd_fuse::Opcode;

/// The errno for an error of a backend.
///
/// Linux remembers ENOSYS for the life of the mount and does not ask again, so it is only given where a
/// storage lacks the operation and the guest has a way to do without it.
pub(crate) fn errno_for(opcode: Opcode, error: &Error) -> Errno {
    match error {
        Error::Errno(errno) => passed_on(*errno),
        Error::NotSupported => not_supported(opcode),
        Error::Storage(_) => Errno::IO,
    }
}

fn passed_on(errno: Errno) -> Errno {
    match errno {
        // The daemon's own limit is full, which to the guest is one of its file system's.
        Errno::MFILE => Errno::NFILE,
        // A system call that the host lacks says nothing about the operation as a whole.
        Errno::NOSYS => Errno::OPNOTSUPP,
        // The kernel takes numbers from 512 on for its own and drops the reply (fs/fuse/dev.c).
        errno if !(1..512).contains(&errno.raw_os_error()) => Errno::IO,
        errno => errno,
    }
}

fn not_supported(opcode: Opcode) -> Errno {
    match opcode {
        // Served by nobody: the guest shall not ask again.
        Opcode::Bmap | Opcode::Poll | Opcode::Setupmapping | Opcode::Removemapping => Errno::NOSYS,
        // The guest decides by the attributes.
        Opcode::Access => Errno::NOSYS,
        // The guest asks with GETATTR, and does without the time of birth.
        Opcode::Statx => Errno::NOSYS,
        // The guest takes the whole file for data.
        Opcode::Lseek => Errno::NOSYS,
        // Nothing is to be made durable, here or on any other file.
        Opcode::Fsync | Opcode::Fsyncdir | Opcode::Syncfs => Errno::NOSYS,
        // What linux/fs answers for a file system without the operation.
        Opcode::Lookup | Opcode::Opendir | Opcode::Readdir | Opcode::Readdirplus => Errno::NOTDIR,
        Opcode::Readlink => Errno::INVAL,
        Opcode::Mkdir
        | Opcode::Mknod
        | Opcode::Symlink
        | Opcode::Link
        | Opcode::Unlink
        | Opcode::Rmdir
        | Opcode::Rename
        | Opcode::Setattr => Errno::PERM,
        Opcode::Create | Opcode::Open => Errno::ACCESS,
        Opcode::Rename2 => Errno::INVAL,
        Opcode::Write => Errno::BADF,
        Opcode::Ioctl => Errno::NOTTY,
        Opcode::Setlk | Opcode::Setlkw | Opcode::Getlk => Errno::NOLCK,
        _ => Errno::OPNOTSUPP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_system_call_of_the_host_does_not_turn_a_feature_off() {
        for opcode in Opcode::ALL {
            assert_ne!(
                errno_for(*opcode, &Error::Errno(Errno::NOSYS)),
                Errno::NOSYS
            );
        }
    }

    #[test]
    fn every_errno_is_one_that_the_kernel_accepts() {
        for number in 1..4096 {
            let sent = errno_for(
                Opcode::Read,
                &Error::Errno(Errno::from_raw_os_error(number)),
            );
            assert!((1..512).contains(&sent.raw_os_error()), "{number}");
        }
    }

    #[test]
    fn a_storage_that_failed_is_an_input_output_error() {
        let error = Error::Storage("bad disk".into());
        assert_eq!(errno_for(Opcode::Lookup, &error), Errno::IO);
    }
}
