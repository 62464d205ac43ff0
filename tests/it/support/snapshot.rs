//! Snapshots are committed copies of texts that clients and operators read. They are compared
//! letter by letter.
//!
//! `CONTRIBUTING.md` describes how to review a difference.

use insta::Settings;

/// Returns settings under which `assert_snapshot!` compares a text after these replacements. Each
/// replacement is a regular expression and its substitute. They remove the parts that differ
/// between runs and versions of PostgreSQL. The snapshots are in `snapshots/` next to the test. A
/// file name contains only the name of its snapshot.
pub(crate) fn redacted(replacements: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in replacements {
        settings.add_filter(pattern, *replacement);
    }
    settings
}
