//! Injected faults, for tests. They exist only where the crate `fail` is built with its feature `failpoints`, which the
//! tests of this workspace do and the released program does not.

use carbon_core::{Classify, Fault, Retry};

/// A fault that a test asked for.
#[derive(Debug, thiserror::Error)]
#[error("injected at {name}: {what}")]
pub struct Injected {
    name: String,
    what: String,
}

impl Classify for Injected {
    fn fault(&self) -> Fault {
        if self.what == "external" { Fault::External } else { Fault::Internal }
    }

    fn retry(&self) -> Retry {
        if self.what == "external" { Retry::Later } else { Retry::Never }
    }
}

/// What is configured for a failpoint: `panic` panics here, `return(…)` is answered.
fn action(name: &str) -> Option<String> {
    fail::fail_point!(name, |what| Some(what.unwrap_or_default()));
    let _ = name;
    None
}

/// A place where a test may inject a fault: `panic`, `return(internal)`, `return(external)`, or `return(hang)`, which
/// lasts until the failpoint is configured otherwise, or `return(hang 12000)`, which lasts so many milliseconds.
pub async fn failpoint(name: &str) -> Result<(), Injected> {
    let Some(mut what) = action(name) else { return Ok(()) };
    if let Some(ms) = what.strip_prefix("hang ").and_then(|ms| ms.parse().ok()) {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        return Ok(());
    }
    while what == "hang" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let Some(next) = action(name) else { return Ok(()) };
        what = next;
    }
    Err(Injected { name: name.to_owned(), what })
}

/// Follows the file that `CARBON_FAILPOINTS` names, where failpoints are compiled in: a line `name=actions` configures one,
/// and one whose line goes is removed. So a test injects a fault into a running process, and takes it back. The text that is
/// in force is written beside the file, with the extension `seen`: a test waits for it.
pub fn follow_failpoints() {
    let Some(path) = std::env::var_os("CARBON_FAILPOINTS").filter(|_| fail::has_failpoints()) else { return };
    #[allow(clippy::disallowed_methods)] // On a thread of its own, which nobody waits for.
    let follow = move || {
        let seen = std::path::Path::new(&path).with_extension("seen");
        let (mut configured, mut in_force): (Vec<(String, String)>, Option<String>) = (Vec::new(), None);
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let wanted: Vec<(String, String)> = text
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, actions)| (name.to_owned(), actions.to_owned()))
                .collect();
            for (name, _) in configured.iter().filter(|known| !wanted.contains(known)) {
                fail::remove(name);
            }
            for (name, actions) in wanted.iter().filter(|new| !configured.contains(new)) {
                if let Err(error) = fail::cfg(name.as_str(), actions) {
                    tracing::error!(name, actions, error, "failpoint not configured");
                }
            }
            configured = wanted;
            if in_force.as_ref() != Some(&text) {
                if let Err(error) = std::fs::write(&seen, &text) {
                    tracing::error!(%error, "failpoints not confirmed");
                }
                in_force = Some(text);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    std::thread::spawn(follow);
}
