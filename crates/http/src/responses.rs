//! The error responses of the OpenAPI documents: one type per status. A handler lists the ones that it answers, as in
//! `responses((status = 200, body = Entity), responses::InvalidInput, responses::NotFound)`.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{Components, ComponentsBuilder, Schema};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema as _, ToSchema as _};

use crate::problem::{CONTENT_TYPE, Code, Problem};

fn error_response(code: Code) -> BTreeMap<String, RefOr<Response>> {
    let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
    let response = ResponseBuilder::new().description(code.title()).content(CONTENT_TYPE, content).build();
    BTreeMap::from([(code.status().as_str().to_owned(), RefOr::T(response))])
}

/// The schemas that the error responses refer to. The `path` macro does not collect them from [`IntoResponses`].
pub(crate) fn components() -> Components {
    let mut schemas: Vec<(String, RefOr<Schema>)> = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    ComponentsBuilder::new().schemas_from_iter(schemas).build()
}

macro_rules! error_responses {
    ($($code:ident),+ $(,)?) => {$(
        #[doc = concat!("The response of [`Code::", stringify!($code), "`].")]
        pub struct $code;

        impl IntoResponses for $code {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                error_response(Code::$code)
            }
        }
    )+};
}

error_responses!(InvalidInput, NotFound, Conflict, TooLarge, Unprocessable, Overloaded, Unavailable, DeadlineExceeded,);
