//! Typed access to the written settings; every mistake is collected, not only the first.
//!
//! After a problem a reading function returns some value of its type: the whole result is
//! thrown away then, so it is never used.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::raw::{Origin, Raw, Setting};
use super::secret::{MASK, Secret, mask_url};

/// How a value is shown by `rapport check-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Plain,
    Hidden,
    UrlWithoutPassword,
}

/// Hands out settings by key and remembers which were asked for.
#[derive(Debug)]
pub(super) struct Reader {
    raw: Raw,
    asked: BTreeMap<&'static str, Shown>,
}

impl Reader {
    pub(super) fn new(raw: Raw) -> Self {
        Self {
            raw,
            asked: BTreeMap::new(),
        }
    }

    /// A text; `None` when it is empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.text_shown(key, Shown::Plain)
    }

    /// A text that must not be empty.
    pub(super) fn required_text(&mut self, key: &'static str) -> String {
        let text = self.text(key);
        text.unwrap_or_else(|| {
            self.problem(key, "must not be empty");
            String::new()
        })
    }

    /// An IP address with a port; `None` when it is empty.
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

    /// A secret; `None` when it is empty.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.text_shown(key, Shown::Hidden).map(Secret::new)
    }

    /// A connection string, of which only the password is hidden.
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

    /// The address of a web server, without its trailing slash.
    pub(super) fn web_url(&mut self, key: &'static str) -> Option<String> {
        let url = self.text(key)?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            self.problem(key, "must begin with http:// or https://");
        }
        Some(url.trim_end_matches('/').to_owned())
    }

    /// A switch.
    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        matches!(self.value(key, Shown::Plain), Some(Value::Boolean(true)))
    }

    /// A list of texts.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let Some(Value::Array(parts)) = self.value(key, Shown::Plain) else {
            return Vec::new();
        };
        let texts: Option<Vec<String>> = parts
            .iter()
            .map(|part| part.as_str().map(str::to_owned))
            .collect();
        texts.unwrap_or_else(|| {
            self.problem(key, "must be a list of texts");
            Vec::new()
        })
    }

    /// A whole number within `range`.
    pub(super) fn whole<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> T
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

    /// A number of milliseconds within `range`.
    pub(super) fn milliseconds(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_millis(self.whole(key, range))
    }

    /// One of a few names. `choices` must not be empty.
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

    /// Records that the value of `key` does not do, naming the place it was written at.
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

    /// Everything that was found wrong.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.raw.problems
    }

    /// Whether anything was found wrong.
    pub(super) fn has_problems(&self) -> bool {
        !self.raw.problems.is_empty()
    }

    /// The settings in force as TOML, with secrets masked, each with where it is from.
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
            // What nobody asked for may be a secret.
            let shown = self
                .asked
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

    /// Known keys that no section asked for.
    #[cfg(test)]
    pub(super) fn unasked(&self) -> Vec<&str> {
        self.raw
            .settings
            .keys()
            .map(String::as_str)
            .filter(|key| !self.asked.contains_key(key))
            .collect()
    }

    fn text_shown(&mut self, key: &'static str, shown: Shown) -> Option<String> {
        match self.value(key, shown) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn value(&mut self, key: &'static str, shown: Shown) -> Option<Value> {
        self.asked.insert(key, shown);
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
        (Value::String(text), Shown::UrlWithoutPassword) => Value::String(mask_url(text)),
        _ => setting.value.clone(),
    }
}
