//! What people can do who have nothing but the public key: each attack beside somebody honest, who must not notice it.

mod close_codes;
mod memory;
mod strangers;
mod unfinished_requests;
