//! Identifier types. Each has a grammar, and a value of the type always matches it.

use std::fmt;

use uuid::Uuid;

use crate::tenant::TenantId;

/// The error of a string that does not match the grammar of an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: it must match {grammar}")]
pub struct IdError {
    pub what: &'static str,
    pub value: String,
    pub grammar: &'static str,
}

pub(crate) fn check(
    value: &str,
    what: &'static str,
    grammar: &'static str,
    max: usize,
    allowed: fn(u8) -> bool,
) -> Result<(), IdError> {
    if !value.is_empty() && value.len() <= max && value.bytes().all(allowed) {
        return Ok(());
    }
    let value = value.chars().take(80).collect();
    Err(IdError { what, value, grammar })
}

fn entity_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}

/// Declares a string type whose values match a grammar.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $grammar:literal, $max:literal, $allowed:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            pub fn parse(value: &str) -> Result<Self, $crate::IdError> {
                $crate::ids::check(value, $what, $grammar, $max, $allowed)?;
                Ok(Self(value.into()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = $crate::IdError;
            fn try_from(value: String) -> Result<Self, $crate::IdError> {
                Self::parse(&value)
            }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::IdError;
            fn from_str(value: &str) -> Result<Self, $crate::IdError> {
                Self::parse(value)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use identifier;

identifier!(
    /// The kind of an entity: `instrument`, `curve`, `scenario` …
    EntityType, "entity_type", "^[a-zA-Z0-9_.-]{1,255}$", 255, entity_byte
);
identifier!(
    /// The id of an entity, unique within its tenant and type: `NG_HH_BALMO`.
    EntityId, "entity_id", "^[a-zA-Z0-9_.-]{1,255}$", 255, entity_byte
);

/// The key of an entity. Its text form, `tenant/type/id`, is the key of the entity's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    pub tenant: TenantId,
    pub entity_type: EntityType,
    pub entity_id: EntityId,
}

impl EntityKey {
    pub fn parse(tenant: &str, entity_type: &str, entity_id: &str) -> Result<Self, IdError> {
        Ok(Self {
            tenant: TenantId::parse(tenant)?,
            entity_type: EntityType::parse(entity_type)?,
            entity_id: EntityId::parse(entity_id)?,
        })
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.entity_type, self.entity_id)
    }
}

/// The id of an HTTP request: from the header `X-Request-Id`, else generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Returns the event id that is derived from the parts (law 11): a UUIDv5, so a repeated event has the id of the first.
pub fn derived_id(parts: &[&str]) -> Uuid {
    // Changing this namespace changes every derived id.
    const NAMESPACE: Uuid = Uuid::from_u128(0x6f1f_6c9a_3d0b_5a0e_9c55_2b7d_41ce_a801);
    Uuid::new_v5(&NAMESPACE, parts.join("\u{1f}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_outside_the_grammar_are_rejected() {
        assert!(EntityId::parse("NG_HH.BALMO-1").is_ok());
        for bad in ["", "a/b", "a b", "é", &"x".repeat(256)] {
            assert!(EntityId::parse(bad).is_err(), "{bad}");
        }
        assert!(TenantId::parse("a.b").is_err());
        assert!(TenantId::parse(&"x".repeat(101)).is_err());
    }

    #[test]
    fn law_11_derived_ids_repeat_and_do_not_collide_by_joining() {
        assert_eq!(derived_id(&["a", "b"]), derived_id(&["a", "b"]));
        assert_ne!(derived_id(&["a", "b"]), derived_id(&["ab"]));
        assert_ne!(derived_id(&["a", "bc"]), derived_id(&["ab", "c"]));
    }
}
