//! Collects the settings from file, environment and flags: every known key with its value and
//! source.
//!
//! The known keys are those of `config/default.toml`. The type of a key is the type of its default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::ConfigError;
use super::secret_file::{self, SECRETS, file_key};
use super::source::Source;

/// The default settings, which also define the known keys.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The key that selects a preset of limits.
const PRESET_KEY: &str = "realtime.limits_preset";

/// The preset with the limits of Supabase Realtime. The other preset consists of the defaults.
pub(super) const SUPABASE: &str = "supabase";

/// The values of the preset [`SUPABASE`] that differ from the defaults.
pub(super) const SUPABASE_LIMITS: &str = include_str!("../../config/limits.supabase.toml");

/// The variable that names the configuration file. It is not a setting itself.
pub(super) const FILE_VARIABLE: &str = "RAPPORT_CONFIG";

/// The prefix of all Rapport variables.
const PREFIX: &str = "RAPPORT_";

/// Variables of other programs that may already be set, and the keys that they correspond to. A
/// Rapport variable takes precedence, and of two synonyms the later one in this list. `JWT_…` are
/// the names in the `.env` of a self-hosted Supabase, and `API_JWT_…` those of its Realtime.
const SYNONYMS: &[(&str, &str)] = &[
    (
        "CLIENT_PRESENCE_MAX_CALLS",
        "realtime.max_presence_calls_per_window",
    ),
    ("CLIENT_PRESENCE_WINDOW_MS", "realtime.presence_window_ms"),
    ("DATABASE_URL", "database.url"),
    ("JWT_JWKS", "auth.jwks"),
    ("JWT_SECRET", "auth.jwt_secret"),
    ("API_JWT_JWKS", "auth.jwks"),
    ("API_JWT_SECRET", "auth.jwt_secret"),
    ("PORT", "server.port"),
    ("SUPABASE_ANON_KEY", "auth.anon_key"),
    ("SUPABASE_JWT_SECRET", "auth.jwt_secret"),
    ("SUPABASE_PUBLISHABLE_KEY", "auth.publishable_keys"),
    ("SUPABASE_SECRET_KEY", "auth.secret_keys"),
    ("SUPABASE_SERVICE_ROLE_KEY", "auth.service_role_key"),
    ("SUPABASE_URL", "supabase.url"),
    (
        "TENANT_MAX_CHANNELS_PER_CLIENT",
        "realtime.max_channels_per_socket",
    ),
    (
        "TENANT_MAX_CONCURRENT_USERS",
        "realtime.max_concurrent_users",
    ),
    (
        "TENANT_MAX_EVENTS_PER_SECOND",
        "realtime.max_events_per_second",
    ),
    (
        "TENANT_MAX_JOINS_PER_SECOND",
        "realtime.max_joins_per_second",
    ),
];

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as written on the command line, for messages.
    pub name: &'static str,
    /// `section.key`.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
}

/// All sources. The environment takes precedence over the file, and the flags over both.
pub struct Inputs<'a> {
    /// The configuration file, if one is named.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: &'a dyn Source,
    /// The flags.
    pub flags: Vec<Flag>,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    /// The selected preset of limits.
    Preset(&'static str),
    File(PathBuf),
    Variable(String),
    Flag(&'static str),
}

impl Origin {
    /// Returns the name of `key` in error messages about this source.
    pub(super) fn naming(&self, key: &str) -> String {
        match self {
            Self::Default => format!("`{key}`"),
            Self::Preset(name) => format!("`{key}` of `{PRESET_KEY}` {name}"),
            Self::File(path) => format!("`{key}` in {}", path.display()),
            Self::Variable(name) => name.clone(),
            Self::Flag(name) => (*name).to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Preset(name) => write!(formatter, "{PRESET_KEY} = {name}"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Variable(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// The effective value of a setting and its source.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Every known key (`section.key`) with its effective value.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) settings: BTreeMap<String, Setting>,
    pub(super) problems: Vec<String>,
}

impl Raw {
    /// Applies the inputs to the defaults. Unknown keys and values of the wrong type are collected
    /// as problems.
    pub(super) fn read(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let defaults: Table = DEFAULTS
            .parse()
            .map_err(|error| ConfigError::Defaults(Box::new(error)))?;
        let settings = flatten(defaults)
            .map(|(key, value)| {
                (
                    key,
                    Setting {
                        value,
                        origin: Origin::Default,
                    },
                )
            })
            .collect();
        let mut raw = Self {
            settings,
            problems: Vec::new(),
        };
        raw.expect_secret_files();
        if let Some(path) = &inputs.file {
            raw.add_file(path)?;
        }
        raw.add_environment(inputs.environment);
        for flag in &inputs.flags {
            raw.set_text(flag.key, &flag.value, Origin::Flag(flag.name));
        }
        raw.read_secret_files();
        raw.add_preset()?;
        Ok(raw)
    }

    /// Applies the selected preset. Only values that are still defaults are replaced.
    fn add_preset(&mut self) -> Result<(), ConfigError> {
        let chosen = self.settings.get(PRESET_KEY).map(|setting| &setting.value);
        if chosen.and_then(Value::as_str) != Some(SUPABASE) {
            return Ok(());
        }
        let limits: Table = SUPABASE_LIMITS
            .parse()
            .map_err(|error| ConfigError::Defaults(Box::new(error)))?;
        for (key, value) in flatten(limits) {
            if let Some(setting) = self.settings.get_mut(&key)
                && setting.origin == Origin::Default
            {
                let origin = Origin::Preset(SUPABASE);
                *setting = Setting { value, origin };
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let table: Table = text
            .parse()
            .map_err(|error| syntax_error(path, &text, &error))?;
        for (key, value) in flatten(table) {
            let origin = Origin::File(path.to_owned());
            let Some(setting) = self.settings.get_mut(&key) else {
                let nearest = nearest(&key, self.settings.keys().map(String::as_str));
                self.problems.push(format!(
                    "{} is not a setting; did you mean `{nearest}`?",
                    origin.naming(&key)
                ));
                continue;
            };
            if value.same_type(&setting.value) {
                *setting = Setting { value, origin };
            } else {
                let expected = type_name(&setting.value);
                self.problems
                    .push(format!("{} must be {expected}", origin.naming(&key)));
            }
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: &dyn Source) {
        for (variable, key) in SYNONYMS {
            // An empty variable counts as unset, as in shells and Compose files.
            if let Some(text) = environment.get(variable).filter(|text| !text.is_empty()) {
                self.set_text(key, &text, Origin::Variable((*variable).to_owned()));
            }
            if SECRETS.contains(key) {
                let variable = format!("{variable}_FILE");
                if let Some(path) = environment.get(&variable).filter(|path| !path.is_empty()) {
                    self.set_text(&file_key(key), &path, Origin::Variable(variable));
                }
            }
        }
        let known: BTreeMap<String, String> = self
            .settings
            .keys()
            .map(|key| (variable_for(key), key.clone()))
            .collect();
        for variable in environment.names() {
            if !variable.starts_with(PREFIX) || variable == FILE_VARIABLE {
                continue;
            }
            let Some(key) = known.get(&variable) else {
                if !has_section_prefix(&variable, self.settings.keys()) {
                    continue;
                }
                let nearest = nearest(&variable, known.keys().map(String::as_str));
                self.problems.push(format!(
                    "{variable} is not a setting; did you mean {nearest}?"
                ));
                continue;
            };
            if let Some(text) = environment.get(&variable) {
                self.set_text(key, &text, Origin::Variable(variable));
            }
        }
    }

    /// Makes the keys of the paths of secrets known.
    fn expect_secret_files(&mut self) {
        for key in SECRETS {
            let unset = Setting {
                value: Value::String(String::new()),
                origin: Origin::Default,
            };
            self.settings.insert(file_key(key), unset);
        }
    }

    /// Replaces each path of a secret by the content of its file. The keys of the paths are then
    /// unknown again, so no other code has to distinguish the two forms.
    fn read_secret_files(&mut self) {
        for key in SECRETS {
            let path = self.settings.remove(&file_key(key));
            let (Some(path), Some(setting)) = (path, self.settings.get(*key)) else {
                continue;
            };
            let file = PathBuf::from(path.value.as_str().unwrap_or_default());
            // A flag takes precedence over a file that another source names. `rapport dev` relies
            // on this.
            if file.as_os_str().is_empty() || matches!(setting.origin, Origin::Flag(_)) {
                continue;
            }
            let naming = path.origin.naming(&file_key(key));
            let is_list = setting.value.is_array();
            let is_empty = match &setting.value {
                Value::Array(values) => values.is_empty(),
                value => value.as_str() == Some(""),
            };
            if !is_empty {
                let other = setting.origin.naming(key);
                self.problems
                    .push(format!("{naming} and {other} are both set; remove one"));
                continue;
            }
            match secret_file::read(&file) {
                Ok(text) => {
                    // The values of a list may be on separate lines.
                    let text = if is_list {
                        text.replace('\n', ",")
                    } else {
                        text
                    };
                    self.set_text(key, &text, Origin::File(file));
                }
                Err(problem) => self.problems.push(format!("{naming} {problem}")),
            }
        }
    }

    fn set_text(&mut self, key: &str, text: &str, origin: Origin) {
        let Some(setting) = self.settings.get_mut(key) else {
            self.problems
                .push(format!("{} is not a setting", origin.naming(key)));
            return;
        };
        match parse_like(&setting.value, text) {
            Some(value) => *setting = Setting { value, origin },
            None => {
                let expected = type_name(&setting.value);
                self.problems
                    .push(format!("{} must be {expected}", origin.naming(key)));
            }
        }
    }
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.unwrap_or_default().matches('\n').count() + 1,
        message: error.message().to_owned(),
    }
}

/// Returns whether a variable starts like the variables of one of the sections. Such a variable
/// must be a known setting, so that a misspelt key is an error. Other variables with the prefix,
/// such as `RAPPORT_BIN` of a wrapper script, belong to other programs and are ignored.
fn has_section_prefix<'a>(variable: &str, mut keys: impl Iterator<Item = &'a String>) -> bool {
    keys.any(|key| {
        let section = key.split('.').next().unwrap_or_default();
        variable.starts_with(&variable_for(&format!("{section}.")))
    })
}

/// Returns the variable of a key: `server.port` becomes `RAPPORT_SERVER_PORT`.
pub(super) fn variable_for(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Flattens the sections into `section.key`. A value outside a section keeps its bare name, which
/// is never a known key.
fn flatten(table: Table) -> impl Iterator<Item = (String, Value)> {
    table.into_iter().flat_map(|(section, value)| match value {
        Value::Table(keys) => keys
            .into_iter()
            .map(|(key, value)| (format!("{section}.{key}"), value))
            .collect(),
        value => vec![(section, value)],
    })
}

/// Parses `text` as the type of `default`.
fn parse_like(default: &Value, text: &str) -> Option<Value> {
    let text = text.trim();
    match default {
        Value::Integer(_) => text.replace('_', "").parse().ok().map(Value::Integer),
        Value::Boolean(_) => match text {
            "true" | "1" | "on" => Some(Value::Boolean(true)),
            "false" | "0" | "off" => Some(Value::Boolean(false)),
            _ => None,
        },
        Value::Array(_) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            Some(Value::Array(
                parts.map(|part| Value::String(part.to_owned())).collect(),
            ))
        }
        _ => Some(Value::String(text.to_owned())),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of strings",
        _ => "a string",
    }
}

/// Returns the known name with the smallest edit distance to `written`.
fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known
        .min_by_key(|name| edit_distance(written, name))
        .unwrap_or_default()
}

/// Returns the Levenshtein distance: the number of insertions, deletions and replacements that turn
/// one string into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (left, right, expected) in [
            ("", "", 0),
            ("port", "port", 0),
            ("prot", "port", 2),
            ("por", "port", 1),
            ("a", "xyz", 3),
        ] {
            assert_eq!(edit_distance(left, right), expected, "{left} {right}");
        }
    }
}
