//! Typed access to the written settings. All mistakes are collected, not only the first.
//!
//! After a problem, a reading function returns an arbitrary value of its type. That value is never
//! used, because the whole configuration is then discarded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

use super::key_set::{is_inline_key_set, mask_key_set};
use super::raw::{Origin, Raw, Setting};
use super::secret::{MASK, Secret, mask_url};

/// How `rapport check-config` displays a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Plain,
    Hidden,
    UrlWithoutPassword,
    KeySetWithoutSecrets,
    IssuersWithoutSecrets,
}

/// Reads settings by key and records which keys were read.
#[derive(Debug)]
pub(super) struct Reader {
    raw: Raw,
    read_keys: BTreeMap<&'static str, Shown>,
}

impl Reader {
    pub(super) fn new(raw: Raw) -> Self {
        Self {
            raw,
            read_keys: BTreeMap::new(),
        }
    }

    /// Reads a string; `None` if empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.text_shown(key, Shown::Plain)
    }

    /// Reads a string that must not be empty.
    pub(super) fn required_text(&mut self, key: &'static str) -> String {
        let text = self.text(key);
        text.unwrap_or_else(|| {
            self.problem(key, "must not be empty");
            String::new()
        })
    }

    /// Reads an IP address with a port; `None` if empty.
    pub(super) fn socket_address(&mut self, key: &'static str) -> Option<SocketAddr> {
        let text = self.text(key)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(
                key,
                "must be an IP address with a port, as in 127.0.0.1:9091",
            );
        }
        address
    }

    /// Reads a secret; `None` if empty.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.text_shown(key, Shown::Hidden).map(Secret::new)
    }

    /// Reads a connection string. Only its password is masked when it is shown.
    pub(super) fn connection_url(&mut self, key: &'static str) -> Option<Secret> {
        let url = self.text_shown(key, Shown::UrlWithoutPassword)?;
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            self.problem(
                key,
                "must be a connection string that begins with postgresql://",
            );
        }
        Some(Secret::new(url))
    }

    /// Reads a key set or its path; `None` if empty. Only its secret members are masked when it is
    /// shown.
    pub(super) fn key_set(&mut self, key: &'static str) -> Option<String> {
        self.text_shown(key, Shown::KeySetWithoutSecrets)
    }

    /// Reads the URL of a web server, without a trailing slash.
    pub(super) fn web_url(&mut self, key: &'static str) -> Option<String> {
        let url = self.text(key)?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            self.problem(key, "must begin with http:// or https://");
        }
        Some(url.trim_end_matches('/').to_owned())
    }

    /// Reads a boolean.
    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        matches!(self.value(key, Shown::Plain), Some(Value::Boolean(true)))
    }

    /// Reads a list of secrets.
    pub(super) fn secrets(&mut self, key: &'static str) -> Vec<Secret> {
        let texts = self.list_shown(key, Shown::Hidden);
        texts.into_iter().map(Secret::new).collect()
    }

    /// Reads a list of strings.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        self.list_shown(key, Shown::Plain)
    }

    fn list_shown(&mut self, key: &'static str, shown: Shown) -> Vec<String> {
        let Some(Value::Array(parts)) = self.value(key, shown) else {
            return Vec::new();
        };
        let texts: Option<Vec<String>> = parts
            .iter()
            .map(|part| part.as_str().map(str::to_owned))
            .collect();
        texts.unwrap_or_else(|| {
            self.problem(key, "must be a list of strings");
            Vec::new()
        })
    }

    /// Reads a list of tables that describe issuers. Only the secret members of their key sets are
    /// masked when it is shown.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table> {
        let Some(Value::Array(parts)) = self.value(key, Shown::IssuersWithoutSecrets) else {
            return Vec::new();
        };
        let tables: Option<Vec<Table>> = parts
            .into_iter()
            .map(|part| match part {
                Value::Table(table) => Some(table),
                _ => None,
            })
            .collect();
        tables.unwrap_or_else(|| {
            self.problem(
                key,
                "must be a list of tables, which only a file can contain",
            );
            Vec::new()
        })
    }

    /// Reads an integer within `range`.
    pub(super) fn integer<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
    {
        let written = match self.value(key, Shown::Plain) {
            Some(Value::Integer(number)) => T::try_from(number).ok(),
            _ => None,
        };
        written
            .filter(|number| range.contains(number))
            .unwrap_or_else(|| {
                self.problem(
                    key,
                    &format!("must be from {} to {}", range.start(), range.end()),
                );
                *range.start()
            })
    }

    /// Reads a duration in milliseconds within `range`.
    pub(super) fn milliseconds(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_millis(self.integer(key, range))
    }

    /// Reads a duration in seconds within `range`.
    pub(super) fn seconds(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.integer(key, range))
    }

    /// Reads one of several names. `choices` must not be empty.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let written = self.text(key).unwrap_or_default();
        match choices.iter().find(|(name, _)| *name == written) {
            Some((_, value)) => *value,
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                self.problem(key, &format!("must be one of {}", names.join(", ")));
                choices[0].1
            }
        }
    }

    /// Records a problem with the value of `key` and names the place where it was written.
    pub(super) fn problem(&mut self, key: &str, message: &str) {
        let origin = self
            .raw
            .settings
            .get(key)
            .map_or(&Origin::Default, |setting| &setting.origin);
        self.raw
            .problems
            .push(format!("{} {message}", origin.naming(key)));
    }

    /// Returns all problems found.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.raw.problems
    }

    /// Returns whether any problem was found.
    pub(super) fn has_problems(&self) -> bool {
        !self.raw.problems.is_empty()
    }

    /// Returns the effective settings as TOML with secrets masked, each annotated with its source.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, setting) in &self.raw.settings {
            let (name, field) = key.split_once('.').unwrap_or(("", key));
            if name != section {
                if !section.is_empty() {
                    text.push('\n');
                }
                text.push_str(&format!("[{name}]\n"));
                section = name;
            }
            // If no section has read a value, it may be a secret.
            let shown = self
                .read_keys
                .get(key.as_str())
                .copied()
                .unwrap_or(Shown::Hidden);
            text.push_str(&format!("{field} = {}", masked(setting, shown)));
            if setting.origin != Origin::Default {
                text.push_str(&format!("  # {}", setting.origin));
            }
            text.push('\n');
        }
        text
    }

    /// Returns the known keys that no section has read.
    #[cfg(test)]
    pub(super) fn unread_keys(&self) -> Vec<&str> {
        self.raw
            .settings
            .keys()
            .map(String::as_str)
            .filter(|key| !self.read_keys.contains_key(key))
            .collect()
    }

    /// Returns the keys whose values are secrets.
    #[cfg(test)]
    pub(super) fn secret_keys(&self) -> Vec<&str> {
        let secret = [Shown::Hidden, Shown::UrlWithoutPassword];
        self.read_keys
            .iter()
            .filter(|(_, shown)| secret.contains(shown))
            .map(|(key, _)| *key)
            .collect()
    }

    fn text_shown(&mut self, key: &'static str, shown: Shown) -> Option<String> {
        match self.value(key, shown) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn value(&mut self, key: &'static str, shown: Shown) -> Option<Value> {
        self.read_keys.insert(key, shown);
        let value = self
            .raw
            .settings
            .get(key)
            .map(|setting| setting.value.clone());
        if value.is_none() {
            self.raw
                .problems
                .push(format!("`{key}` is missing in the compiled-in defaults"));
        }
        value
    }
}

fn masked(setting: &Setting, shown: Shown) -> Value {
    match (&setting.value, shown) {
        (Value::String(text), _) if text.is_empty() => setting.value.clone(),
        (Value::String(_), Shown::Hidden) => Value::String(MASK.to_owned()),
        (Value::Array(parts), Shown::Hidden) => {
            Value::Array(vec![Value::String(MASK.to_owned()); parts.len()])
        }
        (Value::String(text), Shown::UrlWithoutPassword) => Value::String(mask_url(text)),
        (Value::String(text), Shown::KeySetWithoutSecrets) if is_inline_key_set(text) => {
            Value::String(mask_key_set(text))
        }
        (Value::Array(issuers), Shown::IssuersWithoutSecrets) => {
            Value::Array(issuers.iter().map(masked_issuer).collect())
        }
        _ => setting.value.clone(),
    }
}

fn masked_issuer(issuer: &Value) -> Value {
    let mut issuer = issuer.clone();
    if let Some(Value::String(keys)) = issuer.get_mut("jwks")
        && is_inline_key_set(keys)
    {
        *keys = mask_key_set(keys);
    }
    issuer
}
