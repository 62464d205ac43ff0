//! Registers the routes of a feature: method, path, handler, documentation and class, once each.
//!
//! The router, the OpenAPI document and the rate limits are derived from this registration. A
//! handler that is registered here never runs before its [`Guard`].

use std::marker::PhantomData;
use std::pin::Pin;

use axum::extract::{FromRef, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::response::Response;

use super::class::{Class, of_unmatched};
use super::guard::Guard;
use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::http::middleware::method_not_allowed;
use crate::http::openapi::{ApiRouter, Operation};

/// The routes of a feature with the state `S` and the classes `C`.
#[must_use]
pub struct Routes<S, C> {
    routes: ApiRouter<S>,
    classes: PhantomData<C>,
}

impl<S: Clone + Send + Sync + 'static, C> Default for Routes<S, C> {
    fn default() -> Self {
        Self {
            routes: ApiRouter::new(),
            classes: PhantomData,
        }
    }
}

/// Defines a method for each HTTP method.
macro_rules! verbs {
    ($($name:ident $doc:literal)*) => {
        $(
            #[doc = $doc]
            pub fn $name<H, T>(self, path: &str, handler: H, operation: Operation, class: C) -> Self
            where
                H: Handler<T, S>,
                T: 'static,
            {
                let handler = Guarded { handler, cost: Cost::Class(class) };
                Self { routes: self.routes.$name(path, handler, operation), ..self }
            }
        )*
    };
}

impl<S, C> Routes<S, C>
where
    S: Clone + Send + Sync + 'static,
    C: Class,
    Guard<C>: FromRef<S>,
{
    verbs! {
        get "Registers a route for `GET`, which also responds to `HEAD`."
        post "Registers a route for `POST`."
        put "Registers a route for `PUT`."
        patch "Registers a route for `PATCH`."
        delete "Registers a route for `DELETE`."
    }

    /// Registers a route for `GET` on a path that is not limited for signed-in users, whatever the
    /// method.
    pub fn get_unlimited<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let cost = Cost::<C>::Nothing;
        let route = ApiRouter::new()
            .get(path, Guarded { handler, cost }, operation)
            .map(|route| {
                let handler = method_not_allowed;
                route.method_not_allowed_fallback(Guarded { handler, cost })
            });
        Self {
            routes: self.routes.merge(route),
            ..self
        }
    }

    /// Returns the router. It also responds to unknown paths and methods. Such requests are limited
    /// by their method, because they cost the server about as much as requests to existing routes.
    pub fn into_router(self) -> ApiRouter<S> {
        self.routes.map(|routes| {
            let cost = Cost::<C>::OfMethod;
            let handler = method_not_allowed;
            let routes = routes.method_not_allowed_fallback(Guarded { handler, cost });
            let handler = async || ApiError::new(ErrorCode::NotFound);
            routes.fallback(Guarded { handler, cost })
        })
    }
}

/// A handler that runs after a [`Guard`].
#[derive(Clone)]
struct Guarded<H, C> {
    handler: H,
    cost: Cost<C>,
}

/// The rate limit that a request counts against.
#[derive(Clone, Copy)]
enum Cost<C> {
    /// A token of this class.
    Class(C),
    /// A token of the class of its method.
    OfMethod,
    Nothing,
}

impl<C: Class> Cost<C> {
    fn class(self, method: &Method) -> Option<C> {
        match self {
            Self::Class(class) => Some(class),
            Self::OfMethod => of_unmatched(method),
            Self::Nothing => None,
        }
    }
}

impl<T, S, H, C> Handler<T, S> for Guarded<H, C>
where
    S: Send + 'static,
    H: Handler<T, S>,
    C: Class,
    Guard<C>: FromRef<S>,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, state: S) -> Self::Future {
        let guard = Guard::from_ref(&state);
        let class = self.cost.class(request.method());
        let handler = |request| self.handler.call(request, state);
        Box::pin(guard.admit(class, request, handler))
    }
}
