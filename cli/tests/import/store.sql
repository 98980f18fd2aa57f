-- A small MLflow store: the tables that an import reads, by their columns in schema revision dc11669786a5, with made-up
-- data of the energy markets.
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
INSERT INTO alembic_version VALUES ('dc11669786a5');
CREATE TABLE workspaces (name VARCHAR(63) NOT NULL PRIMARY KEY, description TEXT);
INSERT INTO workspaces VALUES ('default', NULL);

CREATE TABLE experiments (
    experiment_id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(256) NOT NULL, workspace VARCHAR(63) DEFAULT 'default' NOT NULL,
    artifact_location VARCHAR(256), lifecycle_stage VARCHAR(32), creation_time BIGINT, last_update_time BIGINT
);
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) VALUES
    (0, 'Default', 'mlflow-artifacts:/0', 'active', 1700000000000, 1700000000000),
    (1, 'henry-hub-curve', 'mlflow-artifacts:/1', 'active', 1700000001000, 1700000009000),
    (2, 'brent-backtests', 'mlflow-artifacts:/2', 'deleted', 1700000002000, 1700000008000),
    (7, 'ttf-nbp-spread', 'file:///srv/old/mlruns/7', 'active', 1700000003000, 1700000004000);
CREATE TABLE experiment_tags (key VARCHAR(250) NOT NULL, value VARCHAR(5000), experiment_id INTEGER NOT NULL);
INSERT INTO experiment_tags VALUES ('desk', 'gas', 1), ('mlflow.note.content', 'Forward curve of Henry Hub', 1), ('desk', 'oil', 2);

CREATE TABLE runs (
    run_uuid VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR(250), source_type VARCHAR(20), source_name VARCHAR(500),
    entry_point_name VARCHAR(50), user_id VARCHAR(256), status VARCHAR(20), start_time BIGINT, end_time BIGINT,
    deleted_time BIGINT, source_version VARCHAR(50), lifecycle_stage VARCHAR(20), artifact_uri VARCHAR(200), experiment_id INTEGER
);
INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, deleted_time, lifecycle_stage, artifact_uri, experiment_id) VALUES
    ('a0000000000000000000000000000001', 'bright-gas-1', 'ana', 'FINISHED', 1700000010000, 1700000020000, NULL, 'active',
        'mlflow-artifacts:/1/a0000000000000000000000000000001/artifacts', 1),
    ('a0000000000000000000000000000002', 'calm-gas-2', 'ben', 'FAILED', 1700000030000, 1700000031000, 1700000032000, 'deleted',
        'mlflow-artifacts:/1/a0000000000000000000000000000002/artifacts', 1),
    ('a0000000000000000000000000000003', 'open-gas-3', '', 'RUNNING', 1700000040000, NULL, NULL, 'active',
        'mlflow-artifacts:/1/a0000000000000000000000000000003/artifacts', 1),
    ('b0000000000000000000000000000001', 'old-brent-1', 'ana', 'KILLED', 1700000050000, 1700000051000, 1700000008000, 'deleted',
        'mlflow-artifacts:/2/b0000000000000000000000000000001/artifacts', 2),
    ('c0000000000000000000000000000001', 'cold-ttf-1', 'cy', 'FINISHED', 1700000060000, 1700000061000, NULL, 'active',
        'file:///srv/old/mlruns/7/c0000000000000000000000000000001/artifacts', 7);
CREATE TABLE params (key VARCHAR(250) NOT NULL, value VARCHAR(8000) NOT NULL, run_uuid VARCHAR(32) NOT NULL);
INSERT INTO params VALUES
    ('tenor', '36M', 'a0000000000000000000000000000001'), ('knots', '7', 'a0000000000000000000000000000001'),
    ('tenor', '12M', 'a0000000000000000000000000000002'), ('lots', '10', 'b0000000000000000000000000000001'),
    ('hub', 'Été, "TTF"', 'c0000000000000000000000000000001');
-- More than one event's worth.
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
INSERT INTO params SELECT 'p' || i, 'v' || i, 'a0000000000000000000000000000003' FROM n;
CREATE TABLE tags (key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL);
INSERT INTO tags VALUES
    ('mlflow.runName', 'bright-gas-1', 'a0000000000000000000000000000001'), ('desk', 'gas', 'a0000000000000000000000000000001'),
    ('mlflow.runName', 'calm-gas-2', 'a0000000000000000000000000000002'),
    ('mlflow.runName', 'open-gas-3', 'a0000000000000000000000000000003'),
    ('mlflow.runName', 'old-brent-1', 'b0000000000000000000000000000001'),
    ('mlflow.runName', 'cold-ttf-1', 'c0000000000000000000000000000001'), ('empty', NULL, 'c0000000000000000000000000000001');
CREATE TABLE metrics (
    key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL
);
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES
    ('rmse', 0.25, 1700000011000, 'a0000000000000000000000000000001', 0, 0),
    ('rmse', 0.125, 1700000012000, 'a0000000000000000000000000000001', 1, 0),
    ('rmse', 0, 1700000013000, 'a0000000000000000000000000000001', 2, 1),
    ('pnl', 1.7976931348623157e308, 1700000011000, 'a0000000000000000000000000000001', 0, 0),
    ('mae', 3, 1700000061000, 'c0000000000000000000000000000001', 0, 0);
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2499)
INSERT INTO metrics SELECT 'loss', 1.0 / (i + 1), 1700000040000 + i, 'a0000000000000000000000000000003', i, 0 FROM n;
CREATE TABLE latest_metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT, step BIGINT, is_nan BOOLEAN, run_uuid VARCHAR(32));

CREATE TABLE datasets (
    dataset_uuid VARCHAR(36) NOT NULL, experiment_id INTEGER NOT NULL, name VARCHAR(500) NOT NULL, digest VARCHAR(36) NOT NULL,
    dataset_source_type VARCHAR(36) NOT NULL, dataset_source TEXT NOT NULL, dataset_schema TEXT, dataset_profile TEXT
);
INSERT INTO datasets VALUES ('d1', 1, 'settlements', '1f2e', 'local', '{"uri": "settlements.parquet"}', '{"columns": []}', NULL);
CREATE TABLE inputs (
    input_uuid VARCHAR(36) NOT NULL, source_type VARCHAR(36) NOT NULL, source_id VARCHAR(36) NOT NULL,
    destination_type VARCHAR(36) NOT NULL, destination_id VARCHAR(36) NOT NULL, step BIGINT DEFAULT '0' NOT NULL
);
INSERT INTO inputs VALUES
    ('i1', 'DATASET', 'd1', 'RUN', 'a0000000000000000000000000000001', 0),
    ('i2', 'RUN_OUTPUT', 'a0000000000000000000000000000001', 'MODEL_OUTPUT', 'm-00000000000000000000000000000001', 1),
    ('i3', 'RUN_INPUT', 'a0000000000000000000000000000003', 'MODEL_INPUT', 'm-00000000000000000000000000000001', 0);
CREATE TABLE input_tags (input_uuid VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL, value VARCHAR(500) NOT NULL);
INSERT INTO input_tags VALUES ('i1', 'mlflow.data.context', 'training');

CREATE TABLE logged_models (
    model_id VARCHAR(36) NOT NULL, experiment_id INTEGER NOT NULL, name VARCHAR(500) NOT NULL, artifact_location VARCHAR(1000) NOT NULL,
    creation_timestamp_ms BIGINT NOT NULL, last_updated_timestamp_ms BIGINT NOT NULL, status INTEGER NOT NULL,
    lifecycle_stage VARCHAR(32), model_type VARCHAR(500), source_run_id VARCHAR(32), status_message VARCHAR(1000)
);
INSERT INTO logged_models VALUES
    ('m-00000000000000000000000000000001', 1, 'curve', 'mlflow-artifacts:/1/models/m-00000000000000000000000000000001/artifacts',
        1700000014000, 1700000015000, 2, 'active', 'spline', 'a0000000000000000000000000000001', NULL),
    ('m-00000000000000000000000000000002', 1, 'curve', 'mlflow-artifacts:/1/models/m-00000000000000000000000000000002/artifacts',
        1700000016000, 1700000017000, 1, 'deleted', NULL, NULL, NULL);
CREATE TABLE logged_model_params (model_id VARCHAR(36), experiment_id INTEGER, param_key VARCHAR(255), param_value TEXT);
INSERT INTO logged_model_params VALUES ('m-00000000000000000000000000000001', 1, 'knots', '7');
CREATE TABLE logged_model_tags (model_id VARCHAR(36), experiment_id INTEGER, tag_key VARCHAR(255), tag_value TEXT);
INSERT INTO logged_model_tags VALUES ('m-00000000000000000000000000000001', 1, 'desk', 'gas');
CREATE TABLE logged_model_metrics (
    model_id VARCHAR(36) NOT NULL, metric_name VARCHAR(500) NOT NULL, metric_timestamp_ms BIGINT NOT NULL, metric_step BIGINT NOT NULL,
    metric_value FLOAT, experiment_id INTEGER NOT NULL, run_id VARCHAR(32) NOT NULL, dataset_uuid VARCHAR(36),
    dataset_name VARCHAR(500), dataset_digest VARCHAR(36)
);
INSERT INTO logged_model_metrics VALUES
    ('m-00000000000000000000000000000001', 'rmse', 1700000012000, 1, 0.125, 1, 'a0000000000000000000000000000001', 'd1', 'settlements', '1f2e'),
    ('m-00000000000000000000000000000002', 'rmse', 1700000012000, 1, 0.125, 1, 'a0000000000000000000000000000001', NULL, NULL, NULL);

CREATE TABLE registered_models (
    workspace VARCHAR(63) DEFAULT 'default' NOT NULL, name VARCHAR(256) NOT NULL, creation_time BIGINT, last_updated_time BIGINT,
    description VARCHAR(5000)
);
INSERT INTO registered_models (name, creation_time, last_updated_time, description) VALUES
    ('hub-forecast', 1700000070000, 1700000079000, 'Forward curve of Henry Hub'), ('empty', 1700000071000, NULL, NULL);
CREATE TABLE registered_model_tags (workspace VARCHAR(63) DEFAULT 'default' NOT NULL, name VARCHAR(256), key VARCHAR(250), value VARCHAR(5000));
INSERT INTO registered_model_tags (name, key, value) VALUES ('hub-forecast', 'desk', 'gas');
CREATE TABLE model_versions (
    workspace VARCHAR(63) DEFAULT 'default' NOT NULL, name VARCHAR(256) NOT NULL, version INTEGER NOT NULL, creation_time BIGINT,
    last_updated_time BIGINT, description VARCHAR(5000), user_id VARCHAR(256), current_stage VARCHAR(20), source VARCHAR(500),
    storage_location VARCHAR(500), run_id VARCHAR(32), run_link VARCHAR(500), status VARCHAR(20), status_message VARCHAR(500)
);
INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, current_stage, source, storage_location, run_id, status) VALUES
    ('hub-forecast', 1, 1700000072000, 1700000078000, 'the first', 'Archived', 'models:/m-00000000000000000000000000000001',
        'mlflow-artifacts:/1/models/m-00000000000000000000000000000001/artifacts', 'a0000000000000000000000000000001', 'READY'),
    ('hub-forecast', 2, 1700000073000, 1700000074000, NULL, 'Deleted_Internal', 'REDACTED-SOURCE-PATH', NULL, 'REDACTED-RUN-ID', 'READY'),
    ('hub-forecast', 3, 1700000075000, 1700000076000, NULL, 'Production', 'runs:/c0000000000000000000000000000001/model',
        'file:///srv/old/mlruns/7/c0000000000000000000000000000001/artifacts/model', 'c0000000000000000000000000000001', 'READY');
CREATE TABLE model_version_tags (
    workspace VARCHAR(63) DEFAULT 'default' NOT NULL, name VARCHAR(256), version INTEGER, key VARCHAR(250), value TEXT
);
INSERT INTO model_version_tags (name, version, key, value) VALUES ('hub-forecast', 3, 'approved', 'yes');
CREATE TABLE registered_model_aliases (workspace VARCHAR(63) DEFAULT 'default' NOT NULL, name VARCHAR(256), alias VARCHAR(256), version INTEGER);
INSERT INTO registered_model_aliases (name, alias, version) VALUES ('hub-forecast', 'champion', 3);

CREATE TABLE trace_info (request_id VARCHAR(50) NOT NULL PRIMARY KEY);
INSERT INTO trace_info VALUES ('tr-1'), ('tr-2');
CREATE TABLE webhooks (webhook_id VARCHAR(256) NOT NULL PRIMARY KEY);
INSERT INTO webhooks VALUES ('w-1');
