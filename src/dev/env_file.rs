//! Writes a file of variables in the format of `supabase status -o env`, for scripts and tests.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces `path` with `variables` atomically: a reader sees either the previous file, if there
/// was one, or the complete new one. The file is readable only by its owner because it contains
/// keys.
///
/// # Errors
/// Fails if the directory is not writable.
pub fn write(path: &Path, variables: &[(String, String)]) -> io::Result<()> {
    let mut unfinished = PathBuf::from(path).into_os_string();
    // The process id keeps two servers with the same target file from writing to one temporary
    // file.
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    let written = file
        .write_all(render(variables).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Renders one `NAME="value"` per line, quoted for a shell. The four escaped characters are special
/// inside double quotes (POSIX Shell Command Language, 2.2.3).
fn render(variables: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '$' | '`') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_the_file_is_private() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.env");
        let variables = [
            ("A".to_owned(), "x y".to_owned()),
            ("B".to_owned(), "\"$`\\".to_owned()),
        ];
        write(&path, &variables).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "A=\"x y\"\nB=\"\\\"\\$\\`\\\\\"\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
