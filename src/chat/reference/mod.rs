//! The OpenAPI documentation of the chat routes: one function per handler, with the same name.
//!
//! The tests check every request and response against this documentation.

mod conversations;
mod messages;
mod people;
mod rows;
mod tags;

pub(super) use self::conversations::*;
pub(super) use self::messages::*;
pub(super) use self::people::*;
pub(super) use self::rows::schemas;
pub(super) use self::tags::TAGS;
