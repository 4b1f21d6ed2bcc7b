//! A part of an upload is repeated as any other request is.
//!
//! A large object has so many of them that one or the other fails, and all would have to be sent again.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::HttpErrorKind;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy as LibraryPolicy};

use super::RetryPolicy;

/// What the client library asks when a part failed.
#[derive(Debug)]
pub(super) struct PartRetries(pub(super) Arc<RetryPolicy>);

#[async_trait]
impl LibraryPolicy for PartRetries {
    async fn retry(&self, context: RetryContext) -> bool {
        let failures = u32::try_from(context.attempt).unwrap_or(u32::MAX);
        passes(context.failure) && self.0.again(failures, context.elapsed).await
    }
}

/// Whether the same part may be taken soon.
fn passes(failure: RetryFailure) -> bool {
    match failure {
        // An error of S3 may come with the status of a success.
        RetryFailure::Status(status) => {
            let status = status.as_u16();
            matches!(status, 200..=299 | 408 | 429) || status >= 500
        }
        // What stays as it is has no kind (`http.rs`).
        RetryFailure::Transport(kind) => kind != HttpErrorKind::Unknown,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use object_store::PutMultipartOptions;
    use object_store::path::Path;

    use crate::store::{RetryPolicy, Store, StoreOptions};

    /// Reads a request, and answers its first line.
    fn request(peer: &mut TcpStream) -> Option<String> {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).ok()?;
            seen.extend(byte);
        }
        let head = String::from_utf8(seen).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        peer.read_exact(&mut body).unwrap();
        head.lines().next().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_part_that_is_refused_for_a_while_is_sent_again_and_no_other() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut refused = 0;
            for peer in server.incoming() {
                let mut peer = peer.unwrap();
                peer.set_read_timeout(Some(Duration::from_secs(30)))
                    .unwrap();
                while let Some(line) = request(&mut peer) {
                    let second = line.contains("partNumber=2");
                    let (status, body) = match () {
                        () if line.starts_with("POST") && line.contains("uploads") => (
                            "200 OK",
                            "<R><Bucket>b</Bucket><Key>f</Key><UploadId>u</UploadId></R>",
                        ),
                        () if line.starts_with("POST") => (
                            "200 OK",
                            "<R><Bucket>b</Bucket><Key>f</Key><ETag>e</ETag></R>",
                        ),
                        () if second && refused < 2 => {
                            refused += 1;
                            ("503 Slow Down", "<Error/>")
                        }
                        () => ("200 OK", ""),
                    };
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status}\r\nETag: \"e\"\r\nContent-Length: {length}");
                    peer.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
                        .unwrap();
                    let ends = line.starts_with("POST") && !line.contains("uploads");
                    seen.push(line);
                    if ends {
                        return seen;
                    }
                }
            }
            seen
        });
        let mut options = StoreOptions::default();
        for option in [
            &format!("endpoint=http://{address}"),
            "access_key_id=a",
            "secret_access_key=b",
        ] {
            options.set(option).unwrap();
        }
        let url = "s3://b".parse().unwrap();
        let store = Store::open(&url, &options, RetryPolicy::default()).unwrap();
        let path = Path::from("f");
        let begun = PutMultipartOptions::default();
        let mut upload = store
            .objects()
            .put_multipart_opts(&path, begun)
            .await
            .unwrap();
        for part in 0..3_u8 {
            upload.put_part(vec![part; 1000].into()).await.unwrap();
        }
        upload.complete().await.unwrap();
        let seen = served.join().unwrap();
        let parts = seen.iter().filter(|line| line.starts_with("PUT"));
        let parts: Vec<_> = parts
            .map(|line| line.matches("partNumber=2").count())
            .collect();
        assert_eq!(parts, [0, 1, 1, 1, 0], "{seen:?}");
    }
}
