//! The Supabase project this server stands beside.

use super::reader::Reader;

/// `[supabase]`.
#[derive(Clone, Debug)]
pub struct SupabaseConfig {
    /// The project's address without a trailing slash.
    pub url: Option<String>,
}

impl SupabaseConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            url: reader.web_url("supabase.url"),
        }
    }
}
