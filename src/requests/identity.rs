//! Checks the fields of a request body that name its caller.

use crate::http::input::Fields;
use crate::http::{ApiError, Caller};

/// Refuses a request that names another user as its caller. The field `current_user_id` always
/// names the caller. On this route, the fields in `others` do too.
///
/// # Errors
/// 403 `identity_mismatch`, or 422 for a field that is not an id.
pub fn check_identity(caller: &Caller, fields: &Fields, others: &[&str]) -> Result<(), ApiError> {
    for name in [&["current_user_id"], others].concat() {
        caller.must_be(fields.uuid(name)?)?;
    }
    Ok(())
}
