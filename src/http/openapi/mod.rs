//! Routes and their documentation in one: a route is registered together with what it takes and
//! answers, and the OpenAPI document is put together from what was registered.
//!
//! What clients can call is registered through [`ApiRouter`] alone; a lint refuses axum's own way.

pub mod document;
pub mod operation;
pub mod page;
pub mod schema;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};

pub use self::document::{Described, Document};
pub use self::operation::{Declared, Input, Operation, input, limit};

/// A router whose routes are documented.
#[must_use]
pub struct ApiRouter<S = ()> {
    router: Router<S>,
    described: Described,
}

impl<S: Clone + Send + Sync + 'static> Default for ApiRouter<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// A method for each verb.
macro_rules! verbs {
    ($($name:ident $filter:ident $doc:literal)*) => {
        $(
            #[doc = $doc]
            pub fn $name<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
            where
                H: Handler<T, S>,
                T: 'static,
            {
                self.route(stringify!($name), path, on(MethodFilter::$filter, handler), operation)
            }
        )*
    };
}

impl<S: Clone + Send + Sync + 'static> ApiRouter<S> {
    /// Without routes.
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            described: Described::default(),
        }
    }

    verbs! {
        get GET "A route for `GET`, which answers `HEAD` as well."
        post POST "A route for `POST`."
        put PUT "A route for `PUT`."
        patch PATCH "A route for `PATCH`."
        delete DELETE "A route for `DELETE`."
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what is registered here is documented"
    )]
    fn route(
        mut self,
        verb: &'static str,
        path: &str,
        mut handler: MethodRouter<S>,
        operation: Operation,
    ) -> Self {
        if cfg!(debug_assertions) {
            handler = handler.layer(Extension(operation.declared()));
        }
        self.router = self.router.route(path, handler);
        self.described.add(verb, path.to_owned(), operation);
        self
    }

    /// The router changed as a whole: layers, fallbacks, state.
    pub fn map<S2>(self, change: impl FnOnce(Router<S>) -> Router<S2>) -> ApiRouter<S2> {
        ApiRouter {
            router: change(self.router),
            described: self.described,
        }
    }

    /// Its routes under a path.
    pub fn under(self, base: &str) -> Self {
        Self {
            router: Router::new().nest(base, self.router),
            described: self.described.under(base),
        }
    }

    /// Its routes under several paths, of which the first is the one that is documented: under the
    /// others a gateway finds them.
    pub fn under_each(self, bases: &[&str]) -> Self {
        let mut router = Router::new();
        for base in bases {
            router = router.nest(base, self.router.clone());
        }
        Self {
            router,
            described: self.described.under(bases.first().unwrap_or(&"")),
        }
    }

    /// Both routers' routes.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.described = self.described.and(other.described);
        self
    }

    /// The router, and what its routes take and answer.
    pub fn into_parts(self) -> (Router<S>, Described) {
        (self.router, self.described)
    }
}
