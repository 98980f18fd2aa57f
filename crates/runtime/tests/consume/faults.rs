//! Internal errors and panics: restarts from the checkpoint, the halt at the culprit, and the way on.

use std::time::Duration;

use carbon_runtime::consume::{Phase, State};
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use tokio::time::Instant;

use super::running::{Running, all, at, produce};
use super::session::Served;
use super::sinks::{Act, Rows};

fn halted_at(now: &Phase) -> Option<&str> {
    match now {
        Phase::Halted { at, .. } => Some(at),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_fifth_failure_at_one_position_halts_at_the_culprit() {
    for act in [Act::Internal, Act::Panic] {
        let run = Running::start(Rows::new(), 20);
        run.rows.script(move |call| if call.records.contains(&(0, 5)) { act } else { Act::Commit });
        produce(&run.log, 0, 8);
        let _served = Served::start(&run.log, &all(&[0]));
        run.shows("halted", |now| halted_at(&now.phase).is_some()).await;
        let name = EntityChanged::NAME;
        let state = run.view().state();
        assert!(matches!(&state, State::Halted { at, .. } if *at == format!("{name}:0:5")), "{state}");
        assert!(state.to_string().contains("scripted") && !state.moves(), "{state}");
        // What is before the culprit was committed, record by record.
        assert_eq!(run.rows.rows(0), [0, 1, 2, 3, 4]);
        let offsets: Vec<_> = run.rows.now().calls.iter().map(|call| call.offsets()).collect();
        assert_eq!(offsets[0], (0..8).collect::<Vec<_>>());
        let ones: Vec<_> = offsets[1..].iter().map(|one| if one.len() == 1 { one[0] } else { 99 }).collect();
        assert_eq!(ones, [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]);

        // While the fault lasts it stays halted, and tries again after its time.
        let began = Instant::now();
        let tries = offsets.len();
        run.rows.called(tries + 3).await;
        assert!((5..=7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!(halted_at(&run.view().progress.borrow().phase), Some(format!("{name}:0:5").as_str()));

        // The fault is gone: nothing is lost or doubled, and batches are whole again behind the first one.
        run.rows.script(|_| Act::Commit);
        run.rows.has(0, 8).await;
        run.shows("running", |now| now.phase == Phase::Running).await;
        let tries = run.rows.now().calls.len();
        produce(&run.log, 0, 1);
        run.rows.has(0, 9).await;
        produce(&run.log, 0, 6);
        run.rows.has(0, 15).await;
        let last = run.rows.now().calls[tries..].iter().map(|call| call.records.len()).max();
        assert!(last > Some(1), "{last:?}");
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_culprit_of_a_batch_of_several_partitions_is_named() {
    let run = Running::start(Rows::new(), 20);
    run.rows.script(|call| if call.records.contains(&(1, 2)) { Act::Panic } else { Act::Commit });
    produce(&run.log, 0, 3);
    produce(&run.log, 1, 4);
    produce(&run.log, 2, 2);
    let _served = Served::start(&run.log, &all(&[0, 1, 2]));
    run.shows("halted", |now| halted_at(&now.phase).is_some()).await;
    let phase = run.view().progress.borrow().phase.clone();
    assert_eq!(halted_at(&phase), Some(format!("{}:1:2", EntityChanged::NAME).as_str()));
    assert_eq!((run.rows.rows(0), run.rows.rows(1)), (vec![0, 1, 2], vec![0, 1]));
    run.rows.script(|_| Act::Commit);
    run.rows.has(1, 4).await;
    run.rows.has(2, 2).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_at_different_positions_do_not_halt() {
    let run = Running::start(Rows::new(), 1);
    let mut failed = std::collections::BTreeMap::new();
    // Each record fails four times.
    run.rows.script(move |call| {
        let count = failed.entry(call.offsets()[0]).or_insert(0);
        *count += 1;
        if *count <= 4 { Act::Internal } else { Act::Commit }
    });
    produce(&run.log, 0, 4);
    let mut progress = run.view().progress;
    let watched = tokio::spawn(async move { progress.wait_for(|now| halted_at(&now.phase).is_some()).await.is_ok() });
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 4).await;
    assert!(!watched.is_finished());
    watched.abort();
    assert_eq!(run.rows.now().calls.len(), 20);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_restarts_from_the_checkpoint_after_a_short_wait() {
    let run = Running::start(Rows::new(), 10);
    let mut calls = 0;
    run.rows.script(move |_| {
        calls += 1;
        if calls == 2 { Act::Panic } else { Act::Commit }
    });
    produce(&run.log, 0, 2);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 2).await;
    run.rows.has(0, 2).await;
    produce(&run.log, 0, 3);
    let began = Instant::now();
    session.deliver(&at(0), 3).await;
    session.left().await;
    let mut session = run.log.joined().await;
    assert!(began.elapsed() <= Duration::from_millis(200), "{:?}", began.elapsed());
    let start = session.assign(&all(&[0])).await;
    assert_eq!(start.next(&at(0)), 2);
    // Not running before it has shown that it is.
    assert!(matches!(run.view().state(), State::Retrying { .. }), "{}", run.view().state());
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 5).await;
    run.shows("running", |now| now.phase == Phase::Running).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_halted_processor_ends_at_a_shutdown_at_once() {
    let run = Running::start(Rows::new(), 10);
    run.rows.script(|_| Act::Internal);
    produce(&run.log, 0, 1);
    let _served = Served::start(&run.log, &all(&[0]));
    run.shows("halted", |now| halted_at(&now.phase).is_some()).await;
    let began = Instant::now();
    run.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_record_is_read_halts_at_it_after_what_is_before_it_landed() {
    let run = Running::start(Rows::new(), 20);
    *run.rows.unreadable.lock().unwrap() = Some((0, 5));
    produce(&run.log, 0, 8);
    let _served = Served::start(&run.log, &all(&[0]));
    run.shows("halted", |now| halted_at(&now.phase).is_some()).await;
    let phase = run.view().progress.borrow().phase.clone();
    assert_eq!(halted_at(&phase), Some(format!("{}:0:5", EntityChanged::NAME).as_str()));
    assert_eq!(run.rows.rows(0), [0, 1, 2, 3, 4]);
    *run.rows.unreadable.lock().unwrap() = None;
    run.rows.has(0, 8).await;
    run.shows("running", |now| now.phase == Phase::Running).await;
    run.stop().await;
}
