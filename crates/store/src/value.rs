//! What a statement binds.

use std::borrow::Cow;

use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;

/// A value of a statement. Booleans are whole numbers in both stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null(Kind),
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// What a missing value would be: Postgres wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Real,
    Text,
    Bytes,
}

impl Value {
    pub(crate) fn bind_sqlite(self, arguments: &mut SqliteArguments) -> Result<(), BoxDynError> {
        match self {
            Value::Null(_) => arguments.add(None::<i64>),
            Value::Int(value) => arguments.add(value),
            Value::Real(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
        }
    }

    pub(crate) fn bind_postgres(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        match self {
            Value::Null(Kind::Int) => arguments.add(None::<i64>),
            Value::Null(Kind::Real) => arguments.add(None::<f64>),
            Value::Null(Kind::Text) => arguments.add(None::<String>),
            Value::Null(Kind::Bytes) => arguments.add(None::<Vec<u8>>),
            Value::Int(value) => arguments.add(value),
            Value::Real(value) => arguments.add(value),
            Value::Text(value) => arguments.add(escaped(&value).as_ref()),
            Value::Bytes(value) => arguments.add(value),
        }
    }
}

/// Postgres has no NUL in a text. U+10FFFF is no character, and stands before a `0` for it, and before a `1` for itself.
const ESCAPE: char = '\u{10FFFF}';

fn escaped(text: &str) -> Cow<'_, str> {
    match text.contains(['\0', ESCAPE]) {
        true => Cow::Owned(text.replace(ESCAPE, "\u{10FFFF}1").replace('\0', "\u{10FFFF}0")),
        false => Cow::Borrowed(text),
    }
}

pub(crate) fn unescaped(text: String) -> String {
    match text.contains(ESCAPE) {
        true => text.replace("\u{10FFFF}0", "\0").replace("\u{10FFFF}1", "\u{10FFFF}"),
        false => text,
    }
}

/// The same within JSON, where a NUL has another form.
pub(crate) fn json_unescaped(text: String) -> String {
    match text.contains(ESCAPE) {
        true => text.replace("\u{10FFFF}0", "\\u0000").replace("\u{10FFFF}1", "\u{10FFFF}"),
        false => text,
    }
}

/// What may be bound.
pub trait IntoValue {
    const KIND: Kind;
    fn into_value(self) -> Value;
}

macro_rules! into_value {
    ($($type:ty => $kind:ident, $value:ident => $made:expr;)*) => {
        $(impl IntoValue for $type {
            const KIND: Kind = Kind::$kind;
            fn into_value(self) -> Value {
                let $value = self;
                Value::$kind($made)
            }
        })*
    };
}

into_value! {
    i64 => Int, value => value;
    i32 => Int, value => value.into();
    bool => Int, value => value.into();
    f64 => Real, value => value;
    &str => Text, value => value.to_owned();
    &String => Text, value => value.clone();
    String => Text, value => value;
    &[u8] => Bytes, value => value.to_vec();
    Vec<u8> => Bytes, value => value;
}

impl<T: IntoValue> IntoValue for Option<T> {
    const KIND: Kind = T::KIND;
    fn into_value(self) -> Value {
        self.map_or(Value::Null(T::KIND), T::into_value)
    }
}

impl<T: Clone> IntoValue for &Option<T>
where
    T: IntoValue,
{
    const KIND: Kind = T::KIND;
    fn into_value(self) -> Value {
        self.clone().into_value()
    }
}

impl IntoValue for &i64 {
    const KIND: Kind = Kind::Int;
    fn into_value(self) -> Value {
        Value::Int(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_a_place_in_postgres() {
        for text in ["", "plain", "a\0b", "\u{10FFFF}", "\u{10FFFF}0", "\0\u{10FFFF}1\0", "ü\0"] {
            let there = escaped(text).into_owned();
            assert!(!there.contains('\0'));
            assert_eq!(unescaped(there), text);
        }
    }
}
