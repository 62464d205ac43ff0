//! Resolves the configuration from file, environment and flags.
//!
//! `raw` holds the values as written, and [`Config`] the result. A [`Config`] is valid by
//! construction, so no code checks after the start whether a setting is present. In increasing
//! order of precedence, the sources are `config/default.toml` (compiled in), the file, the
//! environment, and the flags. No other module reads the environment.

mod auth;
mod chat;
mod chat_limits;
mod database;
mod dev;
mod error;
mod issuer;
mod key_set;
mod key_source;
mod log;
mod network;
mod raw;
mod reader;
mod realtime;
mod replication;
mod secret;
mod secret_file;
mod server;
pub mod source;
mod supabase;
mod upstream;
mod visibility;

pub use auth::AuthConfig;
pub use chat::{ChatConfig, HostPreset};
pub use chat_limits::ChatLimitsConfig;
pub use database::DatabaseConfig;
pub use dev::DevConfig;
pub use error::{ConfigError, Problems};
pub use issuer::IssuerConfig;
pub use key_source::KeySource;
pub use log::{LogConfig, LogFormat};
pub use network::Network;
pub use raw::{Flag, Inputs};
pub use realtime::RealtimeConfig;
pub use replication::ReplicationConfig;
pub use secret::Secret;
pub use server::ServerConfig;
pub use supabase::SupabaseConfig;
pub use upstream::UpstreamConfig;
pub use visibility::VisibilityConfig;

use raw::{FILE_VARIABLE, Raw};
use reader::Reader;
use source::Source;

/// The complete configuration. Each subsystem receives only its own section.
#[derive(Clone, Debug)]
pub struct Config {
    /// The HTTP listener.
    pub server: ServerConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// The Supabase project.
    pub supabase: SupabaseConfig,
    /// Token verification.
    pub auth: AuthConfig,
    /// The services to which requests are forwarded.
    pub upstream: UpstreamConfig,
    /// Reading of row changes.
    pub replication: ReplicationConfig,
    /// Visibility checks.
    pub visibility: VisibilityConfig,
    /// Limits of the sockets.
    pub realtime: RealtimeConfig,
    /// Integration of the chat with the application.
    pub chat: ChatConfig,
    /// Rate limits of the chat routes.
    pub chat_limits: ChatLimitsConfig,
    /// Logging.
    pub log: LogConfig,
    /// The development database.
    pub dev: DevConfig,
}

impl Config {
    /// Reads and validates all sections.
    ///
    /// # Errors
    /// Lists every mistake, each with the place where it was written.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        resolve(inputs, Self::read).map(|(config, _)| config)
    }

    fn read(reader: &mut Reader) -> Self {
        let server = ServerConfig::read(reader);
        let supabase = SupabaseConfig::read(reader);
        let auth = AuthConfig::read(reader);
        Self {
            upstream: UpstreamConfig::read(reader, &server, &supabase, &auth),
            server,
            database: DatabaseConfig::read(reader),
            supabase,
            auth,
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

/// The sections for `migrate`, which serves no clients.
#[derive(Clone, Debug)]
pub struct MigrateConfig {
    /// The database.
    pub database: DatabaseConfig,
    /// The Supabase project.
    pub supabase: SupabaseConfig,
    /// Integration of the chat with the application.
    pub chat: ChatConfig,
    /// Logging.
    pub log: LogConfig,
}

impl MigrateConfig {
    /// Reads and validates these sections. Sections that only a server needs may be incomplete.
    ///
    /// # Errors
    /// Same as [`Config::load`].
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

/// The sections that `doctor` checks.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The database.
    pub database: DatabaseConfig,
    /// Reading of row changes.
    pub replication: ReplicationConfig,
    /// Checks of visibility, which have connections of their own.
    pub visibility: VisibilityConfig,
    /// Integration of the chat with the application.
    pub chat: ChatConfig,
}

impl DoctorConfig {
    /// Reads and validates these sections. Sections that only a server needs may be incomplete.
    ///
    /// # Errors
    /// Same as [`Config::load`].
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, ConfigError> {
        let read = |reader: &mut Reader| Self {
            database: DatabaseConfig::read(reader),
            replication: ReplicationConfig::read(reader),
            visibility: VisibilityConfig::read(reader),
            chat: ChatConfig::read(reader),
        };
        resolve(inputs, read).map(|(config, _)| config)
    }
}

/// Reads and validates only `[auth]`, for `token`.
///
/// # Errors
/// Same as [`Config::load`].
pub fn load_auth(inputs: &Inputs<'_>) -> Result<AuthConfig, ConfigError> {
    resolve(inputs, AuthConfig::read).map(|(config, _)| config)
}

/// Reads and validates only `[supabase]` and `[chat]`, for the SQL files of `migrate`, which are
/// written without a database.
///
/// # Errors
/// Same as [`Config::load`].
pub fn load_for_sql_files(
    inputs: &Inputs<'_>,
) -> Result<(SupabaseConfig, ChatConfig), ConfigError> {
    let read = |reader: &mut Reader| (SupabaseConfig::read(reader), ChatConfig::read(reader));
    resolve(inputs, read).map(|(config, _)| config)
}

/// Reads and validates only `[server]`, for `health`.
///
/// # Errors
/// Same as [`Config::load`].
pub fn load_server(inputs: &Inputs<'_>) -> Result<ServerConfig, ConfigError> {
    resolve(inputs, ServerConfig::read).map(|(config, _)| config)
}

/// Reads and validates only `[dev]` and `[log]`, the sections that `dev` needs before it can set
/// the others.
///
/// # Errors
/// Same as [`Config::load`].
pub fn load_dev(inputs: &Inputs<'_>) -> Result<(DevConfig, LogConfig), ConfigError> {
    let read = |reader: &mut Reader| (DevConfig::read(reader), LogConfig::read(reader));
    resolve(inputs, read).map(|(config, _)| config)
}

/// Returns the resolved settings as TOML, with secrets masked. Each value that is not the default
/// is annotated with its source. If a Supabase project is set, a comment names its session cookie.
///
/// # Errors
/// Same as [`Config::load`].
pub fn describe(inputs: &Inputs<'_>) -> Result<String, ConfigError> {
    let (config, reader) = resolve(inputs, Config::read)?;
    let mut text = reader.describe();
    if let Some(name) = config.supabase.cookie_name() {
        text.push_str(&format!(
            "\n# Supabase's libraries name the session cookie {name}. To keep users signed in when\n\
             # createClient uses the URL of this server, set this name there (docs/nextjs.md).\n"
        ));
    }
    Ok(text)
}

/// Returns the configuration file named by the environment.
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
