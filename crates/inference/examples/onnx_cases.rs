//! Loads the models that `scripts/onnx/cases.py` exported, compares their answers with onnxruntime's in Python, and
//! measures them. Prints a Markdown table; exits with 1 where an answer differs by more than the tolerance.
//!
//! `ORT_DYLIB_PATH=.../libonnxruntime.so.1.32.0 cargo run --release -p carbon-inference --example onnx_cases -- FOLDER`
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use carbon_inference::predict::{Column, Declared, Model, ModelOptions, OnnxRuntime, outputs_to_rows, rows_to_tensors};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Largest difference of two numbers, relative to the larger one where that is above 1.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    library: String,
    name: String,
    columns: Vec<String>,
    rows: Vec<Map<String, Value>>,
    expected: Vec<Value>,
}

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "onnx-cases".into()));
    let library = std::env::var("ORT_DYLIB_PATH").unwrap_or_else(|_| "libonnxruntime.so".into());
    let runtime = OnnxRuntime::load(Path::new(&library)).unwrap();
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    println!("| library | model | largest difference | p50 of 1 row | p50 of 1,000 rows |\n|---|---|---|---|---|");
    let mut failed = 0;
    for case in &cases {
        failed += usize::from(!compare(&runtime, case));
    }
    println!("\n{} models, {failed} failed", cases.len());
    if failed == 0 && !cases.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the case's line of the table; false if it failed.
fn compare(runtime: &OnnxRuntime, folder: &Path) -> bool {
    let case: Case = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let columns = case.columns.iter().map(|name| Column { name: name.clone(), required: true }).collect();
    let file = std::fs::read(folder.join("model.onnx")).unwrap();
    let model = match Model::load(runtime, &file, &Declared { columns }, ModelOptions::default()) {
        Ok(model) => model,
        Err(error) => {
            println!("| {} | {} | {error} | | |", case.library, case.name);
            return false;
        }
    };
    let predict = |rows: &[Map<String, Value>]| {
        let tensors = rows_to_tensors(model.signature(), rows)?;
        outputs_to_rows(&model.predict(tensors)?, rows.len())
    };
    let found = match predict(&case.rows) {
        Ok(found) => found,
        Err(error) => {
            println!("| {} | {} | {error} | | |", case.library, case.name);
            return false;
        }
    };
    let difference = found.iter().zip(&case.expected).map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
    let one = median(200, || drop(predict(&case.rows[..1])));
    let all = median(20, || drop(predict(&case.rows)));
    let micros = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6);
    println!("| {} | {} | {difference:.1e} | {} | {} |", case.library, case.name, micros(one), micros(all));
    found.len() == case.expected.len() && difference <= TOLERANCE
}

/// Infinite where the values are of another kind or shape.
fn difference(found: &Value, expected: &Value) -> f64 {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() / a.abs().max(b.abs()).max(1.0)
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).map(|(a, b)| difference(a, b)).fold(0.0, f64::max)
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            let of =
                |(name, value): (&String, &Value)| b.get(name).map_or(f64::INFINITY, |other| difference(value, other));
            a.iter().map(of).fold(0.0, f64::max)
        }
        (a, b) if a == b => 0.0,
        _ => f64::INFINITY,
    }
}

fn median(times: usize, mut work: impl FnMut()) -> Duration {
    let mut taken: Vec<Duration> = (0..times)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    taken.sort();
    taken[times / 2]
}
