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

/// A preset of `chat.install_host_mapping`, or `auto`, which is the preset already in force,
/// otherwise the only one that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPreset(&'static str);

impl HostPreset {
    /// Chooses a preset by the contents of the database.
    pub const AUTO: Self = Self("auto");

    /// The names of all presets, in the order in which the database lists them.
    pub const NAMES: [&str; 11] = [
        "basejump",
        "makerkit",
        "users_members",
        "profiles_members",
        "users_table",
        "profiles_team",
        "makerkit_v1",
        "claims",
        "one_team",
        "rbac",
        "own_views",
    ];

    /// Returns the preset's name in the database.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    fn read(reader: &mut Reader) -> Self {
        let presets = Self::NAMES.iter().map(|name| (*name, Self(name)));
        let choices: Vec<(&str, Self)> = std::iter::once((Self::AUTO.0, Self::AUTO))
            .chain(presets)
            .collect();
        reader.choice("chat.host_preset", &choices)
    }
}

impl ChatConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            host_preset: HostPreset::read(reader),
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
