//! Settings that connect the chat to the application around it. The chat's limits are in the table
//! `chat.config`, because rules in the database read them, too.

use std::time::Duration;

use super::reader::Reader;

/// `[chat]`.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// The source of users and teams.
    pub host_preset: HostPreset,
    /// How long a user stays online after the last socket has closed.
    pub presence_grace: Duration,
    /// How long this process's presence records stay valid without renewal.
    pub presence_lease: Duration,
    /// Whether users with an anonymous sign-in may use the chat routes.
    pub allow_anonymous: bool,
    /// Whether the chat routes require a sign-in with a second factor.
    pub requires_second_factor: bool,
}

/// The presets of `chat.install_host_mapping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPreset {
    /// The preset already in force, otherwise the one that fits the existing tables.
    Auto,
    /// `public.users`, with a team and a role.
    UsersTable,
    /// `auth.users`, with a team and a role in the app metadata.
    Claims,
    /// All users are in one team.
    OneTeam,
}

impl HostPreset {
    const CHOICES: &[(&str, Self)] = &[
        ("auto", Self::Auto),
        ("users_table", Self::UsersTable),
        ("claims", Self::Claims),
        ("one_team", Self::OneTeam),
    ];

    /// Returns the preset's name in the database.
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
            allow_anonymous: reader.switch("chat.allow_anonymous"),
            requires_second_factor: requires_second_factor(reader),
        }
    }
}

/// Reads the required authenticator assurance level. Supabase Auth writes `aal1` or `aal2`, and
/// every sign-in is at least `aal1`.
fn requires_second_factor(reader: &mut Reader) -> bool {
    match reader.text("chat.required_aal").as_deref() {
        None => false,
        Some("aal2") => true,
        Some(_) => {
            reader.problem("chat.required_aal", "must be empty or aal2");
            true
        }
    }
}
