//! Decides how to react to a failed execution of a check. [`super::checks`] carries out the
//! reaction.

use std::sync::Arc;

use super::error::ErrorKind;
use super::queries::ExecutionMode;

/// The SQLSTATE of a statement that exceeded its time limit.
pub(super) const QUERY_CANCELED: &str = "57014";

/// The purpose of an execution.
#[derive(Debug)]
pub(super) enum Stage {
    /// The execution has all inputs of an attempt that has not failed yet.
    First,
    /// The execution has one half of a set of inputs that includes a failing one.
    Narrowed,
    /// The execution has no input, to find out whether the statement fails whatever its input.
    Probe {
        /// The inputs to halve if the execution without input succeeds.
        behind: Arc<[u32]>,
        /// How the execution with these inputs failed.
        sqlstate: String,
    },
}

/// A failed execution, with all facts that determine the reaction.
pub(super) struct Failure<'a> {
    pub(super) kind: ErrorKind,
    pub(super) sqlstate: &'a str,
    pub(super) stage: &'a Stage,
    /// How the query was executed.
    pub(super) executed: ExecutionMode,
    /// The current mode of the query. Another execution may have changed it in the meantime.
    pub(super) current: ExecutionMode,
    /// Whether the query is a filter condition and not a policy.
    pub(super) is_filter: bool,
    /// Whether the query was executed in an exported snapshot.
    pub(super) is_in_snapshot: bool,
    /// Whether the query may be older than the tables that it names.
    pub(super) may_be_stale: bool,
}

/// The reaction to a failed execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Do nothing. The snapshot is lost, so the inputs have no result.
    Abandon,
    /// Wait until the database is reachable, then repeat the execution.
    Wait,
    /// Read the catalogue again.
    ReadCatalogAgain,
    /// Start again with all inputs, because the mode of the query has changed.
    Restart,
    /// Change the mode of the query, then start again with all inputs.
    SwitchMode(ExecutionMode),
    /// Count all inputs as failed.
    FailAll,
    /// Execute the statement without any input.
    Probe,
    /// Halve the inputs.
    Split,
}

impl Failure<'_> {
    /// Returns the reaction to this failure.
    pub(super) fn reaction(&self) -> Reaction {
        if self.kind == ErrorKind::Outage {
            return if self.is_in_snapshot {
                Reaction::Abandon
            } else {
                Reaction::Wait
            };
        }
        if self.may_be_stale && self.kind.is_statement_error(self.sqlstate) {
            return Reaction::ReadCatalogAgain;
        }
        if self.executed != self.current {
            return Reaction::Restart;
        }
        if let Some(mode) = self.next_mode() {
            return Reaction::SwitchMode(mode);
        }
        match self.stage {
            Stage::Probe { .. } => Reaction::FailAll,
            // Searching for the one value on which a filter fails would delay all subscribers.
            _ if self.is_filter || self.kind == ErrorKind::Unpreparable => Reaction::FailAll,
            Stage::First => Reaction::Probe,
            Stage::Narrowed => Reaction::Split,
        }
    }

    /// Returns another mode in which the query may succeed, if there is one for this error.
    fn next_mode(&self) -> Option<ExecutionMode> {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        const UNDEFINED_COLUMN: &str = "42703";
        let is_direct = matches!(self.executed, ExecutionMode::Loop | ExecutionMode::Prepared);
        match (self.kind, self.sqlstate) {
            (ErrorKind::WholeCall, _) if self.executed == ExecutionMode::Loop => {
                Some(ExecutionMode::Prepared)
            }
            (ErrorKind::Unpreparable, UNDEFINED_COLUMN) if is_direct => {
                Some(ExecutionMode::Impossible)
            }
            (_, INSUFFICIENT_PRIVILEGE)
                if is_direct && matches!(self.stage, Stage::Probe { .. }) =>
            {
                Some(ExecutionMode::Function)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Stage {
        Stage::Probe {
            behind: Arc::new([1, 2]),
            sqlstate: "22P02".to_owned(),
        }
    }

    /// Returns the failure of a policy that was executed as a prepared statement, with a catalogue
    /// that is up to date.
    fn failure<'a>(kind: ErrorKind, sqlstate: &'a str, stage: &'a Stage) -> Failure<'a> {
        Failure {
            kind,
            sqlstate,
            stage,
            executed: ExecutionMode::Prepared,
            current: ExecutionMode::Prepared,
            is_filter: false,
            is_in_snapshot: false,
            may_be_stale: false,
        }
    }

    fn stale(failure: Failure<'_>) -> Failure<'_> {
        Failure {
            may_be_stale: true,
            ..failure
        }
    }

    fn filter(failure: Failure<'_>) -> Failure<'_> {
        Failure {
            is_filter: true,
            ..failure
        }
    }

    fn in_mode(mode: ExecutionMode, failure: Failure<'_>) -> Failure<'_> {
        Failure {
            executed: mode,
            current: mode,
            ..failure
        }
    }

    #[test]
    fn each_failure_has_one_reaction() {
        use ErrorKind::{Execution, Outage, Unpreparable, WholeCall};
        use ExecutionMode::{Function, Impossible, Loop, Prepared};
        let (first, narrowed, probe) = (&Stage::First, &Stage::Narrowed, &probe());
        let (value, right, column) = ("22P02", "42501", "42703");
        let cases = [
            // The database is unreachable.
            (failure(Outage, "", first), Reaction::Wait),
            (failure(Outage, "57P01", probe), Reaction::Wait),
            (stale(failure(Outage, "", narrowed)), Reaction::Wait),
            (
                Failure {
                    is_in_snapshot: true,
                    ..failure(Outage, "", first)
                },
                Reaction::Abandon,
            ),
            // A value is at fault: the statement is tried without input, then the value is searched
            // for.
            (failure(Execution, value, first), Reaction::Probe),
            (failure(Execution, value, narrowed), Reaction::Split),
            (failure(Execution, value, probe), Reaction::FailAll),
            (stale(failure(Execution, value, first)), Reaction::Probe),
            // The value at fault is searched for in a policy, but not in a filter.
            (
                failure(Execution, QUERY_CANCELED, narrowed),
                Reaction::Split,
            ),
            (
                filter(failure(Execution, QUERY_CANCELED, first)),
                Reaction::FailAll,
            ),
            (filter(failure(Execution, value, first)), Reaction::FailAll),
            // The statement itself is at fault, while the catalogue may be stale and afterwards.
            (
                stale(failure(Execution, column, first)),
                Reaction::ReadCatalogAgain,
            ),
            (
                stale(failure(Unpreparable, "0A000", first)),
                Reaction::ReadCatalogAgain,
            ),
            (failure(Execution, column, first), Reaction::Probe),
            (failure(Unpreparable, "42883", first), Reaction::FailAll),
            (
                failure(Unpreparable, column, first),
                Reaction::SwitchMode(Impossible),
            ),
            (
                in_mode(Function, failure(Unpreparable, column, first)),
                Reaction::FailAll,
            ),
            // A missing right. Only an execution without input shows whether the right is always
            // missing.
            (failure(Execution, right, first), Reaction::Probe),
            (failure(Execution, right, narrowed), Reaction::Split),
            (
                failure(Execution, right, probe),
                Reaction::SwitchMode(Function),
            ),
            (
                in_mode(Loop, failure(Execution, right, probe)),
                Reaction::SwitchMode(Function),
            ),
            (
                in_mode(Function, failure(Execution, right, probe)),
                Reaction::FailAll,
            ),
            // A call for many identities failed as a whole.
            (
                in_mode(Loop, failure(WholeCall, right, first)),
                Reaction::SwitchMode(Prepared),
            ),
            (
                in_mode(Loop, stale(failure(WholeCall, column, first))),
                Reaction::SwitchMode(Prepared),
            ),
            // Another execution has changed the mode.
            (
                Failure {
                    current: Prepared,
                    ..in_mode(Loop, failure(WholeCall, right, first))
                },
                Reaction::Restart,
            ),
        ];
        for (index, (failure, expected)) in cases.into_iter().enumerate() {
            assert_eq!(failure.reaction(), expected, "case {index}");
        }
    }
}
