//! Which names a directory shows for the keys of a bucket.
//!
//! - `dir/file` is a file, and makes `dir` a directory. So does the marker object `dir/`, which is not listed in it.
//! - A key that goes on after a name that is an object too (`a` and `a/b`): the directory is shown,
//!   the object `a` is hidden.
//! - Hidden with all below them: components that are no file names (empty, as in `a//b` and `/a`; `.`; `..`; over 255
//!   bytes) or hold control characters.
//!
//! What is hidden stays in the bucket untouched; it is counted, and each listing that hides something says so in the log.

use object_store::path::Path;
use vfsd_backend::Name;

use crate::store::{ListPage, ListedObject, PLACEHOLDER};

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) name: Box<str>,
    /// `None` for a directory.
    pub(super) object: Option<ListedObject>,
}

/// Whether a component of a key can be a name.
pub(super) fn is_name(component: &str) -> bool {
    component != PLACEHOLDER
        && Name::new(component.as_bytes()).is_ok()
        && Path::parse(component).is_ok_and(|path| path.as_ref() == component)
}

/// Makes names of the pages of a listing, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Naming {
    /// Length of the directory's own key.
    directory: usize,
    /// Objects after which a directory of the same name may still come: each is the beginning of the next.
    held: Vec<(Box<str>, ListedObject)>,
    /// What was hidden so far, and one example.
    pub(super) hidden: u64,
    pub(super) example: Option<String>,
}

enum Listed {
    Object(ListedObject),
    Prefix(String),
}

impl Listed {
    fn key(&self) -> &str {
        match self {
            Self::Object(object) => &object.key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

impl Naming {
    /// For the directory with this key, which is empty or ends with `/`.
    pub(super) fn new(directory: &str) -> Self {
        Self {
            directory: directory.len(),
            ..Self::default()
        }
    }

    /// The names that are certain after this page. They are all different if the service lists in the order of keys.
    pub(super) fn page(&mut self, page: ListPage) -> Vec<Child> {
        let mut listed: Vec<Listed> = page.prefixes.into_iter().map(Listed::Prefix).collect();
        listed.extend(page.objects.into_iter().map(Listed::Object));
        listed.sort_unstable_by(|one, other| one.key().cmp(other.key()));
        let mut children = Vec::with_capacity(listed.len());
        for item in listed {
            self.release_before(item.key(), &mut children);
            let Some(rest) = item.key().get(self.directory..) else {
                continue;
            };
            let component = rest.strip_suffix('/').unwrap_or(rest);
            let marker = rest.is_empty() || rest == PLACEHOLDER;
            if marker {
                continue;
            }
            if !is_name(component) {
                self.hide(item.key().to_owned());
                continue;
            }
            let name: Box<str> = component.into();
            match item {
                // With a delimiter no object's name has a `/` at its end.
                Listed::Object(object) => self.held.push((name, object)),
                Listed::Prefix(_) => {
                    if let Some((_, object)) = self.held.pop_if(|(held, _)| *held == name) {
                        self.hide(object.key);
                    }
                    children.push(Child { name, object: None });
                }
            }
        }
        if page.next.is_none() {
            for (name, object) in std::mem::take(&mut self.held) {
                children.push(file(name, object));
            }
        }
        children
    }

    /// Gives out the objects whose directory would have come before `key`.
    fn release_before(&mut self, key: &str, children: &mut Vec<Child>) {
        while let Some((name, object)) = self
            .held
            .pop_if(|(_, object)| is_after_directory_of(key, &object.key))
        {
            children.push(file(name, object));
        }
    }

    fn hide(&mut self, key: String) {
        self.hidden = self.hidden.saturating_add(1);
        self.example.get_or_insert(key);
    }
}

fn file(name: Box<str>, object: ListedObject) -> Child {
    Child {
        name,
        object: Some(object),
    }
}

/// Whether `key` comes after `object` with a `/` at its end.
fn is_after_directory_of(key: &str, object: &str) -> bool {
    match key.strip_prefix(object) {
        Some(rest) => rest.as_bytes() > b"/".as_slice(),
        None => key > object,
    }
}

/// The key of a file's or directory's parent, and its name in there.
pub(super) fn split(key: &str) -> (&str, &str) {
    let stem = key.strip_suffix('/').unwrap_or(key);
    match stem.rfind('/') {
        Some(slash) => stem.split_at(slash.saturating_add(1)),
        None => ("", stem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn object(key: &str) -> ListedObject {
        ListedObject {
            key: key.to_owned(),
            size: 1,
            modified: SystemTime::UNIX_EPOCH,
            etag: None,
        }
    }

    fn page(objects: &[&str], prefixes: &[&str], last: bool) -> ListPage {
        ListPage {
            objects: objects.iter().map(|key| object(key)).collect(),
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            next: (!last).then(|| "more".to_owned()),
        }
    }

    fn shown(children: &[Child]) -> Vec<String> {
        let one = |child: &Child| match child.object {
            Some(_) => child.name.to_string(),
            None => format!("{}/", child.name),
        };
        let mut shown: Vec<_> = children.iter().map(one).collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_directory_hides_the_object_of_its_name_wherever_the_pages_end() {
        let mut naming = Naming::new("d/");
        let mut children = naming.page(page(&["d/", "d/a", "d/a b"], &["d/a b/"], false));
        children.extend(naming.page(page(&["d/a-", "d/a."], &[], false)));
        children.extend(naming.page(page(&["d/a0", "d/b"], &["d/a/"], true)));
        assert_eq!(shown(&children), ["a b/", "a-", "a.", "a/", "a0", "b"]);
        assert_eq!(
            (naming.hidden, naming.example.as_deref()),
            (2, Some("d/a b"))
        );
    }

    #[test]
    fn an_object_without_a_directory_is_shown_as_soon_as_that_is_certain() {
        let mut naming = Naming::new("");
        assert_eq!(shown(&naming.page(page(&["a", "b"], &[], false))), ["a"]);
        assert_eq!(
            shown(&naming.page(page(&["b.", "b.0"], &[], false))),
            ["b."]
        );
        assert_eq!(
            shown(&naming.page(page(&["c"], &["b/"], true))),
            ["b.0", "b/", "c"]
        );
        assert_eq!(naming.hidden, 1);
    }

    #[test]
    fn keys_that_are_no_names_are_hidden_and_counted() {
        let long = "x".repeat(256);
        let mut naming = Naming::new("");
        let children = naming.page(page(
            &[".", "..", "a\nb", "a\0", &long, "ok", "..."],
            &["/", "./", "../", "b\r/", "dir/"],
            true,
        ));
        assert_eq!(shown(&children), ["...", "dir/", "ok"]);
        assert_eq!(naming.hidden, 9);
    }
}
