//! The values that a statement binds.

use std::borrow::Cow;

use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;

/// A value of a statement. A boolean is an integer in both stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null(Kind),
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// The type of a value or a column. Postgres needs it for NULL too.
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

/// The escape character: a text of Postgres cannot contain NUL. U+10FFFF, which is no character, followed by `0` means
/// NUL, and followed by `1` means itself.
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

/// As [`unescaped`] for a text that is JSON, where NUL is `\u0000`.
pub(crate) fn json_unescaped(text: String) -> String {
    match text.contains(ESCAPE) {
        true => text.replace("\u{10FFFF}0", "\\u0000").replace("\u{10FFFF}1", "\u{10FFFF}"),
        false => text,
    }
}

/// A type that can be bound.
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
    fn every_text_comes_back_from_postgres() {
        for text in ["", "plain", "a\0b", "\u{10FFFF}", "\u{10FFFF}0", "\0\u{10FFFF}1\0", "ü\0"] {
            let stored = escaped(text).into_owned();
            assert!(!stored.contains('\0'));
            assert_eq!(unescaped(stored), text);
        }
    }
}
