//! The canonical rows of the registry: what its digest is computed from.

use carbon_store::Dialect;

use crate::registry::points;

/// Statements that return all rows, each in key order.
pub(in crate::registry) fn canonical(dialect: Dialect) -> Vec<String> {
    let metrics = points::all(dialect, |table| {
        let (from, of_run, origin) = (table.from(), table.of_run("r.run_no"), table.origin());
        let first = table.only_here("WHERE");
        format!(
            "SELECT 'metric', r.tenant_id, r.run_id, m.key, m.timestamp, m.step, m.value, m.is_nan, {origin} \
             FROM {from} JOIN runs r ON {of_run}{first}"
        )
    });
    let metrics = format!("{metrics} ORDER BY 2, 3, 4, 5, 6, 7, 8");
    let statements = BEFORE_METRICS.iter().copied().chain([metrics.as_str()]).chain(AFTER_METRICS.iter().copied());
    statements.map(str::to_owned).collect()
}

const BEFORE_METRICS: &[&str] = &[
    "SELECT 'experiment', tenant_id, experiment_id, name, artifact_location, deleted, created_at, updated_at FROM \
         experiments ORDER BY tenant_id, experiment_id",
    "SELECT 'experiment tag', tenant_id, experiment_id, key, value FROM experiment_tags ORDER BY tenant_id, \
         experiment_id, key",
    "SELECT 'run', tenant_id, run_id, experiment_id, name, user_id, status, start_time, end_time, artifact_uri, \
         deleted FROM runs ORDER BY tenant_id, run_id",
    "SELECT 'param', tenant_id, run_id, key, value FROM params JOIN runs USING (run_no) ORDER BY tenant_id, \
         run_id, key",
    "SELECT 'run tag', tenant_id, run_id, key, value FROM run_tags JOIN runs USING (run_no) ORDER BY tenant_id, \
         run_id, key",
];

const AFTER_METRICS: &[&str] = &[
    "SELECT 'latest metric', tenant_id, run_id, key, timestamp, step, value, is_nan, model_id, dataset_name, \
         dataset_digest FROM latest_metrics JOIN runs USING (run_no) ORDER BY tenant_id, run_id, key",
    "SELECT 'dataset', tenant_id, run_id, d.name, digest, source_type, source, schema, profile, tags FROM \
         run_datasets d JOIN runs USING (run_no) ORDER BY tenant_id, run_id, d.name, digest",
    "SELECT 'model', tenant_id, run_id, direction, model_id, step FROM run_models JOIN runs USING (run_no) ORDER \
         BY tenant_id, run_id, direction, model_id",
    "SELECT 'logged model', tenant_id, model_id, experiment_id, name, model_type, source_run_id, artifact_uri, \
         status, deleted, created_at, updated_at FROM logged_models ORDER BY tenant_id, model_id",
    "SELECT 'logged model param', tenant_id, model_id, key, value FROM logged_model_params ORDER BY tenant_id, \
         model_id, key",
    "SELECT 'logged model tag', tenant_id, model_id, key, value FROM logged_model_tags ORDER BY tenant_id, \
         model_id, key",
    "SELECT 'registered model', tenant_id, registration_id, name, description, created_at, last_updated, \
         deleted_at FROM registered_models ORDER BY tenant_id, registration_id",
    "SELECT 'model name', tenant_id, name, opened_offset, registration_id, opened_at, closed_at FROM model_names \
         ORDER BY tenant_id, name, opened_offset",
    "SELECT 'registered model tag', tenant_id, registration_id, key, value FROM registered_model_tags ORDER BY \
         tenant_id, registration_id, key",
    "SELECT 'model version', tenant_id, registration_id, version, version_id, description, run_id, model_id, \
         source, storage, run_link, manifest, manifest_digest, stage, created_at, last_updated, deleted_at FROM \
         model_versions ORDER BY tenant_id, registration_id, version",
    "SELECT 'model version tag', tenant_id, registration_id, version, key, value FROM model_version_tags ORDER BY \
         tenant_id, registration_id, version, key",
    "SELECT 'model alias', tenant_id, registration_id, alias, version FROM model_aliases ORDER BY tenant_id, \
         registration_id, alias",
    "SELECT 'promotion', \"offset\", tenant_id, event_id, model_name, registration_id, version, version_id, \
         run_id, stage, alias, archive_existing, previous, promoted_by, occurred_at, meant_id, effect FROM promotions \
         ORDER BY \"offset\"",
    "SELECT 'webhook', tenant_id, webhook_id, name, description, url, events, status, sealed_secret, deleted, \
         created_at, updated_at FROM webhooks ORDER BY tenant_id, webhook_id",
    "SELECT 'artifact', tenant_id, path, owner, size, sha256, stored_at FROM artifacts ORDER BY tenant_id, path",
    "SELECT 'conflict', topic, partition, \"offset\", code, message FROM conflicts ORDER BY topic, partition, \
         \"offset\"",
];
