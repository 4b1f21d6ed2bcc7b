//! Conditional writes, and what the probe finds.

use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};
use vfsd_object_store::store::{Ability, probe};
use vfsd_testkit::servers::{StoreServer, program};

use crate::scene::{Servers, runtime};
use crate::write::object;
use crate::{Test, Tool, WRITABLE, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "the_probe_takes_a_store_that_keeps_conditions",
        WRITABLE,
        safe,
    ),
    test("of_many_creators_one_wins_and_knows_it", WRITABLE, race),
    Test {
        tool: Some(OPENSSL),
        ..test(
            "bodies_of_any_size_go_by_https",
            &[StoreServer::SeaweedFs],
            by_https,
        )
    },
    test(
        "the_probe_refuses_a_store_that_ignores_conditions",
        &[StoreServer::Rclone],
        refused,
    ),
];

const OPENSSL: Tool =
    || program("VFSD_TEST_OPENSSL", "openssl").ok_or_else(|| "needs openssl".to_owned());

fn by_https(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let store = scene.secure_store();
    for length in [10, 3 << 20] {
        let (key, body) = (Path::from(format!("{length}")), vec![7; length]);
        let sent = store.objects().put(&key, body.clone().into());
        runtime().block_on(sent).unwrap();
        assert!(object(&scene, key.as_ref()).unwrap() == body);
    }
}

fn safe(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let store = scene.store();
    let report = runtime().block_on(probe(&store, "some/prefix/")).unwrap();
    assert!(report.is_safe(), "{report}");
    let left = runtime().block_on(store.list(&Default::default())).unwrap();
    assert!(left.objects.is_empty(), "{left:?}");
}

fn refused(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let report = runtime().block_on(probe(&scene.store(), "")).unwrap();
    assert!(report.missing().contains(&Ability::CreateOnly), "{report}");
    assert!(report.missing().contains(&Ability::UpdateRace), "{report}");
    assert!(report.to_string().contains("cannot be written safely"));
}

fn race(servers: &Servers, kind: StoreServer) {
    let scene = servers.bucket(kind);
    let store = scene.store();
    runtime().block_on(async {
        for round in 0..5 {
            let key = Path::from(format!("k{round}"));
            let racers = (0..24).map(|racer: u32| {
                let options = PutOptions::from(PutMode::Create);
                store
                    .objects()
                    .put_opts(&key, racer.to_string().into(), options)
            });
            let mut winners = Vec::new();
            for (racer, result) in join_all(racers).await.into_iter().enumerate() {
                match result {
                    Ok(_) => winners.push(racer.to_string()),
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let there = store
                .objects()
                .get(&key)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            assert_eq!(winners, [String::from_utf8(there.to_vec()).unwrap()]);
        }
    });
}
