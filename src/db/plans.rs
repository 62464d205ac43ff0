//! The plans of statements that run for many callers.

/// A condition on `f`, a row of `pg_proc`: whether a statement that calls this function must be
/// planned again for each caller.
///
/// PostgreSQL may evaluate an immutable function while it plans. An application may have declared a
/// function immutable although its result depends on the caller, so a plan can contain the result
/// for one caller. Rapport's immutable functions depend only on their arguments. They are exempt,
/// because planning for each caller can cost more than the rest of a check.
pub const MUST_PLAN_PER_CALLER: &str = "(f.provolatile = 'i' \
     and f.pronamespace is distinct from pg_catalog.to_regnamespace('chat'))";
