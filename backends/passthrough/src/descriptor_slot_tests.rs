use std::io::{ErrorKind, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::descriptor_slot::DescriptorSlot;

fn descriptor() -> (OwnedFd, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer)
}

fn is_closed(mut writer: &PipeWriter) -> bool {
    writer
        .write(b"x")
        .is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[test]
fn a_descriptor_in_use_is_not_taken_out() {
    let slot = DescriptorSlot::empty();
    assert!(slot.get().is_none() && slot.take_unused().is_none());
    let (fd, _writer) = descriptor();
    let raw = fd.as_raw_fd();
    assert!(slot.put(fd) && slot.is_open());
    let (one, two) = (slot.get().unwrap(), slot.get().unwrap());
    assert_eq!(one.as_fd().as_raw_fd(), raw);
    drop(one);
    assert!(slot.take_unused().is_none());
    drop(two);
    assert_eq!(slot.take_unused().unwrap().as_raw_fd(), raw);
    assert!(!slot.is_open() && slot.get().is_none());
}

#[test]
fn a_second_descriptor_is_closed_and_the_first_with_its_slot() {
    let ((first, at_first), (second, at_second)) = (descriptor(), descriptor());
    let slot = DescriptorSlot::of(first);
    let in_use = slot.get();
    assert!(!slot.put(second));
    assert!(is_closed(&at_second) && !is_closed(&at_first));
    drop(in_use);
    drop(slot);
    assert!(is_closed(&at_first));
}

#[test]
fn many_threads_use_what_one_takes_out_and_puts_back() {
    let slot = DescriptorSlot::of(descriptor().0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if let Some(in_use) = slot.get() {
                        rustix::io::fcntl_getfd(&in_use).unwrap();
                    }
                }
            });
        }
        for _ in 0..5_000 {
            if let Some(fd) = slot.take_unused() {
                // Another number, so that a use of the old one would fail.
                let next = rustix::io::fcntl_dupfd_cloexec(&fd, 0).unwrap();
                drop(fd);
                assert!(slot.put(next));
            }
        }
    });
    assert!(slot.is_open());
}
