//! A service that speaks as Google's does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, PutMode, PutOptions, PutPayload, PutResult, Result, UpdateVersion};
use vfsd_object_store::{RetryPolicy, Store, StoreOptions, StoreUrl};

/// Heads of requests, in lower case.
type Requests = Arc<Mutex<Vec<String>>>;

/// Has one object, whose ETag is `one` and whose version is 7, and takes every write.
fn service() -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Requests::default();
    let seen = requests.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            answer(connection.unwrap(), &seen).unwrap();
        }
    });
    (address, requests)
}

fn answer(mut connection: TcpStream, seen: &Requests) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let length = length.lines().next().unwrap().parse().unwrap();
        connection.read_exact(&mut vec![0; length])?;
    }
    let (etag, version) = match head.starts_with("put") {
        true => ("two", 8),
        false => ("one", 7),
    };
    seen.lock().unwrap().push(head);
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"{etag}\"\r\nx-goog-generation: {version}\r\n\
         Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Replaces the object that has this ETag.
fn replace(address: SocketAddr, etag: &str) -> Result<PutResult> {
    let mut options = StoreOptions::default();
    for option in [
        format!("base_url=http://{address}"),
        "skip_signature=true".into(),
    ] {
        options.set(&option).unwrap();
    }
    let url: StoreUrl = "gs://bucket".parse().unwrap();
    let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(10));
    let store = Store::open(&url, &options, policy).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let update = UpdateVersion {
        e_tag: Some(etag.to_owned()),
        version: None,
    };
    let options = PutOptions::from(PutMode::Update(update));
    let put = async {
        let body = PutPayload::from_static(b"body");
        store
            .objects()
            .put_opts(&Path::from("k"), body, options)
            .await
    };
    runtime.block_on(put)
}

#[test]
fn an_object_is_replaced_under_the_version_that_has_its_etag() {
    let (address, requests) = service();
    let put = replace(address, "\"one\"").unwrap();
    assert_eq!(put.version.as_deref(), Some("8"));
    let requests = requests.lock().unwrap();
    let [look, write] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert!(look.starts_with("head /bucket/k "), "{look}");
    assert!(write.starts_with("put /bucket/k "), "{write}");
    assert!(
        write.contains("\r\nx-goog-if-generation-match: 7\r\n"),
        "{write}"
    );
}

#[test]
fn an_object_that_has_another_etag_by_now_is_not_replaced() {
    let (address, requests) = service();
    let refused = replace(address, "\"zero\"").unwrap_err();
    assert!(matches!(refused, Error::Precondition { .. }), "{refused}");
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn who_has_no_credentials_writes_without_any() {
    let (address, requests) = service();
    replace(address, "\"one\"").unwrap();
    for request in requests.lock().unwrap().iter() {
        assert!(!request.contains("\r\nauthorization:"), "{request}");
    }
}
