//! Generations: what the log says of them, and how a process keeps those of its own fold version.

mod fold;
mod follow;
mod keeper;
mod kept;
mod records;

pub use fold::{Generation, Generations};
pub use follow::{Changes, GenerationLog};
pub use keeper::{Keeper, KeeperStatus, Keepers, SharedStatus};
pub use kept::{FileCheck, Fill, Kept, Summary};
pub use records::{change_of, changed, claim};
