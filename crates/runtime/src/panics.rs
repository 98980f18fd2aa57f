//! Panics as values: what a task said when it panicked, and where.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use futures::FutureExt as _;

thread_local! {
    /// The place of this thread's last panic, for [`caught`], which runs on the same thread.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Panicked {
    pub message: String,
    /// `file:line:column`.
    pub place: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked at {}: {}", self.place, self.message)
    }
}

/// Replaces the standard panic hook, which writes plain text, by one that writes a log line. Called once, by the binary.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = message(panic.payload());
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, message, "panic");
    }));
}

/// Keeps the place of each panic, beside whatever hook is installed.
fn record_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            PLACE.with(|last| *last.borrow_mut() = place);
            before(panic);
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Runs a future; a panic of it becomes a value. What the future shares with others must bear to be left in the middle:
/// transactions roll back when they are dropped, and locks ignore poisoning.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    record_places();
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| {
        let place = PLACE.with(|last| last.borrow_mut().take());
        Panicked {
            message: message(payload.as_ref()).to_owned(),
            place: place.unwrap_or_else(|| "an unknown place".into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_value_with_its_place() {
        let panicked = caught(async { panic!("no {}", "way") }).await.unwrap_err();
        assert_eq!(panicked.message, "no way");
        assert!(panicked.place.contains("panics.rs:"), "{panicked}");
        assert_eq!(caught(async { 7 }).await, Ok(7));
    }
}
