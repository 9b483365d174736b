//! What was measured.

use serde_json::{Map, Value, json};
use std::fmt;

/// One number, and its ratios to others of the same run.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    beside: Vec<(String, f64)>,
}

/// All figures of a run, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Figures {
    figures: Vec<Figure>,
}

impl Figures {
    /// Notes a figure and says it at once; `beside` are its ratios to other figures. A ratio that is no number is left out: that other
    /// thing was not measured.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str, beside: &[(&str, f64)]) {
        println!("    {name}: {} {unit}", rounded(value));
        let known = beside.iter().filter(|(_, ratio)| ratio.is_finite());
        let beside = known.map(|(name, ratio)| ((*name).to_owned(), *ratio)).collect();
        self.figures.push(Figure { name: name.to_owned(), value, unit, beside });
    }

    /// A figure that was measured in this run.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    pub(crate) fn to_json(&self) -> String {
        let of_figure = |figure: &Figure| {
            let ratios: Map<String, Value> = figure
                .beside
                .iter()
                .map(|(name, ratio)| (name.clone(), json!(three_digits(*ratio))))
                .collect();
            let beside = if ratios.is_empty() { Value::Null } else { Value::Object(ratios) };
            json!({"name": figure.name, "value": three_digits(figure.value), "unit": figure.unit, "beside": beside})
        };
        let figures: Vec<Value> = self.figures.iter().map(of_figure).collect();
        format!("{:#}\n", json!({ "figures": figures }))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Figure { name, value, unit, beside } in &self.figures {
            write!(f, "{name:<42} {:>10} {unit:<6}", rounded(*value))?;
            for (other, ratio) in beside {
                write!(f, "  {ratio:.2} × {other}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn three_digits(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rounded(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_with_their_ratios() {
        let mut figures = Figures::default();
        figures.add("a_per_s", 50.0, "1/s", &[("limit_per_s", 0.25), ("not_installed", 50.0 / 0.0)]);
        figures.add("b_ms", 1.5, "ms", &[]);
        let json: Value = serde_json::from_str(&figures.to_json()).unwrap();
        let a = json!({"name": "a_per_s", "value": 50.0, "unit": "1/s", "beside": {"limit_per_s": 0.25}});
        assert_eq!(json["figures"][0], a);
        assert_eq!(json["figures"][1]["beside"], Value::Null);
        assert!(figures.to_string().contains("0.25 × limit_per_s"));
        assert_eq!((figures.value("b_ms"), figures.value("c_ms")), (Some(1.5), None));
    }
}
