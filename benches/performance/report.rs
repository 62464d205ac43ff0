//! The output of a benchmark: one JSON line for each row.

use serde_json::{Value, json};

/// Whether higher or lower values of a figure are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A figure with its required floor and its goal.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) better: Better,
    pub(crate) floor: f64,
    pub(crate) goal: f64,
}

impl Figure {
    fn reaches(&self, bound: f64) -> bool {
        match self.better {
            Better::Higher => self.value >= bound,
            Better::Lower => self.value <= bound,
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "value": rounded(self.value),
            "floor": self.floor, "goal": self.goal,
            "floor_holds": self.reaches(self.floor), "goal_holds": self.reaches(self.goal),
        })
    }
}

/// The result of a row.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    /// Number of measurements. In a comparison, each side was measured this often.
    pub(crate) runs: usize,
    /// Other measurements.
    pub(crate) detail: Value,
    /// Failures other than low speed, for example lost or repeated messages.
    pub(crate) faults: Vec<String>,
}

impl Outcome {
    /// Returns the line to print.
    pub(crate) fn line(&self, row: u32, what: &str) -> Value {
        json!({
            "row": row, "what": what, "runs": self.runs,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "floor_holds": self.figures.iter().all(|figure| figure.reaches(figure.floor)),
            "goal_holds": self.figures.iter().all(|figure| figure.reaches(figure.goal)),
            "detail": self.detail, "faults": self.faults,
        })
    }
}

/// Returns the median, or 0 without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 0 => f64::midpoint(values[upper - 1], values[upper]),
        _ => values[upper],
    }
}

/// Rounds to four significant digits, because more digits would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powf(3.0 - value.abs().log10().floor());
    let rounded = (value * scale).round() / scale;
    if rounded.abs() >= 1000.0 {
        rounded.round()
    } else {
        rounded
    }
}
