//! The supervisor: every long-lived task has a name and a policy, and none ends unnoticed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Shutdown;
use crate::panics::caught;

/// What happens when a task fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The task starts again, after a backoff of 100 ms that doubles up to 10 s.
    Restart,
    /// The process ends: without this task it serves nobody.
    EndProcess,
}

/// What a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    Running,
    /// It failed and waits for its restart.
    Retrying {
        error: String,
    },
    /// It cannot go on until something outside changes, such as the version of the program.
    Halted {
        why: String,
    },
    /// It ended by itself, or with the process.
    Ended,
}

/// A task as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: TaskState,
    /// Restarts since the process started.
    pub restarts: u64,
}

/// Starts tasks, restarts them, and says how each is.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    shutdown: Shutdown,
    tasks: Mutex<BTreeMap<String, TaskStatus>>,
    handles: Mutex<Vec<(String, JoinHandle<()>)>>,
    fatal: watch::Sender<Option<String>>,
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A task that ran for this long starts with the first backoff again.
const HEALTHY: Duration = Duration::from_secs(60);

impl Supervisor {
    pub fn new(shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            tasks: Mutex::default(),
            handles: Mutex::default(),
            fatal: watch::Sender::new(None),
        }))
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Runs a task under a policy. `start` makes the task anew for each restart; a task that answers `Ok` has ended and
    /// is not restarted.
    pub fn spawn<F, Fut, E>(&self, name: impl Into<String>, policy: Policy, start: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send,
        E: Display,
    {
        let (name, supervisor) = (name.into(), self.clone());
        let shown = name.clone();
        self.set(&name, TaskState::Running);
        let task = tokio::spawn(async move { supervisor.run(name, policy, start).await });
        let mut handles = self.0.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|(_, handle)| !handle.is_finished());
        handles.push((shown, task));
    }

    async fn run<F, Fut, E>(&self, name: String, policy: Policy, mut start: F)
    where
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<(), E>> + Send,
        E: Display,
    {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let began = Instant::now();
            let error = match caught(start()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic.to_string()),
            };
            if self.0.shutdown.is_cancelled() {
                return self.set(&name, TaskState::Ended);
            }
            match (policy, error) {
                (Policy::Restart, None) => return self.set(&name, TaskState::Ended),
                (Policy::EndProcess, error) => {
                    let error = error.unwrap_or_else(|| "it ended".into());
                    tracing::error!(task = name, error, "task failed; the process ends");
                    self.set(&name, TaskState::Ended);
                    self.0.fatal.send_replace(Some(format!("{name}: {error}")));
                    return;
                }
                (Policy::Restart, Some(error)) => {
                    backoff = if began.elapsed() >= HEALTHY { FIRST_BACKOFF } else { backoff };
                    let wait_ms = backoff.as_millis() as u64;
                    tracing::error!(task = name, error, wait_ms, "task failed; restarting");
                    metrics::counter!("task_restarts_total", "task" => name.clone()).increment(1);
                    self.failed(&name, error);
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = self.0.shutdown.cancelled() => return self.set(&name, TaskState::Ended),
                    }
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    self.set(&name, TaskState::Running);
                }
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, TaskStatus>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what a task is doing, where it knows better than its supervisor.
    pub fn set(&self, name: &str, state: TaskState) {
        let mut tasks = self.locked();
        let task = tasks.entry(name.to_owned()).or_insert(TaskStatus { state: TaskState::Running, restarts: 0 });
        task.state = state;
    }

    fn failed(&self, name: &str, error: String) {
        self.set(name, TaskState::Retrying { error });
        if let Some(task) = self.locked().get_mut(name) {
            task.restarts += 1;
        }
    }

    /// All tasks, by name. A task that has ended by itself is not among them.
    pub fn tasks(&self) -> BTreeMap<String, TaskStatus> {
        let tasks = self.locked();
        tasks.iter().filter(|(_, task)| task.state != TaskState::Ended).map(|(n, t)| (n.clone(), t.clone())).collect()
    }

    /// Waits for a failure that ends the process, and names it.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.0.fatal.subscribe();
        match fatal.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until every task has ended, after the shutdown was asked for. A task that has not ended in time is named in
    /// the log and aborted.
    pub async fn join(&self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let next = self.0.handles.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((name, mut handle)) = next else { return };
            // `run` catches the task's panics.
            if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                tracing::error!(task = name, within_s = within.as_secs(), "task did not end; aborted");
                handle.abort();
                let _ = handle.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panicking_task_is_restarted_counted_and_named() {
        let supervisor = Supervisor::new(Shutdown::new());
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let (running, mut runs) = watch::channel(false);
        supervisor.spawn("follower", Policy::Restart, move || {
            let (start, running) = (counted.fetch_add(1, Ordering::SeqCst), running.clone());
            async move {
                match start {
                    0 => panic!("first"),
                    1 => return Err("second"),
                    _ => drop(running.send_replace(true)),
                }
                std::future::pending().await
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let named = supervisor.tasks()["follower"].state.clone();
        assert!(matches!(&named, TaskState::Retrying { error } if error.contains("first")), "{named:?}");
        runs.wait_for(|running| *running).await.unwrap();
        assert_eq!(supervisor.tasks()["follower"], TaskStatus { state: TaskState::Running, restarts: 2 });
    }

    #[tokio::test]
    async fn a_task_that_ends_the_process_is_fatal_also_when_it_ends_without_an_error() {
        for panics in [true, false] {
            let supervisor = Supervisor::new(Shutdown::new());
            supervisor.spawn("server", Policy::EndProcess, move || async move {
                assert!(!panics, "gone");
                Ok::<(), Infallible>(())
            });
            let error = supervisor.fatal().await;
            assert!(error.starts_with("server: "), "{error}");
        }
    }

    #[tokio::test]
    async fn a_shutdown_ends_tasks_and_waits_for_them() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let token = shutdown.clone();
        supervisor.spawn("task", Policy::EndProcess, move || {
            let token = token.clone();
            async move {
                token.cancelled().await;
                Ok::<(), Infallible>(())
            }
        });
        shutdown.cancel();
        supervisor.join(Duration::from_secs(10)).await;
        assert!(supervisor.tasks().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_does_not_hold_up_the_shutdown() {
        let supervisor = Supervisor::new(Shutdown::new());
        supervisor.spawn("hung", Policy::Restart, std::future::pending::<Result<(), Infallible>>);
        supervisor.shutdown().cancel();
        supervisor.join(Duration::from_secs(10)).await;
    }
}
