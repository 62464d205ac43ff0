//! What the tokens of one issuer must contain.

use crate::config::IssuerConfig;

/// The claim with the user's id in the tokens of Supabase Auth, and in the database.
pub(super) const SUBJECT: &str = "sub";

/// The requirements that every token of an issuer must meet besides its signature.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The accepted values of `iss`. If empty, any value is accepted that no other issuer has.
    pub issuers: Vec<String>,
    /// `aud` must contain one of these. If empty, sockets require no audience, and the chat routes
    /// require `authenticated`.
    pub audiences: Vec<String>,
    /// The accepted values of `role`. If empty, any role is accepted.
    pub roles: Vec<String>,
    /// The claim with the user's id, if it is not `sub`.
    pub person: Option<String>,
}

impl From<&IssuerConfig> for Requirements {
    fn from(config: &IssuerConfig) -> Self {
        Self {
            issuers: config.names.clone(),
            audiences: config.audience.clone(),
            roles: config.roles.clone(),
            person: (config.person != SUBJECT).then(|| config.person.clone()),
        }
    }
}
