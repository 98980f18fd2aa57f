//! A Postgres of a test's own, started by the project's script; it ends with the test, however that ends.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub struct Database {
    /// It holds the server until its input ends.
    holder: Child,
    address: String,
}

impl Database {
    pub fn start() -> Self {
        let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres.py"));
        let mut holder = Command::new(script)
            .args(["sh", "-c", "echo \"$CARBON_TEST_POSTGRES\"; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("postgresql://"), "{address:?}");
        Self { holder, address: address.trim_end().to_owned() }
    }

    pub fn setting(&self) -> (&str, &str) {
        ("ML_MLFLOW_BACKEND_DSN", &self.address)
    }

    /// Throws every schema of the platform away.
    pub async fn forget(&self) {
        let pool = sqlx::PgPool::connect(&self.address).await.unwrap();
        let names: Vec<String> =
            sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'carbon_ml_%'")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert!(names.len() >= 3, "{names:?}");
        for name in names {
            let drop = sqlx::AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"));
            sqlx::raw_sql(drop).execute(&pool).await.unwrap();
        }
        pool.close().await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
