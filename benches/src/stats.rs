//! The few statistics a noisy machine needs: medians, spreads, and what is taken round by round.

/// The median; the mean of the middle two for an even count. Panics when empty: a cell without rounds is our bug.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "no median of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

/// The smallest of the groups' medians: the best contender's, as everything compared is a cost. None without groups.
pub fn best_median<'a>(groups: impl IntoIterator<Item = &'a [f64]>) -> Option<f64> {
    groups.into_iter().map(median).min_by(f64::total_cmp)
}

/// The mean. For shares that the kernel samples: one round's is coarse, and none is wild. Panics when empty.
pub fn mean(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "no mean of nothing");
    values.iter().sum::<f64>() / values.len() as f64
}

/// The geometric mean, which says the same of ratios and of their inverses. Panics when empty.
pub fn geometric_mean(ratios: &[f64]) -> f64 {
    mean(&ratios.iter().map(|ratio| ratio.ln()).collect::<Vec<_>>()).exp()
}

/// What a server costs beyond the floor, round by round: both were measured in the same weather.
pub fn own_costs_by_round(costs: &[f64], floor: &[f64]) -> Vec<f64> {
    costs.iter().zip(floor).map(|(cost, floor)| cost - floor).collect()
}

/// The ratio of ours to the best of the peers, round by round.
pub fn ratios_by_round(ours: &[f64], peers: &[&[f64]]) -> Vec<f64> {
    let best = |round: usize| peers.iter().map(|rounds| rounds[round]).fold(f64::INFINITY, f64::min);
    ours.iter().enumerate().map(|(round, ours)| ours / best(round)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_count_is_the_middle_and_of_an_even_count_the_mean_of_two() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 5.0, 7.0]), 6.0);
        assert_eq!(median(&[3.0]), 3.0);
    }

    #[test]
    fn one_wild_round_does_not_move_the_median() {
        assert_eq!(median(&[1.0, 1.1, 1.2, 1.1, 400.0]), 1.1);
    }

    #[test]
    fn the_best_peer_is_the_one_with_the_smallest_median_not_with_the_luckiest_round() {
        let (redis, valkey) = ([4.0, 4.0, 1.0], [2.0, 2.0, 90.0]);
        assert_eq!(best_median([&redis[..], &valkey[..]]), Some(2.0));
        assert_eq!(best_median([]), None);
    }

    #[test]
    fn ratios_by_round_hold_each_round_against_its_own_best_peer() {
        let (redis, valkey) = ([4.0, 2.0], [2.0, 8.0]);
        assert_eq!(ratios_by_round(&[1.0, 1.0], &[&redis, &valkey]), [0.5, 0.5]);
    }

    #[test]
    fn own_costs_are_medians_of_differences_not_differences_of_medians() {
        // The machine slows down by a half in the second round, for both.
        let (ours, floor) = ([1.1, 1.65, 1.2], [1.0, 1.5, 1.0]);
        let own = own_costs_by_round(&ours, &floor);
        assert!((median(&own) - 0.15).abs() < 1e-9, "{own:?}");
    }

    #[test]
    fn a_ratio_and_its_inverse_cancel_in_the_geometric_mean() {
        assert!((geometric_mean(&[2.0, 0.5]) - 1.0).abs() < 1e-12);
        assert!((geometric_mean(&[1.1, 1.1, 1.1]) - 1.1).abs() < 1e-12);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }

    #[test]
    fn the_spread_is_smallest_and_largest() {
        assert_eq!(spread(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }
}
