//! From a page of runs to all that was logged to them: three statements for any number of runs, and nothing multiplied.

use std::collections::HashMap;

use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput};
use carbon_store::{Namespace, StoreError};
use sqlx::Row as _;

use super::corrupt;
use super::runs::{Run, RunInfo};

/// Pairs come as one text a run: a row costs more than what is in it.
const PAIRS: &str = "
SELECT page.value,
    (SELECT json_group_array(json_array(key, value))
        FROM (SELECT key, value FROM params WHERE run_no = page.value ORDER BY key)),
    (SELECT json_group_array(json_array(key, value))
        FROM (SELECT key, value FROM run_tags WHERE run_no = page.value ORDER BY key))
FROM json_each($1) page
";

const METRICS: &str = "
SELECT m.run_no, m.key, m.value, m.is_nan, m.timestamp, m.step,
    CASE WHEN m.model_id IS NULL AND m.dataset_name IS NULL AND m.dataset_digest IS NULL THEN NULL
         ELSE json_array(m.model_id, m.dataset_name, m.dataset_digest) END
FROM json_each($1) page CROSS JOIN latest_metrics m ON m.run_no = page.value
";

const INPUTS: &str = "
WITH page(run_no) AS (SELECT value FROM json_each($1))
SELECT 'd', run_no, name, digest, NULL, json_array(source_type, source), schema, json_array(profile, json(tags))
    FROM page CROSS JOIN run_datasets USING (run_no)
UNION ALL
SELECT direction, run_no, model_id, NULL, step, NULL, NULL, NULL FROM page CROSS JOIN run_models USING (run_no)
";

pub(super) async fn hydrate(namespace: &Namespace, infos: Vec<RunInfo>) -> Result<Vec<Run>, StoreError> {
    if infos.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = infos.iter().map(|info| info.number).collect();
    let page = serde_json::to_string(&numbers).map_err(corrupt)?;
    let mut runs = Runs {
        places: numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect(),
        runs: infos.into_iter().map(Run::of).collect(),
    };
    // One snapshot for all of it.
    let mut tx = namespace.readers().begin().await?;
    for row in &sqlx::query(PAIRS).bind(&page).fetch_all(&mut *tx).await? {
        if let Some(run) = runs.of(row.try_get(0)?) {
            run.params = pairs(row.try_get(1)?)?;
            run.tags = pairs(row.try_get(2)?)?;
        }
    }
    for row in &sqlx::query(METRICS).bind(&page).fetch_all(&mut *tx).await? {
        let Some(run) = runs.of(row.try_get(0)?) else { continue };
        let of: Option<&str> = row.try_get(6)?;
        let of = of.map(serde_json::from_str).transpose().map_err(corrupt)?;
        let (model_id, dataset_name, dataset_digest) = of.unwrap_or_default();
        let nan: bool = row.try_get(3)?;
        run.metrics.push(Metric {
            key: row.try_get(1)?,
            value: if nan { f64::NAN } else { row.try_get(2)? },
            timestamp: row.try_get(4)?,
            step: row.try_get(5)?,
            model_id,
            dataset_name,
            dataset_digest,
        });
    }
    for row in &sqlx::query(INPUTS).bind(&page).fetch_all(&mut *tx).await? {
        let Some(run) = runs.of(row.try_get(1)?) else { continue };
        let name: String = row.try_get(2)?;
        match row.try_get::<&str, _>(0)? {
            "d" => {
                let (source_type, source) = serde_json::from_str(row.try_get(5)?).map_err(corrupt)?;
                let (profile, tags) = serde_json::from_str(row.try_get(7)?).map_err(corrupt)?;
                let (digest, schema) = (row.try_get(3)?, row.try_get(6)?);
                run.datasets.push(DatasetInput { name, digest, source_type, source, schema, profile, tags });
            }
            "input" => run.input_models.push(name),
            _ => run.output_models.push(ModelOutput { model_id: name, step: row.try_get(4)? }),
        }
    }
    tx.commit().await?;
    Ok(runs.runs)
}

/// The runs of a page, and where each of them is.
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
