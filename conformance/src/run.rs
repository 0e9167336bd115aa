//! A run: files times configurations, taken by lanes, longest first.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use crate::catalogue::SuiteFile;
use crate::expect::{FileExpectations, Kind};
use crate::harness::{self, Orders};
use crate::judge::{Judgement, Problem, judge, judge_not_started};
use crate::lane::Lane;
use crate::output::{self, Output};
use crate::server::Server;
use crate::suite::Suite;
use crate::{Result, Trouble, sentinel, vary};

/// How often a file with problems is run again.
pub const RETRIES_MAX: u32 = 2;

/// How the server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// `None` leaves the server to its default, as with a control, which knows no shards.
    pub shard_count: Option<u32>,
    /// `None` leaves the server to its default.
    pub io_backend: Option<String>,
    /// The suite's clients, and its servers among themselves, speak TLS.
    pub tls: bool,
    /// A file that the server's configuration includes: families are loaded as libraries. See [`loaded`](crate::loaded).
    pub loaded_modules: Option<PathBuf>,
}

impl Configuration {
    fn directives(&self) -> Vec<(String, String)> {
        let shards = self.shard_count.map(|count| ("shards".to_owned(), count.to_string()));
        let backend = self.io_backend.clone().map(|backend| ("io-backend".to_owned(), backend));
        let include = self.loaded_modules.as_ref();
        let include = include.map(|path| ("include".to_owned(), path.display().to_string()));
        shards.into_iter().chain(backend).chain(include).collect()
    }

    /// For people and for file names: `2-shards-epoll-tls`.
    pub fn label(&self) -> String {
        let shards = self
            .shard_count
            .map(|count| if count == 1 { "1-shard".into() } else { format!("{count}-shards") });
        let tls = self.tls.then(|| "tls".to_owned());
        let loaded = self.loaded_modules.as_ref().map(|_| "loaded".to_owned());
        let parts: Vec<String> =
            shards.into_iter().chain(self.io_backend.clone()).chain(tls).chain(loaded).collect();
        if parts.is_empty() { "as-is".to_owned() } else { parts.join("-") }
    }
}

/// One file in one configuration.
#[derive(Debug, Clone)]
pub struct Job {
    pub file: SuiteFile,
    pub configuration: Configuration,
    pub expected: FileExpectations,
}

/// What came of a [`Job`].
#[derive(Debug, Clone)]
pub struct Done {
    pub job: Job,
    pub judgement: Judgement,
    /// What was wrong at the first attempt, if it was not the last, and is not listed as `retry`.
    pub at_first: Vec<Problem>,
    pub secs: f64,
    /// How often it was run, 0 if it was not started.
    pub attempts: u32,
    /// The last attempt's output, as it was read and where it lies as it was written; `None` if it was not started.
    pub output: Option<(Output, PathBuf)>,
}

/// What lanes need to run jobs.
#[derive(Debug)]
pub struct Workshop {
    pub suite: Suite,
    pub server: Server,
    /// Lanes and raw output go below it.
    pub dir: PathBuf,
    pub lane_count: usize,
    pub first_baseport: u16,
}

impl Workshop {
    /// Runs all jobs and hands each to `each` as it ends, in whatever order. An error ends the run.
    pub fn run(&self, jobs: Vec<Job>, mut each: impl FnMut(Done)) -> Result<()> {
        let (mut started, not_started): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.expected.whole_file_skip().is_none());
        for job in not_started {
            each(not_started_done(job));
        }
        started.sort_by_key(|job| std::cmp::Reverse(job.file.baseline_secs));
        let lane_count = self.lane_count.min(started.len());
        let lanes = (0..lane_count)
            .map(|_| Lane::prepare(&self.suite, &self.server.path, &self.dir, self.first_baseport))
            .collect::<Result<Vec<Lane>>>()?;

        let (mut lanes, again) = self.run_once(lanes, started, &mut each)?;
        // Alone on the machine: what failed for want of time gets the time.
        if let Some(lane) = lanes.first_mut() {
            for first in again {
                each(self.run_again(lane, first)?);
            }
        }
        Ok(())
    }

    /// Runs each job once, all lanes at the same time. Gives the lanes back, and what deserves another try.
    fn run_once(
        &self,
        lanes: Vec<Lane>,
        jobs: Vec<Job>,
        each: &mut impl FnMut(Done),
    ) -> Result<(Vec<Lane>, Vec<Done>)> {
        let queue = Mutex::new(VecDeque::from(jobs));
        let (results, received) = mpsc::channel();
        thread::scope(|scope| {
            let workers: Vec<_> = lanes
                .into_iter()
                .map(|lane| {
                    let (queue, results) = (&queue, results.clone());
                    scope.spawn(move || self.work(lane, queue, &results))
                })
                .collect();
            drop(results);

            let again = collect(&received, each);
            if again.is_err() {
                // The other lanes stop after the file that they are at.
                lock(&queue).clear();
            }
            let lanes = workers.into_iter().filter_map(|worker| worker.join().ok()).collect();
            again.map(|again| (lanes, again))
        })
    }

    /// One lane's part of [`Workshop::run_once`].
    fn work(
        &self,
        mut lane: Lane,
        queue: &Mutex<VecDeque<Job>>,
        results: &mpsc::Sender<Result<Done>>,
    ) -> Lane {
        while let Some(job) = pop(queue) {
            let done = self.run_job(&mut lane, job, 1);
            let failed = done.is_err();
            if results.send(done).is_err() || failed {
                break;
            }
        }
        lane
    }

    /// Second and later attempts, until it is clean or has had them all.
    fn run_again(&self, lane: &mut Lane, first: Done) -> Result<Done> {
        let problems = first.judgement.problems.into_iter();
        let at_first = problems.filter(|problem| !problem.is_retry).collect();
        let mut done = self.run_job(lane, first.job, 2)?;
        while done.judgement.worth_retrying && done.attempts <= RETRIES_MAX {
            let attempt = done.attempts + 1;
            done = self.run_job(lane, done.job, attempt)?;
        }
        done.at_first = at_first;
        Ok(done)
    }

    fn run_job(&self, lane: &mut Lane, job: Job, attempt: u32) -> Result<Done> {
        if job.file.needs_modules() {
            lane.build_modules()?;
        }
        if job.configuration.tls {
            lane.take_certificates(&self.suite, &self.dir)?;
        }
        let raw = self.raw_path(&job)?;
        let orders = Orders {
            directives: job.configuration.directives(),
            tls: job.configuration.tls,
            skipfile: job.expected.skipfile(),
            denied_tags: job.expected.of_kind(Kind::DenyTag).map(|line| line.name.clone()).collect(),
        };
        let (text, secs) = harness::run_file(lane, &job.file, &orders, &raw)?;
        let output = if job.file.is_of_sentinel() { sentinel::parse(&text) } else { output::parse(&text) };
        let output = vary::settle(&job.file, output);
        let judgement = judge(&job.file, &job.expected, &output);
        let output = Some((output, raw));
        Ok(Done { job, judgement, at_first: Vec::new(), secs, attempts: attempt, output })
    }

    fn raw_path(&self, job: &Job) -> Result<PathBuf> {
        let dir: PathBuf = self.dir.join("raw").join(job.configuration.label());
        make_dir(&dir)?;
        Ok(dir.join(format!("{}.log", job.file.name.replace('/', "."))))
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Trouble::doing(format!("making {}", dir.display())))
}

/// Passes on what is final; gives what deserves another try.
fn collect(received: &mpsc::Receiver<Result<Done>>, each: &mut impl FnMut(Done)) -> Result<Vec<Done>> {
    let mut again = Vec::new();
    for done in received {
        let done = done?;
        if done.judgement.worth_retrying {
            again.push(done);
        } else {
            each(done);
        }
    }
    Ok(again)
}

fn not_started_done(job: Job) -> Done {
    let judgement = match job.expected.whole_file_skip() {
        Some(line) => judge_not_started(&job.file, line),
        None => unreachable!("only files with a line that skips them come here"),
    };
    Done { job, judgement, at_first: Vec::new(), secs: 0.0, attempts: 0, output: None }
}

fn pop(queue: &Mutex<VecDeque<Job>>) -> Option<Job> {
    lock(queue).pop_front()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
