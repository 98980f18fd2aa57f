//! Tags, and other pairs of a key and a value: one writer for the tables of all of them.

use std::collections::BTreeMap;

use carbon_schemas::events::KeyValue;
use carbon_store::{Dialect, QueryBuilder, Separated, Tables, Value};

use crate::registry::bulk::with_values;

/// A table of pairs, and the columns that name the owner of a pair.
#[derive(Clone, Copy)]
pub(super) struct PairTable {
    name: &'static str,
    owner: &'static [&'static str],
}

pub(super) const EXPERIMENT_TAGS: PairTable =
    PairTable { name: "experiment_tags", owner: &["tenant_id", "experiment_id"] };
pub(super) const RUN_TAGS: PairTable = PairTable { name: "run_tags", owner: &["run_no"] };
pub(super) const LOGGED_MODEL_PARAMS: PairTable =
    PairTable { name: "logged_model_params", owner: &["tenant_id", "model_id"] };
pub(super) const LOGGED_MODEL_TAGS: PairTable =
    PairTable { name: "logged_model_tags", owner: &["tenant_id", "model_id"] };
pub(super) const MODEL_TAGS: PairTable =
    PairTable { name: "registered_model_tags", owner: &["tenant_id", "registration_id"] };
pub(super) const VERSION_TAGS: PairTable =
    PairTable { name: "model_version_tags", owner: &["tenant_id", "registration_id", "version"] };

impl PairTable {
    /// Statements that set pairs. `bind` binds the owner, the key and the value of a row. No two rows may have the same
    /// owner and key: one statement can write a row only once.
    pub fn upserts<'r, T>(
        self,
        dialect: Dialect,
        rows: &'r [T],
        bind: impl Fn(Separated<'_>, &T) + 'r,
    ) -> impl Iterator<Item = QueryBuilder> + 'r {
        let (name, owner) = (self.name, self.owner.join(", "));
        let before = format!("INSERT INTO {name} ({owner}, key, value) ");
        with_values(
            dialect,
            rows,
            before,
            bind,
            format!(" ON CONFLICT ({owner}, key) DO UPDATE SET value = excluded.value"),
        )
    }

    /// Sets the pairs of one owner. The last of a key wins.
    pub async fn set(self, tables: &mut Tables<'_>, owner: &[Value], pairs: &[KeyValue]) -> Result<(), sqlx::Error> {
        let last: BTreeMap<&str, &str> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
        let rows: Vec<(&str, &str)> = last.into_iter().collect();
        let statements = self.upserts(tables.dialect(), &rows, |mut bind, (key, value)| {
            for value in owner {
                bind.push_value(value.clone());
            }
            bind.push_bind(*key).push_bind(*value);
        });
        for mut statement in statements.collect::<Vec<_>>() {
            statement.build().execute(tables.connection()).await?;
        }
        Ok(())
    }

    /// Removes the pairs of one owner that have these keys.
    pub async fn remove(self, tables: &mut Tables<'_>, owner: &[Value], keys: &[String]) -> Result<(), sqlx::Error> {
        for key in keys {
            let mut delete = QueryBuilder::new(tables.dialect(), format!("DELETE FROM {} WHERE ", self.name));
            for (column, value) in self.owner.iter().zip(owner) {
                delete.push(column).push(" = ").push_value(value.clone()).push(" AND ");
            }
            delete.push("key = ").push_bind(key).build().execute(tables.connection()).await?;
        }
        Ok(())
    }

    /// The pairs of one owner.
    pub async fn all(self, tables: &mut Tables<'_>, owner: &[Value]) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let mut select = QueryBuilder::new(tables.dialect(), format!("SELECT key, value FROM {} WHERE ", self.name));
        for (n, (column, value)) in self.owner.iter().zip(owner).enumerate() {
            select.push(if n == 0 { "" } else { " AND " }).push(column).push(" = ").push_value(value.clone());
        }
        let rows = select.build().fetch_all(tables.connection()).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}
