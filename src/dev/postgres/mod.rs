//! A private PostgreSQL cluster: made, started, stopped, and never left behind.
//!
//! Guarantees: it listens on the loopback interface only and asks for a password; one process
//! at a time uses a directory; when this process ends in any way, `kill -9` included, the
//! kernel tells the server to shut down (on Linux).
//! Everything here blocks; asynchronous callers go through `spawn_blocking`.

mod error;
mod files;
mod initialise;
mod server;
mod system_call;
mod user;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use error::ClusterError;
pub use files::kept_secret;
pub use user::effective_user;

use super::binaries::Binaries;
use files::{Layout, claim, claim_scratch};
use initialise::{check_version, initialise};
use server::{Server, launch, launch_on_a_port, wait_for_earlier_server};
use user::ServerUser;

/// The usual superuser: the name every tool tries first.
pub const SUPERUSER: &str = "postgres";

/// Where a cluster's files live and how long.
#[derive(Clone, Debug)]
pub enum Storage {
    /// This directory, kept between starts, together with its password and its port.
    Kept(PathBuf),
    /// The first unused numbered directory below this one: emptied before, removed on stop.
    /// One left behind by a killed process is taken over, so that leftovers do not pile up.
    Scratch(PathBuf),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The programs to run.
    pub binaries: Binaries,
    /// The name of the superuser that `initdb` creates, usually [`SUPERUSER`].
    pub superuser: &'static str,
    /// Where the files live.
    pub storage: Storage,
    /// The port to listen on; `None` takes the one used before if it is free, else any.
    pub port: Option<u16>,
    /// Settings that replace those of `config/postgresql.dev.conf`: name and value.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// A running cluster. Stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    options: ClusterOptions,
    user: Option<ServerUser>,
    password: String,
    port: u16,
    /// A standard mutex: it is held while a server starts or stops, which only callers that
    /// want the same wait for, and never across an await.
    server: Mutex<Option<Server>>,
    /// Held from before the first file is touched until after the server has ended. The last
    /// field, so that it is released last.
    _lock: File,
}

impl Cluster {
    /// Makes the cluster if there is none, starts it, and returns when it takes connections.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let user = ServerUser::for_this_process()?;
        let (directory, lock) = match &options.storage {
            Storage::Kept(directory) => (directory.clone(), claim(directory)?),
            Storage::Scratch(parent) => claim_scratch(parent)?,
        };
        let layout = Layout::new(directory);
        if let Some(user) = &user {
            user.check_path(&layout.directory)?;
        }
        wait_for_earlier_server(&layout)?;
        if matches!(options.storage, Storage::Scratch(_)) {
            layout.clear()?;
        }
        let password = kept_secret(&layout.password_file())?;
        if !layout.data().exists() {
            initialise(&options, &layout, user.as_ref(), &password)?;
        }
        check_version(&options.binaries, &layout)?;

        let (port, server) = launch_on_a_port(&options, &layout, user.as_ref())?;
        Ok(Self {
            layout,
            options,
            user,
            password,
            port,
            server: Mutex::new(Some(server)),
            _lock: lock,
        })
    }

    /// The TCP port on the loopback interface; the same for the cluster's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the cluster's files, its password and its log.
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// The programs the cluster runs on.
    pub fn binaries(&self) -> &Binaries {
        &self.options.binaries
    }

    /// The connection string of the superuser for `database`. Contains the password.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{database}",
            self.options.superuser, self.password, self.port
        )
    }

    /// Stops the server as `pg_ctl stop -m fast` does: sessions are cut, everything is written.
    /// Nothing happens when it is stopped already.
    pub fn stop(&self) -> Result<(), ClusterError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        match server.take() {
            Some(running) => running.stop(&self.layout),
            None => Ok(()),
        }
    }

    /// Starts the server again after [`Cluster::stop`], on the same port.
    pub fn resume(&self) -> Result<(), ClusterError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            *server = Some(launch(
                &self.options,
                &self.layout,
                self.user.as_ref(),
                self.port,
            )?);
        }
        Ok(())
    }

    /// Stops the server and starts it again on the same port.
    pub fn restart(&self) -> Result<(), ClusterError> {
        self.stop()?;
        self.resume()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the private PostgreSQL did not stop");
        }
        if matches!(self.options.storage, Storage::Scratch(_))
            && let Err(error) = self.layout.clear()
        {
            tracing::warn!(%error, "the scratch directory was not removed");
        }
    }
}
