//! Asking the layers of a directory for a name, the topmost first: the part of a search that is over at once as a rule.

use std::sync::Arc;

use vfsd_backend::{Answer, Directory, Errno, Lookup, Name, Node, Result, Ttl};

use crate::known_names::{Cost, KnownNames};
use crate::layers::{Layer, Shared};
use crate::node::OverlayNode;

/// A directory of a layer, as it is asked for names.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) layer: Layer,
    pub(crate) node: &'a Arc<dyn Node>,
    pub(crate) names: Option<&'a KnownNames>,
}

/// A directory of a layer that is open: there a name costs less.
pub(crate) struct OpenPart {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) open: Arc<dyn Directory>,
}

/// A search that has come to a layer that may have the name. Those above lack it.
pub(crate) struct Begun<'a> {
    pub(crate) base: Base<'a>,
    /// How many were above.
    pub(crate) above: usize,
    pub(crate) answer: Answer<'a, Lookup>,
}

const MISSING: Lookup = Lookup::Missing { ttl: Ttl::Policy };

impl<'a> Base<'a> {
    /// The answer to a lookup, by what is `open` of the layers. `None` where the directory surely lacks the name.
    pub(crate) fn ask(
        self,
        shared: &Shared,
        name: Name<'a>,
        open: &'a [OpenPart],
    ) -> Option<Answer<'a, Lookup>> {
        if let Some(names) = self.names
            && let Some(asked) = shared.names_memory.of_asked(name)
            && names.lacks(asked)
        {
            return None;
        }
        let open = open.iter().find(|part| Arc::ptr_eq(&part.node, self.node));
        let answer = open.and_then(|part| part.open.entry(name));
        Some(answer.unwrap_or_else(|| self.node.lookup(name)))
    }

    /// The end of a lookup, from which it is learnt what names there are.
    ///
    /// # Errors
    /// Those of the layer.
    pub(crate) async fn answered(
        self,
        shared: &Shared,
        name: Name<'_>,
        answer: Answer<'_, Lookup>,
    ) -> Result<Lookup> {
        let memory = &shared.names_memory;
        let Some(names) = self.names else {
            return or_missing(answer.await);
        };
        match answer.into_ready() {
            Ok(result) => {
                let found = or_missing(result)?;
                if matches!(found, Lookup::Missing { .. }) {
                    names.learn(self.node, Cost::Miss, memory).await;
                }
                Ok(found)
            }
            Err(answer) => {
                names.learn(self.node, Cost::Wait, memory).await;
                match memory.of_asked(name) {
                    Some(name) if names.lacks(name) => Ok(MISSING),
                    _ => or_missing(answer.await),
                }
            }
        }
    }
}

/// Goes down to the layer that has the name, or has to be waited for. `None` when no layer has it. The names must not
/// change meanwhile.
pub(crate) fn begin<'a>(
    directory: &'a OverlayNode,
    name: Name<'a>,
    open: &'a [OpenPart],
) -> Option<Begun<'a>> {
    let shared = &directory.shared;
    shared.check_names_are_locked();
    for (above, base) in directory.bases().enumerate() {
        let Some(answer) = base.ask(shared, name, open) else {
            continue;
        };
        let answer = match answer.into_ready() {
            Ok(result) => match or_missing(result) {
                Ok(Lookup::Missing { .. }) if !base.names.is_some_and(KnownNames::may_learn) => {
                    continue;
                }
                other => Answer::ready(other),
            },
            Err(answer) => answer,
        };
        return Some(Begun {
            base,
            above,
            answer,
        });
    }
    None
}

/// A name that is too long for a layer is missing in it.
fn or_missing(looked: Result<Lookup>) -> Result<Lookup> {
    match looked {
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::NAMETOOLONG) => Ok(MISSING),
        other => other,
    }
}
