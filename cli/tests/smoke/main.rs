//! The built program, as a shell runs it.

#![allow(clippy::unwrap_used)]

mod eval;
mod events;
mod local;
mod services;
mod support;
