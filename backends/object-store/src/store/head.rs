//! Looking at an object without its content.

use object_store::{Error, GetOptions, GetResult, Result};

/// What is asked then: everything but the content.
pub(crate) fn head() -> GetOptions {
    GetOptions {
        head: true,
        ..GetOptions::default()
    }
}

/// What was found, or that there is nothing.
pub(crate) fn found(answer: Result<GetResult>) -> Result<Option<GetResult>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
