//! The input of a consume loop: decoded records of one topic, or of several.

use std::fmt::Debug;

// Code that the macro `feed!` generates refers to these types by this path.
pub use carbon_core::{Partitioner, Position};

use crate::codec::SchemaId;
use crate::decode::{DecodeError, Decoder, Poison, RawRecord, Recorded};
use crate::event::Event;

/// A decoded record of one or several topics.
pub trait Feed: Clone + Debug + Send + Sync + 'static {
    /// The topics of the feed.
    const TOPICS: &'static [&'static str];
    /// One decoder per topic.
    type Decoders: Send;

    /// Creates the decoders. `settings` returns a topic's number of partitions and its partitioner.
    fn decoders(settings: &dyn Fn(&'static str) -> (u32, Partitioner)) -> Self::Decoders;
    /// Decodes a record with the decoder of its topic ([`Decoder::decode`]).
    fn decode(decoders: &mut Self::Decoders, record: &RawRecord<'_>) -> Result<Self, DecodeError>;
    /// Caches a writer's schema for the decoder of this topic ([`Decoder::learn`]).
    fn learn(decoders: &mut Self::Decoders, topic: &str, id: SchemaId, json: Option<&str>);

    fn position(&self) -> &Position;
    /// The reason why the record is poison; `None` for other records.
    fn poison(&self) -> Option<&Poison>;
}

impl<E: Event> Feed for Recorded<E> {
    const TOPICS: &'static [&'static str] = &[E::NAME];
    type Decoders = Decoder<E>;

    fn decoders(settings: &dyn Fn(&'static str) -> (u32, Partitioner)) -> Decoder<E> {
        let (partitions, partitioner) = settings(E::NAME);
        Decoder::new(partitions, partitioner)
    }

    fn decode(decoder: &mut Decoder<E>, record: &RawRecord<'_>) -> Result<Self, DecodeError> {
        let body = decoder.decode(record)?;
        let traceparent = record.header("traceparent").and_then(|value| String::from_utf8(value.to_vec()).ok());
        Ok(Self { position: record.position.clone(), timestamp: record.timestamp, traceparent, body })
    }

    fn learn(decoder: &mut Decoder<E>, _: &str, id: SchemaId, json: Option<&str>) {
        decoder.learn(id, json);
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn poison(&self) -> Option<&Poison> {
        self.body.poison()
    }
}

/// Defines a feed of several topics: an enum with one variant per event, and the struct of its decoders.
#[macro_export]
macro_rules! feed {
    ($(#[$doc:meta])* $vis:vis enum $name:ident with $decoders:ident { $($variant:ident($event:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        $vis enum $name {
            $($variant($crate::Recorded<$event>)),+
        }

        #[doc = concat!("The decoders of [`", stringify!($name), "`].")]
        #[allow(non_snake_case)]
        $vis struct $decoders {
            $($variant: $crate::Decoder<$event>),+
        }

        impl $crate::Feed for $name {
            const TOPICS: &'static [&'static str] = &[$(<$event as $crate::Event>::NAME),+];
            type Decoders = $decoders;

            fn decoders(settings: &dyn Fn(&'static str) -> (u32, $crate::feed::Partitioner)) -> $decoders {
                $decoders { $($variant: <$crate::Recorded<$event> as $crate::Feed>::decoders(settings)),+ }
            }

            fn decode(
                decoders: &mut $decoders,
                record: &$crate::RawRecord<'_>,
            ) -> ::std::result::Result<Self, $crate::DecodeError> {
                match record.position.topic.as_str() {
                    $(<$event as $crate::Event>::NAME => {
                        $crate::Feed::decode(&mut decoders.$variant, record).map(Self::$variant)
                    })+
                    other => Err($crate::DecodeError::Newer {
                        position: record.position.clone(),
                        needs: format!("a program whose processor consumes {other}"),
                    }),
                }
            }

            fn learn(decoders: &mut $decoders, topic: &str, id: $crate::SchemaId, json: Option<&str>) {
                match topic {
                    $(<$event as $crate::Event>::NAME => decoders.$variant.learn(id, json),)+
                    _ => {}
                }
            }

            fn position(&self) -> &$crate::feed::Position {
                match self {
                    $(Self::$variant(record) => &record.position),+
                }
            }

            fn poison(&self) -> Option<&$crate::Poison> {
                match self {
                    $(Self::$variant(record) => record.body.poison()),+
                }
            }
        }
    };
}
