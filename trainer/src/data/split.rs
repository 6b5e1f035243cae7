//! Splits by group: neighbouring pictures of one camera in both parts would tell of memory, not of sight. Pure.

use rand_chacha::rand_core::Rng as _;
use sconce_model::network::generator;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of two parts, the second of about `share` of them: in an order that the seed and the split's name draw for each group
/// alone, so that more groups move few of those that there were. Where less than a quarter of that is found, it is the smallest
/// group of those that are too large, if there are two: at most half of all.
pub fn by_group(groups: &[u64], share: f64, seed: u64, name: &str) -> (Vec<usize>, Vec<usize>) {
    let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
    groups.iter().for_each(|group| *sizes.entry(*group).or_default() += 1);
    let key = generator(seed, name).next_u64();
    let mut order: Vec<(u64, usize)> = sizes.into_iter().collect();
    order.sort_by_key(|(group, _)| mixed(group ^ key));
    let most = (groups.len() as f64 * share).round() as usize;
    let (mut held, mut taken) = (BTreeSet::new(), 0);
    for (group, size) in &order {
        if taken + size <= most {
            held.insert(*group);
            taken += size;
        }
    }
    if share > 0.0 && taken * 4 < most.max(1) {
        order.retain(|(group, _)| !held.contains(group));
        if let Some((smallest, _)) = order.iter().min_by_key(|(_, size)| size).filter(|_| order.len() > 1) {
            held = BTreeSet::from([*smallest]);
        }
    }
    (0..groups.len()).partition(|&row| !held.contains(&groups[row]))
}

/// SplitMix64's last step: near numbers become far ones.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(groups: &[u64], share: f64) -> (BTreeSet<u64>, BTreeSet<u64>, usize) {
        let (first, second) = by_group(groups, share, 7, "test");
        let of = |rows: &[usize]| rows.iter().map(|&row| groups[row]).collect::<BTreeSet<u64>>();
        assert_eq!(first.len() + second.len(), groups.len());
        (of(&first), of(&second), second.len())
    }

    #[test]
    fn no_group_is_in_both_parts() {
        let groups: Vec<u64> = (0..1_000).map(|row| row % 17).collect();
        let (first, second, held_out) = parts(&groups, 0.2);
        assert!(first.is_disjoint(&second) && first.len() + second.len() == 17);
        assert!((150..=200).contains(&held_out), "{held_out}");
    }

    #[test]
    fn the_smallest_of_large_groups_is_held_out_and_a_single_one_is_not() {
        let groups = [vec![1; 50], vec![2; 30], vec![3; 40]].concat();
        assert_eq!(parts(&groups, 0.1), ([1, 3].into(), [2].into(), 30));
        assert_eq!(parts(&groups, 0.0).2, 0);
        assert_eq!(parts(&[5; 20], 0.2).2, 0);
    }

    #[test]
    fn next_to_nothing_is_held_out_only_where_there_is_no_more() {
        let groups = |sizes: &[usize]| -> Vec<u64> {
            sizes.iter().zip(1..).flat_map(|(&size, group)| vec![group; size]).collect()
        };
        assert_eq!(parts(&groups(&[5_000, 1, 1]), 0.2), ([1].into(), [2, 3].into(), 2));
        assert_eq!(parts(&groups(&[90, 5, 100]), 0.2), ([2, 3].into(), [1].into(), 90));
        assert_eq!(parts(&groups(&[90, 10, 100]), 0.2), ([1, 3].into(), [2].into(), 10), "a quarter of 40");
    }

    #[test]
    fn more_groups_move_few() {
        let before = parts(&(0..100).collect::<Vec<u64>>(), 0.2).1;
        let after = parts(&(0..110).collect::<Vec<u64>>(), 0.2).1;
        assert!(before.intersection(&after).count() >= 15, "{before:?} {after:?}");
    }
}
