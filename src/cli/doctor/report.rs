//! The report: what each check found, as text and as JSON.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The version of the JSON report. Ids and fields are only added within a version.
const VERSION: u32 = 1;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// No problem.
    Ok,
    /// Something does not work, or will soon stop working.
    Warn,
    /// The server cannot run in this state.
    Fail,
    /// The check does not apply to this database.
    Skip,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    level: Level,
    /// The finding, without a period.
    what: String,
    /// Why it matters and what to do, in sentences.
    why: Option<String>,
    /// Statements that solve the problem.
    remedy_sql: Option<String>,
    /// The values that the finding was derived from.
    facts: Map<String, Value>,
    /// Whether the check could not be completed.
    #[serde(skip)]
    is_incomplete: bool,
    /// Whether the operator must make a choice.
    #[serde(skip)]
    needs_choice: bool,
}

impl Verdict {
    fn new(level: Level, what: impl Into<String>) -> Self {
        Self {
            level,
            what: what.into(),
            why: None,
            remedy_sql: None,
            facts: Map::new(),
            is_incomplete: false,
            needs_choice: false,
        }
    }

    pub(super) fn ok(what: impl Into<String>) -> Self {
        Self::new(Level::Ok, what)
    }

    pub(super) fn warn(what: impl Into<String>) -> Self {
        Self::new(Level::Warn, what)
    }

    pub(super) fn fail(what: impl Into<String>) -> Self {
        Self::new(Level::Fail, what)
    }

    pub(super) fn skip(what: impl Into<String>) -> Self {
        Self::new(Level::Skip, what)
    }

    /// Adds why it matters and what to do.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds statements that solve the problem.
    pub(super) fn remedy(mut self, sql: impl Into<String>) -> Self {
        self.remedy_sql = Some(sql.into());
        self
    }

    /// Adds a value that the finding was derived from.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Marks the check as one that could not be completed.
    pub(super) fn incomplete(mut self) -> Self {
        self.is_incomplete = true;
        self
    }

    /// Marks the finding as one that the operator resolves with a choice.
    pub(super) fn choice(mut self) -> Self {
        self.needs_choice = true;
        self
    }
}

/// A verdict with the id of its check.
#[derive(Debug, Serialize)]
struct Finding {
    id: &'static str,
    #[serde(flatten)]
    verdict: Verdict,
}

/// The result of the whole report, which determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No check failed.
    Good,
    /// This number of checks failed.
    Failed(usize),
    /// The database is not reachable, or a check could not be completed.
    Incomplete,
    /// The only failure is that the operator must make a choice.
    NeedsChoice,
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn add(&mut self, id: &'static str, verdict: Verdict) {
        self.0.push(Finding { id, verdict });
    }

    pub(super) fn outcome(&self) -> Outcome {
        let failures = || {
            let verdicts = self.0.iter().map(|finding| &finding.verdict);
            verdicts.filter(|verdict| verdict.level == Level::Fail)
        };
        if failures().any(|verdict| verdict.is_incomplete) {
            Outcome::Incomplete
        } else if failures().all(|verdict| verdict.needs_choice) {
            match failures().count() {
                0 => Outcome::Good,
                _ => Outcome::NeedsChoice,
            }
        } else {
            Outcome::Failed(failures().count())
        }
    }

    /// Returns the report as a JSON object on one line.
    pub(super) fn json(&self) -> String {
        let is_ok = self.outcome() == Outcome::Good;
        format!(
            "{}\n",
            json!({"version": VERSION, "ok": is_ok, "checks": self.0})
        )
    }
}

/// Formats one line per finding, followed by indented lines with the explanation and the SQL.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { id, verdict } in &self.0 {
            writeln!(f, "{:<4}  {id}: {}", verdict.level.as_str(), verdict.what)?;
            for line in verdict.why.iter().flat_map(|why| why.lines()) {
                writeln!(f, "      {line}")?;
            }
            for line in verdict.remedy_sql.iter().flat_map(|sql| sql.lines()) {
                writeln!(f, "      SQL: {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: Vec<Verdict>) -> Report {
        let mut report = Report::default();
        for verdict in verdicts {
            report.add("db.version", verdict);
        }
        report
    }

    #[test]
    fn text_and_json_contain_the_same_values() {
        let report = report(vec![
            Verdict::ok("a").fact("n", 1),
            Verdict::warn("b")
                .because("Because.")
                .remedy("select 1;\nselect 2;"),
        ]);
        assert_eq!(
            report.to_string(),
            "ok    db.version: a\n\
             warn  db.version: b\n      Because.\n      SQL: select 1;\n      SQL: select 2;\n"
        );
        let parsed: Value = serde_json::from_str(&report.json()).unwrap();
        let expected = json!({"version": 1, "ok": true, "checks": [
            {"id": "db.version", "level": "ok", "what": "a", "why": null, "remedy_sql": null,
             "facts": {"n": 1}},
            {"id": "db.version", "level": "warn", "what": "b", "why": "Because.",
             "remedy_sql": "select 1;\nselect 2;", "facts": {}},
        ]});
        assert_eq!(parsed, expected);
    }

    #[test]
    fn the_outcome_is_the_most_serious_finding() {
        let (fail, choice) = (|| Verdict::fail("a"), || Verdict::fail("b").choice());
        for (verdicts, outcome) in [
            (vec![], Outcome::Good),
            (vec![Verdict::warn("w"), Verdict::skip("s")], Outcome::Good),
            (vec![choice()], Outcome::NeedsChoice),
            (vec![choice(), fail()], Outcome::Failed(2)),
            (vec![fail(), fail().incomplete()], Outcome::Incomplete),
        ] {
            assert_eq!(report(verdicts).outcome(), outcome);
        }
    }
}
