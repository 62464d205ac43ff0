//! The caller's preferences for notifications and for sharing their own activity.

use axum::extract::State;
use axum::response::Response;
use jiff::civil::Time;

use super::classes::Writer;
use crate::db::{Db, Query};
use crate::http::input::Fields;
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, only};

const GET: &str = "select chat.preferences()::text";

const SET: &str = "select chat.set_preferences($1::jsonb)::text";

/// `GET /preferences`: returns the caller's preferences.
pub(super) async fn get_preferences(
    caller: Caller,
    State(db): State<Db>,
) -> Result<Response, ApiError> {
    Ok(json_text(only(
        &db.query_as(&caller.claims, GET, &[]).await?,
    )?))
}

/// The choices for when e-mails are sent.
pub(super) const EMAIL_MODES: [&str; 5] = [
    "offline",
    "digest_hourly",
    "digest_daily",
    "digest_weekly",
    "never",
];

/// Boolean preferences.
const FLAGS: [&str; 7] = [
    "browser_enabled",
    "sound_enabled",
    "show_preview",
    "email_enabled",
    "share_read_receipts",
    "share_typing",
    "share_presence",
];

/// Integer preferences, with minimum and maximum.
const NUMBERS: [(&str, i64, i64); 2] =
    [("email_delay_seconds", 30, 86_400), ("digest_hour", 0, 23)];

/// `PUT /preferences`: sets only the preferences in the body.
pub(super) async fn set_preferences(writer: Writer, fields: Fields) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    check(&fields)?;
    let preferences = fields.into_snake_case()?;
    let set = Query {
        sql: SET,
        parameters: &[&preferences],
    };
    let get = Query {
        sql: GET,
        parameters: &[],
    };
    let rows = writer.change_or_read(set, get).await?;
    Ok(json_text(only(&rows)?))
}

/// Refuses invalid preferences. They are checked here because the errors of the database do not
/// name the field. Only the database checks the names of time zones.
fn check(fields: &Fields) -> Result<(), ApiError> {
    for name in FLAGS {
        fields.flag(name)?;
    }
    for (name, least, most) in NUMBERS {
        if fields
            .integer(name)?
            .is_some_and(|number| !(least..=most).contains(&number))
        {
            return Err(ApiError::invalid(format!(
                "{name} must be from {least} to {most}"
            )));
        }
    }
    if fields
        .text("email_mode")?
        .is_some_and(|mode| !EMAIL_MODES.contains(&mode))
    {
        return Err(ApiError::invalid(format!(
            "email_mode must be one of {}",
            EMAIL_MODES.join(", ")
        )));
    }
    fields.text("timezone")?;
    fields.moment("dnd_until")?;
    for name in ["quiet_start", "quiet_end"] {
        if fields
            .text(name)?
            .is_some_and(|time| time.parse::<Time>().is_err())
        {
            return Err(ApiError::invalid(format!(
                "{name} must be a time of day such as 07:30"
            )));
        }
    }
    let numbers = NUMBERS.iter().map(|(name, ..)| name);
    let mut never_null = FLAGS
        .iter()
        .chain(numbers)
        .chain(&["email_mode", "timezone"]);
    match never_null.find(|name| fields.is_null(name)) {
        Some(name) => Err(ApiError::invalid(format!("{name} must not be null"))),
        None => Ok(()),
    }
}
