//! Dead letters before a commit, notifications after it.

use std::time::Duration;

use carbon_log::NewRecord;
use carbon_schemas::Event as _;
use carbon_schemas::events::{DeadLetter, IndexUpdated};

use super::running::{Running, all, at, group, notice, poison, produce, produce_with, upto};
use super::script::Answer;
use super::session::Served;
use super::sinks::{Act, Rows};

fn only_poison(of: u64) -> impl Fn(u64, NewRecord) -> NewRecord {
    move |offset, record| if offset == of { poison(record) } else { record }
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_record_has_one_dead_letter_however_often_its_commit_is_tried() {
    let run = Running::start(Rows::new(), 10);
    let mut calls = 0;
    run.rows.script(move |_| {
        calls += 1;
        if calls <= 5 { Act::External } else { Act::Commit }
    });
    produce_with(&run.log, 0, 4, only_poison(2));
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 4).await;
    assert_eq!(run.log.held().records(DeadLetter::NAME).len(), 1);
    assert_eq!(run.view().progress.borrow().dead_letters.get("malformed"), Some(&1));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_appended_holds_the_commit_up() {
    let run = Running::start(Rows::new(), 10);
    let mut appends = 0;
    run.log.script(move |_| {
        appends += 1;
        if appends <= 3 { Answer::Unavailable } else { Answer::Accept }
    });
    let log = run.log.clone();
    run.rows.script(move |_| {
        assert_eq!(log.held().records(DeadLetter::NAME).len(), 1, "the dead letter comes first");
        Act::Commit
    });
    produce_with(&run.log, 0, 3, only_poison(1));
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 3).await;
    assert_eq!(run.log.held().records(DeadLetter::NAME).len(), 1);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_reports_no_dead_letter_again() {
    let run = Running::start(Rows::new(), 10);
    produce_with(&run.log, 0, 4, only_poison(2));
    run.log.set_committed(&group(), &upto(0, 3));
    let _served = Served::start(&run.log, &all(&[0]));
    run.rows.has(0, 4).await;
    assert!(run.log.held().records(DeadLetter::NAME).is_empty());
    // What comes after is reported.
    produce_with(&run.log, 0, 2, only_poison(5));
    run.rows.has(0, 6).await;
    assert_eq!(run.log.held().records(DeadLetter::NAME).len(), 1);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn notifications_that_cannot_be_appended_stay_owed_and_come_once() {
    let run = Running::start(Rows::new(), 10);
    let mut batch = 0;
    run.rows.notices(move |_| {
        batch += 1;
        vec![notice(batch)]
    });
    run.log.script(|_| Answer::Unavailable);
    produce(&run.log, 0, 2);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 2).await;
    run.rows.has(0, 2).await;
    // The fold goes on meanwhile; the rows are not committed again.
    run.log.until("three attempts", |held| held.appends >= 3).await;
    produce(&run.log, 0, 1);
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 3).await;
    run.shows("both batches", |now| now.positions == upto(0, 3)).await;
    let appends = run.log.held().appends;
    run.log.until("one more attempt", |held| held.appends > appends).await;
    assert!(run.log.held().records(IndexUpdated::NAME).is_empty());
    run.log.script(|_| Answer::Accept);
    run.log.until("both notifications", |held| held.records(IndexUpdated::NAME).len() >= 2).await;
    // The owed ones come once, also after more batches and a rejoin.
    produce(&run.log, 0, 1);
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 4).await;
    drop(session);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    produce(&run.log, 0, 1);
    session.deliver_all(&at(0)).await;
    run.rows.has(0, 5).await;
    run.log.until("all notifications", |held| held.records(IndexUpdated::NAME).len() >= 4).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let held = run.log.held();
    let mut keys: Vec<_> = held.records(IndexUpdated::NAME).iter().map(|record| record.key.clone().unwrap()).collect();
    drop(held);
    keys.sort();
    assert_eq!(keys, ["notice-1", "notice-2", "notice-3", "notice-4"]);
    assert_eq!(run.rows.now().calls.len(), 4);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn notifications_stay_owed_over_a_rejoin() {
    let run = Running::start(Rows::new(), 10);
    run.rows.notices(|call| vec![notice(call.offsets()[0])]);
    run.log.script(|_| Answer::Unavailable);
    produce(&run.log, 0, 2);
    let mut session = run.log.joined().await;
    session.assign(&all(&[0])).await;
    session.deliver(&at(0), 2).await;
    run.log.until("an attempt", |held| held.appends >= 2).await;
    session.fail(carbon_log::LogError::Unavailable("scripted".into())).await;
    let mut session = run.log.joined().await;
    assert_eq!(session.assign(&all(&[0])).await, upto(0, 2));
    run.log.script(|_| Answer::Accept);
    run.log.until("the notification", |held| held.records(IndexUpdated::NAME).len() == 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(run.log.held().records(IndexUpdated::NAME).len(), 1);
    run.stop().await;
}
