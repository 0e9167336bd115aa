//! LATENCY GRAPH: samples as columns of characters, as Redis draws them.

use crate::worker::latency::Series;

/// So many samples stand side by side.
const COLUMNS: usize = 80;
const ROWS: usize = 4;
/// How a row shows a third, two thirds, and all of its height.
const STEPS: [u8; 3] = *b"_o#";
const FULL: u8 = b'|';

/// The graph of an event: a heading, a line, and for each 80 samples the columns with how long ago each was below it.
pub(super) fn graph(event: &[u8], series: &Series, now_s: i64) -> Vec<u8> {
    let columns: Vec<Column> = series
        .samples
        .iter()
        .map(|sample| Column { value: sample.latency_ms, label: age(now_s - sample.at_s) })
        .collect();
    let values = || columns.iter().map(|column| column.value);
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let heading = format!(" - high {high} ms, low {low} ms (all time high {} ms)\n", series.latency_max_ms);

    let mut graph = [event, heading.as_bytes(), &[b'-'; COLUMNS], b"\n"].concat();
    for (number, columns) in columns.chunks(COLUMNS).enumerate() {
        if number > 0 {
            graph.push(b'\n');
        }
        draw(columns, low, high, &mut graph);
    }
    graph
}

struct Column {
    value: u64,
    /// Written downwards below the column.
    label: String,
}

fn draw(columns: &[Column], low: u64, high: u64, graph: &mut Vec<u8>) {
    let steps = ROWS * STEPS.len();
    let range = (high - low).max(1) as f64;
    let step = |column: &Column| {
        let share = (column.value - low) as f64 * steps as f64 / range;
        (share as usize).min(steps - 1)
    };
    for row in (0..ROWS).rev() {
        graph.extend(columns.iter().map(|column| match step(column).checked_sub(row * STEPS.len()) {
            None => b' ',
            Some(above) => STEPS.get(above).copied().unwrap_or(FULL),
        }));
        graph.push(b'\n');
    }
    graph.extend(columns.iter().map(|_| b' '));
    graph.push(b'\n');
    let label_len_max = columns.iter().map(|column| column.label.len()).max().unwrap_or(0);
    for at in 0..label_len_max {
        graph.extend(columns.iter().map(|column| column.label.as_bytes().get(at).copied().unwrap_or(b' ')));
        graph.push(b'\n');
    }
}

/// How long ago something was, in the largest unit that fits.
fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400.. => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::latency::Sample;

    /// What redis-server 7.0.15 draws for the same samples.
    #[test]
    fn a_graph_has_a_column_for_each_sample() {
        let samples = [(0, 300), (50, 400), (3000, 500), (90_000, 350)]
            .map(|(ago_s, latency_ms)| Sample { at_s: 100_000 - ago_s, latency_ms });
        let series = Series { samples: samples.into_iter().rev().collect(), latency_max_ms: 600 };
        let expected = format!(
            "command - high 500 ms, low 300 ms (all time high 600 ms)\n{}\n{}",
            "-".repeat(80),
            " #  \n |_ \n_|| \n|||_\n    \n1550\nd00s\n ms \n"
        );
        let drawn = graph(b"command", &series, 100_000);
        assert_eq!(String::from_utf8_lossy(&drawn), expected);
    }

    #[test]
    fn samples_that_are_all_alike_are_low() {
        let series =
            Series { samples: [Sample { at_s: 10, latency_ms: 7 }].into_iter().collect(), latency_max_ms: 7 };
        let drawn = graph(b"x", &series, 10);
        assert!(drawn.ends_with(b"-\n \n \n \n_\n \n0\ns\n"), "{}", String::from_utf8_lossy(&drawn));
    }
}
