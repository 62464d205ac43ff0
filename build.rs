//! Declares the SQL files as inputs of the build, and lists the files of the demonstration page.
//!
//! A macro embeds the SQL files in a way that Cargo does not track, so without the declaration a
//! changed file would not trigger a rebuild. The page's files have names with hashes that change
//! with each build of the page, so no source file can name them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The folder of the page. It may be empty or absent.
const DEMO: &str = "assets/demo";

/// Describes the folder and is not part of the page.
const README: &str = "README.md";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=sql");
    println!("cargo::rerun-if-changed={DEMO}");
    let variable = |name| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let folder = variable("CARGO_MANIFEST_DIR").join(DEMO);
    let mut files = Vec::new();
    walk(&folder, &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&folder).unwrap_or(file);
        let name = name.to_string_lossy().replace('\\', "/");
        if name != README {
            // `{:?}` of a string is a Rust literal.
            let path = file.to_string_lossy();
            let _ = writeln!(list, "    ({name:?}, include_bytes!({path:?})),");
        }
    }
    list.push_str("]\n");
    fs::write(variable("OUT_DIR").join("demo_files.rs"), list)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
