//! What a command does while another snapshot is under way, and how long automatic rewrites wait after failures.

use super::*;

/// The reply to a command, if this is under way.
fn reply(snapshots: &Snapshots, current: Option<Purpose>, wanted: Wanted, in_exec: bool) -> String {
    match snapshots.decide(current, wanted, in_exec).status() {
        Ok(status) => status.to_owned(),
        Err(error) => error.text().into_owned(),
    }
}

#[test]
fn one_snapshot_is_under_way_at_a_time_and_others_are_refused_or_scheduled() {
    let snapshots = Snapshots::default();
    let is_scheduled = |purpose| snapshots.figures(purpose, 0).is_scheduled;
    let (save, rewrite) = (Some(Purpose::Save), Some(Purpose::Rewrite));
    assert_eq!(reply(&snapshots, None, Wanted::Save, false), "Background saving started");
    assert_eq!(reply(&snapshots, save, Wanted::Save, false), "ERR Background save already in progress");
    assert_eq!(
        reply(&snapshots, save, Wanted::ScheduledSave, false),
        "ERR Background save already in progress"
    );
    assert_eq!(reply(&snapshots, save, Wanted::SaveAtOnce, false), "ERR Background save already in progress");
    assert_eq!(reply(&snapshots, rewrite, Wanted::SaveAtOnce, false), "OK");
    assert!(
        reply(&snapshots, rewrite, Wanted::Save, false).starts_with("ERR Another child process is active")
    );
    assert!(!is_scheduled(Purpose::Save));
    assert_eq!(reply(&snapshots, rewrite, Wanted::ScheduledSave, false), "Background saving scheduled");
    assert!(is_scheduled(Purpose::Save));
    snapshots.set_begun(Purpose::Save, 0);
    assert!(!is_scheduled(Purpose::Save));
    assert_eq!(reply(&snapshots, None, Wanted::Save, true), "Background saving scheduled");

    let (started, scheduled) =
        ("Background append only file rewriting started", "Background append only file rewriting scheduled");
    assert_eq!(reply(&snapshots, None, Wanted::Rewrite, true), scheduled);
    assert_eq!(reply(&snapshots, save, Wanted::Rewrite, false), scheduled);
    assert!(is_scheduled(Purpose::Rewrite));
    assert_eq!(reply(&snapshots, None, Wanted::Rewrite, false), started);
    snapshots.set_begun(Purpose::Rewrite, 0);
    assert!(!is_scheduled(Purpose::Rewrite));
    assert_eq!(
        reply(&snapshots, rewrite, Wanted::Rewrite, false),
        "ERR Background append only file rewriting already in progress"
    );
}

#[test]
fn after_three_failures_automatic_rewrites_wait_longer_each_time() {
    let snapshots = Snapshots::default();
    let mut now_s = 1000;
    for (failures, minutes) in [(1, 0), (2, 0), (3, 1), (4, 2), (8, 32), (9, 60), (70, 60)] {
        snapshots.rewrites.failures_in_a_row.store(failures, Ordering::Relaxed);
        let began_s = now_s;
        while snapshots.is_limited(now_s) {
            now_s += 1;
        }
        assert_eq!(now_s - began_s, minutes * 60, "after {failures} failures");
    }
    snapshots.rewrites.failures_in_a_row.store(3, Ordering::Relaxed);
    assert!(snapshots.is_limited(now_s));
    reply(&snapshots, Some(Purpose::Save), Wanted::Rewrite, false);
    assert!(!snapshots.is_limited(now_s), "a client asks for one");
}
