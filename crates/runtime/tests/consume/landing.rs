//! A batch that lands beside the loop: what goes on meanwhile, what happens when it does not, and the shutdown.

use std::sync::Arc;
use std::time::Duration;

use carbon_runtime::consume::{Phase, STALLED_AFTER, State};
use tokio::time::Instant;

use super::running::{Running, all, at, group, join, produce, upto};
use super::session::Served;
use super::sinks::{Act, Rows};

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_decoded_while_one_lands_and_begins_where_that_one_ended() {
    let run = Running::start(Rows::new(), 3);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 9);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    for _ in 0..9 {
        session.deliver(&at(0), 1).await;
    }
    run.rows.called(1).await;
    run.rows.until("decoded meanwhile", |state| state.checked >= 4).await;
    assert_eq!(run.rows.now().calls.len(), 1);
    assert!(run.rows.rows(0).is_empty());
    // Held back up to the size of a batch, no more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(run.rows.now().checked <= 6, "{}", run.rows.now().checked);
    run.rows.gate.add_permits(100);
    run.rows.has(0, 9).await;
    let calls = run.rows.now().calls.clone();
    assert!(calls.iter().all(|call| call.records.len() <= 3));
    assert!(calls.windows(2).all(|pair| pair[1].from == pair[0].upto), "{calls:?}");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn external_errors_of_a_commit_are_retried_for_ever_with_the_same_batch() {
    let run = Running::start(Rows::new(), 4);
    run.rows.script(|_| Act::External);
    produce(&run.log, 0, 6);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 4).await;
    run.rows.called(2).await;
    session.deliver(&at(0), 2).await;
    let began = Instant::now();
    run.rows.called(40).await;
    let elapsed = began.elapsed();
    assert!((Duration::from_secs(200)..Duration::from_secs(400)).contains(&elapsed), "{elapsed:?}");
    let calls = run.rows.now().calls.clone();
    assert!(calls.iter().all(|call| *call == calls[0]), "{calls:?}");
    assert!(matches!(run.view().state(), State::Retrying { .. }), "{}", run.view().state());
    assert!(!session.has_left());
    run.rows.script(|_| Act::Commit);
    run.rows.has(0, 6).await;
    run.shows("running", |now| now.phase == Phase::Running && now.records == 6).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_happened_once() {
    let run = Running::start(Rows::new(), 10);
    let mut lost = false;
    run.rows.script(move |_| if std::mem::replace(&mut lost, true) { Act::Commit } else { Act::LoseAnswer });
    produce(&run.log, 0, 3);
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 3).await;
    produce(&run.log, 0, 2);
    run.rows.has(0, 5).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_the_batch_land_and_what_was_decoded_behind_it() {
    let run = Running::start(Rows::new(), 2);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 4);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    for _ in 0..4 {
        session.deliver(&at(0), 1).await;
    }
    run.rows.until("decoded", |state| state.checked >= 3).await;
    let (view, rows, checked) = (run.view(), run.rows.clone(), run.rows.now().checked as u64);
    run.handle.stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rows.gate.add_permits(10);
    join(run.handle).await;
    assert!(rows.rows(0).len() as u64 >= checked && rows.rows(0).is_sorted(), "{:?}", rows.rows(0));
    assert_eq!(run.log.held().committed(&group()).next(&at(0)), rows.rows(0).len() as u64);
    assert_eq!((view.state(), view.progress.borrow().busy_since), (State::Stopped, None));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_within_seconds_while_a_commit_is_stuck() {
    for act in [Act::Hang, Act::External] {
        let run = Running::start(Rows::new(), 10);
        run.rows.script(move |_| act);
        produce(&run.log, 0, 3);
        let mut session = run.log.joined().await;
        session.assign(&all(&[0])).await;
        session.deliver(&at(0), 3).await;
        run.rows.called(1).await;
        let began = Instant::now();
        run.stop().await;
        assert!(began.elapsed() <= Duration::from_secs(11), "{act:?}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_every_second_under_load_too() {
    const RECORDS: u64 = 3000;
    let run = Running::start(Rows::new(), 10);
    run.rows.script(|_| Act::CommitAfter(Duration::from_millis(100)));
    produce(&run.log, 0, RECORDS);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    let load = tokio::spawn(async move {
        for _ in 0..RECORDS {
            session.deliver(&at(0), 1).await;
        }
        session
    });
    run.log.until("five commits", |held| held.commits.len() >= 5).await;
    assert!(!load.is_finished(), "the load was over before");
    let next: Vec<_> = run.log.held().commits.iter().map(|positions| positions.next(&at(0))).collect();
    // About 100 records a second.
    assert!(next.windows(2).all(|pair| (80..=130).contains(&(pair[1] - pair[0]))), "{next:?}");
    let session = load.await.unwrap();
    run.rows.has(0, RECORDS).await;
    drop(session);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_commits_nothing_for_ten_seconds_is_stalled() {
    let run = Running::start(Rows::new(), 10);
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 4);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 0).await;
    session.end_at(&at(0), 0).await;
    // Nothing to do for long is not a stall.
    tokio::time::sleep(3 * STALLED_AFTER).await;
    assert_eq!(run.view().state(), State::Running);
    session.deliver(&at(0), 3).await;
    run.rows.called(1).await;
    tokio::time::sleep(STALLED_AFTER - Duration::from_millis(100)).await;
    assert_eq!(run.view().state(), State::Running);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = run.view().state();
    assert!(matches!(state, State::Stalled { seconds: 10.. }) && !state.moves(), "{state}");
    run.rows.gate.add_permits(1);
    run.rows.has(0, 3).await;
    run.shows("a commit", |now| now.positions == upto(0, 3)).await;
    assert_eq!(run.view().state(), State::Running);
    tokio::time::sleep(3 * STALLED_AFTER).await;
    assert_eq!(run.view().state(), State::Running, "idle again");
    // A slow commit after another is measured from the last commit.
    session.deliver(&at(0), 1).await;
    run.rows.called(2).await;
    tokio::time::sleep(STALLED_AFTER - Duration::from_millis(100)).await;
    assert_eq!(run.view().state(), State::Running);
    run.rows.gate.add_permits(1);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_holds_up_commits_until_it_opens() {
    let run = Running::start(Rows::new(), 10);
    produce(&run.log, 0, 3);
    let held = run.handle.hold().await;
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver_all(&at(0)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(run.rows.now().calls.is_empty());
    drop(held);
    run.rows.has(0, 3).await;
    // And it waits for the commit under way.
    run.rows.script(|_| Act::Wait);
    produce(&run.log, 0, 1);
    session.deliver(&at(0), 1).await;
    run.rows.called(2).await;
    let rows: Arc<Rows> = run.rows.clone();
    let (_held, ()) = tokio::join!(run.handle.hold(), async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rows.gate.add_permits(1);
    });
    assert_eq!(run.rows.rows(0).len(), 4);
    drop(_held);
    run.stop().await;
}
