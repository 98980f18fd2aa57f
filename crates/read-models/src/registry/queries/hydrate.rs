//! Everything that was logged to the runs of a page: three statements for any number of runs.

use std::collections::HashMap;

use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput};
use carbon_store::{Dialect, Namespace, StoreError};

use super::RunInfo;
use super::corrupt;
use super::runs::Run;

/// The parameters and tags of a page, on SQLite. Each run's pairs are one JSON text, since a row costs more than its
/// content.
const PAIRS: &str = "
SELECT page.value,
    (SELECT json_group_array(json_array(key, value))
        FROM (SELECT key, value FROM params WHERE run_no = page.value ORDER BY key)),
    (SELECT json_group_array(json_array(key, value))
        FROM (SELECT key, value FROM run_tags WHERE run_no = page.value ORDER BY key))
FROM json_each($1) page
";

/// The parameters and tags of a page, on Postgres: one row for each pair.
const PAIRS_OF_POSTGRES: &str = "
WITH page(run_no) AS (SELECT CAST(value AS BIGINT) FROM json_each($1))
SELECT 'p', run_no, key, value FROM page JOIN params USING (run_no)
UNION ALL
SELECT 't', run_no, key, value FROM page JOIN run_tags USING (run_no)
ORDER BY 3
";

/// The latest points of a page, in few columns, since each column costs: a missing value is NaN, and model and dataset
/// are one JSON list, or NULL.
fn metrics(dialect: Dialect) -> String {
    let join = dialect.ordered_join();
    let (list, order) = match dialect {
        // SQLite reads the points in key order, and would sort them again for an `ORDER BY`.
        Dialect::Sqlite => ("json_array(m.model_id, m.dataset_name, m.dataset_digest)", ""),
        Dialect::Postgres => ("json_build_array(m.model_id, m.dataset_name, m.dataset_digest)::text", "ORDER BY m.key"),
    };
    format!(
        "SELECT m.run_no, m.key, CASE WHEN m.is_nan = 1 THEN NULL ELSE m.value END, m.timestamp, m.step, \
         CASE WHEN m.model_id IS NULL AND m.dataset_name IS NULL AND m.dataset_digest IS NULL THEN NULL ELSE {list} END \
         FROM json_each($1) page {join} latest_metrics m ON m.run_no = CAST(page.value AS BIGINT) {order}"
    )
}

/// The datasets and models of a page.
fn inputs(dialect: Dialect) -> String {
    let join = dialect.ordered_join();
    format!(
        "WITH page(run_no) AS (SELECT CAST(value AS BIGINT) FROM json_each($1))
SELECT 'd', run_no, name, digest, NULL, source_type, source, schema, profile, tags
    FROM page {join} run_datasets USING (run_no)
UNION ALL
SELECT direction, run_no, model_id, NULL, step, NULL, NULL, NULL, NULL, NULL
    FROM page {join} run_models USING (run_no)
ORDER BY 1, 3, 4"
    )
}

/// The runs with everything that was logged to them.
pub(super) async fn hydrate(namespace: &Namespace, infos: Vec<RunInfo>) -> Result<Vec<Run>, StoreError> {
    if infos.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = infos.iter().map(|info| info.run_no).collect();
    let page = serde_json::to_string(&numbers).map_err(corrupt)?;
    let mut runs = Runs {
        places: numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect(),
        runs: infos.into_iter().map(Run::of).collect(),
    };
    // All reads see the same commit.
    let mut snapshot = namespace.snapshot().await?;
    let mut on = snapshot.connection();
    match namespace.dialect() {
        Dialect::Sqlite => {
            for row in &carbon_store::query(PAIRS).bind(&page).fetch_all(&mut on).await? {
                if let Some(run) = runs.of(row.try_get(0)?) {
                    run.params = pairs(&row.try_get::<String>(1)?)?;
                    run.tags = pairs(&row.try_get::<String>(2)?)?;
                }
            }
        }
        Dialect::Postgres => {
            for row in &carbon_store::query(PAIRS_OF_POSTGRES).bind(&page).fetch_all(&mut on).await? {
                let Some(run) = runs.of(row.try_get(1)?) else { continue };
                let pair = KeyValue { key: row.try_get(2)?, value: row.try_get(3)? };
                match row.try_get::<String>(0)?.as_str() {
                    "p" => run.params.push(pair),
                    _ => run.tags.push(pair),
                }
            }
        }
    }
    let of_metrics = carbon_store::query(sqlx::AssertSqlSafe(metrics(namespace.dialect()))).bind(&page);
    for row in &of_metrics.fetch_all(&mut on).await? {
        let Some(run) = runs.of(row.try_get(0)?) else { continue };
        let of = row.json_text(5)?.as_deref().map(serde_json::from_str).transpose().map_err(corrupt)?;
        let (model_id, dataset_name, dataset_digest) = of.unwrap_or_default();
        run.metrics.push(Metric {
            key: row.try_get(1)?,
            value: row.try_get::<Option<f64>>(2)?.unwrap_or(f64::NAN),
            timestamp: row.try_get(3)?,
            step: row.try_get(4)?,
            model_id,
            dataset_name,
            dataset_digest,
        });
    }
    let inputs = carbon_store::query(sqlx::AssertSqlSafe(inputs(namespace.dialect())));
    for row in &inputs.bind(&page).fetch_all(&mut on).await? {
        let Some(run) = runs.of(row.try_get(1)?) else { continue };
        let name: String = row.try_get(2)?;
        match row.try_get::<String>(0)?.as_str() {
            "d" => run.datasets.push(DatasetInput {
                name,
                digest: row.try_get(3)?,
                source_type: row.try_get(5)?,
                source: row.try_get(6)?,
                schema: row.try_get(7)?,
                profile: row.try_get(8)?,
                tags: serde_json::from_str(&row.try_get::<String>(9)?).map_err(corrupt)?,
            }),
            "input" => run.input_models.push(name),
            _ => run.output_models.push(ModelOutput { model_id: name, step: row.try_get(4)? }),
        }
    }
    snapshot.end().await?;
    Ok(runs.runs)
}

/// The runs of a page, and the index of each by `run_no`.
struct Runs {
    places: HashMap<i64, usize>,
    runs: Vec<Run>,
}

impl Runs {
    fn of(&mut self, number: i64) -> Option<&mut Run> {
        self.places.get(&number).and_then(|at| self.runs.get_mut(*at))
    }
}

fn pairs(text: &str) -> Result<Vec<KeyValue>, StoreError> {
    let pairs: Vec<(String, String)> = serde_json::from_str(text).map_err(corrupt)?;
    Ok(pairs.into_iter().map(|(key, value)| KeyValue { key, value }).collect())
}
