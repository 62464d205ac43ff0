//! `rapport check-config`: what the settings come to.

use super::{CliError, print};
use crate::config::{Inputs, describe};

/// Prints the settings in force.
pub(super) fn run(inputs: &Inputs<'_>) -> Result<(), CliError> {
    print(&describe(inputs)?)
}
