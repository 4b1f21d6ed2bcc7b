//! A directory of facts about the host.

use std::sync::Arc;

use vfsd_backend::{
    Answer, Attributes, Backend, Capabilities, DirEntry, DirSink, Directory, Entry, Errno,
    FileKind, Lookup, Name, Node, NodeIdentity, OpenRequest, Opened, Ttl,
};

use crate::load::open_text;

/// The names of the files, and where their facts come from.
const FACTS: [(&str, &str); 3] = [
    ("load", "/proc/loadavg"),
    ("memory", "/proc/meminfo"),
    ("uptime", "/proc/uptime"),
];

/// The file system.
#[derive(Debug)]
pub struct Facts;

impl Backend for Facts {
    fn root(&self) -> Arc<dyn Node> {
        Arc::new(Fact(None))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }
}

/// The file of the fact with this index; `None` is the directory.
#[derive(Debug, Clone, Copy)]
struct Fact(Option<usize>);

impl Fact {
    fn inode(self) -> u64 {
        self.0.map_or(1, |index| index as u64 + 2)
    }

    fn attributes(self) -> Attributes {
        let permissions = if self.0.is_none() { 0o555 } else { 0o444 };
        Attributes::new(self.inode(), self.kind(), permissions)
    }
}

impl Node for Fact {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            device: 0,
            inode: self.inode(),
            generation: 0,
        }
    }

    fn kind(&self) -> FileKind {
        self.0.map_or(FileKind::Directory, |_| FileKind::Regular)
    }

    fn getattr(&self) -> Answer<'_, Attributes> {
        Answer::ok(self.attributes())
    }

    fn lookup<'a>(&'a self, name: Name<'a>) -> Answer<'a, Lookup> {
        let known = |(fact, _): &(&str, &str)| fact.as_bytes() == name.as_bytes();
        Answer::now(|| match (self.0, FACTS.iter().position(known)) {
            (Some(_), _) => Err(Errno::NOTDIR.into()),
            (None, None) => Ok(Lookup::Missing { ttl: Ttl::Forever }),
            (None, index) => Ok(Lookup::Found(Entry {
                node: Arc::new(Fact(index)),
                attributes: Fact(index).attributes(),
                entry_ttl: Ttl::Forever,
                attribute_ttl: Ttl::Policy,
            })),
        })
    }

    fn opendir(&self) -> Answer<'_, Arc<dyn Directory>> {
        match self.0 {
            Some(_) => Answer::error(Errno::NOTDIR),
            None => Answer::ok(Arc::new(Listing)),
        }
    }

    fn open(&self, request: OpenRequest) -> Answer<'_, Opened> {
        match self.0.and_then(|index| FACTS.get(index)) {
            Some((_, source)) => open_text(source, request),
            None => Answer::error(Errno::ISDIR),
        }
    }
}

struct Listing;

impl Directory for Listing {
    /// A cookie is the number of entries that came before.
    fn read<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Answer<'a, ()> {
        let facts = FACTS.iter().enumerate();
        let facts = facts.map(|(index, (name, _))| (*name, Fact(Some(index))));
        let dots = [(".", Fact(None)), ("..", Fact(None))];
        let skip = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (next, (name, fact)) in (1..).zip(dots.into_iter().chain(facts)).skip(skip) {
            let entry = DirEntry {
                name: name.as_bytes(),
                inode: fact.inode(),
                kind: Some(fact.kind()),
                next,
            };
            if sink.entry(&entry).is_break() {
                break;
            }
        }
        Answer::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfsd_testkit::place::Place;

    fn root() -> Place {
        Place(Facts.root())
    }

    #[test]
    fn the_directory_lists_the_facts() {
        assert_eq!(root().names().unwrap(), ["load", "memory", "uptime"]);
        assert_eq!(root().list().unwrap().len(), 5);
    }

    #[test]
    fn a_fact_is_read_from_the_host() {
        let content = root().lookup("memory").unwrap().content().unwrap();
        let text = String::from_utf8(content).unwrap();
        assert!(text.starts_with("MemTotal:"), "{text}");
    }

    #[test]
    fn what_is_no_fact_is_refused() {
        let load = root().lookup("load").unwrap();
        assert_eq!(root().lookup("no-fact").map(drop), Err(Errno::NOENT));
        assert_eq!(load.lookup("load").map(drop), Err(Errno::NOTDIR));
        assert_eq!(root().mkdir("new").map(drop), Err(Errno::OPNOTSUPP));
    }
}
