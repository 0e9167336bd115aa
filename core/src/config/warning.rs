//! What to tell the operator at start about directives that this version does not act on.

use super::{Config, DIRECTIVES, Feature, Status};

/// One line for each feature that the configuration expects and this version does not have.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut by_feature: Vec<(Feature, Vec<&str>)> = Vec::new();
    for row in DIRECTIVES.iter().filter(|row| !row.is_default(config)) {
        let feature = match row.status {
            Status::Inert(feature) => feature,
            // What is refused is at its default.
            Status::Live | Status::Refused(_) => continue,
        };
        match by_feature.iter_mut().find(|(known, _)| *known == feature) {
            Some((_, names)) => names.push(row.name),
            None => by_feature.push((feature, vec![row.name])),
        }
    }
    for (feature, names) in by_feature {
        let absence = feature.absence();
        lines.push(format!(
            "WARNING this version of Shardis has {absence}: set without effect: {}",
            names.join(", ")
        ));
    }
    lines
}
