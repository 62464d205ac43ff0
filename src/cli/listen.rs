//! The flags that name the server's address, for the commands that start it or connect to it.

use std::net::IpAddr;

use clap::Args;

use crate::config::Flag;

/// The address of the listener.
#[derive(Debug, Args)]
pub(super) struct ListenArguments {
    /// Address of the server
    #[arg(long)]
    address: Option<IpAddr>,
    /// Port of the server; 0 selects any free one
    #[arg(long)]
    port: Option<u16>,
}

impl ListenArguments {
    /// Returns one setting for each flag that was given.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let address = self.address.map(|address| Flag {
            name: "--address",
            key: "server.address",
            value: address.to_string(),
        });
        let port = self.port.map(|port| Flag {
            name: "--port",
            key: "server.port",
            value: port.to_string(),
        });
        address.into_iter().chain(port).collect()
    }
}
