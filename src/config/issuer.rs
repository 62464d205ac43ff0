//! `auth.issuers`: further issuers of tokens, each with its own keys.

use toml::{Table, Value};

use super::key_source::{KeySource, address, is_web_address, key_set_below};
use super::reader::Reader;

const KEY: &str = "auth.issuers";

/// The only accepted role if an issuer names none: that of signed-in users.
const PEOPLE_ROLE: &str = "authenticated";

/// The claim that contains the id of the account, unless an issuer names another.
const SUBJECT: &str = "sub";

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The accepted values of `iss`, at least one. Self-hosted issuers may have an inner and an
    /// outer address.
    pub names: Vec<String>,
    /// The only keys that tokens of this issuer are verified with.
    pub keys: KeySource,
    /// `aud` must contain one of these. If empty, only the chat routes check it and require
    /// `authenticated`.
    pub audience: Vec<String>,
    /// The accepted values of `role`.
    pub roles: Vec<String>,
    /// The claim that contains the id of the account.
    pub person: String,
}

/// Reads the list of further issuers. `first` is the name of the first issuer. A name that occurs
/// twice is a mistake, because it would be undefined which keys verify the tokens with that name.
pub(super) fn read(first: Option<&str>, reader: &mut Reader) -> Vec<IssuerConfig> {
    let tables = reader.tables(KEY);
    let issuers: Vec<_> = tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| Entry { index, table }.read(reader))
        .collect();
    let mut seen: Vec<&str> = first.into_iter().collect();
    for name in issuers.iter().flat_map(|issuer| &issuer.names) {
        if seen.contains(&name.as_str()) {
            reader.problem(KEY, &format!("names {name} twice"));
        }
        seen.push(name);
    }
    issuers
}

/// One table of the list.
struct Entry {
    index: usize,
    table: Table,
}

impl Entry {
    fn read(mut self, reader: &mut Reader) -> Option<IssuerConfig> {
        let names = self.texts("issuer", reader);
        let jwks = self.texts("jwks", reader);
        let audience = self.texts("audience", reader);
        let roles = self.texts("roles", reader);
        let person = self.texts("person", reader).into_iter().next();
        let discovery = matches!(self.table.remove("discovery"), Some(Value::Boolean(true)));
        for unknown in self.table.keys() {
            self.problem(unknown, "is not a setting of an issuer", reader);
        }
        let Some(first) = names.first() else {
            self.problem("issuer", "is required", reader);
            return None;
        };
        let keys = match (jwks.first(), discovery) {
            (Some(_), true) => {
                self.problem("discovery", "and `jwks` exclude each other", reader);
                return None;
            }
            (Some(written), false) => KeySource::parse(KEY, written, reader),
            (None, _) if !is_web_address(first) => {
                self.problem("jwks", "is required, because `issuer` is not a URL", reader);
                return None;
            }
            (None, true) => {
                let base = first.trim_end_matches('/');
                let document = format!("{base}/.well-known/openid-configuration");
                KeySource::Discovery(address(KEY, &document, reader))
            }
            (None, false) => KeySource::Url(address(KEY, &key_set_below(first), reader)),
        };
        let or = |list: Vec<String>, default: &str| match list.is_empty() {
            true => vec![default.to_owned()],
            false => list,
        };
        Some(IssuerConfig {
            names,
            keys,
            audience,
            roles: or(roles, PEOPLE_ROLE),
            person: person.unwrap_or_else(|| SUBJECT.to_owned()),
        })
    }

    /// Removes a member that is a text or a list of texts, and returns the texts.
    fn texts(&mut self, name: &str, reader: &mut Reader) -> Vec<String> {
        let parts = match self.table.remove(name) {
            None => return Vec::new(),
            Some(Value::Array(parts)) => parts,
            Some(value) => vec![value],
        };
        let texts: Option<Vec<String>> = parts
            .iter()
            .map(|part| part.as_str().filter(|text| !text.is_empty()))
            .map(|text| text.map(str::to_owned))
            .collect();
        texts.unwrap_or_else(|| {
            self.problem(
                name,
                "must be a text that is not empty, or a list of such texts",
                reader,
            );
            Vec::new()
        })
    }

    fn problem(&self, name: &str, message: &str, reader: &mut Reader) {
        let index = self.index;
        reader.problem(
            KEY,
            &format!("at position {index} (from 0): `{name}` {message}"),
        );
    }
}
