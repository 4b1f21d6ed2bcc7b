//! Images, each for a rule.

use tar_core::EntryType;

use crate::layers::Layer;

/// Names and layers of all images.
pub(crate) fn rows() -> Vec<(String, Vec<Layer>)> {
    let rows: Vec<(&str, Vec<Layer>)> = vec![
        ("everything that a layer can have", vec![everything()]),
        ("a sparse file", vec![sparse()]),
        (
            "a file that is replaced by one of its own kind",
            same_kind(),
        ),
        ("whiteouts of files, directories and links", whiteouts()),
        (
            "whiteouts in either order in their own layer",
            own_whiteouts(),
        ),
        ("an opaque mark that comes first", opaque(true)),
        ("an opaque mark that comes last", opaque(false)),
        ("what aufs left at the root", aufs()),
        ("hard links within and across layers", hard_links()),
        ("entries of one kind over those of another", replaced()),
        (
            "entries behind symbolic links to directories",
            linked_parents(),
        ),
        ("paths that try to leave the root", escapes()),
        ("spellings of one path", spellings()),
        ("directories that no layer describes", undescribed()),
        (
            "attributes of a directory in several layers",
            described_again(),
        ),
        (
            "a whiteout of a directory with links elsewhere",
            linked_elsewhere(),
        ),
        ("a hundred and twenty-eight layers", many()),
    ];
    let named = rows
        .into_iter()
        .map(|(name, layers)| (name.to_owned(), layers));
    named.collect()
}

fn with_mtime(layer: Layer, path: &str, mtime: &str) -> Layer {
    layer.entry(path, EntryType::Regular, b"", |entry| {
        entry.add_pax("mtime", mtime);
    })
}

fn with_xattrs(layer: Layer, path: &str, kind: EntryType, names: &[&str]) -> Layer {
    layer.entry(path, kind, b"", |entry| {
        entry.mode(0o755).unwrap();
        entry.add_pax("mtime", crate::layers::TIME);
        for name in names {
            let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let value: &[u8] = match *name {
                "security.capability" => &capability,
                _ => b"a \xff value",
            };
            entry.add_pax(&format!("SCHILY.xattr.{name}"), value);
        }
    })
}

fn everything() -> Layer {
    let layer = Layer::new()
        .dir(".", 0o751)
        .dir("d", 0o1777)
        .file("d/file", "content")
        .file("d/empty", "")
        .file("d/large", &"0123456789abcdef".repeat(100_000))
        .symlink("d/link", "../somewhere/else")
        .symlink("d/dead", "/no/where")
        .entry("d/fifo", EntryType::Fifo, b"", |_| {})
        .device("d/char", EntryType::Char, 1, 3)
        .device("d/block", EntryType::Block, 259, 70_000)
        .entry("d/setuid", EntryType::Regular, b"x", |entry| {
            entry
                .mode(0o6755)
                .unwrap()
                .uid(1000)
                .unwrap()
                .gid(2000)
                .unwrap();
        })
        .entry("d/big ids", EntryType::Regular, b"x", |entry| {
            entry
                .add_pax("uid", "3000000000")
                .add_pax("gid", "2999999999");
            entry.add_pax("mtime", "1.5");
        })
        .file(format!("d/{}", "n".repeat(255)), "long")
        .file(
            format!("d/{}/file", ["p".repeat(100), "q".repeat(100)].join("/")),
            "deep",
        )
        .file("d/sm\u{f8}rrebr\u{f8}d", "not ascii");
    let layer = with_mtime(layer, "d/before 1970", "-1.25");
    let layer = with_mtime(layer, "d/nanoseconds", "1234567890.000000001");
    let layer = with_mtime(layer, "d/far", "4102444800.999999999");
    let every = ["user.a", "trusted.b", "security.capability"];
    let layer = with_xattrs(layer, "d/xattrs", EntryType::Regular, &every);
    let layer = with_xattrs(
        layer,
        "d/of a directory",
        EntryType::Directory,
        &["user.a", "trusted.b"],
    );
    layer.entry("d/of a link", EntryType::Symlink, b"", |entry| {
        entry.link_name("x").add_pax("SCHILY.xattr.trusted.c", b"1");
        entry.add_pax("mtime", crate::layers::TIME);
    })
}

fn sparse() -> Layer {
    Layer::new().entry("sparse", EntryType::Regular, b"begin..end", |entry| {
        let records = [
            ("GNU.sparse.size", "300000"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.map", "8192,5,200000,5"),
            ("mtime", crate::layers::TIME),
        ];
        for (name, value) in records {
            entry.add_pax(name, value);
        }
    })
}

fn same_kind() -> Vec<Layer> {
    let lower = Layer::new()
        .file("a", "old and long")
        .symlink("l", "old")
        .file("x", "x");
    let lower = with_xattrs(lower, "attributes", EntryType::Regular, &["user.old"]);
    let upper = Layer::new()
        .file("a", "new")
        .symlink("l", "new")
        .file("a", "newer");
    vec![
        lower,
        with_xattrs(upper, "attributes", EntryType::Regular, &["user.new"]),
    ]
}

fn whiteouts() -> Vec<Layer> {
    let lower = Layer::new()
        .dir("d", 0o700)
        .file("d/a", "a")
        .file("d/b", "b")
        .dir("e", 0o755)
        .dir("e/f", 0o755)
        .file("e/f/g", "g")
        .symlink("l", "d");
    let upper = Layer::new()
        .mark("d/.wh.a")
        .mark(".wh.e")
        .mark(".wh.l")
        .mark("d/.wh.missing");
    vec![lower, upper]
}

fn own_whiteouts() -> Vec<Layer> {
    let lower = Layer::new()
        .file("a", "old")
        .file("b", "old")
        .dir("d", 0o755)
        .file("d/x", "x");
    let upper = Layer::new()
        .mark(".wh.a")
        .file("a", "new")
        .file("b", "new")
        .mark(".wh.b")
        .dir("d", 0o711)
        .file("d/y", "y")
        .mark(".wh.d");
    vec![lower, upper]
}

fn opaque(first: bool) -> Vec<Layer> {
    let lower = Layer::new()
        .dir("d", 0o755)
        .file("d/old", "old")
        .file("d/both", "old")
        .dir("d/sub", 0o755)
        .file("d/sub/old", "old")
        .dir("d/gone", 0o755)
        .file("d/gone/x", "x")
        .file("other", "other");
    let mark = |layer: Layer, now: bool| {
        if now {
            layer.mark("d/.wh..wh..opq")
        } else {
            layer
        }
    };
    let upper = mark(Layer::new().dir("d", 0o700), first)
        .file("d/new", "new")
        .file("d/both", "new")
        .dir("d/sub", 0o711)
        .file("d/sub/new", "new");
    vec![lower, mark(upper, !first)]
}

fn aufs() -> Vec<Layer> {
    let marks = Layer::new()
        .mark(".wh..wh.aufs")
        .dir(".wh..wh.orph", 0o700)
        .dir(".wh..wh.plnk", 0o700);
    vec![Layer::new().file("a", "a"), marks.file("b", "b")]
}

fn hard_links() -> Vec<Layer> {
    let lower = Layer::new()
        .dir("d", 0o755)
        .file("d/a", "content")
        .link("d/b", "d/a")
        .link("c", "./d/a")
        .symlink("s", "d")
        .link("other s", "s")
        .entry("fifo", EntryType::Fifo, b"", |_| {})
        .link("other fifo", "fifo")
        .file("single", "single");
    let upper = Layer::new()
        .link("e", "/d/b")
        .link("through", "s/a")
        .link("outside", "../../d/a")
        .file("c", "no longer the same")
        .link("single", "d/a")
        .link("e", "d/a");
    let top = Layer::new().mark("d/.wh.a").link("f", "d/b");
    vec![lower, upper, top]
}

fn replaced() -> Vec<Layer> {
    let lower = Layer::new()
        .dir("directory", 0o755)
        .file("directory/x", "x")
        .dir("directory to link", 0o755)
        .file("directory to link/x", "x")
        .file("file", "file")
        .symlink("link to directory", "directory")
        .symlink("link to file", "file")
        .entry("fifo", EntryType::Fifo, b"", |_| {});
    let upper = Layer::new()
        .file("directory", "now a file")
        .symlink("directory to link", "file")
        .dir("file", 0o750)
        .file("file/x", "x")
        .dir("link to directory", 0o750)
        .file("link to file", "now a file")
        .device("fifo", EntryType::Char, 5, 1);
    vec![lower, upper]
}

fn linked_parents() -> Vec<Layer> {
    let lower = Layer::new()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .dir("usr/lib/sub", 0o755)
        .file("usr/lib/old", "old")
        .file("usr/lib/gone", "gone")
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr")
        .symlink("up", "../../../../usr/lib")
        .symlink("chain", "absolute/lib/../lib")
        .symlink("dead", "/made/later");
    let upper = Layer::new()
        .file("lib/x", "x")
        .mark("lib/.wh.gone")
        .file("absolute/y", "y")
        .file("up/sub/z", "z")
        .file("chain/w", "w")
        .file("dead/v", "v")
        .dir("lib/new", 0o711);
    vec![lower, upper]
}

fn escapes() -> Vec<Layer> {
    let layer = Layer::new()
        .file("../../etc/passwd", "contained")
        .file("/etc/shadow", "contained")
        .file("etc/../../../x", "contained")
        .symlink("etc/up", "../../../../..")
        .file("etc/up/y", "contained")
        .symlink("slash", "/")
        .file("slash/z", "contained");
    vec![Layer::new().dir("etc", 0o755), layer]
}

fn spellings() -> Vec<Layer> {
    let layer = Layer::new()
        .dir("./d/", 0o755)
        .file("./d/./a", "one")
        .file("d//a", "two")
        .file("d/x/../b", "b");
    vec![layer]
}

fn undescribed() -> Vec<Layer> {
    vec![Layer::new().file("a/b/c/d", "d").dir("a/b", 0o700)]
}

fn described_again() -> Vec<Layer> {
    let lower = with_xattrs(
        Layer::new(),
        "d",
        EntryType::Directory,
        &["user.old", "trusted.old"],
    );
    let upper = with_xattrs(Layer::new(), "d", EntryType::Directory, &["user.new"]);
    let top = Layer::new().file("d/b", "b");
    vec![lower.file("d/a", "a"), upper, top]
}

fn linked_elsewhere() -> Vec<Layer> {
    let lower = Layer::new()
        .dir("d", 0o755)
        .file("d/a", "a")
        .link("b", "d/a")
        .link("d/c", "b");
    vec![lower, Layer::new().mark(".wh.d")]
}

fn many() -> Vec<Layer> {
    let layers = (0..128).map(|number| {
        let layer = Layer::new().dir("d", 0o700 + number % 0o77);
        let layer = layer
            .file(format!("d/{number}"), &number.to_string())
            .file("same", &number.to_string());
        match number.checked_sub(2) {
            Some(gone) => layer.mark(&format!("d/.wh.{gone}")),
            None => layer,
        }
    });
    layers.collect()
}
