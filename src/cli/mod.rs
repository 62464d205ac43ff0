//! The command line: parses arguments and runs the commands.

mod check_config;
mod dev;
mod doctor;
mod health;
mod host;
mod listen;
mod migrate;
mod open_files;
mod serve;
mod service_manager;
mod sql_files;
mod stop;
mod token;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::StartError;
use crate::auth::KeyError;
use crate::config::source::ProcessEnvironment;
use crate::config::{ConfigError, Flag, Inputs, file_from};
use crate::db::connect::ConnectError;
use crate::dev::binaries::BinariesError;
use crate::dev::keys::KeysError;
use crate::dev::npm::NpmError;
use crate::dev::postgres::ClusterError;
use crate::dev::sign_in::SignInError;
use crate::observability::logging::LoggingError;
use crate::schema::SchemaError;

/// Real-time chat between users, alongside Supabase or plain PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "rapport", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help = "Configuration file (TOML) [env: RAPPORT_CONFIG]"
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run with a private PostgreSQL, the schema, keys and five demonstration users
    Dev(dev::DevArguments),
    /// Run with the configured database
    Serve(serve::ServeArguments),
    /// Update the configured database to this version's schema
    Migrate(migrate::MigrateArguments),
    /// Check that the configured database has what the server needs
    Doctor(doctor::DoctorArguments),
    /// Ask the configured server whether it is running
    Health(health::HealthArguments),
    /// Show where users and teams can be found, or choose it
    Host(host::HostArguments),
    /// Print a token signed with the configured secret
    Token(token::TokenArguments),
    /// Print the effective settings with their sources, secrets masked
    CheckConfig,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    #[error(transparent)]
    Npm(#[from] NpmError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Sign(#[from] KeyError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
    #[error("{}", with_source(.0))]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Health(#[from] health::HealthError),
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    #[error("The process could not be set up: {0}")]
    Process(#[source] io::Error),
    #[error("There is no home directory for the database. Name a directory with --data-dir.")]
    NoHome,
    #[error(
        "Signing a token requires `auth.jwt_secret`, which is not set. Set SUPABASE_JWT_SECRET."
    )]
    NoSecret,
    #[error("The server was not ready within {0} s; see the log above.")]
    NotReady(u64),
    #[error("{0} of the checks above failed.")]
    ChecksFailed(usize),
    #[error("Not all checks could be made; see above.")]
    ChecksIncomplete,
    #[error("Choose where users and teams are found, with `rapport host --use NAME`.")]
    ChoiceNeeded,
    #[error(
        "The setting `chat.host_preset` is {configured}, and `rapport migrate` would put it into \
         force again. Change the setting to {wanted}, or to auto."
    )]
    PresetConfigured {
        configured: &'static str,
        wanted: String,
    },
    #[error("The shutdown was forced while tasks were still running.")]
    ForcedStop,
}

/// The exit code of `rapport doctor` if it could not examine the database completely.
const CANNOT_LOOK: u8 = 2;

/// The exit code of a command that needs a decision by the operator and has changed nothing.
const NEEDS_CHOICE: u8 = 3;

impl CliError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::ChecksIncomplete => CANNOT_LOOK.into(),
            Self::Schema(SchemaError::HostUndecided(_)) | Self::ChoiceNeeded => NEEDS_CHOICE.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Formats a connection error with the driver's reason. The error's own text states only what was
/// tried.
fn with_source(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

/// Runs the command given on the command line.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = ProcessEnvironment;
    let inputs = |flags: Vec<Flag>| Inputs {
        file: arguments.config.clone().or_else(|| file_from(&environment)),
        environment: &environment,
        flags,
    };
    let result = match &arguments.command {
        Command::Dev(dev) => dev::run(dev, inputs),
        Command::Serve(serve) => serve::run(serve, inputs),
        Command::Migrate(migrate) => migrate::run(migrate, &inputs(Vec::new())),
        Command::Doctor(doctor) => doctor::run(doctor, &inputs(Vec::new())),
        Command::Health(health) => health::run(health, inputs),
        Command::Host(host) => host::run(host, &inputs(Vec::new())),
        Command::Token(token) => token::run(token, &inputs(Vec::new())),
        Command::CheckConfig => check_config::run(&inputs(Vec::new())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If writing fails, standard error is closed, and the error cannot be reported.
            let _ = writeln!(io::stderr(), "rapport: {error}");
            error.exit_code()
        }
    }
}

/// Prints `text`. A closed pipe (`rapport token | head -c0`) is not an error.
fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::File("standard output".to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Creates the Tokio runtime for all asynchronous work.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Process)
}
