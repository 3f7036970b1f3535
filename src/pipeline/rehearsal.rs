//! Rehearsing a call: a sink does what it would do, and is stopped before it changes anything. What it
//! looks up is looked up, so a rehearsal tells what the same call would come to.
//!
//! A client asks [`hold`] before each request that changes something; who knows more about the change says
//! so with [`tell`] before. Outside of a rehearsal both do nothing.

use super::{Code, Fault, Stage};
use std::cell::RefCell;

#[derive(Default)]
struct Notes {
    told: Vec<String>,
    held: Option<String>,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// What a rehearsed piece of work would have changed first; what it would have done after that depends on
/// answers that nobody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The request, in the target's words.
    pub request: String,
    /// What it means: empty where nobody said.
    pub words: Vec<String>,
}

/// Says, in the words of the business, what is about to change.
pub fn tell(words: impl FnOnce() -> String) {
    // Outside of a rehearsal nobody asks.
    let _ = NOTES.try_with(|notes| notes.borrow_mut().told.push(words()));
}

/// A request that changes something is about to be sent: `request` names it.
///
/// # Errors
/// In a rehearsal, always: the work ends here.
pub fn hold(request: impl FnOnce() -> String) -> Result<(), Fault> {
    let is_rehearsed = NOTES.try_with(|notes| {
        let mut notes = notes.borrow_mut();
        if notes.held.is_none() {
            notes.held = Some(request());
        }
    });
    match is_rehearsed {
        Err(_) => Ok(()),
        Ok(()) => Err(Fault::halt(
            Stage::Write,
            Code::Bug,
            "a rehearsal changes nothing",
        )),
    }
}

/// Whether this is a rehearsal: for a target that cannot look without writing something down.
pub fn is_under_way() -> bool {
    NOTES.try_with(|_| ()).is_ok()
}

/// Does `work` up to its first change. Its output counts only where there is none.
///
/// Cancel-safe as `work` is.
pub async fn rehearsed<W: Future>(work: W) -> (W::Output, Option<Change>) {
    let noted = async {
        let output = work.await;
        let notes = NOTES.with(RefCell::take);
        let change = notes.held.map(|request| Change {
            request,
            words: notes.told,
        });
        (output, change)
    };
    NOTES.scope(RefCell::default(), noted).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_rehearsal_ends_before_the_first_change_and_says_what_it_is() {
        assert!(hold(|| "outside".into()).is_ok());
        let work = async {
            tell(|| "stock of A: 7 → 5".into());
            hold(|| "set stock".into())?;
            hold(|| "never reached".into())
        };
        let (output, change) = block_on(rehearsed(work));
        assert!(output.is_err());
        let change = change.expect("a change");
        assert_eq!(change.request, "set stock");
        assert_eq!(change.words, ["stock of A: 7 → 5"]);
    }

    #[test]
    fn work_that_changes_nothing_ends_as_ever() {
        let (output, change) = block_on(rehearsed(async {
            tell(|| "what is not done in the end".into());
            7
        }));
        assert_eq!((output, change), (7, None));
    }
}
