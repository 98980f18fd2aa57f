mod cases;
mod sql;

use proptest::prelude::*;

use super::Target::{Experiments, LoggedModels, ModelVersions, RegisteredModels, Runs};
use super::*;

const TARGETS: [Target; 5] = [Runs, Experiments, RegisteredModels, ModelVersions, LoggedModels];

/// Answers that differ from MLflow's parser: our README documents another answer, or MLflow's server rejects what its
/// parser accepts.
#[rustfmt::skip]
const EXCEPTIONS: &[(Target, &str, Result<&str, &str>)] = &[
    // Operators that the README does not list; MLflow's server rejects them too.
    (Runs, "metrics.acc == 1", Err("Invalid comparator '==' not one of '{'<=', '!=', '>=', '<', '=', '>'}")),
    (Runs, "metrics.acc <> 1", Err("Invalid comparator '<>' not one of '{'<=', '!=', '>=', '<', '=', '>'}")),
    (Runs, "params.x NOT LIKE 'a'", Err("Invalid comparator 'NOT LIKE' not one of '{'LIKE', 'ILIKE', '!=', '=', 'IS NULL', 'IS NOT NULL'}'")),
    (Experiments, "name > 'a'", Err("Invalid comparator '>' not one of '{'IN', '!=', 'NOT IN', '=', 'ILIKE', 'LIKE'}'")),
    (RegisteredModels, "name > 'x'", Err("Invalid comparator for attribute: >")),
    // The README documents it for tags of every target; MLflow's server answers 500.
    (RegisteredModels, "tags.k IS NULL", Ok("tag k IS NULL")),
    // An integer, like the column.
    (ModelVersions, "version_number = '1'", Ok("attribute version_number = 1")),
    // The README strips the quotes of every string; MLflow keeps double quotes here.
    (LoggedModels, "name = \"m\"", Ok("attribute name = 'm'")),
    // The README accepts a plus in an exponent.
    (Runs, "metrics.a > 1e+5", Ok("metric a > 1e+5")),
    // The README accepts quoted keys for every target.
    (RegisteredModels, "`name` = 'x'", Ok("attribute name = 'x'")),
    // The README accepts any word as a key; MLflow fails for some.
    (Runs, "params.from = 'x'", Ok("parameter from = 'x'")),
    // The README resolves no escapes; MLflow reads lists as Python does.
    (Runs, r"run_id IN ('it''s', 'a\'b')", Ok(r"attribute run_id IN ('it''s', 'a\'b')")),
];

/// The same for orders: terms that MLflow's parser accepts and its server rejects.
const ORDER_EXCEPTIONS: &[(Target, &str, Result<&str, &str>)] = &[
    (Runs, "dataset.name", Err("Invalid identifier type 'dataset'")),
    (Experiments, "tags.a", Err("Invalid order_by entity: tag")),
    (
        ModelVersions,
        "tags.a",
        Err("Invalid order by key 'a' specified. Valid keys are {'version_number', 'last_updated_timestamp', \
             'creation_timestamp', 'name'}"),
    ),
];

fn entity(entity: Entity) -> &'static str {
    match entity {
        Entity::Attribute => "attribute",
        Entity::Metric => "metric",
        Entity::Param => "parameter",
        Entity::Tag => "tag",
        Entity::Dataset => "dataset",
    }
}

/// A clause as a readable text.
fn show(clause: &Clause) -> String {
    let value = match &clause.value {
        Literal::Text(text) => format!(" '{text}'"),
        Literal::Number(number) => format!(" {}", number.text),
        Literal::List(texts) => {
            format!(" ({})", texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(", "))
        }
        Literal::None => String::new(),
    };
    format!("{} {} {}{value}", entity(clause.entity), clause.key, clause.comparator)
}

fn filter(target: Target, text: &str) -> Result<String, String> {
    match parse_filter(target, text) {
        Ok(clauses) => Ok(clauses.iter().map(show).collect::<Vec<_>>().join("; ")),
        Err(error) => Err(error.to_string()),
    }
}

fn order(target: Target, term: &str) -> Result<String, String> {
    match parse_order_by(target, term) {
        Ok(Order { entity: of, key, ascending }) => {
            Ok(format!("{} {key} {}", entity(of), if ascending { "ASC" } else { "DESC" }))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The recorded messages are truncated to this length.
const PROBED: usize = 160;

fn check(said: impl Fn(Target, &str) -> Result<String, String>, cases: &[(Target, &str, Result<&str, &str>)]) {
    for (target, text, expected) in cases {
        let said = said(*target, text);
        let same = match (&said, expected) {
            (Ok(said), Ok(expected)) => said == expected,
            (Err(said), Err(expected)) => said == expected || (expected.len() >= PROBED && said.starts_with(expected)),
            _ => false,
        };
        assert!(same, "{target:?} {text:?}\n said {said:?}\n not  {expected:?}");
    }
}

#[test]
fn filters_are_read_as_mlflow_reads_them() {
    check(filter, cases::FILTERS);
    check(filter, EXCEPTIONS);
}

#[test]
fn orders_are_read_as_mlflow_reads_them() {
    check(order, cases::ORDERS);
    check(order, ORDER_EXCEPTIONS);
}

#[rustfmt::skip]
#[test]
fn shapes_that_are_not_recorded() {
    check(filter, &[
        (Runs, "metrics.a > 1 metrics.b > 2", Ok("metric a > 1; metric b > 2")),
        (Runs, "AND AND", Ok("")),
        (Runs, "tag.a='x'and tag.b='y'", Ok("tag a = 'x'; tag b = 'y'")),
        (Runs, r"params.a = 'C:\'", Ok(r"parameter a = 'C:\'")),
        (Runs, "params.a = ''''", Ok("parameter a = ''''")),
        (Runs, "params.a = '''", Err("Invalid clause(s) in filter string: '''")),
        (Runs, "params.a = 'b", Err("Invalid clause(s) in filter string: 'params.a', '=', ''', 'b'")),
        (Runs, "params.a = \"it's\" AND status = \"x\"", Ok("parameter a = 'it's'; attribute status = 'x'")),
        (Runs, "metrics.'a b' > 1", Ok("metric a b > 1")),
        (Runs, "metrics.a.`b` > 1", Ok("metric a.`b` > 1")),
        (Runs, "metrics.`a.b` > 5.", Ok("metric a.b > 5.")),
        (Runs, "metrics.a > 5.e3", Err("Invalid clause(s) in filter string: '.', 'e3'")),
        (Runs, "metrics.a > 1-1", Err("Invalid clause(s) in filter string: '-1'")),
        (Runs, "metrics.a > --5", Err("Invalid clause(s) in filter string: 'metrics.a', '>', '--5'")),
        (Runs, "metrics.1.2 > 3", Err("Invalid clause(s) in filter string: 'metrics', '.1'")),
        (Runs, "params.a ! = 'x'", Err("Invalid clause(s) in filter string: 'params.a', '!', '=', ''x''")),
        (Runs, "params.a => 'x'", Err("Invalid comparator '=>' not one of '{'LIKE', 'ILIKE', '!=', '=', 'IS NULL', 'IS NOT NULL'}'")),
        (Runs, "params.a > 'x'", Err("Invalid comparator '>' not one of '{'LIKE', 'ILIKE', '!=', '=', 'IS NULL', 'IS NOT NULL'}'")),
        (Runs, "(params.a) = 'x'", Err("Invalid comparison clause. Expected 'Identifier' found '(params.a)'")),
        (Runs, "((params.a = 'x')", Err("Invalid clause(s) in filter string: '(', '(params.a = 'x')'")),
        (Runs, "params.a = NULL", Err("Expected a quoted string value for parameter (e.g. 'my-value'). Got value NULL")),
        (Runs, "order = 'x'", Err("Invalid clause(s) in filter string: 'order', '=', ''x''")),
        (Runs, "run_id = ('x')", Err("Expected a quoted string value for attributes. Got value ('x')")),
        (Runs, "run_id IN ('x',)", Ok("attribute run_id IN ('x')")),
        (Runs, "run_id IN ('x' 'y')", Err("While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list.")),
        (Runs, "run_id IN ('x', 1)", Err("While parsing a list in the query, expected string value, punctuation, or whitespace, but got different type in list: ('x', 1)")),
        (Runs, ";", Err("Invalid clause(s) in filter string: ';'")),
        (Runs, "a;\"'\"", Err(r#"Search filter contained multiple expression 'a;"\'"'. Provide AND-ed expression list."#)),
        (Runs, " ", Err("Invalid filter ' '. Could not be parsed.")),
        (Runs, "params.a = '\0'", Err("Invalid filter: it contains a NUL character.")),
        (Experiments, "name like 'x'", Err("Invalid comparator 'like' not one of '{'IN', '!=', 'NOT IN', '=', 'ILIKE', 'LIKE'}'")),
        (Experiments, "tags.a like 'x'", Err("Invalid comparator for tag: like")),
        (Experiments, "name IS NULL", Err("IS NULL / IS NOT NULL is only supported for tags, not for attribute 'name'")),
        (Experiments, "creation_time = 5.0", Err("Invalid value for numeric attribute 'creation_time': '5.0'")),
        (Experiments, "experiment_id in ('1')", Err("Invalid comparator for experiment_id: in")),
        (Experiments, "experiment_id not in ('01')", Ok("attribute experiment_id NOT IN ('1')")),
        (Experiments, "experiment_id = 'x'", Err("Invalid experiment ID 'x'. Experiment ID must be a valid integer.")),
        (Experiments, "(name = 'x')", Err("Invalid clause(s) in filter string: (name = 'x')")),
        (RegisteredModels, "name = 1", Err("Expected a quoted string value or a list of quoted string values for attributes. Got value 1")),
        (RegisteredModels, "attributes.name = 'x'", Err("Invalid entity type 'attributes'. Valid entity types are ('attribute', 'tag', 'tags')")),
        (ModelVersions, "version_number = 1.5", Err("Invalid value for numeric attribute 'version_number': 1.5")),
        (ModelVersions, "version_number = 'x'", Err("Invalid value for numeric attribute 'version_number': 'x'")),
        (ModelVersions, "version_number LIKE 1", Err("Invalid comparator for attribute version_number: LIKE")),
        (ModelVersions, "name = 1", Err("Only the '{'creation_timestamp', 'last_updated_timestamp', 'version_number'}' attributes support comparison with numeric values.")),
        (LoggedModels, "metrics.a == 5", Err("Invalid comparison operator for metrics.a: '=='. Expected one of ('<', '<=', '>', '>=', '=', '!=').")),
        (LoggedModels, "metrics.a > 'x'", Err(r#"could not convert string to float: "'x'""#)),
        (LoggedModels, "params.a = 1", Ok("parameter a = '1'")),
        (LoggedModels, "tags.a not in ('x')", Ok("tag a NOT IN ('x')")),
        (LoggedModels, "name='x'; name='y'", Err(r#"Invalid filter string: "name='x'; name='y'". Expected a single SQL expression."#)),
    ]);
    check(order, &[
        (Runs, "metrics.a-b", Err("Invalid order_by clause 'metrics.a-b'. Could not be parsed.")),
        (Runs, " run_id", Err("Invalid order_by clause ' run_id'. Could not be parsed.")),
        (Runs, "metrics.desc desc", Ok("metric desc DESC")),
        (Runs, "tags.`a DESC` ASC", Ok("tag a DESC ASC")),
        (Runs, "DESC", Err("Invalid order_by clause 'DESC'. Could not be parsed.")),
        (Runs, "PARAMS.a", Err("Invalid entity type 'PARAMS'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']")),
        (RegisteredModels, "attribute.name", Err("Invalid order by key 'attribute.name' specified. Valid keys are '{'timestamp', 'name'}'")),
        (LoggedModels, "metrics.acc", Ok("metric acc ASC")),
        (LoggedModels, "creation_time", Ok("attribute creation_timestamp_ms ASC")),
        (LoggedModels, "params.a", Err("Invalid order by field name: params.a. Only metrics are supported.")),
        (LoggedModels, "foo", Err("Invalid order by field name: foo")),
    ]);
}

/// The operators that each key accepts; all others are rejected.
#[test]
fn operators_of_each_key() {
    const NUMERIC: &[&str] = &["=", "!=", "<", "<=", ">", ">="];
    const TEXT: &[&str] = &["=", "!=", "LIKE", "ILIKE"];
    const LISTED: &[&str] = &["=", "!=", "LIKE", "ILIKE", "IN", "NOT IN"];
    const OPTIONAL: &[&str] = &["=", "!=", "LIKE", "ILIKE", "IS NULL", "IS NOT NULL"];
    const ID: &[&str] = &["=", "!=", "IN", "NOT IN"];
    let keys: &[(Target, &str, &[&str])] = &[
        (Runs, "metrics.a start_time end_time created Created", NUMERIC),
        (Runs, "params.a tags.a", OPTIONAL),
        (Runs, "status user_id run_name `Run Name` artifact_uri", TEXT),
        (Runs, "run_id datasets.name datasets.digest datasets.context", LISTED),
        (Experiments, "creation_time last_update_time", NUMERIC),
        (Experiments, "name", TEXT),
        (Experiments, "experiment_id", ID),
        (Experiments, "tags.a", OPTIONAL),
        (RegisteredModels, "name", LISTED),
        (RegisteredModels, "tags.a", OPTIONAL),
        (ModelVersions, "name run_id", LISTED),
        (ModelVersions, "source_path", TEXT),
        (ModelVersions, "version_number", NUMERIC),
        (ModelVersions, "tags.a", OPTIONAL),
        (LoggedModels, "name model_id status model_type source_run_id experiment_id params.a tags.a", LISTED),
        (LoggedModels, "metrics.a creation_timestamp last_updated_timestamp", NUMERIC),
    ];
    let operators = [
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "==",
        "<>",
        "LIKE",
        "ILIKE",
        "NOT LIKE",
        "NOT ILIKE",
        "IN",
        "NOT IN",
        "IS NULL",
        "IS NOT NULL",
    ];
    for (target, keys, allowed) in keys {
        for key in keys.replace("`Run Name`", "`Run\u{a0}Name`").split(' ') {
            let key = key.replace('\u{a0}', " ");
            for operator in operators {
                let value = match (operator, *allowed == NUMERIC) {
                    ("IS NULL" | "IS NOT NULL", _) => "",
                    ("IN" | "NOT IN", _) => "('1')",
                    (_, true) => "1",
                    (_, false) => "'1'",
                };
                let text = format!("{key} {operator} {value}");
                let said = parse_filter(*target, &text);
                assert_eq!(said.is_ok(), allowed.contains(&operator), "{target:?} {text}: {said:?}");
                if let Ok(clauses) = said {
                    assert_eq!(clauses[0].comparator.as_str(), operator, "{text}");
                }
            }
        }
    }
}

#[test]
fn integers_stay_integers_except_for_metrics() {
    let number = |text| match parse_filter(Runs, text).unwrap().remove(0).value {
        Literal::Number(number) => (number.value, number.integer),
        other => panic!("{other:?}"),
    };
    assert_eq!(number("start_time > 9007199254740993"), (9007199254740992.0, Some(9007199254740993)));
    assert_eq!(number("start_time > 1.5"), (1.5, None));
    assert_eq!(number("start_time > 99999999999999999999"), (1e20, None));
    assert_eq!(number("metrics.a > -3"), (-3.0, None));
    assert_eq!(number("metrics.a > 1e400"), (f64::INFINITY, None));
}

#[test]
fn texts_beyond_a_limit_are_rejected() {
    let clauses = |count| vec!["params.a = 'x'"; count].join(" AND ");
    assert_eq!(parse_filter(Runs, &clauses(MAX_CLAUSES)).unwrap().len(), MAX_CLAUSES);
    assert_eq!(
        filter(Runs, &clauses(MAX_CLAUSES + 1)).unwrap_err(),
        "Invalid filter: it has 501 clauses, at most 500 are allowed."
    );
    assert_eq!(
        filter(Runs, &" ".repeat(MAX_BYTES + 1)).unwrap_err(),
        "Invalid filter: it has 65537 bytes, at most 65536 are allowed."
    );
    assert!(order(Runs, &"a".repeat(MAX_BYTES + 1)).unwrap_err().starts_with("Invalid order_by clause: it has"));
    let pattern = |bytes| format!("params.a LIKE '{}'", "%".repeat(bytes));
    assert!(parse_filter(Runs, &pattern(MAX_PATTERN_BYTES)).is_ok());
    assert!(parse_filter(Runs, &pattern(MAX_PATTERN_BYTES + 1)).is_err());
    // Long messages are truncated.
    assert!(filter(Runs, &"é".repeat(30_000)).unwrap_err().len() < 5_000);
}

/// Some of these would take minutes if the parser were quadratic.
#[test]
fn no_text_takes_long() {
    let units = [
        "(", ")", "()", "'", "''", "\\'", "\"", "`", "``", "/*", "*/", "--", "#", "-", "-1", ".", "1.", "1e", "a.",
        "a-", "a,", "NOT ", "IS NOT ", "AND ", "=", "a = ", "a in (", "('a',", ";", "é", "a=1 ", "(('a')", "'\\",
        "`'\"",
    ];
    for unit in units {
        let text = unit.repeat(MAX_BYTES / unit.len() - 20);
        let list = format!("name IN ({text})");
        for target in [Runs, LoggedModels] {
            for text in [&text, &list] {
                let started = std::time::Instant::now();
                let _ = parse_filter(target, text);
                let _ = parse_order_by(target, text);

                assert!(started.elapsed().as_secs() < 10, "{unit:?}: {:?}", started.elapsed());
            }
        }
    }
}

/// A text that a key or a value may contain between quotes of this kind.
fn between(quote: char) -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_ .%*?()=;,ü日/-]{1,12}".prop_map(move |text| text.replace(quote, ""))
}

fn clause() -> impl Strategy<Value = (Target, Clause)> {
    use Comparator::{Eq, Ge, Gt, Ilike, In, IsNotNull, IsNull, Le, Like, Lt, Ne, NotIn};
    let entity = prop::sample::select(vec![Entity::Metric, Entity::Param, Entity::Tag]);
    let texts = prop::collection::vec(between('\''), 1..4);
    let numeric = prop::sample::select(vec![Eq, Ne, Lt, Le, Gt, Ge]);
    let text = prop::sample::select(vec![Eq, Ne, Like, Ilike]);
    let listed = prop::sample::select(vec![In, NotIn]);
    let null = prop::sample::select(vec![IsNull, IsNotNull]);
    let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), (-1e9..1e9f64).prop_map(|n| n.to_string())];
    (entity, between('`'), (numeric, text, listed, null), number, texts, 0..3u8).prop_map(
        |(entity, key, (numeric, text, listed, null), number, texts, shape)| {
            let clause = |comparator, value| Clause { entity, key: key.clone(), comparator, value };
            match (entity, shape) {
                (Entity::Metric, _) => {
                    let value = number.parse().unwrap();
                    (Runs, clause(numeric, Literal::Number(Number { text: number, value, integer: None })))
                }
                (_, 0) => (Runs, clause(text, Literal::Text(texts[0].clone()))),
                (_, 1) => (Runs, clause(null, Literal::None)),
                (_, _) => (LoggedModels, clause(listed, Literal::List(texts))),
            }
        },
    )
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*|[a-z.`'\" ()=<>!,;0-9\\\\*/-]*") {
        for target in TARGETS {
            let _ = parse_filter(target, &text);
            let _ = parse_order_by(target, &text);
        }
    }

    #[test]
    fn no_sequence_of_pieces_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "metrics", "params", ".", "a", "`b c`", "'x'", "\"y\"", "1", "-1.5e3", "=", "!=", "<", "LIKE", "NOT", "IN", "IS",
        "NULL", "(", ")", ",", "AND", "run_id", ";", "--", " ", "'", "\\", "version_number", "name", "desc", "é",
    ]), 0..24)) {
        let text = pieces.concat();
        for target in TARGETS {
            let _ = parse_filter(target, &text);
            let _ = parse_order_by(target, &text);
        }
    }

    #[test]
    fn a_written_clause_is_parsed_again((target, clause) in clause(), and in "( AND | and |\tAnd\n)") {
        let shown = show(&clause);
        let named = format!("{} {}", entity(clause.entity), clause.key);
        let (_, rest) = shown.split_at(named.len());
        let entity = match clause.entity {
            Entity::Metric => "metrics",
            Entity::Param => "params",
            _ => "tags",
        };
        let text = format!("{entity}.`{}`{rest}", clause.key);
        prop_assert_eq!(parse_filter(target, &text).unwrap(), vec![clause.clone()]);
        let twice = format!("{text}{and}{text}");
        prop_assert_eq!(parse_filter(target, &twice).unwrap(), vec![clause.clone(), clause]);
    }
}
