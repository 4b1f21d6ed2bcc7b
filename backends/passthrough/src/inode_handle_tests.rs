use std::sync::Arc;

use tempfile::TempDir;
use vfsd_backend::{Errno, Lookup, Name, Node, Wait};

use crate::inode::Inode;
use crate::{FileHandles, Options, Passthrough};

fn shared(files: usize, options: Options) -> (TempDir, Passthrough) {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..files {
        std::fs::write(
            directory.path().join(number.to_string()),
            number.to_string(),
        )
        .unwrap();
    }
    let fs = Passthrough::open(directory.path(), options).unwrap();
    (directory, fs)
}

fn with_budget(budget: usize, file_handles: FileHandles) -> Options {
    Options {
        descriptor_budget: Some(budget),
        file_handles,
        ..Options::default()
    }
}

fn find(fs: &Passthrough, name: &str) -> Result<Arc<dyn Node>, Errno> {
    match fs
        .root
        .find(Name::new(name.as_bytes()).unwrap(), Wait::Allowed)?
    {
        Lookup::Found(entry) => Ok(entry.node),
        Lookup::Missing { .. } => Err(Errno::NOENT),
    }
}

fn inode(node: &Arc<dyn Node>) -> &Inode {
    let node: &dyn std::any::Any = &**node;
    node.downcast_ref().unwrap()
}

/// Whether the machine lets the test use file handles.
fn handles_work() -> bool {
    let options = with_budget(100, FileHandles::Mandatory);
    let directory = tempfile::tempdir().unwrap();
    let works = Passthrough::open(directory.path(), options).is_ok();
    if !works {
        eprintln!("skipped: file handles do not work here");
    }
    works
}

#[test]
fn more_nodes_than_descriptors_can_be_known_and_are_opened_again() {
    if !handles_work() {
        return;
    }
    let (_directory, fs) = shared(200, with_budget(20, FileHandles::Prefer));
    let nodes: Vec<_> = (0..200)
        .map(|number| find(&fs, &number.to_string()).unwrap())
        .collect();
    assert!(fs.descriptors_in_use() <= 20);
    for (number, node) in nodes.iter().enumerate() {
        let attributes = inode(node).attributes().unwrap();
        assert_eq!(attributes.inode, node.identity().inode);
        assert_eq!(attributes.size, number.to_string().len() as u64);
        // The name leads to the node that is known, whether or not it has a descriptor now.
        assert!(Arc::ptr_eq(node, &find(&fs, &number.to_string()).unwrap()));
    }
    assert_eq!(fs.root.mount().inodes.len(), 201);
    drop(nodes);
    assert_eq!(fs.root.mount().inodes.len(), 1);
    assert_eq!(fs.descriptors_in_use(), 1);
}

#[test]
fn a_node_that_is_looked_up_often_gets_its_descriptor_back() {
    if !handles_work() {
        return;
    }
    let (_directory, fs) = shared(200, with_budget(20, FileHandles::Prefer));
    let nodes: Vec<_> = (0..200)
        .map(|number| find(&fs, &number.to_string()).unwrap())
        .collect();
    let often: Vec<_> = (0..5)
        .filter(|&number| !inode(&nodes[number]).is_opened())
        .collect();
    assert!(!often.is_empty());
    for round in 0..200 {
        for number in &often {
            let found = find(&fs, &number.to_string()).unwrap();
            assert!(Arc::ptr_eq(&nodes[*number], &found), "round {round}");
        }
    }
    for number in often {
        assert!(inode(&nodes[number]).is_opened(), "{number}");
    }
    assert!(fs.descriptors_in_use() <= 20);
}

#[test]
fn without_handles_the_guest_sees_enfile_and_can_forget() {
    let (_directory, fs) = shared(30, with_budget(10, FileHandles::Never));
    let mut nodes = Vec::new();
    let refused = loop {
        match find(&fs, &nodes.len().to_string()) {
            Ok(node) => nodes.push(node),
            Err(errno) => break errno,
        }
    };
    assert_eq!((refused, nodes.len()), (Errno::NFILE, 9));
    assert_eq!(fs.descriptors_in_use(), 10);
    // What is known goes on working.
    assert!(find(&fs, "3").is_ok());
    assert!(inode(&nodes[3]).attributes().is_ok());
    nodes.pop();
    assert!(find(&fs, "20").is_ok());
}

#[test]
fn a_node_without_a_name_keeps_its_descriptor() {
    if !handles_work() {
        return;
    }
    let (directory, fs) = shared(100, with_budget(20, FileHandles::Prefer));
    let unlinked = find(&fs, "0").unwrap();
    std::fs::remove_file(directory.path().join("0")).unwrap();
    let nodes: Vec<_> = (1..100)
        .map(|number| find(&fs, &number.to_string()).unwrap())
        .collect();
    assert_eq!(inode(&unlinked).attributes().unwrap().links, 0);
    drop((nodes, unlinked));
    assert_eq!(fs.descriptors_in_use(), 1);
}

#[test]
fn a_file_that_took_over_an_inode_number_is_another_node() {
    if !handles_work() {
        return;
    }
    let (directory, fs) = shared(100, with_budget(20, FileHandles::Prefer));
    let old = find(&fs, "0").unwrap();
    let nodes: Vec<_> = (1..100)
        .map(|number| find(&fs, &number.to_string()).unwrap())
        .collect();
    assert!(!inode(&old).is_opened());
    // ext4 gives the number of a removed file to the next one; where that does not happen the files
    // differ by their numbers.
    std::fs::remove_file(directory.path().join("0")).unwrap();
    std::fs::write(directory.path().join("new"), b"new").unwrap();
    let new = find(&fs, "new").unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    assert_ne!(old.identity(), new.identity());
    assert_eq!(inode(&old).attributes(), Err(Errno::STALE));
    assert!(Arc::ptr_eq(&new, &find(&fs, "new").unwrap()));
    drop(old);
    assert!(Arc::ptr_eq(&new, &find(&fs, "new").unwrap()));
    drop(nodes);
}

#[test]
fn many_threads_look_up_and_forget_within_the_budget() {
    if !handles_work() {
        return;
    }
    let (_directory, fs) = shared(300, with_budget(24, FileHandles::Prefer));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let fs = &fs;
            scope.spawn(move || {
                for round in 0..10 {
                    let nodes: Vec<_> = (0..300)
                        .filter(|number| (number + thread) % 3 != round % 3)
                        .filter_map(|number| find(fs, &number.to_string()).ok())
                        .collect();
                    assert!(!nodes.is_empty());
                    for node in &nodes {
                        match inode(node).attributes() {
                            Ok(own) => assert_eq!(own.inode, node.identity().inode),
                            // The other threads hold all descriptors just now.
                            Err(errno) => assert_eq!(errno, Errno::NFILE),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(fs.root.mount().inodes.len(), 1);
    assert_eq!(fs.descriptors_in_use(), 1);
}
