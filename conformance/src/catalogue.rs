//! The catalogue: which tests there are. Taken from real Redis (names.tsv, files.tsv), so that a test which our server
//! never reached counts as missing and does not quietly shrink the total.
//!
//! A name is not unique inside its file (a test in a loop repeats it), so a test is (file, name, occurrence), and
//! the occurrence is counted in the order in which the suite reports.

use std::collections::HashMap;

use crate::{Result, Trouble};

const NAMES_TSV: &str = include_str!("../names.tsv");
const FILES_TSV: &str = include_str!("../files.tsv");

/// One file of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteFile {
    /// As the suite's `--single` takes it: `unit/type/incr`.
    pub name: String,
    /// How long real Redis takes on two cores; orders the lanes and bounds the file's time.
    pub baseline_secs: u64,
    /// Its tests in order, each with the number of its occurrences (at least 1).
    pub tests: Vec<(String, u32)>,
}

impl SuiteFile {
    /// The file's share of the denominator.
    pub fn test_count(&self) -> u32 {
        self.tests.iter().map(|(_, occurrences)| occurrences).sum()
    }

    /// Occurrences of `name` in real Redis' run; 0 for a name that it does not have.
    pub fn occurrences(&self, name: &str) -> u32 {
        self.tests.iter().find(|(test, _)| test == name).map_or(0, |(_, occurrences)| *occurrences)
    }

    /// Has a runner of its own: see [`sentinel`](crate::sentinel).
    pub fn is_of_sentinel(&self) -> bool {
        self.name.starts_with("sentinel/")
    }

    /// Needs the test modules compiled, and `MODULE LOAD`.
    pub fn needs_modules(&self) -> bool {
        self.name.starts_with("unit/moduleapi/")
    }
}

/// All files, in the suite's own order.
#[derive(Debug, Clone)]
pub struct Catalogue {
    pub files: Vec<SuiteFile>,
}

impl Catalogue {
    /// The committed catalogue.
    pub fn load() -> Result<Catalogue> {
        Catalogue::parse(FILES_TSV, NAMES_TSV)
    }

    pub fn parse(files_tsv: &str, names_tsv: &str) -> Result<Catalogue> {
        let mut files = Vec::new();
        let mut index_of = HashMap::new();
        for (line_number, line) in rows(files_tsv) {
            let [name, secs] = columns(line)
                .ok_or_else(|| Trouble::new(format!("files.tsv:{line_number}: wants FILE<TAB>SECONDS")))?;
            let baseline_secs = secs.parse().map_err(|_| {
                Trouble::new(format!("files.tsv:{line_number}: {secs:?} is no number of seconds"))
            })?;
            if index_of.insert(name.to_owned(), files.len()).is_some() {
                return Err(Trouble::new(format!("files.tsv:{line_number}: {name} is there twice")));
            }
            files.push(SuiteFile { name: name.to_owned(), baseline_secs, tests: Vec::new() });
        }
        for (line_number, line) in rows(names_tsv) {
            let [file, name, occurrences] = columns(line).ok_or_else(|| {
                Trouble::new(format!("names.tsv:{line_number}: wants FILE<TAB>NAME<TAB>COUNT"))
            })?;
            let occurrences = match occurrences.parse() {
                Ok(count) if count > 0 => count,
                _ => {
                    return Err(Trouble::new(format!(
                        "names.tsv:{line_number}: {occurrences:?} is no count"
                    )));
                }
            };
            let index = *index_of.get(file).ok_or_else(|| {
                Trouble::new(format!("names.tsv:{line_number}: {file} is not in files.tsv"))
            })?;
            if files[index].occurrences(name) > 0 {
                return Err(Trouble::new(format!("names.tsv:{line_number}: {file} has {name:?} twice")));
            }
            files[index].tests.push((name.to_owned(), occurrences));
        }
        Ok(Catalogue { files })
    }

    pub fn file(&self, name: &str) -> Option<&SuiteFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// What a person means by a file: its name, its path in the suite, or the end of its name if only one file has
    /// it (`incr` for `unit/type/incr`).
    pub fn find(&self, wanted: &str) -> Result<&SuiteFile> {
        let name = wanted.trim_start_matches("tests/").trim_end_matches(".tcl");
        if let Some(file) = self.file(name) {
            return Ok(file);
        }
        let ending = format!("/{name}");
        let mut alike: Vec<&SuiteFile> =
            self.files.iter().filter(|file| file.name.ends_with(&ending)).collect();
        // The module tests repeat a dozen names: unit/auth is meant rather than unit/moduleapi/auth.
        if alike.len() > 1 {
            alike.retain(|file| !file.needs_modules());
        }
        match alike[..] {
            [file] => Ok(file),
            [] => Err(Trouble::new(format!("the suite has no file {wanted:?}; see conformance/files.tsv"))),
            _ => {
                let names: Vec<&str> = alike.iter().map(|file| file.name.as_str()).collect();
                Err(Trouble::new(format!("{wanted:?} may be {}", names.join(" or "))))
            }
        }
    }

    /// names.tsv and files.tsv as they are committed, for `--record`.
    pub fn to_tsv(&self) -> (String, String) {
        let mut files_tsv = header(FILES_TSV);
        let mut names_tsv = header(NAMES_TSV);
        for file in &self.files {
            files_tsv.push_str(&format!("{}\t{}\n", file.name, file.baseline_secs));
            for (name, occurrences) in &file.tests {
                names_tsv.push_str(&format!("{}\t{name}\t{occurrences}\n", file.name));
            }
        }
        (files_tsv, names_tsv)
    }
}

/// The lines that say something, with their numbers. Comments stand only at the head of a file.
pub(crate) fn rows(tsv: &str) -> impl Iterator<Item = (usize, &str)> {
    tsv.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| {
        let blank = line.trim().is_empty();
        !blank && !line.starts_with('#')
    })
}

/// The comment lines at the head, kept when a file is rewritten.
pub(crate) fn header(tsv: &str) -> String {
    tsv.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

pub(crate) fn columns<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split('\t').collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_catalogue_has_the_measured_totals() {
        let catalogue = Catalogue::load().unwrap();
        let (modules, own): (Vec<_>, Vec<_>) = catalogue.files.iter().partition(|file| file.needs_modules());
        let (sentinel, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|file| file.is_of_sentinel());
        let total = |files: &[&SuiteFile]| files.iter().map(|file| file.test_count()).sum::<u32>();

        assert_eq!((own.len(), total(&own)), (84, 2865));
        assert_eq!((modules.len(), total(&modules)), (37, 349));
        assert_eq!((sentinel.len(), total(&sentinel)), (14, 152));
    }

    #[test]
    fn the_committed_catalogue_survives_being_rewritten() {
        let catalogue = Catalogue::load().unwrap();
        let (files_tsv, names_tsv) = catalogue.to_tsv();

        assert_eq!(files_tsv, FILES_TSV);
        assert_eq!(names_tsv, NAMES_TSV);
    }

    #[test]
    fn a_file_is_found_by_name_path_or_unique_ending() {
        let catalogue = Catalogue::parse("unit/type/incr\t1\nunit/other\t2\nx/other\t3\n", "").unwrap();

        for wanted in ["unit/type/incr", "tests/unit/type/incr.tcl", "type/incr", "incr"] {
            assert_eq!(catalogue.find(wanted).unwrap().name, "unit/type/incr");
        }
        let committed = Catalogue::load().unwrap();
        assert_eq!(committed.find("auth").unwrap().name, "unit/auth");
        assert_eq!(committed.find("moduleapi/auth").unwrap().name, "unit/moduleapi/auth");
        assert!(catalogue.find("other").unwrap_err().0.contains("unit/other or x/other"));
        assert!(catalogue.find("ncr").unwrap_err().0.contains("no file"));
    }

    #[test]
    fn a_malformed_catalogue_names_the_line() {
        let trouble = |files, names| Catalogue::parse(files, names).unwrap_err().0;

        assert!(trouble("a\t1\na\t2\n", "").starts_with("files.tsv:2:"));
        assert!(trouble("a\tsoon\n", "").starts_with("files.tsv:1:"));
        assert!(trouble("a\t1\n", "# c\nb\tname\t1\n").starts_with("names.tsv:2:"));
        assert!(trouble("a\t1\n", "a\tname\t0\n").starts_with("names.tsv:1:"));
        assert!(trouble("a\t1\n", "a\tname\t1\na\tname\t2\n").starts_with("names.tsv:2:"));
    }
}
