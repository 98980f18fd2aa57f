//! `catalog`: the read model of entities, by their last record.

mod fold;
mod queries;
mod tables;

pub use fold::Catalog;
pub use queries::{Item, ItemState, get};
