//! The most common search, for the best runs by one metric, by the index of the metric's values: its cost depends on
//! the size of the page, not on the number of runs. If the index alone does not decide the page, the general statement
//! does.

use carbon_store::{Namespace, QueryBuilder, StoreError};

use super::{Among, SearchRuns, push_clause};
use crate::registry::filter::{Clause, Comparator, Entity, push_comparison};
use crate::registry::queries::Page;
use crate::registry::queries::RunInfo;
use crate::registry::run_info::COLUMNS;

/// How many values are scanned for one run of the page: others belong to other experiments, or fail the rest of the
/// filter.
const SCANNED_FOR_ONE: usize = 4;
/// Minimum number of scanned values.
const SCANNED_AT_LEAST: usize = 256;

/// Whether a clause can hold only for runs that have a number: runs with NaN and runs without a value need not be
/// scanned.
fn bounds(clause: &Clause, key: &str) -> bool {
    clause.entity == Entity::Metric
        && clause.key == key
        && matches!(
            clause.comparator,
            Comparator::Eq | Comparator::Lt | Comparator::Le | Comparator::Gt | Comparator::Ge
        )
}

/// The page; `None` if the index alone does not decide it.
pub(super) async fn page(
    namespace: &Namespace,
    among: &Among<'_>,
    search: &SearchRuns,
) -> Result<Option<Page<RunInfo>>, StoreError> {
    let [order] = search.order_by.as_slice() else { return Ok(None) };
    if order.entity != Entity::Metric {
        return Ok(None);
    }
    let direction = if order.ascending { "ASC" } else { "DESC" };
    let wanted = search.offset.saturating_add(search.limit).saturating_add(1);
    let scanned = wanted.saturating_mul(SCANNED_FOR_ONE).max(SCANNED_AT_LEAST);
    let (bounding, rest): (Vec<_>, Vec<_>) = search.filter.iter().partition(|clause| bounds(clause, &order.key));

    let mut query: QueryBuilder = QueryBuilder::new(
        namespace.dialect(),
        "WITH scanned AS MATERIALIZED (SELECT o.run_no, o.value FROM latest_metrics o WHERE o.key = ",
    );
    query.push_bind(order.key.clone()).push(" AND o.is_nan = 0");
    for clause in &bounding {
        query.push(" AND ");
        push_comparison(&mut query, "o.value", clause.comparator, &clause.value);
    }
    query.push(format!(" ORDER BY o.value {direction} LIMIT ")).push_bind(i64::try_from(scanned).unwrap_or(i64::MAX));
    let join = namespace.dialect().ordered_join();
    let worst = if order.ascending { "MAX" } else { "MIN" };
    query.push(format!(
        ") SELECT {COLUMNS}, s.value, (SELECT COUNT(*) FROM scanned), (SELECT {worst}(value) FROM scanned) \
         FROM scanned s {join} runs r ON r.run_no = s.run_no WHERE "
    ));
    among.push(&mut query);
    for clause in rest {
        query.push(" AND ");
        push_clause(&mut query, clause);
    }
    query.push(format!(" ORDER BY s.value {direction}, r.start_time DESC, r.run_id LIMIT "));
    query.push_bind(search.limit as i64 + 1).push(" OFFSET ").push_bind(search.offset as i64);
    let rows = query.build().fetch_all(namespace.readers()).await?;

    let Some(last) = rows.last() else { return Ok(None) };
    let after = last.len() - 3;
    let (value, seen, worst): (f64, i64, f64) =
        (last.try_get(after)?, last.try_get(after + 1)?, last.try_get(after + 2)?);
    let all_seen = usize::try_from(seen).is_ok_and(|seen| seen < scanned);
    let full = rows.len() > search.limit;
    // Values equal to the last scanned one may follow: ties with it cannot be ordered.
    let settled = all_seen || full && value != worst;
    if !settled || !full && bounding.is_empty() {
        return Ok(None);
    }
    Ok(Some(Page::of(rows.iter().map(RunInfo::read).collect::<Result<Vec<_>, _>>()?, search.limit)))
}
