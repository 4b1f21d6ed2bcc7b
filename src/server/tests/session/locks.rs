//! Waits for locks: they hold no thread, and they end.

use vfsd_fuse::wire::{FileLock, HandleId, LK_FLOCK, LkIn};
use vfsd_fuse::{InitFlags, Opcode};
use vfsd_server::{Budget, SessionOptions, Transport};
use zerocopy::IntoBytes;

use crate::guest::{Answer, Guest, memory};

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOLCK: i32 = 37;
const EOPNOTSUPP: i32 = 95;
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;

fn lock(fh: u64, owner: u64, kind: u32) -> LkIn {
    let lk = FileLock {
        start: 0,
        end: u64::MAX,
        r#type: kind,
        pid: 1,
    };
    LkIn {
        fh: HandleId(fh),
        owner,
        lk,
        lk_flags: 0,
        padding: 0,
    }
}

fn waiting(guest: &Guest, count: usize) {
    while guest.session.metrics().gauges.lock_waits != count {
        std::thread::yield_now();
    }
}

#[test]
fn a_wait_ends_when_the_lock_is_released_and_meanwhile_others_are_served() {
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let held = lock(open.fh.0, 1, WRITE);
    guest
        .call(Opcode::Setlk, file.nodeid.0, &[held.as_bytes()])
        .unwrap();
    let wanted = lock(open.fh.0, 2, WRITE);
    assert_eq!(
        guest.call(Opcode::Setlk, file.nodeid.0, &[wanted.as_bytes()]),
        Err(EAGAIN)
    );
    let pending = guest.submit(Opcode::Setlkw, file.nodeid.0, &[wanted.as_bytes()]);
    let unique = guest.last_unique();
    assert!(pending.try_recv().is_err(), "it waits");
    assert!(guest.mkdir(1, "meanwhile").is_ok());
    let release = lock(open.fh.0, 1, UNLOCK);
    guest
        .call(Opcode::Setlk, file.nodeid.0, &[release.as_bytes()])
        .unwrap();
    assert_eq!(guest.result(&pending, unique), Ok(vec![]));
    waiting(&guest, 0);
}

#[test]
fn an_interrupt_ends_the_wait_of_its_request_and_no_other() {
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    let held = LkIn {
        lk_flags: LK_FLOCK,
        ..lock(open.fh.0, 1, WRITE)
    };
    guest
        .call(Opcode::Setlk, file.nodeid.0, &[held.as_bytes()])
        .unwrap();
    let second = guest.open(Opcode::Open, file.nodeid.0, 2).unwrap().fh;
    let third = guest.open(Opcode::Open, file.nodeid.0, 2).unwrap().fh;
    let wanted = |fh| LkIn { fh, ..held };
    let one = guest.submit(Opcode::Setlkw, file.nodeid.0, &[wanted(second).as_bytes()]);
    let first_unique = guest.last_unique();
    let two = guest.submit(Opcode::Setlkw, file.nodeid.0, &[wanted(third).as_bytes()]);
    let second_unique = guest.last_unique();
    waiting(&guest, 2);
    let interrupt = guest.submit(Opcode::Interrupt, 0, &[&first_unique.to_le_bytes()]);
    assert_eq!(interrupt.recv().unwrap(), Answer::Nothing);
    assert_eq!(guest.result(&one, first_unique), Err(EINTR));
    assert!(two.try_recv().is_err(), "the other still waits");
    guest.session.cancel_waits();
    assert_eq!(guest.result(&two, second_unique), Err(EAGAIN));
}

#[test]
fn the_host_kernel_is_told_to_ask_again_about_a_request_that_is_not_known() {
    let options = SessionOptions {
        transport: Transport::HostKernel,
        ..SessionOptions::default()
    };
    let guest = Guest::with(memory(), options);
    assert_eq!(
        guest.call(Opcode::Interrupt, 0, &[&999u64.to_le_bytes()]),
        Err(EAGAIN)
    );
}

#[test]
fn a_session_that_ends_leaves_no_wait_behind() {
    let guest = Guest::on_memory();
    let (file, open) = guest.create(1, "file").unwrap();
    guest
        .call(
            Opcode::Setlk,
            file.nodeid.0,
            &[lock(open.fh.0, 1, WRITE).as_bytes()],
        )
        .unwrap();
    let wanted = lock(open.fh.0, 2, WRITE);
    let pending = guest.submit(Opcode::Setlkw, file.nodeid.0, &[wanted.as_bytes()]);
    let unique = guest.last_unique();
    waiting(&guest, 1);
    guest.session.reset();
    assert_eq!(guest.result(&pending, unique), Err(EAGAIN));
}

#[test]
fn waits_have_a_bound_of_their_own_and_take_nobodys_room() {
    let budget = Budget {
        lock_waits: 2,
        deferred: 1,
        ..Budget::default()
    };
    let guest = Guest::with(
        memory(),
        SessionOptions {
            budget,
            ..SessionOptions::default()
        },
    );
    let (file, open) = guest.create(1, "file").unwrap();
    guest
        .call(
            Opcode::Setlk,
            file.nodeid.0,
            &[lock(open.fh.0, 1, WRITE).as_bytes()],
        )
        .unwrap();
    let pending: Vec<_> = (2..4)
        .map(|owner| {
            guest.submit(
                Opcode::Setlkw,
                file.nodeid.0,
                &[lock(open.fh.0, owner, WRITE).as_bytes()],
            )
        })
        .collect();
    assert!(guest.has_room());
    let one_more = lock(open.fh.0, 9, WRITE);
    assert_eq!(
        guest.call(Opcode::Setlkw, file.nodeid.0, &[one_more.as_bytes()]),
        Err(ENOLCK)
    );
    guest.session.reset();
    pending
        .iter()
        .for_each(|one| assert!(matches!(one.recv().unwrap(), Answer::Reply(_))));
}

#[test]
fn locks_that_were_not_agreed_on_are_refused() {
    let both = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    for agreed in [both, InitFlags::POSIX_LOCKS, InitFlags::FLOCK_LOCKS] {
        let mut guest = Guest::on_memory();
        guest.offer = InitFlags::all().difference(both).union(agreed);
        guest.init().unwrap();
        let (file, open) = guest.create(1, "file").unwrap();
        for (flag, lk_flags) in [
            (InitFlags::POSIX_LOCKS, 0),
            (InitFlags::FLOCK_LOCKS, LK_FLOCK),
        ] {
            let arg = LkIn {
                lk_flags,
                ..lock(open.fh.0, 1, WRITE)
            };
            let set = |opcode| guest.call(opcode, file.nodeid.0, &[arg.as_bytes()]);
            for opcode in [Opcode::Setlk, Opcode::Setlkw] {
                let expected = match agreed.contains(flag) {
                    true => Ok(vec![]),
                    false => Err(EOPNOTSUPP),
                };
                assert_eq!(set(opcode), expected, "{agreed:?} {lk_flags}");
            }
            assert_eq!(set(Opcode::Getlk).is_ok(), agreed.contains(flag));
        }
    }
}
