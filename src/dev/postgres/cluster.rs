//! The lifetime of a cluster: creation, start, stop, and its removal if it was temporary.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::ClusterError;
use super::files::{Layout, load_or_create_secret, lock_directory, lock_scratch};
use super::initialise::{check_version, initialise};
use super::options::{ClusterOptions, Storage};
use super::server::{Server, launch, launch_on_free_port, wait_for_earlier_server};
use super::user::ServerUser;
use crate::dev::binaries::Binaries;

/// A running cluster. Dropping it stops the server.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    options: ClusterOptions,
    user: Option<ServerUser>,
    password: String,
    port: u16,
    /// A standard mutex. It is held while a server starts or stops, when a concurrent caller has to
    /// wait anyway, and never across an await.
    server: Mutex<Option<Server>>,
    /// Held from before the first file access until the server has ended. Fields drop in
    /// declaration order, so the lock must stay the last one.
    _lock: File,
}

impl Cluster {
    /// Creates the cluster if necessary, starts it, and returns once it accepts connections.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let user = ServerUser::for_this_process()?;
        let (directory, lock) = match &options.storage {
            Storage::Persistent(directory) => (directory.clone(), lock_directory(directory)?),
            Storage::Scratch(parent) => lock_scratch(parent)?,
        };
        let layout = Layout::new(directory);
        if let Some(user) = &user {
            user.check_path(&layout.directory)?;
        }
        wait_for_earlier_server(&layout)?;
        if matches!(options.storage, Storage::Scratch(_)) {
            layout.clear()?;
        }
        let password = load_or_create_secret(&layout.password_file())?;
        if !layout.data().exists() {
            initialise(&options, &layout, user.as_ref(), &password)?;
        }
        check_version(&options.binaries, &layout)?;

        let (port, server) = launch_on_free_port(&options, &layout, user.as_ref())?;
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

    /// Returns the TCP port on the loopback interface. It stays the same for the lifetime of the
    /// cluster.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory with the cluster's files, password and log.
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// Returns the programs that run the cluster.
    pub fn binaries(&self) -> &Binaries {
        &self.options.binaries
    }

    /// Returns the connection string of the superuser for `database`. Contains the password.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{database}",
            self.options.superuser, self.password, self.port
        )
    }

    /// Stops the server like `pg_ctl stop -m fast`: it disconnects all clients and writes all data.
    /// Does nothing if the server is already stopped.
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
            tracing::warn!(%error, "private PostgreSQL did not stop");
        }
        if matches!(self.options.storage, Storage::Scratch(_))
            && let Err(error) = self.layout.clear()
        {
            tracing::warn!(%error, "scratch directory was not removed");
        }
    }
}
