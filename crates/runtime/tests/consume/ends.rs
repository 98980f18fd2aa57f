//! The ends of partitions, with markers that have offsets and are never delivered.

use std::time::Duration;

use carbon_core::Positions;
use carbon_runtime::consume::{Phase, State};

use super::running::{Running, all, at, produce, produce_with, upto};
use super::sinks::{Act, NEWER, Rows};

#[tokio::test(start_paused = true)]
async fn an_end_passes_markers_before_between_and_after_records() {
    for passes in [false, true] {
        let run = Running::start(Rows::with(passes), 10);
        let mut session = run.log.joined().await;
        // Only a marker.
        run.log.marker(&at(0));
        session.assign(&all(&[0])).await;
        session.end_at(&at(0), 1).await;
        run.shows("the first end", |now| now.has_reached(&upto(0, 1))).await;
        assert_eq!(run.rows.now().checkpoint.positions.next(&at(0)), u64::from(passes));
        // Records behind it, a marker, more records, and a marker: delivered in one go.
        produce(&run.log, 0, 2);
        run.log.marker(&at(0));
        session.deliver(&at(0), 4).await;
        session.end_at(&at(0), 4).await;
        produce(&run.log, 0, 2);
        run.log.marker(&at(0));
        session.deliver(&at(0), 3).await;
        session.end_at(&at(0), 7).await;
        run.shows("the last end", |now| now.has_reached(&upto(0, 7))).await;
        assert_eq!(run.rows.rows(0), [1, 2, 4, 5]);
        assert_eq!(run.rows.now().checkpoint.positions.next(&at(0)), if passes { 7 } else { 6 });
        // The next batch begins where the checkpoint stands.
        produce(&run.log, 0, 1);
        session.deliver_all(&at(0)).await;
        run.rows.until("one more row", |state| state.rows[&0].len() == 5).await;
        let call = run.rows.now().calls.last().unwrap().clone();
        assert_eq!((call.from, call.upto), (upto(0, if passes { 7 } else { 6 }), upto(0, 8)));
        // The offsets of the group show no lag where there is none.
        run.log.until("the end is committed", |held| held.commits.iter().any(|all| all.next(&at(0)) == 8)).await;
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_the_records_before_it() {
    let run = Running::start(Rows::with(true), 2);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 3);
    run.log.marker(&at(0));
    let mut session = run.log.joined().await;
    session.assign(&all(&[0, 1])).await;
    for _ in 0..3 {
        session.deliver(&at(0), 1).await;
    }
    session.end_at(&at(0), 4).await;
    for landed in [0, 2] {
        run.rows.called(1 + landed / 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(run.view().progress.borrow().positions.next(&at(0)), landed as u64);
        run.rows.gate.add_permits(1);
    }
    run.shows("the end", |now| now.has_reached(&upto(0, 4))).await;
    // The checkpoint passed the end after the records, or a batch would have lost its position.
    assert!(!session.has_left());
    assert_eq!((run.rows.rows(0), run.rows.now().checkpoint.positions.clone()), (vec![0, 1, 2], upto(0, 4)));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_end_does_not_move_a_position_back() {
    let run = Running::start(Rows::with(true), 10);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 3);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 1).await;
    run.rows.called(1).await;
    // The end that was seen then, and more records behind it.
    session.end_at(&at(0), 1).await;
    session.deliver(&at(0), 2).await;
    run.rows.gate.add_permits(10);
    run.rows.has(0, 3).await;
    session.end_at(&at(0), 3).await;
    run.shows("the end", |now| now.has_reached(&upto(0, 3))).await;
    produce(&run.log, 0, 1);
    session.deliver(&at(0), 1).await;
    run.rows.has(0, 4).await;
    assert!(!session.has_left());
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_moved_checkpoint_is_seen_when_an_end_is_passed() {
    let run = Running::shared(Rows::with(true), 10);
    produce(&run.log, 0, 2);
    run.log.marker(&at(0));
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    run.rows.apply_elsewhere(&at(0), 2);
    session.end_at(&at(0), 3).await;
    session.left().await;
    let mut session = run.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 2));
    session.end_at(&at(0), 3).await;
    run.shows("the end", |now| now.has_reached(&upto(0, 3))).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn law_13_a_newer_record_halts_its_partition_alone() {
    let run = Running::start(Rows::new(), 10);
    produce_with(&run.log, 0, 5, |offset, record| match offset {
        2 => record.with_header(NEWER, "yes"),
        _ => record,
    });
    produce(&run.log, 1, 3);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0, 1])).await;
    session.deliver_all(&at(0)).await;
    session.deliver_all(&at(1)).await;
    run.rows.has(1, 3).await;
    run.rows.has(0, 2).await;
    let state = run.view().state();
    assert!(matches!(&state, State::Halted { error, .. } if error.contains("version 9")), "{state}");
    // The end of the halted partition is not passed, that of the other one is.
    run.shows("the other end", |now| now.has_reached(&upto(1, 3))).await;
    produce(&run.log, 1, 2);
    session.deliver_all(&at(1)).await;
    run.rows.has(1, 5).await;
    assert_eq!(run.view().progress.borrow().positions.next(&at(0)), 2);
    assert_eq!(run.rows.now().checkpoint.positions, Positions::from_iter([(at(0), 2), (at(1), 5)]));
    // The partition goes elsewhere, and this member is whole again.
    session.revoke(&all(&[0])).await.await.unwrap();
    assert_eq!(run.view().state(), State::Running);
    // It comes back: the record is still there.
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 2));
    session.deliver_all(&at(0)).await;
    run.shows("halted again", |now| now.halted.contains_key(&at(0))).await;
    assert_eq!(run.view().progress.borrow().phase, Phase::Running);
    run.stop().await;
}
