//! `catalog`: the entities as they are now.

mod fold;
mod queries;
mod tables;

pub use fold::Catalog;
pub use queries::{Item, ItemState, get};
