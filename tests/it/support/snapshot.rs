//! Snapshots: committed copies of what clients and operators read, compared letter by letter.
//!
//! `CONTRIBUTING.md` describes how to review a difference.

use insta::Settings;

/// Settings under which `assert_snapshot!` compares a text after these replacements, each a regular
/// expression and its replacement. They remove what differs between runs and versions of
/// PostgreSQL. The snapshots are in `snapshots/` beside the test, and their name is the only part
/// of the file name.
pub(crate) fn redacted(replacements: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in replacements {
        settings.add_filter(pattern, *replacement);
    }
    settings
}
