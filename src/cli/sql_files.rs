//! The files that `rapport migrate --sql --parts` and `rapport migrate --supabase` write.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::CliError;
use crate::schema::{Contained, IfNewer, InstallOptions, parts};

/// The format of the time in front of a migration's name, which the Supabase CLI requires.
const TIME: &str = "%Y%m%d%H%M%S";

/// Follows the time in the names of Rapport's files in `supabase/migrations`.
const INFIX: &str = "_rapport_";

/// Writes the whole schema to numbered files in `directory`, which replace the numbered files of
/// an earlier run. Returns the paths in the order in which the files must be run.
pub(super) fn write_parts(
    directory: &Path,
    options: &InstallOptions,
) -> Result<Vec<PathBuf>, CliError> {
    let texts = parts(options, &Contained::default(), IfNewer::Refuse)?;
    create(directory)?;
    // Files of an earlier version with more parts would be run by mistake.
    for (name, path) in sql_files(directory)? {
        if is_part(&name) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    let count = texts.len();
    write(texts.into_iter().zip(1..).map(|(text, number)| {
        (
            directory.join(format!("rapport_{number}_of_{count}.sql")),
            text,
        )
    }))
}

/// Writes what the files in `directory` lack to new files, and changes no existing file. Returns
/// the paths of the new files.
pub(super) fn write_supabase_migrations(
    directory: &Path,
    options: &InstallOptions,
) -> Result<Vec<PathBuf>, CliError> {
    create(directory)?;
    let mut earlier = Contained::default();
    let mut number = 0;
    let mut newest = None;
    for (name, path) in sql_files(directory)? {
        let time = name.split('_').next().unwrap_or_default();
        newest = newest.max(DateTime::strptime(TIME, time).ok());
        if name.contains(INFIX) {
            earlier.add(&fs::read_to_string(&path).map_err(failed(&path))?);
            number += 1;
        }
    }
    // The CLI refuses a file whose time is before that of the newest applied one.
    let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
    let after = newest.and_then(|newest| newest.checked_add(1.second()).ok());
    let mut time = after.map_or(now, |after| after.max(now));
    let mut files = Vec::new();
    for text in parts(options, &earlier, IfNewer::Skip)? {
        number += 1;
        let name = format!("{}{INFIX}{number}.sql", time.strftime(TIME));
        files.push((directory.join(name), text));
        time = time.saturating_add(1.second());
    }
    write(files.into_iter())
}

/// Returns whether `name` is `rapport_<number>_of_<number>.sql`.
fn is_part(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    name.strip_prefix("rapport_")
        .and_then(|rest| rest.strip_suffix(".sql"))
        .and_then(|rest| rest.split_once("_of_"))
        .is_some_and(|(number, count)| is_number(number) && is_number(count))
}

fn write(files: impl Iterator<Item = (PathBuf, String)>) -> Result<Vec<PathBuf>, CliError> {
    files
        .map(|(path, text)| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(failed(&path))?;
            Ok(path)
        })
        .collect()
}

fn create(directory: &Path) -> Result<(), CliError> {
    fs::create_dir_all(directory).map_err(failed(directory))
}

/// Returns the names and paths of the SQL files directly in `directory`, sorted by name.
fn sql_files(directory: &Path) -> Result<Vec<(String, PathBuf)>, CliError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".sql") {
            found.push((name.into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.display().to_string();
    |error| CliError::File(path, error)
}
