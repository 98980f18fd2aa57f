//! The tables of the registry. A run has a number of its own (`run_no`), which its parameters, metrics and tags hang on:
//! it is this copy's alone, and no digest has it.

pub(super) const DDL: &str = "
CREATE TABLE IF NOT EXISTS experiments (
    tenant_id TEXT NOT NULL,
    experiment_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    artifact_location TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, experiment_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS experiments_name ON experiments (tenant_id, name);
CREATE TABLE IF NOT EXISTS experiment_tags (
    tenant_id TEXT NOT NULL,
    experiment_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, experiment_id, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS runs (
    run_no INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    experiment_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    start_time INTEGER NOT NULL,
    end_time INTEGER,
    artifact_uri TEXT NOT NULL,
    deleted INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_id ON runs (tenant_id, run_id);
CREATE INDEX IF NOT EXISTS runs_page ON runs (tenant_id, experiment_id, deleted, start_time DESC, run_id);
CREATE TABLE IF NOT EXISTS params (
    run_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_no, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS params_value ON params (key, value, run_no);
CREATE TABLE IF NOT EXISTS run_tags (
    run_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_no, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_tags_value ON run_tags (key, value, run_no);
CREATE TABLE IF NOT EXISTS metrics (
    run_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    is_nan INTEGER NOT NULL,
    model_id TEXT,
    dataset_name TEXT,
    dataset_digest TEXT,
    PRIMARY KEY (run_no, key, timestamp, step, value, is_nan)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wide_metrics (
    run_no INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    key TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    is_nan INTEGER NOT NULL,
    PRIMARY KEY (run_no, segment, key, timestamp, step, value, is_nan)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metric_segments (
    run_no INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    held INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    PRIMARY KEY (run_no, segment)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metrics_model ON metrics (model_id, key) WHERE model_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS latest_metrics (
    run_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    is_nan INTEGER NOT NULL,
    model_id TEXT,
    dataset_name TEXT,
    dataset_digest TEXT,
    PRIMARY KEY (run_no, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS latest_metrics_value ON latest_metrics (key, is_nan, value, run_no);
CREATE TABLE IF NOT EXISTS run_datasets (
    run_no INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source TEXT NOT NULL,
    schema TEXT,
    profile TEXT,
    tags TEXT NOT NULL,
    PRIMARY KEY (run_no, name, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run_models (
    run_no INTEGER NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('input', 'output')),
    model_id TEXT NOT NULL,
    step INTEGER NOT NULL,
    PRIMARY KEY (run_no, direction, model_id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS logged_models (
    tenant_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    experiment_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    model_type TEXT NOT NULL,
    source_run_id TEXT NOT NULL,
    artifact_uri TEXT NOT NULL,
    status TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, model_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logged_models_page
    ON logged_models (tenant_id, experiment_id, deleted, created_at DESC, model_id);
CREATE INDEX IF NOT EXISTS logged_models_name ON logged_models (tenant_id, name, experiment_id);
CREATE TABLE IF NOT EXISTS logged_model_params (
    tenant_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, model_id, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS logged_model_tags (
    tenant_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, model_id, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS registered_models (
    tenant_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_updated INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (tenant_id, registration_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS registered_models_name ON registered_models (tenant_id, name) WHERE deleted_at IS NULL;
CREATE TABLE IF NOT EXISTS model_names (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    opened_offset INTEGER NOT NULL,
    registration_id TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER,
    PRIMARY KEY (tenant_id, name, opened_offset)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS model_names_of ON model_names (tenant_id, registration_id);
CREATE TABLE IF NOT EXISTS registered_model_tags (
    tenant_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, registration_id, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model_versions (
    tenant_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    version_id TEXT NOT NULL,
    description TEXT NOT NULL,
    run_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    source TEXT NOT NULL,
    storage TEXT NOT NULL,
    run_link TEXT NOT NULL,
    manifest TEXT NOT NULL,
    manifest_digest TEXT,
    stage TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_updated INTEGER NOT NULL,
    deleted_at INTEGER,
    PRIMARY KEY (tenant_id, registration_id, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS model_versions_id ON model_versions (tenant_id, version_id);
CREATE INDEX IF NOT EXISTS model_versions_stage
    ON model_versions (tenant_id, registration_id, stage, version) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS model_versions_run ON model_versions (tenant_id, run_id);
CREATE TABLE IF NOT EXISTS model_version_tags (
    tenant_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant_id, registration_id, version, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model_aliases (
    tenant_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    alias TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, registration_id, alias)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS promotions (
    \"offset\" INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    model_name TEXT NOT NULL,
    registration_id TEXT,
    version INTEGER,
    version_id TEXT,
    run_id TEXT,
    stage TEXT,
    alias TEXT,
    archive_existing INTEGER NOT NULL,
    previous INTEGER,
    promoted_by TEXT,
    occurred_at INTEGER NOT NULL,
    meant_id TEXT,
    effect TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS promotions_name ON promotions (tenant_id, model_name) WHERE registration_id IS NULL;
CREATE INDEX IF NOT EXISTS promotions_registration ON promotions (tenant_id, registration_id);
CREATE INDEX IF NOT EXISTS promotions_meant ON promotions (tenant_id, meant_id);

CREATE TABLE IF NOT EXISTS webhooks (
    tenant_id TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    status TEXT NOT NULL,
    sealed_secret TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, webhook_id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS artifacts (
    tenant_id TEXT NOT NULL,
    path TEXT NOT NULL,
    owner TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, path)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS conflicts (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    \"offset\" INTEGER NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (topic, partition, \"offset\")
) WITHOUT ROWID;
";

pub(super) const CANONICAL: &[&str] = &[
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
    "SELECT 'metric', tenant_id, run_id, key, timestamp, step, value, is_nan, model_id, dataset_name, \
     dataset_digest FROM metrics JOIN runs USING (run_no) \
     UNION \
     SELECT 'metric', tenant_id, run_id, key, timestamp, step, value, is_nan, NULL, NULL, NULL \
     FROM wide_metrics m JOIN runs USING (run_no) WHERE NOT EXISTS (SELECT 1 FROM metrics s \
     WHERE (s.run_no, s.key, s.timestamp, s.step, s.value, s.is_nan) = \
     (m.run_no, m.key, m.timestamp, m.step, m.value, m.is_nan)) \
     ORDER BY tenant_id, run_id, key, timestamp, step, value, is_nan",
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
