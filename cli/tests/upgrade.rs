//! A data folder of the program before generations had a life: it starts, nothing is lost, and nothing is filled anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};
use support::{Server, status};

/// Unpacks the folder; answers what the old program answered from it.
fn unpack(to: &Path) -> Vec<Value> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/before-generations.zip");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(fixture).unwrap()).unwrap();
    let mut answers = None;
    for number in 0..archive.len() {
        let mut file = archive.by_index(number).unwrap();
        let name = file.enclosed_name().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        if name == Path::new("answers.json") {
            answers = Some(serde_json::from_slice(&bytes).unwrap());
            continue;
        }
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    answers.unwrap()
}

/// Removes the fields that differ between two requests, and the wording of a problem: its code and status remain.
fn lasting(mut answer: Value) -> Value {
    let is_problem = answer["type"].as_str().is_some_and(|kind| kind.starts_with("urn:carbon-ml:problem:"));
    let wording: &[&str] = if is_problem { &["title", "detail"] } else { &[] };
    if let Some(object) = answer.as_object_mut() {
        for field in ["latency_ms", "request_id"].iter().chain(wording) {
            object.remove(*field);
        }
    }
    answer
}

async fn compare(server: &Server, answers: &[Value]) {
    for expected in answers {
        let (path, base) = (expected["path"].as_str().unwrap(), &expected["service"]);
        let url = format!("{}{path}", if base == "query" { &server.query } else { &server.tracking });
        let request = match expected["method"].as_str().unwrap() {
            "GET" => server.http.get(url),
            _ => server.http.post(url).json(&expected["body"]),
        };
        let answer = request.send().await.unwrap();
        assert_eq!(u64::from(answer.status().as_u16()), expected["status"], "{path}");
        let found: Value = answer.json().await.unwrap();
        assert_eq!(lasting(found), lasting(expected["answer"].clone()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_the_program_before_generations_is_served_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let answers = unpack(folder.path());
    let server = Server::start(folder.path()).await;
    compare(&server, &answers).await;
    let before = status(&server).await;
    for (read_model, id) in [
        ("catalog", "catalog-v1-1"),
        ("deadletters", "deadletters-v1-1"),
        ("registry", "registry-v5-1"),
        ("search", "search-v1-feature-hashing@1@f32-1"),
    ] {
        let own: Vec<_> = generations(&before).into_iter().filter(|g| g["read_model"] == read_model).collect();
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!((&own[0]["id"], &own[0]["state"], &own[0]["served"]), (&json!(id), &json!("active"), &json!(true)));
    }
    assert_eq!(before["dead_letters"], json!({"by_reason": {"malformed": 1}}));
    // The same after the rows are made anew from the log, under the same names.
    assert!(server.interrupt().await.success());
    std::fs::remove_dir_all(folder.path().join("read-models")).unwrap();
    let server = Server::start(folder.path()).await;
    compare(&server, &answers).await;
    assert_eq!(generations(&status(&server).await).len(), 4);
    assert!(server.interrupt().await.success());
}

fn generations(status: &Value) -> Vec<Value> {
    status["generations"].as_array().unwrap().clone()
}
