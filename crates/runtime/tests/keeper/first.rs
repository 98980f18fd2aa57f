//! The first generation of a fold version: claimed, filled, activated and served.

use std::time::Duration;

use carbon_runtime::Filling;
use carbon_schemas::events::GenerationState::{Active, Building, Ready};
use carbon_topology::CutOver;

use super::fake::{Fake, Process, SharedDisk, events, generation, pass, put, record, said};
use super::script::{Answer, ScriptedLog};

#[tokio::test(start_paused = true)]
async fn the_first_number_is_claimed_and_activated_only_when_it_is_filled() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::new(10), generation(1, 1));
    let process = Process::start(&log, &disk, 1);
    disk.opens(&id).await;
    disk.fold(&id, 9);
    pass(Duration::from_secs(5)).await;
    assert_eq!((process.state(&id), disk.served(), process.status().served), (Some(Building), None, None));
    assert_eq!(said(&log, &id), [Building]);
    assert_eq!(disk.now().shown.last(), Some(&Filling::Records { folded: 9, of: 10 }));
    assert_eq!(process.status().filling, Some(Filling::Records { folded: 9, of: 10 }));
    // What comes while it is filled is not waited for.
    disk.change(|disk| disk.end = 100);
    disk.fold(&id, 12);
    disk.serves(&id).await;
    process.is(&id, Active).await;
    assert_eq!(said(&log, &id), [Building, Ready, Active]);
    let ready = events(&log).remove(1);
    assert_eq!((ready.rows, ready.digest.as_deref(), ready.positions.len()), (Some(12), Some("digest"), 1));
    assert_eq!(disk.now().done, ["open", "filled", "serve"].map(|what| format!("{what} {id}")));
    pass(Duration::from_secs(2)).await;
    let status = process.status();
    assert_eq!((status.served, status.caught_up, status.filling, status.error), (Some(id), true, None, None));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_legacy_activation_is_served_without_a_claim() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::new(10), generation(1, 1));
    // All that the binary before this rule wrote: active at once, with no positions.
    put(&log, &record(&id, 1, Active));
    let process = Process::start(&log, &disk, 1);
    disk.opens(&id).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(disk.served(), None, "it was never filled");
    disk.fold(&id, 10);
    disk.serves(&id).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(said(&log, &id), [Active]);
    process.stop().await;
    // Its rows were filled once: it is served at once after a restart, while it catches up.
    disk.change(|disk| disk.end = 50);
    let process = Process::start(&log, &disk, 1);
    disk.serves(&id).await;
    assert!(!process.status().caught_up);
    disk.fold(&id, 50);
    process.shows("caught up", |status| status.caught_up).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn generations_of_another_fold_version_are_not_opened() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    put(&log, &record(&generation(2, 1), 2, Active));
    put(&log, &record(&generation(2, 2), 2, Building));
    let process = Process::start(&log, &disk, 1);
    disk.serves(&generation(1, 1)).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(disk.now().namespaces.keys().collect::<Vec<_>>(), [&generation(1, 1)]);
    assert_eq!((process.state(&generation(2, 1)), process.state(&generation(2, 2))), (Some(Active), Some(Building)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_agree_on_one_generation() {
    let (log, id) = (ScriptedLog::new(), generation(1, 1));
    let disks = [SharedDisk::new(10), SharedDisk::new(10)];
    let processes = [Process::start(&log, &disks[0], 1), Process::start(&log, &disks[1], 1)];
    disks[0].opens(&id).await;
    disks[1].opens(&id).await;
    disks[0].fold(&id, 10);
    disks[0].serves(&id).await;
    pass(Duration::from_secs(3)).await;
    // It is active in the log; a copy that is not filled yet is not served all the same.
    assert_eq!((processes[1].state(&id), disks[1].served()), (Some(Active), None));
    disks[1].fold(&id, 10);
    disks[1].serves(&id).await;
    assert_eq!(processes[1].now().iter().count(), 1);
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_processes_that_fill_at_once_activate_once() {
    let (log, id) = (ScriptedLog::new(), generation(1, 1));
    let disks = [SharedDisk::folding(10), SharedDisk::folding(10)];
    let processes = [Process::start(&log, &disks[0], 1), Process::start(&log, &disks[1], 1)];
    disks[0].serves(&id).await;
    disks[1].serves(&id).await;
    let first = events(&log).iter().position(|event| event.state == Active).unwrap() as u64;
    pass(Duration::from_secs(3)).await;
    let now = processes[0].now();
    assert_eq!((now.iter().count(), now.get(&id).unwrap().activated.as_ref().map(|at| at.offset)), (1, Some(first)));
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_fills_nothing_claims_nothing_and_serves_what_others_fill() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::folding(10), generation(1, 1));
    let reader = Fake { disk: disk.clone(), version: 1, cut_over: CutOver::Manual, fills: false };
    let process = Process::start_with(&log, reader);
    pass(Duration::from_secs(5)).await;
    assert!(events(&log).is_empty() && disk.now().open.is_empty());
    assert!(matches!(process.status().filling, Some(Filling::Waiting(why)) if why.contains("no process")));
    put(&log, &record(&id, 1, Building));
    disk.opens(&id).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!((said(&log, &id), disk.served()), (vec![Building], None));
    put(&log, &record(&id, 1, Ready));
    put(&log, &record(&id, 1, Active));
    disk.serves(&id).await;
    // The only generation is retired: nothing is served.
    put(&log, &record(&id, 1, carbon_schemas::events::GenerationState::Retired));
    disk.until("withdrawn", |disk| disk.served.is_none() && disk.open.is_empty()).await;
    assert_eq!(process.status().served, None);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_takes_no_records_does_not_stop_serving() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    let (active, next) = (generation(1, 1), generation(1, 2));
    put(&log, &record(&active, 1, Active));
    put(&log, &record(&next, 1, Building));
    log.script(|_| Answer::Unavailable);
    let process = Process::start(&log, &disk, 1);
    disk.serves(&active).await;
    disk.until("the other is filled", |disk| disk.times(&format!("filled {next}")) == 1).await;
    pass(Duration::from_secs(2)).await;
    assert!(process.status().error.is_some_and(|error| error.contains("scripted")));
    log.script(|_| Answer::Accept);
    process.is(&next, Ready).await;
    pass(Duration::from_secs(2)).await;
    assert_eq!(process.status().error, None);
    process.stop().await;
}
