//! From a page of runs to all that was logged to them: one statement for any number of runs, and nothing multiplied.

use std::collections::HashMap;

use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput};
use carbon_store::{Namespace, StoreError};
use sqlx::Row as _;

use super::corrupt;
use super::runs::{Run, RunInfo};

const PARTS: &str = "
WITH page(run_no) AS (SELECT value FROM json_each($1))
SELECT 'p', run_no, key, value, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM page CROSS JOIN params USING (run_no)
UNION ALL
SELECT 't', run_no, key, value, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM page CROSS JOIN run_tags USING (run_no)
UNION ALL
SELECT 'm', run_no, key, NULL, value, is_nan, timestamp, step, model_id, dataset_name, dataset_digest
    FROM page CROSS JOIN latest_metrics USING (run_no)
UNION ALL
SELECT 'd', run_no, name, digest, NULL, NULL, NULL, NULL, json_array(source_type, source), schema,
       json_array(profile, json(tags))
    FROM page CROSS JOIN run_datasets USING (run_no)
UNION ALL
SELECT direction, run_no, model_id, NULL, NULL, NULL, NULL, step, NULL, NULL, NULL
    FROM page CROSS JOIN run_models USING (run_no)
";

pub(super) async fn hydrate(namespace: &Namespace, infos: Vec<RunInfo>) -> Result<Vec<Run>, StoreError> {
    if infos.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i64> = infos.iter().map(|info| info.number).collect();
    let places: HashMap<i64, usize> = numbers.iter().enumerate().map(|(at, number)| (*number, at)).collect();
    let mut runs: Vec<Run> = infos.into_iter().map(Run::of).collect();
    let page = serde_json::to_string(&numbers).map_err(corrupt)?;
    let rows = sqlx::query(PARTS).bind(page).fetch_all(namespace.readers()).await?;
    for row in &rows {
        let Some(run) = places.get(&row.try_get::<i64, _>(1)?).and_then(|at| runs.get_mut(*at)) else { continue };
        let key: String = row.try_get(2)?;
        match row.try_get::<&str, _>(0)? {
            "p" => run.params.push(KeyValue { key, value: row.try_get(3)? }),
            "t" => run.tags.push(KeyValue { key, value: row.try_get(3)? }),
            "m" => {
                let nan: bool = row.try_get(5)?;
                run.metrics.push(Metric {
                    key,
                    value: if nan { f64::NAN } else { row.try_get(4)? },
                    timestamp: row.try_get(6)?,
                    step: row.try_get(7)?,
                    model_id: row.try_get(8)?,
                    dataset_name: row.try_get(9)?,
                    dataset_digest: row.try_get(10)?,
                });
            }
            "d" => {
                let (source_type, source) = serde_json::from_str(row.try_get(8)?).map_err(corrupt)?;
                let (profile, tags) = serde_json::from_str(row.try_get(10)?).map_err(corrupt)?;
                let (digest, schema) = (row.try_get(3)?, row.try_get(9)?);
                run.datasets.push(DatasetInput { name: key, digest, source_type, source, schema, profile, tags });
            }
            "input" => run.input_models.push(key),
            _ => run.output_models.push(ModelOutput { model_id: key, step: row.try_get(7)? }),
        }
    }
    Ok(runs)
}
