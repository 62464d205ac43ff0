//! The Supabase project that this server works with.

use super::reader::Reader;

/// `[supabase]`.
#[derive(Clone, Debug)]
pub struct SupabaseConfig {
    /// The project's URL without a trailing slash.
    pub url: Option<String>,
}

impl SupabaseConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            url: reader.web_url("supabase.url"),
        }
    }
}
