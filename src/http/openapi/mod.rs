//! Registers routes together with their documentation, from which the OpenAPI document is built.
//!
//! All routes for clients must be registered through [`ApiRouter`]. A lint forbids axum's own
//! methods.

pub mod document;
pub mod operation;
pub mod page;
pub mod schema;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};

pub use self::document::{Described, Document};
pub use self::operation::{Declared, Input, Operation, input, limit};

/// A router whose routes are all documented.
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

/// Defines a registration method for each HTTP method.
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
    /// Creates a router without routes.
    pub fn new() -> Self {
        Self {
            router: Router::new(),
            described: Described::default(),
        }
    }

    verbs! {
        get GET "Adds a route for `GET`, which also handles `HEAD`."
        post POST "Adds a route for `POST`."
        put PUT "Adds a route for `PUT`."
        patch PATCH "Adds a route for `PATCH`."
        delete DELETE "Adds a route for `DELETE`."
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "routes registered here are documented"
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

    /// Transforms the inner router as a whole, for example to add layers, fallbacks or state.
    pub fn map<S2>(self, change: impl FnOnce(Router<S>) -> Router<S2>) -> ApiRouter<S2> {
        ApiRouter {
            router: change(self.router),
            described: self.described,
        }
    }

    /// Nests all routes under a path.
    pub fn under(self, base: &str) -> Self {
        Self {
            router: Router::new().nest(base, self.router),
            described: self.described.under(base),
        }
    }

    /// Nests all routes under several paths. Only the first path is documented; gateways use the
    /// others.
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

    /// Adds the routes of another router.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.described = self.described.and(other.described);
        self
    }

    /// Returns the router and the documentation of its routes.
    pub fn into_parts(self) -> (Router<S>, Described) {
        (self.router, self.described)
    }
}
