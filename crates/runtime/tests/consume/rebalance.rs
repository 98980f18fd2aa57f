//! Partitions come and go while batches are under way.

use std::time::Duration;

use carbon_core::Positions;
use carbon_runtime::consume::Phase;
use tokio::time::Instant;

use super::running::{Running, all, at, group, produce, upto};
use super::script::IDENTITY;
use super::session::Served;
use super::sinks::{Act, Rows};

#[tokio::test(start_paused = true)]
async fn partitions_that_come_while_a_batch_lands_wait_for_it() {
    let run = Running::shared(Rows::new(), 10);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 3);
    produce(&run.log, 1, 2);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 3).await;
    run.rows.called(1).await;
    let added = all(&[1]);
    let (start, ()) = tokio::join!(session.assign(&added), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(run.rows.rows(0).is_empty());
        run.rows.gate.add_permits(10);
    });
    assert_eq!(start, upto(1, 0));
    assert_eq!(run.rows.rows(0), [0, 1, 2]);
    session.deliver(&at(1), 2).await;
    run.rows.has(1, 2).await;
    // Both are this member's.
    produce(&run.log, 0, 1);
    session.deliver(&at(0), 1).await;
    run.rows.has(0, 4).await;
    assert!(!session.has_left());
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_the_batch_that_lands_and_for_what_is_pending() {
    let run = Running::shared(Rows::new(), 2);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 4);
    produce(&run.log, 1, 1);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0, 1])).await;
    session.deliver(&at(0), 3).await;
    run.rows.called(1).await;
    let mut done = session.revoke(&all(&[0])).await;
    tokio::select! {
        _ = &mut done => panic!("acknowledged before the batch landed"),
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    run.rows.gate.add_permits(10);
    done.await.unwrap();
    assert_eq!(run.rows.rows(0), [0, 1, 2]);
    // The next owner finds the committed offsets.
    assert_eq!(run.log.held().committed(&group()).next(&at(0)), 3);
    assert_eq!(run.view().progress.borrow().positions.get(&at(0)), None);
    // The member keeps the other partition, and may get the first one back.
    session.deliver(&at(1), 1).await;
    run.rows.has(1, 1).await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 3));
    session.deliver(&at(0), 1).await;
    run.rows.has(0, 4).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_acknowledged_within_seconds_while_a_commit_is_stuck() {
    for act in [Act::Hang, Act::External] {
        let run = Running::shared(Rows::new(), 10);
        run.rows.script(move |_| act);
        produce(&run.log, 0, 3);
        let mut session = run.log.joined().await;
        session.assign(&all(&[0])).await;
        session.deliver(&at(0), 3).await;
        run.rows.called(1).await;
        let began = Instant::now();
        session.revoke(&all(&[0])).await.await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(11), "{act:?}: {:?}", began.elapsed());
        assert!(run.rows.rows(0).is_empty());
        session.left().await;
        run.rows.script(|_| Act::Commit);
        let mut session = run.log.joined().await;
        assert_eq!(session.assign(&all(&[0])).await, upto(0, 0));
        session.deliver(&at(0), 3).await;
        run.rows.has(0, 3).await;
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_position_joins_again_from_the_new_checkpoint() {
    let run = Running::shared(Rows::new(), 10);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 6);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 4).await;
    run.rows.called(1).await;
    run.rows.apply_elsewhere(&at(0), 2);
    run.rows.gate.add_permits(10);
    session.left().await;
    assert_eq!(run.rows.rows(0), [0, 1], "nothing of the batch was applied");
    let mut session = run.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 2));
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 6).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_commits_no_offsets_of_partitions_that_it_lost() {
    let run = Running::shared(Rows::new(), 10);
    produce(&run.log, 0, 4);
    produce(&run.log, 1, 4);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0, 1])).await;
    session.deliver(&at(0), 2).await;
    session.deliver(&at(1), 2).await;
    run.rows.has(1, 2).await;
    // Another member has the second partition, and this one sees that it lost its position.
    run.rows.apply_elsewhere(&at(1), 4);
    session.deliver(&at(1), 1).await;
    session.left().await;
    run.log.set_committed(&group(), &upto(1, 4));
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 4).await;
    run.log.until("committed offsets", |held| held.committed(&group()).next(&at(0)) == 4).await;
    assert_eq!(run.log.held().committed(&group()).next(&at(1)), 4);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_a_partition_that_went_does_not_slow_the_others_down() {
    let run = Running::shared(Rows::new(), 10);
    run.rows.script(|call| if call.records.contains(&(1, 2)) { Act::Internal } else { Act::Commit });
    produce(&run.log, 0, 2);
    produce(&run.log, 1, 4);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0, 1])).await;
    session.deliver(&at(1), 4).await;
    session.left().await;
    // The other member has the second partition from here on.
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 2).await;
    produce(&run.log, 0, 6);
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 8).await;
    assert_eq!(run.rows.now().calls.last().unwrap().offsets(), [2, 3, 4, 5, 6, 7]);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_of_another_log_are_thrown_away() {
    let rows = Rows::new();
    rows.state.send_modify(|state| {
        state.checkpoint.log = Some("another".into());
        state.checkpoint.positions = upto(0, 7);
        state.rows.insert(0, vec![6]);
    });
    let run = Running::start(rows, 10);
    produce(&run.log, 0, 2);
    let mut session = run.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 0));
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 2).await;
    assert_eq!((run.rows.now().resets, run.rows.now().checkpoint.log.as_deref()), (1, Some(IDENTITY)));
    assert!(run.view().progress.borrow().rebuilt.as_ref().is_some_and(|why| why.contains("another")));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_stream_is_waited_for_and_the_wait_starts_small_after_each_success() {
    let run = Running::start(Rows::new(), 10);
    for n in 0..20 {
        produce(&run.log, 0, 1);
        let mut session = run.log.joined().await;
        assert_eq!(session.assign(&all(&[0])).await, upto(0, n));
        session.deliver_all(&at(0)).await;
        run.rows.has(0, n + 1).await;
        run.shows("running", |now| now.phase == Phase::Running).await;
        let began = Instant::now();
        session.fail(carbon_log::LogError::Unavailable("scripted".into())).await;
        run.shows("retrying", |now| matches!(now.phase, Phase::Retrying { .. })).await;
        let session = run.log.joined().await;
        assert!(began.elapsed() < Duration::from_millis(500), "attempt {n} waited {:?}", began.elapsed());
        // Failed without a success between: the wait grows, up to 10 s.
        session.fail(carbon_log::LogError::Unavailable("scripted".into())).await;
    }
    let mut waits = Vec::new();
    for _ in 0..12 {
        let session = run.log.joined().await;
        let began = Instant::now();
        session.fail(carbon_log::LogError::Unavailable("scripted".into())).await;
        let next = run.log.joined().await;
        waits.push(began.elapsed());
        next.fail(carbon_log::LogError::Unavailable("scripted".into())).await;
    }
    assert!(waits.is_sorted() && waits.last().unwrap().as_secs() == 10, "{waits:?}");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_log_ends_is_joined_again() {
    let run = Running::start(Rows::new(), 10);
    produce(&run.log, 0, 3);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 2).await;
    run.rows.has(0, 2).await;
    drop(session);
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 3).await;
    run.shows("the end", |now| now.has_reached(&Positions::from_iter([(at(0), 3)]))).await;
    run.stop().await;
}
