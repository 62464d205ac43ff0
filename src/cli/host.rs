//! `rapport host`: shows where the users and teams of the application can be found, or chooses one
//! of these sources.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::migrate::{connect, options};
use super::{CliError, print, runtime};
use crate::config::{HostPreset, Inputs, MigrateConfig};
use crate::observability::logging;
use crate::schema::{self, HostChoice, HostReport, InstallOptions};
use crate::shutdown::Tasks;

/// The version of the JSON report. Fields are only added within a version.
const VERSION: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct HostArguments {
    /// Print the report as JSON
    #[arg(long, conflicts_with = "preset")]
    json: bool,
    /// Find users and teams by this preset, and update the schema like `rapport migrate`
    #[arg(long = "use", value_name = "NAME", value_parser = PossibleValuesParser::new(HostPreset::NAMES))]
    preset: Option<String>,
}

/// Shows the presets, or puts one into force.
pub(super) fn run(arguments: &HostArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    let config = MigrateConfig::load(inputs)?;
    logging::start(&config.log)?;
    runtime()?.block_on(async {
        let tasks = Tasks::new();
        match &arguments.preset {
            Some(preset) => choose(&config, preset, &tasks).await,
            None => {
                let report = schema::host_report(&mut connect(&config, &tasks).await?).await?;
                print(&if arguments.json {
                    as_json(&report)
                } else {
                    as_text(&report)
                })?;
                match report.auto {
                    HostChoice::Preset(_) => Ok(()),
                    HostChoice::Undecided(_) => Err(CliError::ChoiceNeeded),
                }
            }
        }
    })
}

async fn choose(config: &MigrateConfig, preset: &str, tasks: &Tasks) -> Result<(), CliError> {
    let configured = config.chat.host_preset;
    if configured != HostPreset::AUTO && configured.as_str() != preset {
        return Err(CliError::PresetConfigured {
            configured: configured.as_str(),
            wanted: preset.to_owned(),
        });
    }
    let options = InstallOptions {
        host_preset: preset.to_owned(),
        ..options(&config.supabase, &config.chat)
    };
    let installed = schema::install(&mut connect(config, tasks).await?, &options).await?;
    print(&format!(
        "Users and teams are found by: {}\n",
        installed.host_preset
    ))
}

fn as_text(report: &HostReport) -> String {
    let in_force = report.in_force.as_deref().unwrap_or("none");
    let auto = match &report.auto {
        HostChoice::Preset(preset) => preset,
        HostChoice::Undecided(reason) => reason,
    };
    format!(
        "In force: {in_force}\nauto: {auto}\n\n{}\n",
        report.description
    )
}

fn as_json(report: &HostReport) -> String {
    let (auto, problem) = match &report.auto {
        HostChoice::Preset(preset) => (Value::from(preset.as_str()), Value::Null),
        HostChoice::Undecided(reason) => (Value::Null, Value::from(reason.as_str())),
    };
    let report = json!({
        "version": VERSION,
        "in_force": report.in_force,
        "auto": auto,
        "problem": problem,
        "candidates": report.candidates,
    });
    format!("{report}\n")
}
