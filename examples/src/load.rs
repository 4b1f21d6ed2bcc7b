//! One file that tells the host's load, looked up anew each time it is opened.

use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, Errno, File, FileCaching, FileKind, Node,
    NodeIdentity, OpenRequest, Opened, ReadRequest, ReadSink,
};

/// The file. It is the root of its file system, and so is mounted on a file.
#[derive(Debug, Clone, Copy)]
pub struct Load;

impl Backend for Load {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(*self)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

impl Node for Load {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: 1,
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(Attributes::new(1, FileKind::Regular, 0o444))
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        open_text("/proc/loadavg", request)
    }
}

/// Opens a file of the host to be read once: what was in it then is served as long as it is open.
pub(crate) fn open_text(source: &'static str, request: OpenRequest) -> Answer<'static, Opened> {
    // This may wait for the host, so it is not done by the thread that serves a queue.
    Answer::blocking(move || match request.flags.modifies() {
        true => Err(Errno::ROFS.into()),
        false => Ok(Opened {
            file: Arc::new(Text(std::fs::read(source)?)),
            // Reads come here, though the size is said to be 0 as for files of /proc.
            caching: FileCaching::Direct,
        }),
    })
}

struct Text(Vec<u8>);

impl File for Text {
    fn read<'a>(&'a self, request: ReadRequest, sink: &'a mut dyn ReadSink) -> Answer<'a, usize> {
        let offset = usize::try_from(request.offset).unwrap_or(usize::MAX);
        let rest = self.0.get(offset..).unwrap_or_default();
        Answer::now(|| sink.put(rest.get(..request.length).unwrap_or(rest)))
    }

    fn fsync(&self, _data_only: bool) -> Answer<'_, ()> {
        Answer::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_backend::OpenFlags;
    use vfsd_testkit::place::Place;

    #[test]
    fn an_open_file_keeps_its_text_and_is_read_in_parts() {
        let handle = Place(Load.root()).open(OpenFlags::READ).unwrap();
        let whole = handle.content().unwrap();
        assert!(whole.ends_with(b"\n"));
        assert_eq!(handle.read(0, 2).unwrap(), whole[..2]);
        assert_eq!(handle.read(2, 1000).unwrap(), whole[2..]);
        assert_eq!(handle.read(5000, 10).unwrap(), b"");
    }

    #[test]
    fn what_the_file_cannot_do_is_refused() {
        let load = Place(Load.root());
        assert_eq!(load.open_both().map(drop), Err(Errno::ROFS));
        assert_eq!(load.chmod(0o666).map(drop), Err(Errno::OPNOTSUPP));
    }
}
