//! The Supabase project that this server works with.

use super::reader::Reader;

/// `[supabase]`.
#[derive(Clone, Debug)]
pub struct SupabaseConfig {
    /// The project's URL without a trailing slash.
    pub url: Option<String>,
}

impl SupabaseConfig {
    /// Returns the name that Supabase's client libraries give the session cookie of this project:
    /// they derive it from the first label of the URL's host.
    pub(super) fn cookie_name(&self) -> Option<String> {
        let (_, rest) = self.url.as_deref()?.split_once("://")?;
        let label = rest.split(['.', ':', '/']).next()?;
        Some(format!("sb-{label}-auth-token"))
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            url: reader.web_url("supabase.url"),
        }
    }
}
