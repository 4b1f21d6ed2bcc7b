//! Named places in the work of a volume where a test looks at what a kill would leave, or lets a thread stand still.
//!
//! Nothing of it is in what is built for use.

#[cfg(not(test))]
pub(crate) use self::without::Failpoints;

#[cfg(test)]
pub(crate) use self::hooked::{Failpoints, Hook, with_hook};

#[cfg(not(test))]
mod without {
    /// Nobody listens.
    #[derive(Debug, Default)]
    pub(crate) struct Failpoints {}

    impl Failpoints {
        /// A place is reached.
        #[inline(always)]
        #[expect(clippy::unused_self, reason = "tests have something there")]
        pub(crate) fn reach(&self, _place: &'static str) {}
    }
}

#[cfg(test)]
mod hooked {
    use std::cell::RefCell;
    use std::fmt;
    use std::sync::Arc;

    /// Is told each place that is reached, by the thread that reaches it.
    pub(crate) type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

    thread_local! {
        static NEXT: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Who listens to a volume.
    pub(crate) struct Failpoints(Option<Hook>);

    impl Default for Failpoints {
        /// Who listens to what this thread opens.
        fn default() -> Self {
            Self(NEXT.with_borrow(Clone::clone))
        }
    }

    impl fmt::Debug for Failpoints {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Failpoints")
        }
    }

    impl Failpoints {
        pub(crate) fn reach(&self, place: &'static str) {
            if let Some(hook) = &self.0 {
                hook(place);
            }
        }
    }

    /// Lets `hook` listen to the volumes that are opened meanwhile.
    pub(crate) fn with_hook<T>(hook: Hook, open: impl FnOnce() -> T) -> T {
        NEXT.set(Some(hook));
        let opened = open();
        NEXT.set(None);
        opened
    }
}
