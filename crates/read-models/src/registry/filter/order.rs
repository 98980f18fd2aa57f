//! One term of an `order_by`: `name [ASC|DESC]`.

use super::attributes::{key_of, order_key, unquoted};
use super::parse::{Parser, Side, is_reserved};
use super::{Entity, GrammarError, Order, Target, check_text};

/// A term of an order. Logged models are ordered by `{"field_name", "ascending"}`: the term is
/// then the name of the field, and the caller sets the direction.
pub fn parse_order_by(target: Target, term: &str) -> Result<Order, GrammarError> {
    check_text("order_by clause", term)?;
    if target == Target::LoggedModels {
        let (entity, key) = field_name(term)?;
        return Ok(Order { entity, key, ascending: true });
    }
    let unparsed = || GrammarError::new(format!("Invalid order_by clause '{term}'. Could not be parsed."));
    let mut parser = Parser::new(term);
    if !parser.fills() {
        return Err(unparsed());
    }
    let name = match parser.operand() {
        Some(operand) if matches!(operand.side, Side::Name | Side::DoubleQuoted) => operand.text,
        // `timestamp` is reserved in filters only.
        None => parser.word().filter(|word| word.eq_ignore_ascii_case("timestamp")).ok_or_else(unparsed)?,
        Some(_) => return Err(unparsed()),
    };
    let ascending = if parser.ended() {
        true
    } else {
        let direction = parser.word().filter(|word| !is_reserved(word) || is_direction(word));
        let direction = direction.filter(|_| parser.ended()).ok_or_else(unparsed)?;
        if !is_direction(direction) {
            return Err(GrammarError::new(format!("Invalid ordering key in order_by clause '{term}'.")));
        }
        direction.eq_ignore_ascii_case("asc")
    };
    let (entity, key) = order_key(target, name)?;
    Ok(Order { entity, key, ascending })
}

fn is_direction(word: &str) -> bool {
    word.eq_ignore_ascii_case("asc") || word.eq_ignore_ascii_case("desc")
}

fn field_name(name: &str) -> Result<(Entity, String), GrammarError> {
    match name.split_once('.') {
        Some(("metrics", key)) => Ok((Entity::Metric, unquoted(key).to_owned())),
        Some(_) => Err(GrammarError::new(format!("Invalid order by field name: {name}. Only metrics are supported."))),
        None => key_of(Target::LoggedModels, name)
            .map(|key| (Entity::Attribute, key.name.to_owned()))
            .ok_or_else(|| GrammarError::new(format!("Invalid order by field name: {name}"))),
    }
}
