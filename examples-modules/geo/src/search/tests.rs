//! Searches as redis-server 7.0.15 answered them (`recorded.txt`).

use super::*;
use crate::shape::Extent;
use crate::text::push_distance;

/// Members in the order of their scores, then of their names.
struct Sorted(Vec<(f64, Vec<u8>)>);

impl Members for Sorted {
    fn for_each_in(&mut self, scores: Range<f64>, mut visit: impl FnMut(f64, &[u8]) -> ControlFlow<()>) {
        let first = self.0.partition_point(|(score, _)| *score < scores.start);
        for (score, member) in self.0[first..].iter().take_while(|(score, _)| *score < scores.end) {
            if visit(*score, member).is_break() {
                return;
            }
        }
    }
}

/// Lines of the record: `point LONGITUDE LATITUDE MEMBER SCORE`, `clear`, and
/// `search LONGITUDE LATITUDE (radius METRES | box WIDTH HEIGHT) (none|asc|desc) (all|first|any) COUNT = (MEMBER DISTANCE)...`
#[test]
fn searches_are_answered_as_redis_answers_them() {
    let recorded = match std::env::var("GEO_RECORDED") {
        Ok(path) => std::fs::read_to_string(path).expect("GEO_RECORDED names a record"),
        Err(_) => include_str!("recorded.txt").to_owned(),
    };
    let (mut members, mut searches, mut wrong) = (Sorted(Vec::new()), 0, Vec::new());
    for (at, line) in recorded.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<f64>().expect("a number");
        match words[0] {
            "clear" => members.0.clear(),
            "point" => {
                let position = Position::new(number(1), number(2)).expect("it lies in the grid");
                assert_eq!(position.number() as f64, number(4), "{line}");
                members.0.push((number(4), words[3].as_bytes().to_vec()));
                members.0.sort_by(|a, b| a.partial_cmp(b).expect("scores are numbers"));
            }
            "search" => {
                let ours = answer(&mut members, &words[1..]);
                let (asked, answer) = line.split_once(" =").expect("a search has an answer");
                if ours != answer {
                    wrong.push(format!("line {}: {asked}: {ours}, not {answer}", at + 1));
                }
                searches += 1;
            }
            other => panic!("line {}: {other}", at + 1),
        }
    }
    assert!(wrong.is_empty(), "{} of {searches} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(searches > 100);
}

fn answer(members: &mut Sorted, words: &[&str]) -> String {
    let number = |at: usize| words[at].parse::<f64>().expect("a number");
    let centre = Position::new(number(0), number(1)).expect("it lies in the grid");
    let (extent, words) = match words[2] {
        "radius" => (Extent::Radius(number(3)), &words[4..]),
        _ => (Extent::Box { width: number(3), height: number(4) }, &words[5..]),
    };
    let count = match words[1] {
        "all" => None,
        _ => Some(words[2].parse::<usize>().expect("a count")),
    };
    let is_any = words[1] == "any";
    let direction = match words[0] {
        "asc" => Some(Direction::Ascending),
        "desc" => Some(Direction::Descending),
        _ if count.is_some() && !is_any => Some(Direction::Ascending),
        _ => None,
    };
    let mut found = search(members, &Shape::new(centre, extent, 1.0), count.filter(|_| is_any));
    found.sort_and_keep(direction, count);
    let mut text = Vec::new();
    for hit in &found.hits {
        text.push(b' ');
        text.extend_from_slice(found.member(hit));
        text.push(b' ');
        push_distance(&mut text, hit.distance_m);
    }
    String::from_utf8(text).expect("members are ASCII")
}
