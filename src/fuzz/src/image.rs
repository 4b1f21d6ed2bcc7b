//! The documents of an image: an index, a manifest, a configuration.

use std::io;
use std::sync::Arc;

use vfsd_oci::blob::{BlobSource, Sha256Digest};
use vfsd_oci::image::{Blobs, Image};

/// Where a document ends and the next begins: an index, and then what it leads to.
const END: u8 = 0;

/// Documents by their digests.
struct Documents(Vec<(Sha256Digest, Vec<u8>)>);

impl Blobs for Documents {
    fn open(&self, digest: Sha256Digest, size: u64) -> io::Result<Arc<dyn BlobSource>> {
        let found = self.0.iter().find(|(known, _)| *known == digest);
        let (_, bytes) = found.ok_or(io::ErrorKind::NotFound)?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length == size => Ok(Arc::new(bytes.clone())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Opens an image that an input has all documents of. Each may name the ones behind it: `@1` stands for the
/// digest of the next, `#1` for its size, `@2` and `#2` for those of the one after it.
pub(crate) fn run(data: &[u8]) {
    let mut known: Vec<(Sha256Digest, Vec<u8>)> = Vec::new();
    let mut texts: Vec<&[u8]> = data.split(|byte| *byte == END).take(8).collect();
    texts.reverse();
    let (Some(index), behind) = (texts.pop(), texts) else {
        return;
    };
    for text in behind {
        let text = linked(text, &known);
        known.push((Sha256Digest::of(&text), text));
    }
    let index = linked(index, &known);
    let documents = Arc::new(Documents(known));
    for platform in [None, "linux/amd64".parse().ok()] {
        match Image::of_index(&index, platform.as_ref(), documents.clone()) {
            // A refusal is one line that says why.
            Err(error) => {
                let text = error.to_string();
                assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
            }
            Ok(image) => {
                assert!(documents.0.iter().any(|(known, _)| *known == image.digest));
                assert!(image.layers.len() <= 4096);
                let run = image.config.run();
                drop((run, image.platform(), image.config.created_at()));
                for layer in &image.layers {
                    // What has the digest of one may be one.
                    drop(image.open_layer(layer));
                }
            }
        }
    }
}

/// A document with the digests and sizes of those behind it, of which the next is the last of `known`.
fn linked(text: &[u8], known: &[(Sha256Digest, Vec<u8>)]) -> Vec<u8> {
    let mut linked = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let place = behind.first().and_then(|digit| {
            let back = usize::from(digit.wrapping_sub(b'0'));
            known.len().checked_sub(back).filter(|_| back > 0)
        });
        let named = place.and_then(|place| known.get(place));
        match (first, named) {
            (b'@', Some((digest, _))) => linked.extend(digest.to_string().into_bytes()),
            (b'#', Some((_, bytes))) => linked.extend(bytes.len().to_string().into_bytes()),
            _ => {
                linked.push(*first);
                rest = behind;
                continue;
            }
        }
        rest = behind.get(1..).unwrap_or_default();
    }
    linked
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@1","size":#1},
        "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":7,
        "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;
    const CONFIG: &str = r#"{"created":"2026-01-01T00:00:00Z","os":"linux","architecture":"amd64","variant":null,
        "config":{"Env":["PATH=/bin"],"Cmd":["sh"],"Labels":{"a":"b"},"User":"1:2"},"rootfs":{"type":"layers",
        "diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"@1","size":#1,"platform":{"os":"linux","architecture":"amd64"},
        "annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#;
    const NESTED: &str = r#"{"manifests":[{"digest":"@1","size":#1,"platform":{"os":"linux","architecture":"arm64",
        "variant":"v8"}},{"digest":"@2","size":#2,"platform":{"os":"linux","architecture":"amd64"}}]}"#;
    [
        vec![INDEX, MANIFEST, CONFIG],
        vec![NESTED, INDEX, MANIFEST, CONFIG],
        vec![NESTED, NESTED, INDEX, MANIFEST, CONFIG],
        vec![MANIFEST, CONFIG],
        vec![r#"{"schemaVersion":1}"#],
    ]
    .map(|documents| documents.join("\0").into_bytes())
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seed_is_an_image() {
        let seed = &seeds()[0];
        let texts: Vec<&[u8]> = seed.split(|byte| *byte == END).collect();
        let config = texts[2].to_vec();
        let mut known = vec![(Sha256Digest::of(&config), config)];
        let manifest = linked(texts[1], &known);
        known.push((Sha256Digest::of(&manifest), manifest));
        let index = linked(texts[0], &known);
        let image = Image::of_index(&index, None, Arc::new(Documents(known))).unwrap();
        assert_eq!(image.layers.len(), 1);
    }
}
