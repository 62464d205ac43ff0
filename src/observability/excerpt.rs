//! Cuts texts for the log.
//!
//! Clients choose some of the texts that are logged: methods, topics, and values that the database
//! repeats in its error messages. Without a limit, a client could fill the log with few requests.

use std::fmt::{self, Display, Write as _};

/// Maximum length of an excerpt, in characters. The messages of PostgreSQL are shorter unless they
/// repeat a value.
const MAX_CHARACTERS: usize = 500;

/// A text or error of which only the beginning is displayed, on one line. Use it for every logged
/// value that may contain a text of a client.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<T>(pub T);

impl<T: Display> Display for Excerpt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cut = Cut {
            to: f,
            left: MAX_CHARACTERS,
            is_cut: false,
            has_failed: false,
        };
        // The end of the excerpt is reported as an error, so that nothing more is formatted.
        let result = write!(cut, "{}", self.0);
        let (is_cut, has_failed) = (cut.is_cut, cut.has_failed);
        if has_failed || (result.is_err() && !is_cut) {
            return Err(fmt::Error);
        }
        if is_cut {
            f.write_char('…')?;
        }
        Ok(())
    }
}

/// Passes on the first characters, and replaces control characters by spaces.
struct Cut<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    left: usize,
    is_cut: bool,
    has_failed: bool,
}

impl fmt::Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.is_cut = true;
                return Err(fmt::Error);
            }
            self.left -= 1;
            let written = self.to.write_char(if c.is_control() { ' ' } else { c });
            self.has_failed |= written.is_err();
            written?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_is_displayed_on_one_line() {
        let long = "é".repeat(60_000);
        let shown = Excerpt(&long).to_string();
        assert_eq!(shown.chars().count(), MAX_CHARACTERS + 1);
        assert!(shown.ends_with("é…"));
        let whole = "é".repeat(MAX_CHARACTERS);
        assert_eq!(Excerpt(&whole).to_string(), whole);
        assert_eq!(Excerpt("a\nb\u{1b}[0m").to_string(), "a b [0m");
    }

    #[test]
    fn an_error_of_the_value_is_an_error() {
        struct Failing;
        impl Display for Failing {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let mut text = String::new();
        assert!(write!(text, "{}", Excerpt(Failing)).is_err());
    }
}
