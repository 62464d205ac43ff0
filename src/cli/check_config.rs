//! `rapport check-config`: prints the resolved settings.

use super::{CliError, print};
use crate::config::{Inputs, describe};

/// Prints the effective settings.
pub(super) fn run(inputs: &Inputs<'_>) -> Result<(), CliError> {
    print(&describe(inputs)?)
}
