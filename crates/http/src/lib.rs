//! HTTP parts that both APIs share: problems, extractors, request ids, metrics, the OpenAPI documents, the server.

mod assemble;
mod common;
mod extract;
mod observe;
mod problem;
pub mod responses;
mod rewrite;
mod server;
mod trace;

pub use assemble::{Service, assemble};
pub use extract::{
    DEFAULT_BODY_LIMIT, JsonBody, LogPosition, Path, Query, ReadAfter, Tenant, content_type, from_json_object,
    read_body,
};
pub use observe::Context;
pub use problem::{Code, Problem, shorten};
pub use server::{Heartbeat, ServeError, bind, serve};
