//! Restarts, and parts that fail.

use std::time::Duration;

use carbon_schemas::events::GenerationState::{Active, Building, Ready};

use super::fake::{Process, SharedDisk, events, generation, pass, put, record, said};
use super::script::ScriptedLog;

#[tokio::test(start_paused = true)]
async fn a_generation_that_is_being_filled_is_continued_after_a_restart() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::new(10), generation(1, 1));
    for next in 1..5 {
        let process = Process::start(&log, &disk, 1);
        disk.opens(&id).await;
        assert_eq!(disk.now().namespaces[&id].next, next - 1);
        disk.fold(&id, next);
        pass(Duration::from_secs(2)).await;
        process.stop().await;
    }
    let process = Process::start(&log, &disk, 1);
    disk.opens(&id).await;
    disk.fold(&id, 10);
    disk.serves(&id).await;
    assert_eq!(said(&log, &id), [Building, Ready, Active]);
    assert_eq!((process.now().iter().count(), disk.now().namespaces.len()), (1, 1));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_whose_claimer_is_gone_is_filled_by_another_process() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::folding(10), generation(1, 1));
    put(&log, &record(&id, 1, Building));
    let process = Process::start(&log, &disk, 1);
    disk.serves(&id).await;
    assert_eq!(said(&log, &id), [Building, Ready, Active]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_was_ready_is_activated_after_a_restart() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::folding(10), generation(1, 1));
    put(&log, &record(&id, 1, Building));
    put(&log, &record(&id, 1, Ready));
    let process = Process::start(&log, &disk, 1);
    disk.serves(&id).await;
    assert_eq!(said(&log, &id), [Building, Ready, Active]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restarts_of_two_versions_in_turn_leave_one_generation_of_each() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::folding(10));
    for _ in 0..10 {
        for version in [5, 6] {
            let process = Process::start(&log, &disk, version);
            disk.serves(&generation(version, 1)).await;
            pass(Duration::from_secs(2)).await;
            assert_eq!(disk.now().open.iter().collect::<Vec<_>>(), [&generation(version, 1)]);
            process.stop().await;
        }
    }
    let process = Process::start(&log, &disk, 5);
    process.generations.caught_up().await;
    let ids: Vec<_> = process.now().iter().map(|own| (own.id.clone(), own.state)).collect();
    assert_eq!(ids, [(generation(5, 1), Active), (generation(6, 1), Active)]);
    assert_eq!((events(&log).len(), disk.now().namespaces.len()), (6, 2));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_cannot_be_opened_does_not_stop_the_others() {
    let (log, disk) = (ScriptedLog::new(), SharedDisk::new(10));
    let (a, b, c) = (generation(1, 1), generation(1, 2), generation(1, 3));
    put(&log, &record(&b, 1, Active));
    put(&log, &record(&a, 1, Active));
    put(&log, &record(&c, 1, Building));
    disk.change(|disk| disk.unopenable = [b.clone()].into());
    let process = Process::start(&log, &disk, 1);
    // Neither the serving of one nor the filling of another waits for the standby.
    disk.opens(&a).await;
    disk.fold(&a, 10);
    disk.serves(&a).await;
    disk.opens(&c).await;
    disk.fold(&c, 10);
    process.is(&c, Ready).await;
    pass(Duration::from_secs(2)).await;
    assert!(process.status().error.is_some_and(|error| error.contains(b.as_str())));
    assert_eq!(process.status().served, Some(a));
    disk.change(|disk| disk.unopenable.clear());
    disk.opens(&b).await;
    pass(Duration::from_secs(2)).await;
    assert_eq!(process.status().error, None);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_keeper_is_restarted() {
    let (log, disk, id) = (ScriptedLog::new(), SharedDisk::folding(10), generation(1, 1));
    disk.change(|disk| disk.panics = 3);
    let process = Process::start(&log, &disk, 1);
    disk.serves(&id).await;
    assert_eq!((disk.now().panics, disk.now().times(&format!("open {id}"))), (0, 1));
    process.stop().await;
}
