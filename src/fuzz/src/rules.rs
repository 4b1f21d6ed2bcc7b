//! Rules that an operator writes: for names of extended attributes, and for ids.

use vfsd_passthrough::XattrMap;
use vfsd_server::IdMap;

/// Reads text as rules of both kinds.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A refusal says why.
    if let Err(error) = text.parse::<XattrMap>() {
        assert!(!error.to_string().is_empty());
    }
    let rules: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match IdMap::parse(&rules) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(map) => {
            for id in [0, 1, 999, 1000, 1001, 65_534, u32::MAX] {
                // Whatever it is, it is one, or an errno.
                let _ = map.to_host(id);
                let _ = map.to_guest(id);
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        ":map::trusted.virtiofs.:",
        ":prefix:all:user.:user.vm.::ok:all:security.::bad:all:::",
        "/type/scope/key/prepend/",
        ":unsupported:client:trusted.:trusted.::ok:server::user.::",
        "map:0:1000:1",
        "guest:0:100000:65536 host:0:0:1 forbid-guest:4294967295:1",
        "squash-guest:0:65534:4294967295 squash-host:0:0:1",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
