//! Writes the figures of a full run between two markers in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Failure;

/// The marker before the figures.
const BEGIN: &str = "<!-- figures: written by scripts/bench-all -->\n";
/// The marker after the figures.
const END: &str = "<!-- end of figures -->\n";

/// Replaces the figures in `document` with those in `results`.
pub(crate) fn publish(results: &Path, document: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(document)?;
    let marks = "the document has no markers for the figures";
    let (before, rest) = text.split_once(BEGIN).ok_or(marks)?;
    let (_, after) = rest.split_once(END).ok_or(marks)?;
    let figures = figures(&fs::read_to_string(results)?)?;
    fs::write(document, format!("{before}{BEGIN}{figures}{END}{after}"))?;
    Ok(())
}

fn figures(lines: &str) -> Result<String, Failure> {
    let mut out = format!("\n{}\n\n", machine());
    out.push_str("| row | what | figure | measured | floor | goal | holds |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let result: Value = serde_json::from_str(line)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for figure in result["figures"].as_array().into_iter().flatten() {
            let holds = match (&figure["goal_holds"], &figure["floor_holds"]) {
                (Value::Bool(true), _) => "goal",
                (_, Value::Bool(true)) => "floor",
                _ => "no",
            };
            let unit = text(&figure["unit"]);
            let quantity = |key: &str| with_unit(figure[key].as_f64(), &unit);
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {holds} |",
                result["row"],
                text(&result["what"]),
                text(&figure["name"]),
                quantity("value"),
                quantity("floor"),
                quantity("goal"),
            )?;
        }
    }
    out.push('\n');
    Ok(out)
}

/// Formats a share as a percentage, and any other value with its unit. Thousands are separated.
fn with_unit(value: Option<f64>, unit: &str) -> String {
    let Some(value) = value else {
        return "–".to_owned();
    };
    if unit == "share" {
        return format!("{:.0} %", 100.0 * value);
    }
    if value < 1000.0 {
        return format!("{value} {unit}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {unit}")
}

/// Returns a sentence that describes the machine and the date.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cpuinfo = read("/proc/cpuinfo");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory
        .split(' ')
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    format!(
        "Measured on {}: {cores} cores ({}), {} GiB of memory, Linux {}, PostgreSQL {}.",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        field(&cpuinfo, "model name"),
        (kib as f64 / (1 << 20) as f64).round(),
        read("/proc/sys/kernel/osrelease").trim(),
        rapport::dev::binaries::Binaries::find(None)
            .map_or_else(|_| "unknown".to_owned(), |found| found.major().to_string()),
    )
}
