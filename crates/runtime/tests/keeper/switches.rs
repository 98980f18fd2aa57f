//! Activations, the way back, standby and retirement.

use std::time::Duration;

use carbon_core::GenerationId;
use carbon_schemas::events::GenerationState::{Active, Building, Ready, Retired, Standby};
use carbon_topology::CutOver;

use super::fake::{Fake, Process, SharedDisk, generation, pass, put, record, said};
use super::script::ScriptedLog;

/// A process that serves the first of these generations; the others are ready.
async fn serving(log: &std::sync::Arc<ScriptedLog>, disk: &SharedDisk, ids: &[&GenerationId]) -> Process {
    put(log, &record(ids[0], 1, Active));
    ids[1..].iter().for_each(|id| put(log, &record(id, 1, Building)));
    let process = Process::start(log, disk, 1);
    disk.serves(ids[0]).await;
    for id in &ids[1..] {
        process.is(id, Ready).await;
    }
    process
}

#[tokio::test(start_paused = true)]
async fn activations_are_followed_there_and_back_and_a_late_repeat_changes_nothing() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    let (a, b) = (generation(1, 1), generation(1, 2));
    let process = serving(&log, &disk, &[&a, &b]).await;
    pass(Duration::from_secs(3)).await;
    // The topology says `cut_over: manual`, so nobody activates the second.
    assert_eq!((disk.served(), process.state(&b)), (Some(a.to_string()), Some(Ready)));
    disk.until("the second is a sibling", |disk| disk.siblings == [b.clone()]).await;
    let activation = record(&b, 1, Active);
    put(&log, &activation);
    disk.serves(&b).await;
    assert_eq!(process.state(&a), Some(Standby));
    disk.until("the first is a sibling", |disk| disk.siblings == [a.clone()]).await;
    put(&log, &record(&a, 1, Active));
    disk.serves(&a).await;
    assert_eq!((process.state(&a), process.state(&b)), (Some(Active), Some(Standby)));
    // The same event again, as a producer that was not answered sends it.
    process.generations.append(&activation).await.unwrap();
    pass(Duration::from_secs(3)).await;
    assert_eq!((disk.served(), process.state(&b)), (Some(a.to_string()), Some(Standby)));
    assert_eq!(disk.now().times(&format!("serve {b}")), 1);
    assert_eq!(process.status().served, Some(a));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn cut_over_auto_activates_the_second_generation_when_it_is_filled() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::new(10));
    let (a, b) = (generation(1, 1), generation(1, 2));
    put(&log, &record(&a, 1, Active));
    put(&log, &record(&b, 1, Building));
    let fake = Fake { disk: disk.clone(), version: 1, cut_over: CutOver::Auto, fills: true };
    let process = Process::start_with(&log, fake);
    disk.opens(&a).await;
    disk.fold(&a, 10);
    disk.serves(&a).await;
    disk.fold(&b, 9);
    pass(Duration::from_secs(3)).await;
    assert_eq!((said(&log, &b), disk.served()), (vec![Building], Some(a.to_string())));
    disk.fold(&b, 10);
    disk.serves(&b).await;
    assert_eq!(said(&log, &b), [Building, Ready, Active]);
    // An operator's way back is not undone.
    put(&log, &record(&a, 1, Active));
    disk.serves(&a).await;
    pass(Duration::from_secs(5)).await;
    assert_eq!((disk.served(), said(&log, &b).len()), (Some(a.to_string()), 3));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_waits_until_the_new_one_has_folded_what_the_old_one_has() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::new(10));
    let (a, b) = (generation(1, 1), generation(1, 2));
    put(&log, &record(&a, 1, Active));
    put(&log, &record(&b, 1, Building));
    let process = Process::start(&log, &disk, 1);
    disk.opens(&b).await;
    disk.fold(&a, 10);
    disk.fold(&b, 10);
    disk.serves(&a).await;
    process.is(&b, Ready).await;
    // The old one is ahead.
    disk.fold(&a, 20);
    put(&log, &record(&b, 1, Active));
    disk.until("some attempts", |disk| disk.refused_switches >= 3).await;
    assert_eq!((disk.served(), process.status().served), (Some(a.to_string()), Some(a.clone())));
    disk.fold(&b, 20);
    disk.serves(&b).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_one_before_stays_open_and_the_one_before_that_is_closed() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    let (a, b, c) = (generation(1, 1), generation(1, 2), generation(1, 3));
    let process = serving(&log, &disk, &[&a, &b, &c]).await;
    put(&log, &record(&b, 1, Active));
    disk.serves(&b).await;
    put(&log, &record(&c, 1, Active));
    disk.serves(&c).await;
    disk.until("the first is closed", |disk| !disk.open.contains(&a)).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(disk.now().open.iter().collect::<Vec<_>>(), [&b, &c]);
    assert!(disk.now().namespaces.contains_key(&a), "closed, not dropped");
    // It can be activated again all the same.
    put(&log, &record(&a, 1, Active));
    disk.serves(&a).await;
    disk.until("the second is closed", |disk| !disk.open.contains(&b)).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_thrown_away_are_served_again_only_when_they_are_filled() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::new(10), generation(1, 1));
    let process = Process::start(&log, &disk, 1);
    disk.opens(&id).await;
    disk.fold(&id, 10);
    disk.serves(&id).await;
    pass(Duration::from_secs(2)).await;
    disk.change(|disk| *disk.namespaces.get_mut(&id).unwrap() = Default::default());
    disk.until("withdrawn", |disk| disk.served.is_none()).await;
    pass(Duration::from_secs(3)).await;
    let status = process.status();
    assert_eq!((disk.served(), status.served, status.caught_up), (None, None, false));
    disk.fold(&id, 9);
    pass(Duration::from_secs(3)).await;
    assert_eq!(disk.served(), None);
    disk.fold(&id, 10);
    disk.serves(&id).await;
    assert_eq!(disk.now().times(&format!("filled {id}")), 2);
    assert_eq!(process.status().served, Some(id));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_generation_is_closed_and_dropped() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    let (a, b) = (generation(1, 1), generation(1, 2));
    let process = serving(&log, &disk, &[&a, &b]).await;
    put(&log, &record(&b, 1, Active));
    disk.serves(&b).await;
    put(&log, &record(&a, 1, Retired));
    disk.until("the first is dropped", |disk| !disk.namespaces.contains_key(&a)).await;
    assert_eq!(disk.served(), Some(b.to_string()));
    process.stop().await;
    // A restart of a process that still holds another one of another version drops that one, too.
    disk.change(|disk| disk.namespaces.extend([(generation(2, 1), Default::default())]));
    put(&log, &record(&generation(2, 1), 2, Retired));
    let process = Process::start(&log, &disk, 1);
    disk.until("the other is dropped", |disk| !disk.namespaces.contains_key(&generation(2, 1))).await;
    disk.serves(&b).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_standby_is_served_when_the_active_one_is_retired() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    let (a, b) = (generation(1, 1), generation(1, 2));
    let process = serving(&log, &disk, &[&a, &b]).await;
    put(&log, &record(&b, 1, Active));
    disk.serves(&b).await;
    put(&log, &record(&b, 1, Retired));
    disk.serves(&a).await;
    disk.until("it is dropped", |disk| !disk.namespaces.contains_key(&b)).await;
    assert!(!disk.now().done.iter().any(|done| done.starts_with("withdraw")), "{:?}", disk.now().done);
    process.stop().await;
}
