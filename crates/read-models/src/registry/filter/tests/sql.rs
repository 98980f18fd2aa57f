//! The SQL of comparisons, run by the store.

use carbon_store::{Get, IntoValue, Layout, Namespace, QueryBuilder, testing};
use proptest::prelude::*;

use super::super::sql::glob;
use super::*;

/// A namespace without tables.
struct Store(Namespace, #[allow(dead_code, reason = "kept as long as the store")] tempfile::TempDir);

async fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let site = testing::site(&dir.path().join("rows.db")).await;
    Store(Namespace::open(&site, &Layout::new(1, &[])).await.unwrap(), dir)
}

impl Store {
    fn query(&self, sql: &str) -> QueryBuilder {
        QueryBuilder::new(self.0.dialect(), sql)
    }

    async fn answer<T: Get>(&self, query: &mut QueryBuilder) -> T {
        query.build().scalar_one(self.0.readers()).await.unwrap()
    }
}

/// The store's result of `value <comparator> literal`; `None` is NULL.
async fn holds(store: &Store, value: impl IntoValue, comparator: Comparator, literal: &Literal) -> Option<bool> {
    let mut query = store.query("WITH v(c) AS (SELECT ");
    query.push_bind(value).push(") SELECT ");
    push_comparison(&mut query, "v.c", comparator, literal);
    store.answer(query.push(" FROM v")).await
}

fn text(text: &str) -> Literal {
    Literal::Text(text.to_owned())
}

fn list(texts: &[&str]) -> Literal {
    Literal::List(texts.iter().map(|&text| text.to_owned()).collect())
}

fn number(target: Target, filter: &str) -> Literal {
    parse_filter(target, filter).unwrap().remove(0).value
}

#[tokio::test]
async fn texts() {
    use Comparator::{Eq, Ilike, In, IsNotNull, IsNull, Like, Ne, NotIn};
    let store = &store().await;
    for (value, comparator, literal, expected) in [
        ("a", Eq, text("a"), true),
        ("a", Eq, text("A"), false),
        ("a%", Eq, text("a%"), true),
        ("a", Ne, text("b"), true),
        ("it's", Eq, text("it's"), true),
        ("Hello_World", Like, text("Hello%"), true),
        ("Hello_World", Like, text("hello%"), false),
        ("Hello_World", Ilike, text("hello%"), true),
        ("Hello_World", Like, text("Hello_World"), true),
        ("Hello World", Like, text("Hello_World"), true),
        ("a\nb", Like, text("a%b"), true),
        ("日本", Like, text("_本"), true),
        ("日本", Ilike, text("__"), true),
        ("a*b", Like, text("a*b"), true),
        ("axb", Like, text("a*b"), false),
        ("a[b]c", Like, text("a[b]c"), true),
        ("abc", Like, text("a[b]c"), false),
        ("a?", Like, text("a?"), true),
        ("ab", Like, text("a?"), false),
        (r"a\b", Like, text(r"a\b"), true),
        (r"a\%", Like, text(r"a\%"), true),
        (r"a\b", Ilike, text(r"A\%"), true),
        ("", Like, text(""), true),
        ("", Like, text("%"), true),
        ("a", In, list(&["b", "a"]), true),
        ("a", In, list(&["b"]), false),
        ("a", NotIn, list(&["b"]), true),
        ("a", In, Literal::List(Vec::new()), false),
        ("a", IsNull, Literal::None, false),
        ("a", IsNotNull, Literal::None, true),
        ("a", Comparator::Lt, list(&["b"]), false),
    ] {
        let said = holds(store, value.to_owned(), comparator, &literal).await;
        assert_eq!(said, Some(expected), "{value:?} {comparator} {literal:?}");
    }
}

#[tokio::test]
async fn numbers() {
    let store = &store().await;
    for (value, filter, expected) in [
        (5_i64, "start_time > 4", true),
        (5, "start_time >= 5", true),
        (5, "start_time < 4.5", false),
        (5, "start_time != 5", false),
        (9007199254740993, "start_time = 9007199254740993", true),
        (9007199254740993, "start_time = 9007199254740992", false),
        (5, "start_time < 99999999999999999999", true),
    ] {
        let comparator = parse_filter(Runs, filter).unwrap()[0].comparator;
        let said = holds(store, value, comparator, &number(Runs, filter)).await;
        assert_eq!(said, Some(expected), "{value} {filter}");
    }
    for (value, filter, expected) in [
        (0.25, "metrics.a >= .25", true),
        (0.25, "metrics.a > 1e-1", true),
        (f64::MAX, "metrics.a > 1e300", true),
        (f64::MAX, "metrics.a < 1e400", true),
        (3.0, "metrics.a = 3", true),
    ] {
        let comparator = parse_filter(Runs, filter).unwrap()[0].comparator;
        let said = holds(store, value, comparator, &number(Runs, filter)).await;
        assert_eq!(said, Some(expected), "{value} {filter}");
    }
}

/// Only IS NULL holds for a missing value.
#[tokio::test]
async fn nulls() {
    let store = &store().await;
    for text in ["a = 'x'", "a != 'x'", "a LIKE '%'", "a ILIKE '%'", "a IN ('x')", "a NOT IN ('x')"] {
        let clause = parse_filter(LoggedModels, &format!("tags.{text}")).unwrap().remove(0);
        assert_eq!(holds(store, None::<String>, clause.comparator, &clause.value).await, None, "{text}");
    }
    assert_eq!(holds(store, None::<String>, Comparator::IsNull, &Literal::None).await, Some(true));
    assert_eq!(holds(store, None::<String>, Comparator::IsNotNull, &Literal::None).await, Some(false));
}

/// The store accepts a filter at its limits.
#[tokio::test]
async fn the_store_accepts_a_filter_at_its_limits() {
    let store = &store().await;
    let mut query = store.query("WITH v(c) AS (SELECT 'x') SELECT count(*) FROM v WHERE 1 = 1");
    for _ in 0..MAX_CLAUSES {
        query.push(" AND EXISTS (SELECT 1 FROM v AS w WHERE ");
        push_comparison(&mut query, "w.c", Comparator::Like, &text("_"));
        query.push(")");
    }
    let count: i64 = store.answer(&mut query).await;
    assert_eq!(count, 1);
    let long = text(&"?".repeat(MAX_PATTERN_BYTES));
    assert_eq!(holds(store, "?".repeat(MAX_PATTERN_BYTES), Comparator::Like, &long).await, Some(true));
    let many = Literal::List((0..MAX_BYTES / 4).map(|n| n.to_string()).collect());
    assert_eq!(holds(store, "16383".to_owned(), Comparator::In, &many).await, Some(true));
    let wild = text(&"%a".repeat(MAX_PATTERN_BYTES / 2));
    assert_eq!(holds(store, "a".repeat(8_000), Comparator::Like, &wild).await, Some(false));
    assert_eq!(holds(store, "a".repeat(8_000), Comparator::Ilike, &wild).await, Some(false));
}

/// A reference implementation of LIKE.
fn like(pattern: &[char], text: &[char], same: fn(char, char) -> bool) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skipped| like(rest, &text[skipped..], same)),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(first, others)| (*wanted == '_' || same(*wanted, *first)) && like(rest, others, same)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn like_and_ilike_equal_the_reference(
        pairs in prop::collection::vec(("[abA%_*?\\[\\]^\\\\é-]{0,6}", "[abA%_*?\\[\\]^\\\\é-]{0,6}"), 64)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = &store().await;
            for (pattern, value) in pairs {
                let (p, v): (Vec<_>, Vec<_>) = (pattern.chars().collect(), value.chars().collect());
                let case = like(&p, &v, |a, b| a == b);
                let none = like(&p, &v, |a, b| a.eq_ignore_ascii_case(&b));
                let literal = text(&pattern);
                let said = holds(store, value.clone(), Comparator::Like, &literal).await;
                prop_assert_eq!(said, Some(case), "{:?} LIKE {:?} as {:?}", value, pattern, glob(&pattern));
                let said = holds(store, value.clone(), Comparator::Ilike, &literal).await;
                prop_assert_eq!(said, Some(none), "{:?} ILIKE {:?}", value, pattern);
            }
            Ok(())
        })?;
    }
}
