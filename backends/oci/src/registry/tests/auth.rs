//! Registries that want to know who we are.

use crate::registry::Reference;

use super::*;

#[test]
fn a_token_that_anybody_gets_is_fetched_and_replaced_when_it_ends() {
    let scene = Scene::wanting(Wants::Token {
        uses: 2,
        to_all: true,
    });
    scene.open().unwrap();
    scene.assert_all_is_there();
    let seen = scene.server.seen();
    let tokens = seen.iter().filter(|seen| seen.target.starts_with("/token"));
    assert!(tokens.count() >= 2, "one for two requests: {seen:?}");
}

#[test]
fn one_token_serves_all_requests_while_it_is_good() {
    let scene = Scene::wanting(Wants::Token {
        uses: 100,
        to_all: true,
    });
    scene.open().unwrap();
    let seen = scene.server.seen();
    // The refusal of the first, the token, and the four that any image takes.
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn a_token_that_ends_between_ranges_is_replaced() {
    let scene = Scene::wanting(Wants::Token {
        uses: 3,
        to_all: true,
    });
    let image = scene.find(":t").unwrap();
    let source = image.open_layer(&image.layers[0]).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..5 {
        source.read_at(77, &mut buffer).unwrap();
        assert!(buffer == scene.blob[77..77 + (1 << 20)]);
    }
}

#[test]
fn name_and_password_are_sent_where_they_are_asked_for() {
    let token = Wants::Token {
        uses: 2,
        to_all: false,
    };
    for wants in [Wants::Password, token] {
        let scene = Scene::wanting(wants);
        let error = scene.find(":t").unwrap_err().to_string();
        assert!(error.contains("there are none for it"), "{error}");
        scene.login("wrong");
        let error = scene.find(":t").unwrap_err().to_string();
        assert!(error.contains("refuses the credentials"), "{error}");
        scene.login("secret");
        scene.open().unwrap();
        scene.assert_all_is_there();
    }
}

#[test]
fn credentials_that_changed_are_read_again() {
    for wants in [
        Wants::Password,
        Wants::Token {
            uses: 1,
            to_all: false,
        },
    ] {
        let scene = Scene::wanting(wants);
        let client = super::super::client::Client::new(
            format!("{}/a/b:t", scene.server.address()).parse().unwrap(),
            &{
                scene.login("wrong");
                scene.settings()
            },
        );
        let client = client.unwrap();
        scene.login("secret");
        let url = client.url("manifests", "t").unwrap();
        let get = super::super::client::Get {
            what: "it",
            kind: crate::counters::RequestKind::Manifest,
            url: &url,
            accept: None,
            range: None,
        };
        client.get(&get).unwrap();
    }
}

#[test]
fn nobody_but_the_registry_is_told_a_password_or_token() {
    let scene = Scene::wanting(Wants::Password);
    scene.login("secret");
    let other = Scene::new();
    // The other host has the same blob, and is reached by a name of its own.
    let image = scene.find(":t").unwrap();
    let source = image.open_layer(&image.layers[0]).unwrap();
    let to = format!(
        "Location: http://{}/v2/a/b/blobs/{}\r\n",
        other.server.address(),
        scene.layers[0]
    );
    let to: &'static str = Box::leak(to.into_boxed_str());
    scene.server.faults([Fault::Status(307, to)]);
    let mut buffer = [0; 100];
    source.read_at(0, &mut buffer).unwrap();
    assert_eq!(buffer, scene.blob[..100]);
    let seen = other.server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
}

#[test]
fn credentials_that_were_read_before_do_without_their_file() {
    let token = Wants::Token {
        uses: 2,
        to_all: false,
    };
    for wants in [Wants::Password, token] {
        let scene = Scene::wanting(wants);
        scene.login("secret");
        let mut options = scene.options();
        let ImageName::Registry(reference) = &options.name else {
            panic!("{:?}", options.name);
        };
        let settings = options.registries.with_credentials(reference);
        assert!(!format!("{settings:?}").contains("secret"));
        std::fs::remove_file(&scene.auth).unwrap();
        OciImage::open(&options).unwrap_err();
        options.registries = settings;
        OciImage::open(&options).unwrap();
        scene.assert_all_is_there();
    }
}

#[test]
fn credentials_that_were_read_before_are_not_told_to_another_registry() {
    let scene = Scene::wanting(Wants::Password);
    scene.login("secret");
    let other: Reference = "r.example/a/b:t".parse().unwrap();
    let mut options = scene.options();
    options.registries = options.registries.with_credentials(&other);
    OciImage::open(&options).unwrap_err();
    let seen = scene.server.seen();
    assert!(
        seen.iter().all(|seen| seen.authorization.is_none()),
        "{seen:?}"
    );
}
