//! Settings: what file, environment and flags say, and the resolved values the program runs with.
//!
//! `raw` holds what was written, [`Config`] what results: valid by construction, so nothing
//! asks "is it set?" after the start. Later ones win: `config/default.toml` (compiled in), the
//! file, the environment, the flags. Nothing else reads the environment.

mod auth;
mod chat;
mod chat_limits;
mod database;
mod dev;
mod error;
mod log;
mod network;
mod raw;
mod reader;
mod realtime;
mod replication;
mod secret;
mod server;
pub mod source;
mod supabase;
mod visibility;

pub use auth::AuthConfig;
pub use chat::{ChatConfig, HostPreset};
pub use chat_limits::ChatLimitsConfig;
pub use database::DatabaseConfig;
pub use dev::DevConfig;
pub use error::{ConfigError, Problems};
pub use log::{LogConfig, LogFormat};
pub use network::Network;
pub use raw::{Flag, Inputs};
pub use realtime::RealtimeConfig;
pub use replication::ReplicationConfig;
pub use secret::Secret;
pub use server::ServerConfig;
pub use supabase::SupabaseConfig;
pub use visibility::VisibilityConfig;

use raw::{FILE_VARIABLE, Raw};
use reader::Reader;
use source::Source;

/// Everything the program runs with. Subsystems are given their section only.
#[derive(Clone, Debug)]
pub struct Config {
    /// The HTTP listener.
    pub server: ServerConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// The Supabase project beside us.
    pub supabase: SupabaseConfig,
    /// Which tokens are accepted.
    pub auth: AuthConfig,
    /// How changes are read.
    pub replication: ReplicationConfig,
    /// Who may see a change.
    pub visibility: VisibilityConfig,
    /// The sockets' limits.
    pub realtime: RealtimeConfig,
    /// The application around the chat.
    pub chat: ChatConfig,
    /// How often the chat may be used.
    pub chat_limits: ChatLimitsConfig,
    /// Logging.
    pub log: LogConfig,
    /// The development database.
    pub dev: DevConfig,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Lists every mistake, each with the place it was written at.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        resolve(inputs, Self::read).map(|(config, _)| config)
    }

    fn read(reader: &mut Reader) -> Self {
        Self {
            server: ServerConfig::read(reader),
            database: DatabaseConfig::read(reader),
            supabase: SupabaseConfig::read(reader),
            auth: AuthConfig::read(reader),
            replication: ReplicationConfig::read(reader),
            visibility: VisibilityConfig::read(reader),
            realtime: RealtimeConfig::read(reader),
            chat: ChatConfig::read(reader),
            chat_limits: ChatLimitsConfig::read(reader),
            log: LogConfig::read(reader),
            dev: DevConfig::read(reader),
        }
    }
}

/// What a command needs that serves nobody: `migrate`.
#[derive(Clone, Debug)]
pub struct MigrateConfig {
    /// The database.
    pub database: DatabaseConfig,
    /// The Supabase project beside us.
    pub supabase: SupabaseConfig,
    /// The application around the chat.
    pub chat: ChatConfig,
    /// Logging.
    pub log: LogConfig,
}

impl MigrateConfig {
    /// Reads and checks these sections; the others may lack what only a server needs.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let read = |reader: &mut Reader| Self {
            database: DatabaseConfig::read(reader),
            supabase: SupabaseConfig::read(reader),
            chat: ChatConfig::read(reader),
            log: LogConfig::read(reader),
        };
        resolve(inputs, read).map(|(config, _)| config)
    }
}

/// What `doctor` looks at.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The database.
    pub database: DatabaseConfig,
    /// How changes are read.
    pub replication: ReplicationConfig,
}

impl DoctorConfig {
    /// Reads and checks these sections; the others may lack what only a server needs.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let read = |reader: &mut Reader| Self {
            database: DatabaseConfig::read(reader),
            replication: ReplicationConfig::read(reader),
        };
        resolve(inputs, read).map(|(config, _)| config)
    }
}

/// Reads and checks `[auth]` alone, for `token`.
///
/// # Errors
/// As [`Config::load`].
pub fn load_auth(inputs: &Inputs<'_>) -> Result<AuthConfig, ConfigError> {
    resolve(inputs, AuthConfig::read).map(|(config, _)| config)
}

/// Reads and checks `[dev]` and `[log]` alone: what `dev` must know before it can supply the rest.
///
/// # Errors
/// As [`Config::load`].
pub fn load_dev(inputs: &Inputs<'_>) -> Result<(DevConfig, LogConfig), ConfigError> {
    let read = |reader: &mut Reader| (DevConfig::read(reader), LogConfig::read(reader));
    resolve(inputs, read).map(|(config, _)| config)
}

/// The resolved settings as TOML: secrets masked, and where each value is from unless it is the
/// default.
///
/// # Errors
/// As [`Config::load`].
pub fn describe(inputs: &Inputs<'_>) -> Result<String, ConfigError> {
    resolve(inputs, Config::read).map(|(_, reader)| reader.describe())
}

/// The configuration file that the environment names.
pub fn file_from(environment: &dyn Source) -> Option<std::path::PathBuf> {
    environment
        .get(FILE_VARIABLE)
        .filter(|path| !path.is_empty())
        .map(Into::into)
}

fn resolve<T>(
    inputs: &Inputs<'_>,
    read: impl FnOnce(&mut Reader) -> T,
) -> Result<(T, Reader), ConfigError> {
    let mut reader = Reader::new(Raw::read(inputs)?);
    let value = read(&mut reader);
    if reader.has_problems() {
        return Err(ConfigError::Problems(Problems(reader.into_problems())));
    }
    Ok((value, reader))
}

#[cfg(test)]
mod tests;
