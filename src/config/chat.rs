//! How the chat meets the application around it. Its limits stand in the table `chat.config`,
//! where the database's own rules read them, too.

use std::time::Duration;

use super::reader::Reader;

/// `[chat]`.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// Where people and teams are found.
    pub host_preset: HostPreset,
    /// How long after somebody's last socket they count as being there.
    pub presence_grace: Duration,
    /// How long this process's word about who is there holds.
    pub presence_lease: Duration,
}

/// The presets of `chat.install_host_mapping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPreset {
    /// Whichever fits the tables that are there.
    Auto,
    /// `public.users` with a team and a role.
    UsersTable,
    /// `auth.users` with a team and a role in the app metadata.
    Claims,
    /// Everybody is in one team.
    OneTeam,
}

impl HostPreset {
    const CHOICES: &[(&str, Self)] = &[
        ("auto", Self::Auto),
        ("users_table", Self::UsersTable),
        ("claims", Self::Claims),
        ("one_team", Self::OneTeam),
    ];

    /// The preset as the database function knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::UsersTable => "users_table",
            Self::Claims => "claims",
            Self::OneTeam => "one_team",
        }
    }
}

impl ChatConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            host_preset: reader.choice("chat.host_preset", HostPreset::CHOICES),
            presence_grace: reader.milliseconds("chat.presence_grace_ms", 0..=600_000),
            presence_lease: reader.milliseconds("chat.presence_lease_ms", 300..=600_000),
        }
    }
}
