//! `rapport token`: prints a token signed with the configured secret, for testing.

use clap::Args;
use serde_json::{Map, Value};

use super::{CliError, print};
use crate::auth::mint;
use crate::config::{Inputs, load_auth};
use crate::dev::keys::now_s;

#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    /// The user's id, which becomes the token's subject
    #[arg(long, value_name = "UUID", required_if_eq("role", "authenticated"))]
    sub: Option<uuid::Uuid>,
    #[arg(
        long,
        default_value = "authenticated",
        help = "Role of the token: authenticated, anon or service_role"
    )]
    role: String,
    /// Lifetime in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    expires_in: u64,
}

/// Prints the token.
pub(super) fn run(arguments: &TokenArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    let auth = load_auth(inputs)?;
    let secret = auth.jwt_secret.ok_or(CliError::NoSecret)?;
    let now = now_s();
    let mut claims = Map::new();
    if let Some(sub) = arguments.sub {
        claims.insert("sub".to_owned(), Value::from(sub.to_string()));
    }
    claims.insert("role".to_owned(), Value::from(arguments.role.as_str()));
    claims.insert("iat".to_owned(), Value::from(now));
    claims.insert(
        "exp".to_owned(),
        Value::from(now.saturating_add(arguments.expires_in)),
    );
    // The audience that the server requires. If none is configured, the chat routes require
    // `authenticated`.
    let audience = auth.audience.or_else(|| Some("authenticated".to_owned()));
    for (name, value) in [("aud", audience), ("iss", auth.issuer)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), Value::from(value));
        }
    }
    let token = mint(secret.expose(), &Value::Object(claims))?;
    print(&format!("{token}\n"))
}
