//! Creates, starts and stops a private PostgreSQL cluster.
//!
//! The server listens only on the loopback interface and requires a password. Only one process at a
//! time uses a directory. On Linux, the kernel shuts the server down when this process ends, even
//! after `kill -9`.
//!
//! Every function blocks; asynchronous callers use `spawn_blocking`.

mod cluster;
mod error;
mod files;
mod initialise;
mod options;
mod server;
mod system_call;
mod user;

pub use cluster::Cluster;
pub use error::ClusterError;
pub use files::load_or_create_secret;
pub use options::{ClusterOptions, SUPERUSER, Storage};
pub use user::effective_user;
