//! The limits and features that a client needs to know before a user signs in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;

use crate::auth::Claims;
use crate::db::Db;
use crate::http::ApiError;
use crate::http::input::MAX_BODY_BYTES;
use crate::http::pagination::json_text;
use crate::requests::only;

/// How long a result is cached. The route requires no token, so not every request may query the
/// database. A changed setting becomes visible after at most this time.
const CACHED_FOR: Duration = Duration::from_secs(5);

const READ: &str = "\
    select json_build_object( \
        'max_message_length', chat.amount('max_message_length', 4000), \
        'max_client_message_id_length', 64, \
        'max_body_bytes', $1::int, \
        'message_types', array['text', 'image', 'file'], \
        'edit_window_s', chat.amount('edit_window_s', 0), \
        'typing_expires_in_ms', chat.amount('typing_ttl_ms', 6000), \
        'presence_ttl_s', chat.amount('presence_ttl_s', 60), \
        'features', json_build_object( \
            'admin_cross_team', chat.flag('admin_cross_team'), \
            'attachments', false, \
            'groups', false \
        ) \
    )::text";

/// The limits from the database, cached briefly. Cheap to clone.
#[derive(Clone)]
pub(super) struct Limits {
    db: Db,
    /// A standard mutex, held to copy a short text and never across an await.
    cached: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Limits {
    pub(super) fn new(db: Db) -> Self {
        Self {
            db,
            cached: Arc::default(),
        }
    }

    async fn current(&self) -> Result<String, ApiError> {
        if let Some((at, text)) = self
            .cached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            && at.elapsed() < CACHED_FOR
        {
            return Ok(text);
        }
        let max_body_bytes = i32::try_from(MAX_BODY_BYTES).unwrap_or(i32::MAX);
        let rows = self
            .db
            .query_as(&Claims::of_nobody(), READ, &[&max_body_bytes])
            .await?;
        let text: String = only(&rows)?;
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

/// `GET /config`: returns the limits and features, without requiring a token.
pub(super) async fn show_config(State(limits): State<Limits>) -> Result<Response, ApiError> {
    limits.current().await.map(json_text)
}
