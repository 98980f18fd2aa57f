//! A broker and a schema registry of a test's own, started by the project's script on ports that are free.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::binary;

pub struct Cluster {
    state: tempfile::TempDir,
    brokers: String,
    registry: String,
}

fn script() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services.sh"))
}

impl Cluster {
    /// Starts both, and waits until they answer.
    pub fn start() -> Self {
        let mut cluster = Self { state: tempfile::tempdir().unwrap(), brokers: String::new(), registry: String::new() };
        cluster.run(&["up", "kafka", "registry"]);
        let said = cluster.run(&["env"]);
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {said}")).trim_matches('"').to_owned()
        };
        (cluster.brokers, cluster.registry) = (value("ML_KAFKA_BROKERS"), value("ML_SCHEMA_REGISTRY_URL"));
        cluster
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(script());
        command.args(arguments).env("CARBON_SERVICES_DIR", self.state.path());
        command.env("KAFKA_PORT", "0").env("REGISTRY_PORT", "0").output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "services.sh {arguments:?}: {out}{err}");
        out.into_owned()
    }

    pub fn apply_topology(&self) {
        let output = binary().args(["topology", "apply"]).envs(self.settings()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What a process needs to find it. Sessions are short, so that the partitions of a killed one move soon.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        vec![
            ("ML_KAFKA_BROKERS", &self.brokers),
            ("ML_SCHEMA_REGISTRY_URL", &self.registry),
            ("ML_KAFKA__SESSION_TIMEOUT_MS", "3000"),
            ("ML_KAFKA__HEARTBEAT_INTERVAL_MS", "500"),
        ]
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `kill -9`; what was on disk stays.
    pub fn kill(&self, service: &str) {
        self.run(&["kill", service]);
    }

    /// Starts one that was killed, on the port that it had.
    pub fn restart(&self, service: &str) {
        self.run(&["up", service]);
    }

    /// Stops it from answering.
    pub fn pause(&self, service: &str) {
        self.run(&["pause", service]);
    }

    pub fn resume(&self, service: &str) {
        self.run(&["resume", service]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.command(&["kill", "kafka", "registry"]);
    }
}
