//! A store to import, and questions to a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};

use super::support::{Place, Server, binary};

pub const RUN: &str = "a0000000000000000000000000000001";
pub const LONG: &str = "a0000000000000000000000000000003";
pub const MOVED: &str = "c0000000000000000000000000000001";
pub const MODEL: &str = "m-00000000000000000000000000000001";

/// A store and its artifact folder.
pub struct Source {
    folder: tempfile::TempDir,
}

impl Source {
    pub async fn new() -> Self {
        let source = Self { folder: tempfile::tempdir().unwrap() };
        source.change(include_str!("store.sql")).await;
        for (path, text) in [
            (format!("1/{RUN}/artifacts/plots/curve.txt"), "henry hub"),
            (format!("1/models/{MODEL}/artifacts/MLmodel"), "flavors: {}"),
            (format!("1/models/{MODEL}/artifacts/data/a b.bin"), "spline"),
            (format!("7/{MOVED}/artifacts/model/MLmodel"), "flavors: {}"),
            ("1/traces/tr-1/artifacts/traces.json".to_owned(), "{}"),
        ] {
            let file = source.artifacts().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        source
    }

    pub async fn change(&self, sql: &str) {
        let url = format!("sqlite:{}?mode=rwc", self.database().display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("mlflow.db")
    }

    fn artifacts(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    pub fn command(&self, place: &Place, more: &[&str]) -> std::process::Command {
        let mut command = binary();
        command
            .args(["import", "mlflow", &format!("sqlite:///{}", self.database().display()), "--artifacts"])
            .arg(self.artifacts())
            .args(more)
            .env("ML_DATA_DIR", place.path())
            .envs(place.settings())
            .stdin(Stdio::null());
        command
    }

    /// The exit code and the outcome.
    pub fn import(&self, place: &Place, more: &[&str]) -> (i32, Value) {
        let output = self.command(place, &[&["--json"], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let outcome = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said:?} {error}"));
        (output.status.code().unwrap(), outcome)
    }
}

/// `(found, written, already there, refused)` of a kind.
pub fn counts(outcome: &Value, kind: &str) -> (i64, i64, i64, i64) {
    let kinds = outcome["kinds"].as_array().unwrap();
    let counts = kinds.iter().find(|counts| counts["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {outcome}"));
    let of = |name: &str| counts[name].as_i64().unwrap();
    (of("found"), of("written"), of("already_there"), of("refused"))
}

pub async fn get(server: &Server, path: &str) -> Value {
    let answer = server.http.get(format!("{}/api/2.0/{path}", server.tracking)).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

pub async fn post(server: &Server, path: &str, body: Value) -> Value {
    let url = format!("{}/api/2.0/mlflow/{path}", server.tracking);
    let answer = server.http.post(url).json(&body).send().await.unwrap();
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// A list of keys and values as a map.
pub fn map(list: &Value) -> BTreeMap<String, Value> {
    let pairs = list.as_array().map(Vec::as_slice).unwrap_or_default();
    pairs.iter().map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone())).collect()
}

pub fn map_of<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
}
