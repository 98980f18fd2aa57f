//! Checks the operator and the value of a comparison against its key. The messages are those of MLflow, including their
//! missing quotes.

use super::attributes::{Class, Subject, refuse, subject, unquoted};
use super::lex::{Kind, tokens};
use super::parse::{Comparison, Operand, Operator, Side, python_repr};
use super::{Clause, Comparator, Entity, GrammarError, Literal, MAX_PATTERN_BYTES, Number, Target};

/// The clause of a comparison.
pub(super) fn clause(target: Target, comparison: &Comparison<'_>) -> Result<Clause, GrammarError> {
    let Comparison { left, operator, right } = *comparison;
    if !matches!(left.side, Side::Name | Side::DoubleQuoted) {
        return refuse(format!("Invalid comparison clause. Expected 'Identifier' found '{}'", left.text));
    }
    let subject = subject(target, left.text)?;
    let (comparator, value) = match right {
        None => (subject.null_check(left, operator)?, Literal::None),
        // For logged models MLflow checks the operator before the value.
        Some(right) if target == Target::LoggedModels => {
            let comparator = subject.comparator(operator)?;
            (comparator, subject.value(right)?)
        }
        Some(right) => {
            let value = subject.value(right)?;
            (subject.comparator(operator)?, value)
        }
    };
    match (&value, comparator) {
        (Literal::List(_), Comparator::In | Comparator::NotIn) => {}
        (Literal::List(_), _) => {
            let text = right.map(|right| right.text).unwrap_or_default();
            return refuse(format!("Expected a quoted string value for attributes. Got value {text}"));
        }
        (Literal::Text(text), Comparator::Like | Comparator::Ilike) if text.len() > MAX_PATTERN_BYTES => {
            return refuse(format!(
                "Invalid pattern for '{}': it has {} bytes, at most {MAX_PATTERN_BYTES} are allowed.",
                subject.written,
                text.len()
            ));
        }
        _ => {}
    }
    Ok(Clause { entity: subject.entity, key: subject.name.to_owned(), comparator, value })
}

impl Subject<'_> {
    fn entity_name(&self) -> &'static str {
        match self.entity {
            Entity::Attribute => "attribute",
            Entity::Metric => "metric",
            Entity::Param => "parameter",
            Entity::Tag => "tag",
            Entity::Dataset => "dataset",
        }
    }

    fn null_check(&self, left: Operand<'_>, operator: Operator<'_>) -> Result<Comparator, GrammarError> {
        let (entity, written) = (self.entity_name(), self.written);
        match (self.target, self.class) {
            (Target::LoggedModels, _) => refuse(format!(
                "Invalid comparison: {}{}. Expected a comparison with 3 tokens.",
                left.text,
                operator.as_str()
            )),
            (_, Class::Optional) if operator == Operator::IsNull => Ok(Comparator::IsNull),
            (_, Class::Optional) => Ok(Comparator::IsNotNull),
            (Target::Runs, _) => refuse(format!(
                "IS NULL / IS NOT NULL is only supported for tags and params, not for '{entity}' '{written}'"
            )),
            _ => refuse(format!("IS NULL / IS NOT NULL is only supported for tags, not for {entity} '{written}'")),
        }
    }

    fn comparator(&self, operator: Operator<'_>) -> Result<Comparator, GrammarError> {
        use Comparator::{Eq, Ge, Gt, Ilike, In, Le, Like, Lt, Ne, NotIn};
        // Searches for experiments accept operators in upper case only.
        let any_case = self.target != Target::Experiments;
        let text = operator.as_str();
        let is = |comparator: &Comparator| {
            text == comparator.as_str() || (any_case && text.eq_ignore_ascii_case(comparator.as_str()))
        };
        let allowed: &[Comparator] = match self.class {
            Class::Float | Class::Time | Class::Integer | Class::Version => &[Eq, Ne, Lt, Le, Gt, Ge],
            Class::Text | Class::Optional => &[Eq, Ne, Like, Ilike],
            Class::Listed => &[Eq, Ne, Like, Ilike, In, NotIn],
            Class::ExperimentId => &[Eq, Ne, In, NotIn],
        };
        if let Some(comparator) = allowed.iter().copied().find(|comparator| is(comparator)) {
            return Ok(comparator);
        }
        let upper = text.to_uppercase();
        refuse(match (self.target, self.entity, self.class) {
            (Target::LoggedModels, entity, class) => {
                let entity = match entity {
                    Entity::Metric => "metrics",
                    Entity::Param => "params",
                    Entity::Tag => "tags",
                    _ => "attributes",
                };
                let expected = match class {
                    Class::Listed => "'=', '!=', 'LIKE', 'ILIKE', 'IN', 'NOT IN'",
                    _ => "'<', '<=', '>', '>=', '=', '!='",
                };
                let name = self.name;
                format!("Invalid comparison operator for {entity}.{name}: '{upper}'. Expected one of ({expected}).")
            }
            (_, Entity::Metric, _) => {
                format!("Invalid comparator '{text}' not one of '{{'<=', '!=', '>=', '<', '=', '>'}}")
            }
            (Target::Runs, Entity::Param | Entity::Tag, _) => format!(
                "Invalid comparator '{text}' not one of '{{'LIKE', 'ILIKE', '!=', '=', 'IS NULL', 'IS NOT NULL'}}'"
            ),
            (_, Entity::Tag, _) => format!("Invalid comparator for tag: {text}"),
            (_, _, Class::ExperimentId) => format!("Invalid comparator for experiment_id: {text}"),
            (_, _, Class::Version) => format!("Invalid comparator for attribute version_number: {upper}"),
            (Target::Runs | Target::Experiments, _, _) => {
                format!("Invalid comparator '{text}' not one of '{{'IN', '!=', 'NOT IN', '=', 'ILIKE', 'LIKE'}}'")
            }
            _ => format!("Invalid comparator for attribute: {text}"),
        })
    }

    fn value(&self, right: Operand<'_>) -> Result<Literal, GrammarError> {
        let text = right.text;
        let quoted = matches!(right.side, Side::SingleQuoted | Side::DoubleQuoted);
        match self.class {
            Class::Float | Class::Time | Class::Integer if right.side != Side::Number => {
                refuse(match (self.target, self.entity) {
                    (Target::LoggedModels, _) => format!("could not convert string to float: {}", python_repr(text)),
                    (_, Entity::Metric) => format!("Expected numeric value type for metric. Found {text}"),
                    _ => format!("Expected numeric value type for numeric attribute: {}. Found {text}", self.written),
                })
            }
            Class::Version if quoted => match unquoted(text).trim().parse() {
                Ok(version) => Ok(Literal::Number(self.number(version))),
                Err(_) => refuse(self.bad_integer(&format!("'{}'", unquoted(text)))),
            },
            Class::Float | Class::Time | Class::Integer | Class::Version if right.side == Side::Number => {
                self.numeric(text)
            }
            _ if right.side == Side::Name => refuse(format!(
                "Parameter value is either not quoted or unidentified quote types used for string value {text}. Use \
                 either single or double quotes."
            )),
            Class::ExperimentId if quoted => Ok(Literal::Text(experiment_id(unquoted(text))?)),
            Class::ExperimentId if right.side == Side::Group => {
                let ids = texts(text)?.iter().map(|id| experiment_id(id)).collect::<Result<_, _>>()?;
                Ok(Literal::List(ids))
            }
            Class::Listed if right.side == Side::Group => Ok(Literal::List(texts(text)?)),
            _ if quoted => Ok(Literal::Text(unquoted(text).to_owned())),
            // For logged models a number is accepted as a text.
            _ if self.target == Target::LoggedModels && right.side == Side::Number => {
                Ok(Literal::Text(text.to_owned()))
            }
            _ => refuse(self.not_quoted(right)),
        }
    }

    fn not_quoted(&self, right: Operand<'_>) -> String {
        let text = right.text;
        match (self.target, self.entity) {
            (_, Entity::Param | Entity::Tag) => {
                format!("Expected a quoted string value for {} (e.g. 'my-value'). Got value {text}", self.entity_name())
            }
            (_, Entity::Dataset) => format!("Expected a quoted string value for dataset attributes. Got value {text}"),
            (target, _) if right.side == Side::Group => {
                let listed = match target {
                    Target::Runs => "'run_id'",
                    Target::Experiments => "'experiment_id'",
                    _ => "'name', 'run_id'",
                };
                format!("Only [{listed}] attributes support comparison with a list of quoted string values.")
            }
            (Target::ModelVersions, _) if right.side == Side::Number => {
                "Only the '{'creation_timestamp', 'last_updated_timestamp', 'version_number'}' attributes support \
                 comparison with numeric values."
                    .to_owned()
            }
            (Target::RegisteredModels | Target::ModelVersions, _) => format!(
                "Expected a quoted string value or a list of quoted string values for attributes. Got value {text}"
            ),
            _ => format!("Expected a quoted string value for attributes. Got value {text}"),
        }
    }

    fn numeric(&self, text: &str) -> Result<Literal, GrammarError> {
        let Ok(value) = text.parse::<f64>() else {
            return refuse(format!("could not convert string to float: {}", python_repr(text)));
        };
        let integer = text.parse::<i64>().ok();
        match (self.class, integer) {
            (Class::Integer | Class::Version, Some(integer)) => Ok(Literal::Number(self.number(integer))),
            (Class::Integer, None) => refuse(self.bad_integer(&format!("'{text}'"))),
            (Class::Version, None) => refuse(self.bad_integer(text)),
            (class, integer) => {
                let integer = integer.filter(|_| class != Class::Float);
                Ok(Literal::Number(Number { text: text.to_owned(), value, integer }))
            }
        }
    }

    fn number(&self, integer: i64) -> Number {
        Number { text: integer.to_string(), value: integer as f64, integer: Some(integer) }
    }

    fn bad_integer(&self, value: &str) -> String {
        format!("Invalid value for numeric attribute '{}': {value}", self.written)
    }
}

/// An id as the text of an integer: `01` becomes `1`.
fn experiment_id(text: &str) -> Result<String, GrammarError> {
    match text.trim().parse::<i64>() {
        Ok(id) => Ok(id.to_string()),
        Err(_) => refuse(format!("Invalid experiment ID '{text}'. Experiment ID must be a valid integer.")),
    }
}

/// The texts of a list in parentheses.
fn texts(group: &str) -> Result<Vec<String>, GrammarError> {
    let inner = group.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(group);
    let (mut texts, mut all_text, mut well_formed, mut comma) = (Vec::new(), true, true, true);
    let mut printed = Vec::new();
    for token in tokens(inner) {
        let text = token.text(inner);
        match token.kind {
            Kind::Comma => {
                well_formed &= !comma;
                comma = true;
                continue;
            }
            Kind::Single | Kind::Double => {
                texts.push(unquoted(text).to_owned());
                printed.push(python_repr(unquoted(text)));
            }
            Kind::Number => {
                all_text = false;
                printed.push(text.to_owned());
            }
            _ => well_formed = false,
        }
        well_formed &= comma;
        comma = false;
    }
    const WHERE: &str = "While parsing a list in the query, expected";
    if !well_formed {
        return refuse(format!("{WHERE} a non-empty list of string values, but got ill-formed list."));
    }
    if !all_text {
        let only = if printed.len() == 1 { "," } else { "" };
        return refuse(format!(
            "{WHERE} string value, punctuation, or whitespace, but got different type in list: ({}{only})",
            printed.join(", ")
        ));
    }
    if texts.is_empty() {
        return refuse(format!("{WHERE} a non-empty list of string values, but got empty list"));
    }
    Ok(texts)
}
