//! Tests of the queue, with a model that can be blocked and made to panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use carbon_core::{Classify, Fault, Precision, Retry};

use super::*;
use crate::encoder::Prepared;
use crate::hashing::FeatureHashing;

/// A model whose texts are numbers and whose vectors are those numbers. Batches block until it is opened. The number
/// 666 makes it panic, and 13 is reported as truncated.
#[derive(Default)]
struct NumberModel {
    open: Mutex<bool>,
    opened: Condvar,
    /// The batches that were run.
    batches: Mutex<Vec<Vec<u32>>>,
}

impl NumberModel {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn batches(&self) -> Vec<Vec<u32>> {
        self.batches.lock().unwrap().clone()
    }
}

impl TextModel for NumberModel {
    fn dimension(&self) -> usize {
        1
    }

    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError> {
        let number: u32 = text.parse().map_err(|_| PrepareError::NotEmbeddable("it is not a number"))?;
        // Texts have 1 to 7 tokens.
        Ok(Prepared { ids: vec![number; 1 + number as usize % 7], tokens: 1, truncated: number == 13 })
    }

    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.batches.lock().unwrap().push(batch.iter().map(|ids| ids[0]).collect());
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        drop(open);
        assert!(batch.iter().all(|ids| ids[0] != 666), "a number that breaks the model");
        Ok(batch.iter().map(|ids| vec![ids[0] as f32]).collect())
    }
}

fn start(model: Arc<dyn TextModel>, options: EncoderOptions) -> Arc<EncodeQueue> {
    EncodeQueue::start(ModelRef::new("numbers", "1", Precision::F32).unwrap(), model, &options).unwrap()
}

fn one_thread() -> EncoderOptions {
    EncoderOptions { threads: 1, batch_tokens: 16, bulk_waiting: 50, interactive_waiting: 5 }
}

fn texts(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

/// Waits up to 4 s until `condition` is true.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the condition was not met within 4 s");
}

/// Encodes in a task.
fn send(
    queue: &Arc<EncodeQueue>,
    lane: Lane,
    texts: Vec<String>,
) -> tokio::task::JoinHandle<Result<Vec<Embedding>, InferenceError>> {
    let encoder = queue.lane(lane);
    tokio::spawn(async move { encoder.encode(&texts).await })
}

#[tokio::test]
async fn embeddings_are_in_the_order_of_the_texts() {
    let model = Arc::new(NumberModel::default());
    model.open();
    let queue = start(model.clone(), EncoderOptions { bulk_waiting: 4096, ..one_thread() });
    let calls: Vec<_> = (0..5).map(|call| send(&queue, Lane::Bulk, texts(call * 1000..call * 1000 + 300))).collect();
    for (call, answer) in calls.into_iter().enumerate() {
        let values: Vec<u32> = answer.await.unwrap().unwrap().iter().map(|e| e.vector[0] as u32).collect();
        assert_eq!(values, (call as u32 * 1000..call as u32 * 1000 + 300).collect::<Vec<_>>());
    }
    let budget = |batch: &Vec<u32>| batch.iter().map(|n| 1 + n % 7).sum::<u32>() <= 16;
    assert!(model.batches().iter().all(budget), "{:?}", model.batches());
    assert_eq!(queue.waiting(Lane::Bulk), 0);
    assert!(queue.lane(Lane::Bulk).encode(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn interactive_texts_run_before_bulk_texts() {
    let model = Arc::new(NumberModel::default());
    let queue = start(model.clone(), one_thread());
    let bulk = send(&queue, Lane::Bulk, texts(0..40));
    until(|| model.batches().len() == 1).await;
    // The interactive-only thread blocks in the first call, so the second call waits in the queue beside the bulk
    // texts.
    let first = send(&queue, Lane::Interactive, texts([1000]));
    until(|| model.batches().len() == 2).await;
    let second = send(&queue, Lane::Interactive, texts([2000]));
    until(|| queue.waiting(Lane::Interactive) == 2).await;
    model.open();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    bulk.await.unwrap().unwrap();
    let batches = model.batches();
    assert_eq!((&batches[1], &batches[2]), (&vec![1000], &vec![2000]));
}

#[tokio::test]
async fn a_full_queue_rejects_calls_with_a_retry_time() {
    let model = Arc::new(NumberModel::default());
    let queue = start(model.clone(), one_thread());
    let held = send(&queue, Lane::Bulk, texts(0..50));
    until(|| queue.waiting(Lane::Bulk) == 50).await;
    let error = queue.lane(Lane::Bulk).encode(&texts([1])).await.unwrap_err();
    assert_eq!((error.fault(), error.retry(), error.code()), (Fault::External, Retry::Later, "overloaded"));
    assert!(matches!(error, InferenceError::Overloaded { retry_after } if retry_after >= Duration::from_secs(1)));
    // The other priority class has its own limit.
    let query = send(&queue, Lane::Interactive, texts([7]));
    model.open();
    query.await.unwrap().unwrap();
    held.await.unwrap().unwrap();
    // A call larger than the limit is accepted if no other text of its class is pending.
    assert_eq!(queue.lane(Lane::Bulk).encode(&texts(0..200)).await.unwrap().len(), 200);
}

#[tokio::test]
async fn texts_of_cancelled_calls_are_not_encoded() {
    let model = Arc::new(NumberModel::default());
    let queue = start(model.clone(), one_thread());
    let blocker = send(&queue, Lane::Bulk, texts([0]));
    until(|| model.batches().len() == 1).await;
    let cancelled = send(&queue, Lane::Bulk, texts(100..140));
    until(|| queue.waiting(Lane::Bulk) == 41).await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    let waiting = send(&queue, Lane::Bulk, texts([200]));
    until(|| queue.waiting(Lane::Bulk) == 42).await;
    model.open();
    blocker.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap()[0].vector, [200.0]);
    assert_eq!(model.batches(), [vec![0], vec![200]]);
    until(|| queue.waiting(Lane::Bulk) == 0).await;
}

#[tokio::test]
async fn a_text_that_cannot_be_embedded_is_named_by_its_index() {
    let model = Arc::new(NumberModel::default());
    model.open();
    let queue = start(model, one_thread());
    let mut mixed = texts(0..5);
    mixed[3] = "no".to_owned();
    let error = queue.lane(Lane::Bulk).encode(&mixed).await.unwrap_err();
    assert!(matches!(error, InferenceError::NotEmbeddable { index: 3, .. }), "{error}");
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
    let got = queue.lane(Lane::Bulk).encode(&texts([12, 13])).await.unwrap();
    assert_eq!(got.iter().map(|e| e.truncated).collect::<Vec<_>>(), [false, true]);
    until(|| queue.waiting(Lane::Bulk) == 0).await;
}

#[tokio::test]
async fn a_panic_fails_only_its_own_text() {
    let model = Arc::new(NumberModel::default());
    let queue = start(model.clone(), one_thread());
    let blocker = send(&queue, Lane::Bulk, texts([0]));
    until(|| model.batches().len() == 1).await;
    // Both have the same number of tokens, so they are in one batch.
    let (bad, good) = (send(&queue, Lane::Bulk, texts([666])), send(&queue, Lane::Bulk, texts([659])));
    until(|| queue.waiting(Lane::Bulk) == 3).await;
    model.open();
    blocker.await.unwrap().unwrap();
    let error = bad.await.unwrap().unwrap_err();
    assert!(matches!(&error, InferenceError::Broken(reason) if reason.contains("breaks the model")), "{error}");
    assert_eq!(good.await.unwrap().unwrap()[0].vector, [659.0]);
    assert!(queue.lane(Lane::Interactive).encode(&texts([666])).await.is_err());
    assert!(queue.lane(Lane::Interactive).encode(&texts([1])).await.is_ok());
}

#[tokio::test]
async fn the_queue_serves_feature_hashing() {
    let queue = start(Arc::new(FeatureHashing::new(384, 4096)), EncoderOptions::default());
    let encoder = queue.lane(Lane::Bulk);
    assert_eq!(encoder.dimension(), 384);
    let got = encoder.encode(&["natural gas".to_owned(), "Natural  GAS".to_owned()]).await.unwrap();
    assert_eq!(got[0], got[1]);
    assert!(encoder.encode(&[" ".to_owned()]).await.is_err());
}

#[tokio::test]
async fn the_threads_end_with_the_last_handle() {
    let model = Arc::new(NumberModel::default());
    let queue = start(model.clone(), one_thread());
    let lane = queue.lane(Lane::Bulk);
    drop(queue);
    assert!(Arc::strong_count(&model) > 1);
    drop(lane);
    until(|| Arc::strong_count(&model) == 1).await;
}
