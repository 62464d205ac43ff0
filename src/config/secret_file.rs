//! Secrets in files: every setting that holds a secret can also be given as the path of a file that
//! contains it, as systemd (`LoadCredential=`), Docker and Kubernetes provide secrets.
//!
//! The path is written under the name of the setting with `_file` appended, or `_FILE` for a
//! variable.

use std::path::PathBuf;

use toml::Value;

use super::raw::{Origin, Raw, Setting};

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

impl Raw {
    /// Makes the keys of the paths known.
    pub(super) fn expect_secret_files(&mut self) {
        for key in SECRETS {
            let unset = Setting {
                value: Value::String(String::new()),
                origin: Origin::Default,
            };
            self.settings.insert(file_key(key), unset);
        }
    }

    /// Replaces each path by the content of its file. The keys of the paths are then unknown again,
    /// so no other code has to distinguish the two forms.
    pub(super) fn read_secret_files(&mut self) {
        for key in SECRETS {
            let Some(written) = self.settings.remove(&file_key(key)) else {
                continue;
            };
            let path = written.value.as_str().unwrap_or_default();
            let Some(setting) = self.settings.get(*key) else {
                continue;
            };
            // A flag replaces whatever the environment says. `rapport dev` relies on this.
            if path.is_empty() || matches!(setting.origin, Origin::Flag(_)) {
                continue;
            }
            let naming = written.origin.naming(&file_key(key));
            if setting.origin != Origin::Default && !is_empty(&setting.value) {
                let other = setting.origin.naming(key);
                self.problems
                    .push(format!("{naming} and {other} are both set; remove one"));
                continue;
            }
            let path = PathBuf::from(path);
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    let path = path.display();
                    self.problems
                        .push(format!("{naming} names an empty file ({path})"));
                }
                Ok(text) => {
                    // The values of a list may be on separate lines.
                    let text = match setting.value {
                        Value::Array(_) => text.replace('\n', ","),
                        _ => text,
                    };
                    self.set_text(key, &text, Origin::File(path));
                }
                Err(error) => {
                    let path = path.display();
                    self.problems.push(format!(
                        "{naming} names a file that cannot be read: {path} ({error})"
                    ));
                }
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}
