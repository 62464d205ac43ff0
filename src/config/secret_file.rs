//! Secrets in files: every setting that holds a secret can also be given as the path of a file that
//! contains it, as systemd (`LoadCredential=`), Docker and Kubernetes provide secrets.
//!
//! The path is written under the name of the setting with `_file` appended, or `_FILE` for a
//! variable.

use std::path::Path;

/// Every setting that holds a secret. `auth.jwks` is absent because it accepts a path itself.
pub(super) const SECRETS: &[&str] = &[
    "auth.anon_key",
    "auth.jwt_secret",
    "auth.jwt_secret_next",
    "auth.publishable_keys",
    "auth.secret_keys",
    "auth.service_role_key",
    "database.request_url",
    "database.url",
    "server.metrics_token",
    "upstream.anon_jwt",
    "upstream.service_jwt",
];

/// Returns the key under which the path of a secret is written.
pub(super) fn file_key(key: &str) -> String {
    format!("{key}_file")
}

/// Reads a secret from its file. The error completes a sentence that begins with the name of the
/// setting.
pub(super) fn read(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(format!("names an empty file ({})", path.display()))
        }
        Ok(text) => Ok(text),
        Err(error) => Err(format!(
            "names a file that cannot be read: {} ({error})",
            path.display()
        )),
    }
}
