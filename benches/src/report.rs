//! Results: tables on the terminal while they grow, and a dated Markdown file with all that is needed to judge them:
//! the machine, the versions, the exact command, how noisy it was.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Result};
use crate::proc;
use crate::server::Server;
use crate::sys;

/// Whether a bar was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
}

impl Verdict {
    /// A measured figure against the most that it may be.
    pub fn at_most(measured: f64, bar: f64) -> Verdict {
        if measured <= bar { Verdict::Pass } else { Verdict::Fail }
    }

    pub fn text(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
        }
    }
}

/// A table whose first column is text and whose others are figures.
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Table {
        Table { header: header.map(str::to_string).to_vec(), rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.header.len(), "a row has a cell for every column");
        self.rows.push(cells.to_vec());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As Markdown, padded so that it reads well unrendered too.
    pub fn to_markdown(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|at| {
                self.rows.iter().chain([&self.header]).map(|row| row[at].chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
                if at == 0 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") }
            });
            format!("|{}\n", cells.collect::<String>())
        };
        let rule = widths.iter().enumerate().map(|(at, &width)| {
            if at == 0 {
                format!("{}|", "-".repeat(width + 2))
            } else {
                format!("{}:|", "-".repeat(width + 1))
            }
        });
        let mut text = line(&self.header);
        let _ = writeln!(text, "|{}", rule.collect::<String>());
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

/// Grows while a bench runs; everything said goes to the terminal at once.
pub struct Report {
    name: String,
    title: String,
    body: String,
    servers: Vec<String>,
    steal_at_start: Option<(u64, u64)>,
    load_at_start: String,
    pub verdicts: Vec<(String, Verdict)>,
}

impl Report {
    /// `name` goes into the file's name, `title` over it.
    pub fn new(name: &str, title: &str) -> Report {
        println!("# {title}\n");
        Report {
            name: name.to_string(),
            title: title.to_string(),
            body: String::new(),
            servers: Vec::new(),
            steal_at_start: proc::steal_and_total_ticks(),
            load_at_start: fs::read_to_string("/proc/loadavg").unwrap_or_default(),
            verdicts: Vec::new(),
        }
    }

    pub fn server(&mut self, server: &Server) {
        let mut line = format!("{}: {} ({})", server.program.name, server.version, server.details);
        if !server.program.args.is_empty() {
            let _ = write!(line, ", started with {}", server.program.args.join(" "));
        }
        if !self.servers.contains(&line) {
            println!("{line}");
            self.servers.push(line);
        }
    }

    pub fn paragraph(&mut self, text: &str) {
        println!("\n{text}");
        let _ = writeln!(self.body, "\n{text}");
    }

    pub fn table(&mut self, heading: &str, table: &Table) {
        println!("\n## {heading}\n\n{}", table.to_markdown());
        let _ = write!(self.body, "\n## {heading}\n\n{}", table.to_markdown());
    }

    pub fn verdict(&mut self, what: &str, verdict: Verdict) {
        self.verdicts.push((what.to_string(), verdict));
    }

    /// Writes `DIR/YYYY-MM-DD-NAME.md` and says whether every bar was held. A result of the same day and name is
    /// replaced.
    pub fn finish(self, dir: &Path) -> Result<Verdict> {
        let failed = self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Fail).count();
        let mut text = format!("# {}\n\n", self.title);
        let date = date_of(sys::wall_clock_ns() / 1_000_000_000);
        let _ = writeln!(text, "- date: {date}");
        let _ = writeln!(text, "- command: `{}`", command_line());
        let _ = writeln!(text, "- machine: {}", machine());
        let _ = writeln!(text, "- noise: {}", self.noise());
        let _ = writeln!(text, "- source: {}", source_version());
        self.servers.iter().for_each(|server| {
            let _ = writeln!(text, "- {server}");
        });
        if !self.verdicts.is_empty() {
            let summary = format!("{} of {} bars held", self.verdicts.len() - failed, self.verdicts.len());
            println!("\n{summary}");
            let _ = writeln!(text, "- bars: {summary}");
        }
        text.push_str(&self.body);

        fs::create_dir_all(dir).context(|| dir.display().to_string())?;
        let path: PathBuf = dir.join(format!("{date}-{}.md", self.name));
        fs::write(&path, text).context(|| path.display().to_string())?;
        println!("\nwritten to {}", path.display());
        Ok(if failed == 0 { Verdict::Pass } else { Verdict::Fail })
    }

    /// What disturbed the run, as far as it can be told.
    fn noise(&self) -> String {
        let load = self.load_at_start.split_whitespace().next().unwrap_or("unknown");
        let steal = match (self.steal_at_start, proc::steal_and_total_ticks()) {
            (Some((steal, total)), Some((steal_now, total_now))) if total_now > total => {
                let percent = (steal_now - steal) as f64 / (total_now - total) as f64 * 100.0;
                format!("{percent:.2} % of the cores' time went to other machines of the hypervisor")
            }
            _ => "time stolen by a hypervisor unknown".to_string(),
        };
        format!("load average at the start {load}, {steal}")
    }
}

/// The command that was given, with the program's path reduced to how a user runs it.
fn command_line() -> String {
    let quoted = |arg: String| {
        if arg.is_empty() || arg.contains([' ', '"', '\'']) { format!("{arg:?}") } else { arg }
    };
    let args: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("cargo run --release -p shardis-benches -- {}", args.join(" "))
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let hypervisor = if cpuinfo.contains(" hypervisor") { ", virtual" } else { "" };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let memory_gib = memory_kib.unwrap_or(0) as f64 / f64::from(1 << 20);
    // Part of what an operation costs is TCP's, and that depends on this setting.
    let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let (uname, congestion) = (sys::uname(), congestion.trim());
    format!(
        "{model}, {cores} cores{hypervisor}, {memory_gib:.0} GiB, {uname}, TCP congestion control {congestion}"
    )
}

/// The commit measured, marked when the tree holds more than it.
fn source_version() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new("git").args(["-C", root, "describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_string(),
        _ => "not in a git checkout".to_string(),
    }
}

/// YYYY-MM-DD in UTC. The algorithm is Howard Hinnant's civil_from_days, for dates after 1970.
fn date_of(epoch_s: u64) -> String {
    let days = epoch_s / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A figure with about three digits that mean something.
pub fn figure(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A count with its thousands told apart.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_year_ends() {
        for (epoch_s, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
            (1_767_225_600, "2026-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date_of(epoch_s), date);
        }
    }

    #[test]
    fn a_table_is_markdown_with_aligned_columns() {
        let mut table = Table::new(["server", "ops/s"]);
        table.row(["redis".to_string(), "1,000".to_string()]);
        assert_eq!(table.to_markdown(), "| server | ops/s |\n|--------|------:|\n| redis  | 1,000 |\n");
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([123.4, 12.34, 1.234, 0.1234].map(figure), ["123", "12.3", "1.23", "0.123"]);
        assert_eq!([1.0, 1234.0, 1_234_567.0].map(grouped), ["1", "1,234", "1,234,567"]);
    }

    #[test]
    fn a_bar_is_held_when_the_figure_is_not_above_it() {
        assert_eq!(Verdict::at_most(0.45, 0.45), Verdict::Pass);
        assert_eq!(Verdict::at_most(0.451, 0.45), Verdict::Fail);
        assert_eq!(Verdict::at_most(f64::NAN, 0.45), Verdict::Fail);
    }
}
